//! Mistakes in the credentials of the device, through every kind of `cargo xtask device`.

use std::time::{Duration, SystemTime};

use kedge_sim::pki::{CertificateAuthority, IssuedCertificate, Validity, self_signed_client};

use crate::support::{Machine, refusal, report};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Looks like a key, is one, and must never be told.
const KEY: &str = "czNjcmV0LWh1bnRlcjIhczNjcmV0LWh1bnRlcjIh+/8=";
/// Made with `openssl genpkey -algorithm ed25519`.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGPioCHsel9LdRJnWO5Q8EIzdn1eaIW19YGJPUphSfQ5\n-----END PRIVATE KEY-----\n";
/// What stands in every good command line.
const SAS: [&str; 5] = ["sas", "--host-name", "hub.test", "--device-id", "press-7"];
const X509: [&str; 5] = ["x509", "--host-name", "hub.test", "--device-id", "press-7"];
const DPS: [&str; 3] = ["dps-x509", "--id-scope", "0ne00A1B2C3"];

/// What has to be told.
type Told<'a> = &'a [&'a str];
/// The files of a case, by name.
type Files<'a> = &'a [(&'a str, &'a [u8])];

struct Case<'a> {
    name: &'a str,
    files: Files<'a>,
    args: Vec<&'a str>,
    code: i32,
    told: Told<'a>,
}

impl Case<'_> {
    /// Runs the program in the folder of the files; gives back what is wrong with what it does.
    fn failure(&self) -> Option<String> {
        let machine = Machine::bare();
        for (name, contents) in self.files {
            machine.write(&format!("files/{name}"), contents);
        }
        let args = [&["device"], self.args.as_slice()].concat();
        let mut command = machine.xtask(&args);
        fs_err::create_dir_all(machine.path("files")).unwrap();
        let output = command.current_dir(machine.path("files")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let missing = self.told.iter().find(|wanted| !told.contains(**wanted));
        let problem = if output.status.code() != Some(self.code) {
            format!("the exit code is {:?}", output.status.code())
        } else if !output.stdout.is_empty() {
            "something is on standard output".into()
        } else if let Some(missing) = missing {
            format!("{missing:?} is not told")
        } else if told.contains(&KEY[..16]) || told.contains("s3cret") || told.contains("MIG") {
            "the secret is told".into()
        } else if !machine.is_untouched() {
            "something was made".into()
        } else {
            return None;
        };
        Some(format!("{}: {problem}\n{told}", self.name))
    }
}

/// With a secret from the file `it`.
fn from<'a>(kind: &[&'a str]) -> Vec<&'a str> {
    [kind, &["--from", "it"]].concat()
}

fn from_pair<'a>(kind: &[&'a str]) -> Vec<&'a str> {
    [kind, &["--certificate", "c.pem", "--from", "k.pem"]].concat()
}

#[test]
fn each_connection_string_that_is_none_is_told_with_what_to_do() {
    let good = format!("HostName=hub.test;DeviceId=press-7;SharedAccessKey={KEY}");
    let policy = format!("HostName=hub.test;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}");
    let [module, gateway, twice, unknown] =
        [";ModuleId=m", ";GatewayHostName=g", ";DeviceId=other", ";s3cret=s3cret"]
            .map(|more| format!("{good}{more}"));
    let cut = good.replace(KEY, &KEY[..16]);
    let cases: [(&str, &[u8], &[&str]); 16] = [
        ("nothing", b"", &["it: it is empty"]),
        ("binary", b"\xff\xfe", &["it: it is not text"]),
        ("a key alone", KEY.as_bytes(), &["it: this is a key alone; use `cargo xtask device sas`"]),
        (
            "a sentence",
            b"s3cret",
            &["it: part 1 has no name", "`HostName` is missing", "`DeviceId`", "`SharedAccessKey`"],
        ),
        (
            "two parts missing",
            b"DeviceId=press-7",
            &["it: `HostName` is missing", "it: `SharedAccessKey` is missing"],
        ),
        ("an empty part", b"HostName=;DeviceId=d", &["it: `HostName` is empty"]),
        ("a part twice", twice.as_bytes(), &["it: `DeviceId` stands in it 2 times"]),
        ("an unknown part", unknown.as_bytes(), &["it: part 4 has an unknown name"]),
        ("a part of another case", b"hostname=s3cret", &["it: part 1: write `HostName=`"]),
        (
            "that of a policy",
            policy.as_bytes(),
            &["it, SharedAccessKeyName: it is of a shared access policy"],
        ),
        ("that of a module", module.as_bytes(), &["it, ModuleId: this is the string of a module"]),
        ("that of a leaf", gateway.as_bytes(), &["it, GatewayHostName: it leads a device behind a gateway"]),
        ("that of a certificate", b"HostName=h;DeviceId=d;x509=true", &["use `cargo xtask device x509`"]),
        (
            "a key that is no base64",
            b"HostName=h;DeviceId=d;SharedAccessKey=s3cret!",
            &["it, SharedAccessKey: it is not base64"],
        ),
        (
            "a key that is cut off",
            cut.as_bytes(),
            &["it, SharedAccessKey: the key is too short: it has 12 bytes"],
        ),
        (
            "bad names",
            b"HostName=https://h;DeviceId=a b;SharedAccessKey=",
            &["HostName: leave out the scheme", "DeviceId: `a b` is not", "`SharedAccessKey` is empty"],
        ),
    ];
    report(cases.into_iter().filter_map(|(name, text, told)| {
        let files = [("it", text)];
        Case { name, files: &files, args: from(&["connection-string"]), code: 3, told }.failure()
    }));
}

#[test]
fn each_key_or_name_that_is_none_is_told_with_what_to_do() {
    let string = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
    let key = KEY.as_bytes();
    let named = |flag: &'static str, value: &'static str| {
        let mut args = SAS.to_vec();
        if let Some(at) = args.iter().position(|arg| *arg == flag) {
            args[at + 1] = value;
        }
        from(&args)
    };
    let registered = |more: &[&'static str]| from(&[&["dps-symmetric-key"], more].concat());
    let cases: [(&str, &[u8], Vec<&str>, Told<'_>); 14] = [
        ("an empty key", b"\n", from(&SAS), &["it: it is empty"]),
        ("no base64", b"s3cret s3cret", from(&SAS), &["it: it is not base64"]),
        ("a short key", b"QUJD", from(&SAS), &["it: the key is too short: it has 3 bytes"]),
        ("a long key", &[0xff; 65], from(&SAS), &["it: the key is too long: it has 65 bytes"]),
        (
            "a connection string",
            string.as_bytes(),
            from(&SAS),
            &["it: this is a connection string, not a key"],
        ),
        ("a private key", b"-----BEGIN PRIVATE KEY-----", from(&SAS), &["it: this is PEM"]),
        (
            "a URL for a host",
            key,
            named("--host-name", "https://hub.test"),
            &["--host-name: leave out the scheme"],
        ),
        ("a port", key, named("--host-name", "hub.test:443"), &["--host-name: leave out the port"]),
        (
            "the provisioning service",
            key,
            named("--host-name", "global.azure-devices-provisioning.net"),
            &["dps-symmetric-key"],
        ),
        ("a key for a host", key, named("--host-name", KEY), &["--host-name: this looks like a secret"]),
        (
            "an id with a blank",
            key,
            named("--device-id", "press 7"),
            &["--device-id: `press 7` is not a device id"],
        ),
        (
            "no registration id",
            key,
            registered(&["--id-scope", "0ne1"]),
            &["--registration-id: it is needed"],
        ),
        (
            "a scope and an id that are none, all told at once",
            key,
            registered(&["--id-scope", "0ne 1", "--registration-id", "a/b", "--global-endpoint", "http://x"]),
            &[
                "--id-scope: `0ne 1` is not",
                "--registration-id: `a/b` is not",
                "--global-endpoint: use `https://`",
            ],
        ),
        (
            "a bad key and a bad name at once",
            b"QUJD",
            named("--device-id", "#"),
            &["it: the key is too short", "--device-id: `#`"],
        ),
    ];
    report(cases.into_iter().filter_map(|(name, key, args, told)| {
        let files = [("it", key)];
        Case { name, files: &files, args, code: 3, told }.failure()
    }));
}

#[test]
fn each_certificate_that_cannot_be_used_is_told_with_what_to_do() {
    let now = SystemTime::now();
    let valid =
        |from, until| self_signed_client("press-7", Validity { not_before: from, not_after: until }).unwrap();
    let good = valid(now - DAY, now + 99 * DAY);
    let (ended, early) = (valid(now - 9 * DAY, now - DAY), valid(now + DAY, now + 99 * DAY));
    let authority = CertificateAuthority::generate("CA").unwrap();
    let issued = authority.issue_client("press-7", Validity::for_next(99 * DAY)).unwrap();
    let at = issued.chain_pem.rfind("-----BEGIN").unwrap();
    let reversed = format!("{}{}", &issued.chain_pem[at..], &issued.chain_pem[..at]);
    let half = &good.chain_pem[..200];
    let encrypted = include_bytes!("../../sim/src/x509/testdata/encrypted.pkcs8.pem");
    let traditional = include_bytes!("../../sim/src/x509/testdata/encrypted.pkcs1.pem");
    let (certificate, key) = (good.chain_pem.as_bytes(), good.key_pem.expose().as_bytes());
    let pair = |issued: &'static IssuedCertificate| {
        (issued.chain_pem.as_bytes(), issued.key_pem.expose().as_bytes())
    };
    let [ended, early, issued] = [ended, early, issued].map(|it| pair(Box::leak(Box::new(it))));
    let other_name = [&DPS[..], &["--registration-id", "press-8"]].concat();
    type Row<'a> = (&'a str, &'a [u8], &'a [u8], Vec<&'a str>, Told<'a>);
    let cases: [Row<'_>; 15] = [
        ("no certificate", b"s3cret", key, from_pair(&X509), &["c.pem: there is no certificate in it"]),
        (
            "DER",
            b"\x30\x82\xff",
            key,
            from_pair(&X509),
            &["c.pem: this is binary", "openssl x509 -inform der"],
        ),
        ("half of one", half.as_bytes(), key, from_pair(&X509), &["c.pem: certificate 1 is damaged"]),
        (
            "the issuer first",
            reversed.as_bytes(),
            issued.1,
            from_pair(&X509),
            &["c.pem: the device's own certificate is number 2"],
        ),
        ("no key", certificate, b"", from_pair(&X509), &["k.pem: it is empty"]),
        (
            "a key of a kind that the services do not take",
            certificate,
            ED25519.as_bytes(),
            from_pair(&DPS),
            &["k.pem: the private key is damaged, or of a kind that the services do not take"],
        ),
        (
            "a key in DER",
            certificate,
            b"\x30\x82\xff",
            from_pair(&X509),
            &["k.pem: this is binary", "openssl pkey -inform der"],
        ),
        (
            "an encrypted key",
            certificate,
            encrypted,
            from_pair(&X509),
            &["k.pem: the private key is encrypted", "openssl pkey -in"],
        ),
        (
            "an encrypted key of old",
            certificate,
            traditional,
            from_pair(&DPS),
            &["k.pem: the private key is encrypted"],
        ),
        (
            "another key",
            certificate,
            issued.1,
            from_pair(&X509),
            &["k.pem: this is not the key of the certificate in c.pem"],
        ),
        (
            "the two exchanged",
            key,
            certificate,
            from_pair(&X509),
            &["c.pem: a private key is in it", "k.pem: this is a certificate"],
        ),
        ("one that has ended", ended.0, ended.1, from_pair(&X509), &["c.pem: the certificate has ended at"]),
        (
            "one of tomorrow",
            early.0,
            early.1,
            from_pair(&DPS),
            &["c.pem: the certificate is not valid before", "clock"],
        ),
        (
            "that of another registration",
            certificate,
            key,
            from_pair(&other_name),
            &["c.pem: the common name is `press-7` and the registration id `press-8`"],
        ),
        (
            "a bad name as well",
            b"",
            key,
            from_pair(&["dps-x509", "--id-scope", "?"]),
            &["c.pem: it is empty", "--id-scope: `?` is not"],
        ),
    ];
    report(cases.into_iter().filter_map(|(name, certificate, key, args, told)| {
        let files = [("c.pem", certificate), ("k.pem", key)];
        Case { name, files: &files, args, code: 3, told }.failure()
    }));
}

#[test]
fn a_secret_in_a_wrong_place_is_refused_and_not_repeated() {
    let string = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
    let variable = format!("env:{KEY}");
    let cases: [(&str, Vec<&str>, i32, &[&str]); 13] = [
        ("nothing from anywhere", SAS.to_vec(), 2, &["`--from FILE|-|env:NAME` is missing"]),
        ("a string and no source", vec!["connection-string", &string], 2, &["take this one for known"]),
        ("a key and no source", [&SAS[..], &[KEY]].concat(), 2, &["take this one for known to others"]),
        ("a key for its file", [&SAS[..], &["--from", KEY]].concat(), 2, &["a secret is never an argument"]),
        ("a string for its file", vec!["connection-string", "--from", &string], 2, &["never an argument"]),
        ("a string alone", vec!["connection-string", "--from", "-", &string], 2, &["never an argument"]),
        ("a string as the kind", vec![&string], 2, &["none of the kinds"]),
        ("a key for its variable", [&SAS[..], &["--from", &variable]].concat(), 2, &["never an argument"]),
        ("the value of a variable", [&SAS[..], &["--from", "env:$KEY"]].concat(), 2, &["without `$`"]),
        (
            "a variable that is not set",
            [&SAS[..], &["--from", "env:NONE"]].concat(),
            3,
            &["the variable NONE: it is not set"],
        ),
        ("a file that is not there", from(&SAS), 3, &["it: there is no such file"]),
        ("a folder", [&SAS[..], &["--from", "."]].concat(), 3, &[".: this is a folder"]),
        (
            "both from standard input",
            [&X509[..], &["--certificate", "-", "--from", "-"]].concat(),
            2,
            &["only one thing can come from standard input"],
        ),
    ];
    report(
        cases
            .into_iter()
            .filter_map(|(name, args, code, told)| Case { name, files: &[], args, code, told }.failure()),
    );
}

#[test]
fn credentials_for_another_hub_are_refused_before_anything_is_made() {
    let machine = Machine::bare();
    let file = machine.write("cs", format!("HostName=hub.test;DeviceId=press-7;SharedAccessKey={KEY}"));
    machine.xtask(&["device", "connection-string", "--from", &file]).assert().code(0);
    for command in [&["up"][..], &["e2e"], &["run"], &["plan"], &["up", "--dry-run"]] {
        let told = refusal(&mut machine.xtask(command), 3);
        assert!(told.contains("are for hub.test") && told.contains("`--hub azure`"), "{command:?}: {told}");
    }
    machine.xtask(&["device", "remove"]).assert().code(0);
    let told = refusal(&mut machine.xtask(&["up", "--hub", "azure"]), 3);
    assert!(told.contains("cargo xtask device connection-string --from FILE"), "{told}");
    let told = refusal(&mut machine.xtask(&["device", "check"]), 3);
    assert!(told.contains("there are no credentials"), "{told}");
    let tpm = ["device", "dps-tpm", "--id-scope", "0ne1", "--registration-id", "press-7"];
    let told = machine.xtask(&tpm).assert().code(0).get_output().stderr.clone();
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("warning: the simulated runtime cannot use a TPM"), "{told}");
    assert!(told.contains("`cargo xtask deploy --context NAME --hub azure --runtime azure`"), "{told}");
    let told = refusal(&mut machine.xtask(&["up", "--hub", "azure"]), 3);
    assert!(told.contains("(dps-tpm)") && told.contains("`--runtime azure`"), "{told}");
}

#[test]
fn kept_credentials_that_are_damaged_or_have_ended_are_told() {
    let machine = Machine::bare();
    let kept = ".local/state/kedge/kedge/device/credentials.json";
    let now = SystemTime::now();
    let ended = Validity { not_before: now - 9 * DAY, not_after: now - DAY };
    let ended = self_signed_client("press-7", ended).unwrap();
    let text = serde_json::json!({
        "kind": "x509", "host_name": "hub.kedge.test", "device_id": "press-7",
        "certificate": ended.chain_pem, "private_key": ended.key_pem.expose(),
    });
    machine.write(kept, text.to_string());
    for command in [&["device", "check"][..], &["up"]] {
        let told = refusal(&mut machine.xtask(command), 3);
        assert!(told.contains("the certificate has ended at"), "{told}");
    }
    let shown = machine.xtask(&["device", "show"]).assert().code(0).get_output().stdout.clone();
    assert!(String::from_utf8(shown).unwrap().contains("CN=press-7"));
    machine.write(kept, "{\"kind\": \"s3cret-hunter2\"}");
    let told = refusal(&mut machine.xtask(&["device", "check"]), 1);
    assert!(told.contains("is damaged; give the credentials anew"), "{told}");
    machine.xtask(&["device", "remove"]).assert().code(0);
    assert!(!machine.path(kept).exists());
}
