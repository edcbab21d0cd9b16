//! With the user's own hub: KEdge has no key of it, so it registers no device there and applies no deployment. It says
//! what is left to the user, and prepares it.

use std::path::PathBuf;

use anyhow::Result;

use crate::edge_config::{self, Filling};
use crate::paths::{Paths, write_private};
use crate::process::quote;
use crate::provisioning::{Kept, Origin};
use crate::settings::Settings;

/// What stands for a name that only the user knows.
const UNKNOWN: &str = "NAME";

/// Fills the deployment manifest in, keeps it in the state folder, and gives back what the user has to know and to do.
///
/// # Errors
/// When the manifest cannot be used, or not be written.
pub fn hand_over(paths: &Paths, settings: &Settings, kept: Option<&Kept>) -> Result<Vec<String>> {
    let source = fs_err::read_to_string(paths.project.join(&settings.device.deployment))?;
    let filling = Filling { sensor: None, supply: settings.supply(), shape: settings.shape() };
    let manifest = edge_config::deployment(&source, &filling)?;
    let path = file(paths);
    // It may have logins at registries in it.
    write_private(&path, serde_json::to_string_pretty(manifest.expose())?.as_bytes())?;
    let mut lines = edge_config::notes(&manifest, settings.shape(), &settings.runtime.version);
    lines.iter_mut().for_each(|note| *note = format!("note: {note}"));
    let device = kept.map_or(settings.device.id.as_str(), |kept| kept.provisioning.device_id());
    lines.push(format!(
        "the hub is yours: KEdge changes nothing in it. Give `{device}` its deployment, unless it has it:\n  {}",
        command(hub_name(kept), device, &path.to_string_lossy())
    ));
    Ok(lines)
}

fn file(paths: &Paths) -> PathBuf {
    paths.state.join("deployment.json")
}

/// The name by which `az` knows the hub. Of one to which the provisioning service leads, only that service knows.
fn hub_name(kept: Option<&Kept>) -> &str {
    let host = kept.and_then(|kept| match kept.provisioning.origin() {
        Origin::Manual(device) => Some(device.host_name.as_str()),
        Origin::Dps(_) => None,
    });
    host.and_then(|host| host.split('.').next()).unwrap_or(UNKNOWN)
}

fn command(hub: &str, device: &str, path: &str) -> String {
    let [hub, device, path] = [hub, device, path].map(|word| quote(word.as_ref()));
    format!("az iot edge set-modules --hub-name {hub} --device-id {device} --content {path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted() {
        assert_eq!(
            command(hub_name(None), "it's one", "/s/deployment.json"),
            "az iot edge set-modules --hub-name NAME --device-id 'it'\\''s one' --content /s/deployment.json"
        );
    }

    #[test]
    fn the_manifest_is_filled_in_and_kept_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Paths::discover("kedge-test").unwrap();
        paths.state = folder.path().join("state");
        let mut settings = Settings::default();
        settings.hub.kind = crate::settings::Hub::Azure;
        let told = hand_over(&paths, &settings, None).unwrap();
        assert!(told.len() == 1 && told[0].contains("--device-id kedge-device --content /"), "{told:?}");
        let text = fs_err::read_to_string(file(&paths)).unwrap();
        assert!(
            text.contains("azureiotedge-simulated-temperature-sensor") && !text.contains("kedge-registry")
        );
        assert_eq!(fs_err::metadata(file(&paths)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
