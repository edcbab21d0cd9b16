use serde_json::json;

use super::*;

/// The properties of a message of a module's output, or of a leaf device.
fn from(module: Option<&str>, output: Option<&str>) -> PropertyBag {
    let mut bag: PropertyBag = [("$.cdid", "d"), ("level", "high")].into_iter().collect();
    for (name, value) in [("$.cmid", module), ("$.on", output)] {
        if let Some(value) = value {
            bag.set(name, value);
        }
    }
    bag
}

fn leads(routes: &Routes, module: &str, output: Option<&str>) -> bool {
    !routes.destinations(MessageKind::Telemetry, &from(Some(module), output), b"{}").is_empty()
}

fn routes(routes: &Value) -> Routes {
    Routes::parse(&json!({"schemaVersion": "1.1", "routes": routes})).unwrap()
}

#[test]
fn sources_select_messages() {
    let sensor = ("sensor", Some("temperature"));
    for (source, selected, not_selected) in [
        ("/*", vec![sensor, ("other", None)], vec![]),
        ("/messages/*", vec![sensor, ("other", None)], vec![]),
        ("/messages/modules/*", vec![sensor, ("other", None)], vec![]),
        ("/messages/modules/sensor/*", vec![sensor, ("sensor", None)], vec![("sensor2", None)]),
        ("/MESSAGES/modules/SENSOR", vec![sensor, ("sensor", None)], vec![("sensor2", None)]),
        ("/messages/modules/sensor/outputs/*", vec![sensor], vec![("sensor", None), ("other", Some("x"))]),
        ("/messages/modules/sensor/outputs/temperature", vec![sensor], vec![("sensor", Some("x"))]),
        ("/messages/modules/*/outputs/temperature", vec![sensor], vec![("sensor", Some("x"))]),
        ("/messages/events/*", vec![], vec![sensor]),
        ("/twinChangeNotifications", vec![], vec![sensor]),
        ("/moduleLifecycleEvents", vec![], vec![sensor]),
    ] {
        let routes = routes(&json!({"r": format!("from {source} Into $UPSTREAM")}));
        assert_eq!(routes.problems, Vec::<String>::new(), "{source}");
        for (module, output) in selected {
            assert!(leads(&routes, module, output), "{source} {module} {output:?}");
        }
        for (module, output) in not_selected {
            assert!(!leads(&routes, module, output), "{source} {module} {output:?}");
        }
    }
    assert!(!leads(&Routes::default(), "sensor", None), "without a route nothing leaves");
    let leaf = |source: &str| {
        let routes = routes(&json!({"r": format!("FROM {source} INTO $upstream")}));
        !routes.destinations(MessageKind::Telemetry, &from(None, None), b"").is_empty()
    };
    assert!(leaf("/*") && leaf("/messages/*") && leaf("/messages/events") && !leaf("/messages/modules/*"));
    let twin = |source: &str| {
        let routes = routes(&json!({"r": format!("FROM {source} INTO $upstream")}));
        !routes.destinations(MessageKind::TwinChange, &from(Some("$edgeHub"), None), b"").is_empty()
    };
    assert!(twin("/*") && twin("/twinChangeNotifications") && !twin("/messages/*"));
}

#[test]
fn a_message_goes_once_to_each_place_by_the_first_route() {
    let routes = routes(&json!({
        "a": "FROM /* INTO $upstream",
        "b": {"route": "FROM /* INTO $upstream", "priority": 3, "timeToLiveSecs": 60},
        "c": {"route": "FROM /* INTO $upstream", "priority": 5, "timeToLiveSecs": 0},
        "d": "FROM /messages/* WHERE level = 'high' INTO BrokeredEndpoint(\"/modules/filter/inputs/in1\")",
        "e": {"route": "FROM /* INTO BrokeredEndpoint('modules/filter/inputs/in2/')", "timeToLiveSecs": 0},
        "f": "SELECT * FROM /* WHERE level = 'low' INTO BrokeredEndpoint(\"/modules/other/inputs/in\")",
        "g": "FROM /* WHERE level = 'a INTO b' OR false INTO $upstream",
        "h": " ",
    }));
    assert_eq!(routes.problems, Vec::<String>::new());
    let found = routes.destinations(MessageKind::Telemetry, &from(Some("m"), None), b"");
    let input = |input: &str| Sink::Input { module: "filter".to_owned(), input: input.to_owned() };
    let last = 2_000_000_000;
    let expected = [(Sink::Upstream, 3, 60), (input("in1"), last, 7200), (input("in2"), last, 7200)];
    let expected =
        expected.map(|(sink, priority, time_to_live_secs)| Destination { sink, priority, time_to_live_secs });
    assert_eq!(found, expected);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_works() {
    let desired = json!({"schemaVersion": "1.0", "routes": {
        "good": {"route": "FROM /messages/modules/a/* INTO $upstream", "priority": 1},
        "condition": "FROM /* WHERE temperature > 20 INTO $upstream",
        "source": "FROM /other/* INTO $upstream",
        "relative": "FROM messages INTO $upstream",
        "double": "FROM //x INTO $upstream",
        "sink": "FROM /* INTO upstream",
        "function": "FROM /* INTO Endpoint(\"/modules/b/inputs/x\")",
        "noinput": "FROM /* INTO BrokeredEndpoint(\"/modules/b\")",
        "wildcard": "FROM /* INTO BrokeredEndpoint(\"/modules/b/inputs/#\")",
        "long": "FROM /* INTO $upstream please",
        "where": "FROM /* IF a INTO $upstream",
        "priority": {"route": "FROM /* INTO $upstream", "priority": 10},
        "ttl": {"route": "FROM /* INTO $upstream", "timeToLiveSecs": "x"},
        "empty": {"route": ""}, "number": 5, "short": "FROM",
    }});
    let routes = Routes::parse(&desired).unwrap();
    assert!(leads(&routes, "a", None) && !leads(&routes, "b", None));
    let names = routes.problems.iter().filter_map(|text| text.split([' ', ':']).nth(1));
    let mut named: Vec<_> = names.collect();
    named.sort_unstable();
    let mut expected: Vec<_> = desired["routes"].as_object().unwrap().keys().map(String::as_str).collect();
    expected.retain(|name| *name != "good");
    expected.sort_unstable();
    assert_eq!(named, expected);
    let condition = routes.problems.iter().find(|problem| problem.starts_with("route condition")).unwrap();
    let reason = "> does not take a string and a number at character 13 of the condition";
    assert_eq!(*condition, format!("route condition: {reason}"));
}

#[test]
fn the_codes_are_those_of_the_real_runtime() {
    for (desired, code) in [
        (json!({"$version": 1}), 417),
        (json!({"schemaVersion": "2.0"}), 412),
        (json!({"schemaVersion": "1.4"}), 412),
        (json!({"routes": {}}), 412),
        (json!({"schemaVersion": "1.0", "routes": []}), 400),
        (json!({"schemaVersion": "1.0", "storeAndForwardConfiguration": {"timeToLiveSecs": "x"}}), 400),
        (json!("x"), 400),
    ] {
        assert_eq!(Routes::parse(&desired).unwrap_err().code(), code, "{desired}");
    }
    assert_eq!(Routes::parse(&json!({"schemaVersion": "1.3"})), Ok(Routes::default()));
    for (store, time_to_live_secs, max_bytes) in [
        (json!({"timeToLiveSecs": 5, "storeLimits": {"maxSizeBytes": 9}}), 5, Some(9)),
        (json!({"timeToLiveSecs": -1}), u32::MAX, None),
        (json!({"timeToLiveSecs": null}), 7200, None),
    ] {
        let desired = json!({"schemaVersion": "1.2", "storeAndForwardConfiguration": store});
        let expected = StoreSettings { time_to_live_secs, max_bytes };
        assert_eq!(Routes::parse(&desired).unwrap().store, expected, "{store}");
    }
}
