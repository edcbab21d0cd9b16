//! A deployment with a hub of its own, its service side, and what is in its pod.

use std::path::PathBuf;

use assert_cmd::Command;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kedge_sim::service::ServiceClient;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xtask::cluster;

use super::leaks::Marked;
use crate::harness::{LIMIT, service, state_of, wait_until_async};

const NAME: &str = "kedge-device";
const HUB: &str = "hub.device.test";
const NAMESPACE: &str = "kedge";
const FOLDER: &str = "/var/secrets/kedge";

pub(crate) struct World {
    folder: TempDir,
    runtime: Runtime,
}

impl World {
    /// Brings it up with the credentials that the local hub makes.
    pub(crate) fn up() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), runtime: Runtime::new().unwrap() };
        let settings = format!(
            "[cluster]\nname = {NAME:?}\n[registry]\nport = 5017\n[hub]\nhost-name = {HUB:?}\n[verify]\nmessages = 2\n\
             time-limit = 30\n"
        );
        fs_err::write(world.profile(), settings).unwrap();
        world.succeed("down", "");
        world.succeed("device remove", "");
        world.succeed("up --yes", "");
        world.succeed("hub", "");
        world
    }

    pub(crate) fn hub(&self) -> &'static str {
        HUB
    }

    pub(crate) fn state(&self) -> PathBuf {
        state_of(NAME)
    }

    fn profile(&self) -> PathBuf {
        self.folder.path().join("kedge.toml")
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        xtask::paths::write_private(&path, text.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Exit code, standard output and standard error of a command that reads `input`.
    fn xtask(&self, command: &str, input: &str) -> (i32, String) {
        let mut xtask = Command::cargo_bin("xtask").unwrap();
        xtask.args(command.split(' ')).arg("--profile").arg(self.profile()).write_stdin(input);
        let output = xtask.timeout(LIMIT).output().unwrap();
        let told =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        eprintln!("cargo xtask {command}: {}\n{told}", output.status);
        (output.status.code().unwrap(), told)
    }

    fn succeed(&self, command: &str, input: &str) -> String {
        let (code, told) = self.xtask(command, input);
        assert_eq!(code, 0, "cargo xtask {command} failed");
        told
    }

    /// What `e2e` tells when more is asked for than there can be.
    pub(crate) fn fail_to_prove(&self) -> String {
        let settings = fs_err::read_to_string(self.profile()).unwrap();
        let settings =
            settings.replace("messages = 2", "messages = 1000").replace("time-limit = 30", "time-limit = 5");
        fs_err::write(self.profile(), settings).unwrap();
        let (code, told) = self.xtask("e2e", "");
        assert_eq!(code, 5, "cargo xtask e2e");
        told
    }

    /// Gives credentials.
    pub(crate) fn device(&self, command: &str, input: &str) -> String {
        self.succeed(&format!("device {command}"), input)
    }

    pub(crate) fn up_again(&self) {
        self.succeed("up", "");
    }

    /// Gives credentials that lead through the provisioning service, and brings the pod up with them.
    pub(crate) fn register(&self, kind: &str, flags: &str, secret: &str) {
        let service = format!("--global-endpoint https://{HUB} --id-scope {} --from -", super::SCOPE);
        self.device(&format!("{kind} {service} {flags}"), secret);
        self.up_again();
    }

    /// The telemetry of this device is at the hub; gives the name of its pod.
    pub(crate) fn is_at_the_hub(&self, device: &str) -> String {
        self.succeed("verify", "");
        let connected = self.runtime.block_on(async {
            let modules = self.service().modules(device).await.unwrap();
            modules.iter().any(|module| module.module_id == "tempSensor")
        });
        assert!(connected, "{device} has no sensor");
        self.with_cluster(async |client| pod(&client).await)
    }

    fn service(&self) -> ServiceClient {
        service(&self.state(), HUB)
    }

    pub(crate) fn create(&self, device: &str, authentication: &Value) {
        self.runtime.block_on(self.service().create_edge_device(device, authentication)).unwrap();
    }

    pub(crate) fn delete(&self, device: &str) {
        self.runtime.block_on(self.service().delete_device(device)).unwrap();
    }

    pub(crate) fn enroll(&self, registration: &str, body: &Value) {
        let mut body = body.clone();
        body["registrationId"] = registration.into();
        self.runtime.block_on(self.service().put_enrollment(registration, &body)).unwrap();
    }

    pub(crate) fn enroll_group(&self, group: &str, body: &Value) {
        let mut body = body.clone();
        body["enrollmentGroupId"] = group.into();
        self.runtime.block_on(self.service().put_enrollment_group(group, &body)).unwrap();
    }

    fn with_cluster<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        self.runtime
            .block_on(async { work(cluster::client(&self.state().join("kubeconfig")).await.unwrap()).await })
    }

    /// Standard output of a command in the pod, whatever it ends with.
    fn inside(&self, command: &[&str]) -> String {
        self.with_cluster(async |client| {
            let pod = pod(&client).await;
            cluster::exec::run(&client, NAMESPACE, &pod, "edge", command).await.unwrap().stdout
        })
    }

    /// In the pod's memory are these files and no others, each for the one service that reads it.
    pub(crate) fn has_files(&self, expected: &[(&str, &str, &[u8])]) {
        let script = format!(
            "stat -f -c %T /var/secrets; stat -c '%U %a' {FOLDER}; cd {FOLDER}; for file in *; do [ ! -e \"$file\" ] || \
             stat -c '%n %U %a' \"$file\"; done; sha256sum * 2>/dev/null | sort -k 2"
        );
        let mut wanted = vec!["tmpfs".to_owned(), "root 755".to_owned()];
        wanted.extend(expected.iter().map(|(name, owner, _)| format!("{name} {owner} 600")));
        let sums =
            expected.iter().map(|(name, _, bytes)| format!("{}  {name}", hex::encode(Sha256::digest(bytes))));
        wanted.extend(sums);
        let found = self.inside(&["sh", "-c", &script]);
        assert_eq!(found.lines().collect::<Vec<_>>(), wanted);
    }

    /// No process of the pod has the marked key in its environment or its arguments, and only files in memory have it.
    pub(crate) fn holds_marked_key_only_in_memory(&self, marked: &Marked, expected: &[&str]) {
        let read = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";
        marked.is_not_in("the processes of the pod", self.inside(&["sh", "-c", read]).as_bytes());
        let places = ["/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var"];
        let mut command = vec!["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings"];
        command.extend(marked.forms().iter().flat_map(|form| ["-e", form]));
        command.extend(["--devices=skip", "--"]);
        command.extend(places);
        let found = self.inside(&command);
        // The Secret is mounted more than once: by its names, and by the folder that they lead to.
        let (mounted, mut others): (Vec<_>, Vec<_>) =
            found.lines().partition(|path| path.starts_with("/run/kedge/credentials/"));
        others.sort_unstable();
        assert!(!mounted.is_empty() && others == expected, "{found}");
        for path in found.lines() {
            let kind = self.inside(&["stat", "-f", "-c", "%T", path]);
            assert_eq!(kind, "tmpfs", "{path}");
        }
    }

    /// All that Kubernetes shows of what is not a Secret.
    pub(crate) fn objects(&self) -> String {
        self.with_cluster(async |client| {
            let mut all = Vec::new();
            all.push(listed::<ConfigMap>(&client).await);
            all.push(listed::<Deployment>(&client).await);
            all.push(listed::<ReplicaSet>(&client).await);
            all.push(listed::<Pod>(&client).await);
            all.push(listed::<Event>(&client).await);
            all.concat()
        })
    }

    pub(crate) fn pod_log(&self) -> String {
        self.with_cluster(async |client| {
            let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
            pods.logs(&pod(&client).await, &LogParams::default()).await.unwrap()
        })
    }

    /// The reference of the edge's image in the engine.
    pub(crate) fn edge_image(&self) -> String {
        let plan = self.succeed("plan --json", "");
        let from = plan.find("localhost/kedge/edge:").unwrap();
        plan[from..].split('"').next().unwrap().to_owned()
    }

    /// Takes a file from the Secret, and the pod that has it.
    pub(crate) fn take_from_the_secret(&self, name: &str) {
        self.with_cluster(async |client| {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
            let patch = json!({ "data": { name: null } });
            secrets.patch("kedge-credentials", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
            pods.delete(&pod(&client).await, &DeleteParams::default().grace_period(0)).await.unwrap();
        });
    }

    /// What a pod has written whose container has ended.
    pub(crate) fn log_of_a_failed_pod(&self) -> String {
        self.with_cluster(async |client| {
            let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
            let mut log = String::new();
            wait_until_async("a pod that has failed", async || {
                for pod in pods.list(&ListParams::default()).await.unwrap() {
                    let name = pod.metadata.name.unwrap();
                    let params = LogParams::default();
                    log = pods.logs(&name, &params).await.unwrap_or_default();
                    if log.contains("kedge: ") {
                        return true;
                    }
                }
                false
            })
            .await;
            log
        })
    }

    /// `e2e` has removed all but the user's own credentials.
    pub(crate) fn nothing_is_left_but_what_was_given(&self) {
        assert_eq!(self.succeed("status --json", "").trim(), "[]");
        let left: Vec<_> =
            fs_err::read_dir(self.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["device"]);
        self.succeed("device remove", "");
        self.succeed("down", "");
        assert!(!self.state().exists());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that has failed leaves nothing behind, either.
        self.xtask("down", "");
        self.xtask("device remove", "");
    }
}

/// The name of the one pod that runs.
async fn pod(client: &Client) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let all = pods.list(&ListParams::default()).await.unwrap();
    let running =
        all.into_iter().find(|pod| cluster::is_pod_running(pod) && pod.metadata.deletion_timestamp.is_none());
    running.unwrap().metadata.name.unwrap()
}

async fn listed<K>(client: &Client) -> String
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let all: Api<K> = Api::all(client.clone());
    serde_json::to_string(&all.list(&ListParams::default()).await.unwrap().items).unwrap()
}
