//! What a client has subscribed to. A session that is to be kept is there again when its client comes back, also after
//! a restart of the gateway.

use std::collections::BTreeMap;

use crate::edge::spool::Spool;
use crate::identity::Identity;
use crate::mqtt::QoS;
use crate::topics::Subscription;

/// The subscriptions of one client.
#[derive(Debug)]
pub(super) struct Subscriptions {
    granted: BTreeMap<Subscription, QoS>,
    /// Where they are kept, unless the client wants none of that.
    kept: Option<(Spool, String)>,
}

impl Subscriptions {
    /// The session of a client, and whether it was there before.
    pub(super) async fn open(spool: &Spool, identity: &Identity, clean: bool) -> (Self, bool) {
        let name = format!("session/{identity}");
        if clean {
            spool.keep(&name, None);
            return (Self { granted: BTreeMap::new(), kept: None }, false);
        }
        let stored = spool.kept(&name).await.unwrap_or_else(|error| {
            tracing::error!("The session of {identity} cannot be read: {error}");
            None
        });
        let session = Self { granted: BTreeMap::new(), kept: Some((spool.clone(), name)) };
        match stored {
            Some(text) => (Self { granted: read(&text), ..session }, true),
            None => {
                session.keep();
                (session, false)
            }
        }
    }

    /// With which QoS the client gets what belongs to a subscription.
    pub(super) fn qos(&self, subscription: &Subscription) -> Option<QoS> {
        self.granted.get(subscription).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.granted.keys()
    }

    /// Grants subscriptions, with QoS 1 at most.
    pub(super) fn add(&mut self, subscription: Subscription, wish: QoS) -> QoS {
        let qos = if wish == QoS::AtMostOnce { wish } else { QoS::AtLeastOnce };
        if self.granted.insert(subscription, qos) != Some(qos) {
            self.keep();
        }
        qos
    }

    /// Ends a subscription.
    pub(super) fn remove(&mut self, subscription: &Subscription) {
        if self.granted.remove(subscription).is_some() {
            self.keep();
        }
    }

    fn keep(&self) {
        if let Some((spool, name)) = &self.kept {
            let lines =
                self.granted.iter().map(|(subscription, qos)| format!("{} {subscription}\n", *qos as u8));
            spool.keep(name, Some(lines.collect()));
        }
    }
}

/// Lines of a QoS and a filter.
fn read(text: &str) -> BTreeMap<Subscription, QoS> {
    let line = |line: &str| {
        let (qos, filter) = line.split_once(' ')?;
        let qos = if qos == "0" { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        Some((Subscription::parse(filter).ok()?, qos))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_kept_unless_the_client_wants_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages.db");
        let identity = Identity::module("d", "m").unwrap();
        let inputs = Subscription::ModuleInputs(identity.clone());
        let spool = Spool::open(&path).unwrap();
        let (mut session, present) = Subscriptions::open(&spool, &identity, false).await;
        assert!(!present);
        assert_eq!(session.add(inputs.clone(), QoS::ExactlyOnce), QoS::AtLeastOnce);
        assert_eq!(session.add(Subscription::MethodCalls, QoS::AtMostOnce), QoS::AtMostOnce);
        session.add(Subscription::TwinResponses, QoS::AtMostOnce);
        session.remove(&Subscription::TwinResponses);
        drop((session, spool));
        let spool = Spool::open(&path).unwrap();
        let (session, present) = Subscriptions::open(&spool, &identity, false).await;
        assert!(present);
        assert_eq!(session.qos(&inputs), Some(QoS::AtLeastOnce));
        assert_eq!(session.qos(&Subscription::MethodCalls), Some(QoS::AtMostOnce));
        assert_eq!(session.iter().count(), 2);
        let (session, present) = Subscriptions::open(&spool, &identity, true).await;
        assert_eq!((session.iter().count(), present), (0, false));
        spool.committed(spool.keep("x", None)).await.unwrap();
        assert!(!Subscriptions::open(&spool, &identity, false).await.1);
    }
}
