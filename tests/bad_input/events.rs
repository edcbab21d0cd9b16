//! Mistakes with the connection string by which arrival at the user's hub is read.

use crate::support::{Machine, SECRET, refusal};

const FINE: &str =
    "Endpoint=sb://h.test/;SharedAccessKeyName=service;SharedAccessKey=s3cret-hunter2;EntityPath=plant";

/// What is told, with this exit code, when the string is in a file.
fn told(contents: &str, code: i32) -> String {
    let machine = Machine::bare();
    let file = machine.write("events", contents);
    let told = refusal(&mut machine.xtask(&["verify", "--hub", "azure", "--events", &file]), code);
    assert!(machine.is_untouched());
    told
}

#[test]
fn another_connection_string_is_told_apart_with_how_to_get_the_right_one() {
    let service =
        format!("HostName=h.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey={SECRET}");
    let device = format!("HostName=h.azure-devices.net;DeviceId=d;SharedAccessKey={SECRET}");
    let cases = [
        (service.as_str(), "is the IoT Hub's own, not the Event-Hub-compatible one"),
        (&device, "is that of a device"),
        (&FINE.replace("EntityPath", "Entity"), "lacks EntityPath"),
        (SECRET, "lacks Endpoint and"),
        ("", ": it is empty"),
    ];
    for (contents, expected) in cases {
        let told = told(contents, 3);
        assert!(told.contains(expected), "{expected}: {told}");
        assert!(contents.is_empty() || told.contains("--default-eventhub"), "{told}");
    }
}

#[test]
fn one_on_the_command_line_is_refused_and_not_told() {
    let machine = Machine::bare();
    for command in ["verify", "e2e"] {
        let told = refusal(&mut machine.xtask(&[command, "--hub", "azure", "--events", FINE]), 2);
        assert!(told.contains("a secret is never an argument"), "{told}");
    }
    let told = refusal(&mut machine.xtask(&["verify", "--hub", "azure", "--events", "env:KEDGE_NONE"]), 3);
    assert!(told.contains("the variable KEDGE_NONE: it is not set"), "{told}");
}

#[test]
fn the_local_hub_needs_none() {
    let machine = Machine::bare();
    let file = machine.write("events", FINE);
    let told = refusal(&mut machine.xtask(&["verify", "--events", &file]), 2);
    assert!(told.contains("`--events` goes with `--hub azure`"), "{told}");
}

#[test]
fn a_context_that_nobody_knows_is_told_before_anything_else() {
    let machine = Machine::bare();
    let kubeconfig = machine.write(
        "kubeconfig",
        "apiVersion: v1\nkind: Config\ncontexts:\n- name: lab\n  context: {cluster: c, user: u}\n",
    );
    let profile = machine.write("kedge.toml", format!("[deploy]\nkubeconfig = \"{kubeconfig}\"\n"));
    let args = ["verify", "--hub", "azure", "--context", "production", "--profile", &profile];
    let told = machine.xtask(&args).assert().failure().get_output().stderr.clone();
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("no context `production`") && told.contains("lab"), "{told}");
}
