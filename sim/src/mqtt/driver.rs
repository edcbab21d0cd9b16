//! The task that owns a client's connection.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use rumqttc::mqttbytes::v4::{SubAck, SubscribeFilter, SubscribeReasonCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::client::{ClientError, Options};
use super::{Connection, Packet, QoS, packet};

/// Requests that may wait for the server's answer at once.
pub(super) const MAX_IN_FLIGHT: usize = 256;

type Reply = oneshot::Sender<Result<(), ClientError>>;

/// What a handle asks of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Publish(packet::Publish, Reply),
    Subscribe(Vec<String>, Reply),
    Unsubscribe(Vec<String>, Reply),
    Acknowledge(u16),
}

/// State of one connection.
pub(super) struct Driver<S> {
    connection: Connection<S>,
    commands: mpsc::Receiver<Command>,
    /// Ends with the last handle, also while no commands are received.
    handles: mpsc::Receiver<Infallible>,
    publishes: mpsc::Sender<packet::Publish>,
    keep_alive: Duration,
    /// Whether what arrives is acknowledged at once.
    acknowledges: bool,
    in_flight: BTreeMap<u16, Reply>,
    last_packet_id: u16,
    last_received: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(
        connection: Connection<S>,
        commands: mpsc::Receiver<Command>,
        handles: mpsc::Receiver<Infallible>,
        publishes: mpsc::Sender<packet::Publish>,
        options: &Options,
    ) -> Self {
        Self {
            connection,
            commands,
            handles,
            publishes,
            keep_alive: options.keep_alive,
            acknowledges: !options.manual_acknowledgements,
            in_flight: BTreeMap::new(),
            last_packet_id: 0,
            last_received: Instant::now(),
        }
    }

    /// Runs until the connection ends, and says why. Requests without an answer fail with
    /// [`ClientError::Closed`], because their reply channels are dropped here.
    pub(super) async fn run(mut self) -> ClientError {
        match self.exchange().await {
            Ok(()) => ClientError::Closed,
            Err(error) => error,
        }
    }

    async fn exchange(&mut self) -> Result<(), ClientError> {
        let mut ping = interval(self.keep_alive / 2);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.in_flight.len() < MAX_IN_FLIGHT;
            tokio::select! {
                packet = self.connection.read() => match packet? {
                    Some(packet) => self.received_with_others(packet)?,
                    None => return Ok(()),
                },
                command = self.commands.recv(), if has_room => match command {
                    Some(command) => self.requested_with_others(command)?,
                    None => return self.say_goodbye().await,
                },
                None = self.handles.recv(), if !has_room => return self.say_goodbye().await,
                _ = ping.tick() => {
                    if self.last_received.elapsed() > self.keep_alive + self.keep_alive / 2 {
                        return Err(ClientError::Silent);
                    }
                    self.connection.queue(&Packet::PingReq)?;
                }
            }
            self.flush().await?;
        }
    }

    /// The last handle has gone: nobody wants to know what becomes of the rest.
    async fn say_goodbye(&mut self) -> Result<(), ClientError> {
        self.connection.queue(&Packet::Disconnect)?;
        self.flush().await
    }

    /// Takes a packet, and those that have arrived with it.
    fn received_with_others(&mut self, first: Packet) -> Result<(), ClientError> {
        let mut next = Some(first);
        while let Some(packet) = next {
            self.received(packet)?;
            next = self.connection.read_ready()?;
        }
        Ok(())
    }

    /// Takes a request, and those that wait behind it, to be sent together.
    fn requested_with_others(&mut self, first: Command) -> Result<(), ClientError> {
        let mut next = Some(first);
        while let Some(command) = next {
            self.requested(command)?;
            let has_room = self.in_flight.len() < MAX_IN_FLIGHT;
            next = if has_room { self.commands.try_recv().ok() } else { None };
        }
        Ok(())
    }

    fn requested(&mut self, command: Command) -> Result<(), ClientError> {
        let id = self.next_packet_id();
        let (packet, reply) = match command {
            Command::Publish(mut publish, reply) => {
                publish.pkid = id;
                (Packet::Publish(publish), reply)
            }
            Command::Subscribe(filters, reply) => {
                let filters = filters.into_iter().map(|path| SubscribeFilter::new(path, QoS::AtLeastOnce));
                let mut subscribe = packet::Subscribe::new_many(filters);
                subscribe.pkid = id;
                (Packet::Subscribe(subscribe), reply)
            }
            Command::Unsubscribe(topics, reply) => {
                (Packet::Unsubscribe(packet::Unsubscribe { pkid: id, topics }), reply)
            }
            Command::Acknowledge(id) => return self.acknowledge(id),
        };
        match self.connection.queue(&packet) {
            // The request cannot be sent on any connection; this one is unharmed.
            Err(error @ (super::Error::TooLarge { .. } | super::Error::Unencodable(_))) => {
                let _ = reply.send(Err(error.into()));
            }
            Err(error) => return Err(error.into()),
            Ok(()) => {
                self.in_flight.insert(id, reply);
            }
        }
        Ok(())
    }

    fn received(&mut self, packet: Packet) -> Result<(), ClientError> {
        self.last_received = Instant::now();
        match packet {
            Packet::Publish(publish) => self.deliver(publish),
            Packet::PubAck(ack) => {
                self.answer(ack.pkid, Ok(()));
                Ok(())
            }
            Packet::SubAck(SubAck { pkid, return_codes }) => {
                let refused = return_codes.contains(&SubscribeReasonCode::Failure);
                self.answer(pkid, if refused { Err(ClientError::SubscriptionRefused) } else { Ok(()) });
                Ok(())
            }
            Packet::UnsubAck(ack) => {
                self.answer(ack.pkid, Ok(()));
                Ok(())
            }
            Packet::PingResp => Ok(()),
            _ => Err(ClientError::Unexpected("a packet that only clients send")),
        }
    }

    /// An answer to an unknown request is harmless: the caller may have gone.
    fn answer(&mut self, id: u16, result: Result<(), ClientError>) {
        if let Some(reply) = self.in_flight.remove(&id) {
            let _ = reply.send(result);
        }
    }

    fn deliver(&mut self, publish: packet::Publish) -> Result<(), ClientError> {
        let (qos, id) = (publish.qos, publish.pkid);
        match self.publishes.try_send(publish) {
            // Without a receiver nobody wants to know.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(ClientError::Overflow),
        }
        match qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce if !self.acknowledges => Ok(()),
            QoS::AtLeastOnce => self.acknowledge(id),
            QoS::ExactlyOnce => Err(ClientError::Unexpected("a publish with QoS 2")),
        }
    }

    fn acknowledge(&mut self, id: u16) -> Result<(), ClientError> {
        Ok(self.connection.queue(&Packet::PubAck(packet::PubAck::new(id)))?)
    }

    /// Sends what was queued. A peer that stopped reading must not block the driver for ever.
    async fn flush(&mut self) -> Result<(), ClientError> {
        timeout(self.keep_alive, self.connection.flush()).await.map_err(|_| ClientError::Silent)??;
        Ok(())
    }

    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if self.last_packet_id != 0 && !self.in_flight.contains_key(&self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }
}
