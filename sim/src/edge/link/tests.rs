use std::future::pending;
use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

use super::*;
use crate::identity::{EDGE_AGENT, Identity};
use crate::module_client::tests::Peer;

#[derive(Debug, Clone, Copy)]
enum Ends {
    AtRenewal,
    Never,
    AtOnce,
}

/// A session that ends as it is told, and notes when it began.
struct Scripted {
    ends: Ends,
    begun: mpsc::UnboundedSender<Instant>,
}

impl Session for Scripted {
    const MODULE_ID: &'static str = EDGE_AGENT;

    fn link_state(state: &mut RuntimeState) -> &mut LinkState {
        &mut state.agent
    }

    async fn run(&mut self, _: &ModuleClient, _: Notices, renewal: Instant) -> SessionEnd {
        self.begun.send(Instant::now()).unwrap();
        match self.ends {
            Ends::AtRenewal => sleep_until(renewal).await,
            Ends::Never => pending().await,
            Ends::AtOnce => return ClientError::Closed.into(),
        }
        SessionEnd::Renewal
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_with_a_new_token_without_a_pause_and_a_lost_one_with_a_pause() {
    let lost = LinkState::Disconnected(
        "$edgeAgent: the connection to the hub ended: the connection was closed".to_owned(),
    );
    for (ends, millis, state) in [
        // The hub ends a session after 60 min.
        (Ends::AtRenewal, 58 * 60_000, LinkState::Connected),
        (Ends::Never, 58 * 60_000 + 30_000, LinkState::Connected),
        (Ends::AtOnce, 250, lost),
    ] {
        let upstream = Upstream::of_nowhere();
        let identity = Identity::module("d", EDGE_AGENT).unwrap();
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let states = Mutex::new(Vec::new());
        let connect = async || {
            states.lock().unwrap().push(upstream.board.state().agent);
            let (_peer, client, notices) = Peer::with_client(&identity).await;
            Ok((client, notices))
        };
        let script = async { [beginnings.recv().await.unwrap(), beginnings.recv().await.unwrap()] };
        let [first, second] = tokio::select! {
            () = upstream.repeat(Scripted { ends, begun }, connect) => panic!("{ends:?}"),
            () = sleep(Duration::from_secs(2 * 3600)) => panic!("{ends:?}: no second session"),
            beginnings = script => beginnings,
        };
        // The clock of the test has a resolution of 1 ms.
        let between = (second - first).as_millis();
        assert!((millis..=millis + 2).contains(&between), "{ends:?}: {between} ms");
        assert_eq!(*states.lock().unwrap(), [LinkState::Connecting, state], "{ends:?}");
    }
}
