//! Names and ids, by the rules of the services.

use kedge_sim::identity::validate_id;

use super::{Given, Review, looks_like_a_secret};
use crate::problems::shown;

const LONGEST_REGISTRATION_ID: usize = 128;

/// The text, if there is one that may be a name. In the place of a name a secret could stand.
fn text<'a>(review: &mut Review, given: &'a Given) -> Option<&'a str> {
    let problem = match given.text() {
        None => "it is not text",
        Some("") => "it is empty",
        Some(text) if looks_like_a_secret(text) => "this looks like a secret; only a name belongs here",
        Some(text) => return Some(text),
    };
    review.problem(&given.place, problem);
    None
}

/// The host name of a hub, in lower case: tokens and certificates know no other.
pub(super) fn host_name(review: &mut Review, given: &Given) -> Option<String> {
    let text = text(review, given)?;
    let problem = if text.contains("://") {
        "leave out the scheme: only the host name is needed, such as `factory.azure-devices.net`".to_owned()
    } else if text.contains(':') {
        "leave out the port: devices reach a hub at its usual ports only".to_owned()
    } else if text.to_ascii_lowercase().contains("azure-devices-provisioning.") {
        "this is the provisioning service, which tells a device its hub; use `cargo xtask device dps-symmetric-key`, \
         `dps-x509` or `dps-tpm`"
            .to_owned()
    } else if !is_dns_name(text) {
        format!("`{}` is not a host name; that of a hub looks like `factory.azure-devices.net`", shown(text))
    } else {
        return Some(text.to_ascii_lowercase());
    };
    review.problem(&given.place, problem);
    None
}

/// The id of a device.
pub(super) fn device_id(review: &mut Review, given: &Given) -> Option<String> {
    let text = text(review, given)?;
    // These two are wildcards of the topics by which a device is spoken to.
    if validate_id(text).is_ok() && !text.contains(['+', '#']) {
        return Some(text.to_owned());
    }
    let what = "is not a device id: use 1 to 128 letters, digits or characters of -:.%_*?!(),=@$'";
    review.problem(&given.place, format!("`{}` {what}", shown(text)));
    None
}

/// The id of a registration.
pub(super) fn registration_id(review: &mut Review, given: &Given) -> Option<String> {
    let text = text(review, given)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let ends_well = text.bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.len() <= LONGEST_REGISTRATION_ID && text.bytes().all(allowed) && ends_well {
        return Some(text.to_owned());
    }
    let what = "is not a registration id: use 1 to 128 letters, digits or characters of -._: with a letter, a digit \
                or - at the end";
    review.problem(&given.place, format!("`{}` {what}", shown(text)));
    None
}

/// The name that the service has for its customer.
pub(super) fn id_scope(review: &mut Review, given: &Given) -> Option<String> {
    let text = text(review, given)?;
    if text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let what =
            "is not an id scope; it looks like `0ne00A1B2C3`, and stands in the overview of the service";
        review.problem(&given.place, format!("`{}` {what}", shown(text)));
        return None;
    }
    if !text.starts_with("0ne") {
        let what = "does not begin with `0ne`, as those of Microsoft's service do";
        review.warning(&given.place, format!("`{}` {what}", shown(text)));
    }
    Some(text.to_owned())
}

/// The URL of the service, as the runtime wants it. Its host name alone is enough.
pub(super) fn global_endpoint(review: &mut Review, given: &Given) -> Option<String> {
    let text = text(review, given)?;
    let host = text.strip_prefix("https://").unwrap_or(text);
    let host = host.strip_suffix('/').unwrap_or(host);
    let problem = if text.starts_with("http://") {
        "use `https://`: devices send their proof only over TLS".to_owned()
    } else if is_dns_name(host) {
        return Some(format!("https://{}", host.to_ascii_lowercase()));
    } else {
        format!("`{}` is not the address of a provisioning service; use the form `https://NAME`", shown(text))
    };
    review.problem(&given.place, problem);
    None
}

fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label) && text.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&mut Review, &Given) -> Option<String>;

    /// What is made of the text, or the problem.
    fn checked(check: Check, text: &str) -> Result<String, String> {
        let mut review = Review::default();
        match check(&mut review, &Given::new("--it", text)) {
            Some(value) => Ok(value),
            None => Err(review.problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn names_are_taken_as_the_services_allow_them() {
        let cases: [(Check, &str, &str); 10] = [
            (host_name, " Hub.azure-devices.net\n", "hub.azure-devices.net"),
            (host_name, "hub", "hub"),
            (device_id, "Line-1:press.2", "Line-1:press.2"),
            (registration_id, "Press-7", "Press-7"),
            (registration_id, "a.b_c:d-", "a.b_c:d-"),
            (id_scope, "0ne00A1B2C3", "0ne00A1B2C3"),
            (id_scope, "other", "other"),
            (
                global_endpoint,
                "https://Global.azure-devices-provisioning.net/",
                "https://global.azure-devices-provisioning.net",
            ),
            (global_endpoint, "hub.kedge.test", "https://hub.kedge.test"),
            (device_id, "d", "d"),
        ];
        for (check, text, expected) in cases {
            assert_eq!(checked(check, text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_says_what_is_one() {
        let long = "x".repeat(129);
        let cases: [(Check, &str, &str); 17] = [
            (host_name, "", "it is empty"),
            (host_name, "https://hub.test", "leave out the scheme"),
            (host_name, "hub.test:443", "leave out the port"),
            (host_name, "global.azure-devices-provisioning.net", "this is the provisioning service"),
            (host_name, "hub_1.test", "is not a host name"),
            (host_name, "10.0.0.1", "is not a host name"),
            (host_name, "HostName=h;SharedAccessKey=a2V5", "looks like a secret"),
            (device_id, "a b", "is not a device id"),
            (device_id, "a/b", "is not a device id"),
            (device_id, "#", "is not a device id"),
            (device_id, &long, "is not a device id"),
            (registration_id, "a$", "is not a registration id"),
            (registration_id, "a.", "is not a registration id"),
            (registration_id, &long, "is not a registration id"),
            (id_scope, "0ne 1", "is not an id scope"),
            (global_endpoint, "http://h.test", "use `https://`"),
            (global_endpoint, "https://h.test/path", "is not the address"),
        ];
        for (check, text, expected) in cases {
            let told = checked(check, text).unwrap_err();
            assert!(told.starts_with("--it: ") && told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn an_id_scope_that_is_unlike_microsofts_is_taken_with_a_warning() {
        let mut review = Review::default();
        assert!(id_scope(&mut review, &Given::new("--id-scope", "mine")).is_some());
        assert!(review.warnings[0].to_string().contains("does not begin with `0ne`"));
    }
}
