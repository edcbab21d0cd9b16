//! `cargo xtask logs`: what the parts have written, and with `--follow` what they go on to write.

mod inside;
mod part;

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::SignedDuration;

use self::part::{Part, PartParser};
use crate::deploy::target::Target;
use crate::edge::Way;
use crate::engine::{LogRequest, Sink};
use crate::exit::Usage;
use crate::session::Setup;

/// How many lines are shown when nothing else is said.
const TAIL: u32 = 100;
/// How long the API server of a cluster of somebody else may take to answer at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose log: one of these, or the name of a module or another container in the edge, such as edgeAgent
    #[arg(value_parser = PartParser, default_value = "edge", value_name = "PART")]
    part: Part,
    /// Go on with what is written from now on, until Ctrl-C or the end of what writes
    #[arg(short, long)]
    follow: bool,
    /// How many lines from the end, or `all` [default: 100, with `--since` all]
    #[arg(long, value_name = "N", value_parser = tail)]
    tail: Option<Tail>,
    /// Nothing that is older, such as 90s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Duration>,
    /// Show each line with the time at which it was written
    #[arg(long)]
    timestamps: bool,
    /// Show the run of the pod's container before its last restart
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Look at the edge in the cluster of this context of your kubeconfig, where `deploy` has brought it
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// How much of the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Lines(u32),
}

fn tail(typed: &str) -> Result<Tail, String> {
    if typed == "all" {
        return Ok(Tail::All);
    }
    typed.parse().map(Tail::Lines).map_err(|_| "give `all`, or a number of lines".into())
}

fn since(typed: &str) -> Result<Duration, String> {
    let parsed = typed.parse::<SignedDuration>().ok();
    let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| "give how long ago, such as 90s, 10m or 2h".into())
}

impl Args {
    fn request(&self) -> LogRequest {
        let tail = match (self.tail, self.since) {
            (Some(Tail::Lines(lines)), _) => Some(lines),
            (Some(Tail::All), _) | (None, Some(_)) => None,
            (None, None) => Some(TAIL),
        };
        LogRequest {
            follow: self.follow,
            tail,
            since: self.since,
            timestamps: self.timestamps,
            previous: self.previous,
        }
    }
}

/// Prints a log.
///
/// # Errors
/// When the part is not up, or there is none of that name.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    if args.previous && args.part != Part::Edge {
        return Err(previous_of_a_pod().into());
    }
    let wanted = args.request();
    let mut out = |bytes: &[u8]| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    };
    let shown = match &args.context {
        Some(name) => elsewhere(&setup, name, &args.part, &wanted, &mut out).await,
        None => here(setup, &args.part, &wanted, &mut out).await,
    };
    match shown {
        // Whoever reads has enough: `logs | head`.
        Err(error) if is_closed(&error) => Ok(()),
        Ok(()) if args.follow => {
            eprintln!("`{}` has ended, and writes no more", args.part.name());
            Ok(())
        }
        shown => shown,
    }
}

/// The log of a part of the deployment on this machine.
async fn here(setup: Setup, part: &Part, wanted: &LogRequest, out: &mut Sink<'_>) -> Result<()> {
    let context = setup.attach().await?;
    let (engine, settings) = (&context.engine, &context.settings);
    match part {
        Part::Hub => engine.stream_log(&settings.hub_container(), wanted, out).await,
        Part::Registry => engine.stream_log(&settings.registry_container(), wanted, out).await,
        Part::Node => {
            let nodes = engine.nodes().await?;
            let node =
                nodes.first().context("there is no node; the edge runs without Kubernetes, or is not up")?;
            let journal = inside::journal(&inside::NODE_UNITS, wanted);
            let journal: Vec<&str> = journal.iter().map(String::as_str).collect();
            let shown = engine.exec_stream(node, &journal, out).await?;
            inside::conclude(shown, wanted, "the node's journal")
        }
        Part::Edge | Part::Runtime | Part::Inner(_) => {
            inside::show(&Way::own(&context).await?, part, wanted, out).await
        }
    }
}

/// The same of an edge in the cluster of somebody else, for which this machine needs no engine.
async fn elsewhere(
    setup: &Setup,
    name: &str,
    part: &Part,
    wanted: &LogRequest,
    out: &mut Sink<'_>,
) -> Result<()> {
    if let Part::Hub | Part::Registry | Part::Node = part {
        let text = format!(
            "the {} is no part of what `deploy` brings to a cluster; leave out `--context`",
            part.name()
        );
        return Err(Usage(text).into());
    }
    let settings = &setup.settings.deploy;
    let target = Target::open_patiently(&setup.paths.project, settings, Some(name)).await?;
    // The client has no limit for an answer, and whether there is one is told better here.
    let answer = tokio::time::timeout(ANSWER_LIMIT, target.version()).await;
    answer.with_context(|| {
        format!("{} does not answer within {} s", target.server, ANSWER_LIMIT.as_secs())
    })??;
    inside::show(&Way::pod(target.client, &settings.namespace).await?, part, wanted, out).await
}

fn previous_of_a_pod() -> Usage {
    Usage("`--previous` goes with the edge as a pod; the others keep one log over all their runs".into())
}

/// Whether the one who reads standard output has gone away.
fn is_closed(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(part: Part) -> Args {
        Args {
            part,
            follow: false,
            tail: None,
            since: None,
            timestamps: false,
            previous: false,
            context: None,
        }
    }

    #[test]
    fn a_time_and_a_number_of_lines_are_read_as_they_are_typed() {
        assert_eq!(since("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(since("1h30m").unwrap(), Duration::from_secs(5400));
        assert!(since("-10m").is_err() && since("10").is_err() && since("").is_err());
        assert_eq!((tail("all").unwrap(), tail("7").unwrap()), (Tail::All, Tail::Lines(7)));
        assert!(tail("-1").is_err() && tail("").is_err());
    }

    #[test]
    fn a_time_is_a_limit_of_its_own() {
        let mut typed = args(Part::Hub);
        assert_eq!(typed.request().tail, Some(TAIL));
        typed.since = Some(Duration::from_secs(1));
        assert_eq!(typed.request().tail, None);
        typed.tail = Some(Tail::Lines(3));
        assert_eq!(typed.request().tail, Some(3));
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        let closed =
            anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("failed to read");
        assert!(is_closed(&closed));
        assert!(!is_closed(&anyhow::anyhow!("no")));
    }
}
