//! `cargo xtask deploy`: to a cluster of somebody else, which is named, shown and asked for.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::azure_hub;
use crate::confirm::{NotAgreed, agreed};
use crate::deploy::changes::Changes;
use crate::deploy::facts::{Facts, Wanted};
use crate::deploy::pull_secret::docker_login;
use crate::deploy::target::Target;
use crate::deploy::{Logins, Prepared, Request, credentials, image, is_ready, prepare, rollout, wait};
use crate::engine::Foreign;
use crate::exit::Usage;
use crate::progress::{Mark, Progress};
use crate::provisioning;
use crate::session::Setup;
use crate::settings::Hub;

/// Flags of `deploy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: Request,
    /// Build the pod's image and push it to the repository that `--image` or the settings name; needs a container engine
    #[arg(long)]
    push: bool,
    /// Make objects of the same names one's own that something else has made
    #[arg(long)]
    take_over: bool,
}

/// Deploys, or shows in a dry run what that would change.
///
/// # Errors
/// When the cluster does not suit, nobody agrees, or the pod does not get ready.
pub async fn run(setup: Setup, args: &Args) -> Result<()> {
    let request = &args.request;
    if request.login.reads_standard_input() && !setup.yes && !setup.dry_run {
        let text = "the login comes on standard input, so nobody can be asked there; give `--yes`, or `--dry-run` to look first";
        bail!(Usage(text.into()));
    }
    let target =
        Target::open(&setup.paths.project, &setup.settings.deploy, request.context.as_deref()).await?;
    request.image(&setup.settings.deploy)?;
    setup.check_sources()?;
    // An image is not built and pushed for a device that cannot be deployed.
    let files = credentials::files(&setup)?;
    let facts = Facts::look(&target, &setup.settings.deploy.namespace).await?;
    show(&setup, &facts.to_string());
    // Before an image is built for a cluster that cannot have it.
    suits(&facts, &setup, &[])?;
    let logins = Logins::read(&setup, &target, request).await?;
    let pushed = if args.push { push(&setup, request, &logins).await? } else { None };
    if args.push && pushed.is_none() {
        println!("then the image is pushed, and what is shown without `--push` is deployed with it");
        return Ok(());
    }
    let _lock = if setup.dry_run { None } else { Some(setup.lock()?) };
    let mut prepared =
        prepare(&setup, (&target, &facts), request, &logins, &files, pushed.as_deref()).await?;
    facts.suit(&mut prepared.objects, &prepared.image.platforms);
    show_image(&setup, &prepared);
    show_tier(&setup, &prepared);
    suits(&facts, &setup, &prepared.image.platforms)?
        .iter()
        .for_each(|warning| eprintln!("warning: {warning}"));
    let changes = Changes::look(&target.client, &prepared.objects, facts.namespace(), args.take_over).await?;
    show(&setup, &changes.to_string());
    if setup.dry_run {
        return Ok(());
    }
    apply(&setup, &target, &facts, changes, &prepared).await
}

async fn apply(
    setup: &Setup,
    target: &Target,
    facts: &Facts,
    changes: Changes,
    prepared: &Prepared,
) -> Result<()> {
    let progress = Progress::default();
    if setup.settings.hub.kind == Hub::Azure {
        let kept = provisioning::kept(&setup.paths)?.and_then(|checked| checked.kept);
        azure_hub::hand_over(&setup.paths, &setup.settings, kept.as_ref())?
            .iter()
            .for_each(|line| progress.say(line));
    }
    let (context, namespace) = (&target.context, &facts.namespace().name);
    if changes.is_empty() && is_ready(&target.client, facts).await? {
        let count = changes.len();
        progress.say(&format!(
            "nothing to do: all {count} objects are as they are described, and the pod is ready"
        ));
        return Ok(());
    }
    if !changes.is_empty() {
        ask(setup, &format!("apply this to the cluster of the context `{context}`?"))?;
        let started = Instant::now();
        progress.begin("deploy", "apply the manifests");
        let tell = |status: &str| progress.detail("deploy", status);
        let done = changes.carry_out(&target.client, &rollout(facts), tell).await;
        let (mark, note) = match &done {
            Ok(done) => (Mark::Done, format!("applied {}", done.join(", "))),
            Err(_) => (Mark::Failed, String::new()),
        };
        progress.end("deploy", mark, started.elapsed(), &note);
        done?;
    }
    wait(&target.client, facts, &progress).await?;
    progress.say(&format!(
        "deployed to the context `{context}`, namespace `{namespace}`: {}\nprove it with `cargo xtask verify --context {context}`, remove it with `cargo xtask undeploy --context {context}`",
        prepared.image.reference
    ));
    Ok(())
}

/// Asks, unless it was agreed beforehand.
pub(super) fn ask(setup: &Setup, question: &str) -> Result<()> {
    if setup.yes || agreed(question)? {
        return Ok(());
    }
    bail!(NotAgreed(
        "nobody has agreed to this, and nothing was changed in the cluster; `--yes` agrees beforehand".into()
    ))
}

/// What is only looked at is the result of a dry run, and else told before the question.
pub(super) fn show(setup: &Setup, text: &str) {
    if setup.dry_run {
        print!("{text}");
    } else {
        eprint!("{text}");
    }
}

fn show_tier(setup: &Setup, prepared: &Prepared) {
    let text: String = prepared.decision.lines().iter().map(|line| format!("{:15}{line}\n", "")).collect();
    show(setup, &format!("tier           {}", text.trim_start().trim_start_matches("tier ")));
}

fn show_image(setup: &Setup, prepared: &Prepared) {
    let platforms = match prepared.image.platforms.as_slice() {
        [] => String::new(),
        known => format!(" ({})", known.join(", ")),
    };
    show(setup, &format!("image          {}{platforms}\n", prepared.image.reference));
    for warning in prepared.warnings.iter().chain(&prepared.image.warning) {
        eprintln!("warning: {warning}");
    }
}

/// The warnings about a cluster, if it suits.
fn suits(facts: &Facts, setup: &Setup, platforms: &[String]) -> Result<Vec<String>> {
    let wanted = Wanted {
        tier: setup.settings.security.tier,
        storage_class: &setup.settings.deploy.storage_class,
        platforms,
    };
    let judgement = facts.judge(&wanted);
    if judgement.obstacles.is_empty() {
        return Ok(judgement.warnings);
    }
    let list: String = judgement.obstacles.iter().map(|obstacle| format!("\n  {obstacle}")).collect();
    Err(Foreign::at(format!("this cluster does not suit, and nothing was changed:{list}")).into())
}

async fn push(setup: &Setup, request: &Request, logins: &Logins) -> Result<Option<String>> {
    let named = request.image(&setup.settings.deploy)?;
    let login = match logins.given() {
        Some(login) => login,
        // As a push by hand would have it. The one in the cluster may be good for pulling alone.
        None => match (docker_login(named).await, logins.own()) {
            (Ok(login), _) | (Err(_), Some(login)) => login,
            (Err(error), None) => return Err(error.context("a push needs a login")),
        },
    };
    if !setup.dry_run {
        ask(setup, &format!("build the pod's image and push it to `{named}`?"))?;
    }
    image::push(setup, named, &login).await
}
