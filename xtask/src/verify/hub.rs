//! The last layer: what the hub says has arrived. Our own is asked over its service side, the user's at its
//! Event-Hub-compatible endpoint.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use kedge_sim::service::{ServiceClient, TelemetryFilter, TelemetryMessage};
use kedge_sim::tls::{Trust, client_config};
use rustls::ClientConfig;
use tokio::sync::Mutex;

use super::cause::{Cause, Kind, Lasting};
use super::layers::Name;
use super::scene::Scene;
use super::silence::{self, Quiet};
use super::telemetry::{Evidence, Expectation, Verdict, judge};
use crate::arrival::{EventHub, ReadError, Reader, Sender, az};
use crate::edge_config::SENSOR_MODULE;
use crate::settings::Hub;
use crate::steps::hub;
use crate::wait::{Observation, wait_for};

/// How long one request to the hub waits for new messages.
const POLL: Duration = Duration::from_secs(5);
/// What a module is told about itself.
const IDENTITY: &str = "docker inspect --type container --format '{{range .Config.Env}}{{println .}}{{end}}'";
const DEVICE: &str = "IOTEDGE_DEVICEID=";
const HOST: &str = "IOTEDGE_IOTHUBHOSTNAME=";
/// What has to be given.
const GIVE: &str = "give the hub's Event-Hub-compatible connection string with `--events FILE` (or `-` for standard input, \
                    or `env:NAME`), or log in with `az`";

const LOST: &str =
    "see `cargo xtask logs hub` and `cargo xtask logs edge` for what happened to the messages in between";
const START: &str = "start the hub: `cargo xtask up`";

/// Whether telemetry has arrived.
pub(super) enum Arrival {
    /// It has.
    Proved(Vec<Evidence>),
    /// Nobody could say; the text says what to give.
    NotProved(String),
    /// What arrives, or does not, is wrong.
    Broken(Cause),
}

/// Waits until the hub proves what is wanted.
pub(super) async fn arrival(scene: &Scene<'_>, limit: Duration) -> Result<Arrival> {
    match (scene.settings.hub.kind, scene.local_hub()) {
        (Hub::Local, Some(context)) => {
            let filter = TelemetryFilter {
                device_id: Some(scene.device.to_owned()),
                module_id: Some(SENSOR_MODULE.to_owned()),
            };
            let feed = Feed::Local { service: hub::service(context).await?, filter, after: 0 };
            collect(scene, scene.device, feed, limit).await
        }
        (Hub::Local, None) => {
            Ok(Arrival::NotProved("arrival was not proved: the local hub is not up on this machine".into()))
        }
        (Hub::Azure, _) => at_the_users(scene, limit).await,
    }
}

async fn at_the_users(scene: &Scene<'_>, limit: Duration) -> Result<Arrival> {
    // As whom the module sends, it knows best: the provisioning service may have given the device another id and hub.
    let told = scene.script(&format!("{IDENTITY} {SENSOR_MODULE}")).await?;
    let field = |name: &str| told.lines().find_map(|line| line.trim().strip_prefix(name));
    let device = field(DEVICE).unwrap_or(scene.device);
    let asked;
    let hub = match (scene.events, field(HOST)) {
        (Some(hub), _) => hub,
        (None, None) => return Ok(not_proved("the module does not tell which hub it sends to")),
        (None, Some(host)) => match az::event_hub(host, scene.cancel).await {
            Ok(hub) => {
                asked = hub;
                &asked
            }
            Err(why) => return Ok(not_proved(&why)),
        },
    };
    let feed = Feed::Azure {
        hub,
        group: &scene.settings.verify.consumer_group,
        sender: Sender { device: device.to_owned(), module: SENSOR_MODULE.to_owned() },
        since: scene.started,
        trust: client_config(Trust::SystemAnd(None))?,
        reader: None,
    };
    collect(scene, device, feed, limit).await
}

fn not_proved(why: &str) -> Arrival {
    Arrival::NotProved(format!("arrival was not proved: {why}; {GIVE}"))
}

/// Where messages come from.
enum Feed<'a> {
    Local {
        service: ServiceClient,
        filter: TelemetryFilter,
        after: u64,
    },
    Azure {
        hub: &'a EventHub,
        group: &'a str,
        sender: Sender,
        since: Timestamp,
        trust: Arc<ClientConfig>,
        reader: Option<Reader>,
    },
}

impl Feed<'_> {
    fn is_local(&self) -> bool {
        matches!(self, Self::Local { .. })
    }

    /// Adds what has arrived to what is known. A reader that is opened anew begins at the beginning.
    async fn next(&mut self, scene: &Scene<'_>, known: &mut Vec<TelemetryMessage>) -> Result<(), ReadError> {
        match self {
            Self::Local { service, filter, after } => {
                let page = service.telemetry(filter, *after, POLL).await;
                let page =
                    page.map_err(|error| ReadError::Passing(format!("{:#}", anyhow::Error::from(error))))?;
                known.extend(page.messages);
                *after = page.next;
            }
            Self::Azure { hub, group, sender, since, trust, reader } => {
                let open = match reader {
                    Some(open) => open,
                    None => {
                        known.clear();
                        let open = Reader::open(hub, group, sender, *since, Arc::clone(trust)).await?;
                        if let Some(note) = &open.note {
                            scene.progress.say(&format!("note: {note}"));
                        }
                        reader.insert(open)
                    }
                };
                match open.page(POLL).await {
                    Ok(page) => known.extend(page),
                    Err(error) => {
                        *reader = None;
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Judges the messages, and shows what was measured.
fn shown(scene: &Scene<'_>, known: &[TelemetryMessage], expected: &Expectation<'_>) -> Verdict {
    scene.progress.telemetry(expected.temperatures(known));
    judge(known, expected)
}

/// Reads telemetry from the hub until it proves what is wanted, or is known not to.
async fn collect(scene: &Scene<'_>, device: &str, feed: Feed<'_>, limit: Duration) -> Result<Arrival> {
    let expected = Expectation {
        device,
        module: SENSOR_MODULE,
        count: scene.settings.verify.messages,
        since: scene.started,
    };
    let quiet = Quiet::begin(silence::allowed(scene).await);
    let (state, lasting) = (Mutex::new((feed, Vec::new(), quiet)), Lasting::default());
    let proved = wait_for("telemetry at the hub", limit, || async {
        let (feed, known, quiet) = &mut *state.lock().await;
        let cause = match feed.next(scene, known).await {
            Ok(()) => match shown(scene, known, &expected) {
                Verdict::Proved(messages) => return Observation::Ready(messages),
                Verdict::Refuted(reason) => Cause::new(Kind::Telemetry, reason, LOST),
                Verdict::NotEnough(count) => {
                    let status =
                        format!("{count} of {} messages of {device}/{SENSOR_MODULE}", expected.count);
                    scene.progress.detail("telemetry", &status);
                    match (scene.death().await, quiet.is_over(count)) {
                        (Some(death), _) => Cause { kind: Kind::Ended, text: death, next: None },
                        (None, true) if feed.is_local() => silence::cause(scene, &expected, quiet).await,
                        (None, _) => Cause::passing(status),
                    }
                }
            },
            Err(ReadError::Refused(why)) => Cause { kind: Kind::Telemetry, text: why, next: None },
            // Our own hub is at hand: it answers, or is gone.
            Err(ReadError::Passing(why)) if feed.is_local() => {
                Cause::new(Kind::Hub, format!("the hub does not answer: {why}"), START)
            }
            Err(ReadError::Passing(why)) => Cause::passing(why),
        };
        match lasting.is_over(Name::Hub, &cause) {
            true => Observation::Failed(cause.text),
            false => Observation::NotYet(cause.text),
        }
    })
    .await;
    match (proved, lasting.last()) {
        (Ok(proved), _) => Ok(Arrival::Proved(proved)),
        (Err(_), Some((_, cause))) => Ok(Arrival::Broken(cause)),
        (Err(error), None) => Err(error.into()),
    }
}
