//! Why a layer is broken, for how long that is believed to pass by itself, and what to do about it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::layers::Name;

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may pass: something starts, or is on its way.
    Passing,
    /// The engine of the machine does not answer.
    Engine,
    /// The edge has ended, and nobody starts it again.
    Ended,
    /// A unit of systemd has failed.
    Unit,
    /// An image cannot be had.
    Image,
    /// The disk of the edge is full.
    Disk,
    /// The way to the hub, or the hub itself.
    Hub,
    /// The hub refuses the device.
    Refused,
    /// The runtime cannot carry its deployment out, for a reason that is said of passing trouble as well.
    Deployment,
    /// A module ends again and again.
    Module,
    /// The certificate of the gateway.
    Certificate,
    /// What the hub has got, or not got.
    Telemetry,
    /// The edge is not confined as it is to be.
    Security,
    /// The pod ends again and again, or cannot be started.
    Pod,
}

impl Kind {
    /// How long it is believed to pass all the same; none where it may take as long as it likes.
    fn patience(self) -> Option<Duration> {
        match self {
            Self::Passing => None,
            // Messages do not come into order again, silence was waited for already, and rights are given at the start.
            Self::Ended | Self::Telemetry | Self::Security => Some(Duration::ZERO),
            // The edge tries again after ten seconds at most, and tells meanwhile what was so at the last time: the hub
            // may just have been made anew, and the device registered a moment later.
            Self::Refused => Some(Duration::from_secs(12)),
            Self::Deployment => Some(Duration::from_secs(20)),
            _ => Some(Duration::from_secs(3)),
        }
    }
}

/// Why a layer is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) kind: Kind,
    /// What is wrong.
    pub(super) text: String,
    /// What to do, where more is known than what helps with the layer.
    pub(super) next: Option<&'static str>,
}

impl Cause {
    pub(super) fn new(kind: Kind, text: impl Into<String>, next: &'static str) -> Self {
        Self { kind, text: text.into(), next: Some(next) }
    }

    /// Trouble of which nothing more is known than its words.
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { kind: Kind::Passing, text: text.into(), next: None }
    }

    /// The cause that the words of a layer tell.
    pub(super) fn of_words(layer: Name, text: String) -> Self {
        let lower = text.to_lowercase();
        let found = WORDS.iter().find(|(layers, marks, ..)| {
            layers.contains(&layer) && marks.iter().any(|mark| lower.contains(mark))
        });
        match found {
            Some(&(_, _, kind, next)) => Self::new(kind, text, next),
            None => Self::passing(text),
        }
    }
}

type Words = (&'static [Name], &'static [&'static str], Kind, &'static str);

/// What the words of a layer mean: the layers, any of the marks in small letters, the kind of trouble and what to do.
const WORDS: [Words; 11] = [
    (
        &[Name::Engine],
        &["does not answer"],
        Kind::Engine,
        "start the container engine, and run `cargo xtask up`",
    ),
    (
        &[Name::InnerEngine, Name::Runtime, Name::Agent, Name::Module, Name::Gateway],
        &["no space left", "disk quota", "database or disk is full"],
        Kind::Disk,
        "make the volumes of the edge larger (`engine-size` and `state-size` in [deploy]), or remove what fills them",
    ),
    (
        &[Name::Agent, Name::Module],
        &[
            "manifest unknown",
            "no such image",
            "repository name not known",
            "manifest for ",
            "not found: manifest",
            "invalid reference format",
        ],
        Kind::Image,
        "correct the image's name in the deployment manifest, or push the image, and run `cargo xtask up`",
    ),
    (
        &[Name::Agent, Name::Module],
        &["no basic auth credentials", "pull access denied", "authentication required", "unauthorized:"],
        Kind::Image,
        "give the registry's login in `registryCredentials` of the deployment manifest, and run `cargo xtask up`",
    ),
    (
        &[Name::Agent, Name::Module],
        &["the deployment has status", "cannot pull", "cannot create", "cannot start"],
        Kind::Deployment,
        "correct the deployment manifest, and run `cargo xtask up`",
    ),
    (
        &[Name::Module],
        &["backoff", "failed", "restarted "],
        Kind::Module,
        "see what it says: `cargo xtask logs` with the module's name",
    ),
    (
        &[Name::Node],
        &["does not answer", "connection refused", "no route to host"],
        Kind::Pod,
        "look at the node's container; `cargo xtask up` makes a cluster anew that does not recover",
    ),
    (
        &[Name::Pod],
        &["401 unauthorized", "authorization failed", "no basic auth credentials", "pull access denied"],
        Kind::Image,
        "give the cluster the registry's login: `cargo xtask up`, or `deploy` with `--registry-login`",
    ),
    (
        &[Name::Pod],
        &["errimagepull", "imagepullbackoff", "invalidimagename"],
        Kind::Pod,
        "run `cargo xtask up`, which pushes the image and gives the cluster its login",
    ),
    (
        &[Name::Pod],
        &["oomkilled"],
        Kind::Pod,
        "give the pod more memory: `memory-limit` in [deploy], or the limits in manifests/kedgedeployment.yaml",
    ),
    (
        &[Name::Pod],
        &["crashloopbackoff", "nodes are available", "ended with code"],
        Kind::Pod,
        "run `cargo xtask logs edge` for its last words, and `cargo xtask up`, which puts the Deployment in order",
    ),
];

/// Since when a layer has trouble of one kind.
#[derive(Debug, Default)]
pub(super) struct Lasting(Mutex<Option<(Name, Cause, Instant)>>);

impl Lasting {
    /// Notes what a look at a layer has found; whether that has lasted for longer than it is believed to pass.
    pub(super) fn is_over(&self, layer: Name, cause: &Cause) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match seen.take() {
            Some((before, last, since)) if before == layer && last.kind == cause.kind => since,
            _ => Instant::now(),
        };
        *seen = Some((layer, cause.clone(), since));
        cause.kind.patience().is_some_and(|patience| since.elapsed() >= patience)
    }

    /// All is well: what was is over.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was found last, and in which layer.
    pub(super) fn last(&self) -> Option<(Name, Cause)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(layer, cause, _)| (*layer, cause.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_what_will_not_pass() {
        let kind = |layer, text: &str| Cause::of_words(layer, text.into()).kind;
        for (layer, text, expected) in [
            (Name::Agent, "the deployment has status 406: tempSensor: Manifest unknown", Kind::Image),
            (Name::Agent, "status 406: write /var/lib/docker/x: No space left on device", Kind::Disk),
            (Name::Agent, "status 406: Head: no basic auth credentials", Kind::Image),
            (Name::Agent, "agent is disconnected: connection refused", Kind::Passing),
            (Name::Agent, "the deployment has status 400: no schemaVersion", Kind::Deployment),
            (Name::Module, "tempSensor: cannot pull r/x: connection reset", Kind::Deployment),
            (Name::Module, "tempSensor is backoff: exit code 1", Kind::Module),
            (Name::Pod, "p: Running, restarts 2, OOMKilled", Kind::Pod),
            (Name::Pod, "p: ErrImagePull: unexpected status: 401 Unauthorized", Kind::Image),
            (Name::Pod, "p: Pending, ContainerCreating", Kind::Passing),
            (Name::Engine, "the container engine does not answer: podman: client error", Kind::Engine),
        ] {
            assert_eq!(kind(layer, text), expected, "{text}");
        }
    }

    #[test]
    fn only_trouble_of_the_same_kind_in_the_same_layer_lasts() {
        let lasting = Lasting::default();
        let cause = |kind| Cause::new(kind, "x", "y");
        assert!(lasting.is_over(Name::Container, &cause(Kind::Ended)));
        assert!(!lasting.is_over(Name::Agent, &cause(Kind::Hub)));
        let since = || lasting.0.lock().unwrap().as_ref().map(|(.., since)| *since);
        let first = since();
        assert!(!lasting.is_over(Name::Agent, &cause(Kind::Hub)));
        assert_eq!(since(), first);
        lasting.is_over(Name::Module, &cause(Kind::Hub));
        assert_ne!(since(), first, "it is another layer");
        lasting.clear();
        assert_eq!(lasting.last(), None);
        assert!(!lasting.is_over(Name::Pod, &Cause::passing("z")));
    }
}
