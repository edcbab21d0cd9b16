//! The clients that are connected now. IoT Hub allows one connection for each identity.
//!
//! What happens elsewhere and concerns a client waits in its mailbox, which is part of the state and takes no memory
//! when it is empty; the task of the connection is woken to fetch it. Method calls wait here for their answers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};

use super::store::DesiredChange;
use crate::identity::Identity;

/// Events that wait for a client. One that does not keep up is disconnected and reads its twin anew later.
const QUEUE: usize = 64;
/// Method calls to one client that may be without an answer.
const MAX_CALLS: usize = 32;

/// What a connection holds.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) connection_id: u64,
    /// Woken when there are events, and when the connection is over.
    pub(super) news: Arc<Notify>,
}

/// Something that concerns a connected client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Its desired properties changed.
    Desired(DesiredChange),
    /// A service calls a method.
    Method(MethodCall),
    /// Its queue of messages from services may have something to deliver.
    CloudMessage,
}

/// A method call on its way to a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MethodCall {
    pub(super) request_id: String,
    pub(super) name: String,
    pub(super) payload: Bytes,
}

/// What a client answered to a method call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MethodAnswer {
    pub(super) status: i32,
    pub(super) payload: Bytes,
}

/// Why something cannot be given to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It is not connected, or not for this.
    Offline,
    /// Too much waits for it already.
    Full,
}

/// The connections by identity.
#[derive(Debug, Default)]
pub(super) struct Connections {
    live: HashMap<Identity, Live>,
    last_id: u64,
    last_call: u64,
    /// Marked as changed when a client subscribes to method calls.
    listening: watch::Sender<()>,
}

#[derive(Debug)]
struct Live {
    connection_id: u64,
    news: Arc<Notify>,
    /// The edge device whose gateway has connected in the place of the client.
    gateway: Option<String>,
    events: VecDeque<Event>,
    takes_methods: bool,
    calls: HashMap<String, oneshot::Sender<MethodAnswer>>,
}

impl Connections {
    /// Enters a connection, which ends an older one.
    pub(super) fn open(&mut self, identity: &Identity) -> Ticket {
        self.evict(identity);
        self.last_id += 1;
        let (connection_id, news) = (self.last_id, Arc::new(Notify::new()));
        let live = Live {
            connection_id,
            news: news.clone(),
            gateway: None,
            events: VecDeque::new(),
            takes_methods: false,
            calls: HashMap::new(),
        };
        self.live.insert(identity.clone(), live);
        Ticket { connection_id, news }
    }

    /// Removes a connection that ended by itself; false when a newer one has its place.
    pub(super) fn close(&mut self, identity: &Identity, connection_id: u64) -> bool {
        self.current(identity, connection_id).is_some() && self.evict(identity)
    }

    /// Ends the connection of an identity; false when there was none. Calls that wait for it fail.
    pub(super) fn evict(&mut self, identity: &Identity) -> bool {
        let removed = self.live.remove(identity);
        removed.is_some_and(|live| {
            live.news.notify_one();
            true
        })
    }

    /// Notes that a connection is that of an edge device's gateway.
    pub(super) fn set_gateway(&mut self, identity: &Identity, connection_id: u64, gateway: Option<String>) {
        if let Some(live) = self.current(identity, connection_id) {
            live.gateway = gateway;
        }
    }

    /// The clients that are connected, by themselves or by the gateway of an edge device, and that are asked for.
    pub(super) fn identities(&self, which: impl Fn(&Identity, Option<&str>) -> bool) -> Vec<Identity> {
        let live = self.live.iter();
        let found = live.filter(|(identity, live)| which(identity, live.gateway.as_deref()));
        found.map(|(identity, _)| identity.clone()).collect()
    }

    /// False when the connection is over, although its task may not know yet.
    pub(super) fn is_current(&mut self, identity: &Identity, connection_id: u64) -> bool {
        self.current(identity, connection_id).is_some()
    }

    /// Puts an event into a client's mailbox.
    pub(super) fn notify(&mut self, identity: &Identity, event: Event) -> Result<(), NotTaken> {
        self.live.get_mut(identity).ok_or(NotTaken::Offline)?.put(event)
    }

    /// Empties the mailbox of a connection; `None` when the connection is over.
    pub(super) fn take(&mut self, identity: &Identity, connection_id: u64) -> Option<VecDeque<Event>> {
        self.current(identity, connection_id).map(|live| std::mem::take(&mut live.events))
    }

    /// Notes whether a client has subscribed to method calls.
    pub(super) fn set_takes_methods(&mut self, identity: &Identity, connection_id: u64, takes: bool) {
        if let Some(live) = self.current(identity, connection_id) {
            live.takes_methods = takes;
            if takes {
                self.listening.send_replace(());
            }
        }
    }

    /// Changes when a client begins to take method calls.
    pub(super) fn listening(&self) -> watch::Receiver<()> {
        self.listening.subscribe()
    }

    /// Sends a method call; the receiver has the answer, or fails when the connection ends before.
    pub(super) fn call(
        &mut self,
        identity: &Identity,
        name: &str,
        payload: Bytes,
    ) -> Result<oneshot::Receiver<MethodAnswer>, NotTaken> {
        let live = self.live.get_mut(identity).filter(|live| live.takes_methods);
        let live = live.ok_or(NotTaken::Offline)?;
        // Those whose callers no longer wait.
        live.calls.retain(|_, answer| !answer.is_closed());
        if live.calls.len() >= MAX_CALLS {
            return Err(NotTaken::Full);
        }
        self.last_call += 1;
        let request_id = format!("{:x}", self.last_call);
        let call = MethodCall { request_id: request_id.clone(), name: name.to_owned(), payload };
        live.put(Event::Method(call))?;
        let (answer, receiver) = oneshot::channel();
        live.calls.insert(request_id, answer);
        Ok(receiver)
    }

    /// Takes a client's answer to a method call. One that nobody waits for is dropped.
    pub(super) fn answer(
        &mut self,
        identity: &Identity,
        connection_id: u64,
        request_id: &str,
        answer: MethodAnswer,
    ) {
        let live = self.current(identity, connection_id);
        if let Some(caller) = live.and_then(|live| live.calls.remove(request_id)) {
            let _ = caller.send(answer);
        }
    }

    fn current(&mut self, identity: &Identity, connection_id: u64) -> Option<&mut Live> {
        self.live.get_mut(identity).filter(|live| live.connection_id == connection_id)
    }
}

impl Live {
    fn put(&mut self, event: Event) -> Result<(), NotTaken> {
        // One hint to look into the queue is as good as many.
        if event == Event::CloudMessage && self.events.contains(&event) {
            return Ok(());
        }
        if self.events.len() >= QUEUE {
            return Err(NotTaken::Full);
        }
        self.events.push_back(event);
        self.news.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn identity() -> Identity {
        Identity::module("d", "m").unwrap()
    }

    fn change(version: u64) -> Event {
        Event::Desired(DesiredChange { identity: identity(), version, patch: Default::default() })
    }

    #[test]
    fn a_newer_connection_ends_the_older_one_and_survives_its_end() {
        let mut connections = Connections::default();
        let older = connections.open(&identity());
        let newer = connections.open(&identity());
        assert!(older.news.notified().now_or_never().is_some(), "the older one is woken");
        assert_eq!(connections.take(&identity(), older.connection_id), None);
        let is_current = |connections: &mut Connections, id| connections.is_current(&identity(), id);
        assert!(!is_current(&mut connections, older.connection_id));
        assert!(is_current(&mut connections, newer.connection_id));
        assert!(!connections.close(&identity(), older.connection_id));
        assert_eq!(connections.take(&identity(), newer.connection_id), Some(VecDeque::new()));
        assert!(connections.close(&identity(), newer.connection_id));
        assert!(!connections.close(&identity(), newer.connection_id));
    }

    #[test]
    fn events_reach_the_connected_client_alone_and_in_order() {
        let mut connections = Connections::default();
        assert_eq!(connections.notify(&identity(), change(1)), Err(NotTaken::Offline));
        let ticket = connections.open(&identity());
        assert!(ticket.news.notified().now_or_never().is_none());
        for event in [change(2), Event::CloudMessage, change(3), Event::CloudMessage] {
            connections.notify(&identity(), event).unwrap();
        }
        assert!(ticket.news.notified().now_or_never().is_some());
        let events = connections.take(&identity(), ticket.connection_id).unwrap();
        assert_eq!(events, [change(2), Event::CloudMessage, change(3)]);
    }

    #[test]
    fn a_client_that_does_not_keep_up_is_told_apart() {
        let mut connections = Connections::default();
        let _ticket = connections.open(&identity());
        for version in 0..QUEUE as u64 {
            connections.notify(&identity(), change(version)).unwrap();
        }
        assert_eq!(connections.notify(&identity(), change(99)), Err(NotTaken::Full));
    }

    #[test]
    fn a_call_is_answered_once_and_only_by_the_connection_that_it_went_to() {
        let mut connections = Connections::default();
        let older = connections.open(&identity());
        let call = |connections: &mut Connections| connections.call(&identity(), "ping", Bytes::new());
        assert_eq!(call(&mut connections).unwrap_err(), NotTaken::Offline, "it has not subscribed");
        connections.set_takes_methods(&identity(), older.connection_id, true);
        let lost = call(&mut connections).unwrap();
        let newer = connections.open(&identity());
        assert!(lost.now_or_never().unwrap().is_err(), "its connection ended");
        connections.set_takes_methods(&identity(), older.connection_id, true);
        assert_eq!(call(&mut connections).unwrap_err(), NotTaken::Offline, "the older one says nothing here");
        connections.set_takes_methods(&identity(), newer.connection_id, true);
        let mut waiting = call(&mut connections).unwrap();
        let events = connections.take(&identity(), newer.connection_id).unwrap();
        let [Event::Method(MethodCall { request_id, .. })] = events.as_slices().0 else {
            panic!("{events:?}")
        };
        let answer = |status| MethodAnswer { status, payload: Bytes::new() };
        connections.answer(&identity(), older.connection_id, request_id, answer(1));
        connections.answer(&identity(), newer.connection_id, "other", answer(2));
        assert!(waiting.try_recv().is_err());
        connections.answer(&identity(), newer.connection_id, request_id, answer(3));
        connections.answer(&identity(), newer.connection_id, request_id, answer(4));
        assert_eq!(waiting.try_recv().unwrap().status, 3);
    }

    #[test]
    fn calls_without_an_answer_are_bounded_and_forgotten_with_their_callers() {
        let mut connections = Connections::default();
        let ticket = connections.open(&identity());
        connections.set_takes_methods(&identity(), ticket.connection_id, true);
        let mut call = || connections.call(&identity(), "ping", Bytes::new());
        let waiting: Vec<_> = (0..MAX_CALLS).map(|_| call().unwrap()).collect();
        assert_eq!(call().unwrap_err(), NotTaken::Full);
        drop(waiting);
        assert!(call().is_ok());
    }
}
