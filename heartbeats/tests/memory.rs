//! What a node costs: at most 256 bytes beyond its cached lease.
//!
//! Measured as resident memory with the allocator of the proxy, in a process of its own in which
//! the allocator returns at once what is freed: an index that has just grown leaves its old slots.
#![cfg(target_os = "linux")]

use std::time::Duration;

use watershed_heartbeats::{
    Asked, Bounds, Decision, Heartbeats, Limits, MicroTime, Moment, Outcome, Owner, Renewal,
    Settings, Uid,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Just after the index has grown, when its slots are emptiest.
const NODES: u64 = 118_000;
const NODE_BYTES: usize = 256;
const ALLOCATOR_SETTINGS: &str = "_RJEM_MALLOC_CONF";

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes: usize = kibibytes.expect("a size").trim().parse().expect("a number");
    kibibytes << 10
}

fn renew(beats: &mut Heartbeats, node: u64) {
    // 41 characters, as the names of a large cloud.
    let name = format!("ip-10-{node:09}.us-south1.compute.internal");
    let uid = Uid::from_bits(node.into());
    let now = Moment::after_start(Duration::from_secs(60));
    let asked = Asked {
        node: &name,
        connection: 1,
        renewal: Renewal {
            uid,
            resource_version: 1,
            renew_time: MicroTime::from_micros(2).expect("a time"),
            duration: 40,
        },
        stored: MicroTime::from_micros(1).expect("a time"),
        owner: Some(Owner {
            name: name.as_bytes(),
            uid,
        }),
        node_uid: Some(uid),
        fresh: true,
    };
    match beats.decide(now, &asked) {
        Decision::Write(write) => drop(beats.finished(now, write, Outcome::Written(2))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_costs_no_more_than_its_share() {
    if std::env::var_os(ALLOCATOR_SETTINGS).is_none() {
        let this = std::env::current_exe().expect("a path");
        let mut child = std::process::Command::new(this);
        child.args([
            "--exact",
            "a_node_costs_no_more_than_its_share",
            "--nocapture",
        ]);
        child.env(ALLOCATOR_SETTINGS, "dirty_decay_ms:0,muzzy_decay_ms:0");
        assert!(child.status().expect("it runs").success());
        return;
    }
    let settings = Settings {
        grace_period: Duration::from_secs(50),
        tolerated_losses: 2,
        latency_spread: Duration::from_secs(3),
        flush_period: None,
        peers: true,
    };
    let bounds = Bounds::new(settings).expect("they hold");
    let mut beats = Heartbeats::new(bounds, Limits::default());
    beats.set_replicated(true);
    renew(&mut beats, 0);
    let empty = resident();
    for node in 1..NODES {
        renew(&mut beats, node);
        // Peers hear of changes every second: what waits for them is not there for long.
        drop(beats.changes(1));
    }
    let each = (resident() - empty) / beats.len();
    println!("{each} bytes a node");
    assert!(each <= NODE_BYTES, "{each} bytes a node");
}
