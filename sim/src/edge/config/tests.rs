use super::*;

const MANUAL: &str = r#"
hostname = "edge.test"
[provisioning]
source = "manual"
connection_string = "HostName=hub.test;DeviceId=d;SharedAccessKey=c2VjcmV0"
"#;

fn error_for(text: &str) -> String {
    Settings::parse(text).unwrap_err().to_string()
}

#[test]
fn a_connection_string_is_enough() {
    let settings = Settings::parse(MANUAL).unwrap();
    let Provisioning::Manual { hub_hostname, device_id, .. } = &settings.provisioning else { panic!() };
    assert_eq!((hub_hostname.as_str(), device_id.as_str()), ("hub.test", "d"));
    assert_eq!(settings.hostname, "edge.test");
    assert_eq!(settings.network, "azure-iot-edge");
    assert_eq!(settings.engine_socket, Path::new("/var/run/docker.sock"));
    assert_eq!(settings.ignored, Vec::<String>::new());
    let without_hostname = MANUAL.replace("hostname = \"edge.test\"", "");
    assert!(!Settings::parse(&without_hostname).unwrap().hostname.is_empty());
}

#[test]
fn manual_sas_takes_the_key_as_a_value_or_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("device-id");
    fs_err::write(&key, b"secret").unwrap();
    for source in ["value = \"c2VjcmV0\"".to_owned(), format!("uri = \"file://{}\"", key.display())] {
        let text = format!(
            "[provisioning]\nsource = \"manual\"\niothub_hostname = \"h\"\ndevice_id = \"d\"\n\
                 [provisioning.authentication]\nmethod = \"sas\"\ndevice_id_pk = {{ {source} }}"
        );
        let provisioning = Settings::parse(&text).unwrap().provisioning;
        let Provisioning::Manual { proof: Proof::Key(key), .. } = provisioning else { panic!() };
        assert_eq!(key.to_base64().expose(), "c2VjcmV0");
    }
}

#[test]
fn the_engine_and_the_trust_bundle_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    fs_err::write(&bundle, "PEM").unwrap();
    let text = format!(
        "trust_bundle_cert = \"file://{}\"\n{MANUAL}[moby_runtime]\nuri = \"unix:///run/e.sock\"\nnetwork = \"n\"",
        bundle.display()
    );
    let settings = Settings::parse(&text).unwrap();
    assert_eq!(settings.trust_bundle.as_deref(), Some("PEM"));
    assert_eq!((settings.engine_socket, settings.network), (PathBuf::from("/run/e.sock"), "n".to_owned()));
}

#[test]
fn settings_of_the_real_runtime_that_mean_nothing_here_are_named() {
    let text = format!("{MANUAL}[agent]\nname = \"edgeAgent\"\n[watchdog]\nmax_retries = 3");
    assert_eq!(Settings::parse(&text).unwrap().ignored, ["agent", "watchdog"]);
}

#[test]
fn what_the_simulated_runtime_cannot_do_is_refused() {
    for (from, to, named) in [
        ("source = \"manual\"", "source = \"none\"", "provisioning source \"none\""),
        ("source = \"manual\"", "source = \"dps\"", "\"global_endpoint\" is missing"),
        ("hostname = \"edge.test\"", "auto_reprovisioning_mode = \"Never\"", "auto_reprovisioning_mode"),
        ("hostname = \"edge.test\"", "parent_hostname = \"p\"", "parent_hostname"),
        ("[provisioning]", "[edge_ca]\ncert = \"file:///c\"\n[provisioning]", "[edge_ca] cert"),
        ("[provisioning]", "[moby_runtime]\nuri = \"tcp://x\"\n[provisioning]", "moby_runtime"),
        ("[provisioning]", "[other]", "[provisioning] is missing"),
        ("connection_string", "unused", "\"connection_string\" is missing"),
        ("DeviceId=d", "DeviceId=a b", "device id"),
        ("DeviceId=d", "Device=d", "required parameter \"DeviceId\" is missing"),
    ] {
        let error = error_for(&MANUAL.replace(from, to));
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn an_error_is_one_line_names_the_place_and_never_shows_the_key() {
    for text in [
        MANUAL.replace("SharedAccessKey=c2VjcmV0\"", "SharedAccessKey=c2VjcmV0"),
        MANUAL.replace("connection_string = ", "connection_string "),
        format!("{MANUAL}connection_string = \"SharedAccessKey=c2VjcmV0\""),
        MANUAL.replace("c2VjcmV0", "c2VjcmV0!"),
        MANUAL.replace("source = \"manual\"", "source = 7"),
        "provisioning = \"SharedAccessKey=c2VjcmV0\"".to_owned(),
    ] {
        let error = error_for(&text);
        assert!(!error.contains("c2VjcmV0") && !error.contains('\n'), "{error}");
    }
    assert!(error_for("a = 1\nb = = 2").contains("line 2"), "{}", error_for("a = 1\nb = = 2"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Settings::load(Path::new("/nonexistent/config.toml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/config.toml"), "{error}");
}

/// A certificate and its key in files; the lines of the configuration that name them.
fn certificate(folder: &Path, common_name: &str) -> String {
    use crate::pki::{Validity, self_signed_client};

    let validity = Validity::for_next(std::time::Duration::from_secs(3600));
    let issued = self_signed_client(common_name, validity).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    fs_err::write(&cert, issued.chain_pem).unwrap();
    fs_err::write(&key, issued.key_pem.expose()).unwrap();
    format!(
        "method = \"x509\"\nidentity_cert = \"file://{}\"\nidentity_pk = \"file://{}\"\n",
        cert.display(),
        key.display()
    )
}

#[test]
fn a_certificate_and_its_key_prove_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let named = certificate(folder.path(), "d");
    let text = format!(
        "[provisioning]\nsource = \"manual\"\niothub_hostname = \"h\"\ndevice_id = \"d\"\n\
         [provisioning.authentication]\n{named}"
    );
    let provisioning = Settings::parse(&text).unwrap().provisioning;
    assert!(matches!(provisioning, Provisioning::Manual { proof: Proof::Certificate(_), .. }));
    for (from, to, told) in [
        ("identity_pk", "unused", "\"identity_pk\" is missing"),
        ("identity_cert = \"file", "identity_cert = \"pkcs11", "file:///path"),
        ("key.pem", "cert.pem", "identity_pk: "),
        ("cert.pem", "key.pem", "identity_cert: "),
        ("device_id = \"d\"", "", "\"device_id\" is missing"),
        ("method = \"x509\"", "method = \"tpm\"", "method \"tpm\" is not supported"),
    ] {
        let error = error_for(&text.replace(from, to));
        assert!(error.contains(told), "{error}");
    }
    let issued = text.replace(&named, "method = \"x509\"\nidentity_cert = { method = \"est\" }\n");
    assert!(error_for(&issued).contains("identity_cert: only a file is supported"), "{}", error_for(&issued));
}

const DPS: &str = r#"
hostname = "edge.test"
auto_reprovisioning_mode = "AlwaysOnStartup"
[provisioning]
source = "dps"
global_endpoint = "https://dps.test:8443"
id_scope = "0ne0001"
[provisioning.attestation]
method = "symmetric_key"
registration_id = "Reg-1"
symmetric_key = { value = "c2VjcmV0" }
"#;

fn dps(text: &str) -> Dps {
    match Settings::parse(text).unwrap().provisioning {
        Provisioning::Dps(dps) => dps,
        Provisioning::Manual { .. } => panic!("not the provisioning service"),
    }
}

#[test]
fn the_provisioning_service_is_asked_with_a_key_or_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let payload = folder.path().join("payload.json");
    fs_err::write(&payload, "{\"a\":1}").unwrap();
    let with_payload = format!("payload = {{ uri = \"file://{}\" }}\n[provisioning.att", payload.display());
    let read = dps(&DPS.replace("[provisioning.att", &with_payload));
    assert_eq!((read.endpoint.host.as_str(), read.endpoint.port), ("dps.test", 8443));
    assert_eq!((read.id_scope.as_str(), read.registration_id.as_str()), ("0ne0001", "Reg-1"));
    assert!(matches!(read.proof, Proof::Key(_)) && read.always);
    assert_eq!(read.payload, Some(serde_json::json!({"a": 1})));

    let named = certificate(folder.path(), "from-the-certificate");
    let attestation = DPS.find("method").unwrap();
    let x509 = format!("{}{named}", &DPS[..attestation]).replace(":8443", "/");
    let read = dps(&x509);
    assert_eq!((read.registration_id.as_str(), read.endpoint.port), ("from-the-certificate", 443));
    assert_eq!(dps(&format!("{x509}registration_id = \"own\"")).registration_id, "own");
    for (from, to, told) in [
        ("https://", "http://", "global_endpoint"),
        ("dps.test:8443", ":8443", "global_endpoint"),
        ("id_scope", "unused", "\"id_scope\" is missing"),
        ("registration_id", "unused", "\"registration_id\" is missing"),
        ("symmetric_key =", "unused =", "\"symmetric_key\" is missing"),
        ("\"c2VjcmV0\"", "\"c2VjcmV0!\"", "symmetric_key: "),
        ("method = \"symmetric_key\"", "method = \"tpm\"", "method \"tpm\" is not supported"),
        ("[provisioning.attestation]", "[other]", "[provisioning.attestation] is missing"),
    ] {
        let error = error_for(&DPS.replace(from, to));
        assert!(error.contains(told) && !error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn the_protocol_to_the_hub_is_that_of_the_agent() {
    for (agent, expected, ignored) in [
        ("", Transport::Tls, &[][..]),
        ("[agent.env]\nUpstreamProtocol = \"Mqtt\"", Transport::Tls, &[]),
        ("[agent.env]\nUpstreamProtocol = \"mqttws\"", Transport::WebSocket, &[]),
        ("[agent.env]\nUpstreamProtocol = \"AmqpWs\"", Transport::Tls, &["agent"]),
        ("[agent]\nname = \"a\"\nenv = { UpstreamProtocol = \"MqttWs\" }", Transport::WebSocket, &["agent"]),
        ("[agent.env]\nOther = \"x\"\nUpstreamProtocol = \"MqttWs\"", Transport::WebSocket, &["agent"]),
        ("[agent.env]\nUpstreamProtocol = 1", Transport::Tls, &["agent"]),
    ] {
        let settings = Settings::parse(&format!("{MANUAL}{agent}")).unwrap();
        assert_eq!(
            (settings.upstream, settings.ignored.as_slice()),
            (expected, &strings(ignored)[..]),
            "{agent}"
        );
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
