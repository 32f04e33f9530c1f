//! Leases as a kube-apiserver 1.36 wrote them, from the recordings that the judge is held to.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use watershed_heartbeats::{Differs, Encoding, Lease, MicroTime};

const RENEWALS: &str = include_str!("../../loadtest/golden/leases/renew-json.json");
const BAD_WRITES: &str = include_str!("../../loadtest/golden/leases/bad-writes.json");
const KINDS: &str = include_str!("../../loadtest/golden/objects/assorted-kinds.json");

/// A request for one lease, and its answer if that is a lease.
struct Exchange {
    method: String,
    sent: Vec<u8>,
    answer: Option<(Encoding, Vec<u8>)>,
}

fn exchanges(recording: &str) -> Vec<Exchange> {
    let recording: Value = serde_json::from_str(recording).expect("JSON");
    let steps = recording["steps"].as_array().expect("steps");
    let asked = steps
        .iter()
        .flat_map(|step| [&step["write"], &step["read"]]);
    let of_lease = |asked: &&Value| {
        asked["path"]
            .as_str()
            .is_some_and(|it| it.contains("/leases"))
    };
    asked.filter(of_lease).map(exchange).collect()
}

fn exchange(asked: &Value) -> Exchange {
    let answer = &asked["response"];
    let json = answer["body_text"].as_str();
    let json = json.filter(|text| text.starts_with(r#"{"kind":"Lease","#));
    let protobuf = answer["body_base64"].as_str();
    let protobuf = protobuf.map(|text| BASE64_STANDARD.decode(text).expect("base64"));
    let protobuf = protobuf.filter(|body| body.windows(7).any(|part| part == b"\x12\x05Lease"));
    let json = json.map(|text| (Encoding::Json, text.as_bytes().to_vec()));
    Exchange {
        method: asked["method"].as_str().expect("a method").to_owned(),
        sent: asked["body"].as_str().unwrap_or_default().into(),
        answer: json.or_else(|| protobuf.map(|body| (Encoding::Protobuf, body))),
    }
}

#[test]
fn every_recorded_lease_is_read_to_the_last_byte() {
    let mut counts = [0; 2];
    for recording in [RENEWALS, BAD_WRITES, KINDS] {
        for (encoding, bytes) in exchanges(recording)
            .iter()
            .filter_map(|it| it.answer.as_ref())
        {
            let lease = Lease::read(*encoding, bytes).expect("as an apiserver writes it");
            assert_eq!(lease.duration(), 40);
            assert_eq!(lease.owner(), None, "whoever recorded them owns nothing");
            assert_eq!(&lease.renewed(lease.renew_time()), bytes);
            counts[usize::from(*encoding == Encoding::Protobuf)] += 1;
        }
    }
    assert!(counts[0] >= 12 && counts[1] >= 1, "{counts:?}");
}

#[test]
fn one_lease_says_the_same_in_both_encodings() {
    let all = exchanges(KINDS);
    let answers: Vec<_> = all.iter().filter_map(|it| it.answer.as_ref()).collect();
    let read = |wanted: Encoding| {
        let (_, bytes) = answers.iter().find(|it| it.0 == wanted).expect("recorded");
        Lease::read(wanted, bytes).expect("a lease")
    };
    let (json, protobuf) = (read(Encoding::Json), read(Encoding::Protobuf));
    assert_eq!(json.uid(), protobuf.uid());
    assert_eq!(json.resource_version(), protobuf.resource_version());
    assert_eq!(json.renew_time(), protobuf.renew_time());
}

/// Of two answers to renewals in a row the second is what this crate makes of the first, but for the
/// version; and a kubelet that echoes the first is understood by a cache that has the second.
#[test]
fn a_recorded_renewal_is_one() {
    let all = exchanges(RENEWALS);
    let puts = all.iter().filter(|it| it.method == "PUT");
    let answers: Vec<_> = puts.filter_map(|it| it.answer.as_ref()).collect();
    let mut renewals = 0;
    for pair in answers.windows(2) {
        let [(_, before), (_, after)] = pair else {
            unreachable!("pairs");
        };
        let old = Lease::read(Encoding::Json, before).expect("a lease");
        let new = Lease::read(Encoding::Json, after).expect("a lease");
        let echo = old.renewed(later(new.renew_time()));
        if old.uid() != new.uid() {
            assert_eq!(new.compare(&echo), Err(Differs::Uid));
            continue;
        }
        renewals += 1;
        let renewal = new.compare(&echo).expect("a renewal");
        assert_eq!(renewal.renew_time, later(new.renew_time()));
        assert_eq!(renewal.resource_version, new.resource_version());
        let made = String::from_utf8(old.renewed(new.renew_time())).expect("JSON");
        let versions = [&old, &new].map(|lease| lease.resource_version().to_string());
        let made = made.replace(&versions[0], &versions[1]);
        assert_eq!(made.as_bytes(), after);
    }
    assert!(renewals >= 4, "{renewals}");
}

fn later(time: MicroTime) -> MicroTime {
    MicroTime::from_micros(time.micros() + 10_000_000).expect("not that late")
}

/// None of them says all that the lease says: by hand, with another uid, too much or in pieces.
#[test]
fn recorded_writes_that_are_no_echo_are_forwarded() {
    let mut refused = 0;
    for recording in [RENEWALS, BAD_WRITES] {
        let all = exchanges(recording);
        let known = all.iter().find_map(|it| it.answer.as_ref()).expect("one");
        let cached = Lease::read(known.0, &known.1).expect("a lease");
        for sent in all.iter().filter(|it| it.method == "PUT") {
            let refusal = cached.compare(&sent.sent);
            assert!(refusal.is_err(), "{}", sent.sent.escape_ascii());
            refused += 1;
        }
    }
    assert!(refused >= 20, "{refused}");
}
