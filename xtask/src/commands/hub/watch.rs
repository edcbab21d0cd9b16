//! `cargo xtask hub watch`: telemetry as it arrives at the hub.
//!
//! Each look at the hub waits there for new messages. When it goes away, that is said once, and the watch goes on when it
//! is back, at the message after the last one; with a hub that was made anew, at its first.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kedge_sim::retry::pause;
use kedge_sim::service::{ServiceClient, TelemetryFilter, TelemetryMessage, TelemetryPage};

use crate::session::Setup;
use crate::steps::hub;

/// How long the hub may wait for new messages before it answers that there are none.
const POLL: Duration = Duration::from_secs(20);
/// How often a hub that is away is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// Flags of `hub watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of this device alone
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Of modules with this id alone
    #[arg(long, value_name = "ID")]
    module: Option<String>,
    /// Begin with the messages that the hub has already
    #[arg(long)]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Prints telemetry until Ctrl-C, or until there was as much as was asked for.
///
/// # Errors
/// When there is no hub at the beginning, or it refuses.
pub(super) async fn run(setup: Setup, args: &Args) -> Result<()> {
    let found = service(&setup).await?;
    found.health().await.context("the hub does not answer")?;
    let mut watch = Watch {
        filter: TelemetryFilter { device_id: args.device.clone(), module_id: args.module.clone() },
        since: if args.all { Timestamp::UNIX_EPOCH } else { Timestamp::now() },
        left: args.count,
        json: args.json,
        after: 0,
    };
    // Ctrl-C is how a watch ends, so it is no failure.
    let find = async || {
        pause(RETRY, &setup.cancel).await;
        service(&setup).await
    };
    setup.cancel.run_until_cancelled(watch.follow(found, find, &mut io::stdout())).await.unwrap_or(Ok(()))
}

async fn service(setup: &Setup) -> Result<ServiceClient> {
    let context = setup.clone().attach().await?;
    hub::service(&context).await
}

struct Watch {
    filter: TelemetryFilter,
    /// Older messages are passed over.
    since: Timestamp,
    /// How many are still to be printed.
    left: Option<u64>,
    json: bool,
    /// The message after which to go on.
    after: u64,
}

impl Watch {
    /// Prints what arrives until there was enough. A hub that went away is looked for by `find`.
    async fn follow(
        &mut self,
        mut service: ServiceClient,
        find: impl AsyncFn() -> Result<ServiceClient>,
        out: &mut impl io::Write,
    ) -> Result<()> {
        loop {
            match service.telemetry(&self.filter, self.after, POLL).await {
                Ok(page) => {
                    if !self.show(&page, out)? {
                        return Ok(());
                    }
                }
                Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                    return Err(error.into());
                }
                Err(error) => {
                    eprintln!("the hub is away ({:#}); waiting for it", anyhow::Error::from(error));
                    service = self.find_again(&find).await;
                    eprintln!("the hub is back");
                }
            }
        }
    }

    /// Waits until the hub answers again, wherever it is then.
    async fn find_again(&mut self, find: impl AsyncFn() -> Result<ServiceClient>) -> ServiceClient {
        loop {
            let Ok(service) = find().await else { continue };
            // A hub that does not have the last message was made anew, and counts from the beginning.
            let last = self.after.saturating_sub(1);
            match service.telemetry(&TelemetryFilter::default(), last, Duration::ZERO).await {
                Ok(page) if page.messages.is_empty() => self.after = 0,
                Ok(_) => {}
                Err(_) => continue,
            }
            return service;
        }
    }

    /// Prints a page; `false` when enough was printed, or nobody reads any more.
    fn show(&mut self, page: &TelemetryPage, out: &mut impl io::Write) -> Result<bool> {
        let mut text = String::new();
        for message in page.messages.iter().filter(|message| message.enqueued_time_utc >= self.since) {
            if self.left == Some(0) {
                break;
            }
            text += &if self.json { serde_json::to_string(message)? } else { line(message) };
            text.push('\n');
            self.left = self.left.map(|left| left - 1);
        }
        self.after = page.next;
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(self.left != Some(0)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("failed to print"),
        }
    }
}

/// A message for people: when, from whom, its output, its body, its properties.
fn line(message: &TelemetryMessage) -> String {
    let module = message.module_id.as_ref().map(|module| format!("/{module}")).unwrap_or_default();
    let mut line =
        format!("{} {}{module}", message.enqueued_time_utc.strftime("%H:%M:%S%.3f"), message.device_id);
    let output = message.system_properties.iter().find(|(name, _)| name.ends_with("output-name"));
    if let Some((_, output)) = output {
        let _ = write!(line, " {output}");
    }
    match (&message.body, &message.body_base64) {
        (Some(body), _) => line.extend([" ", body]),
        (None, Some(body)) => line.extend([" base64:", body]),
        (None, None) => {}
    }
    for (name, value) in &message.properties {
        let _ = write!(line, " {name}={value}");
    }
    visible(&line)
}

/// The text on one line, with nothing in it that would act on a terminal.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

#[cfg(test)]
mod tests;
