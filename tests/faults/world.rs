//! One deployment in which everything is broken in turn, and how it is asked for the reason.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use kedge_sim::service::ServiceClient;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::deployment::Deployment;
use crate::harness::{engine, in_edge, project, service};

pub(crate) const NAME: &str = "kedge-faults";
pub(crate) const HUB: &str = "hub.faults.test";
pub(crate) const DEVICE: &str = "kedge-device";

/// The deployment; it is made for the first test that needs it, and the last one removes it.
pub(crate) struct World {
    deployment: Deployment,
    runtime: Runtime,
}

/// What a failed command has told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) layer: String,
    pub(crate) cause: String,
    pub(crate) next: String,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let settings = format!("[hub]\nhost-name = {HUB:?}\n[verify]\nmessages = 3\n");
    let world = World { deployment: Deployment::named(NAME, &settings), runtime: Runtime::new().unwrap() };
    world.deployment.succeed("device remove");
    world
});

impl World {
    /// The deployment, well.
    pub(crate) fn well() -> &'static Self {
        let world = &*WORLD;
        world.heal();
        world
    }

    /// Brings back what is not as it is described.
    pub(crate) fn heal(&self) {
        self.deployment.succeed("up --yes");
        self.deployment.succeed("hub");
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.deployment.path(name);
        fs_err::write(&path, text).unwrap();
        path
    }

    pub(crate) fn succeed(&self, command: &str) -> String {
        self.deployment.succeed(command)
    }

    /// The image of the edge in the local registry, by this tag.
    pub(crate) fn image(&self, tag: &str) -> String {
        format!("localhost:{}/kedge/edge:{tag}", self.deployment.port)
    }

    /// Runs a command that has to fail, and takes its report apart.
    pub(crate) fn fails(&self, command: &str) -> Told {
        let began = Instant::now();
        let (code, text) = self.deployment.xtask(command);
        assert_ne!(code, 0, "cargo xtask {command} found nothing wrong");
        let path = text.lines().find_map(|line| line.strip_prefix("report: "));
        let report = path.map(|path| fs_err::read_to_string(project().join(path)).unwrap());
        let report: Value = serde_json::from_str(&report.unwrap_or_else(|| "{}".into())).unwrap();
        let field = |name: &str| report["verdict"][name].as_str().unwrap_or_default().to_owned();
        let told = Told { code, text, layer: field("layer"), cause: field("cause"), next: field("next") };
        println!(
            "verdict after {:.1} s, code {}: {}: {} => {}",
            began.elapsed().as_secs_f64(),
            told.code,
            told.layer,
            told.cause,
            told.next
        );
        assert!(told.next.split(' ').count() > 2, "it is not told what to do: {told:?}");
        told
    }

    /// `verify` has to name this layer and a cause with these words; what was broken is mended before that is judged.
    pub(crate) fn verdict(&self, layer: &str, words: &str, mend: impl FnOnce()) {
        let told = self.fails("verify");
        mend();
        assert_eq!((told.code, told.layer.as_str()), (5, layer), "{told:?}");
        assert!(told.cause.contains(words), "`{words}` is not in: {}", told.cause);
    }

    /// Runs a shell script in the edge.
    pub(crate) fn sh(&self, script: &str) -> String {
        in_edge(NAME, &["sh", "-c", script])
    }

    /// Runs kubectl, which the node has.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let node = format!("{NAME}-control-plane");
        let kubectl =
            ["exec", &node, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--namespace=kedge"];
        engine(&[&kubectl[..], args].concat())
    }

    /// Adds to the Deployment's pod.
    pub(crate) fn patch_pod(&self, spec: &str) {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{spec}}}}}}}"#);
        self.kubectl(&["patch", "deployment", "kedge", "--patch", &patch]);
    }

    pub(crate) fn engine(&self, args: &[&str]) {
        engine(args);
    }

    pub(crate) fn service(&self) -> ServiceClient {
        service(&self.deployment.state(), HUB)
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Removes everything.
    pub(crate) fn end(&self) {
        self.deployment.succeed("down");
        self.deployment.nothing_is_left();
    }
}
