//! What Microsoft's runtime has to be told before it can ask the hub: the image of its agent, the login at that image's
//! registry, and by which protocol to speak.

use anyhow::{Context as _, Result, bail};
use kedge_sim::secret::Secret;
use serde_json::Value;
use toml::Table;

use super::images::{Supply, registry};
use super::{AGENT, Filled};
use crate::plan::Shape;
use crate::settings::{Hub, Runtime};

/// Completes the runtime's configuration by what the filled-in deployment says of the agent. It may carry a password.
///
/// # Errors
/// When the source is not TOML, or the deployment names no image of the agent.
pub fn with_agent(source: &str, deployment: &Filled, supply: Supply<'_>, shape: Shape) -> Result<Secret> {
    if shape.runtime == Runtime::Simulated {
        // It is the agent itself.
        return Ok(Secret::new(source));
    }
    let mut config: Table = source.parse().ok().context("the runtime's configuration is not TOML")?;
    let agent = table_in(&mut config, "agent")?;
    if shape.hub == Hub::Local {
        // The local hub knows nothing else, and the agent begins with AMQP by itself.
        table_in(agent, "env")?.entry("UpstreamProtocol").or_insert("Mqtt".into());
    }
    let settings = table_in(agent, "config")?;
    let image = match settings.get("image").and_then(toml::Value::as_str) {
        Some(image) => supply.reference(image).to_owned(),
        None => {
            let image = deployment.0.pointer(&format!("{AGENT}/systemModules/edgeAgent/settings/image"));
            image.and_then(Value::as_str).context("the deployment names no image of edgeAgent")?.to_owned()
        }
    };
    if let (false, Some(login)) = (settings.contains_key("auth"), login(&deployment.0, &image)) {
        settings.insert("auth".into(), login.into());
    }
    let is_preloaded = supply.is_preloaded(&image);
    settings.insert("image".into(), image.into());
    if is_preloaded {
        agent.insert("imagePullPolicy".into(), "never".into());
    }
    Ok(Secret::new(toml::to_string(&config).context("failed to write the runtime's configuration")?))
}

/// The image of the agent that the runtime's configuration names, if it does.
#[must_use]
pub fn agent_image(source: &str) -> Option<String> {
    let config: Table = source.parse().ok()?;
    Some(config.get("agent")?.get("config")?.get("image")?.as_str()?.to_owned())
}

/// The login of the deployment at the registry of an image, as the runtime's configuration has it.
fn login(deployment: &Value, image: &str) -> Option<Table> {
    let logins = deployment.pointer(&format!("{AGENT}/runtime/settings/registryCredentials"))?.as_object()?;
    let login = logins.values().find(|login| login["address"] == registry(image))?;
    let fields = [("serveraddress", "address"), ("username", "username"), ("password", "password")];
    let field = |(name, source): (&str, &str)| Some((name.to_owned(), login[source].as_str()?.into()));
    fields.into_iter().map(field).collect()
}

fn table_in<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut Table> {
    match table.entry(name).or_insert_with(|| Table::new().into()) {
        toml::Value::Table(inner) => Ok(inner),
        _ => bail!("in the runtime's configuration, `{name}` is no table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge_config::images::Images;
    use serde_json::json;

    const AZURE: Shape = Shape { hub: Hub::Local, runtime: Runtime::Azure };

    fn deployment(image: &str) -> Filled {
        let agent = json!({
            "runtime": { "settings": { "registryCredentials": {
                "kedge": { "address": "r.test:5000", "username": "u", "password": "s3cret" },
            } } },
            "systemModules": { "edgeAgent": { "settings": { "image": image } } },
        });
        Filled(json!({ "modulesContent": { "$edgeAgent": { "properties.desired": agent } } }))
    }

    fn completed(source: &str, image: &str, shape: Shape) -> Table {
        let images = Images::from([("mcr.test/agent".into(), "r.test:5000/agent:2".into())]);
        let supply = Supply { images: &images, preload: &["mcr.test/preloaded:1".into()] };
        with_agent(source, &deployment(image), supply, shape).unwrap().expose().parse().unwrap()
    }

    #[test]
    fn the_agent_gets_its_image_its_login_and_its_protocol() {
        let agent =
            completed("[agent]\nname = \"edgeAgent\"\n", "r.test:5000/agent:1", AZURE)["agent"].clone();
        assert_eq!(agent["config"]["image"].as_str(), Some("r.test:5000/agent:1"));
        let auth = &agent["config"]["auth"];
        assert_eq!(auth["serveraddress"].as_str(), Some("r.test:5000"));
        assert_eq!((auth["username"].as_str(), auth["password"].as_str()), (Some("u"), Some("s3cret")));
        assert_eq!(agent["env"]["UpstreamProtocol"].as_str(), Some("Mqtt"));
        assert_eq!(agent["name"].as_str(), Some("edgeAgent"));
    }

    #[test]
    fn what_the_user_has_decided_stays() {
        let source = "[agent.env]\nUpstreamProtocol = \"MqttWs\"\n[agent.config]\nimage = \"mcr.test/agent:1.6\"\n\
                      [agent.config.auth]\nserveraddress = \"mine\"\n";
        let agent = completed(source, "x.test/other:1", AZURE)["agent"].clone();
        assert_eq!(
            agent["config"]["image"].as_str(),
            Some("r.test:5000/agent:2"),
            "[images] counts here, too"
        );
        assert_eq!(agent["config"]["auth"]["serveraddress"].as_str(), Some("mine"));
        assert_eq!(agent["env"]["UpstreamProtocol"].as_str(), Some("MqttWs"));
    }

    #[test]
    fn a_preloaded_agent_is_not_pulled() {
        let agent = |image| completed("", image, AZURE)["agent"].get("imagePullPolicy").cloned();
        assert_eq!(agent("mcr.test/preloaded:1"), Some("never".into()));
        assert_eq!(agent("mcr.test/other:1"), None);
    }

    #[test]
    fn no_login_is_given_to_another_registry_and_no_protocol_for_azure() {
        let agent = completed("", "mcr.test/other:1", Shape { hub: Hub::Azure, ..AZURE })["agent"].clone();
        assert!(agent.get("env").is_none() && agent["config"].get("auth").is_none());
    }

    #[test]
    fn the_simulated_runtime_gets_what_the_user_has_written() {
        let source = "hostname = \"x\" # as it is\n";
        let shape = Shape::SIMULATED;
        let supply = Supply { images: &Images::new(), preload: &[] };
        let config = with_agent(source, &deployment("a"), supply, shape).unwrap();
        assert_eq!(config.expose(), source);
    }
}
