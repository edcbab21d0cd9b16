//! `cargo xtask fuzz`: libFuzzer on what reads the bytes of clients, with the stable compiler.
//!
//! The instrumentation is LLVM's own pass, which the compiler lets through; the programs are in a target folder of
//! their own, so that its flags invalidate no other build. What was found to reach new code stays there as well, and is
//! where the next run goes on.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use futures_util::{StreamExt as _, stream};

use crate::paths::shown;
use crate::preflight;
use crate::process::{Process, ProcessError};
use crate::session::Setup;
use crate::steps::binaries;

const COMPILE_LIMIT: Duration = Duration::from_secs(20 * 60);
/// What a target may take beyond its time: reading the corpus, and ending.
const GRACE: Duration = Duration::from_secs(120);
const FLAGS: &str = "--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
                     -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
                     -C llvm-args=-sanitizer-coverage-trace-compares";
/// No input may take 10 s or 512 MB; longer inputs reach nothing new.
const LIMITS: [&str; 4] = ["-timeout=10", "-rss_limit_mb=512", "-max_len=8192", "-print_final_stats=1"];

/// Flags of `fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to try [default: every target]
    #[arg(value_enum)]
    target: Option<Target>,
    /// For how long each of them
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Something that reads what a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// Streams of MQTT packets
    Packet,
    /// Packets over WebSockets
    Websocket,
    /// Conditions of routes, and the messages that they are asked of
    Condition,
    /// Topics, filters, property bags, user names, tokens
    Topic,
}

impl Target {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Args {
    /// Every target, each for `seconds`.
    pub(super) fn everything(seconds: u32) -> Self {
        Self { target: None, seconds }
    }

    fn targets(&self) -> Vec<Target> {
        self.target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target])
    }
}

/// Compiles the targets and runs them, as many at once as there are processors.
///
/// # Errors
/// When the machine lacks something, or an input was found that breaks what must hold.
pub async fn run(setup: &Setup, args: &Args) -> Result<()> {
    let (targets, seconds) = (args.targets(), args.seconds);
    if setup.dry_run {
        preflight::show_missing(&preflight::FUZZING);
        for target in targets {
            println!("would be fuzzed for {seconds} s: {}", target.name());
        }
        return Ok(());
    }
    preflight::ensure_tools(preflight::absent(&preflight::FUZZING), setup.yes).await?;
    let fuzzer = Fuzzer { setup, folder: setup.paths.project.join("target/kedge/fuzz") };
    fs_err::create_dir_all(&fuzzer.folder)?;
    eprintln!("compiling the fuzz targets");
    fuzzer.compile().await?;
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut runs = stream::iter(targets).map(|target| fuzzer.run(target.name(), seconds)).buffered(at_once);
    let mut failed = 0;
    // A target that has failed does not hinder the others.
    while let Some(run) = runs.next().await {
        match run {
            Ok(done) => println!("{done}"),
            Err(error) if setup.cancel.is_cancelled() => return Err(error),
            Err(error) => {
                failed += 1;
                eprintln!("{error:#}");
            }
        }
    }
    ensure!(failed == 0, "{failed} of the fuzz targets have failed");
    Ok(())
}

struct Fuzzer<'a> {
    setup: &'a Setup,
    /// Corpus, logs and inputs that broke something.
    folder: PathBuf,
}

impl Fuzzer<'_> {
    async fn compile(&self) -> Result<()> {
        let project = &self.setup.paths.project;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let package = ["build", "--locked", "--profile", "fuzz", "--package", "kedge-fuzz", "--bins"];
        Process::new("compile the fuzz targets", cargo)
            .args(package)
            .args(["--features", "libfuzzer", "--target", &binaries::target()])
            .envs([
                ("CARGO_TARGET_DIR", project.join("target/fuzz").into_os_string()),
                ("RUSTFLAGS", FLAGS.into()),
            ])
            .dir(project)
            .limit(COMPILE_LIMIT)
            .cancelled_by(&self.setup.cancel)
            .run()
            .await?;
        Ok(())
    }

    /// Runs a target; what it did, in one line.
    async fn run(&self, name: String, seconds: u32) -> Result<String> {
        let project = &self.setup.paths.project;
        let programs = project.join("target/fuzz").join(binaries::target()).join("fuzz");
        let corpus = self.folder.join("corpus").join(&name);
        fs_err::create_dir_all(&corpus)?;
        let log = self.folder.join(format!("{name}.log"));
        fs_err::write(&log, "")?;
        let found = self.folder.join(format!("{name}-"));
        let result = Process::new(format!("fuzz `{name}`"), programs.join(format!("fuzz-{name}")))
            .args(LIMITS)
            .args([format!("-max_total_time={seconds}"), format!("-artifact_prefix={}", found.display())])
            .args([corpus, project.join("sim/fuzz/seeds").join(&name)])
            .log(&log)
            .limit(Duration::from_secs(seconds.into()) + GRACE)
            .cancelled_by(&self.setup.cancel)
            .run()
            .await;
        let text = String::from_utf8_lossy(&fs_err::read(&log)?).into_owned();
        match result {
            Ok(()) => summary(&name, &text),
            Err(error @ ProcessError::Failed { .. }) => match input(&text) {
                Some(input) => bail!(
                    "the fuzz target `{name}` has found an input that breaks it: `{}`; its log is `{}`",
                    shown(input.as_ref(), project),
                    shown(&log, project)
                ),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// The number of inputs that were tried, as libFuzzer's log tells at its end.
fn summary(name: &str, log: &str) -> Result<String> {
    let value = |what: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("the log of the fuzz target `{name}` has no {what}"))
    };
    let tried = value("stat::number_of_executed_units")?;
    let kept = value("stat::new_units_added")?;
    Ok(format!("{name}: {tried} inputs, {kept} of them kept, none broke anything"))
}

/// The file that libFuzzer wrote the input to on which a target failed.
fn input(log: &str) -> Option<&str> {
    log.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_what_was_tried_and_what_failed() {
        let log = "#2 INITED\nstat::number_of_executed_units: 706044\nstat::new_units_added:          1492\n";
        assert_eq!(
            summary("topic", log).unwrap(),
            "topic: 706044 inputs, 1492 of them kept, none broke anything"
        );
        assert!(summary("topic", "").unwrap_err().to_string().contains("stat::number_of_executed_units"));
        assert_eq!(
            input("x\nartifact_prefix='/t/'; Test unit written to /t/topic-crash-1f\ny"),
            Some("/t/topic-crash-1f")
        );
        assert_eq!(input(log), None);
    }

    #[test]
    fn every_target_has_seeds() {
        let seeds = crate::paths::project().unwrap().join("sim/fuzz/seeds");
        for target in Target::value_variants() {
            assert!(seeds.join(target.name()).is_dir(), "{target:?}");
        }
    }
}
