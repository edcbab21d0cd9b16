//! What deploying would change, object by object: computed by the API server, shown, and then carried out.

use std::fmt;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};

use super::facts::NamespaceFacts;
use super::is_made_by_deploy;
use crate::cluster::apply::{Compared, compare};
use crate::cluster::confinement::{remove_profiles, superfluous_profiles};
use crate::cluster::diff::Difference;
use crate::cluster::manifests::{CONTAINER, Object, PROFILES, PULL_SECRET};
use crate::cluster::refusal::Refusal;
use crate::cluster::rollout::Rollout;
use crate::cluster::{self, Refused, fine_when_gone, plainly};
use crate::engine::Foreign;

/// The API server cannot do what is asked of an object as it is.
const UNPROCESSABLE: u16 = 422;
const FORBIDDEN: u16 = 403;

/// What deploying would change.
#[derive(Debug, Default)]
pub struct Changes(Vec<Row>);

#[derive(Debug)]
struct Row {
    title: String,
    is_secret: bool,
    change: Change,
    /// What is to be applied; none where something goes.
    object: Option<Object>,
}

#[derive(Debug)]
enum Change {
    Nothing,
    Create,
    Update(Vec<Difference>),
    Remove(Superfluous),
}

/// What `deploy` has made before and that is not wanted any longer.
#[derive(Debug, Clone, Copy)]
enum Superfluous {
    Login,
    Profiles,
}

impl Superfluous {
    async fn remove(self, client: &Client, namespace: &str) -> Result<()> {
        match self {
            Self::Login => remove_login(client, namespace).await,
            Self::Profiles => remove_profiles(client, namespace).await,
        }
    }
}

impl Changes {
    /// Asks the API server what applying `objects` would change. A namespace of somebody else stays as it is.
    ///
    /// # Errors
    /// [`Foreign`] when objects of these names are there that `deploy` has not made, unless they are to be taken over,
    /// and when a policy would refuse the pod; else when the API server cannot be asked or would refuse.
    pub async fn look(
        client: &Client,
        objects: &[Object],
        namespace: &NamespaceFacts,
        take_over: bool,
    ) -> Result<Self> {
        let ours = objects.iter().filter(|object| !is_namespace(object) || !namespace.is_foreign());
        let compared = ours.map(|object| async move {
            // In a namespace that is not there, nothing can be compared, nor can it be in the way.
            if !namespace.is_there {
                return Ok(Row::of(object, Compared::absent()));
            }
            compare(client, object)
                .await
                .map(|found| Row::of(object, found))
                .map_err(|error| explain(object, &namespace.name, error))
        });
        let rows = futures_util::future::try_join_all(compared).await?;
        if !take_over {
            refuse_foreign(&rows, &namespace.name)?;
        }
        let mut changes = Self(rows.into_iter().map(|(row, _)| row).collect());
        if namespace.is_there {
            changes.0.extend(superfluous_login(client, objects, &namespace.name).await?);
            let profiles = superfluous_profiles(client, objects, &namespace.name).await?;
            let title = format!("DaemonSet `{PROFILES}`");
            let ours = profiles.filter(is_made_by_deploy);
            changes.0.extend(ours.map(|_| Row::to_remove(title, Superfluous::Profiles)));
            changes.rehearse(client, &namespace.name).await?;
        }
        Ok(changes)
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing would be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|row| matches!(row.change, Change::Nothing))
    }

    /// Tries the pods out in their namespace, where a policy, a quota or a webhook may refuse them. Whatever else is said of
    /// them is seen later, at the real ones.
    async fn rehearse(&self, client: &Client, namespace: &str) -> Result<()> {
        let changed = self.0.iter().filter(|row| !matches!(row.change, Change::Nothing));
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        for pod in changed.filter_map(|row| pod_of(row.object.as_ref()?)) {
            let Err(kube::Error::Api(status)) = api.create(&params, &pod).await else { continue };
            match Refusal::of(&status.message, namespace) {
                // The pod that is there counts against the quota, and goes before the new one comes.
                Some(refusal) if refusal.is_of_quota && self.has_deployment() => {}
                Some(refusal) => return Err(Foreign::at(refusal.to_string()).into()),
                None => {}
            }
        }
        Ok(())
    }

    /// Whether the Deployment is there already.
    fn has_deployment(&self) -> bool {
        let is_deployment = |row: &Row| matches!(row.object, Some(Object::Deployment(_)));
        self.0.iter().any(|row| is_deployment(row) && !matches!(row.change, Change::Create))
    }

    /// Carries them out; what was done. `tell` gets what is waited for meanwhile.
    ///
    /// # Errors
    /// When the API server refuses; the error names the object.
    pub async fn carry_out(
        self,
        client: &Client,
        rollout: &Rollout<'_>,
        tell: impl Fn(&str) + Sync,
    ) -> Result<Vec<String>> {
        let namespace = rollout.namespace;
        let unwell = cluster::unwell_pods(client, namespace).await?;
        let mut done = Vec::new();
        let mut secret_changed = false;
        for row in self.0 {
            match (&row.change, &row.object) {
                (Change::Remove(what), _) => what.remove(client, namespace).await?,
                (Change::Create | Change::Update(_), Some(object)) => {
                    cluster::apply(client, object).await?;
                    rollout.wait_for_profiles(client, object, &tell).await?;
                }
                // An earlier run may have ended before they were there.
                (Change::Nothing, Some(object)) => {
                    rollout.wait_for_profiles(client, object, &tell).await?;
                    continue;
                }
                (Change::Nothing, None) | (_, None) => continue,
            }
            secret_changed |= row.is_secret;
            done.push(row.title);
        }
        if secret_changed {
            // A pod takes its credentials when it starts: one that was not well before may have taken others.
            cluster::restart(client, namespace, &unwell).await?;
        }
        Ok(done)
    }
}

fn is_namespace(object: &Object) -> bool {
    matches!(object, Object::Namespace(_))
}

/// A claim can hardly be changed, and the API server does not say what to do about it.
fn explain(object: &Object, namespace: &str, error: anyhow::Error) -> anyhow::Error {
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<Refused>());
    if let Some(refusal) = refused.and_then(|refused| Refusal::of(&refused.to_string(), namespace)) {
        return Foreign::at(format!("{}: {refusal}", object.title())).into();
    }
    let code = refused.map(|refused| refused.code);
    match (object, code) {
        (Object::PersistentVolumeClaim(_), Some(UNPROCESSABLE | FORBIDDEN)) => error.context(
            "a claim that is there can at most grow, where its storage class allows that; leave `state-size` and \
             `engine-size` as they were, or remove the state first: `cargo xtask undeploy --delete-state`",
        ),
        _ => error,
    }
}

/// A row, and whether it is about an object that somebody else has made.
type Looked = (Row, bool);

impl Row {
    fn to_remove(title: String, what: Superfluous) -> Self {
        Self { title, is_secret: false, change: Change::Remove(what), object: None }
    }

    fn of(object: &Object, compared: Compared) -> Looked {
        let is_foreign = compared.live.as_ref().is_some_and(|live| !is_made_by_deploy(live));
        let change = match (compared.live, compared.differences) {
            (None, _) => Change::Create,
            (Some(_), fields) if fields.is_empty() => Change::Nothing,
            (Some(_), fields) => Change::Update(fields),
        };
        let row = Self {
            title: object.title(),
            is_secret: object.is_secret(),
            change,
            object: Some(object.clone()),
        };
        (row, is_foreign)
    }
}

fn refuse_foreign(rows: &[Looked], namespace: &str) -> Result<(), Foreign> {
    let foreign: Vec<_> =
        rows.iter().filter(|(_, is_foreign)| *is_foreign).map(|(row, _)| row.title.as_str()).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(Foreign::at(format!(
        "`deploy` has not made these in the namespace `{namespace}`, and leaves them alone: {}; choose another `namespace` in \
         [deploy] of the settings, remove them, or let `--take-over` make them its own",
        foreign.join(", ")
    )))
}

/// The pull secret that `deploy` has made before and that is not wanted any longer.
async fn superfluous_login(client: &Client, objects: &[Object], namespace: &str) -> Result<Option<Row>> {
    let deployment = objects.iter().find_map(|object| match object {
        Object::Deployment(deployment) => deployment.spec.as_ref()?.template.spec.as_ref(),
        _ => None,
    });
    if deployment.is_none_or(|pod| pod.image_pull_secrets.is_some()) {
        return Ok(None);
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found =
        api.get_opt(PULL_SECRET).await.map_err(plainly).context("failed to look at the pull secret")?;
    let ours = found.filter(|found| is_made_by_deploy(&found.metadata));
    Ok(ours.map(|_| Row::to_remove(format!("Secret `{PULL_SECRET}`"), Superfluous::Login)))
}

async fn remove_login(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    fine_when_gone(api.delete(PULL_SECRET, &DeleteParams::default()).await)
        .map_err(plainly)
        .context("failed to remove the pull secret")
}

/// The pod that a Deployment or a DaemonSet would make.
fn pod_of(object: &Object) -> Option<Pod> {
    let template = match object {
        Object::Deployment(deployment) => deployment.spec.as_ref()?.template.clone(),
        Object::DaemonSet(daemon_set) => daemon_set.spec.as_ref()?.template.clone(),
        _ => return None,
    };
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.generate_name = Some(format!("{CONTAINER}-rehearsal-"));
    Some(Pod { metadata, spec: template.spec, status: None })
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { title, is_secret, change, .. } in &self.0 {
            match change {
                Change::Nothing => writeln!(f, "= {title}")?,
                Change::Create => writeln!(f, "+ {title}")?,
                Change::Remove(_) => writeln!(f, "- {title}")?,
                Change::Update(fields) => {
                    writeln!(f, "~ {title}")?;
                    for Difference { path, live, wanted } in fields {
                        if *is_secret {
                            writeln!(f, "    {path}: otherwise")?;
                        } else {
                            writeln!(f, "    {path}: {live} -> {wanted}")?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::diff::differences;
    use kube::api::DynamicObject;
    use serde_json::{Value, json};

    fn secret(annotations: &Value) -> (Object, DynamicObject) {
        let metadata =
            json!({ "name": "kedge-credentials", "namespace": "edge", "annotations": annotations });
        let value = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": { "config.toml": "czNjcmV0" } });
        (
            Object::Secret(serde_json::from_value(value.clone()).unwrap()),
            serde_json::from_value(value).unwrap(),
        )
    }

    fn compared(object: &Object, live: DynamicObject) -> Compared {
        let differences = differences(
            &json!({ "data": { "config.toml": "b2xk" } }),
            &json!({ "data": { "config.toml": "czNjcmV0" } }),
        );
        Compared::of(object, live.metadata, differences)
    }

    #[test]
    fn the_values_of_a_secret_are_not_shown() {
        let (object, live) = secret(&json!({ "kedge.io/made-by": "deploy/kedge-credentials" }));
        let (row, is_foreign) = Row::of(&object, compared(&object, live));
        assert!(!is_foreign);
        let changes = Changes(vec![row, Row::of(&object, Compared::absent()).0]);
        let expected =
            "~ Secret `kedge-credentials`\n    .data[config.toml]: otherwise\n+ Secret `kedge-credentials`\n";
        assert_eq!(changes.to_string(), expected);
        assert!(!changes.is_empty() && !format!("{changes:?}").contains("s3cret"));
        assert!(!format!("{changes:?}").contains("czNjcmV0"), "{changes:?}");
    }

    #[test]
    fn what_somebody_else_has_made_is_refused() {
        let (object, live) = secret(&json!({}));
        let error =
            refuse_foreign(&[Row::of(&object, compared(&object, live))], "edge").unwrap_err().to_string();
        assert!(error.contains("Secret `kedge-credentials`") && error.contains("--take-over"), "{error}");
        assert!(refuse_foreign(&[Row::of(&object, Compared::absent())], "edge").is_ok());
    }
}
