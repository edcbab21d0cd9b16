//! The edge as a container directly on the engine, without Kubernetes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::context::Context;
use crate::edge;
use crate::edge_config;
use crate::engine::{ContainerFile, ContainerSpec, Fit, Foreign, Named, Rights, SYSBOX};
use crate::execute::Effect;
use crate::images::Image;
use crate::place::Place;
use crate::plan::Condition;
use crate::provisioning::{Kept, Provisioning};
use crate::steps::device;
use crate::tier::facts::AppArmor;
use crate::tier::judge::decide;
use crate::tier::{Decision, Facts, Profiles, Tier, profiles};
use crate::verify::{self, Lookout, Name};
use crate::wait::{Observation, WaitError, wait_for};

const READY_LIMIT: Duration = Duration::from_secs(240);
/// How much of that a container gets that was found running, before it is asked whether it hangs.
const HUNG_LIMIT: Duration = Duration::from_secs(60);
/// As the pod is asked by Kubernetes.
const READY: [&str; 2] = ["/usr/local/bin/kedge-health", "ready"];
/// Where the image looks for what Kubernetes mounts on `/run`, which is in memory and empty here.
const CREDENTIALS: &str = "/etc/kedge/credentials";
/// The inner engine allows every container these, so it must be allowed them itself. Only cgroup v1 asks for that when a container
/// is made.
const DEVICES: [&str; 2] = ["/dev/console", "/dev/net/tun"];
/// Where the machine's security chip is, for a device that proves itself by it.
const TPM: [&str; 2] = ["/dev/tpmrm0", "/dev/tpm0"];
/// systemd wants these in memory, and services may keep programs there.
const MEMORY: [(&str, &str); 3] = [
    ("/tmp", "rw,nosuid,nodev,exec,mode=1777"),
    ("/run", "rw,nosuid,nodev,exec,mode=755"),
    ("/run/lock", "rw,nosuid,nodev,noexec,mode=1777"),
];

/// Whether the container runs as described, and the edge in it is ready.
///
/// # Errors
/// When the name is taken, or the hub or the engine cannot be asked.
pub async fn observe(context: &Context) -> Result<Condition> {
    // Before the hub is asked, which is not there yet on a fresh system: a taken name must be told before it is made.
    let name = context.settings.edge_container();
    context.engine.container(&name).await?;
    context.engine.refuse_foreign_volumes(&volumes(&name)).await?;
    let confinement = Confinement::choose(context).await?;
    let fit = context.engine.fit(&spec(context, &confinement).await?).await?;
    if let Some(reason) = fit.reason() {
        return Ok(Condition::Differs(format!("{reason}; {}", confinement.decision)));
    }
    let health = edge::run(context, Place::Host, &READY).await?;
    if !health.success {
        return Ok(Condition::Differs(health.text().to_owned()));
    }
    Ok(verify::confined_and_ready(context, Place::Host).await)
}

/// Starts the container, and waits until the edge is ready; one that ends meanwhile ends the wait. One that was there and does not
/// do what it is for, or is not confined as its tier promises, is replaced, once.
///
/// # Errors
/// When the engine refuses, or the edge does not get ready, or is not confined; the error has its last status.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let place = Place::Host;
    let confinement = Confinement::choose(context).await?;
    confinement.prepare(context).await?;
    let spec = spec(context, &confinement).await?;
    let mut found = context.engine.ensure_container(&spec).await?;
    if found != Fit::Runs {
        confinement.decision.lines().iter().for_each(|line| context.progress.say(line));
    }
    let limit = if found == Fit::Runs { HUNG_LIMIT } else { READY_LIMIT };
    let mut lookout = Lookout::default();
    let mut waited = wait_until_ready(context, place, limit, &lookout).await;
    if let Some(fault) = Fault::of(context, found, &waited).await {
        fault.repair(context, &spec).await?;
        (found, lookout) = (Fit::Other, Lookout::default());
        waited = wait_until_ready(context, place, READY_LIMIT, &lookout).await;
    } else if let (Fit::Runs, Err(WaitError::TimedOut { .. })) = (found, &waited) {
        let limit = READY_LIMIT.saturating_sub(HUNG_LIMIT);
        waited = wait_until_ready(context, place, limit, &lookout).await;
    }
    if let Err(error) = waited {
        return Err(verify::diagnose(context, place, error.into(), lookout.found()).await);
    }
    verify::prove_tier(context, place).await?;
    Ok(if found == Fit::Runs { Effect::unchanged("ready") } else { Effect::changed("ready") })
}

/// Why a container that was made as described is made anew all the same.
enum Fault {
    /// What is in it does not answer any longer.
    Hangs(String),
    /// It is not confined as its tier promises.
    Unconfined(String),
}

impl Fault {
    /// That of a container that was found so; one that this run has made would be no other the next time.
    async fn of(context: &Context, found: Fit, waited: &Result<(), WaitError>) -> Option<Self> {
        if !matches!(found, Fit::Runs | Fit::Stopped) {
            return None;
        }
        if let Some(broken) = verify::broken_promise(context, Place::Host).await {
            return Some(Self::Unconfined(broken));
        }
        let (Fit::Runs, Err(error @ WaitError::TimedOut { .. })) = (found, waited) else { return None };
        let stuck = verify::stuck_at(context, Place::Host).await?;
        is_hung(stuck.name).then(|| Self::Hangs(error.to_string()))
    }

    async fn repair(&self, context: &Context, spec: &ContainerSpec) -> Result<()> {
        match self {
            Self::Hangs(error) => {
                context.progress.say(&format!("{error}; its container hangs and is replaced"));
                context.engine.replace_container(spec).await?;
            }
            // What it keeps is in order, and may hold messages that were acknowledged.
            Self::Unconfined(broken) => {
                context.progress.say(&format!("{broken}; its container is replaced, and its volumes stay"));
                context.engine.replace_container_alone(spec).await?;
            }
        }
        context.forget_edge();
        Ok(())
    }
}

/// Which tier the container gets, and by which facts: the strongest that works or the one that was asked for, and unless another one
/// was asked for, none that is weaker than that of the container which is there.
///
/// # Errors
/// [`crate::tier::Unobtainable`] when there is none; else when the engine cannot be asked.
pub(super) async fn decide_tier(context: &Context) -> Result<(Facts, Decision)> {
    let choice = context.settings.security.tier;
    let facts = context.engine.tried_facts(choice).await?;
    let decision = decide(&facts, choice)?.for_one_made_in(tier_before(context).await?)?;
    Ok((facts, decision))
}

/// The tier of the container that is there. One of somebody else has none; that it is in the way is told where one looks for ours.
async fn tier_before(context: &Context) -> Result<Option<Tier>> {
    match context.engine.container(&context.settings.edge_container()).await {
        Ok(found) => Ok(found.and_then(|found| found.tier)),
        Err(error) if error.is::<Foreign>() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How the container is confined: chosen by what the engine and this machine are like.
struct Confinement {
    decision: Decision,
    facts: Facts,
    profiles: Profiles,
}

impl Confinement {
    async fn choose(context: &Context) -> Result<Self> {
        let profiles = Profiles::read(&context.paths.project)?;
        let (facts, decision) = decide_tier(context).await?;
        context.findings().decision = Some(decision.clone());
        Ok(Self { decision, facts, profiles })
    }

    /// Loads what the container is to be confined by.
    async fn prepare(&self, context: &Context) -> Result<()> {
        if self.apparmor().is_some() {
            context.engine.load_profile(&self.profiles).await?;
        }
        Ok(())
    }

    fn apparmor(&self) -> Option<&'static str> {
        let is_confined = self.decision.tier == Tier::Confined && self.facts.apparmor == AppArmor::Ready;
        is_confined.then_some(profiles::APPARMOR)
    }

    /// What the edge may do.
    fn rights(&self) -> Rights {
        match self.decision.tier {
            Tier::Privileged => Rights::All,
            Tier::Sysbox => Rights::Runtime(SYSBOX),
            Tier::Confined | Tier::Userns => {
                let devices = DEVICES.into_iter().filter(|path| Path::new(path).exists());
                Rights::Named(Named {
                    capabilities: profiles::CAPABILITIES.to_vec(),
                    devices: devices.filter(|_| self.facts.cgroups == Some(1)).collect(),
                    seccomp: self.profiles.seccomp.clone(),
                    apparmor: self.apparmor(),
                    own_users: self.decision.tier == Tier::Userns,
                })
            }
        }
    }
}

/// Whether a new container would help against what is wrong in this layer: not where the edge waits for what it was told
/// to run, or for the hub. Of its security, that nobody can look into it.
fn is_hung(layer: Name) -> bool {
    matches!(layer, Name::Security | Name::Systemd | Name::InnerEngine | Name::Runtime)
}

async fn wait_until_ready(
    context: &Context,
    place: Place,
    limit: Duration,
    lookout: &Lookout,
) -> Result<(), WaitError> {
    wait_for("the edge", limit, || async {
        let status = match edge::run(context, place, &READY).await {
            Ok(output) if output.success => return Observation::Ready(()),
            Ok(output) => output.text().to_owned(),
            Err(error) => match edge::death(context, place).await {
                Some(death) => return Observation::Failed(death),
                None => format!("{error:#}"),
            },
        };
        context.progress.detail("edge-container", &status);
        if let Some(stuck) = lookout.stuck(context, place).await {
            return Observation::Failed(stuck.detail);
        }
        Observation::NotYet(status)
    })
    .await
}

async fn spec(context: &Context, confinement: &Confinement) -> Result<ContainerSpec> {
    let source = fs_err::read_to_string(context.paths.project.join(&context.settings.device.config))?;
    let files = device::files(context).await?;
    let file = |(name, contents): (&str, &[u8])| ContainerFile {
        path: format!("{CREDENTIALS}/{name}"),
        contents: contents.to_vec(),
    };
    let name = context.settings.edge_container();
    Ok(ContainerSpec {
        image: context.reference(Image::Edge)?,
        host_name: Some(edge_config::host_name(&source)?),
        network: Some(context.network().to_owned()),
        files: files.expose().map(file).collect(),
        volumes: volumes(&name),
        memory: MEMORY.to_vec(),
        terminal: true,
        own_cgroups: true,
        rights: with_tpm(confinement.rights(), context.device.as_deref()),
        tier: Some(confinement.decision.tier),
        name,
        ..ContainerSpec::default()
    })
}

/// Names and mount points of what the edge keeps.
fn volumes(name: &str) -> Vec<(String, &'static str)> {
    vec![(format!("{name}-engine"), "/var/lib/docker"), (format!("{name}-state"), "/var/lib/aziot")]
}

/// Adds the security chip, if the device needs it and the machine has one; the entrypoint tells when it has none.
fn with_tpm(mut rights: Rights, device: Option<&Kept>) -> Rights {
    let needs_it = device.is_some_and(|kept| matches!(kept.provisioning, Provisioning::DpsTpm { .. }));
    if let (true, Rights::Named(Named { devices, .. })) = (needs_it, &mut rights) {
        devices.extend(TPM.into_iter().filter(|path| Path::new(path).exists()));
    }
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_not_replaced_for_what_it_was_told_to_run() {
        let all = Name::all(Place::Host);
        let hung: Vec<_> = all.iter().copied().filter(|layer| is_hung(*layer)).collect();
        assert_eq!(hung, [Name::Security, Name::Systemd, Name::InnerEngine, Name::Runtime]);
    }
}
