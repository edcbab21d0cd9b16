use super::*;

const SHAPE: Shape = Shape::SIMULATED;

#[test]
fn every_step_comes_after_what_it_needs() {
    let plan = Plan::new(&[Action::Telemetry(Place::Cluster)], SHAPE, &Observed::new());
    for (position, step) in plan.steps.iter().enumerate() {
        for need in &step.needs {
            let at = plan.steps.iter().position(|other| other.action == *need);
            assert!(at.is_some_and(|at| at < position), "{} needs {need}", step.action);
        }
    }
}

#[test]
fn a_part_of_the_system_needs_only_its_part() {
    let ids = |goal| Action::leading_to(&[goal], SHAPE).into_iter().map(Action::id).collect::<Vec<_>>();
    assert_eq!(ids(Action::Registry), ["network", "image-base", "image-registry", "registry"]);
    assert_eq!(ids(Action::Hub), ["network", "binaries", "image-hub", "hub"]);
    assert_eq!(ids(Action::Cluster), ["network", "image-base", "node-image", "kind", "cluster"]);
}

#[test]
fn the_users_hub_is_not_made_and_microsofts_runtime_not_compiled() {
    let steps = |hub, runtime| Action::leading_to(&[Action::Pod], Shape { hub, runtime });
    let made = [Action::Hub, Action::Device, Action::Push(Image::TemperatureSensor)];
    assert!(made.iter().all(|action| steps(Hub::Local, Runtime::Azure).contains(action)));
    assert!(!made.iter().any(|action| steps(Hub::Azure, Runtime::Simulated).contains(action)));
    assert!(!steps(Hub::Azure, Runtime::Azure).contains(&Action::Binaries));
}

#[test]
fn cluster_images_and_hub_do_not_wait_for_each_other() {
    let reaches = |from: Action, to: Action| Action::leading_to(&[from], SHAPE).contains(&to);
    for (one, other) in [
        (Action::Cluster, Action::Hub),
        (Action::Cluster, Action::Push(Image::Edge)),
        (Action::Hub, Action::Push(Image::Edge)),
    ] {
        assert!(!reaches(one, other) && !reaches(other, one), "{one} and {other} depend on each other");
    }
}

/// The work of every step that has some, when all is well but for `found`.
fn works(found: &[(Action, Condition)]) -> Vec<(String, Work)> {
    let goals = [Action::Pod];
    let mut observed: Observed = Action::leading_to(&goals, SHAPE)
        .into_iter()
        .map(|it| (it, Condition::Holds(String::new())))
        .collect();
    observed.extend(found.iter().cloned());
    let steps = Plan::new(&goals, SHAPE, &observed).steps.into_iter();
    steps
        .filter(|step| !matches!(step.work, Work::Nothing(_)))
        .map(|step| (step.action.id(), step.work))
        .collect()
}

#[test]
fn what_was_found_in_the_edge_counts_only_as_long_as_nothing_is_done_with_it() {
    let replaces = |goal: Action, found: (Action, Condition)| {
        let all = Action::leading_to(&[goal], SHAPE).into_iter();
        let mut observed: Observed = all.map(|it| (it, Condition::Holds(String::new()))).collect();
        observed.extend([found]);
        Plan::new(&[goal], SHAPE, &observed).may_replace_edge()
    };
    let (gone, holds) = (Condition::Differs("gone".into()), Condition::Holds(String::new()));
    assert!(replaces(Action::EdgeContainer, (Action::EdgeContainer, gone.clone())));
    assert!(replaces(Action::Pod, (Action::Deploy, gone.clone())));
    assert!(!replaces(Action::Telemetry(Place::Host), (Action::EdgeContainer, holds)));
    assert!(!replaces(Action::Telemetry(Place::Cluster), (Action::Telemetry(Place::Cluster), gone)));
}

#[test]
fn nothing_is_to_be_done_where_all_is_well() {
    assert!(works(&[]).is_empty());
}

#[test]
fn an_image_that_is_gone_is_made_anew_and_nothing_else() {
    let gone = Condition::Differs("gone".into());
    assert_eq!(
        works(&[(Action::Image(Image::Edge), gone)]),
        [("image-edge".to_owned(), Work::Due("gone".into()))]
    );
}

#[test]
fn what_rests_on_a_changed_part_is_looked_at_again() {
    let gone = Condition::Differs("gone".into());
    let open = |needs: &[Action]| Work::Open(needs.to_vec());
    assert_eq!(
        works(&[(Action::Hub, gone)]),
        [
            ("hub".to_owned(), Work::Due("gone".into())),
            ("device".to_owned(), open(&[Action::Hub])),
            ("deploy".to_owned(), open(&[Action::Device])),
            ("pod".to_owned(), open(&[Action::Deploy])),
        ]
    );
}

#[test]
fn programs_that_are_compiled_may_change_every_image_with_them() {
    let stale = Condition::Differs("the sources have changed".into());
    let ids: Vec<_> = works(&[(Action::Binaries, stale)]).into_iter().map(|(id, _)| id).collect();
    assert!(
        ["image-hub", "hub", "push-edge", "deploy"].iter().all(|id| ids.iter().any(|it| it == id)),
        "{ids:?}"
    );
    assert!(
        !ids.iter().any(|id| ["cluster", "registry", "image-registry"].contains(&id.as_str())),
        "{ids:?}"
    );
}

#[test]
fn all_that_is_in_the_way_is_told_at_once() {
    let observed = Observed::from([
        (Action::Network, Condition::Blocked("a network".into())),
        (Action::Registry, Condition::Blocked("a port".into())),
    ]);
    let error = Plan::new(&[Action::Registry], SHAPE, &observed).unobstructed().unwrap_err();
    assert_eq!(error.to_string(), "something else is in the way:\n  a network\n  a port");
}
