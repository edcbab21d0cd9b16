//! The way from the edge to its hub, looked at from inside the edge. The runtimes say much the same when the name is not
//! known, a port is blocked or the certificate is not trusted, so each of these is tried.

use super::cause::{Cause, Kind};
use super::scene::Scene;

/// How far apart the clocks may be: the tokens of Microsoft's runtime live for 30 seconds.
const MOST_SKEW: i64 = 20;

/// Asks for the hub that the edge is told to use: its name, then both ports at once, each within a few seconds. Its lines
/// are `host NAME`, `unresolved`, `now SECONDS`, `date SECONDS`, and `PORT CODE HANDSHAKES WORDS`.
const SCRIPT: &str = r#"
config=/etc/aziot/config.toml
q="[\"']"
host=$(sed -n "s/.*[Hh]ost[Nn]ame=\([^;\"']*\).*/\1/p
s/^[[:space:]]*iothub_hostname[[:space:]]*=[[:space:]]*$q\([^\"']*\).*/\1/p
s|^[[:space:]]*global_endpoint[[:space:]]*=[[:space:]]*${q}https://\([^\"'/]*\).*|\1|p" $config 2>/dev/null | head -n 1)
[ -n "$host" ] || exit 0
echo "host $host"
name=${host%%:*}
case $host in *:*) https=${host##*:} ;; *) https=443 ;; esac
timeout 3 getent ahosts "$name" >/dev/null || { echo unresolved; exit 0; }
connect() {
    timeout 3 openssl s_client -connect "$name:$1" -servername "$name" -verify_return_error -verify_hostname "$name" $2 2>&1
}
try() {
    if [ "$1" = 8883 ]; then
        said=$(connect "$1" </dev/null)
    else
        said=$(printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$name" | connect "$1" -quiet)
    fi
    code=$?
    date=$(echo "$said" | tr -d '\r' | sed -n 's/^[Dd]ate: //p' | head -n 1)
    [ -z "$date" ] || echo "now $(date +%s)
date $(date -d "$date" +%s)"
    shaken=$(echo "$said" | grep -c '^verify return:1')
    echo "$1 $code $shaken $(echo "$said" | grep -aiE 'error|errno|refused|unreachable' | tr -cd '[:print:]\n' | head -n 2 | paste -s -d ' ')"
}
try "$https" & try 8883 & wait"#;

/// What hinders the edge from reaching its hub; nothing when it could be reached now.
pub(super) async fn obstacle(scene: &Scene<'_>) -> Option<Cause> {
    read(&scene.script(SCRIPT).await.ok()?)
}

fn read(answer: &str) -> Option<Cause> {
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let host = field("host ")?;
    if field("unresolved").is_some() {
        return Some(Cause::new(
            Kind::Hub,
            format!("the name of the hub, {host}, is not known in the edge"),
            "correct the hub's name in the device's credentials, or the resolver of the node (the pod has the same)",
        ));
    }
    let mut trouble: Vec<_> = answer
        .lines()
        .filter_map(Try::read)
        .filter_map(|tried| Some((tried.port, tried.cause(host)?)))
        .collect();
    // What both ports have in common is told by either.
    trouble.sort_by_key(|(port, _)| *port);
    trouble.into_iter().next().map(|(_, cause)| cause).or_else(|| {
        let apart = field("date ")?.parse::<i64>().ok()? - field("now ")?.parse::<i64>().ok()?;
        (apart.abs() > MOST_SKEW).then(|| skewed(host, apart))
    })
}

/// What came of trying one port.
struct Try<'a> {
    port: u16,
    /// 124 where the time was over.
    code: i32,
    /// Whether the hub's certificate was taken.
    is_trusted: bool,
    said: &'a str,
}

impl<'a> Try<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        Some(Self {
            port: parts.next()?.parse().ok()?,
            code: parts.next()?.parse().ok()?,
            is_trusted: parts.next()?.parse::<u32>().ok()? > 0,
            said: parts.next().unwrap_or_default(),
        })
    }

    fn cause(&self, host: &str) -> Option<Cause> {
        let (port, has) = (self.port, |words: &str| self.said.contains(words));
        if has("verify error") || has("verify failed") {
            return Some(untrusted(host, self.said));
        }
        // A hub that waits for the client's first packet is cut off by the time, but it has shown its certificate.
        if self.is_trusted {
            return None;
        }
        if has("refused") {
            return Some(Cause::new(
                Kind::Hub,
                format!("nothing listens at {host}:{port}: connection refused"),
                "start the hub: `cargo xtask up` (yours: look at its address and state)",
            ));
        }
        (self.code == 124 || has("timed out") || has("unreachable") || has("No route"))
            .then(|| blocked(host, port))
    }
}

fn untrusted(host: &str, said: &str) -> Cause {
    let words = verify_error(said);
    if said.contains("not yet valid") || said.contains("has expired") {
        return Cause::new(
            Kind::Hub,
            format!("the certificate of the hub {host} is not valid by the edge's clock: {words}"),
            "compare the clock of the node with that of the hub, and renew the certificate if it is over",
        );
    }
    Cause::new(
        Kind::Hub,
        format!("the edge does not trust the certificate of the hub {host}: {words}"),
        "give the edge the authority of that certificate; a proxy that looks into TLS has one of its own",
    )
}

fn blocked(host: &str, port: u16) -> Cause {
    Cause::new(
        Kind::Hub,
        format!("port {port} of the hub {host} does not answer the edge: it is blocked on the way"),
        "open that port in the firewall; where only 443 is open, set `UpstreamProtocol = \"MqttWs\"` in [agent.env] of config.toml",
    )
}

fn skewed(host: &str, apart: i64) -> Cause {
    let word = if apart > 0 { "behind" } else { "ahead of" };
    Cause::new(
        Kind::Hub,
        format!(
            "the clock of the edge is {} s {word} that of the hub {host}, and its tokens are refused",
            apart.abs()
        ),
        "set the clock of the node right, by NTP for example; the pod has the same",
    )
}

/// What openssl says is wrong with a certificate: `verify error:num=20:WORDS`.
fn verify_error(said: &str) -> &str {
    let words = said.split_once("verify error:").and_then(|(_, rest)| rest.split_once(':'));
    let words = words.map_or(said, |(_, words)| words);
    // What follows are openssl's own error codes.
    words.split_once(" 00").or_else(|| words.split_once(" 40")).map_or(words, |(words, _)| words).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &str) -> Option<String> {
        read(&format!("host h.test\n{lines}")).map(|cause| cause.text)
    }

    #[test]
    fn each_obstacle_on_the_way_has_words_of_its_own() {
        for (lines, expected) in [
            ("unresolved", "the name of the hub, h.test, is not known in the edge"),
            ("443 1 0 connect:errno=111 Connection refused\n8883 124 1 ", "nothing listens at h.test:443"),
            ("443 0 1 \n8883 124 0 ", "port 8883 of the hub h.test does not answer the edge"),
            (
                "443 1 0 verify error:num=20:unable to get local issuer certificate 00AB:error",
                "the edge does not trust the certificate of the hub h.test: unable to get local issuer certificate",
            ),
            ("443 1 0 verify error:num=10:certificate has expired", "not valid by the edge's clock"),
            ("443 0 1 \nnow 1000\ndate 1100", "the clock of the edge is 100 s behind that of the hub"),
            ("443 0 1 \nnow 1100\ndate 1000", "the clock of the edge is 100 s ahead of"),
        ] {
            let told = told(lines).unwrap_or_default();
            assert!(told.contains(expected), "{lines}: {told}");
        }
    }

    #[test]
    fn a_way_that_is_free_is_no_cause() {
        assert_eq!(told("443 0 1 \nnow 1000\ndate 1001\n8883 124 1 "), None);
        assert_eq!(read(""), None, "an edge that is told no hub has other trouble");
        assert_eq!(told("garbage\n443 x y z\n"), None);
    }

    #[test]
    fn the_script_finds_the_hub_in_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        for (text, host) in [
            ("connection_string = \"HostName=a.invalid;DeviceId=d;SharedAccessKey=k\"", "a.invalid"),
            ("iothub_hostname = 'b.invalid'", "b.invalid"),
            ("  global_endpoint = \"https://c.invalid/\"", "c.invalid"),
        ] {
            let config = folder.path().join("config.toml");
            fs_err::write(&config, text).unwrap();
            let script = SCRIPT.replace("/etc/aziot/config.toml", config.to_str().unwrap());
            let output = assert_cmd::Command::new("sh").args(["-c", &script]).output().unwrap();
            let told = String::from_utf8(output.stdout).unwrap();
            assert_eq!(
                told,
                format!("host {host}\nunresolved\n"),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
