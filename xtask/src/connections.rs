//! How clients on this machine and on the deployment's network reach the local hub: addresses, the authority of its
//! certificate, and connection strings. All of it goes into private files of the state folder, and none of it anywhere
//! else.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kedge_sim::sas::OWNER_POLICY;
use kedge_sim::secret::Secret;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::paths::write_private;
use crate::settings::HubPorts;
use crate::steps::hub::{self, Ports};

/// The name of this machine, for which the hub's certificate is issued as well.
const THIS_MACHINE: &str = "localhost";

/// The files that tell clients how to connect.
#[derive(Debug)]
pub struct Files {
    /// Addresses and connection strings, JSON.
    pub connections: PathBuf,
    /// The authority of the hub's certificate, PEM.
    pub authority: PathBuf,
}

impl Files {
    /// Where they are.
    #[must_use]
    pub fn in_folder(state: &Path) -> Self {
        Self { connections: state.join("connections.json"), authority: state.join("hub-ca.pem") }
    }
}

/// Writes the files anew, with every device that the hub knows.
///
/// # Errors
/// When the hub does not answer, or the files cannot be written.
pub async fn write(context: &Context) -> Result<Files> {
    let files = Files::in_folder(&context.paths.state);
    let service = hub::service(context).await?;
    let mut devices = Vec::new();
    for device in service.devices().await? {
        // One with a certificate has no connection string that would let it in.
        if let Ok(Some(string)) = service.connection_string(&device.device_id).await {
            devices.push((device.device_id, string));
        }
    }
    let ports = hub::published_ports(context).await?;
    let described = describe(context, ports, &files, &devices);
    write_private(&files.authority, context.credentials.hub_ca.as_bytes())?;
    write_private(&files.connections, format!("{described:#}\n").as_bytes())?;
    Ok(files)
}

fn describe(context: &Context, ports: Ports, files: &Files, devices: &[(String, Secret)]) -> Value {
    let host_name = &context.settings.hub.host_name;
    let is_standard = context.settings.hub.ports == HubPorts::Standard;
    let devices: Map<String, Value> =
        devices.iter().map(|(id, string)| (id.clone(), device(string, is_standard))).collect();
    let key = context.credentials.owner_key.expose();
    json!({
        "hub": {
            "hostName": host_name,
            "https": format!("127.0.0.1:{}", ports.https),
            "mqtt": format!("127.0.0.1:{}", ports.mqtt),
            "caFile": files.authority,
        },
        "owner": format!("HostName={host_name};SharedAccessKeyName={OWNER_POLICY};SharedAccessKey={key}"),
        "devices": devices,
    })
}

/// The connection strings of a device: on the deployment's network the hub has its name; a client on this machine
/// reaches it as a gateway, which it can do where the hub has the ports that every client expects.
fn device(string: &Secret, is_standard: bool) -> Value {
    let on_this_machine = is_standard.then(|| format!("{};GatewayHostName={THIS_MACHINE}", string.expose()));
    json!({ "onTheNetwork": string.expose(), "onThisMachine": on_this_machine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_on_this_machine_needs_the_ports_of_an_iot_hub() {
        let string = Secret::new("HostName=hub.test;DeviceId=d;SharedAccessKey=a2V5");
        let standard = device(&string, true);
        assert_eq!(standard["onTheNetwork"], string.expose());
        assert_eq!(
            standard["onThisMachine"],
            "HostName=hub.test;DeviceId=d;SharedAccessKey=a2V5;GatewayHostName=localhost"
        );
        assert_eq!(device(&string, false)["onThisMachine"], Value::Null);
    }
}
