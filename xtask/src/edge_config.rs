//! The two files that configure the edge: `config/config.toml` for the runtime, and `config/deployment.json`
//! for the modules. Pure functions that fill in what is known only at run time.

mod agent;
pub mod images;
mod real;

use std::fmt;

use anyhow::{Context, Result, bail};
use kedge_sim::twin_limits::MAX_STRING_BYTES;
use serde_json::{Map, Value, json};

use crate::engine::Login;
use crate::images::Image;
use crate::plan::Shape;
use crate::settings::Runtime;

pub use self::agent::{agent_image, with_agent};
use self::images::Supply;

/// Where a deployment manifest tells the agent what to run.
const AGENT: &str = "/modulesContent/$edgeAgent/properties.desired";
/// What stands for KEdge's own sensor where the registry with that one is out of reach.
const PUBLIC_SENSOR: &str = "mcr.microsoft.com/azureiotedge-simulated-temperature-sensor:1.5";

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

/// What a deployment manifest is filled in with.
#[derive(Debug)]
pub struct Filling<'a> {
    /// The project's own sensor, where the inner engine can pull it.
    pub sensor: Option<SensorImage<'a>>,
    /// Where the images come from that the file names.
    pub supply: Supply<'a>,
    /// For which runtime, and for which hub.
    pub shape: Shape,
}

/// A deployment manifest that is filled in, with the logins at registries.
#[derive(Clone, PartialEq)]
pub struct Filled(Value);

impl Filled {
    /// The manifest. The name makes every use easy to find.
    #[must_use]
    pub fn expose(&self) -> &Value {
        &self.0
    }
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Fills in the deployment manifest: each module gets the image that stands for its own and what it needs with this
/// runtime and this hub, and the agent the login at KEdge's registry.
///
/// # Errors
/// When the source is not a deployment manifest, or the sensor's module is not in it.
pub fn deployment(source: &str, filling: &Filling<'_>) -> Result<Filled> {
    let mut manifest: Value = serde_json::from_str(source).context("`config/deployment.json` is not JSON")?;
    let modules = manifest
        .pointer_mut(&format!("{AGENT}/modules"))
        .and_then(Value::as_object_mut)
        .with_context(|| format!("`config/deployment.json` has no object at `{AGENT}/modules`"))?;
    if !modules.contains_key(SENSOR_MODULE) {
        bail!("`config/deployment.json` has no module `{SENSOR_MODULE}`, whose telemetry is the proof");
    }
    for (module, definition) in modules.iter_mut() {
        if definition.pointer("/settings/image").is_none() {
            bail!("the module `{module}` in `config/deployment.json` has no settings.image");
        }
        // By the name that the user knows, and by that of what stands for it.
        real::module(definition, filling.shape);
        fill(definition, filling);
        real::module(definition, filling.shape);
        create_options_as_text(definition);
    }
    let system_modules = manifest.pointer_mut(&format!("{AGENT}/systemModules"));
    for (name, module) in system_modules.and_then(Value::as_object_mut).into_iter().flatten() {
        real::system_module(name, module, filling.shape);
        fill(module, filling);
        create_options_as_text(module);
    }
    if let Some(sensor) = &filling.sensor {
        add_login(&mut manifest, sensor)?;
    }
    Ok(Filled(manifest))
}

/// Puts the image that stands for the named one into the definition of a module.
fn fill(definition: &mut Value, filling: &Filling<'_>) {
    let Some(Value::String(image)) = definition.pointer_mut("/settings/image") else { return };
    let own = Image::TemperatureSensor.repository();
    let reference = match filling.supply.reference(image) {
        same if same != own => same.to_owned(),
        _ => match &filling.sensor {
            Some(sensor) => format!("{}/{own}@{}", sensor.registry, sensor.digest),
            None => filling.supply.reference(PUBLIC_SENSOR).to_owned(),
        },
    };
    let is_preloaded = filling.supply.is_preloaded(&reference);
    *image = reference;
    if is_preloaded {
        definition["imagePullPolicy"] = "never".into();
    }
}

fn add_login(manifest: &mut Value, sensor: &SensorImage<'_>) -> Result<()> {
    let credentials = manifest
        .pointer_mut(&format!("{AGENT}/runtime/settings"))
        .and_then(Value::as_object_mut)
        .with_context(|| format!("`config/deployment.json` has no object at `{AGENT}/runtime/settings`"))?
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
    Ok(())
}

/// All images that a deployment manifest names, as they stand in it.
#[must_use]
pub fn named_images(source: &str) -> Vec<String> {
    let manifest: Value = serde_json::from_str(source).unwrap_or_default();
    let modules = ["modules", "systemModules"].map(|part| manifest.pointer(&format!("{AGENT}/{part}")));
    let modules = modules.into_iter().flatten().filter_map(Value::as_object).flat_map(Map::values);
    modules.filter_map(|module| module.pointer("/settings/image")?.as_str().map(str::to_owned)).collect()
}

/// What a user should know of the filled-in manifest before it is used with Microsoft's runtime of this version.
#[must_use]
pub fn notes(deployment: &Filled, shape: Shape, version: &str) -> Vec<String> {
    if shape.runtime == Runtime::Simulated {
        return Vec::new();
    }
    let image = |module: &str| {
        let image = deployment.0.pointer(&format!("{AGENT}/{module}/settings/image"));
        image.and_then(Value::as_str).unwrap_or_default()
    };
    let (agent, gateway) = (image("systemModules/edgeAgent"), image("systemModules/edgeHub"));
    let notes = [
        real::other_version("edgeAgent", agent, version),
        real::other_version("edgeHub", gateway, version),
        real::without_mqtt(gateway, image(&format!("modules/{SENSOR_MODULE}"))),
    ];
    notes.into_iter().flatten().collect()
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
    use crate::settings::Hub;
    use kedge_sim::secret::Secret;
    use std::path::Path;

    const PRELOAD: [&str; 1] = ["factory.test/sensor:1.0"];

    fn project_file(name: &str) -> String {
        fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
    }

    fn filled_for(source: &str, shape: Shape, images: &[(&str, &str)]) -> Result<Value> {
        let login = Login { username: "kedge".into(), password: Secret::new("pw") };
        let sensor = SensorImage { registry: "registry:5000", digest: "sha256:ab", login: &login };
        let images = images.iter().map(|(name, image)| ((*name).to_owned(), (*image).to_owned())).collect();
        let sensor = Some(sensor).filter(|_| shape.hub == Hub::Local);
        let supply = Supply { images: &images, preload: &PRELOAD.map(str::to_owned) };
        deployment(source, &Filling { sensor, supply, shape }).map(|filled| filled.0)
    }

    #[test]
    fn what_is_preloaded_is_not_pulled_and_keeps_its_name() {
        let source = project_file("config/deployment.json").replace("kedge/temperature-sensor", PRELOAD[0]);
        let manifest = filled_for(&source, Shape::SIMULATED, &[("factory.test/sensor", "x:1")]).unwrap();
        let modules = manifest.pointer(AGENT).unwrap();
        let sensor = &modules["modules"]["tempSensor"];
        assert_eq!(
            (&sensor["settings"]["image"], &sensor["imagePullPolicy"]),
            (&PRELOAD[0].into(), &"never".into())
        );
        assert_eq!(modules["systemModules"]["edgeHub"]["imagePullPolicy"], Value::Null);
    }

    fn filled(source: &str) -> Result<Value> {
        filled_for(source, Shape::SIMULATED, &[])
    }

    #[test]
    fn images_are_those_that_stand_for_the_named_ones() {
        let images = [
            ("mcr.microsoft.com/azureiotedge-hub", "factory.test:5000/hub@sha256:cd"),
            ("kedge/temperature-sensor", "factory.test:5000/sensor:1"),
        ];
        let manifest =
            filled_for(&project_file("config/deployment.json"), Shape::SIMULATED, &images).unwrap();
        let image = |pointer: &str| manifest.pointer(&format!("{AGENT}/{pointer}/settings/image")).cloned();
        assert_eq!(image("systemModules/edgeHub"), Some("factory.test:5000/hub@sha256:cd".into()));
        assert_eq!(image("modules/tempSensor"), Some("factory.test:5000/sensor:1".into()));
    }

    #[test]
    fn for_the_users_hub_nothing_of_ours_is_named() {
        let shape = Shape { hub: Hub::Azure, runtime: Runtime::Azure };
        let source = project_file("config/deployment.json");
        let text = filled_for(&source, shape, &[]).unwrap().to_string();
        assert!(text.contains(PUBLIC_SENSOR) && !text.contains("pw") && !text.contains("Mqtt"), "{text}");
        let images =
            [("mcr.microsoft.com/azureiotedge-simulated-temperature-sensor", "factory.test/sensor:1")];
        assert!(filled_for(&source, shape, &images).unwrap().to_string().contains("factory.test/sensor:1"));
    }

    #[test]
    fn the_versions_of_the_projects_manifest_are_those_of_the_default_runtime() {
        let source = project_file("config/deployment.json");
        let shape = Shape { hub: Hub::Azure, runtime: Runtime::Azure };
        let filled = Filled(filled_for(&source, shape, &[]).unwrap());
        assert_eq!(notes(&filled, shape, &crate::settings::Settings::default().runtime.version), [""; 0]);
        assert_eq!(notes(&filled, shape, "1.5").len(), 2);
        assert_eq!(notes(&filled, Shape::SIMULATED, "1.5"), [""; 0]);
        assert_eq!(named_images(&source).len(), 3);
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
