//! The layers of Microsoft's runtime, as its service, the inner engine and its containers tell them.

use anyhow::{Context as _, Result};
use kedge_sim::service::ServiceClient;
use serde::Deserialize;
use serde_json::Value;

use super::journal;
use super::layers::{Name, Seen};
use super::scene::Scene;
use crate::edge_config::SENSOR_MODULE;
use crate::settings::Hub;
use crate::steps::hub;

/// The containers of the agent and of the gateway.
const AGENT: &str = "edgeAgent";
const GATEWAY: &str = "edgeHub";
/// 8883, as the kernel writes it, on a socket that listens.
const LISTENS: &str = "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -c ':22B3 [0:]* 0A'";
/// The gateway's certificate, as a client sees it.
const CERTIFICATE: &str = "timeout 10 openssl s_client -connect 127.0.0.1:8883 </dev/null 2>/dev/null | \
     openssl x509 -noout -subject -enddate 2>/dev/null";

/// One look at a layer.
pub(super) async fn look(scene: &Scene<'_>, name: Name) -> Result<Seen> {
    let seen = match name {
        Name::Runtime => service(scene).await?,
        Name::Agent => agent(scene).await?,
        Name::Module => with_agents_words(scene, running(scene, SENSOR_MODULE).await?).await,
        _ => gateway(scene).await?,
    };
    Ok(seen)
}

/// The daemon's service, with the version of the packages. It may be active and get nowhere; that is for the agent to tell.
async fn service(scene: &Scene<'_>) -> Result<Seen> {
    let state = scene.run(&["systemctl", "is-active", "aziot-edged.service"]).await?;
    if !state.success {
        let status =
            scene.script("iotedge system status 2>&1 | grep -i down | head -n 3").await.unwrap_or_default();
        let words = because(scene, &format!("aziot-edged.service is {}", state.text())).await;
        let status = status.lines().map(str::trim).collect::<Vec<_>>().join("; ");
        return Ok(Err(if status.is_empty() { words } else { format!("{words}; {status}") }));
    }
    let version = scene.script("iotedge version 2>/dev/null || iotedge --version 2>/dev/null").await?;
    Ok(Ok(format!("{}, {}", state.text(), version.lines().next().unwrap_or("iotedge").trim())))
}

/// What is wrong, with its cause if the journal tells one.
async fn because(scene: &Scene<'_>, what: &str) -> String {
    let journal = scene.script(journal::READ).await.unwrap_or_default();
    match journal::reason(&journal) {
        Some(reason) => format!("{what}; {reason}"),
        None => what.to_owned(),
    }
}

async fn agent(scene: &Scene<'_>) -> Result<Seen> {
    let container = container(scene, AGENT).await?;
    let Some(container) = container else {
        return Ok(Err(because(scene, "aziot-edged has not made edgeAgent").await));
    };
    if !container.state.is_running() {
        let seen = with_agents_words(scene, Err(container.state.told(AGENT))).await;
        return Ok(match seen {
            Err(words) => Err(because(scene, &words).await),
            fine => fine,
        });
    }
    match reported(scene).await? {
        Some(reported) => Ok(with_agents_words(scene, reported.seen()).await),
        None => Ok(Ok(format!("{AGENT} is running"))),
    }
}

/// What the agent has told our own hub; the user's hub is not asked.
async fn reported(scene: &Scene<'_>) -> Result<Option<Reported>> {
    let Some(context) = scene.local_hub().filter(|_| scene.settings.hub.kind == Hub::Local) else {
        return Ok(None);
    };
    let service: ServiceClient = hub::service(context).await?;
    let twin = service.module_twin(scene.device, "$edgeAgent").await;
    let twin =
        twin.with_context(|| format!("the hub does not tell the twin of `{}/$edgeAgent`", scene.device))?;
    Ok(Some(Reported::of(&twin)))
}

/// The deployment as the agent reports it.
#[derive(Debug, PartialEq, Eq)]
struct Reported {
    wanted: Option<u64>,
    version: Option<u64>,
    code: Option<i64>,
    description: String,
}

impl Reported {
    fn of(twin: &Value) -> Self {
        let at = |pointer: &str| twin.pointer(&format!("/properties/{pointer}"));
        Self {
            wanted: at("desired/$version").and_then(Value::as_u64),
            version: at("reported/lastDesiredVersion").and_then(Value::as_u64),
            code: at("reported/lastDesiredStatus/code").and_then(Value::as_i64),
            description: at("reported/lastDesiredStatus/description")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        }
    }

    fn seen(&self) -> Seen {
        match (self.version, self.code) {
            (None, _) => Err(format!("{AGENT} is running, and has reported nothing to the hub yet")),
            (Some(version), Some(200)) if self.version == self.wanted => {
                Ok(format!("deployment {version} applied"))
            }
            (Some(version), Some(200) | None) => {
                let wanted = self.wanted.unwrap_or_default();
                Err(format!("{AGENT} has deployment {version}, and the hub {wanted}"))
            }
            (Some(_), Some(code)) => Err(format!("the deployment has status {code}: {}", self.description)),
        }
    }
}

/// What is wrong, with the last failure that the agent has told in its own log.
async fn with_agents_words(scene: &Scene<'_>, seen: Seen) -> Seen {
    let Err(what) = seen else { return seen };
    let log = scene.script(&format!("docker logs --tail 200 {AGENT} 2>&1")).await.unwrap_or_default();
    Err(match journal::last_failure(&log) {
        Some(failure) => format!("{what}; {AGENT} says: {failure}"),
        None => what,
    })
}

async fn running(scene: &Scene<'_>, name: &str) -> Result<Seen> {
    Ok(match container(scene, name).await? {
        None => Err(format!("{name} is not there")),
        Some(container) if container.state.is_running() => {
            let restarts = restarts(scene, name).await;
            Ok(format!("{name} is running{restarts}"))
        }
        Some(container) => Err(container.state.told(name)),
    })
}

/// How often the agent has started it anew: the engine does not count that, the agent's own state does.
async fn restarts(scene: &Scene<'_>, name: &str) -> String {
    let Some(context) = scene.local_hub().filter(|_| scene.settings.hub.kind == Hub::Local) else {
        return String::new();
    };
    let Ok(service) = hub::service(context).await else { return String::new() };
    let twin = service.module_twin(scene.device, "$edgeAgent").await.unwrap_or_default();
    match twin.pointer(&format!("/properties/reported/modules/{name}/restartCount")).and_then(Value::as_u64) {
        Some(count) if count > 0 => format!(", restarted {count} times"),
        _ => String::new(),
    }
}

async fn gateway(scene: &Scene<'_>) -> Result<Seen> {
    let seen = running(scene, GATEWAY).await?;
    if seen.is_err() {
        return Ok(with_agents_words(scene, seen).await);
    }
    let listeners = scene.script(LISTENS).await?;
    if listeners.trim().parse::<u32>().unwrap_or_default() == 0 {
        let what = format!(
            "{GATEWAY} is running, and nothing listens on port 8883 of the pod: its createOptions have no such PortBindings"
        );
        return Ok(Err(what));
    }
    let certificate = scene.script(CERTIFICATE).await?;
    Ok(match described(&certificate) {
        Some(certificate) => Ok(format!("{GATEWAY} is running, {certificate}")),
        None => Err(format!("{GATEWAY} is running, and does not answer with a certificate on port 8883 yet")),
    })
}

/// Subject and end of a certificate, as `openssl` prints them.
fn described(text: &str) -> Option<String> {
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    let subject = field("subject=")?.replace(" = ", "=");
    Some(format!("certificate {} until {}", subject.trim(), field("notAfter=")?.trim()))
}

/// A container as `docker inspect` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    state: State,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    error: String,
}

impl State {
    fn is_running(&self) -> bool {
        self.status == "running"
    }

    fn told(&self, name: &str) -> String {
        let mut text = format!("{name} is {}", self.status);
        if self.status == "exited" || self.status == "dead" {
            text.push_str(&format!(", code {}", self.exit_code));
        }
        if !self.error.is_empty() {
            text.push_str(&format!(": {}", self.error));
        }
        text
    }
}

/// The container of this name; `None` when there is none.
async fn container(scene: &Scene<'_>, name: &str) -> Result<Option<Container>> {
    let output = scene.run(&["docker", "inspect", "--type", "container", name]).await?;
    // One that is missing is a failure with an empty list; anything else that fails prints no list.
    let all: Vec<Container> = serde_json::from_str(&output.stdout)
        .with_context(|| format!("the inner engine does not tell of {name}: {}", output.text()))?;
    Ok(all.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reported(version: u64, code: Option<i64>) -> Reported {
        let status = json!({ "code": code, "description": "no such image" });
        let twin = json!({ "properties": {
            "desired": { "$version": 3 },
            "reported": { "lastDesiredVersion": version, "lastDesiredStatus": status },
        } });
        Reported::of(&twin)
    }

    #[test]
    fn the_agent_is_well_when_it_has_applied_what_the_hub_wants() {
        assert_eq!(reported(3, Some(200)).seen().unwrap(), "deployment 3 applied");
        assert_eq!(reported(2, Some(200)).seen().unwrap_err(), "edgeAgent has deployment 2, and the hub 3");
        assert_eq!(
            reported(3, Some(406)).seen().unwrap_err(),
            "the deployment has status 406: no such image"
        );
        let nothing =
            Reported::of(&json!({ "properties": { "desired": { "$version": 3 }, "reported": {} } }));
        assert!(nothing.seen().unwrap_err().contains("has reported nothing"));
    }

    #[test]
    fn a_container_that_does_not_run_is_told_with_its_end() {
        let text = r#"[{"Id":"1","RestartCount":0,"State":{"Status":"exited","Running":false,"ExitCode":139,"Error":""}},
            {"State":{"Status":"created","ExitCode":0,"Error":"port is already allocated"}},{"State":{"Status":"running"}}]"#;
        let all: Vec<Container> = serde_json::from_str(text).unwrap();
        assert_eq!(all[0].state.told("edgeHub"), "edgeHub is exited, code 139");
        assert_eq!(all[1].state.told("edgeHub"), "edgeHub is created: port is already allocated");
        assert!(all[2].state.is_running() && !all[1].state.is_running());
    }

    #[test]
    fn a_certificate_is_told_as_openssl_prints_it() {
        let text = "subject=CN = kedge-edge\nnotAfter=Dec 23 10:00:00 2026 GMT\n";
        assert_eq!(
            described(text).as_deref(),
            Some("certificate CN=kedge-edge until Dec 23 10:00:00 2026 GMT")
        );
        assert_eq!(described(""), None);
    }
}
