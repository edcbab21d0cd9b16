//! Containers as they are described: what one is made of, and what it may do.

use std::collections::HashMap;

use anyhow::{Context, Result};
use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum,
    NetworkingConfig, PortBinding,
};
use sha2::{Digest, Sha256};

use super::{Engine, EngineKind, SPEC_LABEL};
use crate::tier::{TIER, Tier};

/// A container to be started.
#[derive(Debug, Default)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its host name; by default the engine's choice.
    pub host_name: Option<String>,
    /// The network that it joins, besides none.
    pub network: Option<String>,
    /// Further names of the container on that network.
    pub aliases: Vec<String>,
    /// Ports inside and the loopback port outside; 0 lets the engine choose.
    pub ports: Vec<(u16, u16)>,
    /// Files put into it before it starts, for settings and secrets.
    pub files: Vec<ContainerFile>,
    /// Volumes by name, and where they are mounted. They are made with the container and go with it.
    pub volumes: Vec<(String, &'static str)>,
    /// The same for volumes that outlive the container, also when it is replaced; they are removed on their own.
    pub kept_volumes: Vec<(String, &'static str)>,
    /// Folders in memory, with the options of their mounts.
    pub memory: Vec<(&'static str, &'static str)>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it sees its own cgroups alone.
    pub own_cgroups: bool,
    /// What it may do.
    pub rights: Rights,
    /// The tier that this is, where it is the edge.
    pub tier: Option<Tier>,
}

/// What a container may do beyond what the engine allows every one.
#[derive(Debug, Clone, Default)]
pub enum Rights {
    /// Nothing.
    #[default]
    Default,
    /// These things and no others.
    Named(Named),
    /// What this runtime gives.
    Runtime(&'static str),
    /// Everything.
    All,
}

/// Rights, each by its name.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Capabilities, without `CAP_`.
    pub capabilities: Vec<&'static str>,
    /// Devices of the machine that it may use, and let its own containers use.
    pub devices: Vec<&'static str>,
    /// The seccomp profile, as JSON.
    pub seccomp: String,
    /// The AppArmor profile; none for going without.
    pub apparmor: Option<&'static str>,
    /// Whether it is given a user namespace. Docker gives one to all or to none.
    pub own_users: bool,
}

/// A file that is put into a container before it starts. Neither the image nor the environment nor the
/// argument vector ever holds its contents.
pub struct ContainerFile {
    /// Absolute path inside the container.
    pub path: String,
    /// What is in it.
    pub contents: Vec<u8>,
}

impl std::fmt::Debug for ContainerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ContainerSpec {
    /// Every volume, with where it is mounted.
    pub(super) fn all_volumes(&self) -> impl Iterator<Item = &(String, &'static str)> {
        self.volumes.iter().chain(&self.kept_volumes)
    }

    /// Tells two descriptions apart, and nothing about what is in the files.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        // The files are shown with their paths alone; their contents follow.
        hash.update(format!("{self:?}"));
        for file in &self.files {
            hash.update(Sha256::digest(&file.contents));
        }
        hex::encode(&hash.finalize()[..8])
    }
}

impl Engine {
    /// The description in the engine's own words.
    /// `seccomp` is how it is told the profile.
    pub(super) fn create_body(&self, spec: &ContainerSpec, seccomp: Option<&str>) -> ContainerCreateBody {
        let endpoint = |network: &String| {
            let settings =
                EndpointSettings { aliases: Some(spec.aliases.clone()), ..EndpointSettings::default() };
            NetworkingConfig { endpoints_config: Some(HashMap::from([(network.clone(), settings)])) }
        };
        let mut labels = self.labels();
        labels.insert(SPEC_LABEL.to_owned(), spec.fingerprint());
        labels.extend(spec.tier.map(|tier| (TIER.to_owned(), tier.to_string())));
        ContainerCreateBody {
            image: Some(spec.image.clone()),
            hostname: spec.host_name.clone(),
            labels: Some(labels),
            tty: Some(spec.terminal),
            exposed_ports: Some(spec.ports.iter().map(|(inside, _)| format!("{inside}/tcp")).collect()),
            networking_config: spec.network.as_ref().map(endpoint),
            host_config: Some(host_config(spec, self.kind, seccomp)),
            ..ContainerCreateBody::default()
        }
    }
}

fn host_config(spec: &ContainerSpec, kind: EngineKind, seccomp: Option<&str>) -> HostConfig {
    let binding = |outside: u16| {
        let port = if outside == 0 { String::new() } else { outside.to_string() };
        Some(vec![PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port) }])
    };
    let texts = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
    let mut config = HostConfig {
        network_mode: spec.network.clone().or(Some("none".into())),
        port_bindings: Some(
            spec.ports.iter().map(|(inside, outside)| (format!("{inside}/tcp"), binding(*outside))).collect(),
        ),
        binds: Some(spec.all_volumes().map(|(name, target)| format!("{name}:{target}")).collect()),
        tmpfs: Some(
            spec.memory.iter().map(|(path, options)| ((*path).to_owned(), (*options).to_owned())).collect(),
        ),
        cgroupns_mode: spec.own_cgroups.then_some(HostConfigCgroupnsModeEnum::PRIVATE),
        ..HostConfig::default()
    };
    match &spec.rights {
        Rights::Default => {}
        Rights::Named(Named { capabilities, devices, apparmor, own_users, .. }) => {
            // What an engine gives by itself differs.
            config.cap_drop = texts(&["ALL"]);
            config.cap_add = texts(capabilities);
            // Rules for the cgroup would do, but Podman's Docker interface drops them without a word.
            config.devices = Some(devices.iter().map(|path| device(path)).collect());
            let apparmor = format!("apparmor={}", apparmor.unwrap_or("unconfined"));
            let seccomp = format!("seccomp={}", seccomp.unwrap_or("unconfined"));
            config.security_opt = Some(vec![seccomp, apparmor]);
            config.userns_mode = (*own_users && kind == EngineKind::Podman).then(|| "auto".to_owned());
        }
        Rights::Runtime(name) => config.runtime = Some((*name).to_owned()),
        Rights::All => config.privileged = Some(true),
    }
    config
}

fn device(path: &str) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(path.to_owned()),
        path_in_container: Some(path.to_owned()),
        cgroup_permissions: Some("rwm".into()),
    }
}

/// An archive with the files, each readable by its owner alone, and the folders that they are in.
pub(super) fn pack(files: &[ContainerFile]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(file.contents.len() as u64);
        let name = file.path.trim_start_matches('/');
        archive
            .append_data(&mut header, name, file.contents.as_slice())
            .with_context(|| format!("failed to pack `{name}`"))?;
    }
    archive.into_inner().context("failed to pack the files of a container")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> ContainerSpec {
        ContainerSpec {
            name: "edge".into(),
            image: "image".into(),
            volumes: vec![("edge-state".into(), "/state")],
            memory: vec![("/run", "exec")],
            own_cgroups: true,
            rights: Rights::Named(Named {
                capabilities: vec!["NET_ADMIN"],
                devices: vec!["/dev/net/tun"],
                seccomp: "{}".into(),
                apparmor: Some("edge"),
                own_users: true,
            }),
            files: vec![ContainerFile { path: "/secret".into(), contents: b"key".to_vec() }],
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn every_part_of_a_description_counts() {
        let changed = |change: fn(&mut ContainerSpec)| {
            let mut spec = edge();
            change(&mut spec);
            spec.fingerprint()
        };
        let variants = [
            changed(|_| {}),
            changed(|spec| spec.host_name = Some("edge".into())),
            changed(|spec| spec.volumes.clear()),
            changed(|spec| spec.kept_volumes.push(("edge-kept".into(), "/kept"))),
            changed(|spec| spec.memory.clear()),
            changed(|spec| spec.terminal = true),
            changed(|spec| spec.own_cgroups = false),
            changed(|spec| spec.rights = Rights::All),
            changed(|spec| spec.rights = Rights::Runtime("sysbox-runc")),
            changed(|spec| spec.tier = Some(Tier::Confined)),
            changed(|spec| spec.files[0].contents.clear()),
        ];
        let distinct: std::collections::BTreeSet<_> = variants.iter().collect();
        assert_eq!(distinct.len(), variants.len());
        assert_eq!(variants[0], edge().fingerprint());
    }

    #[test]
    fn rights_are_named_one_by_one_or_given_all_together() {
        let config = |spec: &ContainerSpec, kind| host_config(spec, kind, Some("/profile.json"));
        let named = config(&edge(), EngineKind::Docker);
        assert_eq!(
            (named.cap_add.unwrap(), named.cap_drop.unwrap()),
            (vec!["NET_ADMIN".into()], vec!["ALL".into()])
        );
        assert_eq!(named.devices.unwrap(), [device("/dev/net/tun")]);
        assert_eq!(named.security_opt.unwrap(), ["seccomp=/profile.json", "apparmor=edge"]);
        assert_eq!((named.privileged, named.userns_mode), (None, None));
        assert_eq!(config(&edge(), EngineKind::Podman).userns_mode.unwrap(), "auto");
        let all = config(&ContainerSpec { rights: Rights::All, ..edge() }, EngineKind::Docker);
        assert_eq!((all.privileged, all.cap_add, all.security_opt), (Some(true), None, None));
        let sysbox = ContainerSpec { rights: Rights::Runtime("sysbox-runc"), ..edge() };
        let sysbox = config(&sysbox, EngineKind::Docker);
        assert_eq!(
            (sysbox.runtime.unwrap().as_str(), sysbox.cap_add, sysbox.security_opt),
            ("sysbox-runc", None, None)
        );
        let none = config(&ContainerSpec::default(), EngineKind::Docker);
        assert_eq!((none.privileged, none.cap_add, none.cgroupns_mode), (None, None, None));
    }

    #[test]
    fn no_folder_of_the_machine_is_ever_mounted() {
        assert_eq!(host_config(&edge(), EngineKind::Docker, None).binds.unwrap(), ["edge-state:/state"]);
    }
}
