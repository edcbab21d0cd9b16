//! The nodes of our own cluster, made ready for pods with user namespaces; what was done is looked at each time.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Client;

use crate::cluster::confinement::{has_runtime_class, replace_runtime_class};
use crate::context::Context;
use crate::tier::Tier;

/// Something that a node needs: looked for by one command in it, and made by another one.
struct Need {
    name: &'static str,
    look: &'static str,
    make: &'static str,
}

impl Need {
    fn title(&self, node: &str) -> String {
        format!("{} in the node `{node}`", self.name)
    }
}

const CLASS: &str = "the RuntimeClass";
const NEEDS: [Need; 2] = [
    // Such a pod gets a /sys of its own, which the kernel allows only where a whole one is mounted already: kind covers two files of
    // the node's. What is mounted goes when the node is started anew.
    Need {
        name: "a whole /sys",
        look: "[ \"$(stat -f -c %T /mnt/sysfs 2>/dev/null)\" = sysfs ]",
        make: "mkdir -p /mnt/sysfs && mount -t sysfs none /mnt/sysfs",
    },
    // The settings of plugins have another name in each version of containerd's configuration.
    Need {
        name: "the handler `kedge`",
        look: r"containerd config dump | awk '
            /\.containerd\.runtimes\./ { ours = /\.runtimes\.kedge[].]/ }
            ours && /cgroup_writable = true/ { found = 1 }
            END { exit !found }'",
        make: r#"
            config=/etc/containerd/config.toml
            runtimes='plugins."io.containerd.grpc.v1.cri".containerd.runtimes'
            ! grep -q '^version *= *3' $config || runtimes='plugins."io.containerd.cri.v1.runtime".containerd.runtimes'
            systemd=$(sed -n 's/^ *SystemdCgroup *= *//p' $config | head -n 1)
            printf '\n[%s.kedge]\n  runtime_type = "io.containerd.runc.v2"\n  cgroup_writable = true\n' "$runtimes" >>$config
            printf '  [%s.kedge.options]\n    SystemdCgroup = %s\n' "$runtimes" "${systemd:-false}" >>$config
            systemctl restart containerd"#,
    },
];

/// What is not ready for a pod of this tier: nothing, or a few words for each thing.
///
/// # Errors
/// When a node or the API server cannot be asked.
pub(super) async fn unprepared(context: &Context, client: &Client, tier: Tier) -> Result<Vec<String>> {
    if tier != Tier::Userns {
        return Ok(Vec::new());
    }
    let mut lacking: Vec<_> =
        lacking_nodes(context).await?.iter().map(|(node, need)| need.title(node)).collect();
    if !has_runtime_class(client, &runtime_class(context)?).await? {
        lacking.push(CLASS.to_owned());
    }
    Ok(lacking)
}

/// Makes what is not; returns it.
///
/// # Errors
/// When a node or the API server refuses.
pub(super) async fn prepare(context: &Context, client: &Client, tier: Tier) -> Result<Vec<String>> {
    let mut made = Vec::new();
    if tier != Tier::Userns {
        return Ok(made);
    }
    for (node, need) in lacking_nodes(context).await? {
        let output = context.engine.exec(&node, &["sh", "-c", need.make]).await?;
        let is_there = output.success && context.engine.exec(&node, &["sh", "-c", need.look]).await?.success;
        let title = need.title(&node);
        ensure!(
            is_there,
            "failed to make {title}, without which its pods get no user namespace: {}",
            output.text()
        );
        made.push(title);
    }
    let class = runtime_class(context)?;
    if !has_runtime_class(client, &class).await? {
        replace_runtime_class(client, &class).await?;
        made.push(CLASS.to_owned());
    }
    Ok(made)
}

async fn lacking_nodes(context: &Context) -> Result<Vec<(String, &'static Need)>> {
    let mut lacking = Vec::new();
    for node in context.engine.nodes().await? {
        for need in &NEEDS {
            if !context.engine.exec(&node, &["sh", "-c", need.look]).await?.success {
                lacking.push((node.clone(), need));
            }
        }
    }
    Ok(lacking)
}

fn runtime_class(context: &Context) -> Result<RuntimeClass> {
    const PATH: &str = "manifests/runtime-class.yaml";
    let source = fs_err::read_to_string(context.paths.project.join(PATH))?;
    serde_yaml::from_str(&source).with_context(|| format!("`{PATH}` is not a valid RuntimeClass"))
}
