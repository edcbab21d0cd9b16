//! Arrival at an Azure hub, which a stand-in plays: proved, refused, or not claimed.

use serde_json::json;

use crate::harness::newest_report;
use crate::host::Deployment;
use crate::stand_in::{KEY, StandIn};

/// A program called `az` in a folder of its own, and the `PATH` that begins with it.
fn az(hub: &StandIn, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = hub.write("az", &format!("#!/bin/sh\n{script}\n"));
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", path.parent().unwrap().display(), std::env::var("PATH").unwrap())
}

#[tokio::test]
#[ignore = "needs a container engine and Qpid Proton"]
async fn arrival_is_proved_or_refused_or_not_claimed() {
    let hub = StandIn::start(json!({"live": "kedge-device"})).await;
    let deployment = Deployment::new(None);
    deployment.succeed("run --yes");
    let authority = hub.authority();
    let events = hub.write("events", &hub.connection_string);
    let command = format!("verify --hub azure --events {}", events.display());
    let trusted = [("SSL_CERT_FILE", authority.to_str().unwrap())];

    let (code, stdout, stderr) = deployment.xtask_with(&command, &trusted);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("hub           ok           7 messages"), "{stdout}");
    let report = newest_report();
    assert_eq!(
        (&report["environment"]["hub"], &report["environment"]["runtime"]),
        (&json!("azure"), &json!("simulated"))
    );
    assert_eq!(report["messages"][0]["deviceId"], "kedge-device");

    let (code, stdout, stderr) = deployment.xtask_with(&command, &[]);
    assert_eq!(code, 5, "{stderr}");
    assert!(stdout.contains("hub           broken") && stderr.contains("certificate"), "{stdout}{stderr}");

    let path = az(&hub, "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1");
    let (code, stdout, stderr) = deployment.xtask_with("verify --hub azure", &[("PATH", &path)]);
    assert_eq!(code, 7, "{stderr}");
    assert!(stdout.contains("gateway       ok") && stdout.contains("hub           not proved"), "{stdout}");
    assert!(stderr.contains("`az` is not logged in") && stderr.contains("--events FILE"), "{stderr}");
    let report = newest_report();
    assert_eq!(
        (&report["result"], &report["layers"][9]["result"]),
        (&json!("not proved"), &json!("not proved"))
    );

    let script = format!("echo \"$*\" >{}; cat {}", hub.write("arguments", "").display(), events.display());
    let path = az(&hub, &script);
    let variables = [trusted[0], ("PATH", path.as_str())];
    let (code, stdout, stderr) = deployment.xtask_with("verify --hub azure", &variables);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains(KEY) && !stderr.contains(KEY), "{stdout}{stderr}");
    let arguments = fs_err::read_to_string(authority.parent().unwrap().join("arguments")).unwrap();
    assert!(
        arguments.starts_with(
            "iot hub connection-string show --default-eventhub --policy-name service --hub-name hub"
        ),
        "{arguments}"
    );
    deployment.succeed("down");
}
