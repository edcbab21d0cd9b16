//! A machine, a home folder or a command line that is not what it should be.

use crate::support::{Machine, SECRET, refusal};

#[test]
fn what_is_missing_is_told_before_anything_is_changed() {
    for command in
        [&["up"][..], &["e2e"], &["cluster", "up"], &["hub", "up"], &["registry", "up"], &["image", "build"]]
    {
        let machine = Machine::bare();
        let args = [command, &["--engine", "podman"]].concat();
        let told = refusal(&mut machine.xtask(&args), 4);
        assert!(
            told.contains("podman") && told.contains("--yes") && told.contains("apt-get install"),
            "{told}"
        );
        assert!(!machine.has_state(), "{command:?}");
    }
}

#[test]
fn without_any_engine_the_reasons_are_told() {
    for command in ["up", "e2e"] {
        let machine = Machine::bare();
        let told = refusal(&mut machine.xtask(&[command, "--engine", "docker", "--yes"]), 4);
        assert!(told.contains("no container engine here") && told.contains("/no/such/docker.sock"), "{told}");
        assert!(!machine.has_state(), "{command}");
    }
}

#[test]
fn without_a_home_folder_it_is_told_what_to_set() {
    let machine = Machine::bare();
    for command in ["up", "down", "status"] {
        let told = refusal(machine.xtask(&[command]).env("HOME", "relative"), 4);
        assert!(told.contains("no home folder; set XDG_CACHE_HOME to an absolute path"), "{command}: {told}");
    }
}

#[test]
fn a_state_folder_that_cannot_be_made_is_named() {
    let machine = Machine::bare();
    machine.write(".local", "a file where a folder is needed");
    let told = refusal(&mut machine.xtask(&["up"]), 1);
    assert!(told.contains(".local/state/kedge`"), "{told}");
    // Nobody may make a folder there, not even root.
    let told = refusal(machine.xtask(&["up"]).env("XDG_STATE_HOME", "/sys/kernel"), 4);
    assert!(told.contains("failed to make the folder `/sys/kernel/kedge`"), "{told}");
}

#[test]
fn a_second_invocation_that_changes_something_is_refused() {
    for command in [&["up"][..], &["e2e"], &["down"], &["cluster", "down"], &["image", "build"]] {
        let machine = Machine::bare();
        machine.write(".local/state/kedge/kedge.lock", "");
        let path = machine.path(".local/state/kedge/kedge.lock");
        let lock = fs_err::File::open(path).unwrap().into_file();
        lock.lock().unwrap();
        let told = refusal(&mut machine.xtask(command), 6);
        assert!(
            told.contains("another `cargo xtask` is at work on `kedge`; wait for its end"),
            "{command:?}: {told}"
        );
    }
}

#[test]
fn secrets_that_cannot_be_read_are_told_with_what_to_do_and_not_shown() {
    let wrong_type = format!("{{\"hub_host_name\": [\"{SECRET}\"]}}");
    let wrong_value = format!("\"{SECRET}\"");
    let other_schema = format!("{{\"version\": 2, \"owner\": \"{SECRET}\"}}");
    let cases: [&[u8]; 6] =
        [b"{", b"", b"\xff\xfe{}", wrong_type.as_bytes(), wrong_value.as_bytes(), other_schema.as_bytes()];
    for contents in cases {
        let machine = Machine::bare();
        machine.write(".local/state/kedge/kedge/credentials.json", contents);
        for command in ["verify", "render", "logs"] {
            let told = refusal(&mut machine.xtask(&[command]), 1);
            let expected = "credentials.json` is damaged; run `cargo xtask down` and begin again";
            assert!(told.contains(expected), "{command}, {}: {told}", String::from_utf8_lossy(contents));
        }
        refusal(&mut machine.xtask(&["down"]), 0);
        assert!(!machine.has_state());
    }
}

#[test]
fn a_folder_in_place_of_the_secrets_is_told_and_removed() {
    let machine = Machine::bare();
    machine.write(".local/state/kedge/kedge/credentials.json/file", "");
    let told = refusal(&mut machine.xtask(&["verify"]), 1);
    assert!(told.contains("is damaged; run `cargo xtask down`"), "{told}");
    refusal(&mut machine.xtask(&["down"]), 0);
    assert!(!machine.has_state());
}

#[test]
fn what_cannot_be_typed_is_a_usage_error() {
    let cases: [(&[&str], &str); 11] = [
        (&[], "Usage"),
        (&["upp"], "unrecognized subcommand 'upp'"),
        (&["up", "--fast"], "unexpected argument '--fast'"),
        (&["up", "--engine", "crio"], "invalid value 'crio'"),
        (&["up", "--engine", "Docker"], "invalid value 'Docker'"),
        (&["up", "--profile"], "a value is required"),
        (&["logs", "two words"], "invalid value 'two words'"),
        (&["logs", "--tail", "-1"], "unexpected argument '-1'"),
        (&["logs", "--tail", "many"], "`all`, or a number of lines"),
        (&["logs", "--since", "yesterday"], "such as 90s, 10m or 2h"),
        (&["logs", "hub", "--previous"], "`--previous` goes with the edge as a pod"),
    ];
    for (args, expected) in cases {
        let machine = Machine::bare();
        let told = refusal(&mut machine.xtask(args), 2);
        assert!(told.contains(expected), "{args:?}: {told}");
        assert!(machine.is_untouched(), "{args:?}");
    }
}
