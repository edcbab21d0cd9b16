//! Which runtime is in the edge. It is asked of the edge itself, so that nothing that the settings say makes a simulated
//! run a real one.

use anyhow::{Result, bail};

use super::scene::Scene;

/// The daemon of the simulated runtime has this text in it, wherever somebody has put it.
const PROBE: &str = "for daemon in /usr/libexec/aziot/kedge-edged /usr/libexec/aziot/aziot-edged; do \
    [ -x $daemon ] || continue; \
    if grep -qaF 'The simulated IoT Edge runtime' $daemon; then echo simulated $daemon; else echo azure; fi; \
    exit; done; echo none";

/// The runtime that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// KEdge's own daemon.
    Simulated {
        /// Its program.
        daemon: String,
    },
    /// Microsoft's packages.
    Azure,
}

pub(super) async fn find(scene: &Scene<'_>) -> Result<Found> {
    read(&scene.script(PROBE).await?)
}

fn read(answer: &str) -> Result<Found> {
    match answer.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["simulated", daemon] => Ok(Found::Simulated { daemon: (*daemon).to_owned() }),
        ["azure"] => Ok(Found::Azure),
        ["none"] => bail!("there is no IoT Edge runtime in the edge: neither KEdge's nor Microsoft's"),
        _ => bail!("the edge does not tell which runtime it has: {answer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_itself_says_which_runtime_it_has() {
        let daemon = "/usr/libexec/aziot/aziot-edged".to_owned();
        assert_eq!(read(&format!("simulated {daemon}\n")).unwrap(), Found::Simulated { daemon });
        assert_eq!(read("azure").unwrap(), Found::Azure);
        assert!(read("none").unwrap_err().to_string().contains("neither"));
        assert!(read("").is_err());
    }

    #[test]
    fn the_mark_is_in_the_daemon() {
        let source = include_str!("../../../sim/src/bin/kedge-edged.rs");
        assert!(source.contains("/// The simulated IoT Edge runtime.\n#[derive(Parser)]"));
    }
}
