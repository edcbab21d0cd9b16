//! The one place that starts child processes: argv only, no shell, nothing on standard input unless it is given,
//! output in a log file, a purpose for the error text, a time limit, and an end on cancellation.

mod error;
mod listener;
mod path;
mod quote;
#[cfg(test)]
mod tests;
mod withheld;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio_util::sync::CancellationToken;

use self::listener::Listener;

pub use self::error::ProcessError;
pub use self::path::find_on_path;
pub use self::quote::quote;
pub use self::withheld::withhold;

/// How many lines of a failed child's output go into the error.
const TAIL_LINES: usize = 15;
/// How often a running child is checked for its limit and for cancellation.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a child may take to end by itself once it is asked to: an engine killed while it sets up a network
/// leaves firewall rules behind.
const END_GRACE: Duration = Duration::from_secs(8);

/// A child process to be run.
#[derive(Debug, Clone)]
pub struct Process {
    purpose: String,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    log: Option<PathBuf>,
    limit: Duration,
    cancel: CancellationToken,
    input: Vec<u8>,
    outlives: bool,
    at_terminal: bool,
    listener: Option<Listener>,
}

impl Process {
    /// A child that runs `program` in order to `purpose` (words that fit after "failed to").
    pub fn new(purpose: impl Into<String>, program: impl AsRef<OsStr>) -> Self {
        Self {
            purpose: purpose.into(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            log: None,
            limit: Duration::from_secs(60),
            cancel: CancellationToken::new(),
            input: Vec::new(),
            outlives: false,
            at_terminal: false,
            listener: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds environment variables to the inherited ones.
    #[must_use]
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, envs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.env.extend(
            envs.into_iter().map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned())),
        );
        self
    }

    /// Runs in `dir`.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Appends the output to the file `log`.
    #[must_use]
    pub fn log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Tells `listener` the last line of what goes to the log, while the child runs.
    #[must_use]
    pub fn telling(mut self, listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.listener = Some(Listener::new(listener));
        self
    }

    /// Ends the child after `limit`.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Ends the child when `cancel` is cancelled.
    #[must_use]
    pub fn cancelled_by(mut self, cancel: &CancellationToken) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// What the child finds on its standard input, by default nothing; for [`Process::read`].
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// The command line as one would type it.
    #[must_use]
    pub fn command_line(&self) -> String {
        let mut line = quote(&self.program);
        for arg in &self.args {
            let _ = write!(line, " {}", quote(arg));
        }
        line
    }

    /// Runs the child; its output goes to the log, and its tail into the error.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn run(self) -> Result<(), ProcessError> {
        self.on_worker(Self::run_blocking).await
    }

    /// Runs the child and returns its standard output; standard error goes to the log.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn read(self) -> Result<String, ProcessError> {
        self.on_worker(Self::read_blocking).await
    }

    async fn on_worker<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T, ProcessError> + Send + 'static,
    ) -> Result<T, ProcessError> {
        let purpose = self.purpose.clone();
        tokio::task::spawn_blocking(move || work(&self))
            .await
            .unwrap_or(Err(ProcessError::Cancelled { purpose }))
    }

    /// Lets the child finish even when this program is killed, where half of its work is worse than late work.
    #[must_use]
    pub fn outlives_its_parent(mut self) -> Self {
        self.outlives = true;
        self
    }

    /// Leaves the child at the terminal, where it may ask for a password.
    #[must_use]
    pub fn stays_at_terminal(mut self) -> Self {
        self.at_terminal = true;
        self
    }

    /// Starts the child and leaves it running; [`end_group`] ends it.
    ///
    /// # Errors
    /// [`ProcessError::NotStarted`].
    pub fn start(&self) -> Result<duct::Handle, ProcessError> {
        let capture = self.open_log().map_err(|source| self.not_started(source))?;
        let expression = self.expression().stdin_null().stderr_to_stdout().stdout_file(capture.file);
        expression.start().map_err(|source| self.not_started(source))
    }

    fn run_blocking(&self) -> Result<(), ProcessError> {
        let capture = self.open_log().map_err(|source| self.not_started(source))?;
        let path = capture.path.clone();
        let handle = self
            .expression()
            .stdin_null()
            .stderr_to_stdout()
            .stdout_file(capture.file)
            .start()
            .map_err(|source| self.not_started(source))?;
        self.finish(&handle, &path, capture.start).map(drop)
    }

    fn read_blocking(&self) -> Result<String, ProcessError> {
        let capture = self.open_log().map_err(|source| self.not_started(source))?;
        let path = capture.path.clone();
        let handle = self
            .expression()
            .stdin_bytes(self.input.clone())
            .stderr_file(capture.file)
            .stdout_capture()
            .start()
            .map_err(|source| self.not_started(source))?;
        let stdout = self.finish(&handle, &path, capture.start)?;
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    fn expression(&self) -> duct::Expression {
        let mut expression = match self.ended_with_parent() {
            Some((wrapper, program)) => {
                let first: [OsString; 3] = ["--pdeathsig".into(), "KILL".into(), program.into()];
                duct::cmd(wrapper, first.iter().chain(&self.args))
            }
            None => duct::cmd(&self.program, &self.args),
        }
        .unchecked();
        for name in withheld::all() {
            expression = expression.env_remove(name);
        }
        for (name, value) in &self.env {
            expression = expression.env(name, value);
        }
        if !self.at_terminal {
            // A group of its own: Ctrl-C at the terminal does not reach it, since clean-up may still need it, and
            // what it has started in turn can be ended with it.
            expression = expression.before_spawn(|command| {
                std::os::unix::process::CommandExt::process_group(command, 0);
                Ok(())
            });
        }
        match &self.dir {
            Some(dir) => expression.dir(dir),
            None => expression,
        }
    }

    /// The wrapper with which the kernel ends the child when the thread that started it is gone, as after a
    /// `kill -9` of this program; and the program itself, which a missing one must not hide behind the wrapper.
    fn ended_with_parent(&self) -> Option<(PathBuf, PathBuf)> {
        if self.outlives {
            return None;
        }
        let program = Path::new(&self.program);
        let found =
            if program.components().count() > 1 { Some(program.to_owned()) } else { find_on_path(program) };
        Some((find_on_path("setpriv")?, found.filter(|path| path.exists())?))
    }

    fn open_log(&self) -> io::Result<Capture> {
        let Some(path) = &self.log else {
            let (file, kept) = tempfile::NamedTempFile::new()?.into_parts();
            return Ok(Capture { file, path: kept.to_path_buf(), start: 0, _kept: Some(kept) });
        };
        let file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
        let start = file.metadata()?.len();
        Ok(Capture { file: file.into_file(), path: path.clone(), start, _kept: None })
    }

    /// Waits for the child; whatever ends the wait, the child does not outlive it.
    fn finish(&self, handle: &duct::Handle, log: &Path, start: u64) -> Result<Vec<u8>, ProcessError> {
        let started = Instant::now();
        let tail = || tail_of(log, start);
        let mut heard = start;
        loop {
            match handle.wait_timeout(CHECK_INTERVAL) {
                Ok(Some(output)) if output.status.success() => return Ok(output.stdout.clone()),
                Ok(Some(output)) => {
                    return Err(ProcessError::Failed {
                        purpose: self.purpose.clone(),
                        command: self.command_line(),
                        status: output.status.to_string(),
                        tail: tail(),
                    });
                }
                Ok(None) => {
                    if let Some(listener) = &self.listener {
                        heard = listener.hear(log, heard);
                    }
                }
                Err(source) => return Err(self.not_started(source)),
            }
            let ended = if self.cancel.is_cancelled() {
                ProcessError::Cancelled { purpose: self.purpose.clone() }
            } else if started.elapsed() >= self.limit {
                ProcessError::TimedOut {
                    purpose: self.purpose.clone(),
                    command: self.command_line(),
                    limit: self.limit,
                    tail: tail(),
                }
            } else {
                continue;
            };
            end_group(handle);
            return Err(ended);
        }
    }

    fn not_started(&self, source: io::Error) -> ProcessError {
        ProcessError::NotStarted {
            purpose: self.purpose.clone(),
            program: self.program.to_string_lossy().into_owned(),
            source,
        }
    }
}

/// Whether a short program ends well; nobody sees what it writes.
#[must_use]
pub fn succeeds(program: &str, args: &[&str]) -> bool {
    Process::new("look", program).args(args).read_blocking().is_ok()
}

/// Ends a child and what it has started: first politely, for most of them clean up after themselves.
pub fn end_group(handle: &duct::Handle) {
    for signal in [Signal::TERM, Signal::KILL] {
        for pid in handle.pids().into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // One that has ended already is as good; one at the terminal is in our own group, and ends alone.
            if kill_process_group(pid, signal).is_err() {
                let _ = kill_process(pid, signal);
            }
        }
        if matches!(handle.wait_timeout(END_GRACE), Ok(Some(_)) | Err(_)) {
            return;
        }
    }
}

/// Where a child's output goes, and from where on it is this child's.
struct Capture {
    file: std::fs::File,
    path: PathBuf,
    start: u64,
    _kept: Option<tempfile::TempPath>,
}

fn tail_of(path: &Path, start: u64) -> String {
    let Ok(bytes) = fs_err::read(path) else { return String::new() };
    let own = bytes.get(usize::try_from(start).unwrap_or(0)..).unwrap_or_default();
    let text = String::from_utf8_lossy(own);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().fold(String::new(), |mut tail, line| {
        let _ = write!(tail, "\n    {line}");
        tail
    })
}
