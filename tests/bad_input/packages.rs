//! Folders with packages of Microsoft's runtime that cannot be used.

use crate::support::{Machine, refusal};

const IDENTITY: &str = "packages/aziot-identity-service_1.6.0-1_all.deb";

/// Files, further settings of the runtime, what is told.
const CASES: [(&[&str], &str, &str); 7] = [
    (&[], "", "packages: the folder of packages cannot be read"),
    (&[IDENTITY], "", "aziot-edge: found no such package, wanted 1.6 for"),
    (
        &[IDENTITY, "packages/aziot-edge_1.5.21-1_all.deb"],
        "",
        "aziot-edge: found 1.5.21-1 for all, wanted 1.6 for",
    ),
    (
        &[IDENTITY, "packages/aziot-edge_1.6.0-1_s390x.deb"],
        "",
        "aziot-edge: found 1.6.0-1 for s390x, wanted 1.6 for",
    ),
    (
        &[IDENTITY, "packages/aziot-edge_1.6.0-1_all.deb", "packages/aziot-edge_1.6.1-1_all.deb"],
        "",
        "`aziot-edge_1.6.0-1_all.deb` and `aziot-edge_1.6.1-1_all.deb` are all 1.6",
    ),
    (
        &[IDENTITY, "packages/aziot-edge_1.6.0-1_all.deb"],
        "engine = \"moby-engine\"\n",
        "moby-engine: found no such package",
    ),
    (
        &["packages/aziot-edge_1.6.0-1_all.deb", "packages/aziot-identity-service_1.5.6-1_all.deb"],
        "",
        "aziot-identity-service: found 1.5.6-1 for all, wanted 1.6 for",
    ),
];

#[test]
fn packages_that_do_not_go_together_are_told_and_nothing_is_made() {
    for (files, settings, expected) in CASES {
        let machine = Machine::bare();
        for file in files {
            machine.write(file, "");
        }
        let profile = machine.write("kedge.toml", format!("[runtime]\nuse = \"azure\"\n{settings}"));
        let packages = machine.path("packages");
        let flags = ["up", "--profile", &profile, "--packages", packages.to_str().unwrap()];
        let told = refusal(&mut machine.xtask(&flags), 3);
        assert!(told.contains(expected) && told.contains("nothing was changed"), "{expected}: {told}");
        assert!(machine.is_untouched(), "{expected}");
    }
}

#[test]
fn what_only_microsofts_runtime_has_is_refused_with_the_simulated_one() {
    let machine = Machine::bare();
    let profile = machine.write("kedge.toml", "[runtime]\nengine = \"moby-engine\"\n");
    let told = refusal(&mut machine.xtask(&["up", "--profile", &profile]), 3);
    assert!(told.contains("runtime.engine = \"moby-engine\": the simulated runtime comes with"), "{told}");
    let profile =
        machine.write("kedge.toml", "[runtime]\nuse = \"azure\"\nrepository-key = \"/no/such/key.asc\"\n");
    let told = refusal(&mut machine.xtask(&["up", "--profile", &profile]), 3);
    assert!(told.contains("/no/such/key.asc: there is no such file"), "{told}");
    let image = format!("a@sha256:{}", "0a".repeat(32));
    let told = refusal(&mut machine.xtask(&["up", "--preload", &image]), 2);
    assert!(told.contains("by tag, and not by digest, which is lost when an image is saved"), "{told}");
    let told = refusal(&mut machine.xtask(&["up", "--preload", "Foo Bar"]), 2);
    assert!(told.contains("such as \"r.test/sensor:1.0\", in lower case"), "{told}");
    let told = refusal(&mut machine.xtask(&["up", "--packages", "."]), 2);
    assert!(told.contains("`--packages` goes with `--runtime azure`"), "{told}");
}
