use super::*;
use std::sync::{Arc, Mutex};

use crate::wait::{Observation, wait_for};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_failure_tells_purpose_command_status_and_tail() {
    let error = Process::new("list the pods", "sh")
        .args(["-c", "echo one; echo two >&2; exit 3"])
        .run()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to list the pods: `sh -c 'echo one; echo two >&2; exit 3'` ended with exit status: 3\n    one\n    two"
    );
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = Process::new("make a cluster", "kedge-no-such-program").run().await.unwrap_err();
    assert_eq!(error.to_string(), "failed to make a cluster: `kedge-no-such-program` could not be started");
}

#[tokio::test]
async fn the_limit_ends_the_child() {
    let error = Process::new("idle", "sleep")
        .args(["600"])
        .limit(Duration::from_millis(150))
        .run()
        .await
        .unwrap_err();
    assert!(matches!(error, ProcessError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn what_the_child_has_started_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, cancel) = (folder.path().join("pid"), CancellationToken::new());
    let script = format!("sleep 600 & echo $! > {}; wait", file.display());
    let child = Process::new("idle", "sh").args(["-c", &script]).cancelled_by(&cancel);
    let child = tokio::spawn(child.run());
    let seen = wait_for("the grandchild", LIMIT, || async {
        let pid = fs_err::read_to_string(&file).unwrap_or_default();
        if pid.ends_with('\n') { Observation::Ready(pid) } else { Observation::NotYet("no pid".into()) }
    });
    let pid = seen.await.unwrap();
    cancel.cancel();
    assert!(matches!(child.await.unwrap(), Err(ProcessError::Cancelled { .. })));
    // The signal has reached it as well; it ends when the kernel lets it run next.
    let gone = wait_for("the end of the grandchild", LIMIT, || async {
        let line = fs_err::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        let lives = line.starts_with(b"sleep");
        if lives { Observation::NotYet("it goes on".into()) } else { Observation::Ready(()) }
    });
    gone.await.unwrap();
}

#[tokio::test]
async fn cancellation_ends_the_child() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = Process::new("idle", "sleep").args(["600"]).cancelled_by(&cancel).run().await.unwrap_err();
    assert!(matches!(error, ProcessError::Cancelled { .. }), "{error}");
}

#[tokio::test]
async fn what_is_given_is_read_from_standard_input() {
    assert_eq!(Process::new("echo", "cat").input("given").read().await.unwrap(), "given");
    assert_eq!(Process::new("echo", "cat").read().await.unwrap(), "");
}

#[tokio::test]
async fn standard_output_is_returned_and_the_log_appended() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("step.log");
    fs_err::write(&log, "before\n").unwrap();
    let text =
        Process::new("speak", "sh").args(["-c", "echo out; echo err >&2"]).log(&log).read().await.unwrap();
    assert_eq!(text, "out\n");
    assert_eq!(fs_err::read_to_string(&log).unwrap(), "before\nerr\n");
}

#[tokio::test]
async fn a_listener_hears_the_last_line_while_the_child_runs() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    fs_err::write(&log, "of a child before\n").unwrap();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&heard);
    let script = "echo one; echo two; sleep 0.5; echo; seq 5000; sleep 0.5; echo last";
    Process::new("count", "sh")
        .args(["-c", script])
        .log(&log)
        .telling(move |line| told.lock().unwrap().push(line.to_owned()))
        .run()
        .await
        .unwrap();
    let heard = heard.lock().unwrap().clone();
    let at = |line: &str| heard.iter().position(|known| known == line);
    assert!(at("two").is_some() && at("two") < at("5000") && at("of a child before").is_none(), "{heard:?}");
}
