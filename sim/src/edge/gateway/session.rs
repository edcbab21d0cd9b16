//! One client of the gateway after its CONNECT, to its end.

use std::future::ready;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt, poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use super::calls::Calls;
use super::delivery::{InFlight, OnAcknowledgement};
use super::end::End;
use super::inputs::Inputs;
use super::intake::{Intake, Message, NotTaken};
use super::registry::Registration;
use super::relay::{FromHub, Relay};
use super::subscriptions::Subscriptions;
use crate::edge::routes::MessageKind;
use crate::identity::Identity;
use crate::mqtt::packet::{self, PubAck, SubAck, SubscribeReasonCode};
use crate::mqtt::{Connection, Packet, QoS, Reader, Writer};
use crate::topics::{ClientTopic, HubTopic, MAX_MESSAGE, PropertyBag, Subscription, system};

/// A client that does not take its packets loses the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages of one client that may wait for the disk; then its packets are left in the transport.
const WINDOW: usize = 64;

/// A message that waits for room in the store.
pub(super) type Waiting = BoxFuture<'static, Result<Pending, End>>;
/// An acknowledgement that waits for the disk or the hub, when the client asked for one.
pub(super) type Pending = BoxFuture<'static, Result<Option<Packet>, End>>;

/// A subscription that the hub has to grant as well.
type Begun = BoxFuture<'static, ()>;

fn puback(id: Option<u16>) -> Option<Packet> {
    id.map(|id| Packet::PubAck(PubAck::new(id)))
}

/// A client that was let in.
pub(super) struct Session<'a> {
    pub(super) identity: &'a Identity,
    pub(super) intake: Intake,
    pub(super) registration: &'a Registration<'a>,
    pub(super) subscriptions: Subscriptions,
    pub(super) relay: Relay,
    pub(super) inputs: Inputs,
    pub(super) calls: Calls,
    pub(super) in_flight: InFlight,
    /// While there is one, nothing more is read from the client.
    pub(super) waiting: Option<Waiting>,
    pub(super) pending: FuturesOrdered<Pending>,
}

impl Session<'_> {
    /// Talks to the client until it leaves; `silence` is how long it may say nothing.
    pub(super) async fn run<S>(&mut self, connection: Connection<S>, silence: Duration) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        for subscription in self.subscriptions.iter().cloned().collect::<Vec<_>>() {
            drop(self.begin(subscription));
        }
        let (mut reader, mut writer) = connection.split();
        let mut deadline = Instant::now() + silence;
        loop {
            let readable = self.is_readable();
            let step = self.step(&mut reader, &mut writer, &mut deadline, silence).await;
            // Time in which the client was not read does not count as its silence.
            if !readable {
                deadline = Instant::now() + silence;
            }
            if let Err(end) = step {
                return end;
            }
            match timeout(WRITE_TIMEOUT, writer.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return End::Silent,
            }
        }
    }

    fn is_readable(&self) -> bool {
        self.pending.len() < WINDOW && self.waiting.is_none()
    }

    /// Does the next thing that is to be done; its packets wait for a flush.
    async fn step<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut Reader<R>,
        writer: &mut Writer<W>,
        deadline: &mut Instant,
        silence: Duration,
    ) -> Result<(), End> {
        let (readable, has_room) = (self.is_readable(), self.in_flight.has_room());
        let waiting = async {
            match &mut self.waiting {
                Some(waiting) => waiting.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = self.pending.next() => self.acknowledge(writer, done),
            taken = waiting => {
                self.waiting = None;
                self.pending.push_back(taken?);
                Ok(())
            }
            from_hub = self.relay.next(), if has_room => self.relayed(writer, from_hub),
            message = self.inputs.next(), if has_room => {
                let (id, publish) = message?;
                let subscription = Subscription::ModuleInputs(self.identity.clone());
                self.deliver(writer, publish, &subscription, OnAcknowledgement::Stored(id))
            }
            call = self.calls.next(), if has_room => {
                self.deliver(writer, call, &Subscription::MethodCalls, OnAcknowledgement::Nothing)
            }
            read = timeout_at(*deadline, reader.read()), if readable => {
                let mut packet = read.map_err(|_| End::Silent)??.ok_or(End::Closed)?;
                *deadline = Instant::now() + silence;
                loop {
                    self.received(packet, writer).await?;
                    if !self.is_readable() {
                        return Ok(());
                    }
                    let Some(next) = reader.read_ready()? else { return Ok(()) };
                    packet = next;
                }
            }
        }
    }

    /// Acknowledges what is stored, as far as that is known without waiting.
    fn acknowledge<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut Writer<W>,
        mut done: Result<Option<Packet>, End>,
    ) -> Result<(), End> {
        loop {
            if let Some(acknowledgement) = done? {
                writer.queue(&acknowledgement)?;
            }
            match self.pending.next().now_or_never() {
                Some(Some(next)) => done = next,
                _ => return Ok(()),
            }
        }
    }

    async fn received<W: AsyncWrite + Unpin>(
        &mut self,
        packet: Packet,
        writer: &mut Writer<W>,
    ) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => return self.published(publish).await,
            Packet::Subscribe(subscribe) => {
                let filters = subscribe.filters.iter();
                let granted = filters.map(|filter| self.subscribed(&filter.path, filter.qos));
                let (codes, begun): (_, Vec<_>) = granted.unzip();
                let answer = Packet::SubAck(SubAck::new(subscribe.pkid, codes));
                self.pending.push_back(Box::pin(async move {
                    join_all(begun.into_iter().flatten()).await;
                    Ok(Some(answer))
                }));
            }
            Packet::Unsubscribe(unsubscribe) => {
                for subscription in
                    unsubscribe.topics.iter().filter_map(|topic| Subscription::parse(topic).ok())
                {
                    self.end(&subscription);
                }
                writer.queue(&Packet::UnsubAck(packet::UnsubAck { pkid: unsubscribe.pkid }))?;
            }
            Packet::PingReq => writer.queue(&Packet::PingResp)?,
            Packet::PubAck(ack) => {
                let then = self.in_flight.acknowledged(ack.pkid);
                self.arrived(then.unwrap_or(OnAcknowledgement::Nothing));
            }
            Packet::Disconnect => return Err(End::Goodbye),
            Packet::Connect(_) => return Err(End::Unexpected("second CONNECT")),
            _ => return Err(End::Unexpected("packet that only servers send, or a QoS 2")),
        }
        Ok(())
    }

    async fn published(&mut self, publish: packet::Publish) -> Result<(), End> {
        let id = match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(publish.pkid),
            QoS::ExactlyOnce => return Err(End::Unexpected("QoS 2")),
        };
        if publish.topic.len() + publish.payload.len() > MAX_MESSAGE {
            return Err(NotTaken::TooLarge.into());
        }
        let topic = ClientTopic::parse(&publish.topic);
        let body = publish.payload;
        let mut message = None;
        match topic.map_err(|source| End::bad_topic(&publish.topic, source))? {
            ClientTopic::Telemetry { identity, .. } if identity != *self.identity => {
                return Err(End::foreign_topic(&publish.topic));
            }
            ClientTopic::Telemetry { identity: sender, properties } => {
                message = Some(Message { kind: MessageKind::Telemetry, sender, properties, body });
            }
            ClientTopic::TwinGet { request_id } => self.relay.twin(request_id, publish.topic, body),
            ClientTopic::ReportedPatch { request_id } => {
                message = Some(self.twin_change(body.clone()));
                self.relay.twin(request_id, publish.topic, body);
            }
            ClientTopic::MethodResponse { status, request_id } => {
                if !self.calls.answered(&request_id, status, &body) {
                    self.relay.method_response(publish.topic, body);
                }
            }
        }
        let Some(message) = message else {
            self.pending.push_back(Box::pin(ready(Ok(puback(id)))));
            return Ok(());
        };
        let stored = self.intake.clone().take_over(message);
        let mut waiting: Waiting = Box::pin(async move {
            let stored = stored.await?;
            let pending: Pending = Box::pin(async move {
                stored.await?;
                Ok(puback(id))
            });
            Ok(pending)
        });
        match poll!(&mut waiting) {
            Poll::Ready(taken) => self.pending.push_back(taken?),
            Poll::Pending => self.waiting = Some(waiting),
        }
        Ok(())
    }

    /// The notice that the real gateway makes of each change that a client reports, for the routes that want it.
    fn twin_change(&self, body: Bytes) -> Message {
        let properties = [
            (system::MESSAGE_SCHEMA, "twinChangeNotification"),
            (system::CONTENT_TYPE, "application/json"),
            (system::CONTENT_ENCODING, "utf-8"),
        ];
        let properties = PropertyBag::from_iter(properties);
        Message { kind: MessageKind::TwinChange, sender: self.identity.clone(), properties, body }
    }

    /// Decides about a filter. What follows is complete when messages come.
    fn subscribed(&mut self, filter: &str, wish: QoS) -> (SubscribeReasonCode, Option<Begun>) {
        match Subscription::parse(filter) {
            Ok(subscription) if subscription.is_open_to(self.identity) => {
                let qos = self.subscriptions.add(subscription.clone(), wish);
                (SubscribeReasonCode::Success(qos), self.begin(subscription))
            }
            _ => (SubscribeReasonCode::Failure, None),
        }
    }

    /// Does what a subscription needs.
    fn begin(&mut self, subscription: Subscription) -> Option<Begun> {
        match subscription {
            // Answers come to those who ask.
            Subscription::TwinResponses => return None,
            Subscription::ModuleInputs(_) => {
                self.inputs.want(true);
                return None;
            }
            Subscription::MethodCalls => self.registration.takes_calls(true),
            Subscription::DesiredPatches | Subscription::CloudToDevice(_) => {}
        }
        Some(Box::pin(self.relay.want(subscription)))
    }

    fn end(&mut self, subscription: &Subscription) {
        self.subscriptions.remove(subscription);
        match subscription {
            Subscription::TwinResponses => {}
            Subscription::ModuleInputs(_) => self.inputs.want(false),
            Subscription::MethodCalls => {
                self.registration.takes_calls(false);
                self.relay.forget(subscription);
            }
            Subscription::DesiredPatches | Subscription::CloudToDevice(_) => self.relay.forget(subscription),
        }
    }

    fn relayed<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut Writer<W>,
        from_hub: FromHub,
    ) -> Result<(), End> {
        let FromHub { publish, token } = from_hub;
        let subscription = match HubTopic::parse(&publish.topic) {
            Ok(HubTopic::TwinResponse { .. }) => Subscription::TwinResponses,
            Ok(HubTopic::DesiredPatch { .. }) => Subscription::DesiredPatches,
            Ok(HubTopic::MethodCall { .. }) => Subscription::MethodCalls,
            Ok(HubTopic::CloudToDevice { identity, .. }) => Subscription::CloudToDevice(identity),
            Ok(HubTopic::ModuleInput { .. }) | Err(_) => {
                tracing::debug!(topic = publish.topic, "ignored a publish of the hub");
                return Ok(());
            }
        };
        let then = token.map_or(OnAcknowledgement::Nothing, OnAcknowledgement::FromHub);
        self.deliver(writer, publish, &subscription, then)
    }

    /// Sends a publish to the client, when it has subscribed to it.
    fn deliver<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut Writer<W>,
        mut publish: packet::Publish,
        subscription: &Subscription,
        then: OnAcknowledgement,
    ) -> Result<(), End> {
        let Some(qos) = self.subscriptions.qos(subscription) else { return Ok(()) };
        let at_once = self.in_flight.enter(&mut publish, qos, then);
        writer.queue(&Packet::Publish(publish))?;
        if let Some(then) = at_once {
            self.arrived(then);
        }
        Ok(())
    }

    /// The client has a packet.
    fn arrived(&mut self, then: OnAcknowledgement) {
        match then {
            OnAcknowledgement::Nothing => {}
            OnAcknowledgement::Stored(id) => self.inputs.done(id),
            OnAcknowledgement::FromHub(token) => self.relay.complete(token),
        }
    }
}
