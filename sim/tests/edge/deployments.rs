//! Deployments: applied, changed, refused.

use kedge_sim::edge::board::{ConfigStatus, LinkState};
use kedge_sim::edge::planner::ContainerState;
use serde_json::{Value, json};

use crate::task_engine::TaskEngine;
use crate::world::{DEVICE, IMAGE, SENSOR, World, ask, deployment, with_modules};

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_applied_and_reported_in_the_real_agents_words() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let reported =
        world.reported("$edgeAgent", |reported| reported["modules"][SENSOR]["runtimeStatus"] == "running");
    let reported = reported.await;
    assert_eq!(reported["lastDesiredStatus"], json!({"code": 200, "description": ""}));
    let version =
        world.service.module_twin(DEVICE, "$edgeAgent").await.unwrap()["properties"]["desired"]["$version"]
            .clone();
    assert_eq!(reported["lastDesiredVersion"], version);
    let sensor = &reported["modules"][SENSOR];
    assert_eq!(
        (&sensor["restartPolicy"], &sensor["imagePullPolicy"], &sensor["settings"]["image"]),
        (&json!("always"), &json!("on-create"), &json!(IMAGE))
    );
    assert_eq!(reported["systemModules"]["edgeHub"]["runtimeStatus"], "running");
    assert_eq!(edge.engine.pulls(), [(IMAGE.to_owned(), Some("user".to_owned()))]);
    let env = edge.engine.env(SENSOR);
    for (name, value) in
        [("IOTEDGE_MODULEID", SENSOR), ("IOTEDGE_DEVICEID", DEVICE), ("IOTEDGE_AUTHSCHEME", "sasToken")]
    {
        assert_eq!(env[name], value);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_reported_with_the_engines_message() {
    let world = World::new().await;
    world.deploy(&deployment(&json!({"settings": {"image": "registry.test/missing:1"}}))).await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    let reported =
        world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 500).await;
    let expected = "cannot pull registry.test/missing:1: manifest for registry.test/missing:1 not found: manifest unknown";
    assert_eq!(reported["lastDesiredStatus"]["description"], format!("module {SENSOR}: {expected}"));
    assert_eq!(reported["modules"][SENSOR]["runtimeStatus"], "backoff");
    world.deploy(&deployment(&json!({}))).await;
    edge.running(SENSOR).await;
    world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 200).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_never_to_be_pulled_is_used_as_it_is() {
    let world = World::new().await;
    world.deploy(&deployment(&json!({"imagePullPolicy": "never"}))).await;
    let edge = world.start_edge(TaskEngine::new(&[])).await;
    edge.running(SENSOR).await;
    assert_eq!(edge.engine.pulls(), []);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_module_is_replaced_and_one_that_left_is_removed() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    world.deploy(&deployment(&json!({"env": {"machineTempMin": {"value": 30}}}))).await;
    edge.state(|state| {
        let module = state.modules.get(SENSOR);
        module.is_some_and(|module| {
            module.status == "running" && module.spec.env.contains_key("machineTempMin")
        })
    })
    .await;
    assert_eq!(edge.engine.env(SENSOR)["machineTempMin"], "30");
    world.deploy(&with_modules(&json!({}))).await;
    edge.state(|state| state.modules.is_empty()).await;
    let gone = async {
        while !edge.engine.names().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    crate::world::within_limit(gone).await.expect("the container is removed");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_refused_leaves_the_last_good_one_in_force() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let good =
        world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 200).await
            ["lastDesiredVersion"]
            .clone();
    let patch = json!({"modules": {SENSOR: {"restartPolicy": "sometimes"}}});
    world.service.patch_module_desired(DEVICE, "$edgeAgent", &patch).await.unwrap();
    let reported =
        world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 400).await;
    let description = reported["lastDesiredStatus"]["description"].as_str().unwrap();
    assert!(description.contains("sometimes"), "{description}");
    assert_eq!((edge.engine.starts(SENSOR), edge.engine.state(SENSOR)), (1, Some(ContainerState::Running)));
    assert_eq!(reported["lastDesiredVersion"], good, "the last good one stays in force");
    let schema = json!({"schemaVersion": "7.0", "modules": {SENSOR: {"restartPolicy": "always"}}});
    world.service.patch_module_desired(DEVICE, "$edgeAgent", &schema).await.unwrap();
    world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 412).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_deployment_says_so() {
    let world = World::new().await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 417).await;
    let (status, health) = ask(&edge.management_socket(), "GET", "/kedge/health", "").await;
    assert_eq!((status, &health["deployment"]["status"]), (200, &json!(417)));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_cannot_be_followed_is_reported_and_the_others_work() {
    let (world, edge) = World::with_sensor().await;
    let patch = json!({"routes": {"inner": "FROM /* INTO BrokeredEndpoint(\"/modules/a\")"}});
    world.service.patch_module_desired(DEVICE, "$edgeHub", &patch).await.unwrap();
    let reported = world.reported("$edgeHub", |reported| reported["lastDesiredStatus"]["code"] == 400).await;
    let description = reported["lastDesiredStatus"]["description"].as_str().unwrap();
    assert!(description.starts_with("route inner: "), "{description}");
    let before = world.count().await;
    world.telemetry(|messages| messages.len() > before).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_ends_is_started_again_by_its_policy() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    edge.engine.crash(SENSOR, 1);
    let again = async {
        while edge.engine.starts(SENSOR) < 2 {
            tokio::task::yield_now().await;
        }
    };
    crate::world::within_limit(again).await.expect("the module is started again");
    world.reported("$edgeAgent", |reported| reported["modules"][SENSOR]["restartCount"] == 1).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_stop_with_the_daemon() {
    let (_world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let engine = edge.stop().await;
    assert_eq!(engine.state(SENSOR), Some(ContainerState::Exited));
}

/// The sensor of the quickstart deployment.
fn sensor() -> Value {
    deployment(&json!({}))["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"][SENSOR].clone()
}

fn merged(mut module: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        module[key] = value.clone();
    }
    module
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_module_does_not_touch_the_others() {
    let world = World::new().await;
    world.deploy(&with_modules(&json!({SENSOR: sensor(), "other": sensor()}))).await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    edge.running(SENSOR).await;
    edge.running("other").await;
    for (number, change) in
        [json!({"restartPolicy": "on-failure"}), json!({"version": "2.0"}), json!({"startupOrder": 4})]
            .into_iter()
            .enumerate()
    {
        world.deploy(&with_modules(&json!({SENSOR: sensor(), "other": merged(sensor(), &change)}))).await;
        let expected = u32::try_from(number).unwrap() + 2;
        edge.engine.until(|| edge.engine.created("other") == expected).await;
        edge.state(|state| state.modules_version == state.deployment.version).await;
    }
    assert_eq!((edge.engine.created(SENSOR), edge.engine.starts(SENSOR)), (1, 1));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_stopped_and_started_by_its_desired_status_in_the_same_container() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    world.deploy(&deployment(&json!({"status": "stopped"}))).await;
    // A container that was made and not started yet is reported as stopped, too.
    let is_stopped = |reported: &Value| {
        let module = &reported["modules"][SENSOR];
        module["status"] == "stopped" && module["runtimeStatus"] == "stopped"
    };
    world.reported("$edgeAgent", is_stopped).await;
    assert_eq!(edge.engine.state(SENSOR), Some(ContainerState::Exited));
    world.deploy(&deployment(&json!({}))).await;
    edge.running(SENSOR).await;
    assert_eq!((edge.engine.created(SENSOR), edge.engine.starts(SENSOR)), (1, 2));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_start_in_their_order() {
    let world = World::new().await;
    let order = |order: u32| merged(sensor(), &json!({"startupOrder": order}));
    world.deploy(&with_modules(&json!({"a": order(2), "b": order(1), "c": order(0), "d": sensor()}))).await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    edge.state(|state| state.modules_version > 0).await;
    assert_eq!(edge.engine.started(), ["c", "b", "a", "d"]);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_container_stays_while_the_new_image_cannot_be_pulled() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    world.deploy(&deployment(&json!({"settings": {"image": "registry.test/missing:1"}}))).await;
    let reported =
        world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 500).await;
    assert_eq!(reported["modules"][SENSOR]["runtimeStatus"], "running");
    assert_eq!((edge.engine.state(SENSOR), edge.engine.starts(SENSOR)), (Some(ContainerState::Running), 1));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_left_is_deleted_from_the_report_and_from_the_hub() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    world.reported("$edgeAgent", |reported| reported["modules"][SENSOR].is_object()).await;
    world.deploy(&with_modules(&json!({}))).await;
    world.reported("$edgeAgent", |reported| reported["modules"].get(SENSOR).is_none()).await;
    let gone = async {
        while world.service.module_twin(DEVICE, SENSOR).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    crate::world::within_limit(gone).await.expect("the identity is deleted");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_too_old_for_the_deployment_is_named() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let patch = json!({"runtime": {"settings": {"minDockerVersion": "v1.99"}}});
    world.service.patch_module_desired(DEVICE, "$edgeAgent", &patch).await.unwrap();
    let reported =
        world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 500).await;
    let expected = "the container engine has version 1.41 of its API, and the deployment needs v1.99";
    assert_eq!(reported["lastDesiredStatus"]["description"], expected);
    let patch = json!({"runtime": {"settings": {"minDockerVersion": "v1.25"}}});
    world.service.patch_module_desired(DEVICE, "$edgeAgent", &patch).await.unwrap();
    world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 200).await;
    assert_eq!(edge.engine.starts(SENSOR), 1);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_deployment_says_of_the_agent_reaches_the_modules() {
    let world = World::new().await;
    let mut content = deployment(&json!({}));
    let desired = &mut content["modulesContent"]["$edgeAgent"]["properties.desired"];
    desired["systemModules"]["edgeAgent"]["env"] =
        json!({"RuntimeLogLevel": {"value": "debug"}, "UpstreamProtocol": {"value": "Mqtt"}});
    world.deploy(&content).await;
    let edge = world.start_edge(TaskEngine::new(&[IMAGE])).await;
    edge.running(SENSOR).await;
    let env = edge.engine.env(SENSOR);
    assert_eq!((env["RuntimeLogLevel"].as_str(), env["UpstreamProtocol"].as_str()), ("Debug", "Mqtt"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_killed_takes_its_modules_up_again_without_the_hub() {
    let (world, edge) = World::with_sensor().await;
    edge.running(SENSOR).await;
    let version = edge.state(|state| state.modules_version > 0).await.modules_version;
    let generation = edge.engine.env(SENSOR)["IOTEDGE_MODULEGENERATIONID"].clone();
    world.https.cut();
    world.mqtt.cut();
    let engine = edge.kill().await;
    assert_eq!(engine.state(SENSOR), Some(ContainerState::Running));
    let edge = world.start_edge(engine).await;
    edge.engine.until(|| edge.engine.starts(SENSOR) == 2).await;
    let state = edge.running(SENSOR).await;
    assert_eq!(state.deployment, ConfigStatus { version, status: 200, description: String::new() });
    assert_eq!(edge.engine.created(SENSOR), 1, "it is the same container");
    assert_eq!(edge.engine.env(SENSOR)["IOTEDGE_MODULEGENERATIONID"], generation);
    let before = {
        world.https.mend();
        world.mqtt.mend();
        world.count().await
    };
    world.telemetry(|messages| messages.len() > before + 2).await;
    edge.state(|state| state.agent == LinkState::Connected).await;
    assert_eq!((edge.engine.created(SENSOR), edge.engine.starts(SENSOR)), (1, 2));
    edge.stop().await;
}
