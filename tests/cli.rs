//! The command line as a user meets it: help, refusals and exit codes. Nothing here needs an engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use assert_cmd::Command;
use tempfile::TempDir;

/// An invocation with folders of its own, no engine, and nothing on `PATH`.
struct Machine {
    home: TempDir,
}

impl Machine {
    fn bare() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn xtask(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("xtask").unwrap();
        command
            .env_clear()
            .env("PATH", self.home.path())
            .env("HOME", self.home.path())
            .env("DOCKER_HOST", "unix:///no/such/docker.sock")
            .args(args);
        command
    }

    fn settings(&self, text: &str) -> String {
        let path = self.home.path().join("kedge.toml");
        fs_err::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn stderr(command: &mut Command, code: i32) -> String {
    let assert = command.assert().code(code);
    let output = assert.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "a refusal prints nothing to standard output");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_command() {
    let output = Machine::bare().xtask(&["--help"]).assert().code(0).get_output().stdout.clone();
    insta::assert_snapshot!(String::from_utf8(output).unwrap());
}

#[test]
fn help_of_a_command_names_its_flags() {
    let output = Machine::bare().xtask(&["e2e", "--help"]).assert().code(0).get_output().stdout.clone();
    insta::assert_snapshot!(String::from_utf8(output).unwrap());
}

/// Runs a command that has to fail with this code, and gives its one JSON document and what it told people.
fn json(command: &mut Command, code: i32) -> (serde_json::Value, String) {
    let output = command.assert().code(code).get_output().clone();
    let told = String::from_utf8(output.stderr).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{told}"));
    (report, told)
}

#[test]
fn a_script_gets_one_report_also_of_a_run_that_could_not_begin() {
    let bad = "[cluster]\nname = \"Edge\"\n";
    let good = "[cluster]\nname = \"lab\"\n";
    let cases: [(&[&str], &str, i32, &str); 7] = [
        (&["up", "--yes"], bad, 3, "correct what is named"),
        (&["verify"], bad, 3, "correct what is named"),
        (&["e2e", "--events", "events.txt"], good, 2, "--help"),
        (&["e2e", "--engine", "podman"], good, 4, "`--yes`"),
        (&["up", "--engine", "docker", "--yes"], good, 4, "cargo xtask doctor"),
        (&["run", "--engine", "docker", "--yes"], good, 4, "cargo xtask doctor"),
        (&["verify"], good, 1, "run `cargo xtask up` first"),
    ];
    for (args, settings, code, next) in cases {
        let machine = Machine::bare();
        let settings = machine.settings(settings);
        let args = [args, &["--json", "--profile", &settings]].concat();
        let (report, told) = json(&mut machine.xtask(&args), code);
        assert_eq!((&report["schema"], &report["command"]), (&1.into(), &args[0].into()), "{report:#}");
        assert_eq!((&report["result"], &report["verdict"]["exitCode"]), (&"failed".into(), &code.into()));
        let error = report["error"].as_str().unwrap();
        assert!(told.contains(&format!("error: {error}")), "{told}\n{report:#}");
        assert!(report["verdict"]["next"].as_str().unwrap().contains(next), "{report:#}");
        assert_eq!(report["steps"], serde_json::json!([]));
        // On what it would have run is known as soon as the settings are.
        let known = if code == 3 { "" } else { "lab" };
        assert_eq!(report["environment"]["cluster"], known, "{report:#}");
    }
}

#[test]
fn a_script_gets_no_secret() {
    let machine = Machine::bare();
    let mut up = machine.xtask(&["up", "--json", "--engine", "docker"]);
    let (report, _) = json(up.env("DOCKER_HOST", "tcp://me:s3cret-hunter2@127.0.0.1:1"), 4);
    assert!(report["error"].as_str().unwrap().contains("tcp://[redacted]@127.0.0.1:1"), "{report:#}");
    assert!(!report.to_string().contains("s3cret"), "{report:#}");
}

#[test]
fn a_command_line_that_cannot_be_understood_has_no_report() {
    for args in [&["up", "--json", "--fast"][..], &["down", "--json"]] {
        let error = stderr(&mut Machine::bare().xtask(args), 2);
        assert!(error.contains("unexpected argument"), "{error}");
    }
}

#[test]
fn a_mistyped_command_is_a_usage_error() {
    let error = stderr(&mut Machine::bare().xtask(&["e2ee"]), 2);
    assert!(error.contains("unrecognized subcommand 'e2ee'"), "{error}");
}

#[test]
fn a_tier_that_there_is_not_is_a_usage_error() {
    let error = stderr(&mut Machine::bare().xtask(&["e2e", "--tier", "rootless"]), 2);
    assert!(error.contains("possible values: auto, userns, sysbox, confined, privileged"), "{error}");
}

#[test]
fn unusable_settings_are_all_told_and_nothing_is_made() {
    let machine = Machine::bare();
    let settings = machine.settings("[cluster]\nname = \"Edge\"\n[registry]\nport = 0\n");
    let error = stderr(&mut machine.xtask(&["up", "--yes", "--profile", &settings]), 3);
    assert!(error.contains("cluster.name = \"Edge\"") && error.contains("registry.port"), "{error}");
    assert!(!machine.home.path().join(".local").exists());
}

#[test]
fn an_unknown_setting_is_told_with_its_line() {
    let machine = Machine::bare();
    let settings = machine.settings("[cluster]\nname = \"edge\"\nworkers = 3\n");
    let error = stderr(&mut machine.xtask(&["status", "--profile", &settings]), 3);
    assert!(error.contains("kedge.toml:3:1: unknown setting `cluster.workers`"), "{error}");
}

#[test]
fn a_missing_settings_file_is_named() {
    let error = stderr(&mut Machine::bare().xtask(&["up", "--profile", "no/such.toml"]), 3);
    assert!(error.contains("no/such.toml"), "{error}");
}

#[test]
fn every_setting_is_shown_with_its_origin() {
    let machine = Machine::bare();
    let settings = machine.settings("[cluster]\nname = \"lab\"\n[registry]\n# taken\nport = 5777\n");
    let shown = |extra: &[&str]| {
        let args = [&["config", "--profile", &settings, "--engine", "podman"], extra].concat();
        String::from_utf8(machine.xtask(&args).assert().code(0).get_output().stdout.clone()).unwrap()
    };
    let text = shown(&[]).replace(&settings, "kedge.toml");
    insta::assert_snapshot!(text);
    let rows: serde_json::Value = serde_json::from_str(&shown(&["--json"])).unwrap();
    let port = rows.as_array().unwrap().iter().find(|row| row["setting"] == "registry.port").unwrap();
    assert_eq!((&port["value"], &port["origin"]), (&5777.into(), &format!("{settings}:5").into()));
}

#[test]
fn the_origin_of_a_setting_of_the_project_is_told_from_its_root() {
    let output = Machine::bare().xtask(&["config"]).assert().code(0).get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.lines().all(|line| line.contains("  config/kedge.toml:")), "{text}");
}

#[test]
fn removing_needs_no_more_of_the_settings_than_the_name() {
    let machine = Machine::bare();
    let settings = machine.settings("[cluster]\nname = \"lab\"\n[registry]\nport = 0\n");
    let error = stderr(&mut machine.xtask(&["down", "--profile", &settings]), 0);
    assert!(error.contains("warning: ") && error.contains("registry.port = 0"), "{error}");
    let settings = machine.settings("[cluster]\nname = \"lab\n[registry]\nport = 0\n");
    let error = stderr(&mut machine.xtask(&["down", "--profile", &settings]), 3);
    assert!(error.contains("kedge.toml:2:"), "{error}");
}

#[test]
fn what_is_missing_is_told_at_once_with_the_command_that_installs_it() {
    let error = stderr(&mut Machine::bare().xtask(&["e2e", "--engine", "podman"]), 4);
    for package in ["podman", "runc", "dpkg"] {
        assert!(error.contains(package), "{package} in {error}");
    }
    assert!(error.contains("--yes") && error.contains("sudo apt-get install"), "{error}");
}

#[test]
fn an_engine_that_cannot_be_reached_is_told() {
    let error = stderr(&mut Machine::bare().xtask(&["up", "--engine", "docker", "--yes"]), 4);
    assert!(error.contains("docker:") && error.contains("no container engine here"), "{error}");
}

#[test]
fn without_a_deployment_commands_say_what_to_do_first() {
    for command in ["verify", "render", "logs"] {
        let error = stderr(&mut Machine::bare().xtask(&[command]), 1);
        assert_eq!(error, "error: nothing is up; run `cargo xtask up` first\n");
    }
    let error = stderr(&mut Machine::bare().xtask(&["verify", "--hub", "azure"]), 1);
    assert!(error.contains("`cargo xtask verify --context NAME`"), "{error}");
    let output = Machine::bare().xtask(&["status"]).assert().code(0).get_output().stdout.clone();
    assert_eq!(String::from_utf8(output).unwrap(), "nothing is up; `cargo xtask up` brings everything up\n");
}

#[test]
fn doctor_for_an_engine_that_was_asked_for_looks_at_no_other() {
    let assert = Machine::bare().xtask(&["doctor", "--engine", "docker"]).assert().code(4);
    let output = assert.get_output();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.starts_with("docker     no working engine at") && !told.contains("podman"), "{told}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("docker: no"));
}

#[test]
fn a_second_invocation_waits_its_turn() {
    let machine = Machine::bare();
    let folder = machine.home.path().join(".local/state/kedge");
    fs_err::create_dir_all(&folder).unwrap();
    let lock = fs_err::File::create(folder.join("kedge.lock")).unwrap().into_file();
    lock.lock().unwrap();
    let (report, _) = json(&mut machine.xtask(&["up", "--json"]), 6);
    assert!(report["verdict"]["next"].as_str().unwrap().starts_with("wait for the end"), "{report:#}");
    let error = stderr(&mut machine.xtask(&["up"]), 6);
    assert!(error.contains("another `cargo xtask` is at work on `kedge`"), "{error}");
}

#[test]
fn of_nothing_there_is_no_bundle() {
    let machine = Machine::bare();
    let error = stderr(&mut machine.xtask(&["bundle", "--out", "b.tar.zst"]), 1);
    assert!(error.contains("nothing is up; run `cargo xtask up` first"), "{error}");
}

#[test]
fn damaged_secrets_hinder_what_needs_them_but_not_their_removal() {
    let machine = Machine::bare();
    let state = machine.home.path().join(".local/state/kedge/kedge");
    fs_err::create_dir_all(&state).unwrap();
    fs_err::write(state.join("credentials.json"), "{").unwrap();
    let error = stderr(&mut machine.xtask(&["verify"]), 1);
    assert!(error.contains("credentials.json` is damaged; run `cargo xtask down`"), "{error}");
    stderr(&mut machine.xtask(&["down"]), 0);
    assert!(!state.exists());
}

#[test]
fn the_current_context_of_a_kubeconfig_is_never_taken() {
    let machine = Machine::bare();
    let kubeconfig = machine.home.path().join("config");
    let xtask = |args: &[&str]| {
        let mut command = machine.xtask(args);
        command.env("KUBECONFIG", &kubeconfig);
        command
    };
    for command in ["deploy", "undeploy"] {
        let error = stderr(&mut xtask(&[command, "--context", "lab"]), 3);
        let expected = format!("there is no kubeconfig at `{}`", kubeconfig.display());
        assert!(error.contains(&expected) && error.contains("az aks get-credentials"), "{error}");
    }
    let contexts = r#"{"current-context":"production","contexts":[{"name":"production"},{"name":"lab"}]}"#;
    fs_err::write(&kubeconfig, contexts).unwrap();
    for args in [&["deploy"][..], &["undeploy"], &["deploy", "--context", "lba", "--yes"]] {
        let error = stderr(&mut xtask(args), 2);
        assert!(error.ends_with("it has: production, lab\n"), "{error}");
    }
    let error = stderr(&mut xtask(&["deploy", "--registry-login", "s3cret"]), 2);
    assert!(error.contains("docker-config:FILE"), "{error}");
}

/// What bash offers for these words after the script was sourced; the last word is the one being typed.
fn completed(words: &[&str]) -> Vec<String> {
    let machine = Machine::bare();
    let script = machine.xtask(&["completions", "bash"]).assert().code(0).get_output().stdout.clone();
    let path = machine.home.path().join("completions");
    fs_err::write(&path, script).unwrap();
    let play = r#"source "$0"
        [[ "$(complete -p "$1")" =~ -F\ ([^ ]+) ]] || exit 1
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        "${BASH_REMATCH[1]}" "$1" "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    let output = bash.args(["--norc", "-c", play]).arg(&path).args(words).assert().code(0);
    String::from_utf8_lossy(&output.get_output().stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_what_follows_cargo_xtask() {
    assert_eq!(completed(&["cargo", "xtask", "und"]), ["undeploy"]);
    assert_eq!(completed(&["cargo", "xtask", "logs", "--fol"]), ["--follow"]);
    assert_eq!(completed(&["cargo", "xtask", "logs", "r"]), ["runtime", "registry"]);
    assert_eq!(completed(&["cargo", "xtask", "hub", "wat"]), ["watch"]);
    assert_eq!(completed(&["cargo", "xtask", "up", "--engine", "po"]), ["podman"]);
    // The same where somebody has an alias.
    assert_eq!(completed(&["xtask", "und"]), ["undeploy"]);
    assert_eq!(completed(&["cargo", "xt"]), ["xtask"]);
}

#[test]
fn completions_and_manual_pages_need_no_usable_settings() {
    let machine = Machine::bare();
    let settings = machine.settings("[cluster]\nname = 3\n");
    for (args, mark) in [
        (["completions", "zsh"], "#compdef xtask"),
        (["completions", "fish"], "complete -c xtask"),
        (["man", "--yes"], ".TH cargo-xtask"),
    ] {
        let args = [&args[..], &["--profile", &settings]].concat();
        let output = machine.xtask(&args).assert().code(0).get_output().stdout.clone();
        assert!(String::from_utf8(output).unwrap().contains(mark), "{args:?}");
    }
    let error = stderr(&mut machine.xtask(&["completions", "csh"]), 2);
    assert!(error.contains("invalid value 'csh'"), "{error}");
}

#[test]
fn what_cannot_be_looked_at_elsewhere_is_told_before_anything_is_asked() {
    let error = stderr(&mut Machine::bare().xtask(&["logs", "registry", "--context", "lab"]), 2);
    assert!(error.contains("leave out `--context`"), "{error}");
    let error = stderr(&mut Machine::bare().xtask(&["logs", "--follow", "--previous"]), 2);
    assert!(error.contains("cannot be used with"), "{error}");
}

#[test]
fn a_secret_for_kubectl_is_applied_without_a_copy_of_it_and_taken_up_by_deploy() {
    let machine = Machine::bare();
    let [given, out] =
        ["given", "out dir"].map(|name| machine.home.path().join(name).to_str().unwrap().to_owned());
    let key = "czNjcmV0LWh1bnRlcjIhczNjcmV0LWh1bnRlcjIh+/8=";
    fs_err::write(&given, format!("HostName=factory.azure-devices.net;DeviceId=d;SharedAccessKey={key}"))
        .unwrap();
    let args = ["device", "connection-string", "--from", &given, "--out", &out];
    let told = machine.xtask(&args).assert().code(0).get_output().stderr.clone();
    let told = String::from_utf8(told).unwrap();
    let next = format!("kubectl apply --server-side --field-manager kedge -f '{out}/kedge-credentials.yaml'");
    assert!(told.contains(&next) && !told.contains(key), "{told}");
    let secret = fs_err::read_to_string(format!("{out}/kedge-credentials.yaml")).unwrap();
    assert!(secret.contains("kedge.io/made-by: deploy/kedge-credentials\n"), "{secret}");
}

#[test]
fn without_an_engine_there_is_nothing_to_remove() {
    let machine = Machine::bare();
    let error = stderr(&mut machine.xtask(&["down"]), 0);
    assert_eq!(error, "there is no container engine here, so there is nothing to remove\n");
    assert!(!machine.home.path().join(".local/state/kedge/kedge").exists());
}
