//! Objects on the API server: applied server-side, and compared with what applying them would give.

use anyhow::{Context as _, Result};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::manifests::Object;

/// The name under which the API server records what this tool owns.
const FIELD_MANAGER: &str = "kedge";
/// The longest value that is shown of a field.
const LONGEST_VALUE: usize = 80;

/// Applies an object server-side, as the owner of all fields that it sets.
///
/// # Errors
/// When the API server refuses; the error names the object.
pub async fn apply(client: &Client, object: &Object) -> Result<()> {
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
    let params = PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).force() };
    let wanted = patch(client, object, &params).await.with_context(asked)?;
    let hidden = matches!(object, Object::Secret(_));
    Ok(difference(&live, &wanted, "").map(|(path, live, wanted)| {
        if hidden {
            format!("{title}: {path} is otherwise")
        } else {
            format!("{title}: {path} is {live}, not {wanted}")
        }
    }))
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

/// The first field in which two objects differ, with both values.
fn difference(live: &Value, wanted: &Value, path: &str) -> Option<(String, String, String)> {
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
    fn what_is_absent_and_what_is_long_stays_readable() {
        let (_, here, there) = difference(&json!({}), &json!({ "a": "ä".repeat(200) }), "").unwrap();
        assert_eq!(here, "absent");
        assert!(there.ends_with('…') && there.chars().count() == LONGEST_VALUE + 1);
    }
}
