//! The objects of the cluster, as one would describe them: without what only machines read, without the values of variables,
//! and of Secrets no more than what they have.

use futures_util::future::join_all;
use serde_json::Value;

use super::folder::Folder;
use crate::cluster::{self, listing};
use crate::context::Context;

pub(super) async fn keep(folder: &Folder<'_>, context: &Context) {
    if !context.paths.kubeconfig().exists() {
        return folder.miss("cluster", "there is no cluster");
    }
    let client = match cluster::client(&context.paths.kubeconfig()).await {
        Ok(client) => client,
        Err(error) => return folder.miss("cluster", &format!("{error:#}")),
    };
    let lists = listing::Kind::ALL.map(|kind| {
        let client = client.clone();
        async move {
            let list = async {
                let mut objects = listing::list(&client, kind).await?;
                objects.iter_mut().for_each(tidy);
                Ok(serde_yaml::to_string(&objects)?)
            };
            folder.keep(&format!("cluster/{}.yaml", kind.name()), list).await;
        }
    });
    join_all(lists).await;
}

/// Takes out what only machines read, and what may be a secret.
fn tidy(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(notes) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            notes.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    for field in ["data", "stringData"] {
        if let Some(data) = object.get_mut(field).and_then(Value::as_object_mut) {
            data.values_mut().for_each(|value| *value = size_of(value).into());
        }
    }
    without_environment(object);
}

fn size_of(value: &Value) -> String {
    format!("{} characters", value.as_str().map_or(0, str::len))
}

/// Leaves of every environment only the names: as engines write them (`Env`: NAME=VALUE) and as Kubernetes does (`env`: name
/// and value).
pub(super) fn without_environment(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_environment),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match (name.as_str(), field) {
                    ("Env" | "env", Value::Array(variables)) => variables.iter_mut().for_each(hide),
                    (_, other) => without_environment(other),
                }
            }
        }
        _ => {}
    }
}

fn hide(variable: &mut Value) {
    if let Value::String(text) = variable {
        let name = text.split('=').next().unwrap_or_default();
        *text = format!("{name}=[redacted]");
    } else if let Some(value) = variable.get_mut("value") {
        *value = "[redacted]".into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_keep_their_names_alone() {
        let mut all = json!([{
            "Config": {"Env": ["PATH=/bin", "KEY=a=b", "BARE"], "Cmd": ["sh"]},
            "spec": {"env": [{"name": "A", "value": "secret"}, {"name": "B", "valueFrom": {"x": 1}}]},
        }]);
        without_environment(&mut all);
        let expected = json!([{
            "Config": {"Env": ["PATH=[redacted]", "KEY=[redacted]", "BARE=[redacted]"], "Cmd": ["sh"]},
            "spec": {"env": [{"name": "A", "value": "[redacted]"}, {"name": "B", "valueFrom": {"x": 1}}]},
        }]);
        assert_eq!(all, expected);
    }

    #[test]
    fn a_secret_keeps_the_names_and_sizes_of_its_parts() {
        let mut secret = json!({
            "metadata": {"name": "s", "managedFields": [1], "annotations":
                {"kubectl.kubernetes.io/last-applied-configuration": "all of it", "other": "stays"}},
            "data": {"config.toml": "c2VjcmV0"},
        });
        tidy(&mut secret);
        let expected = json!({
            "metadata": {"name": "s", "annotations": {"other": "stays"}}, "data": {"config.toml": "8 characters"},
        });
        assert_eq!(secret, expected);
        let mut odd = json!("no object");
        tidy(&mut odd);
        assert_eq!(odd, json!("no object"));
    }
}
