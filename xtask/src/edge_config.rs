//! The two files that configure the edge: `config/config.toml` for the runtime, and `config/deployment.json`
//! for the modules. Pure functions that fill in what is known only at run time.

use anyhow::{Context, Result, bail};
use kedge_sim::twin_limits::MAX_STRING_BYTES;
use serde_json::{Map, Value, json};

use crate::engine::Login;
use crate::images::Image;

/// The module whose telemetry proves a run.
pub const SENSOR_MODULE: &str = "tempSensor";

/// The host name of the edge, under which modules reach its gateway.
///
/// # Errors
/// When the source is not TOML, or has no host name.
pub fn host_name(source: &str) -> Result<String> {
    let config: toml::Table = source.parse().context("`config/config.toml` is not TOML")?;
    let name = config.get("hostname").and_then(toml::Value::as_str);
    Ok(name.context("`config/config.toml` has no `hostname`")?.to_owned())
}

/// The image of the project's own sensor, as the inner engine pulls it.
#[derive(Debug)]
pub struct SensorImage<'a> {
    /// Host and port of the registry.
    pub registry: &'a str,
    /// Digest in that registry.
    pub digest: &'a str,
    /// Login at that registry.
    pub login: &'a Login,
}

/// Fills in the deployment manifest: a module whose image is `kedge/temperature-sensor` gets the one that was
/// built, by digest, and the runtime the login at the registry.
///
/// # Errors
/// When the source is not a deployment manifest, or the sensor's module is not in it.
pub fn deployment(source: &str, sensor: &SensorImage<'_>) -> Result<Value> {
    let mut manifest: Value = serde_json::from_str(source).context("`config/deployment.json` is not JSON")?;
    let agent = "/modulesContent/$edgeAgent/properties.desired";
    let modules = manifest
        .pointer_mut(&format!("{agent}/modules"))
        .and_then(Value::as_object_mut)
        .with_context(|| format!("`config/deployment.json` has no object at `{agent}/modules`"))?;
    if !modules.contains_key(SENSOR_MODULE) {
        bail!("`config/deployment.json` has no module `{SENSOR_MODULE}`, whose telemetry is the proof");
    }
    modules.values_mut().for_each(create_options_as_text);
    let name = Image::TemperatureSensor.repository();
    for (module, definition) in modules.iter_mut() {
        let image = definition.pointer_mut("/settings/image").with_context(|| {
            format!("the module `{module}` in `config/deployment.json` has no settings.image")
        })?;
        if *image == Value::String(name.clone()) {
            *image = format!("{}/{name}@{}", sensor.registry, sensor.digest).into();
        }
    }
    let system_modules = manifest.pointer_mut(&format!("{agent}/systemModules"));
    for module in system_modules.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        create_options_as_text(module);
    }
    let credentials = manifest
        .pointer_mut(&format!("{agent}/runtime/settings"))
        .and_then(Value::as_object_mut)
        .with_context(|| format!("`config/deployment.json` has no object at `{agent}/runtime/settings`"))?
        .entry("registryCredentials")
        .or_insert_with(|| json!({}));
    let login = json!({
        "address": sensor.registry,
        "username": sensor.login.username,
        "password": sensor.login.password.expose(),
    });
    credentials
        .as_object_mut()
        .context("registryCredentials is not an object")?
        .insert("kedge".into(), login);
    Ok(manifest)
}

/// In the file, `createOptions` may be an object, which is easier to read; in the twin it is a text, and one that is too
/// long for a twin stands in several parts.
fn create_options_as_text(module: &mut Value) {
    let Some(settings) = module.get_mut("settings").and_then(Value::as_object_mut) else { return };
    let Some(options) = settings.get("createOptions").filter(|options| options.is_object()) else { return };
    let text = options.to_string();
    let mut rest = text.as_str();
    let mut part = 0;
    while part == 0 || !rest.is_empty() {
        let end = (0..=MAX_STRING_BYTES).rev().find(|end| rest.is_char_boundary(*end)).unwrap_or_default();
        let (now, later) = rest.split_at(end);
        let name = if part == 0 { "createOptions".into() } else { format!("createOptions{part:02}") };
        settings.insert(name, now.into());
        (rest, part) = (later, part + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_sim::secret::Secret;
    use std::path::Path;

    fn project_file(name: &str) -> String {
        fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
    }

    fn filled(source: &str) -> Result<Value> {
        let login = Login { username: "kedge".into(), password: Secret::new("pw") };
        deployment(source, &SensorImage { registry: "registry:5000", digest: "sha256:ab", login: &login })
    }

    #[test]
    fn the_host_name_is_that_of_the_pod() {
        let name = host_name(&project_file("config/config.toml")).unwrap();
        assert!(project_file("manifests/kedgedeployment.yaml").contains(&format!("hostname: {name}\n")));
        assert!(host_name("[agent]\n").unwrap_err().to_string().contains("no `hostname`"));
    }

    #[test]
    fn the_sensor_is_pinned_and_the_registry_login_added() {
        let manifest = filled(&project_file("config/deployment.json")).unwrap();
        let agent = &manifest["modulesContent"]["$edgeAgent"]["properties.desired"];
        assert_eq!(
            agent["modules"]["tempSensor"]["settings"]["image"],
            "registry:5000/kedge/temperature-sensor@sha256:ab"
        );
        assert_eq!(agent["runtime"]["settings"]["registryCredentials"]["kedge"]["password"], "pw");
        assert!(
            agent["systemModules"]["edgeHub"]["settings"]["image"]
                .as_str()
                .unwrap()
                .contains("azureiotedge-hub")
        );
    }

    #[test]
    fn create_options_are_a_text_in_the_twin_and_split_when_they_are_long() {
        let long = json!({ "Labels": { "a": "ä".repeat(3000) } });
        let mut module = json!({ "settings": { "image": "i", "createOptions": long } });
        create_options_as_text(&mut module);
        let part = |name: &str| module["settings"][name].as_str().unwrap().to_owned();
        let parts = [part("createOptions"), part("createOptions01")];
        assert!(parts.iter().all(|part| part.len() <= MAX_STRING_BYTES));
        assert_eq!(parts.concat(), long.to_string());
        let mut module = json!({ "settings": { "createOptions": "{}" } });
        let same = module.clone();
        create_options_as_text(&mut module);
        assert_eq!(module, same);
        let mut module = json!({ "settings": { "createOptions": {} } });
        create_options_as_text(&mut module);
        assert_eq!(module, same);
    }

    #[test]
    fn a_manifest_that_cannot_be_used_says_where() {
        for (source, expected) in [
            ("{", "not JSON"),
            ("{}", "modules"),
            (r#"{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{}}}}}"#, "tempSensor"),
            (
                r#"{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{"tempSensor":{}}}}}}"#,
                "settings.image",
            ),
            (
                r#"{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{"tempSensor":{"settings":{"image":"x"}}}}}}}"#,
                "runtime/settings",
            ),
        ] {
            let error = format!("{:#}", filled(source).unwrap_err());
            assert!(error.contains(expected), "{source}: {error}");
        }
    }
}
