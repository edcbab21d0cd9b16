//! The pod as its tier has it, and what brings its profiles onto the nodes.

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, AppArmorProfile, Capabilities, Container, Namespace, PodSpec, PodTemplateSpec, SeccompProfile,
    SecurityContext,
};

use super::filling::container;
use super::reading::parse;
use super::{CONTAINER, Object, PROFILES, Pull, Values};
use crate::tier::facts::Version;
use crate::tier::judge::level_of;
use crate::tier::{TIER, Tier, profiles};

/// How the pod is confined, and by what in this cluster.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<'a> {
    /// The tier.
    pub tier: Tier,
    /// Version of the API server.
    pub server: Option<Version>,
    /// Whether the nodes have AppArmor, or may have it.
    pub apparmor: bool,
    /// Name of the seccomp profile on the nodes.
    pub seccomp: &'a str,
    /// The RuntimeClass by which the tier goes.
    pub class: Option<&'a str>,
    /// `manifests/profiles.yaml`.
    pub profiles: &'a str,
}

impl Confinement<'_> {
    /// The AppArmor profile that confines the pod, where one does.
    fn apparmor_profile(&self) -> Option<&'static str> {
        (self.apparmor && self.tier == Tier::Confined).then_some(profiles::APPARMOR)
    }
}

impl Confinement<'static> {
    /// All privileges, which need nothing of the cluster.
    pub const NONE: Self = Self {
        tier: Tier::Privileged,
        server: None,
        apparmor: false,
        seccomp: "",
        class: None,
        profiles: "",
    };
}

/// The first version with a field for AppArmor; before, an annotation says it.
const APPARMOR_FIELD: Version = Version(1, 30);
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io";
const LEVELS: [&str; 3] = ["enforce", "audit", "warn"];
const SECURITY_VOLUME: &str = "security";

/// The namespace lets in what the tier needs, and nothing more.
pub(super) fn fill_namespace(namespace: &mut Namespace, confinement: &Confinement<'_>) {
    let level = level_of(confinement.tier, confinement.server);
    let labels = namespace.metadata.labels.get_or_insert_default();
    for mode in LEVELS {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), level.to_owned());
    }
}

/// Confines the edge's container.
pub(super) fn fill_template(template: &mut PodTemplateSpec, confinement: &Confinement<'_>) -> Result<()> {
    let Confinement { tier, apparmor, seccomp, class, .. } = *confinement;
    annotate(template, TIER, tier.word());
    if tier == Tier::Privileged {
        return Ok(());
    }
    let pod = template.spec.as_mut().context("the Deployment has no pod template")?;
    if matches!(tier, Tier::Userns | Tier::Sysbox) {
        pod.host_users = Some(false);
        pod.runtime_class_name = class.map(str::to_owned);
    }
    let security = container(pod)?.security_context.get_or_insert_default();
    security.privileged = None;
    let named = matches!(tier, Tier::Userns | Tier::Confined);
    security.capabilities = Some(Capabilities {
        drop: Some(vec!["ALL".into()]),
        add: named.then(|| profiles::CAPABILITIES.map(str::to_owned).to_vec()),
    });
    security.seccomp_profile = Some(if named {
        SeccompProfile { type_: "Localhost".into(), localhost_profile: Some(seccomp.to_owned()) }
    } else {
        SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }
    });
    match tier {
        // The inner engine sets what belongs to the network in /proc/sys; in a user namespace, nothing else there can be set.
        Tier::Userns => security.proc_mount = Some("Unmasked".into()),
        Tier::Sysbox => security.allow_privilege_escalation = Some(false),
        _ => {}
    }
    if apparmor {
        match tier {
            Tier::Confined => set_apparmor(template, CONTAINER, Some(profiles::APPARMOR), confinement)?,
            // The engine's default profile forbids to mount, and the user namespace is the boundary.
            Tier::Userns => set_apparmor(template, CONTAINER, None, confinement)?,
            _ => {}
        }
    }
    Ok(())
}

/// The DaemonSet with the profiles, where the tier goes by them.
pub(super) fn daemon_set(values: &Values<'_>) -> Result<Option<Object>> {
    let confinement = &values.confinement;
    if !matches!(confinement.tier, Tier::Userns | Tier::Confined) {
        return Ok(None);
    }
    let found = parse(confinement.profiles).context("`manifests/profiles.yaml` is not valid")?;
    let mut objects = found.into_iter();
    match (objects.next(), objects.next()) {
        (Some(Object::DaemonSet(mut daemon_set)), None)
            if daemon_set.metadata.name.as_deref() == Some(PROFILES) =>
        {
            fill_daemon_set(&mut daemon_set, values)?;
            Ok(Some(Object::DaemonSet(daemon_set)))
        }
        _ => bail!("`manifests/profiles.yaml` has to have the DaemonSet `{PROFILES}` and nothing else"),
    }
}

/// Keeps the profiles to the nodes to which the pod may come: elsewhere nobody needs them, and their image may not run.
pub(super) fn follow_pod(daemon_set: &mut DaemonSet, pod: &PodSpec) {
    let Some(profiles) = daemon_set.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) else {
        return;
    };
    profiles.node_selector.clone_from(&pod.node_selector);
    profiles.tolerations.clone_from(&pod.tolerations);
    let node_affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    profiles.affinity = node_affinity.map(|it| Affinity { node_affinity: Some(it), ..Affinity::default() });
}

fn fill_daemon_set(daemon_set: &mut DaemonSet, values: &Values<'_>) -> Result<()> {
    let confinement = &values.confinement;
    let spec = daemon_set.spec.as_mut().context("the DaemonSet has no spec")?;
    let pod = spec.template.spec.as_mut().context("the DaemonSet has no pod template")?;
    if matches!(values.pull, Pull::Without) {
        pod.image_pull_secrets = None;
    }
    let loads_apparmor = confinement.apparmor_profile().is_some();
    if !loads_apparmor && let Some(volumes) = &mut pod.volumes {
        volumes.retain(|volume| volume.name != SECURITY_VOLUME);
    }
    let mut names = Vec::new();
    for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
        fill_profile_container(container, values);
        names.push(container.name.clone());
    }
    for name in names {
        if loads_apparmor {
            set_apparmor(&mut spec.template, &name, None, confinement)?;
        }
    }
    Ok(())
}

fn fill_profile_container(container: &mut Container, values: &Values<'_>) {
    let apparmor = values.confinement.apparmor_profile();
    container.image = Some(values.image.to_owned());
    let probe = container.readiness_probe.as_mut().and_then(|probe| probe.exec.as_mut());
    let commands = [container.command.as_mut(), probe.and_then(|exec| exec.command.as_mut())];
    for command in commands.into_iter().flatten().filter(|command| command.len() == 3) {
        command.push(values.confinement.seccomp.to_owned());
        command.extend(apparmor.map(str::to_owned));
    }
    let security = container.security_context.get_or_insert_default();
    // Set anew where it is needed, in the way that the server knows.
    security.app_armor_profile = None;
    if apparmor.is_some() {
        return;
    }
    if let Some(capabilities) = &mut security.capabilities {
        capabilities.add = None;
    }
    if let Some(mounts) = &mut container.volume_mounts {
        mounts.retain(|mount| mount.name != SECURITY_VOLUME);
    }
}

/// Names the AppArmor profile of a container, or lets it go without: by the field, or by the annotation of older servers.
fn set_apparmor(
    template: &mut PodTemplateSpec,
    name: &str,
    profile: Option<&str>,
    confinement: &Confinement<'_>,
) -> Result<()> {
    if confinement.server.is_some_and(|server| server < APPARMOR_FIELD) {
        let value = profile.map_or_else(|| "unconfined".to_owned(), |profile| format!("localhost/{profile}"));
        annotate(template, &format!("{APPARMOR_ANNOTATION}/{name}"), &value);
        return Ok(());
    }
    let pod = template.spec.as_mut().context("there is no pod template")?;
    let mut containers = pod.init_containers.iter_mut().flatten().chain(&mut pod.containers);
    let container = containers.find(|container| container.name == name);
    let container = container.with_context(|| format!("there is no container `{name}`"))?;
    let type_ = if profile.is_some() { "Localhost" } else { "Unconfined" };
    let security: &mut SecurityContext = container.security_context.get_or_insert_default();
    security.app_armor_profile =
        Some(AppArmorProfile { type_: type_.into(), localhost_profile: profile.map(str::to_owned) });
    Ok(())
}

fn annotate(template: &mut PodTemplateSpec, name: &str, value: &str) {
    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(name.to_owned(), value.to_owned());
}
