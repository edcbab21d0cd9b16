//! Runs a plan: every step as soon as what it needs is done, as many at once as the graph allows.
//!
//! The first failure cancels the rest. Running steps get a moment to end by themselves, because most of them
//! hold a child process or a half-made container; what has not begun is reported as skipped.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::plan::{Action, Plan, Step, Work};
use crate::progress::{Mark, Progress};

/// How long a cancelled step may take to end its child processes.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// What a step has brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whether anything is other than it was before.
    pub changed: bool,
    /// What was done, or what was there already.
    pub note: String,
}

impl Effect {
    /// Something was done.
    pub fn changed(note: impl Into<String>) -> Self {
        Self { changed: true, note: note.into() }
    }

    /// All was there already.
    pub fn unchanged(note: impl Into<String>) -> Self {
        Self { changed: false, note: note.into() }
    }
}

/// How one step ended.
#[derive(Debug)]
pub enum Outcome {
    /// What it was for is there.
    Done(Effect),
    /// It failed.
    Failed(anyhow::Error),
    /// It was stopped, or never begun, because another step failed or the user asked to stop.
    Skipped,
}

/// One step of a run that has ended.
#[derive(Debug)]
pub struct Record {
    /// The step.
    pub step: Step,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How.
    pub outcome: Outcome,
}

impl Record {
    /// How long the step took, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.ended.duration_since(self.started).as_secs_f64()
    }

    /// Whether what the step was for is there.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Done(_))
    }

    /// Whether the step has changed anything.
    #[must_use]
    pub fn changed(&self) -> bool {
        matches!(&self.outcome, Outcome::Done(effect) if effect.changed)
    }
}

/// Runs the steps of `plan` that have something to do; `run` does the work of one action.
pub async fn execute<F, Fut>(
    plan: &Plan,
    progress: &Progress,
    cancel: &CancellationToken,
    run: F,
) -> Vec<Record>
where
    F: Fn(Action) -> Fut,
    Fut: Future<Output = Result<Effect>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut running: HashMap<Id, (Step, Timestamp)> = HashMap::new();
    let (mut records, mut waiting) = without_idle(plan);
    progress.expect(plan.steps.len(), records.len());
    loop {
        while let Some(step) = next_ready(&mut waiting, &records).filter(|_| !cancel.is_cancelled()) {
            progress.begin(&step.action.id(), &step.action.purpose());
            let grace = if step.action.has_children() { CANCEL_GRACE } else { Duration::ZERO };
            let task = tasks.spawn(within(step.limit, grace, cancel.clone(), run(step.action)));
            running.insert(task.id(), (step, Timestamp::now()));
        }
        let Some(joined) = tasks.join_next_with_id().await else { break };
        let (id, result) = match joined {
            Ok((id, result)) => (id, result),
            // A panic is a defect of ours; the run still ends in order and says which step it was.
            Err(error) => (error.id(), Err(anyhow!(error).context("the step ended unexpectedly"))),
        };
        let Some((step, started)) = running.remove(&id) else { continue };
        let record = finished(step, started, result, cancel.is_cancelled(), progress);
        if !record.succeeded() {
            cancel.cancel();
        }
        records.push(record);
    }
    let now = Timestamp::now();
    records.extend(waiting.into_iter().map(|step| Record {
        step,
        started: now,
        ended: now,
        outcome: Outcome::Skipped,
    }));
    records
}

/// The records of the steps that have nothing to do, and the other steps.
fn without_idle(plan: &Plan) -> (Vec<Record>, Vec<Step>) {
    let now = Timestamp::now();
    let (mut records, mut waiting) = (Vec::new(), Vec::new());
    for step in plan.steps.iter().cloned() {
        match &step.work {
            Work::Nothing(note) => {
                let outcome = Outcome::Done(Effect::unchanged(note));
                records.push(Record { step, started: now, ended: now, outcome });
            }
            _ => waiting.push(step),
        }
    }
    (records, waiting)
}

/// Takes a step out of `waiting` all of whose needs are done.
fn next_ready(waiting: &mut Vec<Step>, records: &[Record]) -> Option<Step> {
    let done =
        |action: &Action| records.iter().any(|record| record.step.action == *action && record.succeeded());
    let position = waiting.iter().position(|step| step.needs.iter().all(done))?;
    Some(waiting.remove(position))
}

async fn within(
    limit: Duration,
    grace: Duration,
    cancel: CancellationToken,
    work: impl Future<Output = Result<Effect>>,
) -> Result<Effect> {
    let stopped = async {
        cancel.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        ended = tokio::time::timeout(limit, work) => {
            ended.with_context(|| format!("did not end within {} minutes", limit.as_secs() / 60))?
        }
        () = stopped => bail!("stopped"),
    }
}

fn finished(
    step: Step,
    started: Timestamp,
    result: Result<Effect>,
    cancelled: bool,
    progress: &Progress,
) -> Record {
    let ended = Timestamp::now();
    let outcome = match result {
        Ok(effect) => Outcome::Done(effect),
        // What a step says after the run was cancelled is a consequence, not a cause.
        Err(_) if cancelled => Outcome::Skipped,
        Err(error) => Outcome::Failed(error),
    };
    let (mark, note) = match &outcome {
        Outcome::Done(effect) if effect.changed => (Mark::Done, effect.note.as_str()),
        Outcome::Done(effect) => (Mark::Unchanged, effect.note.as_str()),
        Outcome::Failed(_) => (Mark::Failed, ""),
        Outcome::Skipped => (Mark::Stopped, ""),
    };
    progress.end(&step.action.id(), mark, ended.duration_since(started).unsigned_abs(), note);
    Record { step, started, ended, outcome }
}

/// The user asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped by the user")]
pub struct Interrupted;

/// A step of the plan has failed; what follows it in an error says why.
#[derive(Debug, Clone, Copy)]
pub struct FailedStep(pub Action);

impl fmt::Display for FailedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}", self.0.purpose())
    }
}

/// Turns the records of a run into its result: the first failure, with the step's purpose as context.
///
/// # Errors
/// When a step failed, or the run was stopped before all steps were done ([`Interrupted`]).
pub fn conclude(records: &mut [Record]) -> Result<()> {
    for record in records.iter_mut() {
        if let Outcome::Failed(error) = &mut record.outcome {
            let text = anyhow!("{error:#}");
            return Err(std::mem::replace(error, text).context(FailedStep(record.step.action)));
        }
    }
    if records.iter().all(Record::succeeded) { Ok(()) } else { Err(Interrupted.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Image;
    use crate::plan::{Condition, Observed, Shape};
    use std::sync::Arc;
    use tokio::sync::Barrier;

    async fn run_all(
        goal: Action,
        observed: &Observed,
        run: impl Fn(Action) -> Result<Effect> + Send + Sync + 'static,
    ) -> Vec<Record> {
        let run = Arc::new(run);
        let plan = Plan::new(&[goal], Shape::SIMULATED, observed);
        execute(&plan, &Progress::default(), &CancellationToken::new(), |action| {
            let run = Arc::clone(&run);
            async move { run(action) }
        })
        .await
    }

    #[tokio::test]
    async fn a_step_begins_after_its_needs_have_ended() {
        let records = run_all(Action::Telemetry(crate::place::Place::Cluster), &Observed::new(), |_| {
            Ok(Effect::changed(""))
        })
        .await;
        let ended = |action| records.iter().find(|record| record.step.action == action).unwrap().ended;
        for record in &records {
            assert!(record.succeeded());
            assert!(
                record.step.needs.iter().all(|need| ended(*need) <= record.started),
                "{}",
                record.step.action
            );
        }
    }

    #[tokio::test]
    async fn independent_steps_run_at_the_same_time() {
        let barrier = Arc::new(Barrier::new(2));
        let plan = Plan::new(&[Action::Network, Action::Binaries], Shape::SIMULATED, &Observed::new());
        let records = execute(&plan, &Progress::default(), &CancellationToken::new(), |_| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                Ok(Effect::changed(""))
            }
        })
        .await;
        assert!(records.iter().all(Record::succeeded));
    }

    #[tokio::test]
    async fn a_failure_skips_what_depends_on_it_and_is_told_with_its_purpose() {
        let mut records = run_all(Action::Hub, &Observed::new(), |action| match action {
            Action::Image(Image::Hub) => Err(anyhow!("no space left")),
            _ => Ok(Effect::changed("")),
        })
        .await;
        let outcome = |action| &records.iter().find(|record| record.step.action == action).unwrap().outcome;
        assert!(matches!(outcome(Action::Image(Image::Hub)), Outcome::Failed(_)));
        assert!(matches!(outcome(Action::Hub), Outcome::Skipped));
        let error = conclude(&mut records).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed to build the hub image: no space left");
    }

    #[tokio::test]
    async fn a_step_with_nothing_to_do_is_not_run() {
        let observed = Observed::from([(Action::Network, Condition::Holds("`kedge`".into()))]);
        let records = run_all(Action::Hub, &observed, |action| match action {
            Action::Network => Err(anyhow!("it was run")),
            _ => Ok(Effect::changed("")),
        })
        .await;
        assert!(records.iter().all(Record::succeeded));
        let changed = |action| records.iter().any(|record| record.step.action == action && record.changed());
        assert!(!changed(Action::Network) && changed(Action::Hub));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_hangs_ends_at_its_limit() {
        let plan = Plan::new(&[Action::Network], Shape::SIMULATED, &Observed::new());
        let records =
            execute(&plan, &Progress::default(), &CancellationToken::new(), |_| std::future::pending()).await;
        let Outcome::Failed(error) = &records[0].outcome else { panic!("{records:?}") };
        assert!(error.to_string().contains("did not end within 2 minutes"), "{error}");
    }
}
