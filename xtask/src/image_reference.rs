//! Whether a text is the reference of a container image, by the grammar of the OCI distribution project:
//! `[host[:port]/]path[:tag][@digest]`.

/// The longest name, without tag and digest.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

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
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    let last_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last_slash..].split_once(':') {
        Some((path, tag)) => (&rest[..last_slash + path.len()], Some(tag)),
        None => (rest, None),
    };
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

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > LONGEST_NAME {
        return Err("the name of an image has at most 255 characters");
    }
    let is_host = |first: &str| {
        first == "localhost" || first.contains(['.', ':']) || first.contains(char::is_uppercase)
    };
    let path = match name.split_once('/') {
        Some((first, path)) if is_host(first) => {
            if !self::is_host(first) {
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
