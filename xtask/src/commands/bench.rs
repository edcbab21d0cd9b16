//! `cargo xtask bench`: how long things take and how large they are, as medians over several runs.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::json;

use crate::bench::{Measure, RunFigures, heading, newest_report, resident_megabytes, timed};
use crate::context::Context;
use crate::images::Image;
use crate::plan::Action;
use crate::process::Process;
use crate::session::Setup;
use crate::{edge, load, preflight, steps};

/// A run that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// Quick things are measured more often.
const QUICK_RUNS: usize = 10;
const LEFT: &str = "the measurements were not finished, and what is up stays for a look at it; `cargo xtask down`, with \
                    the same flags, removes it";

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each thing is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    runs: u8,
    /// Measure as well what takes minutes: compiling this program and building the node image from nothing
    #[arg(long)]
    cold: bool,
    /// Measure only the load that hub and edge take, with mosquitto beside them, and their memory; once
    #[arg(long, conflicts_with_all = ["cold", "runs"])]
    load: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measures, prints a table, and keeps the figures as JSON.
///
/// # Errors
/// When a measured run fails; what is up then is left.
pub async fn run(setup: Setup, selection: Vec<OsString>, args: &Args) -> Result<()> {
    let bench = Bench { setup, selection, runs: usize::from(args.runs) };
    if bench.setup.dry_run {
        if bench.setup.yes {
            preflight::show_missing(&preflight::LOAD);
        }
        print!("{}", if args.load { load::outline() } else { outline(bench.runs, args.cold) });
        return Ok(());
    }
    install_broker(bench.setup.yes).await?;
    let mut measures = Vec::new();
    if !args.load {
        measures.extend(bench.measure(args.cold).await.context(LEFT)?);
    }
    measures.extend(load::measure(&bench.setup).await?);
    let folder = bench.setup.paths.project.join("target/kedge/bench");
    fs_err::create_dir_all(&folder)?;
    let now = Timestamp::now();
    let kept = serde_json::to_string_pretty(&json!({ "schema": 1, "time": now, "measures": measures }))?;
    let path = folder.join(now.strftime("%Y%m%dT%H%M%SZ.json").to_string());
    fs_err::write(&path, kept.clone() + "\n")?;
    if args.json {
        println!("{kept}");
    } else {
        println!("{}", heading());
        measures.iter().for_each(|measure| println!("{}", measure.row()));
    }
    eprintln!("kept: {}", path.strip_prefix(&bench.setup.paths.project).unwrap_or(&path).display());
    Ok(())
}

/// Installs what the hub is measured next to, with the user's consent; without it the rest is measured.
async fn install_broker(yes: bool) -> Result<()> {
    match preflight::ensure_tools(preflight::absent(&preflight::LOAD), yes).await {
        Err(error) if error.is::<preflight::Missing>() => Ok(()),
        installed => installed.map(drop),
    }
}

struct Bench {
    setup: Setup,
    /// The flags that say on what to work.
    selection: Vec<OsString>,
    runs: usize,
}

/// What is done, for a dry run.
fn outline(runs: usize, cold: bool) -> String {
    let quick = quick_runs(runs);
    let mut text = format!(
        "would be run and timed, each in a process of its own:\n\
         - `--help`, {QUICK_RUNS} times\n\
         - `e2e --yes`, once to fill the caches and {runs} times\n\
         - `up --yes`, `verify`, `up` {quick} times, `down`\n"
    );
    text += &load::outline();
    if cold {
        text += "- `cargo build --package xtask` from nothing, once\n- the build of the node image from nothing, once\n";
    }
    text
}

/// How often a quick thing is measured that is not quite as quick as `--help`.
fn quick_runs(runs: usize) -> usize {
    runs.max(QUICK_RUNS)
}

impl Bench {
    async fn measure(&self, cold: bool) -> Result<Vec<Measure>> {
        let mut measures = self.help().await?;
        measures.extend(self.e2e().await?);
        measures.extend(self.converged().await?);
        if cold {
            measures.extend(self.cold().await?);
        }
        Ok(measures)
    }

    /// This program in a process of its own, with the flags that say on what to work.
    async fn xtask(&self, args: &[&str]) -> Result<()> {
        let program = std::env::current_exe().context("failed to find this program")?;
        let words = args.iter().map(OsString::from).chain(self.selection.iter().cloned());
        Process::new(format!("measure `{}`", args.join(" ")), program)
            .args(words)
            .limit(LIMIT)
            .cancelled_by(&self.setup.cancel)
            .run()
            .await?;
        Ok(())
    }

    async fn help(&self) -> Result<Vec<Measure>> {
        let mut help = Measure::new("`--help`", "s", 0.2);
        for _ in 0..QUICK_RUNS {
            help.values.push(timed(self.xtask(&["--help"])).await?);
        }
        Ok(vec![help])
    }

    async fn e2e(&self) -> Result<Vec<Measure>> {
        // The first brings about what later runs find: images, programs, kind.
        self.xtask(&["e2e", "--yes"]).await?;
        let mut wall = Measure::new("`e2e`, node image cached", "s", 30.0);
        let mut above = Measure::new("`e2e` above its critical path", "%", 10.0);
        let mut first = Measure::new("manifests applied to first telemetry at the hub", "s", 10.0);
        let mut down = Measure::new("`down`", "s", 10.0);
        for run in 1..=self.runs {
            eprintln!("e2e, {run} of {}", self.runs);
            self.xtask(&["e2e", "--yes"]).await?;
            let figures = RunFigures::of(&newest_report(&self.setup.paths.runs())?)?;
            wall.values.push(figures.wall);
            above.values.push(figures.above_critical_path);
            first.values.push(figures.first_telemetry);
            down.values.push(figures.down);
        }
        Ok(vec![wall, above, first, down])
    }

    /// What is measured while everything is up.
    async fn converged(&self) -> Result<Vec<Measure>> {
        eprintln!("up");
        self.xtask(&["up", "--yes"]).await?;
        self.xtask(&["verify"]).await?;
        let mut up = Measure::new("`up` where all is as described", "s", 1.0);
        for _ in 0..quick_runs(self.runs) {
            up.values.push(timed(self.xtask(&["up"])).await?);
        }
        let mut measures = vec![up];
        let context = self.setup.clone().attach().await?;
        measures.extend(memory(&context).await?);
        measures.extend(sizes(&context).await?);
        drop(context);
        self.xtask(&["down"]).await?;
        Ok(measures)
    }

    async fn cold(&self) -> Result<Vec<Measure>> {
        eprintln!("compiling this program from nothing");
        let folder = tempfile::tempdir_in(self.setup.paths.project.join("target"))?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let compile = Process::new("compile this program from nothing", cargo)
            .args(["build", "--package", "xtask", "--locked"])
            .envs([("CARGO_TARGET_DIR", folder.path())])
            .dir(&self.setup.paths.project)
            .limit(LIMIT)
            .cancelled_by(&self.setup.cancel);
        let mut compiled = Measure::new("`cargo xtask` compiled from nothing", "s", 180.0);
        compiled.values.push(timed(async { Ok(compile.run().await?) }).await?);
        eprintln!("building the node image from nothing");
        let context = self.setup.clone().open(&[Action::Image(Image::Node)]).await?;
        // Not the beginning of a run, which would keep new secrets that nothing needs.
        fs_err::create_dir_all(&context.run_folder)?;
        let mut node = Measure::new("node image from Debian packages, from nothing", "s", 480.0);
        node.values.push(timed(steps::images::rebuild(&context, Image::Node, "node-image")).await?);
        Ok(vec![compiled, node])
    }
}

/// Resident memory of the hub and of the edge daemon, idle but for one message a second.
async fn memory(context: &Context) -> Result<Vec<Measure>> {
    let mut hub = Measure::new("memory of the hub", "MB", 20.0);
    let pid = context
        .engine
        .process_id(&context.settings.hub_container())
        .await?
        .context("the hub does not run")?;
    hub.values.push(resident_megabytes(&fs_err::read_to_string(format!("/proc/{pid}/status"))?)?);
    let mut daemon = Measure::new("memory of the edge daemon", "MB", 20.0);
    let place = edge::place(context).await?;
    let script = "cat /proc/$(systemctl show --property MainPID --value aziot-edged.service)/status";
    let status = edge::run(context, place, &["sh", "-c", script]).await?;
    daemon.values.push(resident_megabytes(&status.stdout)?);
    Ok(vec![hub, daemon])
}

/// Uncompressed sizes of the images.
async fn sizes(context: &Context) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    let limits =
        [(Image::Edge, 400.0), (Image::Node, 900.0), (Image::Hub, 20.0), (Image::TemperatureSensor, 20.0)];
    for (image, limit) in limits {
        let mut size = Measure::new(format!("{image} image"), "MB", limit);
        let reference = context.reference(image)?;
        // With kind's own node image there is none of ours.
        if context.engine.has_image(&reference).await? {
            let bytes = u32::try_from(context.engine.image_size(&reference).await? / 1000)?;
            size.values.push(f64::from(bytes) / 1000.0);
        }
        measures.push(size);
    }
    Ok(measures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_tells_what_would_be_measured() {
        let text = outline(3, false);
        assert!(
            text.contains("once to fill the caches and 3 times") && text.contains("`up` 10 times"),
            "{text}"
        );
        assert!(!text.contains("from nothing"), "{text}");
        let cold = outline(20, true);
        assert!(cold.starts_with("would be run") && cold.contains("`up` 20 times"), "{cold}");
        assert_eq!(cold.matches("from nothing").count(), 2, "{cold}");
    }
}
