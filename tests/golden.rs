//! What is applied to Kubernetes, as text. After a wanted change: `INSTA_UPDATE=always cargo test --test golden`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use kedge_sim::secret::Secret;
use xtask::cluster::manifests::{self, Object, Pull, Tailoring, Values};
use xtask::cluster::render;
use xtask::engine::Login;
use xtask::provisioning::{HUB_CA, SecretFiles};

const SOURCE: &str = include_str!("../manifests/kedgedeployment.yaml");

fn login() -> Login {
    Login { username: "kedge".into(), password: Secret::new("registry-password") }
}

fn files(config: &str) -> SecretFiles {
    SecretFiles::new(&Secret::new(config))
}

fn objects(source: &str) -> anyhow::Result<Vec<Object>> {
    manifests::deployment(
        source,
        &Values {
            namespace: "edge-lab",
            image: "localhost:5001/kedge/edge@sha256:0123",
            pull: Pull::With { registry: "localhost:5001", login: &login() },
            tailoring: None,
            files: &files("hostname = \"kedge-edge\"\n# device-key\n")
                .with(HUB_CA, "-----BEGIN CERTIFICATE-----\n"),
        },
    )
}

#[test]
fn the_deployment_is_rendered_as_it_is_applied() {
    insta::assert_snapshot!(render::documents(&objects(SOURCE).unwrap()).unwrap());
}

#[test]
fn for_a_cluster_of_somebody_else_it_is_tailored() {
    let values = Values {
        namespace: "edge",
        image: "factory.example/kedge/edge@sha256:0123",
        pull: Pull::Without,
        files: &files("hostname = \"kedge-edge\"\n"),
        tailoring: Some(Tailoring {
            storage_class: Some("managed-csi"),
            state_size: "4Gi",
            engine_size: "16Gi",
            cpu: "1",
            memory: "1Gi",
            memory_limit: Some("3Gi"),
        }),
    };
    let objects = manifests::deployment(SOURCE, &values).unwrap();
    insta::assert_snapshot!(render::documents(&objects).unwrap());
}

#[test]
fn the_registry_is_published_as_kep_1755_has_it() {
    let source = include_str!("../manifests/local-registry-hosting.yaml");
    let objects = manifests::local_registry(source, "localhost:5777", &login()).unwrap();
    insta::assert_snapshot!(render::documents(&objects).unwrap());
}

#[test]
fn for_people_the_secrets_are_left_out() {
    let text = render::for_people(&objects(SOURCE).unwrap()).unwrap();
    assert!(text.contains("\n# kind: Secret\n") && !text.contains("\nkind: Secret\n"), "{text}");
    let secrets = ["registry-password", "cmVnaXN0cnktcGFzc3dvcmQ", "device-key", "IyBkZXZpY2Uta2V5"];
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
}

#[test]
fn a_new_credential_changes_the_pod_template() {
    let annotation = |text: &str| {
        let login = login();
        let values = Values {
            namespace: "kedge",
            image: "i",
            pull: Pull::With { registry: "r", login: &login },
            files: &files(text),
            tailoring: None,
        };
        let objects = manifests::deployment(SOURCE, &values).unwrap();
        let deployment = objects.into_iter().find_map(|object| match object {
            Object::Deployment(deployment) => Some(deployment),
            _ => None,
        });
        deployment.unwrap().spec.unwrap().template.metadata.unwrap().annotations.unwrap()
    };
    assert_eq!(annotation("key one"), annotation("key one"));
    assert_ne!(annotation("key one"), annotation("key two"));
}

#[test]
fn a_manifest_that_kubernetes_would_not_take_as_written_is_refused() {
    let broken = |from: &str, to: &str| {
        assert!(SOURCE.contains(from), "{from}");
        format!("{:#}", objects(&SOURCE.replacen(from, to, 1)).unwrap_err())
    };
    assert!(broken("replicas: 1", "replica: 1").contains("unknown field `spec.replica`"));
    assert!(
        broken("kind: Deployment", "kind: StatefulSet")
            .contains("\"StatefulSet\", which KEdge does not apply")
    );
    assert!(broken("- name: edge\n", "- name: other\n").contains("no container `edge`"));
    assert!(broken("name: regcred", "name: pull").contains("no Secret `regcred`"));
    assert!(broken("replicas: 1", "replicas: one").contains("not a valid Deployment"));
}
