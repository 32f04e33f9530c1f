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

fn decode(number: usize, version: u64, len: usize) -> Object {
    let full = pod(number, version, len);
    Object::decode(Encoding::Json, &pods(), &full).expect("a pod decodes")
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes: usize = kibibytes.expect("a size").trim().parse().expect("a number");
    kibibytes << 10
}

fn filled(objects: usize, len: impl Fn(usize) -> usize) -> (Writer, WatchCache, usize) {
    let options = Options {
        objects_bytes: 4 << 30,
        history_bytes: 4 << 30,
        ..Options::default()
    };
    let (mut writer, cache) = WatchCache::new(pods(), Encoding::Json, options);
    let mut sent = 0;
    let objects = (0..objects).map(|number| {
        let object = decode(number, 1, len(number));
        sent += object.bytes().len();
        object
    });
    writer
        .replace(ResourceVersion::new(1), objects)
        .expect("within the budget");
    (writer, cache, sent)
}

fn assert_close(what: &str, accounted: usize, taken: usize) {
    if taken < 1 << 20 {
        return; // pages are too coarse for so little
    }
    let ratio = accounted as f64 / taken as f64;
    assert!(
        (0.95..1.05).contains(&ratio),
        "{what}: {accounted} bytes accounted, {taken} taken: {ratio:.3}"
    );
}

#[tokio::test]
async fn memory_is_accounted_within_a_twentieth_and_near_the_bytes_sent() {
    let mut kept = Vec::new(); // nothing is freed, so that nothing is reused
    let kilobyte = |_| 1_000;
    let eight = |number: usize| 7_000 + number * 7_919 % 2_000; // between the allocator's classes
    let cases: [(_, _, &dyn Fn(usize) -> usize, _); 3] = [
        ("warm-up", 100, &kilobyte, f64::INFINITY), // what the process itself takes once
        ("1 kB", 16_000, &kilobyte, 1.33),
        ("7 to 9 kB", 2_500, &eight, 1.2),
    ];
    for (what, objects, len, most) in cases {
        let before = resident();
        let (mut writer, cache, sent) = filled(objects, len);
        let taken = resident() - before;
        assert_close(what, cache.stats().bytes, taken);
        let ratio = taken as f64 / sent as f64;
        println!("{what}: {ratio:.3} of the bytes sent");
        assert!(ratio < most, "{what}: {ratio:.3} of the bytes sent");

        let before = resident();
        let held = |stats: Stats| stats.bytes + stats.history_bytes;
        let held_before = held(cache.stats());
        for version in 2..objects as u64 / 2 {
            let number = version as usize * 61_803 % objects;
            let update = decode(number, version, len(number));
            writer
                .apply(EventType::Modified, update)
                .expect("within the budget");
        }
        let held = held(cache.stats()) - held_before;
        assert_close(&format!("updates of {what}"), held, resident() - before);
        kept.push((writer, cache));
    }
}
