//! The live view on a terminal: a line for each running step, one for the telemetry, one for all steps together.

use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::text::wrap;
use super::{echo, line};

/// How often the view is drawn anew.
const TICK: Duration = Duration::from_millis(120);

/// The view that is on the terminal, for those who have to say something and do not know it.
static SHOWN: OnceLock<MultiProgress> = OnceLock::new();

/// What is shown on the terminal while steps run.
#[derive(Debug)]
pub(super) struct Live {
    bars: MultiProgress,
    colour: bool,
    overall: Mutex<Option<Bar<(usize, usize)>>>,
    telemetry: Mutex<Option<Bar<Vec<f64>>>>,
}

/// A line of the view, and what is shown in it.
#[derive(Debug)]
pub(super) struct Bar<T> {
    bars: MultiProgress,
    bar: ProgressBar,
    words: Arc<Mutex<T>>,
}

impl<T> Bar<T> {
    /// Shows something else from now on.
    pub(super) fn set(&self, words: T) {
        *lock(&self.words) = words;
    }

    /// Takes the line away.
    pub(super) fn remove(self) {
        self.bar.finish_and_clear();
        self.bars.remove(&self.bar);
    }
}

/// Standard error, if it is a terminal on which lines can be drawn over.
pub(super) fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Says a sentence, above the live view if there is one.
pub(super) fn say_above(text: &str) {
    match SHOWN.get() {
        // A closed terminal is no reason to fail the run.
        Some(bars) => drop(bars.println(wrap(text, columns()))),
        None => eprintln!("{text}"),
    }
}

/// Takes the view away, if there is one.
pub(super) fn clear() {
    if let Some(bars) = SHOWN.get() {
        // A closed terminal is clear enough.
        drop(bars.clear());
    }
}

impl Live {
    pub(super) fn new() -> Self {
        // As no-color.org has it.
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        echo::quiet();
        let bars = SHOWN.get_or_init(MultiProgress::new).clone();
        Self { bars, colour, overall: Mutex::default(), telemetry: Mutex::default() }
    }

    /// Prints a line above the view that is laid out already.
    pub(super) fn print(&self, line: &str) {
        drop(self.bars.println(line));
    }

    /// Says a sentence above the view.
    pub(super) fn say(&self, text: &str) {
        // A closed terminal is no reason to fail the run.
        drop(self.bars.println(wrap(text, columns())));
    }

    /// Whether marks may be coloured.
    pub(super) fn has_colour(&self) -> bool {
        self.colour
    }

    /// A line for a step that has begun.
    pub(super) fn step(&self, name: &str, purpose: &str) -> Bar<String> {
        let (name, purpose) = (name.to_owned(), purpose.to_owned());
        let started = Instant::now();
        // Above the telemetry and the line for all steps.
        let below = usize::from(lock(&self.overall).is_some()) + usize::from(lock(&self.telemetry).is_some());
        self.add(below, String::new(), move |columns, last: &String| {
            line::running(columns, &name, started.elapsed(), &purpose, last)
        })
    }

    /// The line for all steps together; none when nothing runs.
    pub(super) fn overall(&self, done: usize, total: usize, started: Instant) {
        let mut shown = lock(&self.overall);
        if total == 0 {
            if let Some(old) = shown.take() {
                old.remove();
            }
        } else if let Some(old) = &*shown {
            old.set((done, total));
        } else {
            *shown = Some(self.add(0, (done, total), move |columns, (done, total)| {
                line::overall(columns, *done, *total, started.elapsed())
            }));
        }
    }

    /// The temperatures that have arrived so far; none takes the line away.
    pub(super) fn telemetry(&self, values: &[f64]) {
        let mut shown = lock(&self.telemetry);
        if values.is_empty() {
            if let Some(old) = shown.take() {
                old.remove();
            }
        } else if let Some(old) = &*shown {
            old.set(values.to_vec());
        } else {
            let below = usize::from(lock(&self.overall).is_some());
            *shown =
                Some(self.add(below, values.to_vec(), |columns, values| line::telemetry(columns, values)));
        }
    }

    /// Adds a line above the last `below` ones.
    fn add<T: Send + 'static>(
        &self,
        below: usize,
        words: T,
        draw: impl Fn(usize, &T) -> String + Clone + Send + Sync + 'static,
    ) -> Bar<T> {
        let words = Arc::new(Mutex::new(words));
        let shown = Arc::clone(&words);
        let show = move |_: &ProgressState, out: &mut dyn Write| {
            // In the last column, some terminals would wrap.
            let columns = columns().saturating_sub(1);
            let _ = out.write_str(&draw(columns, &lock(&shown)));
        };
        let bar = self.bars.insert_from_back(below, ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{line}") {
            bar.set_style(style.with_key("line", show));
        }
        bar.enable_steady_tick(TICK);
        Bar { bars: self.bars.clone(), bar, words }
    }
}

/// The width of the terminal now; it may change.
pub(super) fn columns() -> usize {
    usize::from(Term::stderr().size().1)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere leaves at worst a stale line on the screen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
