//! Property bags: any names and values, and a table of texts as clients write them.

use kedge_sim::topics::{PropertyBag, TopicError};
use proptest::collection::btree_map;
use proptest::prelude::*;

use crate::text;

proptest! {
    #[test]
    fn what_is_written_is_read_back_the_same(
        pairs in btree_map(text().prop_filter("a name", |name| !name.is_empty()), text(), 0..12)
    ) {
        let bag: PropertyBag = pairs.into_iter().collect();
        let written = bag.to_string();
        prop_assert!(!written.contains(['/', '#', '+', '\0', ' ']), "{written:?} is no part of a topic");
        prop_assert_eq!(PropertyBag::parse(&written), Ok(bag));
    }

    #[test]
    fn whatever_is_read_is_written_and_read_the_same(text in text()) {
        if let Ok(bag) = PropertyBag::parse(&text) {
            prop_assert_eq!(PropertyBag::parse(&bag.to_string()), Ok(bag));
        }
    }
}

#[test]
fn texts_of_clients_are_read() {
    let cases: [(&str, &[(&str, &str)]); 9] = [
        // Microsoft's SDK for Python, with a module's output.
        (
            "%24.on=out&%24.mid=7d2f&%24.ct=application%2Fjson&%24.ce=utf-8&room=k%C3%BCche%201",
            &[
                ("$.on", "out"),
                ("$.mid", "7d2f"),
                ("$.ct", "application/json"),
                ("$.ce", "utf-8"),
                ("room", "küche 1"),
            ],
        ),
        // By hand, with nothing escaped that need not be.
        ("$.ct=application%2Fjson;charset=utf-8", &[("$.ct", "application/json;charset=utf-8")]),
        // Only the first equals sign separates.
        ("a=b=c", &[("a", "b=c")]),
        // A plus sign is no space.
        ("a=1+1", &[("a", "1+1")]),
        ("a", &[("a", "")]),
        ("a=", &[("a", "")]),
        ("?a=1/", &[("a", "1")]),
        ("&a=1&&b=2&", &[("a", "1"), ("b", "2")]),
        ("a=%zz%4", &[("a", "%zz%4")]),
    ];
    for (text, expected) in cases {
        let bag = PropertyBag::parse(text).unwrap();
        assert_eq!(bag.iter().collect::<Vec<_>>(), expected, "{text:?}");
    }
    for text in ["=", "=1", "%=%ff", "a=1&a=1", "$.mid=1&%24.mid=2"] {
        assert!(matches!(PropertyBag::parse(text), Err(TopicError::Properties(_))), "{text:?}");
    }
}
