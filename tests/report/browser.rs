//! A headless Chromium, led by its own debugging protocol: messages of JSON through two pipes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// More than any answer takes on a slow machine, with the start of the browser.
const PATIENCE: Duration = Duration::from_secs(60);
/// The browser reads at 3 and writes at 4.
const PIPES: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
const FLAGS: [&str; 7] = [
    "--headless",
    "--remote-debugging-pipe",
    // The pages are our own, and root may not have a sandbox.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
];
/// How long the browser may take to end.
const GRACE: Duration = Duration::from_secs(5);
const HEIGHT: u32 = 800;

/// The browser; it ends with this.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    last: u64,
    session: Value,
    events: VecDeque<Value>,
    _profile: TempDir,
}

/// What came of looking at a page.
pub(crate) struct Visit {
    /// What the script has given.
    pub(crate) seen: Value,
    /// What the browser has complained about.
    pub(crate) complaints: Vec<String>,
    /// What the page has asked for, itself included.
    pub(crate) requests: Vec<String>,
    /// The whole page as PNG.
    pub(crate) picture: Vec<u8>,
}

impl Browser {
    #[expect(clippy::disallowed_methods, reason = "assert_cmd waits for the end of what it starts")]
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", PIPES, "chromium"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("TMPDIR", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (heard, from) = channel();
        // Ends with the browser.
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                if heard.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            to,
            from,
            last: 0,
            session: Value::Null,
            events: VecDeque::new(),
            _profile: profile,
        };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].take();
        let attached = browser.ask("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens a page in a window of this width, lets a script look at it, and takes a picture.
    pub(crate) fn visit(&mut self, page: &Path, width: u32, scheme: &str, look: &str) -> Visit {
        let screen = json!({ "width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", &screen);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", &scheme);
        self.events.clear();
        let opened = self.ask("Page.navigate", &json!({ "url": format!("file://{}", page.display()) }));
        assert_eq!(opened["errorText"], Value::Null, "{}", page.display());
        self.wait_for("Page.loadEventFired");
        let looked = self.ask("Runtime.evaluate", &json!({ "expression": look, "returnByValue": true }));
        assert_eq!(looked["exceptionDetails"], Value::Null, "the look itself is wrong");
        let clip = self.whole();
        let whole =
            self.ask("Page.captureScreenshot", &json!({ "captureBeyondViewport": true, "clip": clip }));
        let picture =
            base64::engine::general_purpose::STANDARD.decode(whole["data"].as_str().unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |method: &'static str| self.events.iter().filter(move |event| event["method"] == method);
        let complaints = of("Runtime.exceptionThrown").chain(of("Runtime.consoleAPICalled"));
        let complaints = complaints.chain(of("Log.entryAdded")).map(|event| event["params"].to_string());
        Visit {
            seen: looked["result"]["value"].clone(),
            complaints: complaints.collect(),
            requests: of("Network.requestWillBeSent")
                .map(|it| text(&it["params"]["request"]["url"]))
                .collect(),
            picture,
        }
    }

    /// The whole page, however high.
    fn whole(&mut self) -> Value {
        let size = self.ask("Page.getLayoutMetrics", &json!({}))["cssContentSize"].clone();
        json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 })
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        self.to.flush().unwrap();
        loop {
            let mut heard = self.hear(method);
            if heard["id"] == self.last {
                assert_eq!(heard["error"], Value::Null, "{method}");
                return heard["result"].take();
            }
            self.events.push_back(heard);
        }
    }

    fn wait_for(&mut self, event: &str) {
        while !self.events.iter().any(|known| known["method"] == event) {
            let heard = self.hear(event);
            self.events.push_back(heard);
        }
    }

    fn hear(&self, what: &str) -> Value {
        self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!("Chromium does not answer ({what}): {error}; is it installed? `cargo xtask test --yes`")
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it removes what it has in folders of its own. One that has ended already needs nothing.
        let close = json!({ "id": self.last + 1, "method": "Browser.close" });
        let asked = self.to.write_all(format!("{close}\0").as_bytes());
        while asked.is_ok() && self.from.recv_timeout(GRACE).is_ok() {}
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
