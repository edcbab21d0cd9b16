//! A run that is killed, stopped or robbed of its engine at any moment leaves nothing that `down` does not remove, and
//! nothing of anybody else's is touched.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::bundle::{Bundle, secrets_of};
use crate::deployment::{Deployment, NAME, named};
use crate::harness::{engine, engine_output, is_podman, newest_run};

/// Every step that does something when the images are there already, and how long after its beginning it is struck.
const MOMENTS: [(&str, u64); 18] = [
    ("network", 0),
    ("registry", 0),
    ("registry", 300),
    ("hub", 0),
    ("hub", 300),
    ("cluster", 0),
    ("cluster", 1000),
    ("cluster", 3000),
    ("cluster", 10_000),
    ("push-edge", 0),
    ("push-sensor", 0),
    ("device", 0),
    ("wiring", 0),
    ("deploy", 0),
    ("pod", 0),
    ("telemetry", 0),
    ("down", 0),
    ("down", 500),
];

#[test]
#[ignore = "needs a container engine"]
fn a_run_that_is_killed_at_any_step_is_removed_by_down() {
    let deployment = Deployment::new();
    // With everything built, each run is short.
    deployment.succeed("e2e --yes");
    for (step, after) in MOMENTS {
        eprintln!("killed {after} ms after the beginning of {step}");
        let mut run = deployment.start("e2e --yes");
        run.wait_for_step(step, Duration::from_millis(after));
        run.kill();
        deployment.succeed("down");
        deployment.nothing_is_left();
    }
    deployment.succeed("e2e --yes");
    deployment.nothing_is_left();
}

#[test]
#[ignore = "needs a container engine"]
fn a_run_that_is_stopped_collects_cleans_up_and_says_so() {
    let deployment = Deployment::new();
    let mut run = deployment.start("e2e --yes");
    run.wait_for_step("cluster", Duration::from_secs(5));
    let secrets = secrets_of(&deployment.state());
    // Meanwhile nobody else changes anything.
    let (code, told) = deployment.xtask("down");
    assert_eq!(code, 6, "{told}");
    assert!(told.contains(&format!("process {}, `cargo xtask e2e --yes", run.pid())), "{told}");

    run.interrupt();
    assert_eq!(run.end().code(), Some(130), "{}", run.told());
    let told = run.told();
    assert!(told.contains("stopping; press Ctrl-C again") && told.contains("stopped by the user"), "{told}");
    deployment.nothing_is_left();
    assert!(told.contains("bundle: target/kedge/runs/"), "{told}");
    let bundle = Bundle::of(&newest_run());
    bundle.has(&["report.json", "evidence/machine.json", "evidence/engine/containers.json", "cluster.log"]);
    bundle.has_none_of(&secrets);
}

#[test]
#[ignore = "needs a container engine"]
fn a_run_that_is_stopped_twice_ends_at_once() {
    let deployment = Deployment::new();
    let mut run = deployment.start("e2e --yes");
    run.wait_for_step("cluster", Duration::from_secs(5));
    run.interrupt();
    run.wait_until_told("the answer to Ctrl-C", |line| line.starts_with("stopping;"));
    let pressed = Instant::now();
    run.interrupt();
    assert_eq!(run.end().code(), Some(130));
    assert!(pressed.elapsed() < Duration::from_secs(1), "{:?}", pressed.elapsed());
    deployment.succeed("down");
    deployment.nothing_is_left();
}

#[test]
#[ignore = "needs a container engine"]
fn what_has_a_similar_name_survives_down_and_all_of_ours_goes_without_the_state() {
    let deployment = Deployment::new();
    let mut run = deployment.start("e2e --yes");
    run.wait_for_step("cluster", Duration::from_secs(10));
    run.kill();
    let made = named(NAME);
    assert!(made.len() > 3, "the run has made too little: {made:#?}");
    let foreign = Foreign::make();
    fs_err::remove_dir_all(deployment.state()).unwrap();
    deployment.succeed("down");
    let mut left = named(NAME);
    for name in &foreign.names {
        let at = left.iter().position(|line| line.split(' ').nth(1) == Some(name));
        left.remove(at.unwrap_or_else(|| panic!("{name} is gone")));
    }
    assert!(left.is_empty(), "left: {left:#?}");
    drop(foreign);
    deployment.nothing_is_left();
}

/// Things of somebody else, gone when the test ends.
struct Foreign {
    names: Vec<String>,
}

impl Foreign {
    fn make() -> Self {
        let name = |end: &str| format!("{NAME}{end}");
        let (network, data, node_data) = (name("2"), name("-hub-data"), name("-of-a-node"));
        let ends = ["x-hub", "-hub2", "-control-plane2", "2-control-plane", "2-hub", "-node"];
        let mut names: Vec<_> = ends.map(name).to_vec();
        names.extend([&data, &node_data, &network].map(Clone::clone));
        let foreign = Self { names };
        engine(&["network", "create", &network]);
        engine(&["volume", "create", &data]);
        let container = |end: &str, more: &[&str]| {
            engine(&[&["create", "--name", &name(end)], more, &["localhost/kedge/probe:1"]].concat());
        };
        container("x-hub", &[]);
        container("-hub2", &[]);
        container("-control-plane2", &[]);
        // Another deployment, and its cluster.
        container("2-hub", &["--label", &format!("io.kedge.owner={network}")]);
        let kind = format!("io.x-k8s.kind.cluster={network}");
        container("2-control-plane", &["--network", &network, "--label", &kind]);
        // A cluster of our name which is not ours, for it is on another network.
        engine(&["volume", "create", "--label", &format!("{NAME}-control-plane=true"), &node_data]);
        let (kind, volume) = (format!("io.x-k8s.kind.cluster={NAME}"), format!("{node_data}:/var"));
        container("-node", &["--network", &network, "--label", &kind, "--volume", &volume]);
        foreign
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for name in &self.names {
            engine_output(&["rm", "--force", name]);
            engine_output(&["volume", "rm", name]);
        }
        engine_output(&["network", "rm", &format!("{NAME}2")]);
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_run_that_loses_its_engine_says_so_within_seconds_and_leaves_nothing() {
    if !is_podman() {
        return eprintln!(
            "not tested: the loss of the engine, for Docker serves others as well and is not ours to end"
        );
    }
    let deployment = Deployment::new();
    for step in ["cluster", "pod"] {
        let mut run = deployment.start("e2e --yes");
        run.wait_for_step(step, Duration::from_secs(2));
        kill_process(run.engine_service().unwrap(), Signal::KILL).unwrap();
        let killed = Instant::now();
        run.wait_until_told("the loss of the engine", |line| line.contains("the engine has gone"));
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
        let status = run.end();
        let told = run.told();
        assert_eq!(status.code(), Some(5), "{told}");
        assert!(told.contains("the layer `engine` is broken: Podman's service has ended"), "{told}");
        // With another service, the run has cleaned up after itself.
        deployment.nothing_is_left();
    }
    // Podman remembers nothing of it either.
    deployment.succeed("e2e --yes");
    deployment.nothing_is_left();
}
