//! Taking secrets out of what is kept of a run. The tool knows its own and those that a user has given; others, such as keys
//! that the edge has made, are told by their looks, as they are and in base64. Pure: from text to text.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use regex::{Captures, Regex};

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";
/// How often a text may be wrapped in base64.
const DEPTH: u8 = 3;

/// Names of fields, variables and flags whose values are secrets.
const NAMES: &str = "password|passwd|secret|token|identity_?token|registry_?token|access_?token|refresh_?token|\
                     primary_?key|secondary_?key|shared_?access_?key|symmetric_?key|account_?key|connection_?string|\
                     client_?secret|private_?key|api_?key";

/// What a secret looks like, and what is put in its place.
struct Pattern {
    looks: Regex,
    becomes: &'static str,
}

static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let rows = [
        // Private keys, also those of which a log has only the begin or only the end.
        (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", "[redacted]"),
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[A-Za-z0-9+/=\s]|\\[nr])*", "[redacted]"),
        (r"(?:[A-Za-z0-9+/=]{16,}(?:\s|\\[nr])*)*-----END [A-Z ]*PRIVATE KEY-----", "[redacted]"),
        // A field of JSON, and of JSON within JSON.
        (r#"(?i)("(?:NAMES|auth)"\s*:\s*")(?:[^"\\]|\\.)*"#, "${1}[redacted]"),
        (r#"(?i)(\\+"(?:NAMES|auth)\\+"\s*:\s*\\+")(?:[^"\\]|\\[^"\\])*"#, "${1}[redacted]"),
        // A line of YAML or TOML.
        (
            r#"(?im)^([ \t-]*"?(?:[a-z0-9_]*_)?(?:NAMES|auth)"?[ \t]*[:=][ \t]*)[^\s\[{|>].*$"#,
            "${1}[redacted]",
        ),
        // A part of a connection string, a variable, a query, a flag.
        (r#"(?i)(\b(?:[a-z0-9_]*_)?(?:NAMES)(?:=|%3d))(?:"[^"]*"|[^\s"',;&\\]+)"#, "${1}[redacted]"),
        (r"(?i)(--(?:[a-z0-9]+-)?(?:NAMES)[ =])\S+", "${1}[redacted]"),
        (r#"(?i)(\bsig=)[^\s"',;&\\]+"#, "${1}[redacted]"),
        (r"(?i)((?:\b|%26)sig%3d)(?:[a-z0-9_.~+/-]|%25?(?:2b|2f|3d))+", "${1}[redacted]"),
        (r#"(?i)(\bauthorization\\*["']?\s*[:=]\s*\\*["']?)[^\r\n"'\\]+"#, "${1}[redacted]"),
        (r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{16,}", "${1}[redacted]"),
        (r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*", "[redacted]"),
        // A login in an address.
        (r#"(://)[^\s/@:"']+:[^\s/@"']+@"#, "${1}[redacted]@"),
    ];
    rows.into_iter()
        .filter_map(|(looks, becomes)| {
            let looks = Regex::new(&looks.replace("NAMES", NAMES)).ok()?;
            Some(Pattern { looks, becomes })
        })
        .collect()
});

/// Long enough in base64 to hold a secret, also where an address or a form has it, after some other escaped character.
static BASE64: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(%[0-9A-Fa-f]{2})?((?:[A-Za-z0-9+/_-]|%2[bBfF]){16,}(?:={1,2}|(?:%3[dD]){1,2})?)").ok()
});

const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ALPHABETS: [GeneralPurpose; 2] = [
    GeneralPurpose::new(&base64::alphabet::STANDARD, PADDING),
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, PADDING),
];

/// The text without what `known` takes out, without what looks like a secret, and without base64 of either.
#[must_use]
pub fn redact(text: &str, known: &dyn Fn(&str) -> String) -> String {
    within(text, known, DEPTH)
}

fn within(text: &str, known: &dyn Fn(&str) -> String, depth: u8) -> String {
    let text = known(text);
    let text =
        PATTERNS.iter().fold(text, |text, pattern| match pattern.looks.replace_all(&text, pattern.becomes) {
            Cow::Borrowed(_) => text,
            Cow::Owned(redacted) => redacted,
        });
    let Some(base64) = BASE64.as_ref().filter(|_| depth > 0) else { return text };
    let clear = base64.replace_all(&text, |found: &Captures<'_>| {
        if is_secret(&found[2], known, depth) {
            format!("{}{REDACTED}", found.get(1).map_or("", |before| before.as_str()))
        } else {
            found[0].to_owned()
        }
    });
    clear.into_owned()
}

/// Whether a run of base64 is a key, or a text in which there is a secret.
fn is_secret(run: &str, known: &dyn Fn(&str) -> String, depth: u8) -> bool {
    let escapes = [("%2B", "+"), ("%2b", "+"), ("%2F", "/"), ("%2f", "/"), ("%3D", "="), ("%3d", "=")];
    let run = escapes.iter().fold(run.to_owned(), |run, (escaped, plain)| run.replace(escaped, plain));
    let (run, padding) = (run.trim_end_matches('='), run.ends_with('='));
    for alphabet in ALPHABETS {
        let Ok(bytes) = alphabet.decode(run) else { continue };
        // Keys of IoT Hub have 32 or 64 bytes, and padding at their end.
        if padding && [32, 64].contains(&bytes.len()) {
            return true;
        }
        if let Ok(text) = std::str::from_utf8(&bytes)
            && within(text, known, depth - 1) != text
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "+83vASNFZ/mrze8BI0VniavN7wEjRWeJq83vASNFZ4k=";

    fn redacted(text: &str) -> String {
        redact(text, &|text: &str| text.replace("0penSesame-known", REDACTED))
    }

    fn base64(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    #[test]
    fn what_looks_like_a_secret_is_taken_out_and_the_rest_stays() {
        let rows = [
            (
                "HostName=h;DeviceId=d;SharedAccessKey=abc/+=;x=1",
                "HostName=h;DeviceId=d;SharedAccessKey=[redacted];x=1",
            ),
            ("SharedAccessKeyName=iothubowner", "SharedAccessKeyName=iothubowner"),
            (
                "SharedAccessSignature sr=h%2Fd&sig=a%2Bb%3D&se=17",
                "SharedAccessSignature sr=h%2Fd&sig=[redacted]&se=17",
            ),
            (
                "SharedAccessSignature%20sr%3Dh%26sig%3Da%252Bb%26se%3D1",
                "SharedAccessSignature%20sr%3Dh%26sig%3D[redacted]%26se%3D1",
            ),
            ("authorization: Basic a2VkZ2U6c2VjcmV0\r\nhost: h", "authorization: [redacted]\r\nhost: h"),
            ("sent Bearer abcdefghijklmnop.q-r done", "sent Bearer [redacted] done"),
            ("basic authentication is needed", "basic authentication is needed"),
            (
                r#"{"auths":{"r:5000":{"auth":"a2VkZ2U6eA=="}}}"#,
                r#"{"auths":{"r:5000":{"auth":"[redacted]"}}}"#,
            ),
            (
                r#"{"username":"kedge","password":"p\"q\\","address":"r"}"#,
                r#"{"username":"kedge","password":"[redacted]","address":"r"}"#,
            ),
            (
                r#""{\"password\":\"pq/r\",\"address\":\"a\"}""#,
                r#""{\"password\":\"[redacted]\",\"address\":\"a\"}""#,
            ),
            ("  password: hunter2 and more\n  username: kedge", "  password: [redacted]\n  username: kedge"),
            (
                "- name: regcred\n  secret:\n    secretName: s",
                "- name: regcred\n  secret:\n    secretName: s",
            ),
            ("set DB_PASSWORD=hunter2 next", "set DB_PASSWORD=[redacted] next"),
            ("tool --registry-password hunter2 --yes", "tool --registry-password [redacted] --yes"),
            ("https://kedge:hunter2@registry:5000/v2/", "https://[redacted]@registry:5000/v2/"),
            ("- --client-cert-auth=true", "- --client-cert-auth=true"),
            ("localhost:5001/kedge/edge@sha256:ab", "localhost:5001/kedge/edge@sha256:ab"),
            ("token eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrOHMifQ.c2ln end", "token [redacted] end"),
            ("the password is 0penSesame-known.", "the password is [redacted]."),
            (
                "/var/lib/aziot/edged/some/long/path/of/a/file",
                "/var/lib/aziot/edged/some/long/path/of/a/file",
            ),
            (
                "sha256:42cbed427b761779d02d86eb6e9bdc04c85ab6c31a505e42371129e3104042e4",
                "sha256:42cbed427b761779d02d86eb6e9bdc04c85ab6c31a505e42371129e3104042e4",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(redacted(text), expected, "{text}");
            assert_eq!(redacted(expected), expected, "what is redacted stays so: {expected}");
        }
    }

    #[test]
    fn a_key_that_nobody_has_told_of_is_taken_out() {
        let escaped = KEY.replace('=', "%3D").replace('+', "%2B").replace('/', "%2f");
        for text in [format!("value = \"{KEY}\""), format!("k={KEY}"), format!("k%3D{escaped}"), base64(KEY)]
        {
            let redacted = redacted(&text);
            assert!(redacted.contains(REDACTED) && !redacted.contains(&KEY[..40]), "{text}: {redacted}");
        }
    }

    #[test]
    fn a_private_key_is_taken_out_whole_or_in_part() {
        let body =
            "MHcCAQEEIBkg4LVWM9nuwNSk3yByxZpYRTBnVJk5oByxZpYRTBnV\nAwEHoUQDQgAE4LVWM9nuwNSk3yByxZpYRTBn\n";
        let (begin, end) = ("-----BEGIN EC PRIVATE KEY-----\n", "-----END EC PRIVATE KEY-----");
        let whole = format!("{begin}{body}{end}");
        let rows = [
            format!("a {whole} b"),
            format!("a {begin}{body}"),
            format!("{body}{end} b"),
            format!("a {} b", whole.replace('\n', "\\n")),
            format!("a {} b", whole.replace('\n', "\nNov 28 edge kedge[1]: ")),
            format!("a {} b", base64(&whole)),
        ];
        for text in rows {
            let redacted = redacted(&text);
            assert!(redacted.contains(REDACTED) && !redacted.contains("MHcCAQEE"), "{text}: {redacted}");
            assert!(!redacted.contains("AwEHoUQ"), "{text}: {redacted}");
        }
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        assert_eq!(redacted(certificate), certificate);
    }

    #[test]
    fn a_secret_is_found_within_base64_also_twice() {
        let text = "user = kedge, the password is 0penSesame-known";
        for wrapped in [base64(text), base64(&base64(text)), base64("password = \"hunter2\"")] {
            assert_eq!(redacted(&format!("data: {wrapped} end")), "data: [redacted] end");
        }
        let harmless = base64("nothing that anybody has to hide from the world");
        assert_eq!(redacted(&harmless), harmless);
    }

    #[test]
    fn every_pattern_can_be_used_and_no_text_makes_it_fail() {
        assert_eq!(PATTERNS.len(), 14);
        assert!(BASE64.is_some());
        for text in ["", "=", "%3d", "====", "-----BEGIN PRIVATE KEY-----", "\\\"auth\\\":\\\"", "é%", "sig="]
        {
            redacted(text);
        }
    }
}
