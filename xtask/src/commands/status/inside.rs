//! What is in the edge: systemd, and the containers of the inner engine.

use std::time::Duration;

use anyhow::Result;

use super::{Part, up, within};
use crate::edge::Way;

/// One look for all of it. What stands between the fields is in no name of an image.
const SCRIPT: &str = r#"echo "systemd|$(systemctl is-system-running 2>&1 | head -n 1)"
ids=$(timeout 3 docker ps --all --quiet 2>&1) || { echo "silent|$(echo "$ids" | head -n 1)"; exit 0; }
[ -z "$ids" ] || timeout 3 docker inspect --type container --format \
  'container|{{.Name}}|{{.Config.Image}}|{{.State.Status}}|{{.State.StartedAt}}|{{.RestartCount}}|{{.State.ExitCode}}' $ids
exit 0"#;
/// How much of a digest is shown.
const DIGEST: usize = 12;

/// Looks into the edge.
pub(super) async fn look(way: &Way<'_>, limit: Duration) -> Vec<Part> {
    match within(limit, "the edge", answer(way)).await {
        Ok(answer) => read(&answer),
        Err(error) => vec![Part::new("systemd", "down", format!("{error:#}"))],
    }
}

async fn answer(way: &Way<'_>) -> Result<String> {
    Ok(way.run(&["sh", "-c", SCRIPT]).await?.stdout)
}

fn read(answer: &str) -> Vec<Part> {
    answer.lines().filter_map(part).collect()
}

fn part(line: &str) -> Option<Part> {
    let fields: Vec<&str> = line.trim().split('|').collect();
    match *fields.as_slice() {
        ["systemd", state] => Some(Part::new("systemd", up(matches!(state, "running" | "degraded")), state)),
        ["silent", why] => Some(Part::new("inner-engine", "down", why)),
        ["container", name, image, state, started, restarts, code] => {
            let runs = state == "running";
            let words = if runs { state.to_owned() } else { format!("{state} with code {code}") };
            Some(Part {
                name: name.trim_start_matches('/').to_owned(),
                state: up(runs),
                detail: format!("{words}, {}", short(image)),
                image: Some(image.to_owned()),
                restarts: restarts.parse().ok(),
                since: started.parse().ok().filter(|_| runs),
            })
        }
        _ => None,
    }
}

/// An image without most of its digest.
fn short(image: &str) -> String {
    match image.split_once("@sha256:") {
        Some((name, digest)) => format!("{name}@{}", digest.chars().take(DIGEST).collect::<String>()),
        None => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_told_as_it_answers() {
        let parts = read(
            "systemd|running\n\
             container|/tempSensor|r:5000/t@sha256:0123456789abcdef|running|2025-01-01T00:00:00.5Z|3|0\n\
             container|/old|alpine:3|exited|2025-01-01T00:00:00Z|0|137\nnoise\ncontainer|half\n",
        );
        let told: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.state)).collect();
        assert_eq!(told, [("systemd", "up"), ("tempSensor", "up"), ("old", "down")]);
        assert_eq!(parts[1].detail, "running, r:5000/t@0123456789ab");
        assert_eq!((parts[1].restarts, parts[1].since.is_some()), (Some(3), true));
        assert_eq!((parts[2].detail.as_str(), parts[2].since), ("exited with code 137, alpine:3", None));
    }

    #[test]
    fn an_engine_that_does_not_answer_says_why() {
        let parts = read("systemd|degraded\nsilent|Cannot connect to the Docker daemon");
        assert_eq!(parts[0], Part::new("systemd", "up", "degraded"));
        assert_eq!(parts[1], Part::new("inner-engine", "down", "Cannot connect to the Docker daemon"));
        assert_eq!(read("systemd|offline")[0].state, "down");
        assert!(read("").is_empty());
    }
}
