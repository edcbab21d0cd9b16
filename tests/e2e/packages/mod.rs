//! Stand-ins of Microsoft's packages: names, accounts, units, files and dependencies of the real ones, and in the place of
//! their daemon KEdge's own, so that an image with them reaches the hub. The folders beside this file are what is in them.

mod repository;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use xtask::paths::Paths;
use xtask::steps::binaries;

use crate::harness::project;

pub(crate) use repository::Repository;

/// A package to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package<'a> {
    name: &'static str,
    pub(crate) version: &'a str,
    pub(crate) architecture: &'a str,
    depends: &'a str,
    /// Whose configuration is in it.
    services: &'static [&'static str],
}

/// This machine's architecture, as Debian calls it.
pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The daemon's package, which depends on one version of the other.
pub(crate) fn edge<'a>(version: &'a str, depends: &'a str) -> Package<'a> {
    Package { name: "aziot-edge", version, architecture: architecture(), depends, services: &["edged"] }
}

/// The package with the services that the daemon rests on.
pub(crate) fn identity_service(version: &str) -> Package<'_> {
    Package {
        name: "aziot-identity-service",
        version,
        architecture: architecture(),
        // The latter brings scripts that want to make accounts and to lead udev.
        depends: "psmisc, libtss2-esys-3.0.2-0",
        services: &["certd", "identityd", "keyd", "tpmd"],
    }
}

/// The engine that Microsoft packages, which is Debian's underneath.
pub(crate) fn moby_engine() -> Package<'static> {
    Package {
        name: "moby-engine",
        version: "20.10.24-1",
        architecture: architecture(),
        depends: "docker.io",
        services: &[],
    }
}

impl Package<'_> {
    /// The name of its file, as Debian has it.
    pub(crate) fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version, self.architecture)
    }

    /// Makes the file in `folder`. KEdge's programs have to be compiled.
    pub(crate) fn build(&self, folder: &Path) -> PathBuf {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("package");
        fs_err::create_dir_all(root.join("DEBIAN")).unwrap();
        let contents = project().join("tests/e2e/packages").join(self.name);
        if contents.exists() {
            copy(&contents, &root);
        }
        for service in self.services {
            let configuration = root.join("etc/aziot").join(service);
            fs_err::create_dir_all(configuration.join("config.d")).unwrap();
            fs_err::write(configuration.join("config.toml.default"), "").unwrap();
        }
        if self.name == "aziot-edge" {
            let programs = binaries::folder(&Paths::discover("kedge").unwrap());
            fs_err::create_dir_all(root.join("usr/libexec/aziot")).unwrap();
            fs_err::copy(programs.join("kedge-edged"), root.join("usr/libexec/aziot/aziot-edged")).unwrap();
        }
        fs_err::write(root.join("DEBIAN/control"), self.control()).unwrap();
        let file = folder.join(self.file_name());
        // Compressed little: it is read once.
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]).arg(root).arg(&file);
        dpkg.assert().success();
        file
    }

    fn control(&self) -> String {
        format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: KEdge's tests\nDepends: {}\n\
             Description: Stand-in\n",
            self.name, self.version, self.architecture, self.depends
        )
    }
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs_err::copy(entry.path(), to).unwrap();
        }
    }
}
