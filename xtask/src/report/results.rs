//! What goes to standard output: for people the results as they come, for a script one JSON document and nothing else.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use super::{Environment, Report};
use crate::evidence::redact::redact;

/// To whom a command tells its results.
#[derive(Debug, Clone, Default)]
pub struct Results(Option<Arc<Document>>);

/// The one document of an invocation.
#[derive(Debug)]
struct Document {
    command: &'static str,
    began: Timestamp,
    environment: OnceLock<Environment>,
    given: AtomicBool,
}

impl Results {
    /// For a script, if this command was asked for JSON; else for people.
    #[must_use]
    pub fn of(command: Option<&'static str>) -> Self {
        Self(command.map(|command| {
            let (environment, given) = (OnceLock::new(), AtomicBool::new(false));
            Arc::new(Document { command, began: Timestamp::now(), environment, given })
        }))
    }

    /// Whether a script reads them.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.0.is_some()
    }

    /// Says on what the run is to be, which a failure before it tells.
    pub fn on(&self, environment: Environment) {
        if let Some(document) = &self.0 {
            // The first one counts.
            let _ = document.environment.set(environment);
        }
    }

    /// A line for people. A script finds it where all else is that people read.
    pub fn line(&self, text: &str) {
        if self.is_json() { eprintln!("{text}") } else { println!("{text}") }
    }

    /// Gives a script its document, once.
    pub fn give(&self, json: &str) {
        let Some(document) = &self.0 else { return };
        if document.given.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{}", json.trim_end()).and_then(|()| out.flush()) {
            eprintln!("the report could not be printed: {error}");
        }
    }

    /// Gives a script the report of a run that has failed before there was one.
    pub fn fail(&self, error: &anyhow::Error) {
        let Some(document) = &self.0 else { return };
        let report = Report {
            environment: document.environment.get().cloned().unwrap_or_default(),
            ..Report::of(document.command, document.began, Some(error))
        };
        let by_looks = |text: &str| redact(text, &str::to_owned);
        match report.without_secrets(&by_looks).to_json(by_looks) {
            Ok(json) => self.give(&json),
            Err(error) => eprintln!("the report could not be printed: {error:#}"),
        }
    }
}
