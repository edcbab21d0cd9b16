//! Microsoft's command line, where it is there and logged in, knows the connection string that the user has not given.

use std::time::Duration;

use kedge_sim::secret::Secret;
use tokio_util::sync::CancellationToken;

use super::EventHub;
use crate::process::{Process, ProcessError, find_on_path};

const LIMIT: Duration = Duration::from_secs(90);
/// It must not ask, install, or paint.
const ENVIRONMENT: [(&str, &str); 2] =
    [("AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no"), ("AZURE_CORE_NO_COLOR", "1")];

/// The Event-Hub-compatible endpoint of the hub with this host name, with the rights of the policy `service`.
///
/// # Errors
/// Why `az` does not tell it, in words; nothing of what it printed to standard output is in them.
pub async fn event_hub(host: &str, cancel: &CancellationToken) -> Result<EventHub, String> {
    if find_on_path("az").is_none() {
        return Err("no connection string was given, and `az` is not here".to_owned());
    }
    let name = host.split('.').next().unwrap_or(host);
    let args = ["iot", "hub", "connection-string", "show", "--default-eventhub", "--policy-name", "service"];
    let printed = Process::new("ask `az` for the hub's Event-Hub-compatible endpoint", "az")
        .args(args)
        .args(["--hub-name", name, "--query", "connectionString", "--output", "tsv"])
        .envs(ENVIRONMENT)
        .limit(LIMIT)
        .cancelled_by(cancel)
        .read()
        .await
        .map_err(|error| reason(&error, name))?;
    EventHub::parse(&Secret::new(printed))
        .map_err(|error| format!("`az` has printed something else: {error}"))
}

/// Why it did not tell.
fn reason(error: &ProcessError, name: &str) -> String {
    let ProcessError::Failed { tail, .. } = error else { return error.to_string() };
    let says = |mark: &str| tail.contains(mark);
    if says("az login") {
        "no connection string was given, and `az` is not logged in (`az login`)".to_owned()
    } else if says("requires the extension")
        || says("'iot' is misspelled")
        || says("not in the 'az iot hub' command group")
    {
        "no connection string was given, and `az` lacks its extension (`az extension add --name azure-iot`)"
            .to_owned()
    } else {
        let last = tail.lines().last().unwrap_or_default().trim();
        format!("no connection string was given, and `az` does not tell that of `{name}`: {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tail: &str) -> String {
        let error = ProcessError::Failed {
            purpose: "ask".into(),
            command: "az".into(),
            status: "1".into(),
            tail: tail.into(),
        };
        reason(&error, "plant")
    }

    #[test]
    fn what_az_lacks_is_told_with_the_cure() {
        assert!(told("\n    ERROR: Please run 'az login' to setup account.").contains("(`az login`)"));
        let extension = "\n    ERROR: The command requires the extension azure-iot.";
        assert!(told(extension).contains("`az extension add --name azure-iot`"));
        let unknown = "\n    WARNING: x\n    ERROR: No IoT Hub found with name plant";
        assert!(told(unknown).ends_with("that of `plant`: ERROR: No IoT Hub found with name plant"));
    }
}
