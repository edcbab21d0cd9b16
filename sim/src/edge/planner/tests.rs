use super::*;

fn wanted() -> DesiredModule {
    DesiredModule {
        digest: Some("new".to_owned()),
        status: DesiredStatus::Running,
        restart_policy: RestartPolicy::Always,
        startup_order: u32::MAX,
    }
}

fn seen(state: ContainerState) -> ObservedModule {
    ObservedModule {
        digest: Some("new".to_owned()),
        image: "image".to_owned(),
        image_id: "sha256:0".to_owned(),
        state,
        started_at: None,
        finished_at: None,
        exit_code: (state == ContainerState::Exited).then_some(0),
    }
}

fn step(
    desired: &DesiredModule,
    observed: Option<ObservedModule>,
    history: &History,
    now: Instant,
) -> Option<Step> {
    let name = || "m".to_owned();
    let desired = BTreeMap::from([(name(), desired.clone())]);
    let observed = observed.into_iter().map(|module| (name(), module)).collect();
    let histories = BTreeMap::from([(name(), history.clone())]);
    let steps = plan(&desired, &observed, &histories, &BTreeSet::new(), now);
    assert!(steps.len() <= 1);
    steps.first().map(|(_, step)| *step)
}

fn first_step(desired: &DesiredModule, observed: Option<ObservedModule>) -> Option<Step> {
    step(desired, observed, &History::default(), Instant::now())
}

#[test]
fn a_new_module_is_provisioned_created_and_started() {
    let unknown = DesiredModule { digest: None, ..wanted() };
    assert_eq!(first_step(&unknown, None), Some(Step::Provision));
    assert_eq!(first_step(&wanted(), None), Some(Step::Create));
    assert_eq!(first_step(&wanted(), Some(seen(ContainerState::Created))), Some(Step::Start));
    assert_eq!(first_step(&wanted(), Some(seen(ContainerState::Running))), None);
}

#[test]
fn a_container_that_is_out_of_date_is_replaced_and_one_that_is_not_wanted_removed() {
    let old = ObservedModule { digest: Some("old".to_owned()), ..seen(ContainerState::Running) };
    assert_eq!(first_step(&wanted(), Some(old)), Some(Step::Replace));
    let foreign = ObservedModule { digest: None, ..seen(ContainerState::Exited) };
    assert_eq!(first_step(&wanted(), Some(foreign)), Some(Step::Replace));
    assert_eq!(first_step(&wanted(), Some(seen(ContainerState::Dead))), Some(Step::Remove));
    let observed = BTreeMap::from([("gone".to_owned(), seen(ContainerState::Running))]);
    let steps = plan(&BTreeMap::new(), &observed, &BTreeMap::new(), &BTreeSet::new(), Instant::now());
    assert_eq!(steps, [("gone".to_owned(), Step::Remove)]);
}

#[test]
fn a_module_that_shall_be_stopped_is_created_and_not_started() {
    let stopped = DesiredModule { status: DesiredStatus::Stopped, ..wanted() };
    assert_eq!(first_step(&stopped, None), Some(Step::Create));
    assert_eq!(first_step(&stopped, Some(seen(ContainerState::Created))), None);
    assert_eq!(first_step(&stopped, Some(seen(ContainerState::Running))), Some(Step::Stop));
    assert_eq!(first_step(&stopped, Some(seen(ContainerState::Exited))), None);
}

#[test]
fn the_restart_policy_decides_about_ended_and_unhealthy_modules() {
    use RestartPolicy::{Always, Never, OnFailure, OnUnhealthy};
    let ended = |code| ObservedModule { exit_code: Some(code), ..seen(ContainerState::Exited) };
    for (policy, clean, failure, unhealthy) in [
        (Always, true, true, true),
        (OnFailure, false, true, false),
        (OnUnhealthy, false, true, true),
        (Never, false, false, false),
    ] {
        let module = DesiredModule { restart_policy: policy, ..wanted() };
        let restarts = |observed| first_step(&module, Some(observed)) == Some(Step::Restart);
        assert_eq!(restarts(ended(0)), clean, "{policy:?}");
        assert_eq!(restarts(ended(1)), failure, "{policy:?}");
        assert_eq!(restarts(seen(ContainerState::Unhealthy)), unhealthy, "{policy:?}");
    }
}

#[test]
fn restarts_wait_longer_each_time_until_the_module_is_stable() {
    let mut history = History::default();
    let mut now = Instant::now();
    let exited = || Some(seen(ContainerState::Exited));
    for wait in [0, 10, 20, 40, 80, 160, 300, 300] {
        if wait > 0 {
            let early = now + Duration::from_secs(wait - 1);
            assert_eq!(step(&wanted(), exited(), &history, early), None, "{wait}");
        }
        now += Duration::from_secs(wait);
        assert_eq!(step(&wanted(), exited(), &history, now), Some(Step::Restart), "{wait}");
        history.succeeded(Step::Restart, now, Timestamp::UNIX_EPOCH);
    }
    history.is_running(now + STABLE_AFTER / 2);
    assert_eq!((history.restarts, history.last_restart_time), (8, Some(Timestamp::UNIX_EPOCH)));
    history.is_running(now + STABLE_AFTER);
    assert_eq!((history.restarts, history.last_restart_time), (0, None));
    assert_eq!(step(&wanted(), exited(), &history, now + STABLE_AFTER), Some(Step::Restart));
}

#[test]
fn a_module_that_was_restarted_too_often_has_failed() {
    let (mut history, mut now) = (History::default(), Instant::now());
    for _ in 0..MAX_RESTARTS {
        history.succeeded(Step::Restart, now, Timestamp::UNIX_EPOCH);
        now += MAX_RESTART_DELAY;
    }
    let later = now + 10 * STABLE_AFTER;
    for state in [ContainerState::Exited, ContainerState::Unhealthy] {
        assert_eq!(step(&wanted(), Some(seen(state)), &history, later), None);
        assert_eq!(runtime_status(&wanted(), Some(&seen(state)), Some(&history)).0, "failed");
    }
}

#[test]
fn a_failed_step_is_retried_after_a_growing_delay() {
    let mut history = History::default();
    let now = Instant::now();
    for wait in [2, 4, 8, 16, 32, 60, 60] {
        history.failed("no such image".to_owned(), now);
        assert_eq!(step(&wanted(), None, &history, now + Duration::from_secs(wait - 1)), None, "{wait}");
        assert_eq!(step(&wanted(), None, &history, now + Duration::from_secs(wait)), Some(Step::Create));
    }
    assert_eq!(runtime_status(&wanted(), None, Some(&history)), ("backoff", "no such image".to_owned()));
    history.succeeded(Step::Create, now, Timestamp::UNIX_EPOCH);
    assert_eq!(step(&wanted(), None, &history, now), Some(Step::Create));
    assert_eq!(history.error(), None);
}

#[test]
fn a_startup_order_has_its_turn_when_those_before_it_are_done() {
    let now = Instant::now();
    let order = |startup_order| DesiredModule { startup_order, ..wanted() };
    let desired = BTreeMap::from([
        ("a".to_owned(), order(u32::MAX)),
        ("b".to_owned(), order(1)),
        ("c".to_owned(), order(0)),
        ("d".to_owned(), order(0)),
    ]);
    let mut observed = BTreeMap::from([("old".to_owned(), seen(ContainerState::Exited))]);
    let mut failing = History::default();
    failing.failed("no such image".to_owned(), now);
    let names = |observed: &_, histories: &_, busy: &[&str]| {
        let busy = busy.iter().map(|&name| name.to_owned()).collect();
        let steps = plan(&desired, observed, histories, &busy, now);
        steps.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let none = BTreeMap::new();
    assert_eq!(names(&observed, &none, &[]), ["old", "c", "d"]);
    assert_eq!(names(&observed, &none, &["old", "c"]), ["d"]);
    assert_eq!(names(&observed, &none, &["old", "c", "d"]), [""; 0]);
    observed.clear();
    observed.insert("d".to_owned(), seen(ContainerState::Running));
    let histories = BTreeMap::from([("c".to_owned(), failing)]);
    assert_eq!(names(&observed, &histories, &[]), ["b"], "what failed holds nobody up");
}

#[test]
fn the_reported_status_is_that_of_the_real_agent() {
    let module = wanted();
    let stopped = DesiredModule { status: DesiredStatus::Stopped, ..wanted() };
    let never = DesiredModule { restart_policy: RestartPolicy::Never, ..wanted() };
    let failed = ObservedModule { exit_code: Some(3), ..seen(ContainerState::Exited) };
    let out_of_date = ObservedModule { digest: Some("old".to_owned()), ..seen(ContainerState::Running) };
    let unprovisioned = DesiredModule { digest: None, ..wanted() };
    let mut refused = History::default();
    refused.failed("no such image".to_owned(), Instant::now());
    let status = runtime_status(&module, Some(&out_of_date), Some(&refused));
    assert_eq!(status, ("running", "no such image".to_owned()), "the old container is still there");
    for (desired, observed, expected) in [
        (&module, None, "unknown"),
        (&module, Some(out_of_date), "unknown"),
        (&unprovisioned, Some(seen(ContainerState::Running)), "running"),
        (&module, Some(seen(ContainerState::Running)), "running"),
        (&module, Some(seen(ContainerState::Unhealthy)), "unhealthy"),
        (&module, Some(seen(ContainerState::Dead)), "dead"),
        (&module, Some(seen(ContainerState::Exited)), "backoff"),
        (&stopped, Some(seen(ContainerState::Exited)), "stopped"),
        (&stopped, Some(seen(ContainerState::Created)), "stopped"),
        (&never, Some(seen(ContainerState::Exited)), "stopped"),
        (&never, Some(failed), "failed"),
    ] {
        assert_eq!(runtime_status(desired, observed.as_ref(), None).0, expected, "{observed:?}");
    }
}
