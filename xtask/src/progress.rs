//! What a person sees while steps run: a live view on a terminal, one plain line per event elsewhere.
//!
//! Everything here goes to standard error; standard output belongs to results. What comes from other programs is stripped of
//! all that acts on a terminal. Colour is on a terminal only, and only on words that say the same without.

mod echo;
mod line;
mod live;
mod text;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use self::live::{Bar, Live};
pub use self::text::{elapsed, plain, plain_lines};

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

impl Mark {
    /// The word for it, and the colour that goes with it.
    fn word(self) -> (&'static str, Option<u8>) {
        match self {
            Self::Done => ("done", Some(32)),
            Self::Unchanged => ("unchanged", None),
            Self::Failed => ("FAILED", Some(31)),
            Self::Stopped => ("stopped", Some(33)),
        }
    }
}

/// Shows the progress of the steps of one run.
#[derive(Debug)]
pub struct Progress {
    live: Option<Live>,
    state: Mutex<State>,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<String, Running>,
    done: usize,
    total: usize,
    /// How many temperatures were told.
    temperatures: Vec<f64>,
}

#[derive(Debug)]
struct Running {
    bar: Option<Bar<String>>,
    shown: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        let live = live::is_terminal().then(Live::new);
        Self { live, state: Mutex::default(), started: Instant::now() }
    }
}

/// Says a sentence where the progress of the run is not known: above the live view, if there is one.
pub fn say_above(text: &str) {
    live::say_above(text);
}

/// Leaves the terminal as it was before there was a live view, of which nothing stays that looks as if it went on; to be called
/// before this program ends.
pub fn leave_terminal() {
    live::clear();
    echo::restore();
}

impl Progress {
    /// Says a sentence outside any step.
    pub fn say(&self, text: &str) {
        self.print(&plain_lines(text));
    }

    /// So many steps are planned, and so many of them have nothing to do.
    pub fn expect(&self, total: usize, done: usize) {
        let mut state = self.lock();
        (state.total, state.done) = (total, done);
    }

    /// A step has begun.
    pub fn begin(&self, step: &str, purpose: &str) {
        let purpose = plain(purpose);
        let mut state = self.lock();
        let bar = self.live.as_ref().map(|live| live.step(step, &purpose));
        if bar.is_none() {
            eprintln!("{} {step:14} {purpose}", self.clock());
        }
        state.running.insert(step.to_owned(), Running { bar, shown: Instant::now() });
        // One that was not planned, such as the removal at the end, counts as well.
        state.total = state.total.max(state.done + state.running.len());
        self.show_overall(&state);
    }

    /// A running step has something to tell; the last line is what counts.
    pub fn detail(&self, step: &str, line: &str) {
        let line = plain(line);
        let line = line.trim();
        let mut state = self.lock();
        let Some(running) = state.running.get_mut(step).filter(|_| !line.is_empty()) else { return };
        if let Some(bar) = &running.bar {
            bar.set(line.to_owned());
        } else if running.shown.elapsed() >= DETAIL_INTERVAL {
            running.shown = Instant::now();
            eprintln!("{} {step:14}   … {line}", self.clock());
        }
    }

    /// The temperatures that have arrived at the hub so far; a live view shows them.
    pub fn telemetry(&self, temperatures: Vec<f64>) {
        let Some(live) = &self.live else { return };
        let mut state = self.lock();
        if state.temperatures != temperatures {
            live.telemetry(&temperatures);
            state.temperatures = temperatures;
        }
    }

    /// A step has ended.
    pub fn end(&self, step: &str, mark: Mark, took: Duration, note: &str) {
        let mut state = self.lock();
        if let Some(bar) = state.running.remove(step).and_then(|running| running.bar) {
            bar.remove();
        }
        state.done += 1;
        let (word, colour) = mark.word();
        let note = plain(note);
        // Off a terminal, nothing is cut off.
        let columns = self.live.as_ref().map_or(usize::MAX, |_| live::columns().saturating_sub(1));
        let line = line::ended(columns, &self.clock(), step, word, took, &note);
        match &self.live {
            Some(live) => {
                self.leave_telemetry(live, &mut state);
                let colour = colour.filter(|_| live.has_colour());
                live.print(&colour.map_or_else(|| line.clone(), |colour| coloured(&line, word, colour)));
            }
            None => eprintln!("{line}"),
        }
        self.show_overall(&state);
    }

    /// Shows a piece of work as a step: that it goes on, and how it ended.
    ///
    /// # Errors
    /// As the work.
    pub async fn show(
        &self,
        step: &str,
        purpose: &str,
        work: impl Future<Output = Result<String>>,
    ) -> Result<String> {
        let started = Instant::now();
        self.begin(step, purpose);
        let result = work.await;
        let (mark, note) = match &result {
            Ok(note) => (Mark::Done, note.as_str()),
            Err(_) => (Mark::Failed, ""),
        };
        self.end(step, mark, started.elapsed(), note);
        result
    }

    /// When nothing runs any longer, the temperatures stay on the screen as they were last.
    fn leave_telemetry(&self, live: &Live, state: &mut State) {
        if state.running.is_empty() && !state.temperatures.is_empty() {
            let values = std::mem::take(&mut state.temperatures);
            live.telemetry(&[]);
            live.print(&line::telemetry(live::columns().saturating_sub(1), &values));
        }
    }

    fn show_overall(&self, state: &State) {
        let Some(live) = &self.live else { return };
        // Of one step alone, its own line tells everything.
        let total = if state.running.is_empty() || state.total < 2 { 0 } else { state.total };
        live.overall(state.done, total, self.started);
    }

    fn print(&self, text: &str) {
        match &self.live {
            Some(live) => live.say(text),
            None => eprintln!("{text}"),
        }
    }

    fn clock(&self) -> String {
        format!("{:>6.1}s", self.started.elapsed().as_secs_f64())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst a stale line on the screen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Progress {
    /// What still runs when nobody waits for it any longer leaves no line that looks as if it went on.
    fn drop(&mut self) {
        let Some(live) = &self.live else { return };
        let mut state = self.lock();
        state.running.drain().filter_map(|(_, running)| running.bar).for_each(Bar::remove);
        live.telemetry(&[]);
        live.overall(0, 0, self.started);
    }
}

/// The line with its mark in colour, if the mark was not cut off.
fn coloured(line: &str, word: &str, colour: u8) -> String {
    line.replacen(&format!(" {word} "), &format!(" \u{1b}[{colour}m{word}\u{1b}[0m "), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_on_the_mark_alone() {
        let line = coloured("   1.0s hub            FAILED in 1.0 s", "FAILED", 31);
        assert_eq!(line, "   1.0s hub            \u{1b}[31mFAILED\u{1b}[0m in 1.0 s");
        assert_eq!(plain(&line), "   1.0s hub            FAILED in 1.0 s");
        assert_eq!(coloured("   1.0s hub      FAI…", "FAILED", 31), "   1.0s hub      FAI…");
    }
}
