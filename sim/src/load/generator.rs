//! Many MQTT clients at once: connecting and staying, or publishing with QoS 1 as fast as the server acknowledges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesOrdered};
use jiff::Timestamp;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::mqtt::{Client, Incoming, MAX_PACKET, Options};
use crate::secret::Secret;
use crate::tls::{self, Endpoint};

/// How many handshakes are under way at once.
const HANDSHAKES: usize = 16;
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// The server.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it is, and the name of its certificate.
    pub endpoint: Endpoint,
    /// How TLS is spoken; without it the connection is plain.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A client's credentials and topic.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    client_id: String,
    username: String,
    password: Secret,
    topic: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// When the first message was sent.
    pub started: Timestamp,
    /// All messages; each was acknowledged in the end.
    pub sent: u64,
    /// Messages that were acknowledged within the time.
    pub messages: u64,
    /// The time, in seconds.
    pub seconds: f64,
    /// From sending to the acknowledgement, in milliseconds: half of the messages took at most this.
    pub median_milliseconds: f64,
    /// 99 of 100 took at most this.
    pub slow_milliseconds: f64,
}

/// Clients that are connected.
#[derive(Debug)]
pub struct Clients(Vec<(Client, Incoming, String)>);

impl Clients {
    /// Connects all of them.
    pub async fn connect(target: &Target, accounts: Vec<Account>) -> anyhow::Result<Self> {
        let connecting = stream::iter(accounts).map(|account| open(target, account)).buffered(HANDSHAKES);
        let connected: Vec<_> = connecting.collect().await;
        Ok(Self(connected.into_iter().collect::<anyhow::Result<_>>()?))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Publishes bodies of `size` bytes for `time`, each client with at most `window` messages that are not
    /// acknowledged, and waits for the last acknowledgements.
    pub async fn publish(self, time: Duration, window: usize, size: usize) -> anyhow::Result<Figures> {
        let body = bytes::Bytes::from(vec![b'x'; size]);
        let (started, began) = (Timestamp::now(), Instant::now());
        let mut tasks = JoinSet::new();
        for (client, incoming, topic) in self.0 {
            let body = body.clone();
            tasks.spawn(async move {
                // Dropping it would end the connection's queue.
                let _incoming = incoming;
                publish(&client, &topic, &body, began + time, window).await
            });
        }
        let (mut latencies, mut sent) = (Vec::new(), 0);
        while let Some(done) = tasks.join_next().await {
            let (in_time, all) = done.context("a client has failed")??;
            latencies.extend(in_time);
            sent += all;
        }
        let seconds = time.as_secs_f64();
        latencies.sort_unstable();
        let at = |part: usize| {
            let found = latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
            found.as_secs_f64() * 1000.0
        };
        Ok(Figures {
            started,
            sent,
            messages: latencies.len() as u64,
            seconds,
            median_milliseconds: at(50),
            slow_milliseconds: at(99),
        })
    }
}

/// Publishes until the end; how long each acknowledgement took that came in time, and how many messages there were.
async fn publish(
    client: &Client,
    topic: &str,
    body: &bytes::Bytes,
    end: Instant,
    window: usize,
) -> anyhow::Result<(Vec<Duration>, u64)> {
    let (mut latencies, mut sent) = (Vec::new(), 0);
    let mut waiting = FuturesOrdered::new();
    while Instant::now() < end {
        if waiting.len() < window {
            let begun = Instant::now();
            let acknowledged = client.start_publish(topic.to_owned(), body.clone()).await?;
            sent += 1;
            waiting.push_back(async move { acknowledged.await.map(|()| begun.elapsed()) });
        } else if let Some(latency) = waiting.next().await {
            latencies.push(latency?);
        }
    }
    while let Some(late) = waiting.next().await {
        late?;
    }
    Ok((latencies, sent))
}

async fn open(target: &Target, account: Account) -> anyhow::Result<(Client, Incoming, String)> {
    let options = Options {
        client_id: account.client_id,
        username: account.username,
        password: account.password,
        keep_alive: KEEP_ALIVE,
        clean_session: false,
        manual_acknowledgements: false,
        max_packet: MAX_PACKET,
    };
    let (client, incoming) = match &target.tls {
        Some(config) => {
            let stream = tls::connect(&target.endpoint, config.clone()).await;
            let stream = stream.with_context(|| format!("{} cannot connect", options.client_id))?;
            Client::connect(stream, &options).await
        }
        None => {
            let address = target.endpoint.address.context("the address of the server is missing")?;
            let stream = TcpStream::connect(address).await;
            let stream = stream.with_context(|| format!("{} cannot connect", options.client_id))?;
            stream.set_nodelay(true)?;
            Client::connect(stream, &options).await
        }
    }
    .with_context(|| format!("{} is not let in", options.client_id))?;
    Ok((client, incoming, account.topic))
}
