//! Objects on the API server: applied server-side, and compared with what applying them would give. Applying leaves what
//! others have added, a variable of the container for example; in a pod template that is taken away again.

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::manifests::Object;

/// The name under which the API server records what this tool owns.
const FIELD_MANAGER: &str = "kedge";
/// The longest value that is shown of a field.
const LONGEST_VALUE: usize = 80;
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
    let asked = || format!("failed to look at {title}");
    let Some(live) = get(client, object).await.with_context(asked)? else {
        return Ok(Some(format!("{title} is not there")));
    };
    let applied = patch(client, object, &rehearsal()).await.with_context(asked)?;
    let hidden = matches!(object, Object::Secret(_));
    let mut found = difference(&live, &applied, "");
    if let (None, Object::Deployment(deployment)) = (&found, object) {
        found = addition(client, deployment, &applied).await.with_context(asked)?;
    }
    Ok(found.map(|(path, live, wanted)| {
        if hidden {
            format!("{title}: {path} is otherwise")
        } else {
            format!("{title}: {path} is {live}, not {wanted}")
        }
    }))
}

/// Applies, and changes nothing.
fn rehearsal() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).force() }
}

/// What the pod template of a Deployment still has of others after it was applied: the API server computes what it would
/// be if nobody else had ever changed it.
async fn addition(client: &Client, deployment: &Deployment, applied: &Value) -> Result<Option<Difference>> {
    let api: Api<Deployment> = namespaced(client, &deployment.metadata.namespace);
    let name = deployment.metadata.name.as_deref().context("the object has no name")?;
    let params = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.into()) };
    let alone = serde_json::to_value(api.replace(name, &params, deployment).await?)?;
    Ok(foreign_part(applied, &alone))
}

fn foreign_part(applied: &Value, alone: &Value) -> Option<Difference> {
    let pod = |deployment: &Value| deployment.pointer(POD).cloned().unwrap_or_default();
    difference(&pod(applied), &pod(alone), &POD.replace('/', "."))
}

/// Makes the whole pod template what it is to be, where applying would leave something that others have added.
async fn remove_additions(client: &Client, object: &Object) -> Result<()> {
    let Object::Deployment(deployment) = object else { return Ok(()) };
    if get(client, object).await?.is_none() {
        return Ok(());
    }
    let applied = patch(client, object, &rehearsal()).await?;
    if addition(client, deployment, &applied).await?.is_none() {
        return Ok(());
    }
    let api: Api<Deployment> = namespaced(client, &deployment.metadata.namespace);
    let name = deployment.metadata.name.as_deref().context("the object has no name")?;
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::Strategic(whole_template(deployment)?)).await?;
    Ok(())
}

/// A patch that replaces the template rather than merging it, so that nothing of the old one stays.
fn whole_template(deployment: &Deployment) -> Result<Value> {
    let mut template = serde_json::to_value(deployment.spec.as_ref().map(|spec| &spec.template))?;
    template["$patch"] = "replace".into();
    Ok(json!({ "spec": { "template": template } }))
}

async fn get(client: &Client, object: &Object) -> Result<Option<Value>> {
    async fn one<K>(api: Api<K>, object: &K) -> Result<Option<Value>>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let name = object.meta().name.as_deref().context("the object has no name")?;
        let found = api.get_opt(name).await?;
        Ok(found.map(|found| serde_json::to_value(&found)).transpose()?)
    }
    match object {
        Object::Namespace(it) => one(Api::all(client.clone()), it).await,
        Object::Secret(it) => one(namespaced(client, &it.metadata.namespace), it).await,
        Object::ConfigMap(it) => one(namespaced(client, &it.metadata.namespace), it).await,
        Object::ServiceAccount(it) => one(namespaced(client, &it.metadata.namespace), it).await,
        Object::PersistentVolumeClaim(it) => one(namespaced(client, &it.metadata.namespace), &**it).await,
        Object::Service(it) => one(namespaced(client, &it.metadata.namespace), &**it).await,
        Object::Deployment(it) => one(namespaced(client, &it.metadata.namespace), &**it).await,
    }
}

async fn patch(client: &Client, object: &Object, params: &PatchParams) -> Result<Value> {
    async fn one<K>(api: Api<K>, object: &K, params: &PatchParams) -> Result<Value>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let name = object.meta().name.as_deref().context("the object has no name")?;
        Ok(serde_json::to_value(api.patch(name, params, &Patch::Apply(object)).await?)?)
    }
    match object {
        Object::Namespace(it) => one(Api::all(client.clone()), it, params).await,
        Object::Secret(it) => one(namespaced(client, &it.metadata.namespace), it, params).await,
        Object::ConfigMap(it) => one(namespaced(client, &it.metadata.namespace), it, params).await,
        Object::ServiceAccount(it) => one(namespaced(client, &it.metadata.namespace), it, params).await,
        Object::PersistentVolumeClaim(it) => {
            one(namespaced(client, &it.metadata.namespace), &**it, params).await
        }
        Object::Service(it) => one(namespaced(client, &it.metadata.namespace), &**it, params).await,
        Object::Deployment(it) => one(namespaced(client, &it.metadata.namespace), &**it, params).await,
    }
}

fn namespaced<K>(client: &Client, namespace: &Option<String>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace.as_deref().unwrap_or("default"))
}

/// Fields that the API server keeps for itself.
fn is_bookkeeping(path: &str) -> bool {
    [".metadata.managedFields", ".metadata.resourceVersion", ".metadata.generation", ".status"]
        .contains(&path)
}

/// Where two objects differ, and both values.
type Difference = (String, String, String);

/// The first field in which two objects differ, with both values.
fn difference(live: &Value, wanted: &Value, path: &str) -> Option<Difference> {
    if live == wanted || is_bookkeeping(path) {
        return None;
    }
    match (live, wanted) {
        (Value::Object(here), Value::Object(there)) => {
            let names: std::collections::BTreeSet<_> = here.keys().chain(there.keys()).collect();
            let of = |fields: &serde_json::Map<String, Value>, name: &str| {
                fields.get(name).cloned().unwrap_or_default()
            };
            names
                .into_iter()
                .find_map(|name| difference(&of(here, name), &of(there, name), &format!("{path}.{name}")))
        }
        (Value::Array(here), Value::Array(there)) if here.len() == there.len() => here
            .iter()
            .zip(there)
            .enumerate()
            .find_map(|(index, (here, there))| difference(here, there, &format!("{path}[{index}]"))),
        _ => Some((path.to_owned(), short(live), short(wanted))),
    }
}

fn short(value: &Value) -> String {
    let text = if value.is_null() { "absent".to_owned() } else { value.to_string() };
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_field_that_differs_is_named_with_both_values() {
        let live = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 0, "list": [{ "a": 1 }] } });
        let mut wanted = live.clone();
        wanted["metadata"]["resourceVersion"] = json!("2");
        assert_eq!(difference(&live, &wanted, ""), None);
        wanted["spec"]["list"][0]["a"] = json!("x");
        let (path, here, there) = difference(&live, &wanted, "").unwrap();
        assert_eq!((path.as_str(), here.as_str(), there.as_str()), (".spec.list[0].a", "1", "\"x\""));
        wanted["spec"]["list"] = json!([]);
        assert_eq!(difference(&live, &wanted, "").unwrap().0, ".spec.list");
    }

    #[test]
    fn what_others_have_added_to_the_pod_is_found_and_replaced() {
        let deployment = |container: Value| {
            let template =
                json!({ "metadata": { "annotations": { "a": "b" } }, "spec": { "containers": [container] } });
            json!({ "metadata": { "name": "kedge" }, "spec": { "selector": {}, "template": template } })
        };
        let alone = deployment(json!({ "name": "edge" }));
        let mut applied = deployment(json!({ "name": "edge", "env": [{ "name": "X", "value": "1" }] }));
        let (path, here, there) = foreign_part(&applied, &alone).unwrap();
        assert_eq!(path, ".spec.template.spec.containers[0].env");
        assert_eq!((here.as_str(), there.as_str()), (r#"[{"name":"X","value":"1"}]"#, "absent"));
        applied["spec"]["template"]["spec"] = alone["spec"]["template"]["spec"].clone();
        applied["spec"]["template"]["metadata"]["annotations"]["restartedAt"] = json!("now");
        assert_eq!(foreign_part(&applied, &alone), None, "a pod may be restarted by hand");
        let patch = whole_template(&serde_json::from_value(alone.clone()).unwrap()).unwrap();
        assert_eq!(patch["spec"]["template"]["$patch"], "replace");
        assert_eq!(patch["spec"]["template"]["spec"], alone["spec"]["template"]["spec"]);
    }

    #[test]
    fn what_is_absent_and_what_is_long_stays_readable() {
        let (_, here, there) = difference(&json!({}), &json!({ "a": "ä".repeat(200) }), "").unwrap();
        assert_eq!(here, "absent");
        assert!(there.ends_with('…') && there.chars().count() == LONGEST_VALUE + 1);
    }
}
