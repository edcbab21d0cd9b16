//! The Kubernetes manifests, by the same reader that applies them.

use kedge_sim::secret::Secret;

use super::yaml;
use crate::cluster::manifests::{self, Confinement, Pull, Values};
use crate::engine::Login;
use crate::problems::{Collector, Problem};
use crate::provisioning::SecretFiles;
use crate::tier::Tier;

/// Tells what is wrong with `manifests/kedgedeployment.yaml`.
pub(super) fn deployment(file: &str, text: &str) -> Vec<Problem> {
    check(file, text, |text| {
        let login = Login { username: String::new(), password: Secret::new("") };
        let files = SecretFiles::new(&Secret::new(""));
        // What is filled in does not matter: whether it can be filled in does.
        let values = Values {
            namespace: "kedge",
            image: "kedge",
            pull: Pull::With { registry: "kedge", login: &login },
            files: &files,
            tailoring: None,
            confinement: Confinement::NONE,
        };
        manifests::deployment(text, &values)?;
        anyhow::ensure!(
            manifests::pod_host_name(text).is_some(),
            "the pod has no `hostname`; it is the name of the device's gateway, and is the same for every new pod"
        );
        Ok(())
    })
}

/// Tells what is wrong with `manifests/profiles.yaml`.
pub(super) fn profiles(file: &str, text: &str) -> Vec<Problem> {
    let files = SecretFiles::new(&Secret::new(""));
    check(file, text, |text| {
        let confinement = Confinement { tier: Tier::Confined, profiles: text, ..Confinement::NONE };
        let values = Values {
            namespace: "kedge",
            image: "kedge",
            pull: Pull::AsBefore,
            files: &files,
            tailoring: None,
            confinement,
        };
        manifests::profiles(&values).map(drop)
    })
}

/// Tells what is wrong with `manifests/local-registry-hosting.yaml`.
pub(super) fn local_registry(file: &str, text: &str) -> Vec<Problem> {
    let login = Login { username: String::new(), password: Secret::new("") };
    check(file, text, |text| manifests::local_registry(text, "localhost:5001", &login).map(drop))
}

fn check(file: &str, text: &str, is_complete: impl Fn(&str) -> anyhow::Result<()>) -> Vec<Problem> {
    let mut problems = Collector::new(file, text);
    let documents = yaml::parse(text, &mut problems);
    let mistakes = manifests::mistakes(text);
    for mistake in &mistakes {
        let at = documents.get(mistake.document).map(|document| document.place(&mistake.path));
        problems.push(at, mistake.text.clone());
    }
    if mistakes.is_empty()
        && let Err(error) = is_complete(text)
    {
        problems.push(None, format!("{error:#}"));
    }
    problems.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = include_str!("../../../manifests/kedgedeployment.yaml");

    fn with(from: &str, to: &str) -> Vec<String> {
        assert!(SOURCE.contains(from), "{from}");
        deployment("m.yaml", &SOURCE.replacen(from, to, 1)).iter().map(ToString::to_string).collect()
    }

    fn line(text: &str) -> usize {
        SOURCE.lines().position(|line| line.contains(text)).unwrap() + 1
    }

    #[test]
    fn the_manifests_of_the_repository_are_fine() {
        assert_eq!(deployment("m.yaml", SOURCE), []);
        let source = include_str!("../../../manifests/local-registry-hosting.yaml");
        assert_eq!(local_registry("l.yaml", source), []);
        assert_eq!(profiles("p.yaml", include_str!("../../../manifests/profiles.yaml")), []);
        assert!(
            profiles("p.yaml", source)[0].to_string().contains("has to have the DaemonSet `kedge-profiles`")
        );
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        let replicas = line("replicas: 1");
        let cases = [
            (
                "replicas: 1",
                "replica: 1",
                format!("m.yaml:{replicas}:3: not a valid Deployment: unknown field"),
            ),
            (
                "replicas: 1",
                "replicas: one",
                format!("m.yaml:{replicas}:3: not a valid Deployment: `spec.replicas`"),
            ),
            ("privileged: true", "privilege: true", format!("m.yaml:{}:13:", line("privileged: true"))),
            (
                "kind: Deployment",
                "kind: StatefulSet",
                format!("m.yaml:{}:1: the kind is", line("kind: Deployment")),
            ),
            (
                "replicas: 1",
                "replicas: 1\n  replicas: 2",
                format!("m.yaml:{}:3: `replicas` stands twice", replicas + 1),
            ),
            ("- name: edge\n", "- name: other\n", "m.yaml: the Deployment has no container `edge`".into()),
            ("name: regcred", "name: pull", "has no Secret `regcred`".into()),
            ("hostname: kedge-edge", "subdomain: x", "the pod has no `hostname`".into()),
            ("replicas: 1", "replicas: [", "not YAML".into()),
        ];
        for (from, to, expected) in cases {
            let problems = with(from, to);
            assert!(problems.iter().any(|problem| problem.contains(&expected)), "{to}: {problems:#?}");
        }
    }

    #[test]
    fn several_mistakes_are_told_together_and_no_secret_is_shown() {
        let source =
            SOURCE.replacen("data: {}", "data: s3cret", 1).replacen("replicas: 1", "replica: 1\n  x: 1", 1);
        let problems: Vec<_> = deployment("m.yaml", &source).iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(!problems.join("\n").contains("s3cret"), "{problems:#?}");
    }
}
