//! An edge in the cluster of somebody else, with all that is known of it here: no engine is needed for a look at it.

use std::sync::Arc;

use anyhow::Result;

use super::scene::{Means, Scene};
use crate::context::Context;
use crate::deploy::target::Target;
use crate::progress::Progress;
use crate::provisioning::{self, Kept, Redaction};
use crate::session::Setup;
use crate::settings::Hub;

/// What is known of the edge that `deploy` has brought to a cluster.
#[derive(Debug)]
pub struct Elsewhere {
    /// The desired state, and where files go.
    pub setup: Setup,
    /// The cluster.
    pub target: Target,
    /// Our own hub, which may be up beside a cluster that is not ours.
    pub own: Option<Arc<Context>>,
    /// What the user sees.
    pub progress: Arc<Progress>,
    kept: Option<Kept>,
}

impl Elsewhere {
    /// The edge in the cluster of the context `name`.
    ///
    /// # Errors
    /// When there is no such context, or the kept credentials lead to another hub.
    pub async fn open(setup: Setup, name: &str) -> Result<Self> {
        let target = Target::open(&setup.paths.project, &setup.settings.deploy, Some(name)).await?;
        let kept = provisioning::kept(&setup.paths)?.and_then(|checked| checked.kept);
        if kept.is_some() {
            // With the wrong hub, a sound edge would be told to be broken. Somebody else may have the credentials.
            provisioning::fit(kept.as_ref(), &setup.settings)?;
        }
        let own = match setup.settings.hub.kind {
            Hub::Local => setup.clone().attach().await.ok(),
            Hub::Azure => None,
        };
        Ok(Self { setup, target, own, progress: Arc::default(), kept })
    }

    /// What is looked at.
    #[must_use]
    pub fn scene(&self) -> Scene<'_> {
        let Self { setup, target, own, progress, kept } = self;
        let device =
            kept.as_ref().map_or(setup.settings.device.id.as_str(), |kept| kept.provisioning.device_id());
        let means = Means::Foreign(target, own.as_deref());
        Scene::other(means, &setup.settings, device, progress, &setup.cancel, setup.events.as_ref())
    }

    /// The same text without any secret that is known here.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let mut text = self.own.as_ref().map_or_else(|| text.to_owned(), |own| own.redact(text));
        if let Some(kept) = &self.kept {
            text = Redaction::of(kept).apply(&text);
        }
        self.setup.events.as_ref().map_or_else(|| text.clone(), |events| events.redact(&text))
    }
}
