use std::time::Duration;

use tokio::join;
use tokio::time::timeout;

use super::*;
use crate::edge::methods::tests::methods;
use crate::edge::supervisor::Orders;
use crate::identity::Identity;
use crate::module_client::tests::Peer;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_session_ends_at_its_renewal_when_the_calls_that_came_before_are_answered() {
    for (call_secs, end_secs) in [(0, 3), (5, 5)] {
        let (mut peer, client, notices) =
            Peer::with_client(&Identity::module("d", EDGE_AGENT).unwrap()).await;
        let (orders, _notes) = Orders::noted();
        let upstream = Arc::new(Upstream::of_nowhere());
        let methods = methods(orders, call_secs * SECOND);
        let backup = Backup::new("/nonexistent".as_ref(), "hub.test", "d");
        let mut session = AgentSession::new(upstream, methods, watch::Sender::new(None), backup);
        let began = Instant::now();
        let script = async {
            let asked = peer.published().await.topic;
            assert!(asked.starts_with("$iothub/twin/GET/"), "{asked}");
            let body = r#"{"schemaVersion":"1.0","id":"sensor"}"#;
            peer.send("$iothub/methods/POST/RestartModule/?$rid=7", body);
            assert_eq!(peer.unsubscribed.recv().await.as_deref(), Some("$iothub/methods/POST/#"));
            assert_eq!(began.elapsed().as_secs(), 3, "no further calls come while this one is answered");
            assert_eq!(peer.published().await.topic, "$iothub/methods/res/200/?$rid=7");
        };
        let running = async move {
            let end = session.run(&client, notices, began + 3 * SECOND).await;
            drop(client);
            end
        };
        let both = timeout(60 * SECOND, async { join!(running, script) });
        let (end, ()) = both.await.unwrap();
        assert!(matches!(end, SessionEnd::Renewal), "{end:?}");
        assert_eq!(began.elapsed().as_secs(), end_secs);
    }
}
