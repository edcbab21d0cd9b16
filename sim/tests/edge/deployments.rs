//! Deployments: applied, changed, refused.

use kedge_sim::edge::planner::ContainerState;
use serde_json::json;

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
    let patch = json!({"modules": {SENSOR: {"restartPolicy": "sometimes"}}});
    world.service.patch_module_desired(DEVICE, "$edgeAgent", &patch).await.unwrap();
    let reported =
        world.reported("$edgeAgent", |reported| reported["lastDesiredStatus"]["code"] == 400).await;
    let description = reported["lastDesiredStatus"]["description"].as_str().unwrap();
    assert!(description.contains("sometimes"), "{description}");
    assert_eq!((edge.engine.starts(SENSOR), edge.engine.state(SENSOR)), (1, Some(ContainerState::Running)));
    let schema = json!({"schemaVersion": "7.0"});
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
    let patch = json!({"routes": {"inner": "FROM /* INTO BrokeredEndpoint(\"/modules/a/inputs/b\")"}});
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
