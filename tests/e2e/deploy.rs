//! To a cluster of somebody else: the kind cluster, of which only the kubeconfig is known, as a user knows one's own.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret};
use kedge_sim::service::ServiceClient;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::cluster;

use crate::bundle::secrets_of;
use crate::harness::{
    engine, engine_command, newest_report, nothing_is_left, service, state, succeed, wait_until_async,
    xtask_reading, xtask_with,
};

const CONTEXT: &str = "kind-kedge";
const NAMESPACE: &str = "factory";
const HUB: &str = "hub.kedge.test";
const CERTIFICATE: &str = "/var/lib/aziot/certd/aziot-edged-ca.pem";

/// A user with a kubeconfig and settings of one's own.
struct User {
    folder: TempDir,
    image: String,
}

#[test]
#[ignore = "needs a container engine"]
fn a_cluster_of_somebody_else_gets_the_edge_and_is_left_as_it_was() {
    succeed(&["down"]);
    succeed(&["up", "--yes"]);
    let user = User::new();
    nothing_happens_unasked(&user);
    the_edge_is_deployed(&user);
    faults_are_survived_there(&user);
    a_change_is_shown_before_it_is_made(&user);
    a_new_identity_is_in_use(&user);
    what_others_have_made_is_left_alone(&user);
    the_state_outlives_the_deployment(&user);
    what_kubectl_applies_is_what_deploy_wants(&user);
    a_policy_that_forbids_the_pod_is_named(&user);
    succeed(&["device", "remove"]);
    succeed(&["down"]);
    nothing_is_left();
}

fn nothing_happens_unasked(user: &User) {
    let kubeconfig = user.path("kubeconfig");
    for named in [&["deploy"][..], &["deploy", "--context", "kind-kegde"], &["undeploy"]] {
        let (code, _, error) = xtask_with(named, &[("KUBECONFIG", &kubeconfig)]);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(&format!("it has: {CONTEXT}")), "{error}");
    }
    let shown = user.run(0, &["deploy", "--dry-run", "--registry-login", &user.login()]).0;
    for line in
        ["+ Namespace `factory`", "+ Deployment `kedge`", "+ PersistentVolumeClaim `kedge-engine`", "(linux/"]
    {
        assert!(shown.contains(line), "{line} is not in: {shown}");
    }
    // Standard input is no terminal here.
    let (_, error) = user.run(4, &["deploy", "--registry-login", &user.login()]);
    assert!(error.contains("nothing was changed") && error.contains("--yes"), "{error}");
    with_cluster(async |client| {
        assert!(Api::<Namespace>::all(client).get_opt(NAMESPACE).await.unwrap().is_none());
    });
}

fn the_edge_is_deployed(user: &User) {
    let secrets = secrets_of(&state());
    let password = &secrets[1];
    let login = ["--registry-user", "kedge", "--registry-password-stdin"];
    let (told, said) = user.run_reading(0, &[&["deploy", "--yes"], &login[..]].concat(), password);
    assert!(![told, said].concat().contains(password), "the registry's password is told");
    let (layers, _) = user.run(0, &["verify", "--context", CONTEXT]);
    assert!(layers.lines().any(|line| line.starts_with("hub ") && line.contains("ok")), "{layers}");
    let (_, told) = user.run(0, &["deploy", "--yes"]);
    assert!(told.contains("nothing to do: all 6 objects"), "{told}");
    let rendered = user.run(0, &["render", "--context", CONTEXT]).0;
    assert!(rendered.starts_with("---\napiVersion: v1\nkind: Namespace\n"), "{rendered}");
    assert!(rendered.contains("/kedge/edge@sha256:"), "{rendered}");
    let (status, _) = user.run(0, &["status", "--context", CONTEXT]);
    assert!(status.contains("pod") && status.contains("ready"), "{status}");

    // Built here, pushed there under a name of the user's, and deployed by the digest that this gives.
    let repository = "localhost:5001/factory/edge";
    let push = ["deploy", "--yes", "--push", "--image", repository, "--registry-login", &user.login()];
    user.run(0, &push);
    let (shown, _) = user.run(0, &["deploy", "--dry-run", "--image", repository]);
    assert!(shown.contains("= Deployment `kedge`"), "{shown}");
}

/// With the inner engine's folder on a volume of its own as well.
fn faults_are_survived_there(user: &User) {
    let faults = ["chaos", "--context", CONTEXT, "--yes", "--json", "engine-killed", "pod-deleted"];
    let told: Value = serde_json::from_str(&user.run(0, &faults).0).unwrap();
    assert_eq!(told["missing"], json!([]), "{told:#}");
    let survived: Vec<_> = told["survived"].as_array().unwrap().iter().map(|one| &one["fault"]).collect();
    assert_eq!(survived, ["engine-killed", "pod-deleted"]);
}

fn a_change_is_shown_before_it_is_made(user: &User) {
    let before = pod_name();
    let config = fs_err::read_to_string(crate::harness::project().join("config/config.toml")).unwrap();
    fs_err::write(
        user.path("config.toml"),
        format!("{config}\n# changed\n[agent.env]\nRuntimeLogLevel = \"debug\"\n"),
    )
    .unwrap();
    user.write_settings(NAMESPACE, "memory = \"300Mi\"", &format!("config = {:?}", user.path("config.toml")));
    let shown = user.run(0, &["deploy", "--dry-run"]).0;
    assert!(shown.contains("~ Secret `kedge-credentials`\n    .data[config.toml]: otherwise\n"), "{shown}");
    assert!(shown.contains(".resources.requests.memory: \"256Mi\" -> \"300Mi\""), "{shown}");
    assert!(shown.contains("credentials-checksum"), "{shown}");
    user.run(0, &["deploy", "--yes"]);
    assert_ne!(pod_name(), before, "new credentials need a new pod");
}

/// Another device, with the deployment of the first one.
fn a_new_identity_is_in_use(user: &User) {
    let before = pod_name();
    succeed(&["hub", "device", "line-2", "--edge"]);
    let desired = async |service: &ServiceClient, module: &str| {
        let mut twin = service.module_twin("kedge-device", module).await.unwrap();
        let mut desired = twin.pointer_mut("/properties/desired").unwrap().take();
        desired.as_object_mut().unwrap().retain(|name, _| !name.starts_with('$'));
        json!({ "properties.desired": desired })
    };
    with_cluster(async |_| {
        let service = service(&state(), HUB);
        let (agent, hub) = (desired(&service, "$edgeAgent").await, desired(&service, "$edgeHub").await);
        let content = json!({ "modulesContent": { "$edgeAgent": agent, "$edgeHub": hub } });
        service.apply_configuration_content("line-2", &content).await.unwrap();
    });
    user.give_credentials_of("line-2");
    user.run(0, &["deploy", "--yes"]);
    assert_ne!(pod_name(), before, "a new identity needs a new pod");
    assert!(in_pod(&["cat", "/etc/aziot/config.toml"]).contains("DeviceId=line-2;"));
    user.run(0, &["verify", "--context", CONTEXT]);
    let report = newest_report();
    let messages = report["messages"].as_array().unwrap();
    assert!(messages.iter().all(|message| message["deviceId"] == "line-2"), "{messages:?}");
}

fn what_others_have_made_is_left_alone(user: &User) {
    with_cluster(async |client| {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let labels = json!({ "pod-security.kubernetes.io/enforce": "baseline" });
        for (name, labels) in [("theirs", json!({})), ("strict", labels)] {
            let namespace = json!({ "metadata": { "name": name, "labels": labels } });
            namespaces.create(&PostParams::default(), &from(namespace)).await.unwrap();
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "theirs");
        let secret = json!({ "metadata": { "name": "kedge-credentials" }, "stringData": { "a": "b" } });
        secrets.create(&PostParams::default(), &from(secret)).await.unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        maps.create(&PostParams::default(), &from(json!({ "metadata": { "name": "somebodys" } })))
            .await
            .unwrap();
    });
    user.write_settings("theirs", "", "");
    let (_, error) = user.run(6, &["deploy", "--yes", "--registry-login", &user.login()]);
    assert!(error.contains("Secret `kedge-credentials`") && error.contains("--take-over"), "{error}");
    let (_, told) = user.run(0, &["undeploy", "--yes", "--delete-state"]);
    assert!(told.contains("nothing to do") && told.contains("= Secret `kedge-credentials`"), "{told}");
    user.write_settings("strict", "", "");
    let (_, error) = user.run(6, &["deploy", "--yes", "--registry-login", &user.login()]);
    assert!(
        error.contains("Pod Security level `baseline`") && error.contains("kubectl label namespace strict"),
        "{error}"
    );
    user.write_settings(NAMESPACE, "", "");
}

fn the_state_outlives_the_deployment(user: &User) {
    let certificate = in_pod(&["cat", CERTIFICATE]);
    let (_, told) = user.run(0, &["undeploy", "--yes"]);
    assert!(told.contains("= ConfigMap `somebodys`") && told.contains("the volumes are kept"), "{told}");
    assert_eq!(claims(), ["kedge-engine", "kedge-state"]);
    let (_, told) = user.run(0, &["undeploy", "--yes"]);
    assert!(told.contains("nothing to do"), "{told}");
    user.run(0, &["deploy", "--yes", "--registry-login", &user.login()]);
    assert_eq!(in_pod(&["cat", CERTIFICATE]), certificate);

    user.run(0, &["undeploy", "--yes", "--delete-state"]);
    assert_eq!(claims(), [""; 0]);
    with_cluster(async |client| {
        assert!(Api::<Namespace>::all(client.clone()).get_opt(NAMESPACE).await.unwrap().is_some());
        let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        maps.delete("somebodys", &DeleteParams::default()).await.unwrap();
    });
    let (_, told) = user.run(0, &["undeploy", "--yes"]);
    assert!(told.contains("removed Namespace `factory`"), "{told}");
    with_cluster(async |client| {
        assert!(Api::<Namespace>::all(client).get_opt(NAMESPACE).await.unwrap().is_none());
    });
}

/// What `render` prints and `device --out` writes are the objects that `deploy` applies.
fn what_kubectl_applies_is_what_deploy_wants(user: &User) {
    let (given, out) = (user.path("connection"), user.path("out"));
    user.run(0, &["device", "connection-string", "--from", &given, "--out", &out]);
    let login = ["--registry-login", &user.login()];
    let render = ["render", "--context", CONTEXT, "--show-secrets"];
    let (rendered, _) = user.run(0, &[&render[..], &login].concat());
    let secret = fs_err::read_to_string(format!("{out}/kedge-credentials.yaml")).unwrap();
    for objects in [rendered, secret] {
        kubectl_apply(&objects);
    }
    let (shown, _) = user.run(0, &[&["deploy", "--dry-run"], &login[..]].concat());
    let marks = |mark: &str| shown.lines().filter(|line| line.starts_with(mark)).count();
    assert_eq!((marks("= "), marks("+ "), marks("~ ")), (7, 0, 0), "{shown}");
    // It has nothing to change, and waits for the pod.
    user.run(0, &[&["deploy", "--yes"], &login[..]].concat());
    user.run(0, &["verify", "--context", CONTEXT]);
    user.run(0, &["undeploy", "--yes", "--delete-state"]);
}

/// Applies as a user of kubectl does, which the node has.
fn kubectl_apply(objects: &str) {
    let node = ["exec", "--interactive", "kedge-control-plane"];
    let apply = ["apply", "--server-side", "--field-manager", "kedge", "--filename", "-"];
    let kubectl = [&["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"], &apply[..]].concat();
    let output =
        engine_command(&[&node[..], &kubectl].concat()).write_stdin(objects.to_owned()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Kubernetes 1.20 has no Pod Security admission yet, and its predecessor, which lets no pod in that no policy allows.
fn a_policy_that_forbids_the_pod_is_named(user: &User) {
    let manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    let change = "s/NodeRestriction/NodeRestriction,PodSecurityPolicy/";
    engine(&["exec", "kedge-control-plane", "sed", "-i", change, manifest]);
    with_cluster(async |client| {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        let pod =
            json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        let rehearsal = PostParams { dry_run: true, ..PostParams::default() };
        wait_until_async("an API server with the policy", async || {
            pods.create(&rehearsal, &from(pod.clone()))
                .await
                .is_err_and(|error| error.to_string().contains("PodSecurityPolicy"))
        })
        .await;
    });
    let (_, error) = user.run(1, &["deploy", "--yes", "--registry-login", &user.login()]);
    assert!(
        error.contains("the pod is refused by PodSecurityPolicy") && error.contains("RoleBinding"),
        "{error}"
    );
    // In a namespace that is there, it is known beforehand.
    user.write_settings(NAMESPACE, "memory = \"300Mi\"", "");
    let (_, error) = user.run(6, &["deploy", "--yes"]);
    assert!(error.contains("the pod is refused by PodSecurityPolicy"), "{error}");
    user.run(0, &["undeploy", "--yes", "--delete-state"]);
}

impl User {
    /// Takes over what `up` has made outside of the cluster, and nothing of what is in it.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs_err::copy(state().join("kubeconfig"), folder.path().join("kubeconfig")).unwrap();
        with_cluster(async |client| {
            let namespaces: Api<Namespace> = Api::all(client);
            namespaces.delete("kedge", &DeleteParams::default()).await.unwrap();
            wait_until_async("an empty cluster", async || {
                namespaces.get_opt("kedge").await.unwrap().is_none()
            })
            .await;
        });
        succeed(&["env"]);
        succeed(&["hub"]);
        let pushed = succeed(&["image", "push"]);
        let image = pushed.lines().find(|line| line.contains("/kedge/edge@")).unwrap().to_owned();
        let user = Self { folder, image };
        user.give_credentials_of("kedge-device");
        user.write_settings(NAMESPACE, "", "");
        user
    }

    fn give_credentials_of(&self, device: &str) {
        let connections = fs_err::read_to_string(state().join("connections.json")).unwrap();
        let connections: Value = serde_json::from_str(&connections).unwrap();
        let given = self.path("connection");
        fs_err::write(&given, connections["devices"][device]["onTheNetwork"].as_str().unwrap()).unwrap();
        succeed(&["device", "connection-string", "--from", &given]);
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn login(&self) -> String {
        format!("docker-config:{}", state().join("docker/config.json").display())
    }

    fn write_settings(&self, namespace: &str, deploy: &str, device: &str) {
        let (kubeconfig, image) = (self.path("kubeconfig"), &self.image);
        let text = format!(
            "[deploy]\ncontext = {CONTEXT:?}\nkubeconfig = {kubeconfig:?}\nnamespace = {namespace:?}\nimage = {image:?}\n{deploy}\n\
             [device]\n{device}\n"
        );
        fs_err::write(self.path("kedge.toml"), text).unwrap();
    }

    /// Runs a command with this user's settings; standard output and standard error.
    fn run(&self, expected: i32, args: &[&str]) -> (String, String) {
        self.run_reading(expected, args, "")
    }

    /// The same with this on standard input.
    fn run_reading(&self, expected: i32, args: &[&str], input: &str) -> (String, String) {
        let settings = self.path("kedge.toml");
        let (code, stdout, stderr) = xtask_reading(&[args, &["--profile", &settings]].concat(), input);
        assert_eq!(code, expected, "{args:?}: {stderr}");
        (stdout, stderr)
    }
}

/// What is kept of a test that failed would be used by the next one.
impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            xtask_with(&["device", "remove"], &[]);
        }
    }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod_name() -> String {
    let mut name = String::new();
    with_cluster(async |client| {
        let pods = cluster::pods(&client, NAMESPACE).await.unwrap();
        name = pods.iter().find(|pod| cluster::is_pod_ready(pod)).unwrap().metadata.name.clone().unwrap();
    });
    name
}

fn in_pod(command: &[&str]) -> String {
    let (mut output, pod) = (String::new(), pod_name());
    with_cluster(async |client| {
        output = cluster::exec::run(&client, NAMESPACE, &pod, "edge", command).await.unwrap().stdout;
    });
    assert!(!output.is_empty(), "{command:?}");
    output
}

fn claims() -> Vec<String> {
    let mut names = Vec::new();
    with_cluster(async |client| {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, NAMESPACE);
        let list = claims.list(&ListParams::default()).await.unwrap();
        names = list.items.into_iter().filter_map(|claim| claim.metadata.name).collect();
    });
    names
}

fn with_cluster(work: impl AsyncFnOnce(Client)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        work(cluster::client(&state().join("kubeconfig")).await.unwrap()).await;
    });
}
