//! The table of all settings.

use clap::ValueEnum;

use super::super::word;
use super::rules::{
    is_by_tag, is_consumer_group, is_context, is_device_id, is_host_name, is_label, is_path, is_quantity,
    is_repository, is_runtime_version,
};
use super::{Access, CLUSTER_NAME, ENGINE, Field, HUB, PACKAGES, PRELOAD, RUNTIME, TIER};
use crate::image_reference;

/// Where the hub is published.
pub(super) const HUB_PORTS: &str = "hub.ports";
pub(super) const RUNTIME_VERSION: &str = "runtime.version";
pub(super) const RUNTIME_ENGINE: &str = "runtime.engine";
pub(super) const REPOSITORY: &str = "runtime.repository";
pub(super) const REPOSITORY_KEY: &str = "runtime.repository-key";

pub(super) const QUANTITY: &str = "a quantity of Kubernetes, such as \"2Gi\" or \"200m\"";

const LABEL: &str = "1 to 40 of a-z, 0-9 and `-`, beginning and ending with a letter or digit";

/// All of them, in the order in which they are shown.
pub static FIELDS: [Field; 31] = [
    Field {
        name: ENGINE,
        allowed: "\"auto\", \"docker\" or \"podman\"",
        access: Access::Text {
            default: "auto",
            get: |settings| word(&settings.engine.choice),
            set: |settings, text| choose(&mut settings.engine.choice, text),
        },
    },
    Field {
        name: CLUSTER_NAME,
        allowed: LABEL,
        access: Access::Text {
            default: "kedge",
            get: |settings| settings.cluster.name.clone(),
            set: |settings, text| put(&mut settings.cluster.name, text, is_label(text, 40)),
        },
    },
    Field {
        name: "cluster.node-image",
        allowed: "\"auto\", \"debian\" or the reference of an image",
        access: Access::Text {
            default: "auto",
            get: |settings| settings.cluster.node_image.clone(),
            set: |settings, text| {
                put(&mut settings.cluster.node_image, text, image_reference::check(text).is_ok())
            },
        },
    },
    Field {
        name: "registry.port",
        allowed: "a whole number from 1 to 65535",
        access: Access::Number {
            default: 5001,
            get: |settings| settings.registry.port.into(),
            set: |settings, number| {
                let port = u16::try_from(number).ok().filter(|port| *port != 0);
                port.map(|port| settings.registry.port = port).is_some()
            },
        },
    },
    Field {
        name: HUB,
        allowed: "\"local\" or \"azure\"",
        access: Access::Text {
            default: "local",
            get: |settings| word(&settings.hub.kind),
            set: |settings, text| choose(&mut settings.hub.kind, text),
        },
    },
    Field {
        name: "hub.host-name",
        allowed: "a DNS name in lower case, not an address and not `localhost`",
        access: Access::Text {
            default: "hub.kedge.test",
            get: |settings| settings.hub.host_name.clone(),
            set: |settings, text| put(&mut settings.hub.host_name, text, is_host_name(text)),
        },
    },
    Field {
        name: HUB_PORTS,
        allowed: "\"free\" or \"standard\"",
        access: Access::Text {
            default: "free",
            get: |settings| word(&settings.hub.ports),
            set: |settings, text| choose(&mut settings.hub.ports, text),
        },
    },
    Field {
        name: RUNTIME,
        allowed: "\"simulated\" or \"azure\"",
        access: Access::Text {
            default: "simulated",
            get: |settings| word(&settings.runtime.kind),
            set: |settings, text| choose(&mut settings.runtime.kind, text),
        },
    },
    Field {
        name: RUNTIME_VERSION,
        allowed: "1.4 or later, such as \"1.6\" for the last one of that line, or \"1.6.0\"",
        access: Access::Text {
            default: "1.6",
            get: |settings| settings.runtime.version.clone(),
            set: |settings, text| put(&mut settings.runtime.version, text, is_runtime_version(text)),
        },
    },
    Field {
        name: RUNTIME_ENGINE,
        allowed: "\"docker.io\" or \"moby-engine\"",
        access: Access::Text {
            default: "docker.io",
            get: |settings| settings.runtime.engine.clone(),
            set: |settings, text| {
                put(&mut settings.runtime.engine, text, ["docker.io", "moby-engine"].contains(&text))
            },
        },
    },
    Field {
        name: PACKAGES,
        allowed: "the path of a folder with .deb files, absolute or relative to the workspace; or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.runtime.packages.clone(),
            set: |settings, text| put(&mut settings.runtime.packages, text, text.is_empty() || is_path(text)),
        },
    },
    Field {
        name: REPOSITORY,
        allowed: "the URL of a package repository, without a login, and its suite if that is not bookworm",
        access: Access::Text {
            default: "https://packages.microsoft.com/debian/12/prod",
            get: |settings| settings.runtime.repository.clone(),
            set: |settings, text| put(&mut settings.runtime.repository, text, is_repository(text)),
        },
    },
    Field {
        name: REPOSITORY_KEY,
        allowed: "the path of a file with an OpenPGP key, absolute or relative to the workspace; or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.runtime.repository_key.clone(),
            set: |settings, text| {
                put(&mut settings.runtime.repository_key, text, text.is_empty() || is_path(text))
            },
        },
    },
    Field {
        name: PRELOAD,
        allowed: "a list of images such as \"r.test/sensor:1.0\", in lower case, by tag, and not by digest, which is lost when an image is saved",
        access: Access::List {
            get: |settings| settings.runtime.preload.clone(),
            set: |settings, texts| {
                let are_allowed = texts.iter().all(|text| is_by_tag(text));
                if are_allowed {
                    texts.clone_into(&mut settings.runtime.preload);
                }
                are_allowed
            },
        },
    },
    Field {
        name: "device.id",
        allowed: "1 to 128 letters, digits and characters of -:.%_*?!(),=@$'",
        access: Access::Text {
            default: "kedge-device",
            get: |settings| settings.device.id.clone(),
            set: |settings, text| put(&mut settings.device.id, text, is_device_id(text)),
        },
    },
    Field {
        name: "device.deployment",
        allowed: "the path of a deployment manifest, absolute or relative to the workspace",
        access: Access::Text {
            default: "config/deployment.json",
            get: |settings| settings.device.deployment.clone(),
            set: |settings, text| put(&mut settings.device.deployment, text, is_path(text)),
        },
    },
    Field {
        name: "device.config",
        allowed: "the path of a configuration of the runtime, absolute or relative to the workspace",
        access: Access::Text {
            default: "config/config.toml",
            get: |settings| settings.device.config.clone(),
            set: |settings, text| put(&mut settings.device.config, text, is_path(text)),
        },
    },
    Field {
        name: TIER,
        allowed: "\"auto\", \"userns\", \"sysbox\", \"confined\" or \"privileged\"",
        access: Access::Text {
            default: "auto",
            get: |settings| word(&settings.security.tier),
            set: |settings, text| choose(&mut settings.security.tier, text),
        },
    },
    Field {
        name: "deploy.context",
        allowed: "the name of a context of your kubeconfig, or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.deploy.context.clone(),
            set: |settings, text| put(&mut settings.deploy.context, text, is_context(text)),
        },
    },
    Field {
        name: "deploy.kubeconfig",
        allowed: "the path of a kubeconfig, absolute or relative to the workspace; or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.deploy.kubeconfig.clone(),
            set: |settings, text| {
                put(&mut settings.deploy.kubeconfig, text, text.is_empty() || is_path(text))
            },
        },
    },
    Field {
        name: "deploy.namespace",
        allowed: LABEL,
        access: Access::Text {
            default: "kedge",
            get: |settings| settings.deploy.namespace.clone(),
            set: |settings, text| put(&mut settings.deploy.namespace, text, is_label(text, 40)),
        },
    },
    Field {
        name: "deploy.image",
        allowed: "the reference of an image, `registry/name@sha256:…`, `registry/name:tag` or `registry/name`; or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.deploy.image.clone(),
            set: |settings, text| {
                put(&mut settings.deploy.image, text, text.is_empty() || image_reference::check(text).is_ok())
            },
        },
    },
    Field {
        name: "deploy.storage-class",
        allowed: "the name of a storage class, or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.deploy.storage_class.clone(),
            set: |settings, text| {
                put(&mut settings.deploy.storage_class, text, text.is_empty() || is_host_name(text))
            },
        },
    },
    Field {
        name: "deploy.state-size",
        allowed: QUANTITY,
        access: Access::Text {
            default: "2Gi",
            get: |settings| settings.deploy.state_size.clone(),
            set: |settings, text| put(&mut settings.deploy.state_size, text, is_quantity(text)),
        },
    },
    Field {
        name: "deploy.engine-size",
        allowed: QUANTITY,
        access: Access::Text {
            default: "8Gi",
            get: |settings| settings.deploy.engine_size.clone(),
            set: |settings, text| put(&mut settings.deploy.engine_size, text, is_quantity(text)),
        },
    },
    Field {
        name: "deploy.cpu",
        allowed: QUANTITY,
        access: Access::Text {
            default: "200m",
            get: |settings| settings.deploy.cpu.clone(),
            set: |settings, text| put(&mut settings.deploy.cpu, text, is_quantity(text)),
        },
    },
    Field {
        name: "deploy.memory",
        allowed: QUANTITY,
        access: Access::Text {
            default: "256Mi",
            get: |settings| settings.deploy.memory.clone(),
            set: |settings, text| put(&mut settings.deploy.memory, text, is_quantity(text)),
        },
    },
    Field {
        name: "deploy.memory-limit",
        allowed: "a quantity of Kubernetes such as \"2Gi\", or \"\"",
        access: Access::Text {
            default: "",
            get: |settings| settings.deploy.memory_limit.clone(),
            set: |settings, text| {
                put(&mut settings.deploy.memory_limit, text, text.is_empty() || is_quantity(text))
            },
        },
    },
    Field {
        name: "verify.messages",
        allowed: "a whole number from 1 to 1000",
        access: Access::Number {
            default: 5,
            get: |settings| settings.verify.messages as u64,
            set: |settings, number| {
                let messages = usize::try_from(number).ok().filter(|messages| (1..=1000).contains(messages));
                messages.map(|messages| settings.verify.messages = messages).is_some()
            },
        },
    },
    Field {
        name: "verify.time-limit",
        allowed: "a whole number of seconds from 1 to 3600",
        access: Access::Number {
            default: 120,
            get: |settings| settings.verify.time_limit,
            set: |settings, number| {
                let limit = Some(number).filter(|limit| (1..=3600).contains(limit));
                limit.map(|limit| settings.verify.time_limit = limit).is_some()
            },
        },
    },
    Field {
        name: "verify.consumer-group",
        allowed: "the name of a consumer group: 1 to 50 letters, digits and characters of $-._",
        access: Access::Text {
            default: "$Default",
            get: |settings| settings.verify.consumer_group.clone(),
            set: |settings, text| put(&mut settings.verify.consumer_group, text, is_consumer_group(text)),
        },
    },
];

/// Takes the choice over that has this name, if there is one.
fn choose<T: ValueEnum>(slot: &mut T, text: &str) -> bool {
    T::from_str(text, false).map(|choice| *slot = choice).is_ok()
}

/// Takes the text over if it is allowed.
fn put(slot: &mut String, text: &str, is_allowed: bool) -> bool {
    if is_allowed {
        text.clone_into(slot);
    }
    is_allowed
}
