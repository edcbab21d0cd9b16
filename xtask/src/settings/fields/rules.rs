//! What is allowed as a value.

use std::net::Ipv4Addr;

use crate::image_reference;

/// A DNS label of RFC 1123, as Kubernetes wants it.
pub(super) fn is_label(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name that leads to the hub's container from everywhere on the network: in a pod, `localhost` is the pod.
pub(super) fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| is_label(part, 63))
        && text != "localhost"
        && text.parse::<Ipv4Addr>().is_err()
}

/// A context may have any name that can be told on one line.
pub(super) fn is_context(text: &str) -> bool {
    text.trim() == text && !text.contains(char::is_control)
}

/// A quantity of Kubernetes that is more than nothing: a number, and a suffix for a power of 2 or of 10.
pub(super) fn is_quantity(text: &str) -> bool {
    let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - suffix.len()];
    let is_number = number.starts_with(|c: char| c.is_ascii_digit())
        && number.parse::<f64>().is_ok_and(|number| number > 0.0);
    is_number && ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&suffix)
}

/// The rule of IoT Hub's identity registry, but for `;`, which ends a part of a connection string, and for `+` and
/// `#`, which are wildcards in MQTT topics.
pub(super) fn is_device_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:.%_*?!(),=@$'".contains(&byte))
}

/// It becomes a part of an address.
pub(super) fn is_consumer_group(text: &str) -> bool {
    (1..=50).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"$-._".contains(&byte))
}

/// Two or three numbers, from 1.4 on: before, the configuration was another one.
pub(super) fn is_runtime_version(text: &str) -> bool {
    let numbers: Option<Vec<u16>> = text
        .split('.')
        .map(|part| part.parse().ok().filter(|number: &u16| number.to_string() == part))
        .collect();
    numbers.is_some_and(|numbers| (2..=3).contains(&numbers.len()) && numbers[0] == 1 && numbers[1] >= 4)
}

/// A URL, and the suite behind it if that is not Debian 12's. A login in the URL would stand in the image.
pub(super) fn is_repository(text: &str) -> bool {
    let (text, suite) = text.split_once(' ').unwrap_or((text, "bookworm"));
    let is_suite = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte))
    };
    if !is_suite(suite) {
        return false;
    }
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"@\"'\\`$[]".contains(&byte))
    })
}

/// The reference of an image with a tag, and without a digest.
pub(super) fn is_by_tag(text: &str) -> bool {
    let has_tag = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    image_reference::check(text).is_ok() && has_tag && !text.contains('@')
}

/// Whether the file is there is seen when it is read.
pub(super) fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_that_would_break_a_topic_or_a_connection_string_is_refused() {
        assert!(is_device_id("Line-1:press.2"));
        assert!(["a;b", "a#", "+", "", "a b", "ä"].iter().all(|id| !is_device_id(id)));
    }

    #[test]
    fn a_version_has_two_or_three_numbers() {
        assert!(["1.4", "1.6", "1.5.21", "1.10"].iter().all(|text| is_runtime_version(text)));
        assert!(
            ["", "1", "2.0", "1.3", "1.6.", "1.06", "1.6.0.1", "1.6-1", "1.x"]
                .iter()
                .all(|text| !is_runtime_version(text))
        );
    }

    #[test]
    fn a_quantity_is_a_number_with_a_suffix_of_kubernetes() {
        assert!(["1", "200m", "1.5Gi", "500M"].iter().all(|text| is_quantity(text)));
        assert!(
            ["", "0", "0Gi", "-1", "Gi", "1 Gi", "1gb", "1.2.3", ".5"].iter().all(|text| !is_quantity(text))
        );
    }

    #[test]
    fn a_repository_is_a_url_and_perhaps_a_suite() {
        let url = "https://repo.test/ubuntu/22.04/prod";
        assert!(is_repository(url) && is_repository(&format!("{url} jammy")));
        for wrong in ["", "repo.test", "https://", "https://u:p@repo.test", " jammy"] {
            assert!(!is_repository(wrong), "{wrong}");
        }
        assert!(!is_repository(&format!("{url} ")) && !is_repository(&format!("{url} jammy main")));
    }

    #[test]
    fn an_image_is_preloaded_by_tag() {
        assert!(["a:1", "registry:5000/a/b:latest"].iter().all(|text| is_by_tag(text)));
        let digest = format!("a@sha256:{}", "0a".repeat(32));
        assert!(["a", "registry:5000/a", "A:1", "", &digest].iter().all(|text| !is_by_tag(text)));
    }

    #[test]
    fn a_host_name_is_a_name() {
        assert!(is_host_name("hub.kedge.test") && is_host_name("hub"));
        assert!(
            ["localhost", "127.0.0.1", "Hub", "hub..test", "hub.", ""].iter().all(|name| !is_host_name(name))
        );
    }
}
