//! A module that sends numbered messages at an even pace, and keeps in a ledger which of them were acknowledged.
//!
//! After any failure it goes on with the first number that is not in the ledger, so what is sent again is what may have
//! been acknowledged without its knowing. Numbers begin at 1.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Ledger;
use crate::module_client::ModuleClient;
use crate::mqtt::ClientError;
use crate::retry::Backoff;
use crate::sensor::EdgeEnvironment;
use crate::topics::{ClientTopic, PropertyBag, system};

/// Property with the number of a message.
pub const NUMBER: &str = "sequenceNumber";
/// Messages that may wait for their acknowledgement at once.
const WINDOW: usize = 16;

/// What to send.
#[derive(Debug, Clone)]
pub struct Producer {
    /// Messages a second.
    pub rate: u32,
    /// The number of the last message.
    pub count: u64,
    /// Where the acknowledged numbers are kept.
    pub ledger: PathBuf,
}

impl Producer {
    /// Sends until all is acknowledged, and then waits for the shutdown: a module that ended would be started again.
    pub async fn run(
        &self,
        environment: &EdgeEnvironment,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut ledger = Ledger::open(&self.ledger).context("the ledger cannot be used")?;
        println!("going on after {}", ledger.last());
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        while ledger.last() < self.count && !shutdown.is_cancelled() {
            let before = ledger.last();
            let sending = shutdown.run_until_cancelled(self.connect_and_send(environment, &mut ledger));
            if let Some(Err(error)) = sending.await {
                println!("after {}: {error:#}", ledger.last());
            }
            if ledger.last() > before {
                backoff.reset();
            }
            if ledger.last() < self.count {
                backoff.pause(shutdown).await;
            }
        }
        println!("ended at {} of {}", ledger.last(), self.count);
        shutdown.cancelled().await;
        Ok(())
    }

    async fn connect_and_send(
        &self,
        environment: &EdgeEnvironment,
        ledger: &mut Ledger,
    ) -> anyhow::Result<()> {
        let (link, token) = (environment.link().await?, environment.token().await?);
        let (client, _notices) = ModuleClient::connect(&link, &environment.identity, token).await?;
        let mut pace = interval(Duration::from_secs(1) / self.rate.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = FuturesOrdered::new();
        let mut next = ledger.last() + 1;
        while ledger.last() < self.count {
            tokio::select! {
                Some(acknowledged) = waiting.next(), if !waiting.is_empty() => {
                    let number: Result<u64, ClientError> = acknowledged;
                    ledger.note(number?).context("the ledger cannot be written")?;
                }
                _ = pace.tick(), if waiting.len() < WINDOW && next <= self.count => {
                    let topic = topic(environment, next);
                    let publish = client.mqtt().start_publish(topic, body(next).into()).await?;
                    let number = next;
                    waiting.push_back(async move { publish.await.map(|()| number) });
                    next += 1;
                }
            }
        }
        Ok(())
    }
}

fn topic(environment: &EdgeEnvironment, number: u64) -> String {
    let mut properties = PropertyBag::new();
    properties.set(system::OUTPUT_NAME, "numbers");
    properties.set(system::CONTENT_TYPE, "application/json");
    properties.set(system::CONTENT_ENCODING, "utf-8");
    properties.set(NUMBER, number.to_string());
    ClientTopic::Telemetry { identity: environment.identity.clone(), properties }.to_string()
}

fn body(number: u64) -> String {
    format!("{{\"number\": {number}}}")
}
