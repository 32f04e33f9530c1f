use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::super::protobuf::Reader;
use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), Just(String::new())]
}

fn texts() -> impl Strategy<Value = Json> {
    proptest::collection::btree_map(text(), text(), 0..4).prop_map(|map| json!(map))
}

fn time() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        Just(json!("2026-11-21T17:50:32Z")),
        Just(json!("1970-01-01T00:00:00Z"))
    ]
}

/// One value, of the right type or null, for a member.
fn value(value: Value) -> BoxedStrategy<Json> {
    match value {
        Value::Text | Value::RequiredText => text().prop_map(Json::from).boxed(),
        Value::Integer | Value::OptionalInteger => prop_oneof![any::<i64>(), Just(0)]
            .prop_map(Json::from)
            .boxed(),
        Value::OptionalBool => any::<bool>().prop_map(Json::from).boxed(),
        Value::Time | Value::OptionalTime => time().boxed(),
        Value::Map => texts().boxed(),
        Value::Raw => texts().prop_map(|texts| json!({ "f:x": texts })).boxed(),
        Value::Texts => proptest::collection::vec(text(), 0..3)
            .prop_map(Json::from)
            .boxed(),
        Value::Structs(members) => proptest::collection::vec(object(members), 0..3)
            .prop_map(Json::from)
            .boxed(),
    }
}

fn object(members: &'static [Member]) -> BoxedStrategy<Json> {
    let members: Vec<_> = members
        .iter()
        .map(|member| {
            let name = member.name.to_owned();
            proptest::option::of(value(member.value)).prop_map(move |value| (name.clone(), value))
        })
        .collect();
    (members, any::<bool>())
        .prop_map(|(members, strange)| {
            let mut object: Map<String, Json> = members
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            if strange {
                object.insert("a member nobody knows".to_owned(), json!({ "name": [1] }));
            }
            Json::from(object)
        })
        .boxed()
}

/// What Go's encoder leaves of an object, in the order of its struct.
fn expected(object: &Json, members: &[Member]) -> Vec<(String, Json)> {
    let mut kept = Vec::new();
    for member in members {
        let value = object.get(member.name).cloned().unwrap_or(Json::Null);
        let is_empty = match &value {
            Json::Null => true,
            Json::Bool(_) => false,
            Json::Number(number) => {
                number.as_i64() == Some(0) && !matches!(member.value, Value::OptionalInteger)
            }
            Json::String(text) => text.is_empty(),
            Json::Array(elements) => elements.is_empty(),
            Json::Object(members) => members.is_empty(),
        };
        match member.value {
            Value::RequiredText if is_empty => kept.push((member.name.to_owned(), json!(""))),
            _ if is_empty => {}
            Value::Structs(members) => {
                let elements = value.as_array().unwrap().iter();
                let elements = elements.map(|element| {
                    let members = expected(element, members);
                    Json::Object(members.into_iter().collect())
                });
                kept.push((member.name.to_owned(), elements.collect()));
            }
            _ => kept.push((member.name.to_owned(), value)),
        }
    }
    kept
}

/// The keys of an object, in the order they are written in.
fn keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    Scanner::new(text.as_bytes())
        .unwrap()
        .object(|scanner, key| {
            keys.push(key.to_owned());
            scanner.skip().map(drop)
        })
        .unwrap();
    keys
}

/// The fields of a message: number, and number or bytes.
fn fields(message: &[u8]) -> Vec<(u32, Result<u64, Vec<u8>>)> {
    let mut reader = Reader::new(message, 0..message.len());
    let mut fields = Vec::new();
    while let Some(field) = reader.field().unwrap() {
        let value = match field.bytes() {
            Ok(at) => Err(message[at].to_vec()),
            Err(_) => Ok(field.varint().unwrap()),
        };
        fields.push((field.number, value));
    }
    fields
}

/// The fields Go's encoder writes of an object.
fn expected_fields(object: &Json, members: &[Member]) -> Vec<(u32, Result<u64, Vec<u8>>)> {
    let mut fields = Vec::new();
    for member in members {
        let value = object.get(member.name).filter(|value| !value.is_null());
        let number = u32::from(member.number);
        let bytes = |value: &Json| value.as_str().unwrap().as_bytes().to_vec();
        match (member.value, value) {
            (Value::Text | Value::RequiredText, value) => {
                fields.push((number, Err(value.map(bytes).unwrap_or_default())));
            }
            (Value::Integer, value) => {
                let value = value.map_or(0, |value| value.as_i64().unwrap());
                fields.push((number, Ok(value.cast_unsigned())));
            }
            (Value::Time, None) => fields.push((number, Err(Vec::new()))),
            (_, None) => {}
            (Value::OptionalInteger, Some(value)) => {
                fields.push((number, Ok(value.as_i64().unwrap().cast_unsigned())));
            }
            (Value::OptionalBool, Some(value)) => {
                fields.push((number, Ok(u64::from(value.as_bool().unwrap()))));
            }
            (Value::Time | Value::OptionalTime, Some(value)) => {
                // 2026-11-21T17:50:32Z is 1,795,283,432.
                let epoch = value == "1970-01-01T00:00:00Z";
                let message: &[u8] = if epoch {
                    &[8, 0, 16, 0]
                } else {
                    &[8, 0xe8, 0xb3, 0x87, 0xd8, 6, 16, 0]
                };
                fields.push((number, Err(message.to_vec())));
            }
            (Value::Map, Some(map)) => {
                for (key, value) in map.as_object().unwrap() {
                    let mut entry = Vec::new();
                    push_bytes(&mut entry, 1, key.as_bytes());
                    push_bytes(&mut entry, 2, &bytes(value));
                    fields.push((number, Err(entry)));
                }
            }
            (Value::Texts, Some(texts)) => {
                let texts = texts.as_array().unwrap().iter();
                fields.extend(texts.map(|text| (number, Err(bytes(text)))));
            }
            (Value::Structs(members), Some(elements)) => {
                for element in elements.as_array().unwrap() {
                    let mut message = Vec::new();
                    write_protobuf(&element.to_string(), members, &mut message);
                    assert_eq!(self::fields(&message), expected_fields(element, members));
                    fields.push((number, Err(message)));
                }
            }
            (Value::Raw, Some(value)) => {
                let mut message = Vec::new();
                push_bytes(&mut message, 1, value.to_string().as_bytes());
                fields.push((number, Err(message)));
            }
        }
    }
    fields.sort_by_key(|(number, _)| *number);
    fields
}

proptest! {
    #[test]
    fn json_is_what_a_go_struct_would_write(metadata in object(OBJECT_META)) {
        let written = json(&metadata.to_string());
        let text = std::str::from_utf8(&written).unwrap();
        let expected = expected(&metadata, OBJECT_META);
        let order: Vec<_> = expected.iter().map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(keys(text), order);
        let value: Json = serde_json::from_str(text).unwrap();
        prop_assert_eq!(value, Json::Object(expected.into_iter().collect()));
    }

    #[test]
    fn protobuf_is_what_a_go_struct_would_write(metadata in object(OBJECT_META)) {
        let written = protobuf(&metadata.to_string());
        prop_assert_eq!(fields(&written), expected_fields(&metadata, OBJECT_META));
    }
}

#[test]
fn times_are_counted_as_go_counts_them() {
    for (text, seconds) in [
        ("\"1970-01-01T00:00:00Z\"", Some(0)),
        ("\"2000-02-29T23:59:59Z\"", Some(951_868_799)),
        ("\"2026-11-21T17:50:32Z\"", Some(1_795_283_432)),
        ("\"1969-12-31T23:59:59Z\"", Some(-1)),
        ("\"0001-01-01T00:00:00Z\"", Some(-62_135_596_800)),
        ("\"2026-11-21T17:50:32+01:00\"", None),
        ("\"2026-11-21\"", None),
        ("\"\"", None),
    ] {
        assert_eq!(unix_seconds(text), seconds, "{text}");
    }
}

#[test]
fn members_of_the_wrong_type_read_as_absent() {
    let odd = r#"{"name":1,"labels":[],"ownerReferences":{},"generation":"x","uid":"u"}"#;
    assert_eq!(json(odd), br#"{"uid":"u"}"#);
}
