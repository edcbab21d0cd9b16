//! Declared and observed: what was changed from outside is told by the plan and repaired by `up`, and nothing else is.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use xtask::cluster;

use crate::harness::{
    engine, engine_command, impatient_settings, newest_report, newest_run, nothing_is_left, project, state,
    step, succeed, wait_until, wait_until_async, xtask, xtask_output,
};

#[test]
#[ignore = "needs a container engine"]
fn what_was_changed_from_outside_is_repaired_and_nothing_else() {
    succeed(&["down"]);
    succeed(&["up", "--yes"]);
    assert_eq!(changed_by_up(), [""; 0]);

    scale(0);
    assert_eq!(due(), ["deploy", "pod"]);
    succeed(&["up", "--dry-run"]);
    assert_eq!(due(), ["deploy", "pod"], "a dry run has changed something");
    assert_eq!(changed_by_up(), ["deploy", "pod"]);

    spoil_secret();
    assert_eq!(due(), ["deploy"]);
    assert_eq!(changed_by_up(), ["deploy"]);

    // A pod that has started with a key that the hub refuses gets the right one, and is started again.
    start_with_wrong_key();
    let (code, layers) = xtask(&["verify", "--profile", impatient_settings().path().to_str().unwrap()]);
    assert_eq!(code, 5, "{layers}");
    let agent = layers.lines().find(|line| line.starts_with("agent")).unwrap();
    assert!(agent.contains("broken") && agent.contains("401"), "{layers}");
    assert_eq!(changed_by_up(), ["deploy", "pod"]);

    engine(&["rm", "--force", "kedge-registry"]);
    assert_eq!(changed_by_up(), ["push-edge", "push-sensor", "registry"]);

    engine(&["rmi", "--force", &image("temperature-sensor")]);
    assert_eq!(due(), ["image-sensor"]);
    assert_eq!(changed_by_up(), ["image-sensor"]);

    // A hub whose container was replaced has its devices still: what it knows is in a volume.
    engine(&["rm", "--force", "kedge-hub"]);
    assert_eq!(changed_by_up(), ["hub"]);
    succeed(&["verify"]);

    // One that was made anew knows no device, and the one that it is told of has a new key.
    succeed(&["hub", "down"]);
    assert_eq!(changed_by_up(), ["deploy", "device", "hub", "pod"]);
    succeed(&["verify"]);

    other_tools_push_and_pull();

    // One device cannot run twice.
    let (code, _, error) = xtask_output(&["run"]);
    assert_eq!(code, 6, "{error}");
    assert!(error.contains("runs as a pod of the cluster already"), "{error}");

    // A cluster that does not answer for a while keeps what is in it.
    engine(&["pause", "kedge-control-plane"]);
    assert!(due().contains(&"cluster".to_owned()));
    let before = newest_run();
    let up = std::thread::spawn(|| succeed(&["up"]));
    wait_until("a run that has begun", || newest_run() != before);
    engine(&["unpause", "kedge-control-plane"]);
    up.join().unwrap();
    let report = newest_report();
    let note = step(&report, "cluster")["note"].as_str().unwrap();
    assert!(!note.starts_with("created"), "{note}");
    succeed(&["verify"]);

    let removed = succeed(&["down", "--dry-run"]);
    assert!(removed.contains("- kedge-control-plane\n") && removed.contains("- kedge-hub\n"), "{removed}");
    assert_eq!(changed_by_up(), [""; 0], "a dry run has removed something");
    succeed(&["down"]);
    nothing_is_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_module_image_that_does_not_exist_is_named_by_the_proof() {
    succeed(&["down"]);
    let folder = tempfile::tempdir().unwrap();
    let manifest = fs_err::read_to_string(project().join("config/deployment.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    let modules = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
    let mut ghost = modules["tempSensor"].clone();
    ghost["settings"]["image"] = json!("kedge-registry:5000/kedge/no-such-image:1");
    modules["ghost"] = ghost;
    let deployment = folder.path().join("deployment.json");
    fs_err::write(&deployment, manifest.to_string()).unwrap();
    let settings = folder.path().join("kedge.toml");
    let text = format!("[device]\ndeployment = {deployment:?}\n[verify]\ntime-limit = 20\n");
    fs_err::write(&settings, text).unwrap();
    let settings = settings.to_str().unwrap();
    let (code, layers) = xtask(&["e2e", "--yes", "--profile", settings]);
    assert_eq!(code, 5, "{layers}");
    assert!(layers.contains("ghost") && layers.contains("no-such-image"), "{layers}");
    nothing_is_left();
}

/// What `env` prints points an engine at the registry's login, and a pod as anybody would write it pulls from there.
fn other_tools_push_and_pull() {
    const APP: &str = "localhost:5001/somebody/app:1";
    let exports = succeed(&["env"]);
    let exports = exports.lines().map(|line| line.strip_prefix("export ").unwrap().split_once('=').unwrap());
    let exports: Vec<_> = exports.collect();
    assert!(exports.contains(&("KUBECONFIG", state().join("kubeconfig").to_str().unwrap())), "{exports:?}");
    engine(&["tag", &image("temperature-sensor"), APP]);
    // Podman has to be told that a registry on the loopback interface has no TLS.
    let podman = newest_report()["environment"]["engine"].as_str().unwrap().starts_with("podman");
    let push: &[&str] = if podman { &["push", "--tls-verify=false", APP] } else { &["push", APP] };
    engine_command(push).envs(exports).assert().success();
    engine(&["rmi", APP]);
    with_cluster(async |client| {
        let pods: Api<Pod> = Api::namespaced(client, "default");
        let pod = json!({ "metadata": { "name": "app" }, "spec": { "containers": [{ "name": "app", "image": APP }] } });
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        wait_until_async("the image of a pod in `default`", async || {
            let status = pods.get("app").await.unwrap().status.unwrap_or_default();
            status
                .container_statuses
                .unwrap_or_default()
                .iter()
                .any(|container| !container.image_id.is_empty())
        })
        .await;
        pods.delete("app", &DeleteParams::default().grace_period(0)).await.unwrap();
    });
}

/// What the plan wants to do, in the order of names; what is only looked at again is left out.
fn due() -> Vec<String> {
    let plan: Value = serde_json::from_str(&succeed(&["plan", "--json"])).unwrap();
    assert_eq!(plan["converged"], false);
    ids(&plan["steps"], |step| step["work"] == "due")
}

/// What `up` has changed, in the order of names.
fn changed_by_up() -> Vec<String> {
    succeed(&["up"]);
    ids(&newest_report()["steps"], |step| step["changed"] == true)
}

fn ids(steps: &Value, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let steps = steps.as_array().unwrap().iter().filter(|step| wanted(step));
    let mut ids: Vec<_> = steps.map(|step| step["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// The reference of an image of the present inputs.
fn image(name: &str) -> String {
    let plan: Value = serde_json::from_str(&succeed(&["plan", "--json"])).unwrap();
    let found = plan["steps"].as_array().unwrap().iter().filter_map(|step| step["found"].as_str());
    found.into_iter().find(|found| found.starts_with(&format!("localhost/kedge/{name}:"))).unwrap().to_owned()
}

fn scale(replicas: i32) {
    with_cluster(async |client| {
        let deployments: Api<Deployment> = Api::namespaced(client, "kedge");
        let patch = json!({ "spec": { "replicas": replicas } });
        deployments.patch("kedge", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        // The plan is to see the pod gone, not on its way out.
        let gone = deployments.clone();
        wait_until_async("no pod", async || {
            gone.get("kedge").await.unwrap().status.unwrap_or_default().ready_replicas.unwrap_or_default()
                == 0
        })
        .await;
    });
}

/// Gives the Secret a key that is none of the device's, and the pod that.
fn start_with_wrong_key() {
    with_cluster(async |client| {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "kedge");
        let config =
            secrets.get("kedge-credentials").await.unwrap().data.unwrap().remove("config.toml").unwrap().0;
        let config = String::from_utf8(config).unwrap();
        let (before, key) = config.split_once("SharedAccessKey=").unwrap();
        let (_, after) = key.split_once('"').unwrap();
        let wrong = format!("{before}SharedAccessKey={}\"{after}", "QUJD".repeat(11));
        let patch = json!({ "stringData": { "config.toml": wrong } });
        secrets.patch("kedge-credentials", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        let pods: Api<Pod> = Api::namespaced(client, "kedge");
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            let name = pod.metadata.name.unwrap();
            pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
        }
        wait_until_async("a new pod that runs", async || {
            let all = pods.list(&ListParams::default()).await.unwrap();
            all.items.iter().any(cluster::is_pod_running)
        })
        .await;
    });
}

fn spoil_secret() {
    with_cluster(async |client| {
        let secrets: Api<Secret> = Api::namespaced(client, "kedge");
        let patch = json!({ "stringData": { "config.toml": "hostname = \"another\"" } });
        secrets.patch("kedge-credentials", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    });
}

fn with_cluster(work: impl AsyncFnOnce(Client)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        work(cluster::client(&state().join("kubeconfig")).await.unwrap()).await;
    });
}
