//! A package repository with a signature, served to the builds of this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{Package, architecture};
use crate::harness::{engine, is_podman};

/// The files of the repository, and who serves them for as long as the test runs.
pub(crate) struct Repository {
    folder: TempDir,
    /// Where builds find it.
    pub(crate) url: String,
}

impl Repository {
    /// A repository with these packages.
    pub(crate) fn of(packages: &[Package<'_>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        index(folder.path(), packages);
        sign(folder.path());
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://{}:{port}/debian/12/prod", own_address());
        let root = folder.path().to_owned();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                serve(connection.unwrap(), &root);
            }
        });
        Self { folder, url }
    }

    /// The key of its signature.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.asc")
    }
}

/// An address of this machine that builds reach: Podman runs them in the machine's own network, Docker beside its bridge.
fn own_address() -> String {
    if is_podman() {
        return "127.0.0.1".into();
    }
    let gateway = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
    engine(&["network", "inspect", "--format", gateway, "bridge"]).trim().to_owned()
}

fn index(folder: &Path, packages: &[Package<'_>]) {
    let pool = folder.join("pool");
    fs_err::create_dir(&pool).unwrap();
    let entry = |package: &Package<'_>| {
        let bytes = fs_err::read(package.build(&pool)).unwrap();
        let file = package.file_name();
        let control = package.control();
        format!("{control}Filename: pool/{file}\nSize: {}\nSHA256: {}\n\n", bytes.len(), hash(&bytes))
    };
    let text: String = packages.iter().map(entry).collect();
    let name = format!("main/binary-{}/Packages", architecture());
    let list = folder.join("dists/bookworm").join(&name);
    fs_err::create_dir_all(list.parent().unwrap()).unwrap();
    fs_err::write(&list, &text).unwrap();
    let release = format!(
        "Suite: bookworm\nCodename: bookworm\nDate: {}\nArchitectures: {}\nComponents: main\nSHA256:\n {} {} {name}\n",
        jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S UTC"),
        architecture(),
        hash(text.as_bytes()),
        text.len()
    );
    fs_err::write(folder.join("dists/bookworm/Release"), release).unwrap();
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// With a key that is made for it.
fn sign(folder: &Path) {
    let home = tempfile::tempdir().unwrap();
    let gpg = |arguments: &[&str]| {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir")
            .arg(home.path())
            .args(["--batch", "--quiet", "--passphrase", ""])
            .args(arguments);
        gpg.assert().success();
    };
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    gpg(&["--quick-generate-key", "tests@kedge.test", "ed25519", "sign", "never"]);
    gpg(&["--armor", "--output", &path("key.asc"), "--export"]);
    gpg(&["--clearsign", "--output", &path("dists/bookworm/InRelease"), &path("dists/bookworm/Release")]);
}

/// Answers one request for a file of the repository.
fn serve(mut connection: TcpStream, root: &Path) {
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    // The rest of the request has to be read, or the connection would be reset.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path =
        request.split(' ').nth(1).and_then(|path| path.strip_prefix("/debian/12/prod/")).unwrap_or_default();
    let (status, body) = match fs_err::read(root.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // A client that has gone needs no answer.
    let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&body));
}
