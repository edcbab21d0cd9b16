//! Logs in the edge: its own, the journal of the runtime, and those of the containers of its inner engine.

use anyhow::{Result, bail};

use super::part::{Part, WORDS};
use crate::edge::Way;
use crate::engine::{LogRequest, Sink};
use crate::exit::Usage;

/// The runtime's units, of whichever runtime.
const RUNTIME_UNITS: [&str; 1] = ["aziot-*"];
/// What runs the cluster on its node.
pub(super) const NODE_UNITS: [&str; 2] = ["kubelet", "containerd"];
/// The names of all containers of the inner engine.
const NAMES: [&str; 7] = ["timeout", "10", "docker", "ps", "--all", "--format", "{{.Names}}"];

/// Hands on the log of a part that is in the edge, or is the edge.
///
/// # Errors
/// When the edge cannot be asked, or has no container of that name.
pub(super) async fn show(way: &Way<'_>, part: &Part, wanted: &LogRequest, out: &mut Sink<'_>) -> Result<()> {
    let command = match part {
        Part::Edge => {
            if let (Way::Container(..), true) = (way, wanted.previous) {
                return Err(super::previous_of_a_pod().into());
            }
            return way.stream_log(wanted, out).await;
        }
        Part::Inner(name) => {
            let listed = way.run(&NAMES).await?;
            if !listed.success {
                bail!("the inner engine does not tell its containers: {}", listed.text());
            }
            refuse_unknown(name, &listed.stdout)?;
            docker(name, wanted)
        }
        _ => journal(&RUNTIME_UNITS, wanted),
    };
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let shown = way.stream(&command, out).await?;
    conclude(shown, wanted, &format!("the log of `{}`", part.name()))
}

/// Whether the log was shown. One that is followed ends together with what writes it, in whatever way that ends.
pub(super) fn conclude(shown: bool, wanted: &LogRequest, what: &str) -> Result<()> {
    if shown || wanted.follow {
        return Ok(());
    }
    bail!("{what} was not shown to its end; what was in the way stands above")
}

/// Refuses a name that no container has, and tells which there are.
fn refuse_unknown(name: &str, listed: &str) -> Result<(), Usage> {
    let names: Vec<&str> = listed.split_whitespace().collect();
    if names.contains(&name) {
        return Ok(());
    }
    let words = WORDS.map(|(word, _)| word).join(", ");
    let inside = if names.is_empty() {
        "in the edge is no container yet".to_owned()
    } else {
        format!("containers in the edge: {}", names.join(", "))
    };
    let simulated = if matches!(name, "edgeAgent" | "edgeHub") {
        "; the simulated runtime has these two in its daemon: `cargo xtask logs runtime`"
    } else {
        ""
    };
    Err(Usage(format!("nothing here is called `{name}`; there are: {words}; {inside}{simulated}")))
}

fn docker(name: &str, wanted: &LogRequest) -> Vec<String> {
    let mut command = vec!["docker".to_owned(), "logs".to_owned()];
    command.extend(wanted.follow.then(|| "--follow".to_owned()));
    command.extend(wanted.timestamps.then(|| "--timestamps".to_owned()));
    command.extend(wanted.tail.map(|lines| format!("--tail={lines}")));
    // Counted back by the edge's own clock.
    command.extend(wanted.since.map(|since| format!("--since={}s", since.as_secs())));
    command.push(name.to_owned());
    command
}

/// The command that reads the journal of these units.
pub(super) fn journal(units: &[&str], wanted: &LogRequest) -> Vec<String> {
    let mut command = vec!["journalctl".to_owned(), "--no-pager".to_owned(), "--quiet".to_owned()];
    command.extend(units.iter().map(|unit| format!("--unit={unit}")));
    command.push(wanted.tail.map_or_else(|| "--lines=all".to_owned(), |lines| format!("--lines={lines}")));
    command.push(format!("--output={}", if wanted.timestamps { "short-iso-precise" } else { "cat" }));
    command.extend(wanted.since.map(|since| format!("--since=-{}s", since.as_secs())));
    command.extend(wanted.follow.then(|| "--follow".to_owned()));
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_commands_ask_for_no_more_than_is_wanted() {
        let all = LogRequest::default();
        assert_eq!(docker("tempSensor", &all).join(" "), "docker logs tempSensor");
        let wanted = LogRequest {
            follow: true,
            tail: Some(5),
            since: Some(Duration::from_secs(600)),
            timestamps: true,
            previous: false,
        };
        assert_eq!(
            docker("tempSensor", &wanted).join(" "),
            "docker logs --follow --timestamps --tail=5 --since=600s tempSensor"
        );
        assert_eq!(
            journal(&["a", "b"], &wanted).join(" "),
            "journalctl --no-pager --quiet --unit=a --unit=b --lines=5 --output=short-iso-precise --since=-600s --follow"
        );
        assert!(journal(&["a"], &all).contains(&"--lines=all".to_owned()));
    }

    #[test]
    fn an_unknown_name_is_told_with_those_that_there_are() {
        refuse_unknown("tempSensor", "edgeAgent\ntempSensor\n").unwrap();
        let error = refuse_unknown("temp", "edgeAgent\ntempSensor\n").unwrap_err().to_string();
        assert!(error.contains("`temp`") && error.contains("hub, registry"), "{error}");
        assert!(error.ends_with("containers in the edge: edgeAgent, tempSensor"), "{error}");
        let error = refuse_unknown("edgeHub", "").unwrap_err().to_string();
        assert!(error.contains("no container yet") && error.contains("logs runtime"), "{error}");
    }

    #[test]
    fn a_log_that_breaks_off_is_told_unless_it_was_followed() {
        let mut wanted = LogRequest::default();
        assert!(conclude(false, &wanted, "the log").is_err() && conclude(true, &wanted, "the log").is_ok());
        wanted.follow = true;
        conclude(false, &wanted, "the log").unwrap();
    }
}
