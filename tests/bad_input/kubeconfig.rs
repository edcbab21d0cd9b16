//! Clusters of the user that cannot be reached, and what is told before they are asked at all.

use crate::support::{Machine, refusal};

/// Nobody listens there.
const SERVER: &str = "https://127.0.0.1:9";

/// A machine with a kubeconfig of the context `lab`, whose user logs in like that, and with settings that name it.
fn machine(user: &str) -> (Machine, String) {
    let machine = Machine::bare();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncontexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n\
         clusters: [{{name: lab, cluster: {{server: {SERVER:?}}}}}]\nusers: [{{name: lab, user: {user}}}]\n"
    );
    let kubeconfig = machine.write("kubeconfig", text);
    let profile = machine.write("kedge.toml", format!("[deploy]\nkubeconfig = {kubeconfig:?}\n"));
    (machine, profile)
}

#[test]
fn an_api_server_that_does_not_answer_is_named_once() {
    let (machine, profile) = machine("{}");
    for command in ["status", "undeploy"] {
        let told = refusal(&mut machine.xtask(&[command, "--context", "lab", "--profile", &profile]), 1);
        let expected = format!(
            "error: the API server of the context `lab`, {SERVER}, does not answer: connection refused\n"
        );
        assert_eq!(told, expected);
    }
}

#[test]
fn credentials_are_looked_at_before_the_cluster_is_asked_and_an_image_pushed() {
    let (machine, profile) = machine("{}");
    let deploy = ["deploy", "--context", "lab", "--image", "r.test/edge", "--profile", &profile];
    for more in [&["--push", "--yes"][..], &["--push", "--dry-run"], &["--dry-run"]] {
        let told = refusal(&mut machine.xtask(&[&deploy[..], more].concat()), 2);
        assert!(told.contains("there are no credentials of a device to deploy"), "{told}");
    }
    let told =
        refusal(&mut machine.xtask(&[&deploy[..], &["--hub", "azure", "--push", "--yes"]].concat()), 3);
    assert!(told.contains("cargo xtask device connection-string --from FILE"), "{told}");
    assert!(machine.is_untouched());
}

#[test]
fn the_login_program_that_is_missing_is_named() {
    let exec =
        "{exec: {apiVersion: client.authentication.k8s.io/v1, command: kubelogin, interactiveMode: Never}}";
    let (machine, profile) = machine(exec);
    let told = refusal(&mut machine.xtask(&["status", "--context", "lab", "--profile", &profile]), 1);
    let expected = "the program, `kubelogin`, by which the kubeconfig logs in is not here";
    assert!(told.contains(expected) && told.contains("az aks install-cli"), "{told}");
}
