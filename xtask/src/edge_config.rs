//! The two files that configure the edge: `config/config.toml` for the runtime, and `config/deployment.json`
//! for the modules. Pure functions that fill in what is known only at run time.

use anyhow::{Context, Result, bail};
use kedge_sim::secret::Secret;
use serde_json::{Value, json};

use crate::engine::Login;
use crate::images::Image;

/// The module whose telemetry proves a run.
pub const SENSOR_MODULE: &str = "tempSensor";

/// Adds the credential to the runtime's configuration.
///
/// # Errors
/// When the source is not TOML, or brings a credential of its own.
pub fn runtime(source: &str, connection_string: &Secret) -> Result<Secret> {
    let mut config: toml::Table = source.parse().context("`config/config.toml` is not TOML")?;
    if config.contains_key("provisioning") {
        bail!(
            "`config/config.toml` has a [provisioning] table; KEdge makes it, so that no credential is in the project"
        );
    }
    let mut provisioning = toml::Table::new();
    provisioning.insert("source".into(), "manual".into());
    provisioning.insert("connection_string".into(), connection_string.expose().into());
    config.insert("provisioning".into(), provisioning.into());
    Ok(Secret::new(toml::to_string(&config).context("failed to write the runtime's configuration")?))
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
    let name = Image::TemperatureSensor.repository();
    for (module, definition) in modules.iter_mut() {
        let image = definition.pointer_mut("/settings/image").with_context(|| {
            format!("the module `{module}` in `config/deployment.json` has no settings.image")
        })?;
        if *image == Value::String(name.clone()) {
            *image = format!("{}/{name}@{}", sensor.registry, sensor.digest).into();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn project_file(name: &str) -> String {
        fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
    }

    fn filled(source: &str) -> Result<Value> {
        let login = Login { username: "kedge".into(), password: Secret::new("pw") };
        deployment(source, &SensorImage { registry: "registry:5000", digest: "sha256:ab", login: &login })
    }

    #[test]
    fn the_credential_is_added_and_not_shown() {
        let secret = Secret::new("HostName=h;DeviceId=d;SharedAccessKey=a2V5");
        let config = runtime(&project_file("config/config.toml"), &secret).unwrap();
        let table: toml::Table = config.expose().parse().unwrap();
        assert_eq!(table["provisioning"]["connection_string"].as_str(), Some(secret.expose()));
        assert_eq!(table["hostname"].as_str(), Some("kedge-edge"));
        assert!(!format!("{config:?}").contains("a2V5"));
    }

    #[test]
    fn a_credential_in_the_project_is_refused() {
        let error = runtime("[provisioning]\nsource = \"manual\"\n", &Secret::new("x")).unwrap_err();
        assert!(error.to_string().contains("no credential is in the project"), "{error}");
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
