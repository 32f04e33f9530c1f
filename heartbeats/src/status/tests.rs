use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::unsaved;

/// Recorded from kube-apiserver 1.36, in both encodings.
const OBJECTS: &str = include_str!("../../../cache/tests/data/objects.json");
/// What the recorded Node says.
const STORED: i64 = 1_714_979_289; // 2024-05-06T07:08:09Z

/// The recorded Node in JSON and in protobuf.
fn recorded() -> (Vec<u8>, Vec<u8>) {
    let objects: Vec<Value> = serde_json::from_str(OBJECTS).unwrap();
    let node = |encoding| {
        let found = objects
            .iter()
            .find(|it| it["kind"] == "Node" && it["list"] == false && it[encoding].is_string());
        found.unwrap()[encoding].as_str().unwrap()
    };
    let json = node("json").trim_end().as_bytes().to_vec();
    let hex = node("protobuf");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let protobuf = (0..hex.len()).step_by(2).map(byte).collect();
    (json, protobuf)
}

/// As a kubelet writes it.
fn heartbeat(times: [i64; 4], known: &[&str]) -> String {
    let order: Vec<Value> = known.iter().map(|kind| json!({ "type": kind })).collect();
    let condition = |(kind, time): (&&[u8], i64)| {
        json!({
            "lastHeartbeatTime": time_text(time),
            "type": std::str::from_utf8(kind).unwrap(),
        })
    };
    let conditions: Vec<Value> = TYPES.iter().zip(times).map(condition).collect();
    json!({"status": {"$setElementOrder/conditions": order, "conditions": conditions}}).to_string()
}

const KNOWN: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

/// The rules of strategic merge as far as patches in these tests use them.
fn merge(object: &Value, patch: &Value) -> Value {
    let mut merged = object.as_object().unwrap().clone();
    for (key, value) in patch.as_object().unwrap() {
        let old = &object[key];
        let new = match (key.as_str(), old) {
            ("$setElementOrder/conditions", _) => continue,
            ("conditions", Value::Array(old)) => merge_list(old, value.as_array().unwrap()),
            (_, Value::Object(_)) => merge(old, value),
            _ => value.clone(),
        };
        merged.insert(key.clone(), new);
    }
    Value::Object(merged)
}

fn merge_list(old: &[Value], patch: &[Value]) -> Value {
    let mut merged = old.to_vec();
    for element in patch {
        match merged.iter_mut().find(|it| it["type"] == element["type"]) {
            Some(known) => *known = merge(known, element),
            None => merged.push(element.clone()),
        }
    }
    Value::Array(merged)
}

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn renew(encoding: Encoding, node: &[u8], patch: &str) -> Option<Vec<u8>> {
    let node = NodeStatus::read(encoding, node).ok()?;
    let heartbeat = StatusHeartbeat::read(patch.as_bytes())?;
    node.renewed(node.compare(&heartbeat)?.times)
}

#[test]
fn the_patch_of_a_kubelet_is_a_heartbeat_of_some_440_bytes() {
    let patch = heartbeat([STORED + 300; 4], &KNOWN);
    assert!((400..=450).contains(&patch.len()), "{}", patch.len());
    let read = StatusHeartbeat::read(patch.as_bytes()).unwrap();
    assert_eq!(read.times, StatusTimes([STORED + 300; 4]));
    assert_eq!(read.order, TYPES);
}

#[test]
fn what_says_anything_more_is_no_heartbeat() {
    let plain = heartbeat([STORED + 300; 4], &KNOWN);
    for (from, to) in [
        ("{\"status\"", "{\"metadata\":{},\"status\""),
        ("{\"status\"", "{\"status\":{},\"status\""),
        ("{\"status\"", "{\"statu\\u0073\""),
        ("{\"status\"", "{\"$patch\":\"merge\",\"status\""),
        ("\"conditions\":[", "\"phase\":\"\",\"conditions\":["),
        ("\"conditions\":[", "\"conditions\":[],\"conditions\":["),
        ("$setElementOrder/conditions", "$setElementOrder/addresses"),
        ("\"conditions\":[{", "\"conditions\":[{\"status\":\"True\","),
        ("\"conditions\":[{", "\"conditions\":[{\"message\":\"\","),
        (
            "\"conditions\":[{",
            "\"conditions\":[{\"$patch\":\"merge\",",
        ),
        (
            "[{\"type\":\"MemoryPressure\"}",
            "[{\"type\":\"MemoryPressure\",\"a\":1}",
        ),
        (
            "{\"type\":\"DiskPressure\"},",
            "{\"type\":\"MemoryPressure\"},",
        ),
        (
            ",\"type\":\"PIDPressure\"",
            ",\"type\":\"NetworkUnavailable\"",
        ),
        (",\"type\":\"PIDPressure\"", ",\"type\":\"Ready\""),
        (
            ",\"type\":\"PIDPressure\"",
            ",\"type\":\"PID\\u0050ressure\"",
        ),
        ("09Z\",\"type\":\"Ready\"", "09.0Z\",\"type\":\"Ready\""),
        ("09Z\",\"type\":\"Ready\"", "09+00:00\",\"type\":\"Ready\""),
        (
            "\"lastHeartbeatTime\":\"2024",
            "\"lastHeartbeattime\":\"2024",
        ),
        ("]}}", "]}},"),
        ("]}}", "]}"),
    ] {
        assert!(plain.contains(from), "{from}");
        let patch = plain.replacen(from, to, 1);
        assert_eq!(StatusHeartbeat::read(patch.as_bytes()), None, "{patch}");
    }
}

#[test]
fn a_patch_with_three_of_the_four_conditions_is_no_heartbeat() {
    let plain = heartbeat([STORED + 300; 4], &KNOWN);
    let last = plain.find(",{\"lastHeartbeatTime\":\"2024-05-06T07:13:09Z\",\"type\":\"Ready\"}");
    let patch = format!("{}]}}}}", &plain[..last.unwrap()]);
    assert!(serde_json::from_str::<Value>(&patch).is_ok());
    assert_eq!(StatusHeartbeat::read(patch.as_bytes()), None);
}

#[test]
fn both_encodings_of_a_node_say_the_same() {
    let (json, protobuf) = recorded();
    let json = NodeStatus::read(Encoding::Json, &json).unwrap();
    let protobuf = NodeStatus::read(Encoding::Protobuf, &protobuf).unwrap();
    assert_eq!(json.times(), StatusTimes([STORED; 4]));
    assert_eq!(json.times(), protobuf.times());
    assert_eq!(
        (&json.types, TYPES.as_slice()),
        (&protobuf.types, &*json.types)
    );
    let statuses = |node: &NodeStatus<'_>| node.kept.each_ref().map(|it| it.status.to_vec());
    assert_eq!(statuses(&json), statuses(&protobuf));
}

#[test]
fn the_answer_is_the_cached_node_with_new_times_in_their_places() {
    let (json, protobuf) = recorded();
    let times = [300, 300, 301, 301].map(|later| STORED + later);
    let patch = heartbeat(times, &KNOWN);

    let answer = renew(Encoding::Json, &json, &patch).unwrap();
    assert_eq!(
        value(&answer),
        merge(&value(&json), &value(patch.as_bytes()))
    );
    // Nothing else moved: cut the times out of both.
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut before, mut after) = (text(&json), text(&answer));
    for time in times {
        before = before.replace(&time_text(STORED), "");
        after = after.replace(&time_text(time), "");
    }
    assert_eq!(before, after);

    let answer = renew(Encoding::Protobuf, &protobuf, &patch).unwrap();
    let read = NodeStatus::read(Encoding::Protobuf, &answer).unwrap();
    assert_eq!(read.times(), StatusTimes(times));
    let differ = |(at, (a, b)): (usize, (&u8, &u8))| (a != b).then_some(at);
    let pairs = protobuf.iter().zip(&answer).enumerate();
    let changed: Vec<usize> = pairs.filter_map(differ).collect();
    assert_eq!(protobuf.len(), answer.len());
    // Of each time the two lowest bytes of a varint, next to each other.
    assert!(changed.len() <= 8, "{changed:?}");
    for condition in read.kept {
        let inside = changed
            .iter()
            .filter(|at| condition.at.contains(at))
            .count();
        assert!((1..=2).contains(&inside), "{changed:?}");
    }
}

#[test]
fn a_node_that_says_more_or_less_than_the_kubelet_knows_is_not_answered_for() {
    let (json, _protobuf) = recorded();
    let text = String::from_utf8(json.clone()).unwrap();
    let patch = heartbeat([STORED + 300; 4], &KNOWN);
    assert!(renew(Encoding::Json, &json, &patch).is_some());
    let ready = "\"type\":\"Ready\",\"status\":\"True\"";
    let memory = "\"type\":\"MemoryPressure\",\"status\":\"False\"";
    for (from, to) in [
        (ready, "\"type\":\"Ready\",\"status\":\"Unknown\""),
        (ready, "\"type\":\"Ready\",\"status\":\"False\""),
        (ready, "\"type\":\"Ready\""),
        (memory, "\"type\":\"MemoryPressure\",\"status\":\"Unknown\""),
        (memory, "\"type\":\"Other\",\"status\":\"False\""),
        (
            "\"conditions\":[",
            "\"conditions\":[{\"type\":\"NetworkUnavailable\",\"status\":\"False\"},",
        ),
        (
            "\"metadata\":{",
            "\"metadata\":{\"deletionTimestamp\":\"2024-05-06T07:08:09Z\",",
        ),
        (
            "\"lastHeartbeatTime\":\"2024-05-06T07:08:09Z\"",
            "\"lastHeartbeatTime\":null",
        ),
        ("{\"type\":\"Ready\"", "{\"type\":\"PIDPressure\""),
    ] {
        assert!(text.contains(from), "{from}");
        let node = text.replacen(from, to, 1);
        assert_eq!(renew(Encoding::Json, node.as_bytes(), &patch), None, "{to}");
    }
    let more = [
        "NetworkUnavailable",
        "MemoryPressure",
        "DiskPressure",
        "PIDPressure",
        "Ready",
    ];
    for known in [&more[..], &KNOWN[1..], &["Ready", "PIDPressure"]] {
        let patch = heartbeat([STORED + 300; 4], known);
        assert_eq!(renew(Encoding::Json, &json, &patch), None, "{patch}");
    }
}

#[test]
fn conditions_of_others_may_stand_between_if_the_kubelet_knows_of_them() {
    let (json, _protobuf) = recorded();
    let other = "\"conditions\":[{\"type\":\"NetworkUnavailable\",\"status\":\"False\"},";
    let node = String::from_utf8(json).unwrap();
    let node = node.replacen("\"conditions\":[", other, 1);
    let known = [
        "NetworkUnavailable",
        "MemoryPressure",
        "DiskPressure",
        "PIDPressure",
        "Ready",
    ];
    let patch = heartbeat([STORED + 300; 4], &known);
    let answer = renew(Encoding::Json, node.as_bytes(), &patch).unwrap();
    let expected = merge(&value(node.as_bytes()), &value(patch.as_bytes()));
    assert_eq!(value(&answer), expected);
}

#[test]
fn cut_and_garbled_nodes_and_patches_are_refused_or_read_but_never_a_panic() {
    let (json, protobuf) = recorded();
    let patch = heartbeat([STORED + 300; 4], &KNOWN);
    for length in 0..patch.len() {
        assert_eq!(StatusHeartbeat::read(&patch.as_bytes()[..length]), None);
    }
    for length in (0..json.len()).step_by(7) {
        assert!(NodeStatus::read(Encoding::Json, &json[..length]).is_err());
    }
    for length in (0..protobuf.len() - 4).step_by(7) {
        assert!(NodeStatus::read(Encoding::Protobuf, &protobuf[..length]).is_err());
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        for (encoding, node) in [(Encoding::Json, &json), (Encoding::Protobuf, &protobuf)] {
            let mut node = node.clone();
            let at = random.usize(..node.len());
            node[at] = random.u8(..);
            drop(renew(encoding, &node, &patch));
        }
    }
}

/// The cached Node that a real patch goes to, after a heartbeat of `absorbed` was answered.
fn folded(patch: &str, absorbed: i64) -> Option<String> {
    let folded = fold(
        patch.as_bytes(),
        StatusTimes([absorbed; 4]),
        StatusTimes([STORED; 4]),
    )?;
    Some(String::from_utf8(folded).unwrap())
}

#[test]
fn what_was_absorbed_goes_along_with_the_next_real_patch() {
    let real = r#"{"status":{"$setElementOrder/conditions":[{"type":"NetworkUnavailable"},
        {"type":"MemoryPressure"},{"type":"DiskPressure"},{"type":"PIDPressure"},{"type":"Ready"}],
        "conditions":[{"message":"x","type":"DiskPressure"},
        {"lastHeartbeatTime":"2024-05-06T07:30:00Z","message":"y","type":"Ready"}]}}"#;
    let patch = value(folded(real, STORED + 600).unwrap().as_bytes());
    let time = "2024-05-06T07:18:09Z";
    assert_eq!(
        patch["status"]["conditions"],
        json!([
            {"type": "MemoryPressure", "lastHeartbeatTime": time},
            {"type": "DiskPressure", "lastHeartbeatTime": time, "message": "x"},
            {"type": "PIDPressure", "lastHeartbeatTime": time},
            {"type": "Ready", "lastHeartbeatTime": "2024-05-06T07:30:00Z", "message": "y"},
        ])
    );
    let order = "$setElementOrder/conditions";
    assert_eq!(
        patch["status"][order],
        value(real.as_bytes())["status"][order]
    );
}

#[test]
fn a_patch_of_something_else_in_the_status_takes_the_times_along() {
    for real in [
        r#"{"status":{"volumesInUse":["a"]}}"#,
        r#"{"metadata":{"annotations":{"a":"b"}},"status":{}}"#,
        r#"{"status":{"$setElementOrder/addresses":[{"type":"x"}],"addresses":[]}}"#,
    ] {
        let patch = folded(real, STORED + 600).unwrap();
        let (json, _) = recorded();
        let mut with = merge(&value(&json), &value(patch.as_bytes()));
        for condition in with["status"]["conditions"].as_array_mut().unwrap() {
            assert_eq!(condition["lastHeartbeatTime"], "2024-05-06T07:18:09Z");
            condition["lastHeartbeatTime"] = "2024-05-06T07:08:09Z".into();
        }
        assert_eq!(
            with,
            merge(&value(&json), &value(real.as_bytes())),
            "{patch}"
        );
    }
}

#[test]
fn where_adding_is_not_sure_to_be_right_the_patch_goes_on_as_it_came() {
    let plain = heartbeat([STORED + 900; 4], &KNOWN);
    let swapped = plain.replace(
        "[{\"type\":\"MemoryPressure\"},{\"type\":\"DiskPressure\"}",
        "[{\"type\":\"DiskPressure\"},{\"type\":\"MemoryPressure\"}",
    );
    for real in [
        swapped.as_str(),
        r#"{"metadata":{"labels":{"a":"b"}}}"#,
        r#"{"$patch":"replace","status":{"phase":"x"}}"#,
        r#"{"status":{"$patch":"replace","phase":"x"}}"#,
        r#"{"status":{"$retainKeys":["phase"],"phase":"x"}}"#,
        r#"{"status":{"conditions":[{"$patch":"delete","type":"Ready"}]}}"#,
        r#"{"status":{"conditions":[{"$patch":"replace"}]}}"#,
        r#"{"status":{"conditions":[{"type":"Ready"},{"type":"Ready"}]}}"#,
        r#"{"status":{"conditions":null}}"#,
        r#"{"status":null}"#,
        r#"{"status":{"conditi\u006fns":[]}}"#,
        r#"{"status":{"phase":"x"},"status":{"phase":"y"}}"#,
        r#"{"status":{"phase":"x"}} {}"#,
        r#"[{"op":"add","path":"/status/phase","value":"x"}]"#,
        "",
    ] {
        assert_eq!(folded(real, STORED + 600), None, "{real}");
    }
    // Nothing that is not newer than the store is said.
    assert_eq!(folded(r#"{"status":{"phase":"x"}}"#, STORED), None);
}

proptest! {
    #![proptest_config(unsaved())]

    #[test]
    fn an_answer_is_what_the_patch_would_have_made_of_the_node(
        later in prop::array::uniform4(-100_000_i64..1_000_000_000),
    ) {
        let (json, protobuf) = recorded();
        let times = later.map(|later| STORED + later);
        let patch = heartbeat(times, &KNOWN);
        let answer = renew(Encoding::Json, &json, &patch).unwrap();
        prop_assert!(value(&answer) == merge(&value(&json), &value(patch.as_bytes())));
        let answer = renew(Encoding::Protobuf, &protobuf, &patch).unwrap();
        let read = NodeStatus::read(Encoding::Protobuf, &answer).unwrap();
        prop_assert_eq!(read.times(), StatusTimes(times));
        // With the old times back in, it is the cached Node again.
        prop_assert_eq!(read.renewed(StatusTimes([STORED; 4])).unwrap(), protobuf);
    }

    #[test]
    fn folding_adds_times_and_nothing_else(
        said in prop::array::uniform4(prop::option::of(any::<bool>())),
        ordered in any::<bool>(),
        later in 1_i64..100_000,
    ) {
        let (json, _protobuf) = recorded();
        let element = |(kind, has_time): (&str, bool)| {
            let mut element = json!({"type": kind, "message": "changed"});
            if has_time {
                element["lastHeartbeatTime"] = "2030-01-01T00:00:00Z".into();
            }
            element
        };
        let said = KNOWN.into_iter().zip(said);
        let list: Vec<Value> = said
            .filter_map(|(kind, said)| Some(element((kind, said?))))
            .collect();
        let mut real = json!({"status": {"conditions": list, "phase": "Running"}});
        if ordered {
            let order: Vec<Value> = KNOWN.iter().map(|kind| json!({ "type": kind })).collect();
            real["status"]["$setElementOrder/conditions"] = order.into();
        }
        let patch = folded(&real.to_string(), STORED + later).unwrap();
        let mut with = merge(&value(&json), &value(patch.as_bytes()));
        let without = merge(&value(&json), &real);
        let new = time_text(STORED + later);
        for (kind, condition) in
            with["status"]["conditions"].as_array_mut().unwrap().iter_mut().enumerate()
        {
            let expected = &without["status"]["conditions"][kind]["lastHeartbeatTime"];
            if expected == "2024-05-06T07:08:09Z" {
                prop_assert_eq!(&condition["lastHeartbeatTime"], &Value::from(new.clone()));
                condition["lastHeartbeatTime"] = expected.clone();
            }
        }
        prop_assert!(with == without);
    }

    #[test]
    fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(NodeStatus::read(Encoding::Json, &bytes));
        drop(NodeStatus::read(Encoding::Protobuf, &bytes));
        drop(StatusHeartbeat::read(&bytes));
        drop(fold(&bytes, StatusTimes([9; 4]), StatusTimes([8; 4])));
    }
}
