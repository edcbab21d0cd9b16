//! What helps with a step that has failed, where the words in which engines, builders, kind and registries tell it say so.
//! Pure: from the step and its error to a sentence.

use crate::plan::Action;

/// The steps that it is said of, any of the marks in small letters, and what to do. In the last one, `{step}` stands for the
/// name of the step, which is that of its log. Without marks, it helps with whatever is wrong with such a step.
type Remedy = (fn(Action) -> bool, &'static [&'static str], &'static str);

/// The first one that fits counts.
const REMEDIES: [Remedy; 15] = [
    (
        any,
        &["no space left on device", "disk quota exceeded"],
        "make room on the disk that is full (`df -h` tells which one), and run the command again",
    ),
    (
        is_registry,
        PORT,
        "stop the program that has the port, or choose another `port` in [registry] of the settings",
    ),
    (
        is_hub,
        PORT,
        "stop the program that has the port, or let the hub take free ones: `ports = \"free\"` in [hub] of the settings",
    ),
    (any, PORT, "stop the program that has the port, and run the command again"),
    (
        downloads,
        &[
            "temporary failure in name resolution",
            "temporary failure resolving",
            "could not resolve",
            "could not connect",
            "failed to fetch",
            "unable to fetch",
            "failed to download",
            "network is unreachable",
            "no route to host",
            "connection timed out",
            "connection failed",
            "spurious network error",
        ],
        "see that this machine reaches its mirrors, as with `apt-get update`, and run the command again",
    ),
    (
        is_build,
        &["the builder says", "the builder ended"],
        "correct what the builder names; all that it has written is in `{step}.log` beside the report",
    ),
    (
        |action| action == Action::Binaries,
        &["could not compile"],
        "correct what the compiler names; all that it has written is in `{step}.log` beside the report",
    ),
    (
        uses_registry,
        &[
            "unauthorized",
            "answers 401",
            "authentication required",
            "access denied",
            "access to the resource is denied",
        ],
        "give the registry the login of this deployment: `cargo xtask registry down`, then the command again, which makes it anew",
    ),
    (
        uses_registry,
        &[
            "connection refused",
            "connection reset",
            "broken pipe",
            "closed network connection",
            ": eof",
            "no such host",
            "failed to ask the registry",
            "the registry; last seen",
        ],
        "see why the registry does not answer: `cargo xtask logs registry`; the command, run again, starts one that has stopped",
    ),
    (
        uses_registry,
        &[],
        "see why the registry refuses: `cargo xtask logs registry`; `cargo xtask registry down` lets the next run make it anew",
    ),
    (
        is_hub,
        &[],
        "see what the hub says: `cargo xtask logs hub`; `cargo xtask hub down` lets the next run make it anew",
    ),
    (
        |action| action == Action::Device,
        &[],
        "see what the hub says: `cargo xtask logs hub`, and run the command again",
    ),
    (
        |action| action == Action::Cluster,
        &["did not end within", "timed out", "will not come", "waited"],
        "see that the machine has cores and memory to spare, and the node's own words in `evidence/` beside the report; the \
         command, run again, makes the cluster anew",
    ),
    (
        |action| action == Action::Cluster,
        &[],
        "see what kind says in `{step}.log`, and the node in `evidence/`, both beside the report; the command, run again, makes \
         the cluster anew",
    ),
    (
        |action| matches!(action, Action::Wiring | Action::Deploy),
        &["does not answer", "connection refused", "connection reset", "timed out", "deadline"],
        "see that the cluster answers: `cargo xtask status`, and run the command again",
    ),
];

/// How engines say that somebody else listens at a port.
const PORT: &[&str] = &["address already in use", "port is already allocated", "ports are not available"];

/// What helps with this step, which has failed with these words.
pub(super) fn of(action: Action, words: &str) -> Option<String> {
    let words = words.to_lowercase();
    let (.., next) = REMEDIES.iter().find(|(is_of, marks, _)| {
        is_of(action) && (marks.is_empty() || marks.iter().any(|mark| words.contains(mark)))
    })?;
    Some(next.replace("{step}", &action.id()))
}

fn any(_: Action) -> bool {
    true
}

fn is_registry(action: Action) -> bool {
    action == Action::Registry
}

fn is_hub(action: Action) -> bool {
    action == Action::Hub
}

fn uses_registry(action: Action) -> bool {
    matches!(action, Action::Registry | Action::Push(_))
}

fn is_build(action: Action) -> bool {
    matches!(action, Action::Image(_) | Action::NodeImage)
}

fn downloads(action: Action) -> bool {
    is_build(action) || matches!(action, Action::Kind | Action::Binaries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Image;

    /// As engines, builders and kind have said it.
    #[test]
    fn what_helps_follows_from_the_step_and_its_words() {
        let edge = Action::Image(Image::Edge);
        let push = Action::Push(Image::Edge);
        let cases = [
            (
                edge,
                "the builder says: podman: committing: write /var/lib/x: no space left on device",
                "`df -h`",
            ),
            (
                Action::Cluster,
                "failed to create the cluster: `kind …` ended with exit status: 1\n ERROR: No space left on device",
                "`df -h`",
            ),
            (
                Action::Registry,
                "failed to start the container `kedge-registry`: podman answered 500: rootlessport listen tcp 127.0.0.1:5001: \
                 bind: address already in use",
                "another `port` in [registry]",
            ),
            (
                Action::Hub,
                "docker answered 500: Bind for 127.0.0.1:8883 failed: port is already allocated",
                "`ports = \"free\"`",
            ),
            (
                edge,
                "the builder says: The command '/bin/sh -c apt-get update' returned 100\n    Err: Temporary failure resolving \
                 'debian.test'",
                "`apt-get update`",
            ),
            (edge, "the builder says: COPY failed: no such file", "`image-edge.log`"),
            (Action::NodeImage, "the builder ended without an image", "`node-image.log`"),
            (Action::Binaries, "error: could not compile `kedge-sim`", "`binaries.log`"),
            (
                push,
                "failed to push `localhost:5001/kedge/edge:1`: podman: unauthorized: authentication required",
                "`cargo xtask registry down`, then",
            ),
            (
                push,
                "the registry answers 401 Unauthorized when asked for `kedge/edge:1`",
                "`cargo xtask registry down`, then",
            ),
            (
                push,
                "failed to ask the registry `localhost:5001`: Connection refused (os error 111)",
                "starts one that has stopped",
            ),
            (
                push,
                "podman: Docker stream error: writing blob: Patch \"http://localhost:5001/v2/x\": write tcp \
                 127.0.0.1:36146->127.0.0.1:5001: use of closed network connection",
                "starts one that has stopped",
            ),
            (push, "the registry answers 507 Insufficient Storage", "why the registry refuses"),
            (
                Action::Registry,
                "the registry will not come: its container ended: yaml: line 3",
                "why the registry refuses: `cargo xtask logs registry`",
            ),
            (
                Action::Cluster,
                "ended with exit status: 1\n ERROR: failed to init node with kubeadm",
                "`cluster.log`",
            ),
            (
                Action::Cluster,
                "waited 120 s for the cluster's node; last seen: n is not ready",
                "cores and memory to spare",
            ),
        ];
        for (action, words, part) in cases {
            let next = of(action, words).unwrap_or_else(|| panic!("{action}: {words}"));
            assert!(next.contains(part) && !next.contains("{step}"), "{action}, {words}: {next}");
        }
        assert_eq!(of(Action::Network, "podman answered 409: in use"), None);
        assert_eq!(of(Action::Pod, "the registry answers 401"), None);
    }
}
