//! Leases: what is taken for a renewal differs from the cached lease in nothing that counts, by the
//! opinion of `serde_json` and of a plain decoder; and what is read is understood when it comes back
//! renewed.

use serde_json::Value;
use watershed_heartbeats::{Encoding, Lease, MicroTime};

use crate::protobuf::fields;

/// The lease that bodies are compared with, and that mutations begin with.
const JSON: &[u8] = include_bytes!("../corpus/lease_json/00");
const PROTOBUF: &[u8] = include_bytes!("../corpus/lease_protobuf/00");

/// The body of a PUT in JSON.
pub fn json(input: &[u8]) {
    comes_back(Encoding::Json, input);
    let cached = Lease::read(Encoding::Json, JSON).expect("it is one");
    let Ok(renewal) = cached.compare(input) else {
        return;
    };
    let mut ours: Value = serde_json::from_slice(JSON).expect("it is JSON");
    let mut theirs: Value = serde_json::from_slice(input).expect("accepted, so JSON");
    let said = text(&theirs["spec"]["renewTime"]);
    let answer: Value = serde_json::from_slice(&cached.renewed(renewal.renew_time)).expect("JSON");
    assert_eq!(
        text(&answer["spec"]["renewTime"]),
        said,
        "the answer says it"
    );
    let version = text(&theirs["metadata"]["resourceVersion"]);
    let version: u64 = version.parse().expect("accepted, so a number");
    assert!(version <= cached.resource_version(), "seen by the cache");
    for lease in [&mut ours, &mut theirs] {
        lease["spec"]["renewTime"].take();
        lease["metadata"]["resourceVersion"].take();
        for entry in lease["metadata"]["managedFields"]
            .as_array_mut()
            .expect("an array")
        {
            assert!(
                !text(&entry["time"].take()).is_empty(),
                "when it was written"
            );
        }
    }
    assert_eq!(ours, theirs);
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The body of a PUT in protobuf.
pub fn protobuf(input: &[u8]) {
    comes_back(Encoding::Protobuf, input);
    let cached = Lease::read(Encoding::Protobuf, PROTOBUF).expect("it is one");
    let Ok(renewal) = cached.compare(input) else {
        return;
    };
    let ours = Message::read(PROTOBUF).expect("it is one");
    let theirs = Message::read(input).expect("accepted, so a lease");
    assert_eq!(ours.rest, theirs.rest);
    let version: u64 = theirs.version.parse().expect("accepted, so a number");
    assert!(version <= cached.resource_version(), "seen by the cache");
    let answer = cached.renewed(renewal.renew_time);
    let answer = Message::read(&answer).expect("a lease");
    assert_eq!(answer.renewed, theirs.renewed, "the answer says it");
    assert_eq!((answer.rest, answer.version), (ours.rest, ours.version));
}

/// A lease, apart from where renewals may differ.
struct Message {
    version: String,
    /// Fields of the timestamp.
    renewed: Vec<(u64, Vec<u8>)>,
    /// All else: where it stands, and what.
    rest: Vec<(&'static str, u64, Vec<u8>)>,
}

impl Message {
    fn read(input: &[u8]) -> Option<Self> {
        let mut message = Self {
            version: String::new(),
            renewed: Vec::new(),
            rest: Vec::new(),
        };
        for (number, value) in fields(input.strip_prefix(b"k8s\0")?)? {
            match number {
                2 => message.lease(&value)?,
                3 | 4 if value.is_empty() => {}
                _ => message.rest.push(("envelope", number, value)),
            }
        }
        // Orders of different fields mean the same.
        message
            .rest
            .sort_by_key(|(place, number, _)| (*place, *number));
        Some(message)
    }

    fn lease(&mut self, lease: &[u8]) -> Option<()> {
        for (part, value) in fields(lease)? {
            for (number, value) in fields(&value)? {
                match (part, number) {
                    (1, 6) => self.version = String::from_utf8(value).ok()?,
                    (1, 17) => {
                        let entry = fields(&value)?
                            .into_iter()
                            .filter(|(number, _)| *number != 4);
                        let entry = entry.map(|(number, value)| ("manager", number, value));
                        self.rest.extend(entry);
                    }
                    (2, 4) => self.renewed = fields(&value)?,
                    (1, _) => self.rest.push(("metadata", number, value)),
                    (2, _) => self.rest.push(("spec", number, value)),
                    _ => return None,
                }
            }
        }
        Some(())
    }
}

/// Whatever is read is a renewal of itself, and so it is with another time.
fn comes_back(encoding: Encoding, input: &[u8]) {
    let Ok(lease) = Lease::read(encoding, input) else {
        return;
    };
    let _owner = lease.owner();
    let micros = lease.renew_time().micros() / 2;
    let time = MicroTime::from_micros(micros).expect("earlier ones are times too");
    let renewed = lease.renewed(time);
    let again = Lease::read(encoding, &renewed).expect("it was read before");
    assert_eq!(again.renew_time(), time);
    assert_eq!(again.uid(), lease.uid());
    assert_eq!(again.resource_version(), lease.resource_version());
    assert_eq!(again.owner(), lease.owner());
    assert_eq!(
        again.renewed(lease.renew_time()).len(),
        input.len(),
        "{}",
        input.escape_ascii()
    );
    let renewal = lease.compare(&renewed).expect("nothing else differs");
    assert_eq!(renewal.renew_time, time);
}
