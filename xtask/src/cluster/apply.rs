//! Objects on the API server: applied server-side, and compared with what applying them would give. Applying leaves what
//! others have added, a variable of the container for example; in a pod template that is taken away again.

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::diff::{Difference, differences, differences_at};
use super::manifests::Object;
use super::plainly;

/// The name under which the API server records what this tool owns.
const FIELD_MANAGER: &str = "kedge";
/// Where a Deployment says what its pod is made of.
const POD: &str = "/spec/template/spec";

/// Applies an object server-side, as the owner of all fields that it sets.
///
/// # Errors
/// When the API server refuses; the error names the object.
pub async fn apply(client: &Client, object: &Object) -> Result<()> {
    remove_additions(client, object)
        .await
        .with_context(|| format!("failed to remove what others have added to {}", object.title()))?;
    let params = PatchParams::apply(FIELD_MANAGER).force();
    patch(client, object, &params)
        .await
        .map(drop)
        .map_err(plainly)
        .with_context(|| format!("failed to apply {}", object.title()))
}

/// In which objects, and at which field, the API server holds something else than was wanted: one sentence for each
/// such object. Nothing is changed: the API server computes what applying would give, with all defaults filled in.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn drifts(client: &Client, objects: &[Object]) -> Result<Vec<String>> {
    let drifts = objects.iter().map(|object| drift(client, object));
    Ok(futures_util::future::try_join_all(drifts).await?.into_iter().flatten().collect())
}

/// How one object differs; nothing when it is as it is wanted.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn drift(client: &Client, object: &Object) -> Result<Option<String>> {
    let title = object.title();
    let compared = compare(client, object).await?;
    if compared.live.is_none() {
        return Ok(Some(format!("{title} is not there")));
    }
    Ok(compared.differences.first().map(|found| {
        if object.is_secret() {
            format!("{title}: {} is otherwise", found.path)
        } else {
            format!("{title}: {} is {}, not {}", found.path, found.live, found.wanted)
        }
    }))
}

/// An object as the API server holds it, and what applying would change in it.
#[derive(Debug)]
pub struct Compared {
    /// What the object is called and carries, if it is there.
    pub live: Option<ObjectMeta>,
    /// The fields that would become others; none when it is not there.
    pub differences: Vec<Difference>,
}

impl Compared {
    /// What is there, and how it differs; the values of a Secret are left out.
    #[must_use]
    pub fn of(object: &Object, live: ObjectMeta, mut differences: Vec<Difference>) -> Self {
        if object.is_secret() {
            for difference in &mut differences {
                (difference.live, difference.wanted) = ("[redacted]".into(), "[redacted]".into());
            }
        }
        Self { live: Some(live), differences }
    }

    /// What is not there.
    #[must_use]
    pub fn absent() -> Self {
        Self { live: None, differences: Vec::new() }
    }
}

/// Compares what the API server holds with what applying would give; nothing is changed. One that is not there is tried
/// out as well where that is possible, so that a refusal is told beforehand.
///
/// # Errors
/// When the API server cannot be asked, or would refuse.
pub async fn compare(client: &Client, object: &Object) -> Result<Compared> {
    let asked = || format!("failed to look at {}", object.title());
    let live = get(client, object).await.with_context(asked)?;
    let applied = match patch(client, object, &rehearsal()).await {
        Ok(applied) => applied,
        Err(kube::Error::Api(status)) if live.is_some() && contradicts(object, &status) => {
            replaced(client, object).await.map_err(plainly).with_context(asked)?
        }
        // Its namespace is not there either.
        Err(kube::Error::Api(status)) if live.is_none() && status.is_not_found() => {
            return Ok(Compared::absent());
        }
        Err(error) => return Err(plainly(error)).with_context(asked),
    };
    let Some(live) = live else { return Ok(Compared::absent()) };
    let (present, applied) = (serde_json::to_value(&live)?, serde_json::to_value(applied)?);
    let mut found = differences(&present, &applied);
    if matches!(object, Object::Deployment(_)) {
        for addition in additions(client, object, &applied).await.with_context(asked)? {
            if found.iter().all(|known| known.path != addition.path) {
                found.push(addition);
            }
        }
    }
    Ok(Compared::of(object, live.metadata, found))
}

/// Applies, and changes nothing.
fn rehearsal() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).force() }
}

/// Whether what others have added to a pod template contradicts what is wanted: a limit that is less than the request, for
/// example. Since it is taken away, that is no reason to give up.
fn contradicts(object: &Object, refusal: &kube::core::Status) -> bool {
    matches!(object, Object::Deployment(_)) && refusal.reason == "Invalid"
}

/// What an object that is there would be if nobody else had ever changed it.
async fn replaced(client: &Client, object: &Object) -> kube::Result<DynamicObject> {
    let params = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.into()) };
    let of_serde = kube::Error::SerdeError;
    let wanted = serde_json::to_value(object).and_then(serde_json::from_value).map_err(of_serde)?;
    api(client, object).replace(object.name().unwrap_or_default(), &params, &wanted).await
}

/// What the pod template of a Deployment still has of others after it was applied.
async fn additions(client: &Client, object: &Object, applied: &Value) -> Result<Vec<Difference>> {
    let alone = serde_json::to_value(replaced(client, object).await?)?;
    Ok(foreign_parts(applied, &alone))
}

fn foreign_parts(applied: &Value, alone: &Value) -> Vec<Difference> {
    let pod = |deployment: &Value| deployment.pointer(POD).cloned().unwrap_or_default();
    differences_at(&POD.replace('/', "."), &pod(applied), &pod(alone))
}

/// Makes the whole pod template what it is to be, where applying would leave something that others have added.
async fn remove_additions(client: &Client, object: &Object) -> Result<()> {
    let Object::Deployment(deployment) = object else { return Ok(()) };
    if get(client, object).await?.is_none() {
        return Ok(());
    }
    match patch(client, object, &rehearsal()).await {
        Ok(applied) if additions(client, object, &serde_json::to_value(&applied)?).await?.is_empty() => {
            return Ok(());
        }
        Ok(_) => {}
        Err(kube::Error::Api(status)) if contradicts(object, &status) => {}
        Err(error) => return Err(error.into()),
    }
    let name = deployment.metadata.name.as_deref().context("the object has no name")?;
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Strategic(whole_template(deployment)?);
    api(client, object).patch(name, &params, &patch).await?;
    Ok(())
}

/// A patch that replaces the template rather than merging it, so that nothing of the old one stays.
fn whole_template(deployment: &Deployment) -> Result<Value> {
    let mut template = serde_json::to_value(deployment.spec.as_ref().map(|spec| &spec.template))?;
    template["$patch"] = "replace".into();
    Ok(json!({ "spec": { "template": template } }))
}

async fn get(client: &Client, object: &Object) -> Result<Option<DynamicObject>> {
    let name = object.name().context("the object has no name")?;
    api(client, object).get_opt(name).await.map_err(plainly)
}

async fn patch(client: &Client, object: &Object, params: &PatchParams) -> kube::Result<DynamicObject> {
    api(client, object).patch(object.name().unwrap_or_default(), params, &Patch::Apply(object)).await
}

/// Untyped, so that no field is lost that only a newer API server knows.
fn api(client: &Client, object: &Object) -> Api<DynamicObject> {
    fn of<K: kube::Resource<DynamicType = ()>>(_: &K) -> ApiResource {
        ApiResource::erase::<K>(&())
    }
    let resource = match object {
        Object::Namespace(it) => return Api::all_with(client.clone(), &of(it)),
        Object::Secret(it) => of(it),
        Object::ConfigMap(it) => of(it),
        Object::DaemonSet(it) => of(&**it),
        Object::ServiceAccount(it) => of(it),
        Object::PersistentVolumeClaim(it) => of(&**it),
        Object::Service(it) => of(&**it),
        Object::Deployment(it) => of(&**it),
    };
    Api::namespaced_with(client.clone(), object.namespace().unwrap_or("default"), &resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_have_added_to_the_pod_is_found_and_replaced() {
        let deployment = |container: Value| {
            let template =
                json!({ "metadata": { "annotations": { "a": "b" } }, "spec": { "containers": [container] } });
            json!({ "metadata": { "name": "kedge" }, "spec": { "selector": {}, "template": template } })
        };
        let alone = deployment(json!({ "name": "edge" }));
        let mut applied = deployment(json!({ "name": "edge", "env": [{ "name": "X", "value": "1" }] }));
        let found = foreign_parts(&applied, &alone);
        assert_eq!(found[0].path, ".spec.template.spec.containers[edge].env");
        assert_eq!(
            (found[0].live.as_str(), found[0].wanted.as_str()),
            (r#"[{"name":"X","value":"1"}]"#, "absent")
        );
        applied["spec"]["template"]["spec"] = alone["spec"]["template"]["spec"].clone();
        applied["spec"]["template"]["metadata"]["annotations"]["restartedAt"] = json!("now");
        assert_eq!(foreign_parts(&applied, &alone), [], "a pod may be restarted by hand");
        let patch = whole_template(&serde_json::from_value(alone.clone()).unwrap()).unwrap();
        assert_eq!(patch["spec"]["template"]["$patch"], "replace");
        assert_eq!(patch["spec"]["template"]["spec"], alone["spec"]["template"]["spec"]);
    }
}
