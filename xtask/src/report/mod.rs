//! What a run did, how long each step took, on what it ran, and what arrived at the hub: one value, `report.json`, of which a
//! page, JUnit's XML and a summary are views.

mod html;
mod junit;
mod markdown;
mod plot;
mod results;
#[cfg(test)]
mod tests;
mod text;
mod timeline;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::execute::{Outcome, Record};
use crate::exit::{INTERRUPTED, NotProved};
use crate::paths::shown;
use crate::preflight::Preflight;
use crate::progress::Progress;
use crate::settings::{Runtime, Settings, word};
use crate::tier::{Decision, Tier};
use crate::verdict::Verdict;
use crate::verify::{Evidence, Layer, Security};

pub use self::results::Results;

/// The name of the step before all others.
const PREFLIGHT: &str = "preflight";
/// The name of the one after it.
const OBSERVATION: &str = "observe";

/// The whole report. Times are UTC, durations seconds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this format.
    pub schema: u32,
    /// The command that was run.
    pub command: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// `passed`, `failed`, or `not proved` when nobody could say.
    pub result: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same, taken apart: layer, cause, next action, exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// On what it ran.
    pub environment: Environment,
    /// Every step.
    pub steps: Vec<StepReport>,
    /// The longest chain of steps, which bounds the run from below.
    pub critical_path: CriticalPath,
    /// The layers that `verify` walked.
    pub layers: Vec<Layer>,
    /// The telemetry that proved the run.
    pub messages: Vec<Evidence>,
}

/// What took part in the run; a simulated part says so.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Container engine, for example `podman 4.3.1`; none for the cluster of somebody else.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub engine: String,
    /// The context of the kubeconfig that names the cluster of somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Where the edge runs: in the `cluster`, or directly on the `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<&'static str>,
    /// How the edge is confined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What confines it, as it was read from inside the edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Why each stronger tier was not taken.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stronger_tiers: BTreeMap<Tier, String>,
    /// Name of the deployment, and of its cluster where it has one.
    pub cluster: String,
    /// Version of its API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
    /// The image of its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_image: Option<String>,
    /// `simulated`: KEdge's own edge daemon, not Microsoft's runtime; `azure`: Microsoft's.
    pub runtime: String,
    /// `local`: KEdge's own hub, not Azure's.
    pub hub: String,
}

impl Environment {
    /// What the settings say, with the runtime that was found in the edge where there is one.
    #[must_use]
    pub fn of(settings: &Settings, runtime: Option<Runtime>) -> Self {
        Self {
            cluster: settings.cluster.name.clone(),
            runtime: word(&runtime.unwrap_or(settings.runtime.kind)),
            hub: word(&settings.hub.kind),
            ..Self::default()
        }
    }

    /// Says how the edge is confined: as it was found, else as it was decided.
    #[must_use]
    pub fn confined(mut self, decision: Option<Decision>, security: Option<Security>) -> Self {
        self.tier =
            security.as_ref().map(|found| found.tier).or(decision.as_ref().map(|decision| decision.tier));
        self.security = security;
        self.stronger_tiers =
            decision.map(|decision| decision.stronger.into_iter().collect()).unwrap_or_default();
        self
    }
}

/// One step of the report.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// Its name.
    pub id: String,
    /// What it was for.
    pub purpose: String,
    /// The steps that it waited for.
    pub needs: Vec<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// `done`, `failed` or `skipped`.
    pub result: &'static str,
    /// Whether anything is other than it was before.
    pub changed: bool,
    /// How it was done, or why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A chain of steps, each of which waited for the one before.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CriticalPath {
    /// The names, first to last.
    pub steps: Vec<String>,
    /// The sum of their times.
    pub seconds: f64,
}

impl StepReport {
    /// The report of a finished step of the plan.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let (result, note) = match &record.outcome {
            Outcome::Done(effect) => ("done", effect.note.clone()),
            Outcome::Failed(error) => ("failed", format!("{error:#}")),
            Outcome::Skipped => ("skipped", String::new()),
        };
        let mut needs: Vec<_> = record.step.needs.iter().map(ToString::to_string).collect();
        if needs.is_empty() {
            needs.push(OBSERVATION.to_owned());
        }
        Self {
            id: record.step.action.id(),
            purpose: record.step.action.purpose(),
            needs,
            started: record.started,
            ended: record.ended,
            seconds: record.seconds(),
            result,
            changed: record.changed(),
            note,
        }
    }
}

impl StepReport {
    /// Whether it had begun when the run was stopped.
    fn was_stopped(&self) -> bool {
        self.result == "skipped" && self.seconds > 0.0
    }

    /// The report of the preflight, which comes before everything and is no step of the plan.
    #[must_use]
    pub fn of_preflight(preflight: &Preflight, engine: &str) -> Self {
        let installed =
            if preflight.installed.is_empty() { "nothing".into() } else { preflight.installed.join(", ") };
        Self {
            id: PREFLIGHT.into(),
            purpose: "look at the machine, install what is missing, and find an engine".into(),
            needs: Vec::new(),
            started: preflight.started,
            ended: preflight.ended,
            seconds: preflight.ended.duration_since(preflight.started).as_secs_f64(),
            result: "done",
            changed: !preflight.installed.is_empty(),
            note: format!("{engine}; installed: {installed}"),
        }
    }

    /// The report of the look at what exists, which has just ended and is no step of the plan.
    #[must_use]
    pub fn of_observation(started: Timestamp) -> Self {
        let ended = Timestamp::now();
        Self {
            id: OBSERVATION.into(),
            purpose: "look at what exists".into(),
            needs: vec![PREFLIGHT.into()],
            started,
            ended,
            seconds: ended.duration_since(started).as_secs_f64(),
            result: "done",
            changed: false,
            note: String::new(),
        }
    }

    /// The report of the clean-up, which comes after everything and is no step of the plan.
    #[must_use]
    pub fn of_cleanup(started: Timestamp, after: Option<String>, removed: &Result<String>) -> Self {
        let ended = Timestamp::now();
        let (result, note) = match removed {
            Ok(note) => ("done", note.clone()),
            Err(error) => ("failed", format!("{error:#}")),
        };
        Self {
            id: "down".into(),
            purpose: "remove everything that was made".into(),
            needs: after.into_iter().collect(),
            started,
            ended,
            seconds: ended.duration_since(started).as_secs_f64(),
            result,
            changed: removed.is_ok(),
            note,
        }
    }
}

impl CriticalPath {
    /// Walks back from the step that ended last, each time to the need that ended last.
    #[must_use]
    pub fn of(steps: &[StepReport]) -> Self {
        let mut path = Self::default();
        let mut at = steps.iter().filter(|step| step.result == "done").max_by_key(|step| step.ended);
        while let Some(step) = at {
            path.steps.insert(0, step.id.clone());
            path.seconds += step.seconds;
            at = steps.iter().filter(|other| step.needs.contains(&other.id)).max_by_key(|other| other.ended);
        }
        path
    }
}

/// What became of a run, in a word.
fn result_word(error: Option<&anyhow::Error>) -> &'static str {
    match error {
        None => "passed",
        Some(error) if error.chain().any(<dyn std::error::Error>::is::<NotProved>) => "not proved",
        Some(_) => "failed",
    }
}

/// The variable that names the file which GitHub Actions shows as the summary of a job.
const SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// What has come of the run, in one line that does not claim more than it was.
fn headline(report: &Report) -> String {
    let Environment { hub, runtime, .. } = &report.environment;
    let with = format!("{hub} hub, {runtime} runtime");
    match (report.result, &report.verdict) {
        ("passed", _) if !report.messages.is_empty() => {
            format!("passed: {} messages arrived ({with})", report.messages.len())
        }
        ("passed", _) => format!("passed ({with})"),
        (_, Some(verdict)) if verdict.exit_code == INTERRUPTED => format!("stopped by the user ({with})"),
        (result, Some(verdict)) => match &verdict.layer {
            Some(layer) => format!("{result}: the layer {layer} is broken ({with})"),
            None => format!("{result} ({with})"),
        },
        (result, None) => format!("{result} ({with})"),
    }
}

impl Report {
    /// What a command that ends now has come to, with nothing yet of how.
    #[must_use]
    pub fn of(command: &str, started: Timestamp, error: Option<&anyhow::Error>) -> Self {
        let ended = Timestamp::now();
        Self {
            schema: 1,
            command: command.to_owned(),
            started,
            ended,
            seconds: ended.duration_since(started).as_secs_f64(),
            result: result_word(error),
            error: error.map(|error| format!("{error:#}")),
            verdict: error.map(Verdict::of),
            environment: Environment::default(),
            steps: Vec::new(),
            critical_path: CriticalPath::default(),
            layers: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Writes the report into the run's folder, after `redact` has taken the secrets out, says where it is, and gives it to a
    /// script that has asked. That it cannot be written is told, and does not hide how the run itself went.
    pub fn publish(
        self,
        folder: &Path,
        project: &Path,
        progress: &Progress,
        results: &Results,
        redact: impl Fn(&str) -> String,
    ) {
        // Once before a format writes some characters in another way, and once after, for what is in no text of its own.
        let report = self.without_secrets(&redact);
        let written = report.to_json(&redact).and_then(|json| {
            results.give(&json);
            report.write(folder, &json, redact)
        });
        match written {
            Ok(path) => progress.say(&format!("report: {}", shown(&path, project))),
            Err(error) => progress.say(&format!("the report could not be written: {error:#}")),
        }
    }

    fn to_json(&self, redact: impl Fn(&str) -> String) -> Result<String> {
        let json = serde_json::to_string_pretty(self).context("failed to write the report as JSON")?;
        Ok(redact(&json) + "\n")
    }

    /// Writes `report.json`, `report.html` and `junit.xml`, and the summary where CI asks for one. Gives the path of the first.
    fn write(&self, folder: &Path, json: &str, redact: impl Fn(&str) -> String) -> Result<PathBuf> {
        fs_err::create_dir_all(folder)?;
        let path = folder.join("report.json");
        fs_err::write(&path, json)?;
        fs_err::write(folder.join("junit.xml"), redact(&junit::render(self)))?;
        fs_err::write(folder.join("report.html"), redact(&html::render(self)))?;
        if let Some(summary) = std::env::var_os(SUMMARY).filter(|path| !path.is_empty()) {
            let text = redact(&markdown::render(self, &folder.display().to_string()));
            let mut file =
                fs_err::OpenOptions::new().create(true).append(true).open(PathBuf::from(summary))?;
            file.write_all(text.as_bytes())?;
        }
        Ok(path)
    }

    /// The same, without secrets in what errors, steps and layers say.
    fn without_secrets(mut self, redact: &impl Fn(&str) -> String) -> Self {
        let verdict = self.verdict.iter_mut().flat_map(|verdict| [&mut verdict.cause, &mut verdict.next]);
        let steps = self.steps.iter_mut().map(|step| &mut step.note);
        let layers = self
            .layers
            .iter_mut()
            .flat_map(|layer| std::iter::once(&mut layer.detail).chain(&mut layer.next));
        for text in self.error.iter_mut().chain(verdict).chain(steps).chain(layers) {
            *text = redact(text);
        }
        self
    }
}
