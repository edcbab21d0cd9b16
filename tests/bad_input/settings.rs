//! Mistakes in the settings file, and things that are no settings file.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Case, Machine, SECRET, refusal, report};

/// Name, text, what stands on the line, what is told.
const CASES: [(&str, &str, &str, &str); 36] = [
    ("an unknown section", "[clutser]\n", "[clutser]", "did you mean `cluster`?"),
    ("an unknown key", "[cluster]\nnmae = \"x\"\n", "nmae", "did you mean `cluster.name`?"),
    ("a key of another section", "[cluster]\n\nport = 5001\n", "port", "`registry.port`, in [registry]"),
    ("a key in no section", "name = \"x\"\n", "name", "did you mean `cluster.name`, in [cluster]?"),
    (
        "an underscore for a dash",
        "[verify]\ntime_limit = 1\n",
        "time_limit",
        "did you mean `verify.time-limit`?",
    ),
    ("a value for a section", "cluster = \"kedge\"\n", "cluster", "cluster is a section"),
    ("a section that stands several times", "[[hub]]\n", "hub", "hub is a section"),
    (
        "a secret under an unknown name",
        "[hub]\nconnection-string = \"s3cret-hunter2\"\n",
        "conn",
        "[redacted]",
    ),
    (
        "a connection string for a name",
        "[hub]\nhost-name = \"HostName=h;SharedAccessKey=s3cret-hunter2\"\n",
        "host",
        "[redacted]",
    ),
    ("a port as a text", "[registry]\nport = \"x\"\n", "port", "is a text, use a whole number"),
    (
        "port 99999",
        "[registry]\nport = 99999\n",
        "port",
        "registry.port = 99999: use a whole number from 1 to 65535",
    ),
    ("port 0", "[registry]\nport = 0\n", "port", "registry.port = 0: use"),
    ("port -1", "[registry]\nport = -1\n", "port", "registry.port = -1: use"),
    ("a port with a fraction", "[registry]\nport = 1.5\n", "port", "a number with a fraction"),
    (
        "a port that is no 64-bit number",
        "[registry]\nport = 99999999999999999999\n",
        "port",
        "from 1 to 65535",
    ),
    ("a list for a number", "[registry]\nport = [5001]\n", "port", "is a list"),
    ("a number for a text", "[cluster]\nname = 1\n", "name", "is a number, use 1 to 40"),
    ("true for a text", "[cluster]\nname = true\n", "name", "is true or false, use 1 to 40"),
    ("a date for a text", "[cluster]\nname = 2026-01-01\n", "name", "is a date or time"),
    ("a table for a text", "[cluster]\nname = { a = 1 }\n", "name", "is a table"),
    ("an empty name", "[cluster]\nname = \"\"\n", "name", "use 1 to 40 of a-z"),
    (
        "a name of 64 characters",
        "[cluster]\nname = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n",
        "name",
        "use 1 to 40",
    ),
    (
        "a name in upper case",
        "[cluster]\nname = \"Kedge\"\n",
        "name",
        "cluster.name = \"Kedge\": use 1 to 40",
    ),
    ("a name with a space", "[cluster]\nname = \"my edge\"\n", "name", "use 1 to 40"),
    ("a name in another script", "[cluster]\nname = \"kédge-ü\"\n", "name", "use 1 to 40"),
    ("a name that ends with a dash", "[deploy]\nnamespace = \"edge-\"\n", "namespace", "use 1 to 40"),
    ("a name that is a path", "[cluster]\nname = \"../../etc\"\n", "name", "use 1 to 40"),
    ("an engine that is none", "[engine]\nuse = \"crio\"\n", "use", "use \"auto\", \"docker\" or \"podman\""),
    ("an image that is none", "[cluster]\nnode-image = \"Kind Node\"\n", "node", "the reference of an image"),
    ("an address as a host name", "[hub]\nhost-name = \"127.0.0.1\"\n", "host", "use a DNS name"),
    ("localhost as a host name", "[hub]\nhost-name = \"localhost\"\n", "host", "use a DNS name"),
    ("a device id that would break a topic", "[device]\nid = \"a/b#\"\n", "id", "use 1 to 128 letters"),
    ("no time at all", "[verify]\ntime-limit = 0\n", "time", "seconds from 1 to 3600"),
    ("a text that is not closed", "[cluster]\nname = \"x\n", "name", "not TOML"),
    ("a line that is no setting", "# note\n[cluster\n", "[cluster", "not TOML"),
    (
        "a setting that stands twice",
        "[verify]\nmessages = 5\n\nmessages = 6 # again\n",
        "again",
        "duplicate key",
    ),
];

#[test]
fn each_mistake_is_told_with_its_line_and_nothing_is_made() {
    report(CASES.iter().filter_map(|&(name, text, at, told)| {
        let machine = Machine::bare();
        let case = Case { name, text: text.to_owned(), at, told };
        let profile = machine.write("kedge.toml", text);
        case.failure(&machine, &profile, &["up", "--yes", "--profile", &profile])
    }));
}

#[test]
fn all_mistakes_are_told_together_in_the_order_of_the_file() {
    let machine = Machine::bare();
    let text =
        "[cluster]\nname = \"A B\"\nworkers = 3\n[registry]\nport = 0\n[verify]\nmessages = \n[hubs]\n";
    let profile = machine.write("kedge.toml", text);
    let told = refusal(&mut machine.xtask(&["e2e", "--profile", &profile]), 3);
    let lines: Vec<_> = told.lines().skip(1).map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["2", "3", "5", "7", "8"], "{told}");
    assert!(machine.is_untouched());
}

#[test]
fn every_command_refuses_them_alike() {
    let machine = Machine::bare();
    let profile = machine.write("kedge.toml", "[registry]\nport = 0\n");
    for command in ["up", "e2e", "status", "logs", "verify", "doctor", "render", "plan", "config"] {
        let told = refusal(&mut machine.xtask(&[command, "--profile", &profile]), 3);
        assert!(told.contains("kedge.toml:2:8: registry.port = 0"), "{command}: {told}");
    }
    assert!(machine.is_untouched());
}

#[test]
fn what_is_no_settings_file_is_told_by_its_name_and_never_waited_for() {
    let machine = Machine::bare();
    let fifo = machine.path("fifo");
    assert_cmd::Command::new("mkfifo").arg(&fifo).assert().success();
    let folder = machine.path("folder");
    fs_err::create_dir_all(&folder).unwrap();
    let cases = [
        (folder.to_str().unwrap().to_owned(), "this is a folder"),
        (fifo.to_str().unwrap().to_owned(), "not a regular file"),
        ("/dev/zero".to_owned(), "not a regular file"),
        ("no/such.toml".to_owned(), "there is no such file"),
        (machine.write("huge.toml", vec![b'#'; 2 << 20]), "larger than 1 MiB"),
        (machine.write("latin1.toml", b"# caf\xe9\n"), "latin1.toml:1:6: this is not UTF-8 text"),
        (machine.write("binary.toml", b"\x7fELF\0\0"), "not TOML"),
    ];
    for (profile, expected) in cases {
        let told = refusal(&mut machine.xtask(&["up", "--profile", &profile]), 3);
        assert!(told.contains(&profile) && told.contains(expected), "{profile}: {told}");
    }
    assert!(machine.is_untouched());
}

#[test]
fn a_settings_file_that_nobody_may_read_is_told() {
    let machine = Machine::bare();
    let profile = machine.write("kedge.toml", "");
    fs_err::set_permissions(&profile, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = if fs_err::File::open(&profile).is_ok() {
        // Root may read everything: somebody else tries, with a copy of the program where they can reach it.
        let program = machine.path("xtask");
        fs_err::copy(env!("CARGO_BIN_EXE_xtask"), &program).unwrap();
        fs_err::set_permissions(machine.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
        let args = ["--reuid=65534", "--regid=65534", "--clear-groups", program.to_str().unwrap()];
        machine.command(std::path::Path::new("/usr/bin/setpriv"), &args)
    } else {
        machine.xtask(&[])
    };
    let told = refusal(command.args(["up", "--profile", &profile]), 3);
    assert!(told.contains("kedge.toml: permission denied"), "{told}");
}

#[test]
fn an_empty_settings_file_is_all_defaults() {
    let machine = Machine::bare();
    let profile = machine.write("kedge.toml", "");
    let output =
        machine.xtask(&["config", "--profile", &profile]).assert().code(0).get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.lines().all(|line| line.ends_with("  default")), "{text}");
}

#[test]
fn removing_warns_of_mistakes_and_shows_no_secret() {
    let machine = Machine::bare();
    let text =
        format!("[cluster]\nname = \"lab\"\n[hub]\npassword = \"{SECRET}\"\n[registry]\nport = \"x\"\n");
    let profile = machine.write("kedge.toml", text);
    for command in [&["down"][..], &["cluster", "down"], &["registry", "down"], &["hub", "down"]] {
        let args = [command, &["--profile", &profile]].concat();
        let told = refusal(&mut machine.xtask(&args), 0);
        assert!(
            told.contains("warning: ") && told.contains("kedge.toml:6:8: registry.port"),
            "{command:?}: {told}"
        );
    }
}

#[test]
fn removing_needs_a_name_that_is_sure() {
    for text in [
        "[cluster]\nname = \"A\"\n",
        "[cluster]\nname = \"a\n",
        "[cluser]\nname = \"lab\"\n",
        "name = \"lab\"\n",
    ] {
        let machine = Machine::bare();
        let profile = machine.write("kedge.toml", text);
        let told = refusal(&mut machine.xtask(&["down", "--profile", &profile]), 3);
        assert!(told.contains("kedge.toml:"), "{text}: {told}");
        assert!(machine.is_untouched(), "{text}");
    }
}

#[test]
fn an_image_that_stands_for_none_is_told_and_does_not_hinder() {
    let machine = Machine::bare();
    let profile = machine.write(
        "kedge.toml",
        "[images]\n\"mcr.microsoft.com/azureiotedge-hub\" = \"factory.test/hub:1\"\n\"kedge/temperature-sensr\" = \"x:1\"\n",
    );
    // What ends it is that there is no engine.
    let told = refusal(&mut machine.xtask(&["up", "--profile", &profile]), 4);
    let warnings: Vec<_> = told.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{told}");
    assert!(
        warnings[0].contains("kedge.toml:3: [images] \"kedge/temperature-sensr\" stands for no image")
            && warnings[0].ends_with("did you mean `kedge/temperature-sensor`?"),
        "{told}"
    );
}
