//! Whether a text is the reference of a container image, by the grammar of the OCI distribution project:
//! `[host[:port]/]path[:tag][@digest]`.

/// The longest name, without tag and digest.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;
/// What is meant where no registry is named.
pub const DOCKER_HUB: &str = "docker.io";

/// Checks a reference.
///
/// # Errors
/// What is wrong with it.
pub fn check(reference: &str) -> Result<(), &'static str> {
    if reference.is_empty() {
        return Err("the reference of an image is empty");
    }
    if reference.contains("://") {
        return Err("the reference of an image has no `https://`");
    }
    let (name, tag, digest) = split(reference);
    check_name(name)?;
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "a tag has 1 to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two",
        );
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("a digest is `sha256:` and 64 hexadecimal digits in lower case");
    }
    Ok(())
}

/// What a reference says, with what Docker adds where it says less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Everything before tag and digest, as it was written.
    pub name: String,
    /// The registry: host, and port where there is one.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// The tag, if there is one.
    pub tag: Option<String>,
    /// The digest, if there is one.
    pub digest: Option<String>,
}

impl ImageName {
    /// Takes a reference apart, which has been checked.
    #[must_use]
    pub fn of(reference: &str) -> Self {
        let (name, tag, digest) = split(reference);
        let (registry, repository) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first.to_owned(), path.to_owned()),
            Some(_) => (DOCKER_HUB.to_owned(), name.to_owned()),
            None => (DOCKER_HUB.to_owned(), format!("library/{name}")),
        };
        let own = |part: Option<&str>| part.map(str::to_owned);
        Self { name: name.to_owned(), registry, repository, tag: own(tag), digest: own(digest) }
    }

    /// The same image by its digest alone.
    #[must_use]
    pub fn pinned(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name)
    }
}

/// Whether the first part of a name is a registry, and not a part of the path at Docker Hub.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.contains(char::is_uppercase)
}

/// Name, tag and digest.
fn split(reference: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    let last_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    match rest[last_slash..].split_once(':') {
        Some((path, tag)) => (&rest[..last_slash + path.len()], Some(tag), digest),
        None => (rest, None, digest),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > LONGEST_NAME {
        return Err("the name of an image has at most 255 characters");
    }
    let path = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => {
            if !is_host(first) {
                return Err(
                    "the host in front of the image's name is not a host name, with or without a port",
                );
            }
            path
        }
        _ => name,
    };
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err("the name of an image has only a-z, 0-9, `/` and, between these, `.`, `_`, `__` or `-`")
    }
}

/// `host` or `host:port`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    host.split('.').all(is_part) && port.is_none_or(is_port)
}

/// Letters and digits, with single separators between them; of `-` there may be several, and `__` counts as one.
fn is_component(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator =
        |gap: &str| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|byte| byte == b'-');
    let ends_plain = |byte: Option<u8>| byte.is_some_and(is_plain);
    ends_plain(text.bytes().next())
        && ends_plain(text.bytes().last())
        && text.split(|c: char| c.is_ascii() && is_plain(c as u8)).all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=LONGEST_TAG).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_that_engines_take_are_taken() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for reference in [
            "kedge/temperature-sensor",
            "alpine",
            "mcr.microsoft.com/azureiotedge-hub:1.5",
            "localhost:5001/a/b__c/d--e:v1.0_x-y",
            "127.0.0.1:5000/x",
            &format!("kindest/node:v1.33.1@{digest}"),
            &format!("x@{digest}"),
        ] {
            assert_eq!(check(reference), Ok(()), "{reference}");
        }
    }

    #[test]
    fn a_reference_is_taken_apart() {
        let parts = |reference: &str| {
            let it = ImageName::of(reference);
            (it.registry, it.repository, it.tag.unwrap_or_default(), it.digest.unwrap_or_default())
        };
        let own = |parts: [&str; 4]| parts.map(str::to_owned).into();
        assert_eq!(parts("localhost:5001/a/b:1"), own(["localhost:5001", "a/b", "1", ""]));
        assert_eq!(parts("r.test/a@sha256:0a"), own(["r.test", "a", "", "sha256:0a"]));
        assert_eq!(parts("somebody/app"), own([DOCKER_HUB, "somebody/app", "", ""]));
        assert_eq!(parts("alpine:3"), own([DOCKER_HUB, "library/alpine", "3", ""]));
        assert_eq!(ImageName::of("r.test:5000/a:1@sha256:0a").pinned("sha256:0b"), "r.test:5000/a@sha256:0b");
    }

    #[test]
    fn what_an_engine_would_refuse_is_refused() {
        for reference in [
            "",
            "Alpine",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a:b:c",
            "a___b",
            "a..b",
            "-a",
            "ä",
            "https://registry/x",
            "host:99999/x",
            "-host.example/x",
            "x@sha256:12",
            "x@sha512:12",
            &"a".repeat(256),
            &format!("a:{}", "x".repeat(129)),
        ] {
            assert!(check(reference).is_err(), "{reference}");
        }
    }
}
