//! What the runtime tells of the machine.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::Shared;
use crate::edge::api::json_response;
use crate::edge::engine::Engine;
use crate::http::StatusCode;

/// What cannot be found out is left out, as in the real daemon.
pub(super) async fn info<E: Engine>(State(services): Shared<E>) -> Response {
    let state = services.upstream.board.state();
    let kernel = |name: &str| read(&format!("/proc/sys/kernel/{name}"));
    let release = read("/etc/os-release").unwrap_or_default();
    let optional = [
        ("kernel_release", kernel("osrelease").map(Value::from)),
        ("kernel_version", kernel("version").map(Value::from)),
        ("operating_system", release_field(&release, "ID").map(Value::from)),
        ("operating_system_version", release_field(&release, "VERSION_ID").map(Value::from)),
        ("total_memory", read("/proc/meminfo").as_deref().and_then(total_memory).map(Value::from)),
        ("server_version", state.engine_version.map(Value::from)),
    ];
    let mut info = json!({
        "osType": kernel("ostype").unwrap_or_else(|| "UNKNOWN".to_owned()),
        "architecture": std::env::consts::ARCH,
        "cpus": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "virtualized": "unknown",
        "version": env!("CARGO_PKG_VERSION"),
        "provisioning": {
            "type": "ProvisioningType",
            "dynamicReprovisioning": false,
            "alwaysReprovisionOnStartup": false,
        },
    });
    let known: Map<String, Value> =
        optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    if let Some(info) = info.as_object_mut() {
        info.extend(known);
    }
    json_response(StatusCode::OK, &info)
}

fn read(path: &str) -> Option<String> {
    fs_err::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn release_field(release: &str, name: &str) -> Option<String> {
    let values = release.lines().filter_map(|line| line.split_once('='));
    let mut values = values.filter(|(key, _)| *key == name);
    values.next().map(|(_, value)| value.trim_matches('"').to_owned())
}

/// In bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_system_are_read() {
        let release = "PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"12\"\nBROKEN";
        assert_eq!(release_field(release, "ID").as_deref(), Some("debian"));
        assert_eq!(release_field(release, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(release_field(release, "BROKEN"), None);
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:       16 kB\n"), Some(16_384));
        assert_eq!(total_memory("MemTotal: many"), None);
    }
}
