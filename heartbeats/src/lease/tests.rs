use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::protobuf::{put_message, put_varint};
use crate::unsaved;

const UID: &str = "314280a2-3adc-4ddb-bad2-43b47c7be773";
const OWNER: &str = "cfd131fb-cefd-42bc-bb35-eadbd338477a";

fn time(micros: i64) -> MicroTime {
    MicroTime::from_micros(micros).unwrap()
}

/// What differs between a lease and the lease as a kubelet sends it back.
#[derive(Clone, Copy)]
struct Draft {
    version: u64,
    renewed: i64,
    written: i64,
    labels: bool,
    name: &'static str,
}

/// What a kubelet manages of its lease.
const FIELDS: &str = r#"{"f:metadata":{"f:ownerReferences":{".":{},"k:{\"uid\":\"cfd131fb-cefd-42bc-bb35-eadbd338477a\"}":{}}},"f:spec":{"f:holderIdentity":{},"f:leaseDurationSeconds":{},"f:renewTime":{}}}"#;

const DRAFT: Draft = Draft {
    version: 20_309,
    renewed: 1_714_978_800_000_001,
    written: 1_714_978_800,
    labels: true,
    name: "n1",
};

/// As kube-apiserver 1.36 writes it.
fn json(draft: Draft) -> Vec<u8> {
    let Draft {
        version,
        labels,
        name,
        ..
    } = draft;
    let renewed = time(draft.renewed).to_json();
    let written = time(draft.written * 1_000_000).to_json();
    let written = written.replace(".000000", "");
    let labels = if labels {
        r#""labels":{"a":"{\"[","b":"]}"},"#
    } else {
        ""
    };
    format!(
        r#"{{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{{"name":"{name}","namespace":"kube-node-lease","uid":"{UID}","resourceVersion":"{version}","creationTimestamp":"2026-11-21T17:57:55Z",{labels}"ownerReferences":[{{"apiVersion":"v1","kind":"Node","name":"{name}","uid":"{OWNER}"}}],"managedFields":[{{"manager":"kubelet","operation":"Update","apiVersion":"coordination.k8s.io/v1","time":"{written}","fieldsType":"FieldsV1","fieldsV1":{FIELDS}}}]}},"spec":{{"holderIdentity":"{name}","leaseDurationSeconds":40,"renewTime":"{renewed}"}}}}"#
    )
    .into_bytes()
}

fn timestamp(seconds: u64, nanos: u64) -> Vec<u8> {
    let mut out = vec![8];
    put_varint(&mut out, seconds);
    out.push(16);
    put_varint(&mut out, nanos);
    out
}

/// As kube-apiserver 1.36 writes it: texts that are empty are there.
fn protobuf(draft: Draft) -> Vec<u8> {
    let fields = |fields: &[(u64, &[u8])]| {
        let mut out = Vec::new();
        for (number, value) in fields {
            put_message(&mut out, *number, value);
        }
        out
    };
    let (seconds, nanos) = time(draft.renewed).parts();
    let mut metadata = fields(&[
        (1, draft.name.as_bytes()),
        (2, b""),
        (3, b"kube-node-lease"),
        (4, b""),
        (5, UID.as_bytes()),
        (6, draft.version.to_string().as_bytes()),
    ]);
    metadata.extend([7 << 3, 0]);
    put_message(&mut metadata, 8, &timestamp(1_700_000_000, 0));
    if draft.labels {
        put_message(&mut metadata, 11, &fields(&[(1, b"a"), (2, b"1")]));
        put_message(&mut metadata, 11, &fields(&[(1, b"b"), (2, b"2")]));
    }
    let mut owner = fields(&[
        (1, b"Node"),
        (3, draft.name.as_bytes()),
        (4, OWNER.as_bytes()),
        (5, b"v1"),
    ]);
    owner.extend([6 << 3, 0]);
    put_message(&mut metadata, 13, &owner);
    let entry = fields(&[
        (1, b"kubelet"),
        (2, b"Update"),
        (3, b"coordination.k8s.io/v1"),
        (4, &timestamp(draft.written.unsigned_abs(), 0)),
        (6, b"FieldsV1"),
        (7, &fields(&[(1, FIELDS.as_bytes())])),
        (8, b""),
    ]);
    put_message(&mut metadata, 17, &entry);
    let mut spec = fields(&[(1, draft.name.as_bytes())]);
    spec.extend([2 << 3, 40]);
    put_message(&mut spec, 4, &timestamp(seconds, nanos));
    let lease = fields(&[(1, &metadata), (2, &spec)]);
    let kind = fields(&[(1, b"coordination.k8s.io/v1"), (2, b"Lease")]);
    let mut out = b"k8s\0".to_vec();
    out.extend(fields(&[(1, &kind), (2, &lease), (3, b""), (4, b"")]));
    out
}

fn written(encoding: Encoding, draft: Draft) -> Vec<u8> {
    match encoding {
        Encoding::Json => json(draft),
        Encoding::Protobuf => protobuf(draft),
    }
}

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

fn compare(encoding: Encoding, cached: Draft, body: &[u8]) -> Result<Renewal, Differs> {
    let cached = written(encoding, cached);
    Lease::read(encoding, &cached).unwrap().compare(body)
}

#[test]
fn a_lease_says_whose_it_is() {
    for encoding in BOTH {
        let bytes = written(encoding, DRAFT);
        let lease = Lease::read(encoding, &bytes).unwrap();
        assert_eq!(lease.uid(), Uid::parse(UID.as_bytes()).unwrap());
        assert_eq!(lease.resource_version(), 20_309);
        assert_eq!(lease.renew_time(), time(DRAFT.renewed));
        assert_eq!(lease.duration(), 40);
        assert!(!lease.is_being_deleted());
        let owner = lease.owner().unwrap();
        assert_eq!(owner.name, b"n1");
        assert_eq!(owner.uid, Uid::parse(OWNER.as_bytes()).unwrap());
    }
}

#[test]
fn a_body_may_differ_in_renew_time_older_version_and_times_of_managed_fields() {
    for encoding in BOTH {
        let sent = Draft {
            version: 7,
            renewed: DRAFT.renewed + 10_100_000,
            written: DRAFT.written - 20,
            ..DRAFT
        };
        let renewal = compare(encoding, DRAFT, &written(encoding, sent)).unwrap();
        assert_eq!(renewal.renew_time, time(sent.renewed));
        assert_eq!(renewal.resource_version, DRAFT.version);
    }
}

#[test]
fn a_body_that_changes_more_is_not_a_renewal() {
    for encoding in BOTH {
        let other = Draft {
            labels: false,
            ..DRAFT
        };
        let body = written(encoding, other);
        assert_eq!(compare(encoding, DRAFT, &body), Err(Differs::Content));
        let body = written(encoding, DRAFT);
        assert_eq!(compare(encoding, other, &body), Err(Differs::Content));
        let newer = Draft {
            version: DRAFT.version + 1,
            ..DRAFT
        };
        let body = written(encoding, newer);
        assert_eq!(compare(encoding, DRAFT, &body), Err(Differs::Newer));
    }
}

#[test]
fn leases_are_as_long_as_those_of_kubelets_and_renewals_no_longer() {
    const SHORT: &str = "node-0000012";
    const LONG: &str = "ip-10-0-123-234.eu-central-1.compute.node";
    for (name, encoding, usual) in [
        (SHORT, Encoding::Protobuf, 494),
        (SHORT, Encoding::Json, 815),
        (LONG, Encoding::Protobuf, 581),
        (LONG, Encoding::Json, 902),
    ] {
        let draft = Draft {
            name,
            labels: false,
            ..DRAFT
        };
        let bytes = written(encoding, draft);
        let apart = bytes.len().abs_diff(usual);
        assert!(apart * 20 <= usual, "{encoding:?} {name}: {}", bytes.len());
        let lease = Lease::read(encoding, &bytes).unwrap();
        let later = lease.renewed(time(draft.renewed + 10_000_000));
        assert_eq!(later.len(), bytes.len());
        assert_eq!(lease.owner().unwrap().name, name.as_bytes());
    }
}

/// Texts of the JSON body, each with what it is replaced by and what that makes of the body.
const OTHERS: &[(&str, &str, Differs)] = &[
    (
        r#""leaseDurationSeconds":40"#,
        r#""leaseDurationSeconds":50"#,
        Differs::Content,
    ),
    (
        r#""holderIdentity":"n1""#,
        r#""holderIdentity":"n2""#,
        Differs::Content,
    ),
    (
        r#""name":"n1","namespace""#,
        r#""name":"n2","namespace""#,
        Differs::Content,
    ),
    (
        r#""spec":{"#,
        r#""spec":{"acquireTime":null,"#,
        Differs::Content,
    ),
    (
        r#""spec":{"#,
        r#""spec":{"strategy":"OldestEmulationVersion","#,
        Differs::Content,
    ),
    (
        r#""manager":"kubelet""#,
        r#""manager":"kubectl""#,
        Differs::Content,
    ),
    (r#""time":"2024"#, r#""tide":"2024"#, Differs::Content),
    (r#""uid":"31"#, r#""uid":"41"#, Differs::Uid),
    (
        r#""uid":"314280a2-3adc-4ddb-bad2-43b47c7be773","#,
        "",
        Unread::Incomplete.into_differs(),
    ),
    (
        r#""resourceVersion":"20309","#,
        "",
        Unread::Incomplete.into_differs(),
    ),
    (r#""20309""#, r#""""#, Unread::Incomplete.into_differs()),
    (
        r#""20309""#,
        r#""020309""#,
        Unread::Incomplete.into_differs(),
    ),
    (
        r#""spec":{"#,
        r#""status":{},"spec":{"#,
        Unread::UnknownMember.into_differs(),
    ),
    (
        r#""spec":{"#,
        r#""spec":{"x":1,"#,
        Unread::UnknownMember.into_differs(),
    ),
    (
        r#""uid":"31"#,
        r#""Uid":"31"#,
        Unread::UnknownMember.into_differs(),
    ),
    (
        r#""spec":{"#,
        r#""spec":{},"spec":{"#,
        Unread::Doubled.into_differs(),
    ),
    (
        r#""spec":{"#,
        r#""spec":{"leaseDurationSeconds":40,"#,
        Unread::Doubled.into_differs(),
    ),
    (r#""Lease""#, r#""lease""#, Unread::Kind.into_differs()),
    (
        "io/v1\",\"metadata",
        "io/v1beta1\",\"metadata",
        Unread::Kind.into_differs(),
    ),
    (
        "00.000001Z\"}}",
        "00.000001Z\"}}{}",
        Unread::Form.into_differs(),
    ),
    (
        "00.000001Z\"}}",
        "00.000001Z\"}",
        Unread::Form.into_differs(),
    ),
    (".000001Z", ".0001Z", Unread::Incomplete.into_differs()),
];

#[test]
fn every_other_body_is_forwarded() {
    let body = String::from_utf8(json(DRAFT)).unwrap();
    for (old, new, expected) in OTHERS {
        let changed = body.replacen(old, new, 1);
        assert_ne!(changed, body, "{old}");
        assert_eq!(
            compare(Encoding::Json, DRAFT, changed.as_bytes()),
            Err(*expected),
            "{new}"
        );
    }
    let gzip = [0x1f, 0x8b, 8, 0];
    for encoding in BOTH {
        let refused = compare(encoding, DRAFT, &gzip);
        assert_eq!(refused, Err(Differs::Unread(Unread::Form)));
        assert!(compare(encoding, DRAFT, &[]).is_err());
    }
}

impl Unread {
    const fn into_differs(self) -> Differs {
        Differs::Unread(self)
    }
}

#[test]
fn an_owner_is_one_node() {
    let body = String::from_utf8(json(DRAFT)).unwrap();
    for (old, new) in [
        (r#""kind":"Node""#, r#""kind":"Pod""#),
        (r#"[{"apiVersion":"v1""#, r#"[{"apiVersion":"v2""#),
        (r#""uid":"cf"#, r#""uid":"CF"#),
        (
            r#""ownerReferences":[{"#,
            r#""ownerReferences":[{"kind":"Node"},{"#,
        ),
        (r#""ownerReferences""#, r#""finalizers""#),
    ] {
        let changed = body.replacen(old, new, 1);
        assert_ne!(changed, body, "{old}");
        let lease = Lease::read(Encoding::Json, changed.as_bytes()).unwrap();
        assert_eq!(lease.owner(), None, "{new}");
    }
}

#[test]
fn a_lease_that_waits_for_finalizers_says_so() {
    let body = String::from_utf8(json(DRAFT)).unwrap();
    let old = r#""creationTimestamp""#;
    let new = r#""deletionTimestamp":"2026-11-21T17:57:55Z","creationTimestamp""#;
    let body = body.replacen(old, new, 1);
    assert!(
        Lease::read(Encoding::Json, body.as_bytes())
            .unwrap()
            .is_being_deleted()
    );
}

/// Where a body may differ and still be a renewal: found by the texts and times themselves.
fn free(body: &[u8], version: &[u8], times: &[&[u8]]) -> Vec<bool> {
    let mut free = vec![false; body.len()];
    for wanted in times.iter().chain([&version]) {
        for at in 0..=body.len() - wanted.len() {
            if body[at..].starts_with(wanted) {
                free[at..at + wanted.len()].fill(true);
            }
        }
    }
    free
}

/// Every byte, changed into every other.
#[test]
fn what_is_accepted_in_protobuf_differs_only_where_it_may() {
    let sent = Draft {
        version: 20_300,
        ..DRAFT
    };
    let body = protobuf(sent);
    let (seconds, nanos) = time(sent.renewed).parts();
    let times = [
        timestamp(seconds, nanos),
        timestamp(sent.written.unsigned_abs(), 0),
    ];
    let free = free(&body, b"20300", &[&times[0], &times[1]]);
    let cached = protobuf(DRAFT);
    let cached = Lease::read(Encoding::Protobuf, &cached).unwrap();
    for at in 0..body.len() {
        let mut changed = body.clone();
        for byte in 0..=u8::MAX {
            changed[at] = byte;
            let same = byte == body[at];
            assert!(
                same || free[at] || cached.compare(&changed).is_err(),
                "{byte} at {at}"
            );
        }
    }
}

proptest! {
    #![proptest_config(unsaved())]

    /// Against serde, which knows nothing of where values end here.
    #[test]
    fn what_is_accepted_in_json_equals_the_lease_as_values(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        digits in prop::bool::ANY,
    ) {
        let mut body = json(Draft { version: 20_300, ..DRAFT });
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = if digits { b'0' + byte % 10 } else { byte };
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let Ok(renewal) = compare(Encoding::Json, DRAFT, &body) else {
            return Ok(());
        };
        let cached: Value = serde_json::from_slice(&json(DRAFT)).unwrap();
        let mut sent: Value = serde_json::from_slice(&body).unwrap();
        let renewed = sent["spec"]["renewTime"].take();
        prop_assert_eq!(renewed.as_str().unwrap(), renewal.renew_time.to_json());
        for path in ["/spec/renewTime", "/metadata/resourceVersion",
                     "/metadata/managedFields/0/time"] {
            *sent.pointer_mut(path).unwrap() = cached.pointer(path).unwrap().clone();
        }
        prop_assert_eq!(sent, cached);
    }

    /// But for the two empty texts that end an envelope: without them it says the same.
    #[test]
    fn no_part_of_a_body_is_a_renewal(at in any::<prop::sample::Index>()) {
        for (encoding, end) in [(Encoding::Json, 0), (Encoding::Protobuf, 4)] {
            let body = written(encoding, DRAFT);
            let cut = at.index(body.len() - end);
            prop_assert!(compare(encoding, DRAFT, &body[..cut]).is_err());
        }
    }

    #[test]
    fn bytes_of_any_kind_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for encoding in BOTH {
            let mut bytes = bytes.clone();
            prop_assert!(Lease::read(encoding, &bytes).is_err());
            bytes.splice(0..0, *b"k8s\0");
            prop_assert!(Lease::read(encoding, &bytes).is_err());
        }
    }

    /// As an encoder would write the lease with that time and nothing else new.
    #[test]
    fn a_renewed_lease_has_one_new_value(micros in 0..4_000_000_000_000_000_i64) {
        for encoding in BOTH {
            let bytes = written(encoding, DRAFT);
            let lease = Lease::read(encoding, &bytes).unwrap();
            let renewed = lease.renewed(time(micros));
            let expected = written(encoding, Draft { renewed: micros, ..DRAFT });
            prop_assert_eq!(&renewed, &expected);
            prop_assert_eq!(lease.compare(&renewed).unwrap().renew_time, time(micros));
        }
    }
}
