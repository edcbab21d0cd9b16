//! The running system, broken in each layer: `verify` names the layer, the cause and what to do.

use std::sync::atomic::{AtomicBool, Ordering};

use kedge_sim::hub::FaultSettings;
use serde_json::{Value, json};

use crate::messages;
use crate::world::{DEVICE, HUB, NAME, World};

#[test]
#[ignore = "needs a container engine"]
fn a_the_edge() {
    let world = World::well();
    // journald does not learn whose words they are of a process that ends at once.
    world.sh("systemd-run --unit=kedge-broken --quiet sh -c 'echo out of order; sleep 1; exit 3'; \
         until systemctl --quiet is-failed kedge-broken.service; do sleep 0.1; done");
    world.verdict("systemd", "kedge-broken.service has failed; it said: out of order", || {
        world.sh("systemctl reset-failed");
    });

    world.sh("systemctl stop docker.socket docker.service");
    world.verdict("inner-engine", "docker.service is stopped", || {
        world.sh("systemctl start docker.service");
    });

    world.sh("systemctl stop aziot-edged.service");
    world.verdict("runtime", "aziot-edged.service is stopped", || {
        world.sh("systemctl start aziot-edged.service");
    });
}

#[test]
#[ignore = "needs a container engine"]
fn b_the_hub_refuses() {
    let world = World::well();
    let service = world.service();
    let disconnect = || world.block_on(service.close_connections()).unwrap();
    world.block_on(service.set_device_enabled(DEVICE, false)).unwrap();
    disconnect();
    world.verdict("agent", "the device `kedge-device` is disabled in the hub", || {
        world.block_on(service.set_device_enabled(DEVICE, true)).unwrap();
    });

    let skew = FaultSettings { clock_skew_secs: 7200, ..FaultSettings::default() };
    world.block_on(service.set_faults(&skew)).unwrap();
    disconnect();
    world.verdict("agent", "the clock of the edge is 7200 s behind that of the hub", || {
        world.block_on(service.clear_faults()).unwrap();
    });
}

#[test]
#[ignore = "needs a container engine"]
fn c_the_way_to_the_hub() {
    let world = World::well();
    let disconnect = || world.block_on(world.service().close_connections()).unwrap();
    world.sh("cp /etc/resolv.conf /tmp/resolv.conf; echo nameserver 127.0.0.9 > /etc/resolv.conf");
    disconnect();
    world.verdict("agent", &format!("the name of the hub, {HUB}, is not known in the edge"), || {
        world.sh("cat /tmp/resolv.conf > /etc/resolv.conf");
    });

    world.heal();
    world.sh("iptables -I OUTPUT -p tcp --dport 8883 -j DROP");
    disconnect();
    world.verdict(
        "agent",
        &format!("port 8883 of the hub {HUB} does not answer the edge: it is blocked"),
        || {
            world.sh("iptables -D OUTPUT -p tcp --dport 8883 -j DROP");
        },
    );

    world.heal();
    // The hub's authority is the one that the entrypoint has added last.
    world.sh(
        "rm -f /usr/local/share/ca-certificates/kedge-hub.crt; update-ca-certificates --fresh >/dev/null 2>&1; \
         systemctl restart aziot-edged.service",
    );
    world.verdict("agent", &format!("the edge does not trust the certificate of the hub {HUB}"), || {
        world.kubectl(&["delete", "pod", "--all", "--wait=true", "--grace-period=5"]);
    });

    world.heal();
    world.engine(&["stop", "--time", "1", &format!("{NAME}-hub")]);
    world.verdict("agent", &format!("the container `{NAME}-hub` of the local hub does not run"), || {});
}

/// Changes the sensor in the deployment of the device in the hub.
fn deploy(world: &World, change: impl FnOnce(&mut Value)) {
    let service = world.service();
    let twin = world.block_on(service.module_twin(DEVICE, "$edgeAgent")).unwrap();
    let mut settings = twin["properties"]["desired"]["modules"]["tempSensor"]["settings"].clone();
    change(&mut settings);
    let patch = json!({ "modules": { "tempSensor": { "settings": settings } } });
    world.block_on(service.patch_module_desired(DEVICE, "$edgeAgent", &patch)).unwrap();
}

#[test]
#[ignore = "needs a container engine"]
fn d_the_module() {
    let world = World::well();
    deploy(world, |settings| {
        let image = settings["image"].as_str().unwrap().split('@').next().unwrap().to_owned();
        settings["image"] = format!("{image}:missing").into();
    });
    world.verdict("module", "tempSensor: cannot pull", || {});
    world.heal();

    deploy(world, |settings| settings["createOptions"] = r#"{"Env":["machineTempMin=cold"]}"#.into());
    world.verdict("module", "tempSensor is backoff", || {});
    world.heal();

    // No new image finds room.
    world.sh("mount -t tmpfs -o size=16k full /var/lib/docker/tmp");
    world.sh("docker rm --force tempSensor; docker image prune --all --force");
    world.verdict("module", "no space left on device", || {
        // The runtime tries again by itself, after a while.
        world.sh("umount --lazy /var/lib/docker/tmp; systemctl restart aziot-edged.service");
    });
}

#[test]
#[ignore = "needs a container engine"]
fn e_the_gateway() {
    let world = World::well();
    world.sh(
        "cd /tmp && openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 1 -subj /CN=other 2>/dev/null; \
         systemd-run --quiet --unit=kedge-other openssl s_server -www -accept 9999 -cert /tmp/other.pem -key /tmp/other.key; \
         iptables -t nat -I PREROUTING -p tcp --dport 8883 -j REDIRECT --to-ports 9999; \
         iptables -t nat -I OUTPUT -p tcp -d 127.0.0.1 --dport 8883 -j REDIRECT --to-ports 9999; \
         docker restart tempSensor",
    );
    world.verdict("gateway", "modules refuse the certificate of the gateway", || {
        world.sh("iptables -t nat -D PREROUTING -p tcp --dport 8883 -j REDIRECT --to-ports 9999; \
             iptables -t nat -D OUTPUT -p tcp -d 127.0.0.1 --dport 8883 -j REDIRECT --to-ports 9999; \
             systemctl stop kedge-other.service; systemctl reset-failed");
    });
}

#[test]
#[ignore = "needs a container engine"]
fn f_the_telemetry() {
    let world = World::well();
    let service = world.service();
    let send = |on: bool| {
        let desired = json!({ "SendData": on });
        world.block_on(service.patch_module_desired(DEVICE, "tempSensor", &desired)).unwrap();
    };
    send(false);
    world.verdict("hub", "kedge-device/tempSensor is connected, and has sent nothing", || {});

    let other = world.block_on(messages::Sender::device(&service, "somebody-else"));
    while_sending(
        world,
        || world.block_on(other.send(1)),
        || {
            world.verdict("hub", "nothing has come of kedge-device/tempSensor, but of somebody-else", || {});
        },
    );
    let sensor = world.block_on(messages::Sender::module(DEVICE, "tempSensor"));
    let number = std::sync::atomic::AtomicU64::new(0);
    // Every other message is lost.
    let next = || world.block_on(sensor.send(number.fetch_add(2, Ordering::Relaxed) + 1));
    while_sending(world, next, || world.verdict("hub", "messages were lost", || {}));
    send(true);
}

/// Sends messages for as long as `check` takes, also when that fails.
fn while_sending(world: &World, send: impl Fn() + Sync, check: impl FnOnce()) {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                send();
                world.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(300)).await });
            }
        });
        check();
    });
}

#[test]
#[ignore = "needs a container engine"]
fn g_the_pod() {
    let world = World::well();
    let edge = |what: &str| world.patch_pod(&format!(r#"{{"containers":[{{"name":"edge",{what}}}]}}"#));
    edge(&format!(r#""image":"{}""#, world.image("missing")));
    world.verdict("pod", "missing", || {});
    world.heal();

    world.patch_pod(r#"{"nodeSelector":{"kubernetes.io/os":"plan9"}}"#);
    world.verdict("pod", "nodes are available", || {
        world.patch_pod(r#"{"nodeSelector":{"kubernetes.io/os":"linux"}}"#);
    });

    edge(r#""command":["sh","-c","echo broken; exit 9"]"#);
    world.verdict("pod", "ended with code 9", || {});
    world.heal();

    edge(r#""resources":{"limits":{"memory":"20Mi"},"requests":{"memory":"20Mi"}}"#);
    world.verdict("pod", "OOMKilled", || {});
    world.heal();
}

#[test]
#[ignore = "needs a container engine"]
fn h_the_node_and_the_registry() {
    let world = World::well();
    let node = format!("{NAME}-control-plane");
    world.engine(&["pause", &node]);
    world.verdict("node", "the API server does not answer", || world.engine(&["unpause", &node]));
    world.heal();
    let deployment = || world.kubectl(&["get", "deployment", "kedge", "--output=jsonpath={.metadata.uid}"]);
    let before = deployment();
    world.engine(&["kill", &node]);
    world.verdict("node", &format!("the container `{node}` of the node does not run"), || {});
    assert!(world.succeed("plan").contains(&format!("{node} has stopped: it is started")));
    world.heal();
    assert_eq!(deployment(), before, "the cluster was made anew");

    let pull_anew = || {
        world.kubectl(&["scale", "deployment", "kedge", "--replicas=0"]);
        world.kubectl(&["wait", "--for=delete", "pod", "--all", "--timeout=120s"]);
        world.engine(&["exec", &node, "sh", "-c", FORGET_THE_EDGE]);
        world.kubectl(&["scale", "deployment", "kedge", "--replicas=1"]);
    };
    let registry = format!("{NAME}-registry");
    world.engine(&["stop", "--time", "1", &registry]);
    pull_anew();
    world.verdict("pod", &format!("the container `{registry}` of the local registry does not run"), || {});
    world.heal();

    let login = r#"{"auths":{"localhost":{"auth":"bm9ib2R5Om5vdGhpbmc="}}}"#
        .replace("localhost", world.image("").split('/').next().unwrap());
    let secret = json!({ "stringData": { ".dockerconfigjson": login } }).to_string();
    world.kubectl(&["patch", "secret", "regcred", "--patch", &secret]);
    pull_anew();
    world.verdict("pod", "401 Unauthorized", || {});
    world.heal();
}

/// Removes the image of the edge from the node, so that it is pulled anew.
const FORGET_THE_EDGE: &str =
    "ctr --namespace k8s.io images ls --quiet | grep /kedge/edge | xargs ctr --namespace k8s.io images rm";

#[test]
#[ignore = "needs a container engine"]
fn i_while_the_edge_comes_up() {
    let world = World::well();
    let connection =
        format!("HostName={HUB};DeviceId={DEVICE};SharedAccessKey=d3Jvbmcga2V5IHdyb25nIGtleSB3cm9uZyBrZXk=");
    let file = world.write("wrong.txt", &connection);
    world.succeed(&format!("device connection-string --from {}", file.display()));
    let told = world.fails("up --yes");
    world.succeed("device remove");
    assert_eq!((told.code, told.layer.as_str()), (5, "agent"), "{told:?}");
    assert!(told.cause.contains("the hub refuses the credentials of the device"), "{told:?}");
    assert!(!told.text.contains("d3Jvbmcga2V5"), "the key is told");
    world.heal();
}

/// A pod that is deleted takes its time, and the next one has the same volumes.
#[test]
#[ignore = "needs a container engine"]
fn j_two_pods_never_have_one_volume() {
    let world = World::well();
    let stubborn = "--property=TimeoutStopSec=8 --property=After=kedge-volumes.service --unit=kedge-stubborn";
    world.sh(&format!("systemd-run --quiet {stubborn} sh -c 'trap : TERM; while :; do sleep 1; done'"));
    world.kubectl(&["delete", "pod", "--all", "--wait=false"]);
    world.heal();
    let console = world.kubectl(&["logs", "deployment/kedge"]);
    assert!(console.contains("another pod has the volumes of the edge, and ends"), "{console}");
    world.succeed("verify");
}

#[test]
#[ignore = "needs a container engine"]
fn k_the_telemetry_goes_on_after_every_fault() {
    let world = World::well();
    let told = world.succeed("chaos --yes");
    let table = told.lines().skip_while(|line| !line.starts_with("FAULT")).skip(1);
    let faults: Vec<_> =
        table.map_while(|line| line.split_once(' ')).map(|(fault, _)| fault).take(7).collect();
    let all = [
        "module-killed",
        "edge-killed",
        "engine-killed",
        "pod-deleted",
        "node-restarted",
        "hub-restarted",
        "registry-stopped",
    ];
    assert_eq!(faults, all);
    assert!(told.contains("after each of 7 faults, without a gap"), "{told}");
}

#[test]
#[ignore = "needs a container engine"]
fn z_everything_is_removed() {
    World::well().end();
}
