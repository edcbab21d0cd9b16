//! Who may use the gateway beside the modules of the deployment: the children of this edge device in the hub, with
//! their keys or thumbprints.
//!
//! The hub is asked for all of them at the start and every hour, and for a client that is not among them when it
//! comes. What it said is kept, so that clients are let in while the hub is away.

mod entry;
mod members;
mod questions;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

pub(super) use self::entry::Member;
use self::entry::{Entry, Page};
use self::members::{MAX_CLIENTS, Members};
use self::questions::Questions;
use super::identity::{IdentityService, IdentityServiceError};
use super::link::Upstream;
use super::spool::Spool;
use crate::http::{HttpClient, HttpError, Request, StatusCode, header};
use crate::identity::{EDGE_HUB, Identity};
use crate::percent::{encode, encode_segment};
use crate::retry::{Backoff, pause};

const API_VERSION: &str = "2018-08-30-preview";
const PAGE: usize = 100;
const INTERVAL: Duration = Duration::from_secs(3600);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Name of the last answers in the store.
const KEPT: &str = "scope";

/// Why it is not known who somebody is.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The gateway has no identity in the hub yet.
    #[error(transparent)]
    Identity(#[from] IdentityServiceError),
    /// The hub cannot be reached.
    #[error("the hub cannot be asked who is in scope")]
    Unreachable(#[from] HttpError),
    /// The hub does not answer the question.
    #[error("the hub refused to say who is in scope, with status {0}")]
    Refused(StatusCode),
    /// Too many strangers came at once for the hub to be asked.
    #[error("the hub is not asked for more clients at the moment")]
    Busy,
    /// The answer makes no sense.
    #[error("the hub's answer of who is in scope cannot be read")]
    Malformed(#[from] serde_json::Error),
}

/// The scope of this edge device.
pub struct Scope {
    http: HttpClient,
    upstream: Arc<Upstream>,
    spool: Spool,
    members: Mutex<Members>,
    /// Told when the members are others.
    changes: watch::Sender<()>,
    questions: Questions,
}

impl Scope {
    /// The scope as it was last known.
    pub async fn open(http: HttpClient, upstream: Arc<Upstream>, spool: Spool) -> Self {
        let (members, changes) = Default::default();
        let scope = Self { http, upstream, spool, members, changes, questions: Questions::new() };
        match scope.spool.kept(KEPT).await {
            Ok(Some(text)) => match serde_json::from_str::<Vec<Entry>>(&text) {
                Ok(entries) => drop(scope.members().replace(entries)),
                Err(error) => tracing::warn!("The last known clients cannot be read: {error}"),
            },
            Ok(None) => {}
            Err(error) => tracing::error!("The last known clients cannot be read: {error}"),
        }
        scope
    }

    /// Keeps up with the hub until the shutdown.
    pub async fn follow(&self) {
        let shutdown = &self.upstream.shutdown;
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            let goes_on = match shutdown.run_until_cancelled(self.refresh()).await {
                None => return,
                Some(Ok(())) => {
                    backoff.reset();
                    pause(INTERVAL, shutdown).await
                }
                Some(Err(error)) => {
                    tracing::debug!("{error}");
                    backoff.pause(shutdown).await
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Asks the hub for all clients, and forgets those that it does not name. What it says of single ones meanwhile
    /// stands, since the list may have been made before.
    async fn refresh(&self) -> Result<(), ScopeError> {
        self.members().begin_list();
        let list = self.list().await;
        let mut members = self.members();
        let is_new = list.map(|entries| members.replace(entries));
        members.end_list();
        drop(members);
        if is_new? {
            self.keep();
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Entry>, ScopeError> {
        let own = encode_segment(self.identities().device_id());
        let first = format!(
            "/devices/{own}/modules/{}/devicesAndModulesInDeviceScope\
             ?deviceCount={PAGE}&continuationToken=&api-version={API_VERSION}",
            encode_segment(EDGE_HUB)
        );
        let (mut entries, mut next) = (Vec::new(), Some(first));
        while let Some(path) = next.take().filter(|_| entries.len() < MAX_CLIENTS) {
            let page = self.ask(&path).await?;
            entries.extend(page.devices.into_iter().chain(page.modules));
            // Some hubs write the whole address.
            next = page.continuation_link.filter(|link| !link.is_empty()).map(|link| {
                link.split_once("://")
                    .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()))
                    .unwrap_or(link)
            });
        }
        Ok(entries)
    }

    /// What is known of a client. The hub is asked for one that is not known, or when `again` is set, but not often.
    pub(super) async fn member(
        &self,
        identity: &Identity,
        again: bool,
    ) -> Result<Option<Member>, Arc<ScopeError>> {
        if let Some(known) = self.known(identity).filter(|_| !again) {
            return Ok(Some(known));
        }
        // Boxed, for it passes through several futures that would each hold it.
        let outcome = self.questions.put(identity, Box::pin(self.ask_for(identity))).await;
        match (outcome, self.known(identity)) {
            (Ok(()), known) => Ok(known),
            (Err(error), Some(known)) if matches!(*error, ScopeError::Busy) => Ok(Some(known)),
            // The next one may find the hub again.
            (Err(error), _) => Err(error),
        }
    }

    /// Asks the hub for a client, and takes up what it says of it. What it says of its device besides may be older than
    /// an answer about that.
    async fn ask_for(&self, identity: &Identity) -> Result<(), ScopeError> {
        let turn = self.members().begin();
        let entry = match self.ask(&self.question(identity)).await {
            Ok(page) => {
                let mut entries = page.devices.into_iter().chain(page.modules);
                // Only a refusal is a no.
                match entries.find(|entry| entry.identity().as_ref() == Some(identity)) {
                    None => return Ok(()),
                    found => found,
                }
            }
            Err(ScopeError::Refused(status)) if self.is_about_target(status).await => None,
            Err(error) => return Err(error),
        };
        if self.members().set(identity, entry, turn) {
            self.keep();
        }
        Ok(())
    }

    /// Completes when the hub has said that a child is none any longer, or is disabled.
    pub(super) async fn dismissed(&self, identity: &Identity) {
        if identity.device_id() == self.identities().device_id() {
            // A module leaves with the deployment, which stops it.
            return std::future::pending().await;
        }
        let mut changes = self.changes.subscribe();
        while matches!(self.known(identity), Some(Member::Enabled(_))) && changes.changed().await.is_ok() {}
    }

    /// Whether a refusal says that the hub does not know a client, or not as a child of this device. The hub uses the
    /// same statuses for a gateway that it does not know, and whatever stands before it may use them, so it is asked
    /// for the gateway itself.
    async fn is_about_target(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let own = Identity::module(self.identities().device_id(), EDGE_HUB);
                match own {
                    Ok(own) => self.ask(&self.question(&own)).await.is_ok(),
                    Err(_) => false,
                }
            }
            _ => false,
        }
    }

    /// The path that asks for one client.
    fn question(&self, identity: &Identity) -> String {
        format!(
            "/devices/{}/modules/{}/deviceAndModuleInDeviceScope\
             ?targetDeviceId={}&targetModuleId={}&api-version={API_VERSION}",
            encode_segment(self.identities().device_id()),
            encode_segment(EDGE_HUB),
            encode(identity.device_id()),
            encode(identity.module_id().unwrap_or_default()),
        )
    }

    fn known(&self, identity: &Identity) -> Option<Member> {
        self.members().get(identity).cloned()
    }

    /// Tells what has changed, and keeps it for the next start: but for this device itself, whose key is not to be on a
    /// disk.
    fn keep(&self) {
        self.changes.send_replace(());
        let own = Identity::device(self.identities().device_id()).ok();
        let members = self.members();
        let entries: Vec<&Entry> = members.entries().filter(|entry| entry.identity() != own).collect();
        match serde_json::to_string(&entries) {
            Ok(text) => drop(self.spool.keep(KEPT, Some(text))),
            Err(error) => tracing::error!("The known clients cannot be kept: {error}"),
        }
    }

    async fn ask(&self, path: &str) -> Result<Page, ScopeError> {
        let edge_hub = self.identities().provision(EDGE_HUB).await?;
        let token = edge_hub.token(&self.upstream.link.hub_name);
        let request = Request::get(path).header(header::AUTHORIZATION, token.expose()).body(Bytes::new());
        let answer = self.http.send(request.map_err(HttpError::from)?).await?;
        match answer.status() {
            StatusCode::OK => Ok(serde_json::from_slice(answer.body())?),
            status => Err(ScopeError::Refused(status)),
        }
    }

    fn identities(&self) -> &IdentityService {
        &self.upstream.identities
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
