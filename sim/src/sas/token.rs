//! Tokens: made, read and verified.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::{SasError, SharedAccessKey};
use crate::percent;

/// A token is still accepted this long after its expiry, since a device's clock may be slow.
pub const CLOCK_SKEW_SECS: u64 = 60;

/// Timers reach about two years ahead; a client with a longer token proves itself anew each year.
const MAX_REMAINING: Duration = Duration::from_secs(365 * 24 * 3600);
const SCHEME: &str = "SharedAccessSignature ";
const MAX_TOKEN_TEXT: usize = 4096;

/// A time as tokens count it.
pub fn unix_seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_second()).unwrap_or_default()
}

/// Signs a token for `resource` (`{hub}/devices/{d}[/modules/{m}]`, or `{hub}` for a service), in the form of
/// the SDKs. `policy` is the name of a shared access policy, for service keys only.
pub fn sign(resource: &str, key: &SharedAccessKey, expiry_unix: u64, policy: Option<&str>) -> String {
    let unsigned = Unsigned::new(resource, expiry_unix);
    let token = unsigned.with_signature(&key.hmac(unsigned.text().as_bytes()));
    match policy {
        Some(name) => format!("{token}&skn={}", percent::encode(name)),
        None => token,
    }
}

/// A token whose signature is made by somebody else: a module asks the runtime, which holds its key.
#[derive(Debug, Clone)]
pub struct Unsigned {
    resource: String,
    expiry: u64,
}

impl Unsigned {
    /// A token for `resource`.
    pub fn new(resource: &str, expiry_unix: u64) -> Self {
        Self { resource: percent::encode(resource).to_string(), expiry: expiry_unix }
    }

    /// What is to be signed with HMAC-SHA256.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.resource, self.expiry)
    }

    /// The token.
    pub fn with_signature(&self, signature: &[u8]) -> String {
        let signature = STANDARD.encode(signature);
        let signature = percent::encode(&signature);
        format!("{SCHEME}sr={}&sig={signature}&se={}", self.resource, self.expiry)
    }
}

/// A token that was read, and proves nothing before [`Token::verify`].
#[derive(Clone)]
pub struct Token {
    signed_text: String,
    audience: String,
    signature: Vec<u8>,
    expiry: u64,
    policy: Option<String>,
}

impl Token {
    /// Reads a password or an `Authorization` header. The parts may come in any order; unknown ones are ignored.
    pub fn parse(text: &str) -> Result<Self, SasError> {
        if text.len() > MAX_TOKEN_TEXT {
            return Err(SasError::Malformed("it is too long"));
        }
        let parts = text.strip_prefix(SCHEME).ok_or(SasError::Malformed("the scheme is missing"))?;
        let (mut resource, mut signature, mut expiry, mut policy) = (None, None, None, None);
        for part in parts.split('&') {
            let (name, value) = part.split_once('=').ok_or(SasError::Malformed("a part has no value"))?;
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(SasError::Malformed("a part stands twice"));
            }
        }
        let resource = resource.ok_or(SasError::Malformed("sr is missing"))?;
        let signature = decode(signature.ok_or(SasError::Malformed("sig is missing"))?)?;
        let expiry_text = expiry.ok_or(SasError::Malformed("se is missing"))?;
        Ok(Self {
            signed_text: format!("{resource}\n{expiry_text}"),
            audience: decode(resource)?,
            signature: STANDARD.decode(signature).map_err(|_| SasError::Malformed("sig is not base64"))?,
            expiry: parse_expiry(expiry_text)?,
            policy: policy.map(decode).transpose()?.filter(|name| !name.is_empty()),
        })
    }

    /// The shared access policy that the token claims, when it is a service's token.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// How long the token is still accepted, and with it the connection that it opened.
    pub fn remaining(&self, now_unix: u64) -> Duration {
        let seconds = self.expiry.saturating_add(CLOCK_SKEW_SECS).saturating_sub(now_unix);
        Duration::from_secs(seconds).min(MAX_REMAINING)
    }

    /// Verifies the token against the keys of the identity that it claims. A token for a parent of the expected
    /// resource is good for the resource too, as at the real hub.
    pub fn verify<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a SharedAccessKey>,
        expected_resource: &str,
        now_unix: u64,
    ) -> Result<(), SasError> {
        if !covers(&self.audience, expected_resource) {
            return Err(SasError::WrongAudience);
        }
        if now_unix > self.expiry.saturating_add(CLOCK_SKEW_SECS) {
            return Err(SasError::Expired);
        }
        let signed = self.signed_text.as_bytes();
        if keys.into_iter().any(|key| key.verifies(signed, &self.signature)) {
            Ok(())
        } else {
            Err(SasError::WrongSignature)
        }
    }
}

/// True when `audience` is `resource` or one of its parents, by whole segments.
fn covers(audience: &str, resource: &str) -> bool {
    let audience = audience.trim_end_matches('/');
    !audience.is_empty()
        && resource.get(..audience.len()).is_some_and(|head| head.eq_ignore_ascii_case(audience))
        && matches!(resource.as_bytes().get(audience.len()), None | Some(b'/'))
}

fn decode(text: &str) -> Result<String, SasError> {
    percent::decode(text).ok_or(SasError::Malformed("a part is not UTF-8"))
}

/// `str::parse` would accept a plus sign.
fn parse_expiry(text: &str) -> Result<u64, SasError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let expiry = if digits { text.parse().ok() } else { None };
    expiry.ok_or(SasError::Malformed("se is not a time in Unix seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;
    const RESOURCE: &str = "hub.kedge.test/devices/Kedge-Device/modules/$edgeHub";

    fn key() -> SharedAccessKey {
        SharedAccessKey::from_base64("a2VkZ2UgdGVzdCBrZXkgb2YgMzIgYnl0ZXMgbGVuZ3Ro").unwrap()
    }

    fn verify(token: &str, resource: &str) -> Result<(), SasError> {
        Token::parse(token)?.verify(&[key()], resource, NOW)
    }

    /// Signed by Python's `hmac`, not by this crate.
    const OF_PYTHON_SDK: &str = "SharedAccessSignature \
        sr=Hub.kedge.test%2Fdevices%2FKedge-Device%2Fmodules%2F%24edgeHub\
        &sig=YEV77%2F%2Fdg9eTk5KofHuOw8I%2B47z6ASDjEtFrySYhXPs%3D&se=1790003604";

    #[test]
    fn tokens_that_others_have_signed_verify() {
        let identity_service = "SharedAccessSignature sr=h1-hub.test/devices/kedge-device\
            &sig=Br%2B%2FKONVa9pqmXYjWdZqENTPGPHjfBmJT1IsNm7hA1s%3D&se=1790000031";
        let escaped_id = "SharedAccessSignature sr=h1-hub.test/devices/a%20device%3D1\
            &sig=6PQbD%2Fp9L7OW8ALHCSU2%2Fww2uvfv7E%2B8kHqhjvszGGQ%3D&se=1790000038";
        let provisioning = "SharedAccessSignature sr=0nekedge/registrations/kedge-device\
            &sig=UDY9KL64CnaSdGHSyjqHq3Uv8a2jzIfSKgG4%2FxK%2BvIo%3D&se=1790000038&skn=registration";
        let lower_case_escapes = "SharedAccessSignature \
            sr=hub.kedge.test%2fdevices%2fKedge-Device%2fmodules%2f%24edgeHub\
            &sig=0AgjbmUAo%2bvojk3jtwX6aX5LCWHOCzFo5TD8KTnY%2fac%3d&se=1790003600";
        let cases = [
            ("the SDK for Python", OF_PYTHON_SDK, RESOURCE),
            ("the identity service", identity_service, "H1-hub.test/devices/Kedge-Device/modules"),
            ("the identity service, an id with escapes", escaped_id, "h1-hub.test/devices/a device=1"),
            ("the identity service, provisioning", provisioning, "0neKEDGE/registrations/Kedge-Device"),
            ("escapes in lower case", lower_case_escapes, RESOURCE),
        ];
        for (client, token, resource) in cases {
            assert_eq!(verify(token, resource), Ok(()), "{client}");
            let changed = token.replace("&se=179", "&se=189");
            assert_eq!(verify(&changed, resource), Err(SasError::WrongSignature), "{client}");
        }
    }

    #[test]
    fn a_token_is_signed_as_the_sdk_for_python_does() {
        let resource = "Hub.kedge.test/devices/Kedge-Device/modules/$edgeHub";
        assert_eq!(sign(resource, &key(), 1_790_003_604, None), OF_PYTHON_SDK);
    }

    #[test]
    fn parts_may_come_in_any_order_and_unknown_ones_are_ignored() {
        let token = sign(RESOURCE, &key(), NOW, Some("iothubowner"));
        let mut parts: Vec<_> = token.strip_prefix(SCHEME).unwrap().split('&').collect();
        parts.reverse();
        let token = format!("{SCHEME}x=1&{}", parts.join("&"));
        assert_eq!(Token::parse(&token).unwrap().policy(), Some("iothubowner"));
        assert_eq!(verify(&token, RESOURCE), Ok(()));
    }

    #[test]
    fn an_expired_token_is_refused_after_the_allowed_skew() {
        let expired = sign(RESOURCE, &key(), NOW - CLOCK_SKEW_SECS - 1, None);
        assert_eq!(verify(&expired, RESOURCE), Err(SasError::Expired));
        assert_eq!(verify(&sign(RESOURCE, &key(), NOW - CLOCK_SKEW_SECS, None), RESOURCE), Ok(()));
    }

    #[test]
    fn a_token_made_with_another_key_or_changed_afterwards_is_refused() {
        let other = SharedAccessKey::from_bytes(vec![7; 32]).unwrap();
        assert_eq!(verify(&sign(RESOURCE, &other, NOW, None), RESOURCE), Err(SasError::WrongSignature));
        let extended = sign(RESOURCE, &key(), NOW, None).replace(&NOW.to_string(), &(NOW + 9).to_string());
        assert_eq!(verify(&extended, RESOURCE), Err(SasError::WrongSignature));
        let token = Token::parse(&sign(RESOURCE, &key(), NOW, None)).unwrap();
        assert_eq!(token.verify(&[], RESOURCE, NOW), Err(SasError::WrongSignature));
        assert_eq!(token.verify(&[other, key()], RESOURCE, NOW), Ok(()));
    }

    #[test]
    fn only_the_resource_and_its_parents_are_accepted_as_audience() {
        let cases = [
            ("hub/devices/d/modules/m", true),
            ("HUB/Devices/D/", true),
            ("hub/devices/d", true),
            ("hub", true),
            ("hu", false),
            ("hub/devices/d2", false),
            ("hub/devices/d/modules/m2", false),
            ("hub/devices/d/modules/m/x", false),
            ("other/devices/d/modules/m", false),
            ("/", false),
            ("", false),
        ];
        for (audience, accepted) in cases {
            let result = verify(&sign(audience, &key(), NOW, None), "hub/devices/d/modules/m");
            let expected = if accepted { Ok(()) } else { Err(SasError::WrongAudience) };
            assert_eq!(result, expected, "{audience:?}");
        }
    }

    #[test]
    fn malformed_tokens_are_refused_without_a_panic() {
        let cases = [
            "",
            "SharedAccessSignature",
            "SharedAccessSignature ",
            "Bearer sr=a&sig=b&se=1",
            "SharedAccessSignature sr",
            "SharedAccessSignature sr=a&sr=b&sig=YQ&se=1",
            "SharedAccessSignature sig=YQ==&se=1",
            "SharedAccessSignature sr=a&se=1",
            "SharedAccessSignature sr=a&sig=YQ==",
            "SharedAccessSignature sr=a&sig=%&se=1",
            "SharedAccessSignature sr=a&sig=!!&se=1",
            "SharedAccessSignature sr=%ff&sig=YQ==&se=1",
            "SharedAccessSignature sr=a&sig=YQ==&se=",
            "SharedAccessSignature sr=a&sig=YQ==&se=+1",
            "SharedAccessSignature sr=a&sig=YQ==&se=-1",
            "SharedAccessSignature sr=a&sig=YQ==&se=1.5",
            "SharedAccessSignature sr=a&sig=YQ==&se=99999999999999999999",
            "SharedAccessSignature sr=a&sig=YQ==&se=1&skn=%fe",
            "SharedAccessSignature &&&",
            "SharedAccessSignature 🦀=1",
        ];
        for text in cases {
            assert!(matches!(Token::parse(text), Err(SasError::Malformed(_))), "{text:?}");
        }
        assert!(Token::parse(&format!("{SCHEME}sr={}", "a".repeat(5000))).is_err());
    }

    #[test]
    fn no_prefix_of_a_token_and_no_audience_outside_ascii_makes_the_parser_panic() {
        let token = sign("hüb/devices/日本", &key(), NOW, None);
        for end in (0..token.len()).filter(|&end| token.is_char_boundary(end)) {
            if let Ok(token) = Token::parse(&token[..end]) {
                assert!(token.verify(&[key()], "hüb/devices/日x", NOW).is_err());
            }
        }
        assert_eq!(verify(&token, "hüb/devices/日本/modules"), Ok(()));
    }
}
