use proptest::prelude::*;

use super::*;
use crate::topics::PropertyBag;

const BODY: &str = r#"{"message": {"Weather": {"Temperature": 50, "Freezing": -50.4, "On": true, "Off": false,
    "Nothing": null, "State": "WA", "Street": "One Way", "History": [20, 30, 40],
    "Days": [{"Month": "Feb"}, {"Month": "Jan"}]}}}"#;

fn properties() -> PropertyBag {
    [
        ("$.ct", "application/json"),
        ("$.ce", "utf-8"),
        ("$.cdid", "edge"),
        ("$.cmid", "sensor"),
        ("$.on", "temperature"),
        ("City", "Redmond"),
        ("level", "12"),
        ("a-b", "dash"),
        ("$State", "own"),
        ("$body.message.Weather.Street", "of the application"),
    ]
    .into_iter()
    .collect()
}

fn holds(condition: &str) -> bool {
    let parsed = Condition::parse(condition, false).unwrap_or_else(|error| panic!("{condition}: {error}"));
    parsed.holds(&Subject::new(&properties(), BODY.as_bytes()))
}

#[test]
fn conditions_that_hold() {
    for condition in [
        "true",
        "City = 'Redmond'",
        "city = \"Redmond\" and CITY <> 'x'",
        "a-b = 'dash'",
        "$connectionModuleId = 'sensor' AND $connectionDeviceId = 'edge' AND $outputName = 'temperature'",
        "$ContentType = 'application/json'",
        "$State = 'own' AND {$State} = 'x' OR true",
        "as_number(level) > 11.5 AND AS_NUMBER(level) <= 0x0c",
        "$body.message.Weather.Temperature = 50 AND $BODY.message.Weather.Temperature >= 5e1",
        "50 >= $body.message.Weather.Temperature",
        "$body.message.Weather.Temperature <> '100'",
        "$body.message.Weather.Street = 'of the application'",
        "{$body.message.Weather.Street} = 'One Way'",
        "$body.message.Weather.On AND NOT $body.message.Weather.Off",
        "$body.message.Weather.History[0] + $body.message.Weather.History[1] = 50",
        "$body.message.Weather.Days[1].Month = 'Jan'",
        "$body.message.Weather.Nothing = null AND is_null($body.message.Weather.Nothing)",
        "$body.message.Weather.Missing = null",
        "$body.message.Weather.Temperature != null",
        "NOT is_defined(missing) AND is_defined(City) AND is_defined($body.message.Weather.Temperature)",
        "is_string(City) AND is_number(1.5) AND is_bool(true) AND NOT is_number(City)",
        "abs($body.message.Weather.Freezing) = 50.4 AND sign(-3) = -1 AND sign(0) = 0",
        "power(2, 3) = 8 AND square(3) = 9 AND sqrt(16) = 4 AND exp(0) = 1",
        "ceiling(1.2) = 2 AND floor(-1.2) = -2",
        "concat(City, ', ', $body.message.Weather.State) = 'Redmond, WA'",
        "City || '!' = 'Redmond!'",
        "length(City) = 7 AND lower(City) = 'redmond' AND upper(City) = 'REDMOND'",
        "substring(City, 3) = 'mond' AND substring(City, 0, 3) = 'Red'",
        "index_of(City, 'mond') = 3 AND index_of(City, 'x') = -1",
        "starts_with(City, 'Red') AND STARTSWITH(City, 'Red') AND ends_with(City, 'mond') AND contains(City, 'dm')",
        "1 + 2 * 3 = 7 AND (1 + 2) * 3 = 9 AND 7 % 4 = 3 AND 8 / 2 = 4 AND - (2) = -2",
        "(missing ?? 'other') = 'other'",
        "'it\\'s \\u0041' = \"it's A\"",
        "false OR /* a comment */ true",
    ] {
        assert!(holds(condition), "{condition}");
    }
}

#[test]
fn conditions_that_do_not_hold() {
    for condition in [
        "false",
        "City",
        "missing = 'x'",
        "NOT (missing = 'x')",
        "missing = 'x' OR missing <> 'x'",
        "City = 'redmond'",
        "$body.message.Weather.Temperature = '50'",
        "$body.message.Weather = null",
        "$body.message.Weather.History > 1",
        "as_number(City) = as_number(City)",
        "1 / 0 = 0 / 0",
        "substring(City, 8) = '' OR substring(City, -1) = ''",
        "{$State} = 'own'",
        "null",
        "undefined",
    ] {
        assert!(!holds(condition), "{condition}");
    }
}

#[test]
fn a_body_that_is_no_json_object_is_undefined() {
    let condition = Condition::parse("$body.a = null OR $body.a <> null", false).unwrap();
    let mut bag = properties();
    assert!(condition.holds(&Subject::new(&bag, b"{}")));
    for body in ["", "[1]", "5", "{", "\"x\""] {
        assert!(!condition.holds(&Subject::new(&bag, body.as_bytes())), "{body}");
    }
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    bag.set("$.ce", "utf-16");
    assert!(condition.holds(&Subject::new(&bag, &utf16)));
    bag.set("$.ce", "latin-1");
    assert!(!condition.holds(&Subject::new(&bag, b"{}")));
    bag.remove("$.ct");
    assert!(!condition.holds(&Subject::new(&bag, b"{}")));
}

#[test]
fn what_is_no_condition_is_refused_with_its_place() {
    for (condition, position, message) in [
        ("", 1, "a value is missing"),
        ("City =", 7, "a value is missing"),
        ("City = 5", 6, "= does not take a string and a number"),
        ("NOT City = 'x'", 1, "NOT needs a boolean, not a string"),
        ("- City", 1, "- needs a number, not a string"),
        ("City AND true", 6, "AND does not take a string and a boolean"),
        ("1 + 'x'", 3, "+ does not take a number and a string"),
        ("undefined = 1", 11, "= does not take a undefined and a number"),
        ("City 'x'", 6, "an operator is missing"),
        ("(true", 6, "a ) is missing"),
        ("true)", 5, "a closing ) without its ("),
        ("City = 'x", 8, "a string without its end, or with an unknown escape"),
        ("a[0] = 'x'", 1, "the unexpected character 'a'"),
        ("true AND ä; = 1", 11, "the unexpected character ';'"),
        ("nothing(1) = 1", 1, "there is no function \"nothing\""),
        ("length(1) = 1", 1, "the function length does not take (number)"),
        ("concat('a') = 'a'", 1, "the function concat does not take (string)"),
        ("$body.a[x] = 1", 1, "$body.a[x] is no path into the body"),
        ("$body.a..b = 1", 1, "$body.a..b is no path into the body"),
        ("twin_change_includes(a)", 1, "there is no function \"twin_change_includes\""),
        ("{City} = 'x'", 2, "{ } hold a name that begins with $"),
    ] {
        let error = Condition::parse(condition, false).expect_err(condition);
        assert_eq!((error.message.as_str(), error.position), (message, position), "{condition}");
    }
    for deep in ["(".repeat(10_000), "NOT ".repeat(10_000), format!("true{}", " AND true".repeat(10_000))] {
        let error = Condition::parse(&deep, false).unwrap_err();
        assert_eq!(error.message, "there are too many operators");
    }
}

#[test]
fn notices_of_twins_have_a_function_of_their_own() {
    let condition = Condition::parse("twin_change_includes(properties.reported.a)", true).unwrap();
    let bag = properties();
    let holds = |body: &str| condition.holds(&Subject::new(&bag, body.as_bytes()));
    assert!(holds(r#"{"properties": {"reported": {"a": 1}}}"#));
    assert!(!holds(r#"{"properties": {"reported": {"b": 1}}}"#));
    assert!(Condition::parse("twin_change_includes()", true).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        if let Ok(condition) = Condition::parse(&text, true) {
            let _ = condition.holds(&Subject::new(&properties(), BODY.as_bytes()));
        }
    }

    #[test]
    fn no_mixture_of_words_makes_it_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "City", "'x'", "1", "-2.5e3", "0xff", "$body.message.Weather.Temperature", "$body.a[1]", "{$to}", "(", ")",
            "+", "-", "*", "/", "%", "||", "=", "<>", "<", ">=", "AND", "OR", "NOT", "??", "null", "undefined", "true",
            "length(", "substring(", "concat(", "is_defined(", "power(", ",",
        ]), 0..30),
    ) {
        if let Ok(condition) = Condition::parse(&words.join(" "), false) {
            let _ = condition.holds(&Subject::new(&properties(), BODY.as_bytes()));
        }
    }

    #[test]
    fn numbers_are_computed_as_elsewhere(left in -1e6..1e6_f64, right in -1e6..1e6_f64) {
        let condition = format!(
            "({left:?}) + ({right:?}) = ({:?}) AND (({left:?}) < ({right:?})) = {}", left + right, left < right,
        );
        prop_assert!(holds(&condition), "{}", condition);
    }

    #[test]
    fn strings_survive_quoting(text in "[^\\x00-\\x1f]{0,20}") {
        let quoted = text.replace('\\', "\\\\").replace('\'', "\\'");
        let condition = Condition::parse(&format!("p = '{quoted}'"), false).unwrap();
        let bag: PropertyBag = [("p", text)].into_iter().collect();
        prop_assert!(condition.holds(&Subject::new(&bag, b"")));
    }
}
