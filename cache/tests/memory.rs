//! What a cache accounts for is what the process takes, and little more than what it was sent.
//!
//! Measured as resident memory with the allocator of the proxy, in a process of its own: one test,
//! because what one frees another would reuse.
#![cfg(target_os = "linux")]

use std::sync::Arc;

use watershed_cache::encoding::{Encoding, EventType};
use watershed_cache::{Object, Options, Resource, ResourceVersion, Stats, WatchCache, Writer};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn pods() -> Arc<Resource> {
    Arc::new(Resource::pods())
}

/// A pod of `len` bytes.
fn pod(number: usize, version: u64, len: usize) -> Vec<u8> {
    let node = number % 500;
    let pod = |filler: &str| {
        format!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"app-{number:06}","namespace":"team-{:02}","uid":"6d7a1c0e-6f0b-4e5a-9c1e-{number:012}","resourceVersion":"{version:010}","labels":{{"app":"app-{:03}","tier":"web"}},"annotations":{{"filler":"{filler}"}}}},"spec":{{"nodeName":"node-{node:05}","schedulerName":"default-scheduler"}},"status":{{"phase":"Running","podIP":"10.1.2.3","podIPs":[{{"ip":"10.1.2.3"}}]}}}}"#,
            number % 20,
            number % 300,
        )
    };
    let filler = len.saturating_sub(pod("").len());
    pod(&"x".repeat(filler)).into_bytes()
}

/// The same in protobuf.
fn pod_protobuf(number: usize, version: u64, len: usize) -> Vec<u8> {
    let text = |number, text: &str| field(number, text.as_bytes());
    let label = |key: &str, value: &str| field(11, &[text(1, key), text(2, value)].concat());
    let metadata = [
        text(1, &format!("app-{number:06}")),
        text(3, &format!("team-{:02}", number % 20)),
        text(5, &format!("6d7a1c0e-6f0b-4e5a-9c1e-{number:012}")),
        text(6, &format!("{version:010}")),
        label("app", &format!("app-{:03}", number % 300)),
        label("tier", "web"),
    ];
    let metadata = field(1, &metadata.concat());
    let node = format!("node-{:05}", number % 500);
    let spec = [text(10, &node), text(19, "default-scheduler")].concat();
    let status = |filler: &str| {
        let status = [text(1, "Running"), text(3, filler), text(6, "10.1.2.3")];
        field(3, &status.concat())
    };
    let pod = |filler: &str| {
        let pod = [metadata.clone(), field(2, &spec), status(filler)].concat();
        let type_meta = [text(1, "v1"), text(2, "Pod")].concat();
        let envelope = [field(1, &type_meta), field(2, &pod)].concat();
        [b"k8s\0".as_slice(), &envelope, &[0x1a, 0, 0x22, 0]].concat()
    };
    let filler = len.saturating_sub(pod("").len());
    pod(&"x".repeat(filler))
}

/// A length-delimited field.
fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    for mut varint in [usize::from(number) << 3 | 2, payload.len()] {
        while varint >= 0x80 {
            field.push((varint & 0x7f) as u8 | 0x80);
            varint >>= 7;
        }
        field.push(varint as u8);
    }
    field.extend_from_slice(payload);
    field
}

fn decode(encoding: Encoding, number: usize, version: u64, len: usize) -> Object {
    let full = match encoding {
        Encoding::Json => pod(number, version, len),
        Encoding::Protobuf => pod_protobuf(number, version, len),
    };
    Object::decode(encoding, &pods(), &full).expect("a pod decodes")
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes: usize = kibibytes.expect("a size").trim().parse().expect("a number");
    kibibytes << 10
}

fn filled(
    encoding: Encoding,
    objects: usize,
    len: impl Fn(usize) -> usize,
) -> (Writer, WatchCache, usize) {
    let options = Options {
        objects_bytes: 4 << 30,
        history_bytes: 4 << 30,
        ..Options::default()
    };
    let (mut writer, cache) = WatchCache::new(pods(), encoding, options);
    let mut sent = 0;
    let objects = (0..objects).map(|number| {
        let object = decode(encoding, number, 1, len(number));
        sent += object.bytes().len();
        object
    });
    writer
        .replace(ResourceVersion::new(1), objects)
        .expect("within the budget");
    (writer, cache, sent)
}

fn assert_close(what: &str, accounted: usize, taken: usize) {
    let ratio = accounted as f64 / taken as f64;
    assert!(
        (0.95..1.05).contains(&ratio),
        "{what}: {accounted} bytes accounted, {taken} taken: {ratio:.3}"
    );
}

#[tokio::test]
async fn memory_is_accounted_within_a_twentieth_and_near_the_bytes_sent() {
    let mut kept = Vec::new(); // nothing is freed, so that nothing is reused
    let exactly = |len: usize| move |_: usize| len;
    let around = |len: usize| move |number: usize| len * 7 / 8 + number * 7_919 % (len / 4);
    let cases: [(_, _, &dyn Fn(usize) -> usize, _); 4] = [
        ("500 B", 16_000, &exactly(500), 1.55),
        ("1 kB", 12_000, &exactly(1_000), 1.31),
        ("8 kB or so", 1_500, &around(8_000), 1.19), // between the allocator's classes
        ("20 kB or so", 600, &around(20_000), 1.16),
    ];
    // What the process itself takes once.
    kept.push(filled(Encoding::Json, 2_000, exactly(1_000)));
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        for (size, objects, len, most) in cases {
            let what = format!("{size} of {encoding:?}");
            let before = resident();
            let (mut writer, cache, sent) = filled(encoding, objects, len);
            let taken = resident() - before;
            let ratio = taken as f64 / sent as f64;
            println!("{what}: {ratio:.3} of the bytes sent");
            assert_close(&what, cache.stats().bytes, taken);
            assert!(ratio < most, "{what}: {ratio:.3} of the bytes sent");

            let before = resident();
            let held = |stats: Stats| stats.bytes + stats.history_bytes;
            let held_before = held(cache.stats());
            for version in 2..objects as u64 / 2 {
                let number = version as usize * 61_803 % objects;
                let update = decode(encoding, number, version, len(number));
                writer
                    .apply(EventType::Modified, update)
                    .expect("within the budget");
            }
            let (held, taken) = (held(cache.stats()) - held_before, resident() - before);
            assert_close(&format!("updates of {what}"), held, taken);
            kept.push((writer, cache, sent));
        }
    }
}
