//! The image with Microsoft's runtime, from stand-ins of its packages: built, refused, started, proved, upgraded.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use kedge_sim::pki::{Validity, self_signed_client};
use serde_json::Value;
use tempfile::TempDir;
use xtask::provisioning::{DeviceDraft, Draft, Given, IdentityDraft, RegistrationDraft};

use crate::harness::{
    engine, engine_output, in_edge, newest_report, project, state_of, succeed, xtask_output,
};
use crate::packages::{Package, Repository, edge, identity_service, moby_engine};

const NAME: &str = "kedge-azure";
/// A module's image that no registry has.
const PRELOADED: &str = "localhost/kedge/preloaded-sensor:test";

const EDGE_CA: &str = "/var/lib/aziot/certd/aziot-edged-ca.pem";

/// What the entrypoint and `iotedge config apply` leave behind: owner, mode, file.
const FILES: &str = "\
    root:root 755 /var/secrets/kedge\n\
    root:root 600 /etc/aziot/config.toml\n\
    aziotcs:aziotcs 600 /var/secrets/kedge/trust-bundle.pem\n\
    aziotks:aziotks 700 /var/secrets/aziot/keyd\n\
    aziotks:aziotks 600 /var/secrets/aziot/keyd/device-id\n\
    aziotks:aziotks 600 /etc/aziot/keyd/config.d/00-super.toml\n\
    aziotcs:aziotcs 600 /etc/aziot/certd/config.d/00-super.toml\n\
    aziotid:aziotid 600 /etc/aziot/identityd/config.d/00-super.toml\n\
    aziottpm:aziottpm 600 /etc/aziot/tpmd/config.d/00-super.toml\n\
    iotedge:iotedge 600 /etc/aziot/edged/config.d/00-super.toml\n\
    aziotks:aziotks 700 /var/lib/aziot/keyd\n\
    iotedge:iotedge 755 /var/lib/aziot/edged\n";

/// A deployment of its own, whose packages are in a folder of its own.
struct Deployment {
    folder: TempDir,
    port: u16,
}

impl Deployment {
    fn new() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let deployment = Self { folder: tempfile::tempdir().unwrap(), port };
        fs_err::create_dir(deployment.path("packages")).unwrap();
        deployment.set("packages = \"\"");
        deployment.succeed("down");
        deployment
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the settings, with these of Microsoft's runtime.
    fn set(&self, runtime: &str) {
        self.set_runtime("azure", runtime);
    }

    fn set_runtime(&self, kind: &str, more: &str) {
        let settings = format!(
            "[cluster]\nname = {NAME:?}\n[registry]\nport = {}\n[device]\ndeployment = {:?}\n\
             [runtime]\nuse = {kind:?}\n{more}\n",
            self.port,
            self.path("deployment.json"),
        );
        fs_err::write(self.path("kedge.toml"), settings).unwrap();
        let manifest = fs_err::read_to_string(project().join("config/deployment.json")).unwrap();
        let manifest = manifest.replace("kedge/temperature-sensor", PRELOADED);
        fs_err::write(self.path("deployment.json"), manifest).unwrap();
    }

    /// The same, with packages of this version from the folder, and the module's image in the edge's.
    fn set_version(&self, version: &str) {
        self.set(&format!(
            "version = {version:?}\npackages = {:?}\npreload = [{PRELOADED:?}]",
            self.path("packages")
        ));
    }

    fn package(&self, package: Package<'_>) -> PathBuf {
        package.build(&self.path("packages"))
    }

    fn run(&self, command: &str) -> (i32, String, String) {
        let settings = self.path("kedge.toml");
        let arguments: Vec<_> = command.split(' ').chain(["--profile", settings.to_str().unwrap()]).collect();
        xtask_output(&arguments)
    }

    fn succeed(&self, command: &str) -> String {
        let (code, stdout, _) = self.run(command);
        assert_eq!(code, 0, "cargo xtask {command} failed");
        stdout
    }

    /// The reference of the edge's image, once it is built.
    fn image(&self) -> String {
        let built = self.succeed("image build --yes");
        built.lines().find(|line| line.contains("kedge/edge:")).unwrap().to_owned()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.run("down");
        }
    }
}

/// Compiles KEdge's programs, and gives the sensor's image the name of one that is preloaded.
fn preloaded_image() {
    let built = succeed(&["image", "build", "--yes"]);
    let sensor = built.lines().find(|line| line.contains("kedge/temperature-sensor:")).unwrap();
    engine(&["tag", sensor, PRELOADED]);
}

#[test]
#[ignore = "needs a container engine"]
fn microsofts_packages_run_in_the_pod_and_an_upgrade_keeps_identity_and_modules() {
    preloaded_image();
    let deployment = Deployment::new();
    for version in ["1.6.0-1", "1.6.1-1"] {
        deployment.package(identity_service(version));
        deployment.package(edge(version, &format!("aziot-identity-service (= {version}), psmisc")));
    }

    // Another runtime has had the volumes before, and wrote all of it as root.
    deployment.set_runtime("simulated", &format!("preload = [{PRELOADED:?}]"));
    deployment.succeed("up --yes");
    assert_eq!(in_edge(NAME, &["stat", "-c", "%U", EDGE_CA]).trim(), "root");
    let certificate = in_edge(NAME, &["cat", EDGE_CA]);

    deployment.set_version("1.6.0");
    deployment.succeed("up --yes");
    assert_eq!(in_edge(NAME, &["stat", "-c", "%U", EDGE_CA]).trim(), "aziotcs");
    assert_eq!(in_edge(NAME, &["cat", EDGE_CA]), certificate, "it is the gateway of before");
    deployment.succeed("verify");
    let report = newest_report();
    assert_eq!(
        report["environment"]["runtime"], "simulated",
        "the stand-ins are not taken for the real ones: {report:#}"
    );
    the_runtime_has_what_it_needs();
    let before = kept();

    deployment.set_version("1.6.1");
    deployment.succeed("up --yes");
    assert_eq!(in_edge(NAME, &["iotedge", "version"]).trim(), "iotedge 1.6.1-1");
    deployment.succeed("verify");
    assert_eq!(kept(), before, "identity and modules are those of before");
    let loaded = in_edge(NAME, &["journalctl", "--unit", "kedge-preload.service", "--no-pager"]);
    assert!(!loaded.contains("loaded localhost"), "the engine has the image already: {loaded}");

    deployment.succeed("down");
    assert_eq!(deployment.succeed("status --json").trim(), "[]");
    assert!(!state_of(NAME).exists());
}

fn the_runtime_has_what_it_needs() {
    assert_eq!(in_edge(NAME, &["systemctl", "is-system-running"]).trim(), "running");
    let units = [
        "edged.service",
        "edged.mgmt.socket",
        "certd.socket",
        "identityd.socket",
        "keyd.socket",
        "tpmd.socket",
    ];
    let units: Vec<_> = units.iter().map(|unit| format!("aziot-{unit}")).collect();
    let command: Vec<_> =
        ["systemctl", "is-active"].into_iter().chain(units.iter().map(String::as_str)).collect();
    assert_eq!(in_edge(NAME, &command).lines().filter(|line| *line == "active").count(), units.len());

    let files: Vec<_> = FILES.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let owners = in_edge(NAME, &[&["stat", "-c", "%U:%G %a %n"], &files[..]].concat());
    assert_eq!(owners, FILES);
    for folder in ["/etc/aziot", "/var/secrets"] {
        assert_eq!(in_edge(NAME, &["stat", "-f", "-c", "%T", folder]).trim(), "tmpfs", "{folder}");
    }
    // The key in the service's file is that of the Secret.
    let compare = "grep -qF \"SharedAccessKey=$(base64 -w 0 /var/secrets/aziot/keyd/device-id)\" /etc/aziot/config.toml";
    in_edge(NAME, &["sh", "-c", compare]);

    let settings: Value = serde_json::from_str(&in_edge(NAME, &["cat", "/etc/docker/daemon.json"])).unwrap();
    assert!(settings["log-opts"]["max-size"].is_string(), "{settings}");
    let servers = settings["dns"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(servers.iter().all(|server| !server.as_str().unwrap().starts_with("127.")), "{settings}");

    let module = in_edge(NAME, &["docker", "inspect", "--format", "{{.Config.Image}}", "tempSensor"]);
    assert_eq!(module.trim(), PRELOADED);
}

/// What tells this device and its module from others: the Edge CA, the keys, and the module's container.
fn kept() -> [String; 2] {
    let keys = "cd /var/lib/aziot && sha256sum certd/aziot-edged-ca* keyd/aziot_identityd_master_id";
    [
        in_edge(NAME, &["sh", "-c", keys]),
        in_edge(NAME, &["docker", "inspect", "--format", "{{.Id}} {{.Image}}", "tempSensor"]),
    ]
}

#[test]
#[ignore = "needs a container engine"]
fn what_does_not_go_together_is_refused_in_the_build_and_what_is_missing_at_the_start() {
    preloaded_image();
    let deployment = Deployment::new();
    // The files are called as they should be.
    let cut = deployment.path("packages").join(edge("1.6.0-1", "").file_name());
    fs_err::write(&cut, "").unwrap();
    deployment.package(identity_service("1.6.0-1"));
    deployment.set(&format!("packages = {:?}", deployment.path("packages")));
    let (code, _, told) = deployment.run("image build --yes");
    assert!(code == 1 && told.contains("` is no Debian package; copy it anew"), "{told}");
    let package = deployment.package(identity_service("1.6.9-1"));
    let name = identity_service("1.6.0-1").file_name();
    fs_err::rename(package, deployment.path("packages").join(name)).unwrap();
    deployment.package(edge("1.6.0-1", "aziot-identity-service (= 1.6.0-1)"));
    deployment.set(&format!("packages = {:?}", deployment.path("packages")));
    let (code, _, told) = deployment.run("image build --yes");
    assert_eq!(code, 1, "{told}");
    let expected = "the edge image cannot be built: aziot-identity-service: found 1.6.9-1 for";
    assert!(told.contains(expected) && told.contains("which aziot-edge 1.6.0-1 needs"), "{told}");

    microsofts_engine_comes_before_the_runtime(&deployment);

    let packages = [
        identity_service("1.5.6-1"),
        edge("1.5.21-1", "aziot-identity-service (= 1.5.6-1)"),
        identity_service("1.6.0-1"),
        edge("1.6.1-1", "aziot-identity-service (= 1.6.0-1)"),
    ];
    let repository = Repository::of(&packages);
    let source = format!("repository = {:?}\nrepository-key = {:?}", repository.url, repository.key());
    deployment.set(&format!("version = \"1.7\"\n{source}"));
    let (code, _, told) = deployment.run("image build --yes");
    assert!(code == 1 && told.contains("aziot-edge: found 1.6.1-1, 1.5.21-1 for"), "{told}");
    deployment.set(&source);
    let image = deployment.image();
    let query = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n", "aziot-*"];
    let installed = engine(&[&["run", "--rm", "--entrypoint", "", &image], &query[..]].concat());
    assert_eq!(installed, "aziot-edge 1.6.1-1\naziot-identity-service 1.6.0-1\n", "the last one that fits");

    a_start_without_a_part_of_the_secret_says_which(&image);
    the_keys_of_each_kind_become_the_services_own(&image);

    deployment.set(&format!("version = \"1.5\"\n{source}"));
    let image = deployment.image();
    let installed = engine(&[&["run", "--rm", "--entrypoint", "", &image], &query[..]].concat());
    assert_eq!(installed, "aziot-edge 1.5.21-1\naziot-identity-service 1.5.6-1\n");
    deployment.succeed("down");
    assert!(!state_of(NAME).exists());
}

/// The runtime's package gives up where the engine's group is not there yet.
fn microsofts_engine_comes_before_the_runtime(deployment: &Deployment) {
    deployment.package(identity_service("1.6.0-1"));
    let packages = deployment.path("packages");
    deployment.set(&format!("engine = \"moby-engine\"\npackages = {packages:?}"));
    let (code, _, told) = deployment.run("image build --yes");
    assert!(code == 3 && told.contains("moby-engine: found no such package"), "{told}");
    deployment.package(moby_engine());
    let image = deployment.image();
    let newer = "cd /var/lib/dpkg/info && [ aziot-edge.list -nt moby-engine.list ] && dockerd --version";
    engine(&["run", "--rm", "--entrypoint", "", &image, "sh", "-c", newer]);
}

/// Starts the image with these files in the place of the Secret, and gives back how it ended, and what it wrote.
fn start(image: &str, files: &[(&str, &str)]) -> (i32, String) {
    start_with(image, &[], files)
}

/// The same, with these further arguments of the engine.
fn start_with(image: &str, arguments: &[&str], files: &[(&str, &str)]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs_err::write(folder.path().join(name), contents).unwrap();
    }
    let mount = format!("{}:/run/kedge/credentials:ro", folder.path().display());
    let rights = [
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "apparmor=unconfined",
    ];
    let output =
        engine_output(&[&["run", "--rm"], &rights[..], &["--volume", &mount], arguments, &[image]].concat());
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code().unwrap(), text)
}

/// What runs in the place of systemd: it tells whose the device's keys are by then.
const INIT: &str = "\
    #!/bin/sh\n\
    for file in /var/secrets/kedge/*; do [ ! -e \"$file\" ] || stat -c 'found %U:%G %a %n' \"$file\"; done\n\
    [ ! -e /dev/tpmrm0 ] || stat -c 'found %U:%G %n' /dev/tpmrm0\n";

fn the_keys_of_each_kind_become_the_services_own(image: &str) {
    let folder = tempfile::tempdir().unwrap();
    let init = folder.path().join("init");
    fs_err::write(&init, INIT).unwrap();
    fs_err::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).unwrap();
    let init = format!("{}:/lib/systemd/systemd:ro", init.display());
    let found = |draft: &Draft, arguments: &[&str]| {
        let files = draft.check(None, Timestamp::now()).usable().unwrap().files("").unwrap();
        let files: Vec<_> =
            files.expose().map(|(name, text)| (name, std::str::from_utf8(text).unwrap())).collect();
        let (code, text) = start_with(image, &[&["--volume", &init], arguments].concat(), &files);
        assert_eq!(code, 0, "{text}");
        text.lines().filter_map(|line| line.strip_prefix("found ").map(str::to_owned)).collect::<Vec<_>>()
    };
    let given = |text: &str| Given::new("test", text);
    let key = || given("QUJDREVGR0hJSktMTU5PUFFSU1RVVldY");
    let device = || DeviceDraft { host_name: given("hub.test"), device_id: given("press-7") };
    let registration = || RegistrationDraft {
        global_endpoint: given("https://dps.test"),
        id_scope: given("0ne1"),
        registration_id: Some(given("press-7")),
        device_id: None,
    };
    let issued = self_signed_client("press-7", Validity::for_next(Duration::from_secs(9_000_000))).unwrap();
    let identity =
        || IdentityDraft { certificate: given(&issued.chain_pem), key: given(issued.key_pem.expose()) };

    let one = ["aziotks:aziotks 600 /var/secrets/kedge/device-key"];
    assert_eq!(found(&Draft::ManualSas(device(), key()), &[]), one);
    let dps = Draft::DpsSymmetricKey { registration: registration(), key: key(), is_of_group: false };
    assert_eq!(found(&dps, &[]), one);
    let two = [
        "aziotcs:aziotcs 600 /var/secrets/kedge/identity-certificate.pem",
        "aziotks:aziotks 600 /var/secrets/kedge/identity-key.pem",
    ];
    assert_eq!(found(&Draft::ManualX509(device(), identity()), &[]), two);
    assert_eq!(found(&Draft::DpsX509(registration(), identity()), &[]), two);
    let chip = ["--device", "/dev/null:/dev/tpmrm0"];
    assert_eq!(found(&Draft::DpsTpm(registration()), &chip), ["aziottpm:aziottpm /dev/tpmrm0"]);
}

fn a_start_without_a_part_of_the_secret_says_which(image: &str) {
    const KEY: &str = "bTRya2VkLWtleS1vZi1hLXRlc3QtbTRya2VkLWtleQ==";
    let refers = "[provisioning]\nsource = \"manual\"\n[provisioning.authentication]\nmethod = \"sas\"\n\
                  device_id_pk = { uri = \"file:///var/secrets/kedge/device-key\" }\n";
    let quoted =
        format!("[provisioning]\nsource = \"manual\"\nconnection_string = \"SharedAccessKey={KEY}\"\n");
    let no_provisioning = "hostname = \"kedge-edge\"\n# [provisioning]\n";
    let tpm = "[provisioning]\nsource = \"dps\"\n[provisioning.attestation]\nmethod = \"tpm\"\n";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], "config.toml is missing or empty"),
        (&[("config.toml", no_provisioning)], "has no [provisioning]"),
        (
            &[("config.toml", refers)],
            "config.toml refers to device-key, which the Secret kedge-credentials does not have",
        ),
        (&[("config.toml", refers), ("device-key", "")], "config.toml refers to device-key"),
        (&[("config.toml", tpm)], "config.toml wants a TPM, and there is neither"),
        (
            &[("config.toml", &quoted)],
            "iotedge config apply refuses the device's config.toml: could not parse config file",
        ),
    ];
    for (files, expected) in cases {
        let (code, text) = start(image, files);
        assert_eq!(code, 78, "{expected}: {text}");
        let told: Vec<_> = text.lines().filter(|line| line.starts_with("kedge: ")).collect();
        assert!(told.len() == 1 && told[0].contains(expected), "{expected}: {text}");
        assert!(!text.contains(KEY), "the key is told: {text}");
    }
}
