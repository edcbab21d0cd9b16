use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tempfile::TempDir;
use tokio::join;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::pki::CertificateAuthority;
use crate::tls::{Endpoint, Trust, client_config, server_config};

const NEVER: u16 = 0;

/// A hub that answers as it is told.
struct Hub {
    /// Status of the answers about the leaf, about the gateway itself, and of the list.
    leaf: AtomicU16,
    own: AtomicU16,
    list: AtomicU16,
    /// Whether the leaf is in the list of all clients.
    lists_leaf: AtomicBool,
    /// Told of each question.
    asked: Notify,
    /// Told when an answer that was never to come shall come.
    open: Notify,
}

impl Hub {
    /// Completes with the next question; two that came meanwhile count as one.
    async fn is_asked(&self) {
        let asked = timeout(Duration::from_secs(20), self.asked.notified()).await;
        asked.expect("the hub was not asked");
    }
}

async fn answer(State(hub): State<Arc<Hub>>, uri: Uri) -> Response {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let leaf = json!({"deviceId": "leaf", "authentication": {
        "symmetricKey": {"primaryKey": "c2VjcmV0", "secondaryKey": "c2VjcmV0"}}});
    let (status, devices) = if path.ends_with("/devicesAndModulesInDeviceScope") {
        let own = json!({"deviceId": "d", "authentication": leaf["authentication"]});
        (&hub.list, if hub.lists_leaf.load(Ordering::SeqCst) { json!([own, leaf]) } else { json!([]) })
    } else if query.contains("targetDeviceId=leaf") {
        (&hub.leaf, json!([leaf]))
    } else if path.ends_with("/deviceAndModuleInDeviceScope") {
        (&hub.own, json!([]))
    } else {
        let edge_hub = json!({"moduleId": EDGE_HUB, "generationId": "1"});
        return edge_hub.to_string().into_response();
    };
    hub.asked.notify_one();
    let status = status.load(Ordering::SeqCst);
    if status == NEVER {
        hub.open.notified().await;
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    (status, json!({"devices": devices}).to_string()).into_response()
}

/// The hub, and a scope that asks it; the folder is the scope's.
async fn start() -> (Arc<Hub>, Scope, TempDir) {
    let [leaf, own, list] = [200; 3].map(AtomicU16::new);
    let (lists_leaf, asked, open) = Default::default();
    let hub = Arc::new(Hub { leaf, own, list, lists_leaf, asked, open });
    let authority = CertificateAuthority::generate("test CA").unwrap();
    let issued = authority.issue_server(&["hub.test"], Duration::from_secs(3600)).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = Endpoint::at("hub.test", listener.local_addr().unwrap());
    let tls = client_config(Trust::Only(authority.certificate_pem())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let upstream = Arc::new(Upstream::for_tests(endpoint.clone(), tls.clone()));
    let router = Router::new().fallback(answer).with_state(hub.clone());
    let server = server_config(&issued.chain_pem, &issued.key_pem).unwrap();
    tokio::spawn(crate::http::serve(listener, server, 8, upstream.shutdown.clone(), router));
    let spool = Spool::open(&folder.path().join("messages.db")).unwrap();
    let scope = Scope::open(HttpClient::new(endpoint, tls), upstream, spool).await;
    (hub, scope, folder)
}

fn leaf() -> Identity {
    Identity::device("leaf").unwrap()
}

#[tokio::test]
async fn a_question_that_was_given_up_is_asked_again() {
    let (hub, scope, _folder) = start().await;
    hub.leaf.store(NEVER, Ordering::SeqCst);
    let leaf = leaf();
    tokio::select! {
        member = scope.member(&leaf, false) => panic!("{member:?}"),
        () = hub.is_asked() => {}
    }
    hub.leaf.store(200, Ordering::SeqCst);
    let member = scope.member(&leaf, false).await;
    assert!(matches!(member, Ok(Some(Member::Enabled(_)))), "{member:?}");
}

#[tokio::test]
async fn only_a_hub_that_knows_the_gateway_says_who_is_no_client() {
    for (leaf_status, own_status, is_no) in [
        (404, 200, true),
        (401, 200, true),
        (403, 200, true),
        (404, 404, false),
        (401, 401, false),
        (404, 503, false),
        (503, 200, false),
    ] {
        let case = format!("{leaf_status} about the client, {own_status} about the gateway");
        let (hub, scope, _folder) = start().await;
        hub.leaf.store(leaf_status, Ordering::SeqCst);
        hub.own.store(own_status, Ordering::SeqCst);
        let first = scope.member(&leaf(), false).await;
        match first {
            Ok(None) => assert!(is_no, "{case}"),
            Ok(Some(member)) => panic!("{case}: {member:?}"),
            Err(error) => match *error {
                ScopeError::Refused(status) => assert!(!is_no && status == leaf_status, "{case}"),
                _ => panic!("{case}: {error:?}"),
            },
        }
        hub.leaf.store(200, Ordering::SeqCst);
        // A no holds for a while; anything else is asked again at once.
        let second = scope.member(&leaf(), false).await.unwrap();
        assert_eq!(second.is_none(), is_no, "{case}");
    }
}

#[tokio::test]
async fn what_the_hub_says_of_one_client_while_the_list_is_on_its_way_is_not_delayed_and_stands() {
    // The list says the opposite, because it was made before.
    for (was_known, is_child) in [(true, false), (false, true), (false, false)] {
        let case = format!("known before: {was_known}, then a child: {is_child}");
        let (hub, scope, _folder) = start().await;
        let leaf = leaf();
        hub.lists_leaf.store(was_known, Ordering::SeqCst);
        scope.refresh().await.unwrap();
        hub.is_asked().await;
        assert_eq!(scope.known(&leaf).is_some(), was_known, "{case}");
        hub.lists_leaf.store(!is_child, Ordering::SeqCst);
        hub.leaf.store(if is_child { 200 } else { 404 }, Ordering::SeqCst);
        hub.list.store(NEVER, Ordering::SeqCst);
        let meanwhile = async {
            hub.is_asked().await;
            let member = scope.member(&leaf, true).await.unwrap();
            assert_eq!(member.is_some(), is_child, "{case}");
            hub.open.notify_one();
        };
        let (list, ()) = join!(scope.refresh(), meanwhile);
        list.unwrap();
        assert_eq!(scope.known(&leaf).is_some(), is_child, "{case}");
        // The next list is newer.
        hub.list.store(200, Ordering::SeqCst);
        scope.refresh().await.unwrap();
        assert_eq!(scope.known(&leaf).is_some(), !is_child, "{case}");
    }
}

#[tokio::test]
async fn the_key_of_the_device_itself_is_not_kept() {
    let (hub, scope, _folder) = start().await;
    hub.lists_leaf.store(true, Ordering::SeqCst);
    scope.refresh().await.unwrap();
    assert!(scope.known(&Identity::device("d").unwrap()).is_some());
    let kept = scope.spool.kept(KEPT).await.unwrap().unwrap();
    assert!(kept.contains("\"leaf\"") && !kept.contains("\"d\""), "{kept}");
}

#[tokio::test]
async fn an_answer_that_was_asked_for_before_the_list_does_not_stand_against_it() {
    let (hub, scope, _folder) = start().await;
    let leaf = leaf();
    hub.leaf.store(NEVER, Ordering::SeqCst);
    let meanwhile = async {
        hub.is_asked().await;
        scope.refresh().await.unwrap();
        hub.open.notify_one();
    };
    let (member, ()) = join!(scope.member(&leaf, false), meanwhile);
    assert!(member.unwrap().is_none(), "the list is without the leaf");
}

#[tokio::test]
async fn those_who_come_in_one_name_take_the_room_of_one_and_share_the_answer() {
    let (hub, scope, _folder) = start().await;
    let leaf = leaf();
    hub.leaf.store(NEVER, Ordering::SeqCst);
    let first = scope.member(&leaf, false);
    let second = scope.member(&leaf, false);
    let meanwhile = async {
        hub.is_asked().await;
        assert_eq!(scope.questions.under_way(), 1);
        hub.leaf.store(503, Ordering::SeqCst);
        hub.open.notify_one();
    };
    let (first, second, ()) = join!(first, second, meanwhile);
    let answers = [first.unwrap(), second.unwrap()];
    assert!(answers.iter().all(Option::is_some), "{answers:?}");
}
