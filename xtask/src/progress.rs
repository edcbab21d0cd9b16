//! What a person sees while steps run: spinners on a terminal, one plain line per event elsewhere.
//!
//! Everything here goes to standard error; standard output belongs to results.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Off a terminal, a step's details are shown at most this often.
const DETAIL_INTERVAL: Duration = Duration::from_secs(15);

/// How a step ended, as shown to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It did what it was for.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// It failed.
    Failed,
    /// It was stopped, because another step failed or the user asked to.
    Stopped,
}

/// Shows the progress of the steps of one run.
#[derive(Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
    running: Mutex<HashMap<String, Running>>,
    started: Instant,
}

#[derive(Debug)]
struct Running {
    bar: Option<ProgressBar>,
    purpose: String,
    shown: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        let fancy =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self { bars: fancy.then(MultiProgress::new), running: Mutex::default(), started: Instant::now() }
    }
}

impl Progress {
    /// Says a sentence outside any step.
    pub fn say(&self, text: &str) {
        match &self.bars {
            // A closed terminal is no reason to fail the run.
            Some(bars) => drop(bars.println(text)),
            None => eprintln!("{text}"),
        }
    }

    /// A step has begun.
    pub fn begin(&self, step: &str, purpose: &str) {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) =
                ProgressStyle::with_template("  {spinner} {prefix:14} {elapsed:>4}  {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(step.to_owned());
            bar.set_message(purpose.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("{} {step:14} {purpose}", self.clock());
        }
        let running = Running { bar, purpose: purpose.to_owned(), shown: Instant::now() };
        self.lock().insert(step.to_owned(), running);
    }

    /// A running step has something to tell; the last line is what counts.
    pub fn detail(&self, step: &str, line: &str) {
        let line = line.trim();
        let mut all = self.lock();
        let Some(running) = all.get_mut(step).filter(|_| !line.is_empty()) else { return };
        if let Some(bar) = &running.bar {
            bar.set_message(format!("{}: {line}", running.purpose));
        } else if running.shown.elapsed() >= DETAIL_INTERVAL {
            running.shown = Instant::now();
            eprintln!("{} {step:14}   … {line}", self.clock());
        }
    }

    /// A step has ended.
    pub fn end(&self, step: &str, mark: Mark, took: Duration, note: &str) {
        if let Some(bar) = self.lock().remove(step).and_then(|running| running.bar) {
            bar.finish_and_clear();
        }
        let word = match mark {
            Mark::Done => "done",
            Mark::Unchanged => "unchanged",
            Mark::Failed => "FAILED",
            Mark::Stopped => "stopped",
        };
        let note = if note.is_empty() { String::new() } else { format!("  {note}") };
        self.say(&format!("{} {step:14} {word} in {:.1} s{note}", self.clock(), took.as_secs_f64()));
    }

    fn clock(&self) -> String {
        format!("{:>6.1}s", self.started.elapsed().as_secs_f64())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Running>> {
        // A panic elsewhere leaves at worst a stale line on the screen.
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
