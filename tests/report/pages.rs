//! Reports of every kind, and what has to be seen of each on its page.

use std::path::{Path, PathBuf};

use anyhow::Error;
use jiff::Timestamp;
use serde_json::json;
use xtask::execute::Interrupted;
use xtask::exit::Unproved;
use xtask::place::Place;
use xtask::progress::Progress;
use xtask::report::{CriticalPath, Environment, Report, Results, StepReport};
use xtask::verify::{Evidence, Layer, Name};

/// Text of somebody who means no good, and who does not stop.
const HOSTILE: &str = "</style></text></svg><script>alert(1)</script><img src=https://example.com/x onerror=alert(1)> \
                       \u{202e}txt.exe\u{202c} 日本語 🙂 \" ' & ]]> \u{1b}[31m {{x}} ";

/// A report, and what has to be seen of it.
pub(crate) struct Page {
    pub(crate) name: &'static str,
    report: Report,
    pub(crate) headline: &'static str,
    pub(crate) verdict: &'static [&'static str],
    pub(crate) layers: Vec<String>,
    pub(crate) bars: usize,
    pub(crate) critical: Vec<String>,
    pub(crate) points: usize,
}

impl Page {
    /// Writes the page as a run does, and gives its path.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let folder = folder.join(self.name);
        let report = self.report.clone();
        report.publish(&folder, &folder, &Progress::default(), &Results::default(), str::to_owned);
        folder.join("report.html")
    }
}

/// Every page that is looked at.
pub(crate) fn all() -> Vec<Page> {
    vec![passed(), failed(), hostile(), interrupted(), without_telemetry()]
}

const WHOLE: &[&str] = &["Layer", "Cause", "Next", "Exit code"];
const WITHOUT_LAYER: &[&str] = &["Cause", "Next", "Exit code"];

fn passed() -> Page {
    let layers = Name::all(Place::Cluster).iter().map(|name| layer(*name, "ok", "as it should be")).collect();
    let messages = (1..=8).map(|number| message(number, 21.0 + f64::from(number) * 0.7)).collect();
    let report = Report { steps: steps(), layers, messages, ..report(None) };
    Page { bars: 20, points: 8, ..page("passed", report, "passed: 8 messages arrived", &[]) }
}

fn failed() -> Page {
    let cause = "tempSensor: cannot pull `kedge-registry:5000/kedge/temperature-sensor@sha256:\
                 52a12eab2e7d52a12eab2e7d52a12eab2e7d52a12eab2e7d52a12eab2e7d52a1`: manifest unknown\nit was tried 5 times";
    let error = Error::from(Unproved {
        layer: "module".into(),
        detail: cause.into(),
        next:
            "correct the image's name in the deployment manifest, or push the image, and run `cargo xtask up`"
                .into(),
    });
    let mut steps = steps();
    set(&mut steps, "telemetry", "failed", cause);
    let at = Name::all(Place::Cluster).iter().position(|name| *name == Name::Module).unwrap();
    let layers = Name::all(Place::Cluster).iter().enumerate().map(|(index, name)| match index {
        _ if index < at => layer(*name, "ok", "as it should be"),
        _ if index == at => layer(*name, "broken", cause),
        _ => layer(*name, "not reached", ""),
    });
    let report = Report { layers: layers.collect(), steps, ..report(Some(&error)) };
    Page { bars: 20, ..page("failed", report, "failed: the layer module is broken", WHOLE) }
}

fn hostile() -> Page {
    let long = HOSTILE.to_owned() + &"unbroken".repeat(60);
    let error = Error::from(Unproved { layer: long.clone(), detail: long.repeat(3), next: long.clone() });
    let mut steps = steps();
    for step in &mut steps {
        (step.note, step.purpose) = (long.clone(), long.clone());
    }
    set(&mut steps, "telemetry", "failed", &long);
    // Names of steps are our own, and short.
    let evil = |name: &mut String| name.push('<');
    for step in &mut steps {
        evil(&mut step.id);
        step.needs.iter_mut().for_each(evil);
    }
    let layers = Name::all(Place::Cluster).iter().map(|name| match name {
        Name::Pod => layer(*name, "broken", &long),
        Name::Hub => layer(*name, "not proved", &long),
        _ => layer(*name, "ok", &long),
    });
    let mut messages: Vec<_> = [-1e300, 0.0, 1e300].into_iter().map(|value| message(1, value)).collect();
    messages[2].device_id = long.clone();
    let environment = Environment {
        engine: long.clone(),
        cluster: long.clone(),
        kubernetes: Some(long.clone()),
        node_image: Some(long.clone()),
        ..environment()
    };
    let report = Report {
        command: long.clone(),
        environment,
        layers: layers.collect(),
        steps,
        messages,
        ..report(Some(&error))
    };
    Page { bars: 20, points: 3, ..page("hostile", report, "failed: the layer </style>", WHOLE) }
}

fn interrupted() -> Page {
    let mut steps = steps();
    steps.retain(|step| step.id != "down");
    // The cluster was under way; what comes after it had not begun.
    for id in ["cluster", "wiring", "deploy", "pod", "telemetry"] {
        set(&mut steps, id, "skipped", "");
    }
    for step in steps.iter_mut().filter(|step| step.result == "skipped" && step.id != "cluster") {
        (step.started, step.seconds) = (step.ended, 0.0);
    }
    let error = Error::from(Interrupted);
    let report = Report { steps, ..report(Some(&error)) };
    Page { bars: 15, ..page("interrupted", report, "stopped by the user", WITHOUT_LAYER) }
}

fn without_telemetry() -> Page {
    let mut steps = steps();
    steps.retain(|step| !["telemetry", "down"].contains(&step.id.as_str()));
    steps.iter_mut().for_each(|step| step.changed = false);
    let report = Report { command: "up".into(), steps, ..report(None) };
    Page { bars: 18, ..page("without-telemetry", report, "passed (local hub", &[]) }
}

/// The page of a report, with what follows from the report itself.
fn page(
    name: &'static str,
    report: Report,
    headline: &'static str,
    verdict: &'static [&'static str],
) -> Page {
    let report = Report { critical_path: CriticalPath::of(&report.steps), ..report };
    let layers = report.layers.iter().map(|layer| format!("{}: {}", layer.name, layer.result)).collect();
    let on_path = |step: &&StepReport| report.critical_path.steps.contains(&step.id) && step.result == "done";
    let critical = report.steps.iter().filter(on_path).map(|step| step.id.clone()).collect();
    Page { name, headline, verdict, layers, bars: 0, critical, points: 0, report }
}

fn report(error: Option<&Error>) -> Report {
    Report {
        ended: time(26.7),
        seconds: 26.7,
        environment: environment(),
        ..Report::of("e2e", time(0.0), error)
    }
}

fn environment() -> Environment {
    Environment {
        engine: "podman 4.3.1".into(),
        on: Some("cluster"),
        tier: Some(xtask::tier::Tier::Privileged),
        cluster: "kedge".into(),
        kubernetes: Some("v1.20.2".into()),
        node_image: Some("localhost/kedge/node:ada997cbeffbbec7".into()),
        runtime: "simulated".into(),
        hub: "local".into(),
        ..Environment::default()
    }
}

/// The steps of a run as they go side by side.
fn steps() -> Vec<StepReport> {
    let rows: [(&str, &[&str], f64, f64); 20] = [
        ("preflight", &[], 0.0, 0.1),
        ("observe", &["preflight"], 0.1, 0.2),
        ("network", &["observe"], 0.2, 0.3),
        ("kind", &["observe"], 0.2, 0.2),
        ("binaries", &["observe"], 0.2, 0.9),
        ("image-base", &["observe"], 0.2, 0.2),
        ("node-image", &["image-base"], 0.2, 0.2),
        ("image-registry", &["image-base"], 0.2, 0.2),
        ("image-hub", &["binaries"], 0.9, 1.4),
        ("image-sensor", &["binaries"], 0.9, 1.6),
        ("image-edge", &["image-base", "binaries"], 0.9, 1.8),
        ("registry", &["network", "image-registry"], 0.3, 1.0),
        ("hub", &["network", "image-hub"], 1.4, 1.9),
        ("push-edge", &["image-edge", "registry"], 1.8, 5.4),
        ("cluster", &["network", "node-image", "kind"], 0.3, 14.0),
        ("wiring", &["cluster", "registry"], 14.0, 14.1),
        ("deploy", &["wiring", "push-edge"], 14.1, 14.2),
        ("pod", &["deploy"], 14.2, 21.4),
        ("telemetry", &["pod"], 21.4, 24.9),
        ("down", &["telemetry"], 24.9, 26.7),
    ];
    let step = |(id, needs, from, to): (&str, &[&str], f64, f64)| StepReport {
        id: id.into(),
        purpose: format!("do what {id} is for"),
        needs: needs.iter().map(ToString::to_string).collect(),
        started: time(from),
        ended: time(to),
        seconds: to - from,
        result: "done",
        changed: to > from,
        note: if id == "down" {
            "removed: 1 node, 2 containers, 2 volumes, 1 network".into()
        } else {
            String::new()
        },
    };
    rows.into_iter().map(step).collect()
}

fn set(steps: &mut [StepReport], id: &str, result: &'static str, note: &str) {
    let step = steps.iter_mut().find(|step| step.id == id).unwrap();
    (step.result, step.note, step.changed) = (result, note.into(), false);
}

fn layer(name: Name, result: &'static str, detail: &str) -> Layer {
    Layer { name, result, detail: detail.into(), next: None }
}

fn message(number: u32, temperature: f64) -> Evidence {
    let body = json!({
        "machine": { "temperature": temperature, "pressure": 1.0 },
        "ambient": { "temperature": 21.0, "humidity": 25 },
        "timeCreated": time(20.0),
    });
    Evidence {
        offset: u64::from(number),
        enqueued_time_utc: time(20.0 + f64::from(number) * 0.5),
        device_id: "kedge-device".into(),
        module_id: "tempSensor".into(),
        sequence_number: u64::from(number),
        batch_id: "a".into(),
        body: serde_json::from_value(body).unwrap(),
    }
}

fn time(seconds: f64) -> Timestamp {
    let milliseconds = (seconds * 1000.0).round() as i64;
    Timestamp::from_millisecond(1_764_300_000_000 + milliseconds).unwrap()
}
