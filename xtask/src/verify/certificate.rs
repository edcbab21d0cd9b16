//! The certificate of the gateway, as a module sees it that trusts the Edge CA and knows the gateway by its host name.

use super::cause::{Cause, Kind};
use super::scene::Scene;

const SCRIPT: &str = r#"
name=$(sed -n "s/^[[:space:]]*hostname[[:space:]]*=[[:space:]]*[\"']\([^\"']*\).*/\1/p" /etc/aziot/config.toml | head -n 1)
name=${name:-$(hostname)}
authority=/var/lib/aziot/certd/aziot-edged-ca.pem
[ -s $authority ] || authority=$(ls -t /var/lib/aziot/certd/certs/aziotedgedca*.cer 2>/dev/null | head -n 1)
[ -s "$authority" ] || exit 0
timeout 3 openssl s_client -connect 127.0.0.1:8883 -servername "$name" -CAfile "$authority" -no-CApath -verify_return_error \
    -verify_hostname "$name" </dev/null 2>&1 | grep -m 1 'verify error'"#;

/// What is wrong with it.
pub(super) async fn obstacle(scene: &Scene<'_>) -> Option<Cause> {
    read(&scene.script(SCRIPT).await.ok()?)
}

fn read(answer: &str) -> Option<Cause> {
    let words = answer.lines().find_map(|line| line.trim().strip_prefix("verify error:"))?;
    let words = words.split_once(':').map_or(words, |(_, words)| words);
    Some(Cause::new(
        Kind::Certificate,
        format!("modules refuse the certificate of the gateway: {words}"),
        "renew the Edge CA: remove its files below /var/lib/aziot/certd in the edge, and restart the runtime",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_would_say_is_told() {
        let cause = read("verify error:num=10:certificate has expired\n").map(|cause| cause.text);
        assert_eq!(
            cause.as_deref(),
            Some("modules refuse the certificate of the gateway: certificate has expired")
        );
        assert_eq!(read(""), None);
    }
}
