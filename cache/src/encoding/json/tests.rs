use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{MAX_DEPTH, Scanner, plain_len, unescape};
use crate::ResourceVersion;
use crate::encoding::Encoding;
use crate::encoding::tests::pods;
use crate::object::Object;

/// Whether the whole text is one JSON value.
fn accepts(text: &str) -> bool {
    let mut scanner = Scanner::new(text.as_bytes()).unwrap();
    scanner.skip().is_ok() && scanner.end().is_ok()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Text made of what JSON is made of, seldom well-formed.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        "[\\[\\]{}:,]",
        Just("\"a\"".to_owned()),
        Just("\"\\u00e9\\n\"".to_owned()),
        Just("\"\\x\"".to_owned()),
        Just("\"\\u12\"".to_owned()),
        "-?(0|[1-9][0-9]{0,2})(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
        prop_oneof![
            Just("true"),
            Just("false"),
            Just("null"),
            Just("nul"),
            Just("01")
        ]
        .prop_map(str::to_owned),
        "[ \\n\\t\\r]",
    ];
    proptest::collection::vec(token, 0..8).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn eight_bytes_at_a_time_find_what_one_at_a_time_does(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), 0x1d_u8..0x25, 0x5a_u8..0x5e, 0x7f_u8..0x82, Just(b'x'), Just(0xa2)],
            0..40,
        ),
        from in 0_usize..8,
    ) {
        let bytes = &bytes[from.min(bytes.len())..];
        let special = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        prop_assert_eq!(plain_len(bytes), special.unwrap_or(bytes.len()));
    }

    #[test]
    fn accepts_every_value(value in any_json()) {
        prop_assert!(accepts(&value.to_string()));
        prop_assert!(accepts(&serde_json::to_string_pretty(&value).unwrap()));
    }

    #[test]
    fn refuses_what_serde_refuses(text in nearly_json()) {
        prop_assert_eq!(accepts(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok());
    }

    #[test]
    fn refuses_damage_as_serde_does(value in any_json(), at: prop::sample::Index, with in "[ -~\n]{0,2}") {
        let mut text: Vec<char> = value.to_string().chars().collect();
        let at = at.index(text.len());
        text.splice(at..=at, with.chars());
        let text: String = text.into_iter().collect();
        prop_assert_eq!(accepts(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok());
    }

    #[test]
    fn unescapes_as_serde_does(text: String, escape_all: bool) {
        let quoted = if escape_all {
            let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            format!("\"{units}\"")
        } else {
            serde_json::to_string(&text).unwrap()
        };
        prop_assert!(accepts(&quoted));
        prop_assert_eq!(unescape(&quoted), text);
    }
}

#[test]
fn a_lone_surrogate_reads_as_the_replacement_character() {
    let table = [
        (r#""\ud800""#, "\u{fffd}"),
        (r#""\udc00x""#, "\u{fffd}x"),
        (r#""\ud800\ud800""#, "\u{fffd}\u{fffd}"),
        (r#""\ud800\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\ude00""#, "\u{1f600}"),
        (r#""\ud800é""#, "\u{fffd}é"),
        (r#""a\/\"\\\b\f\n\r\tz""#, "a/\"\\\u{8}\u{c}\n\r\tz"),
    ];
    for (quoted, text) in table {
        assert!(accepts(quoted));
        assert_eq!(unescape(quoted), text);
    }
}

#[test]
fn depth_is_limited_and_does_not_use_the_stack() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(accepts(&nested(MAX_DEPTH)));
    assert!(!accepts(&nested(MAX_DEPTH + 2)));
    assert!(!accepts(&"[".repeat(1_000_000)));
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    let error = Scanner::new(b"\"\xff\"").unwrap_err();
    assert_eq!(error.to_string(), "malformed UTF-8 at byte 1");
}

#[test]
fn of_duplicate_keys_the_last_wins() {
    let json = r#"{
        "metadata":{"name":"x","uid":"gone","labels":{"a":"1"},"resourceVersion":"1"},
        "spec":{"nodeName":"gone"},
        "metadata":{"name":"y","n\u0061me":"a","labels":{"z":"1","b":"1","b":"2","c":null},"resourceVersion":"2"},
        "spec":{}
    }"#;
    let object = Object::decode(Encoding::Json, &pods(), json.as_bytes()).unwrap();
    assert_eq!((object.key(), object.uid()), ("a", ""));
    assert_eq!(object.resource_version(), ResourceVersion::new(2));
    assert_eq!(
        object.labels().collect::<Vec<_>>(),
        [("b", "2"), ("c", ""), ("z", "1")]
    );
    let node = pods().fields.index_of("spec.nodeName").unwrap();
    assert_eq!(object.field(node), "");
}

#[test]
fn nothing_may_stand_around_an_object() {
    for json in [" {}", "{} ", "{}{}", "{}x", "[]", "", "1"] {
        assert!(
            Object::decode(Encoding::Json, &pods(), json.as_bytes()).is_err(),
            "{json:?}"
        );
    }
}
