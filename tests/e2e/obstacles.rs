//! What belongs to somebody else is told, all of it at once, and left alone.

use std::net::{Ipv4Addr, TcpListener};

use crate::harness::{engine, engine_output, state_of, succeed, xtask_output, xtask_with};

const NAME: &str = "kedge-obstacle";

/// Removed when the test ends, however it ends.
struct Foreign;

impl Drop for Foreign {
    fn drop(&mut self) {
        engine_output(&["rm", "--force", &format!("{NAME}-hub"), "kedge-somebodys-node"]);
        engine_output(&["network", "rm", NAME]);
    }
}

/// A small disk, gone when the test ends.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let options = ["-t", "tmpfs", "-o", &size, "kedge-test"];
        assert_cmd::Command::new("mount").args(options).arg(folder.path()).assert().success();
        Self(folder)
    }

    fn full() -> Self {
        let disk = Self::mount("4k");
        fs_err::write(disk.0.path().join("full"), [0; 4096]).unwrap();
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = assert_cmd::Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
#[ignore = "needs a container engine, and root to mount a disk"]
fn a_disk_without_room_is_told_and_nothing_is_left() {
    let disk = Disk::full();
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("kedge.toml");
    fs_err::write(&settings, format!("[cluster]\nname = {NAME:?}\n")).unwrap();
    let state = disk.0.path().to_str().unwrap();
    let (code, _, error) = xtask_with(
        &["hub", "up", "--yes", "--profile", settings.to_str().unwrap()],
        &[("XDG_STATE_HOME", state)],
    );
    assert_eq!(code, 4, "{error}");
    assert!(error.contains(state) && error.contains("No space left on device"), "{error}");
    assert!(!engine(&["ps", "--all", "--format", "{{.Names}}"]).contains(NAME));
}

#[test]
#[ignore = "needs Podman, and root to mount a disk"]
fn a_disk_with_too_little_room_is_told_before_anything_is_made() {
    let disk = Disk::mount("64m");
    let path = disk.0.path();
    let at = |name: &str| path.join(name).to_str().unwrap().to_owned();
    // An empty Podman of its own: that of the machine may have the images that would need the room.
    fs_err::write(
        path.join("storage.conf"),
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n", at("graph"), at("run")),
    )
    .unwrap();
    let settings = at("kedge.toml");
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    fs_err::write(&settings, format!("[cluster]\nname = {NAME:?}\n[registry]\nport = {port}\n")).unwrap();
    let (code, _, error) = xtask_with(
        &["registry", "up", "--yes", "--engine", "podman", "--profile", &settings],
        &[("CONTAINERS_STORAGE_CONF", &at("storage.conf")), ("XDG_CACHE_HOME", path.to_str().unwrap())],
    );
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("too little room on the disk") && error.contains("MB are needed"), "{error}");
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert!(!state_of(NAME).exists());
}

#[test]
#[ignore = "needs a container engine"]
fn a_node_image_that_is_nowhere_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("kedge.toml");
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let image = "localhost/kedge/nowhere:1";
    let text = format!("[cluster]\nname = {NAME:?}\nnode-image = {image:?}\n[registry]\nport = {port}\n");
    fs_err::write(&settings, text).unwrap();
    let settings = settings.to_str().unwrap();
    let (code, report, error) = xtask_output(&["up", "--yes", "--json", "--profile", settings]);
    succeed(&["down", "--profile", settings]);
    assert_eq!(code, 1, "{error}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let verdict = &report["verdict"];
    assert_eq!(verdict["layer"], "node", "{verdict:#}");
    assert!(verdict["cause"].as_str().unwrap().contains(&format!("failed to pull `{image}`")), "{verdict:#}");
}

#[test]
#[ignore = "needs a container engine"]
fn what_somebody_else_has_made_is_told_at_once_and_left_alone() {
    succeed(&["doctor"]);
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("kedge.toml");
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let number = port.local_addr().unwrap().port();
    fs_err::write(&settings, format!("[cluster]\nname = {NAME:?}\n[registry]\nport = {number}\n")).unwrap();
    let settings = settings.to_str().unwrap();

    let foreign = Foreign;
    engine(&["network", "create", NAME]);
    engine(&["create", "--name", &format!("{NAME}-hub"), "localhost/kedge/probe:1"]);
    let label = format!("io.x-k8s.kind.cluster={NAME}");
    engine(&["create", "--name", "kedge-somebodys-node", "--label", &label, "localhost/kedge/probe:1"]);

    for command in [&["up", "--yes"][..], &["e2e", "--yes"], &["plan"], &["up", "--dry-run"]] {
        let (code, _, error) = xtask_output(&[command, &["--profile", settings]].concat());
        assert_eq!(code, 6, "{command:?}: {error}");
        for obstacle in [
            format!("a network `{NAME}`"),
            format!("a container `{NAME}-hub`"),
            format!("port {number}"),
            format!("a kind cluster `{NAME}`"),
        ] {
            assert!(error.contains(&obstacle), "{obstacle} is not in: {error}");
        }
    }
    // `down` removes what is ours, and of these nothing is.
    succeed(&["down", "--profile", settings]);
    let containers = engine(&["ps", "--all", "--format", "{{.Names}}"]);
    assert!(
        containers.contains(&format!("{NAME}-hub")) && containers.contains("kedge-somebodys-node"),
        "{containers}"
    );
    assert!(engine(&["network", "ls", "--format", "{{.Name}}"]).contains(NAME));
    assert!(!state_of(NAME).exists());
    drop(foreign);
}
