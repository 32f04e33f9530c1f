//! The JSON scanner against serde_json.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use watershed_cache::encoding::door;

/// Inputs that can nest deeper than the scanner allows are not compared.
const DEPTH: usize = 10_000;

/// The scanner accepts what serde_json accepts, and finds the same values.
pub fn json(input: &[u8]) {
    let ours = door::json(input);
    let text = std::str::from_utf8(input);
    let theirs = text.is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    if input.len() < DEPTH {
        assert_eq!(ours.is_ok(), theirs, "accepted");
    }
    let Ok(span) = ours else { return };
    // Fails on numbers, depths and surrogates that only the scanner takes.
    if let Ok(value) = serde_json::from_slice(input) {
        same(&input[span], &value);
    }
}

/// Compares member by member; a later member of the same name wins.
fn same(input: &[u8], value: &Value) {
    match value {
        Value::Object(members) => {
            let found: BTreeMap<_, _> = door::json_members(input)
                .expect("the whole was accepted")
                .into_iter()
                .collect();
            assert_eq!(found.len(), members.len(), "members");
            for (key, span) in found {
                same(&input[span], members.get(&key).expect("a known key"));
            }
        }
        Value::Array(elements) => {
            let found = door::json_elements(input).expect("the whole was accepted");
            assert_eq!(found.len(), elements.len(), "elements");
            for (span, element) in found.into_iter().zip(elements) {
                same(&input[span], element);
            }
        }
        Value::String(text) => {
            let quoted = std::str::from_utf8(input).expect("the whole is text");
            assert_eq!(&door::unescape(quoted), text, "text");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let found: Value = serde_json::from_slice(input).expect("a scalar");
            assert_eq!(&found, value, "scalar");
        }
    }
}
