//! What systemd tells of the edge's units: which have failed, and what they said last.

use super::cause::{Cause, Kind};
use super::layers::Name;
use super::scene::Scene;

/// Each unit that does not run in a line of `NAME STATE`, followed by its last words behind a tab. A unit that is
/// wanted and inactive has been stopped.
const SCRIPT: &str = r"
tell() {
    echo $1 $(systemctl is-active $1)
    journalctl --unit $1 --lines 3 --output cat --no-pager 2>/dev/null | tr -cd '[:print:]\n' | cut -c -300 | sed 's/^/\t/'
}
for unit in $(systemctl list-units --state=failed --plain --no-legend --type=service | cut -d ' ' -f 1); do tell $unit; done
for unit in containerd.service docker.service aziot-edged.service; do
    [ $(systemctl is-active $unit) != inactive ] || tell $unit
done";

/// A unit that does not run.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    name: String,
    state: String,
    words: String,
}

impl Unit {
    /// The layer that stands or falls with it.
    fn layer(&self) -> Name {
        match self.name.as_str() {
            "docker.service" | "containerd.service" | "kedge-preload.service" => Name::InnerEngine,
            name if name.starts_with("aziot-") => Name::Runtime,
            _ => Name::Systemd,
        }
    }

    fn cause(&self) -> Cause {
        let word = if self.state == "failed" { "has failed" } else { "is stopped" };
        let words = if self.words.is_empty() { String::new() } else { format!("; it said: {}", self.words) };
        Cause::new(
            Kind::Unit,
            format!("{} {word}{words}", self.name),
            "see the journal in `cargo xtask logs edge`; `cargo xtask up` replaces an edge that does not come back",
        )
    }
}

/// What breaks a layer among the units.
pub(super) async fn obstacle(scene: &Scene<'_>, layer: Name) -> Option<Cause> {
    let units = read(&scene.script(SCRIPT).await.ok()?);
    // systemd's own services fail on kernels that lack something, and nothing here rests on them.
    let counts = |unit: &&Unit| unit.layer() == layer && !unit.name.starts_with("systemd-");
    units.iter().find(counts).map(Unit::cause)
}

fn read(answer: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for line in answer.lines() {
        if let Some(words) = line.strip_prefix('\t') {
            if let Some(unit) = units.last_mut().filter(|_| !words.trim().is_empty()) {
                let between = if unit.words.is_empty() { "" } else { " / " };
                unit.words = format!("{}{between}{}", unit.words, words.trim());
            }
            continue;
        }
        let mut parts = line.split_whitespace();
        if let (Some(name), Some(state)) = (parts.next(), parts.next()) {
            units.push(Unit { name: name.into(), state: state.into(), words: String::new() });
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_with_their_last_words_by_the_layer_that_rests_on_them() {
        let units = read(
            "aziot-edged.service failed\n\tno such file\n\tMain process exited\ndocker.service inactive\n\
             foo.service failed\n\t\n",
        );
        let layers: Vec<_> = units.iter().map(Unit::layer).collect();
        assert_eq!(layers, [Name::Runtime, Name::InnerEngine, Name::Systemd]);
        assert_eq!(
            units[0].cause().text,
            "aziot-edged.service has failed; it said: no such file / Main process exited"
        );
        assert_eq!(units[1].cause().text, "docker.service is stopped");
        assert_eq!(read("\tlost\n\n"), []);
    }
}
