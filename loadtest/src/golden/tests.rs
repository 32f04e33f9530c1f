//! The matcher against the recordings themselves: each matches itself, and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::message::match_message;
use super::*;
use crate::client::Request;

/// One recorded text or message, with the symbol its resource version has.
enum Recorded<'a> {
    Text(&'a str, &'a [Hole]),
    Protobuf(Vec<u8>, Option<&'a str>),
}

impl Recorded<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text, _) => text.as_bytes().to_vec(),
            Self::Protobuf(bytes, _) => bytes.clone(),
        }
    }

    fn matches(&self, bindings: &mut Bindings<'_>, live: &[u8]) -> Result<(), Mismatch> {
        match self {
            Self::Text(text, holes) => {
                let live = std::str::from_utf8(live).map_err(|_| Mismatch::new("no text"))?;
                bindings.match_text(text, holes, live)
            }
            Self::Protobuf(bytes, symbol) => match_message(bindings, bytes, live, *symbol),
        }
    }
}

fn recorded(scenario: &Scenario) -> Vec<Recorded<'_>> {
    let mut all = Vec::new();
    let decode = |text: &String| STANDARD.decode(text).expect("base64");
    for step in &scenario.steps {
        if let Some(Exchange { response, .. }) = step.exchange() {
            if let Some(text) = &response.body_text {
                all.push(Recorded::Text(text, &response.holes));
            }
            if let Some(text) = &response.body_base64 {
                let symbol = response
                    .pb
                    .as_ref()
                    .and_then(|message| message.rv_sym.as_deref());
                all.push(Recorded::Protobuf(decode(text), symbol));
            }
        }
        for event in step.events() {
            if let Some(text) = &event.raw_text {
                all.push(Recorded::Text(text, &event.holes));
            }
            if let Some(text) = &event.raw_base64 {
                all.push(Recorded::Protobuf(decode(text), event.rv_sym.as_deref()));
            }
        }
    }
    all
}

#[test]
fn every_recording_matches_itself() {
    let scenarios = scenarios().expect("the recordings");
    assert_eq!(scenarios.len(), 115);
    for scenario in &scenarios {
        let mut bindings = Bindings::new(&scenario.symbols);
        for (index, recorded) in recorded(scenario).iter().enumerate() {
            recorded
                .matches(&mut bindings, &recorded.bytes())
                .unwrap_or_else(|mismatch| panic!("{} body {index}: {mismatch}", scenario.id));
        }
    }
}

#[test]
fn a_changed_literal_byte_is_a_mismatch() {
    for scenario in scenarios()
        .expect("the recordings")
        .iter()
        .filter(|own| own.replayable)
    {
        for recorded in recorded(scenario) {
            let Recorded::Text(text, holes) = &recorded else {
                continue;
            };
            let in_hole = |at: usize| {
                holes
                    .iter()
                    .any(|Hole(start, length, _)| (*start..start + length).contains(&at))
            };
            let bytes = text.as_bytes();
            for at in (0..text.len()).step_by(31).filter(|at| !in_hole(*at)) {
                let mut changed = bytes.to_vec();
                changed[at] = if changed[at] == b'~' { b'!' } else { b'~' };
                let result = recorded.matches(&mut Bindings::new(&scenario.symbols), &changed);
                assert!(result.is_err(), "{} byte {at} of {text}", scenario.id);
            }
            let longer = [bytes, b"\n"].concat();
            assert!(
                recorded
                    .matches(&mut Bindings::new(&scenario.symbols), &longer)
                    .is_err()
            );
        }
    }
}

#[test]
fn a_changed_protobuf_field_is_a_mismatch() {
    let all = scenarios().expect("the recordings");
    let scenario = all
        .iter()
        .find(|own| own.id == "objects/assorted-kinds")
        .expect("recorded");
    let mut checked = 0;
    for recorded in recorded(scenario) {
        let Recorded::Protobuf(bytes, _) = &recorded else {
            continue;
        };
        for needle in [b"o-k-x".as_slice(), b"FieldsV1", b"golden"] {
            let Some(at) = bytes.windows(needle.len()).position(|own| own == needle) else {
                continue;
            };
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let result = recorded.matches(&mut Bindings::new(&scenario.symbols), &changed);
            assert!(result.is_err(), "{}", changed.escape_ascii());
            checked += 1;
        }
        let shorter = &bytes[..bytes.len() - 1];
        assert!(
            recorded
                .matches(&mut Bindings::new(&scenario.symbols), shorter)
                .is_err()
        );
    }
    assert!(checked > 50, "only {checked} changes were tried");
}

fn symbols(json: serde_json::Value) -> HashMap<String, Symbol> {
    serde_json::from_value(json).expect("symbols")
}

fn versions() -> HashMap<String, Symbol> {
    symbols(serde_json::json!({
        "rv1": {"kind": "rv", "value": "100", "step": 0},
        "rv2": {"kind": "rv", "value": "103", "step": 1},
        "lrv1": {"kind": "lrv", "value": "104", "step": 2, "min": "rv2"},
        "uid1": {"kind": "uid", "value": "20224848-79b1-4f98-be7f-11b21bc9b99c", "step": 0},
        "uid2": {"kind": "uid", "value": "30224848-79b1-4f98-be7f-11b21bc9b99c", "step": 0},
        "tok1": {"kind": "tok", "value": "x", "step": 3, "start": "a\u{0}", "rv": "rv2",
                 "v": "meta.k8s.io/v1", "minted": true},
    }))
}

#[test]
fn a_symbol_keeps_its_value_and_order() {
    let symbols = versions();
    let mut bindings = Bindings::new(&symbols);
    bindings.bind("rv1", "7").expect("unbound");
    bindings.bind("rv1", "7").expect("the same again");
    assert!(bindings.bind("rv1", "8").is_err(), "another value");
    assert!(bindings.bind("rv2", "7").is_err(), "recorded as later");
    assert!(bindings.bind("rv2", "6").is_err(), "recorded as later");
    bindings.bind("rv2", "9").expect("later");
    assert!(bindings.bind("lrv1", "8").is_err(), "below its minimum");
    bindings.bind("lrv1", "9").expect("at its minimum");
}

#[test]
fn two_uids_are_never_one() {
    let symbols = versions();
    let mut bindings = Bindings::new(&symbols);
    let live = "40224848-79b1-4f98-be7f-11b21bc9b99c";
    let text = "\"20224848-79b1-4f98-be7f-11b21bc9b99c\"";
    let hole = |name: &str| [Hole(1, 36, name.to_owned())];
    bindings
        .match_text(text, &hole("uid1"), &format!("\"{live}\""))
        .expect("a UID");
    assert!(
        bindings
            .match_text(text, &hole("uid2"), &format!("\"{live}\""))
            .is_err()
    );
    assert!(
        bindings
            .match_text(text, &hole("uid2"), "\"not-a-uid\"")
            .is_err()
    );
}

#[test]
fn templates_take_live_values() {
    let symbols = versions();
    let mut bindings = Bindings::new(&symbols);
    assert!(bindings.expand("/x?rv=${rv1}").is_err(), "not bound yet");
    bindings.bind("rv1", "7").expect("unbound");
    assert_eq!(
        bindings.expand("/${rv1}/${rv1+5}/${rv1-1}").expect("bound"),
        "/7/12/6"
    );
    bindings.bind("rv2", "9").expect("unbound");
    let token = bindings.expand("${tok1}").expect("minted");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .expect("base64");
    assert_eq!(json, br#"{"v":"meta.k8s.io/v1","rv":9,"start":"a\u0000"}"#);
}

#[test]
fn times_keep_their_precision() {
    let symbols = HashMap::new();
    let mut bindings = Bindings::new(&symbols);
    let recorded = "2026-11-21T17:48:45Z";
    let hole = [Hole(0, 20, "ts".to_owned())];
    bindings
        .match_text(recorded, &hole, "2030-01-01T00:00:00Z")
        .expect("a time");
    assert!(
        bindings
            .match_text(recorded, &hole, "2030-01-01T00:00:00.000000Z")
            .is_err()
    );
    assert!(
        bindings
            .match_text(recorded, &hole, "2030-13-01T00:00:00Z")
            .is_err()
    );
}

#[test]
fn what_hyper_would_change_on_the_wire_is_passed_over() {
    let is_sendable = |target: &str| Request::get(target).is_sendable();
    assert!(is_sendable("/api/v1/pods?labelSelector=a%3Db,c"));
    assert!(!is_sendable("/api/v1/pods?labelSelector=a#frag"));
    assert!(!is_sendable("/a<b>&c"));
    let unsendable: usize = scenarios()
        .expect("the recordings")
        .iter()
        .flat_map(|scenario| scenario.steps.iter().filter_map(Step::exchange))
        .filter(|exchange| !is_sendable(&exchange.path))
        .count();
    assert!(
        unsendable <= 4,
        "{unsendable} recorded requests cannot be sent"
    );
}

#[test]
fn only_bookmarks_without_an_end_mark_are_plain() {
    let is_plain = |text: &'static str| super::stream::is_plain_bookmark(&Bytes::from(text));
    assert!(is_plain("{\"type\":\"BOOKMARK\",\"object\":{}}\n"));
    assert!(!is_plain(
        "{\"type\":\"BOOKMARK\",\"object\":{\"k8s.io/initial-events-end\":\"true\"}}\n"
    ));
    assert!(!is_plain("{\"type\":\"ADDED\",\"object\":{}}\n"));
    assert!(is_plain("\0\0\0\x0a\x0a\x08BOOKMARK"));
}
