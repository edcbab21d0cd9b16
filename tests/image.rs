//! The scripts of the edge's image, with stand-ins of the programs that they call. Nothing here needs an engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use assert_cmd::Command;

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("image").join(name))
}

/// A script of the image, with these programs in front of those of the machine.
fn with_programs(name: &str, programs: &[(&str, &str)]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    for (program, text) in programs {
        let path = folder.path().join(program);
        fs_err::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = script(name).env("PATH", path).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code().unwrap(), text.trim().to_owned())
}

#[test]
fn an_engine_that_does_not_speak_the_runtimes_api_is_refused() {
    for (engine, runtime, fits) in [
        ("20.10.24", "1.6.0-1", true),
        ("20.10.24", "1.5.21-1", true),
        ("19.03.15", "1.6.0-1", false),
        ("28.5.2", "1.6.0-1", true),
        ("28.5.2", "1.4.41-1", true),
        ("29.0.4", "1.6.0-1", false),
        ("29.2.1", "1.10.0-1", false),
        ("29.3.0", "1.6.0-1", true),
        ("29.3.0", "1.5.21-1", false),
        ("29.10.0", "1.6.0-1", true),
        ("30.0.0", "1.5.21-1", false),
    ] {
        let output = script("azure/docker-api").args(["moby-engine", engine, runtime]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), fits, "{engine} with {runtime}: {told}");
        assert_eq!(told.lines().count(), usize::from(!fits), "{told}");
        if !fits {
            let expected = format!("kedge: moby-engine {engine} speaks Docker's API 1.");
            assert!(told.starts_with(&expected) && told.contains("set runtime.engine to"), "{told}");
        }
    }
}

#[test]
fn the_profiles_come_onto_a_node_as_they_are_named() {
    const SECCOMP: &str = "{\"defaultAction\":\"SCMP_ACT_ERRNO\"}";
    let image = tempfile::tempdir().unwrap();
    let node = tempfile::tempdir().unwrap();
    fs_err::write(image.path().join("seccomp.json"), SECCOMP).unwrap();
    fs_err::write(image.path().join("seccomp.name"), "kedge/edge-4b9a1429.json").unwrap();
    let program = image.path().join("profiles");
    fs_err::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/security/profiles"), &program).unwrap();
    let run_with = |verb: &str, names: &[&str]| {
        let folder = node.path().to_str().unwrap();
        let output = Command::new(&program).args([verb, folder]).args(names).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let run = |verb: &str, name: &str| run_with(verb, &[name]);
    let name = "kedge/edge-4b9a1429.json";
    let (fine, told) = run("install", "kedge/edge-00000000.json");
    assert!(!fine && told.contains("it is of another version"), "{told}");
    let (fine, told) = run("check", name);
    assert!(!fine && told.contains("is not there"), "{told}");
    assert_eq!(run("install", name), (true, String::new()));
    assert_eq!(fs_err::read_to_string(node.path().join(name)).unwrap(), SECCOMP);
    assert_eq!(run("check", name), (true, String::new()));
    fs_err::write(node.path().join(name), "{}").unwrap();
    assert!(!run("check", name).0);
    // With AppArmor here or without: there is no parser in this image.
    let (fine, told) = run_with("install", &[name, "kedge-edge"]);
    assert!(!fine && (told.contains("has no AppArmor") || told.contains("cannot be loaded")), "{told}");
}

#[test]
fn the_runtimes_refusal_of_its_configuration_is_one_line_without_the_file() {
    const APPLY: &str = "rootfs/azure/usr/local/libexec/kedge-runtime-configure";
    assert_eq!(with_programs(APPLY, &[("iotedge", "echo chatter; exit 0")]), (0, String::new()));
    let key = "c2VjcmV0LWtleS1vZi1hLXRlc3Qtc2VjcmV0LWtleS1vZi1h";
    for said in [
        format!(
            "could not parse config file: TOML parse error at line 3, column 1\n  |\n\
             3 | connection_string = \"HostName=h;SharedAccessKey={key}=\"\n  | ^^^^\ndata did not match any variant"
        ),
        format!("could not parse config file\n\nCaused by:\n    0: SharedAccessKey={key}= is wrong"),
        format!("could not parse config file: value = \"{key}\" and {key}"),
    ] {
        let (code, told) =
            with_programs(APPLY, &[("iotedge", &format!("cat >&2 <<'END'\n{said}\nEND\nexit 1"))]);
        assert_eq!(code, 78, "{told}");
        let expected =
            "kedge: iotedge config apply refuses the device's config.toml: could not parse config file";
        assert!(told.starts_with(expected) && told.lines().count() == 1, "{told}");
        assert!(!told.contains(&key[..20]) && !told.contains("HostName"), "{told}");
    }
    let (_, told) = with_programs(APPLY, &[("iotedge", "exit 1")]);
    assert!(told.ends_with("it says nothing"), "{told}");
}

#[test]
fn the_runtime_is_healthy_when_its_daemon_and_its_agent_run() {
    const HEALTH: &str = "rootfs/azure/usr/local/libexec/kedge-runtime-health";
    let health = |state: &str, list: &str| {
        with_programs(HEALTH, &[("systemctl", &format!("echo {state}")), ("iotedge", list)])
    };
    let list = |rows: &str| format!("printf 'NAME STATUS DESCRIPTION Config\\n{rows}'");
    assert_eq!(health("active", &list("edgeAgent  running  Up 29 seconds  image\\n")), (0, String::new()));
    for (state, list, expected) in [
        ("activating", list(""), "aziot-edged.service is activating"),
        ("active", list("tempSensor running Up image\\n"), "aziot-edged has not started edgeAgent yet"),
        ("active", list("edgeAgent  failed  Exited  image\\n"), "edgeAgent is failed"),
        ("active", "echo 'no socket' >&2; exit 1".to_owned(), "iotedge list: no socket"),
    ] {
        assert_eq!(health(state, &list), (1, expected.to_owned()));
    }
}

#[test]
fn containers_start_where_nobody_may_lower_the_score_of_the_pod() {
    let bundle = tempfile::tempdir().unwrap();
    let config = bundle.path().join("config.json");
    let score_of = |asked: &str| {
        let text = |score: &str| format!("{{\"process\":{{\"oomScoreAdj\":{score},\"cwd\":\"/\"}}}}");
        fs_err::write(&config, text(asked)).unwrap();
        let create = ["create", "--bundle", bundle.path().to_str().unwrap(), "name"];
        let path = bundle.path().join("bin");
        fs_err::create_dir_all(&path).unwrap();
        fs_err::write(path.join("runc"), "#!/bin/sh\necho $*\n").unwrap();
        fs_err::set_permissions(path.join("runc"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
        let output = script("rootfs/common/usr/local/sbin/runc").args(create).env("PATH", path).output();
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap().trim(), create.join(" "));
        let written = fs_err::read_to_string(&config).unwrap();
        let score = written.split(['{', '}', ':', ',']).nth(4).unwrap().to_owned();
        assert_eq!(written, text(&score));
        score
    };
    let own = fs_err::read_to_string("/proc/self/oom_score_adj").unwrap().trim().to_owned();
    assert_eq!(score_of("1000"), "1000");
    assert_eq!(score_of(&own), own);
    let lower = Command::new("sh").args(["-c", "echo -900 2>/dev/null >/proc/self/oom_score_adj"]).output();
    assert_eq!(score_of("-900"), if lower.unwrap().status.success() { "-900" } else { &own });
}
