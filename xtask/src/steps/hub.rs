//! The local IoT Hub, a container beside the cluster, as the cloud is.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kedge_sim::retry::pause;
use kedge_sim::sas::SharedAccessKey;
use kedge_sim::service::{ServiceClient, TelemetryFilter, TelemetryMessage};
use kedge_sim::tls::Endpoint;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::credentials::Credentials;
use crate::engine::{ContainerFile, ContainerSpec, Engine, Fit};
use crate::execute::Effect;
use crate::images::Image;
use crate::plan::Condition;
use crate::settings::{HubPorts, Settings};

const HTTPS: u16 = 443;
const MQTT: u16 = 8883;
/// How long one request to the hub waits for new messages, and how long after one that failed.
const POLL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
/// Where the hub keeps what it knows.
const STATE: &str = "/var/lib/kedge-hub";

/// The hub's ports on the loopback interface.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// REST over HTTPS.
    pub https: u16,
    /// MQTT over TLS.
    pub mqtt: u16,
}

/// Whether the hub runs as described, and answers.
///
/// # Errors
/// When the name is taken, or the engine cannot be asked.
pub async fn observe(context: &Context) -> Result<Condition> {
    let fit = context.engine.fit(&spec(context, context.reference(Image::Hub)?)).await?;
    Ok(match fit.reason() {
        Some(reason) => Condition::Differs(reason.into()),
        None => match service(context).await?.health().await {
            Ok(_) => Condition::Holds(context.settings.hub.host_name.clone()),
            Err(error) => Condition::Differs(format!("it does not answer: {error}")),
        },
    })
}

/// Starts the hub and waits until it answers.
///
/// # Errors
/// When the name is taken, or the hub does not answer.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let spec = spec(context, context.reference(Image::Hub)?);
    // One that is made anew is published at other ports.
    let answers = async || Ok(service(context).await?.health().await.map(drop)?);
    let found = context.ensure_container("the hub", &spec, answers).await?;
    let name = &context.settings.hub.host_name;
    Ok(if found == Fit::Runs {
        Effect::unchanged(name)
    } else {
        Effect::changed(format!("started as {name}"))
    })
}

/// A client of the hub's service side, with the owner's key.
///
/// # Errors
/// When the hub is not up.
pub async fn service(context: &Context) -> Result<ServiceClient> {
    service_of(&context.engine, &context.settings, &context.credentials).await
}

/// The same without a session.
///
/// # Errors
/// When the hub is not up.
pub async fn service_of(
    engine: &Engine,
    settings: &Settings,
    credentials: &Credentials,
) -> Result<ServiceClient> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports_of(engine, settings).await?.https));
    let host_name = &settings.hub.host_name;
    let key = SharedAccessKey::from_base64(credentials.owner_key.expose())?;
    let endpoint = Endpoint::at(host_name.as_str(), address);
    Ok(ServiceClient::new(endpoint, host_name, key, Some(&credentials.hub_ca))?)
}

/// Gives `each` the messages of a module of the device that have arrived from `since` on, as they arrive, until it is
/// stopped. A hub that is away is tried again.
pub async fn follow(
    context: &Context,
    module: &str,
    since: Timestamp,
    stop: &CancellationToken,
    mut each: impl FnMut(&TelemetryMessage),
) {
    let filter = TelemetryFilter {
        device_id: Some(context.device_id().to_owned()),
        module_id: Some(module.to_owned()),
    };
    let mut after = 0;
    while !stop.is_cancelled() {
        let page = match service(context).await {
            Ok(service) => service.telemetry(&filter, after, POLL).await.ok(),
            Err(_) => None,
        };
        let Some(page) = page else {
            pause(RETRY, stop).await;
            continue;
        };
        after = page.next;
        page.messages.iter().filter(|message| message.enqueued_time_utc >= since).for_each(&mut each);
    }
}

/// Where the hub is published.
///
/// # Errors
/// When the hub is not up.
pub async fn published_ports(context: &Context) -> Result<Ports> {
    ports_of(&context.engine, &context.settings).await
}

async fn ports_of(engine: &Engine, settings: &Settings) -> Result<Ports> {
    let state = engine.container(&settings.hub_container()).await?;
    let state = state.filter(|state| state.running).context("the hub is not up; run `cargo xtask up`")?;
    let port = |inside: u16| {
        state.ports.get(&inside).copied().with_context(|| format!("the hub's port {inside} is not published"))
    };
    Ok(Ports { https: port(HTTPS)?, mqtt: port(MQTT)? })
}

fn spec(context: &Context, image: String) -> ContainerSpec {
    let host_name = &context.settings.hub.host_name;
    let config = format!(
        "host_name = \"{host_name}\"\ncertificate_file = \"/etc/kedge-hub/hub.pem\"\nkey_file = \"/etc/kedge-hub/hub.key\"\n\
         owner_key_file = \"/etc/kedge-hub/owner.key\"\n"
    );
    let credentials = &context.credentials;
    let file = |name: &str, text: &str| ContainerFile {
        path: format!("/etc/kedge-hub/{name}"),
        contents: text.into(),
    };
    ContainerSpec {
        name: context.settings.hub_container(),
        image,
        network: Some(context.network().to_owned()),
        aliases: vec![host_name.clone()],
        ports: match context.settings.hub.ports {
            HubPorts::Free => vec![(HTTPS, 0), (MQTT, 0)],
            HubPorts::Standard => vec![(HTTPS, HTTPS), (MQTT, MQTT)],
        },
        kept_volumes: vec![(context.settings.hub_volume(), STATE)],
        files: vec![
            file("hub.toml", &config),
            file("hub.pem", &credentials.hub_certificate),
            file("hub.key", credentials.hub_key.expose()),
            file("owner.key", credentials.owner_key.expose()),
        ],
        ..ContainerSpec::default()
    }
}
