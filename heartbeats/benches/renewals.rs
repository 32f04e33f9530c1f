//! What a renewal costs, without the network.
//!
//! ```text
//! cargo bench -p watershed-heartbeats                  everything
//! cargo bench -p watershed-heartbeats -- decide        what has "decide" in its name
//! ```
//!
//! Leases are as kubelets have them (about 500 bytes in protobuf, 800 in JSON), and the table holds
//! 100,000 nodes, asked in another order than they came, so that it does not fit the caches.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use watershed_heartbeats::{
    Asked, Bounds, Decision, Encoding, Heartbeats, Lease, Limits, MicroTime, Moment, Outcome,
    Owner, Renewal, Settings, Uid,
};

/// What the proxy allocates with.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As kube-apiserver 1.36 writes it, taken from the fuzz targets.
const JSON: &[u8] = include_bytes!("../../oracle/corpus/lease_json/00");
const PROTOBUF: &[u8] = include_bytes!("../../oracle/corpus/lease_protobuf/00");

const NODES: u32 = 100_000;
/// Coprime with the number of nodes.
const STRIDE: u32 = 38_699;

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for (name, encoding, bytes) in [
        ("JSON", Encoding::Json, JSON),
        ("protobuf", Encoding::Protobuf, PROTOBUF),
    ] {
        bytes_of(&mut criterion, name, encoding, bytes);
    }
    decide(&mut criterion);
    criterion.final_summary();
}

/// The part of a renewal that reads and writes bytes.
fn bytes_of(criterion: &mut Criterion, name: &str, encoding: Encoding, bytes: &[u8]) {
    let read = || Lease::read(encoding, black_box(bytes)).expect("a lease");
    let cached = read();
    let body = cached.renewed(later(cached.renew_time()));
    criterion.bench_function(&format!("{name}: read"), |bencher| {
        bencher.iter(|| black_box(read().renew_time()));
    });
    criterion.bench_function(&format!("{name}: compare, both read"), |bencher| {
        bencher.iter(|| read().compare(black_box(&body)).expect("a renewal"));
    });
    criterion.bench_function(&format!("{name}: renewed"), |bencher| {
        bencher.iter(|| black_box(cached.renewed(black_box(cached.renew_time()))));
    });
    // What any answer costs that is no other bytes than those that are there.
    criterion.bench_function(&format!("{name}: the same bytes, copied"), |bencher| {
        bencher.iter(|| black_box(black_box(bytes).to_vec()));
    });
}

fn later(time: MicroTime) -> MicroTime {
    MicroTime::from_micros(time.micros() + 10_000_000).expect("not that late")
}

/// A kubelet and its lease.
struct Node {
    name: String,
    uid: Uid,
}

impl Node {
    fn asked(&self, micros: i64) -> Asked<'_> {
        let renew_time = MicroTime::from_micros(micros).expect("a time");
        Asked {
            node: &self.name,
            connection: 1,
            renewal: Renewal {
                uid: self.uid,
                resource_version: 1,
                renew_time,
                duration: 40,
            },
            stored: MicroTime::MIN,
            owner: Some(Owner {
                name: self.name.as_bytes(),
                uid: self.uid,
            }),
            node_uid: Some(self.uid),
            fresh: true,
        }
    }
}

fn decide(criterion: &mut Criterion) {
    let settings = Settings {
        grace_period: Duration::from_secs(300),
        tolerated_losses: 2,
        latency_spread: Duration::from_secs(3),
        flush_period: None,
        peers: true,
    };
    let bounds = Bounds::new(settings).expect("they hold");
    let nodes: Vec<_> = (0..NODES)
        .map(|number| Node {
            name: format!("ip-10-0-{number}.eu-central-1.compute.internal"),
            uid: Uid::from_bits(u128::from(number) + 1),
        })
        .collect();
    let mut beats = Heartbeats::new(bounds, Limits::default());
    beats.set_replicated(true);
    let mut round = Round {
        now: Moment::after_start(Duration::from_secs(1)),
        micros: 1,
        next: 0,
    };
    // Every node is written once and has an interval.
    for _renewal in 0..3 * NODES {
        round.renew(&mut beats, &nodes);
    }
    drop(beats.changes(usize::MAX));
    criterion.bench_function("decide: absorbed, every 26th written", |bencher| {
        bencher.iter(|| round.renew(&mut beats, &nodes));
    });
    criterion.bench_function("decide: the same, and told to a peer", |bencher| {
        bencher.iter(|| {
            round.renew(&mut beats, &nodes);
            black_box(beats.changes(1))
        });
    });
    criterion.bench_function("decide: written, finished", |bencher| {
        bencher.iter(|| {
            round.now = round.now + Duration::from_secs(270);
            round.renew(&mut beats, &nodes)
        });
    });
}

/// Renewals one after the other, those of each node ten seconds apart.
struct Round {
    now: Moment,
    micros: i64,
    next: u32,
}

impl Round {
    /// Whether it was absorbed.
    fn renew(&mut self, beats: &mut Heartbeats, nodes: &[Node]) -> bool {
        self.next = (self.next + STRIDE) % NODES;
        if self.next == 0 {
            self.now = self.now + Duration::from_millis(10_200);
        }
        self.micros += 1;
        let node = &nodes[usize::try_from(self.next).expect("it fits")];
        beats.forwarded(self.now, true);
        match beats.decide(self.now, black_box(&node.asked(self.micros))) {
            Decision::Write(write) => {
                let _relay = beats.finished(self.now, write, Outcome::Written(2));
                false
            }
            Decision::Absorb => true,
            other => unreachable!("nothing is wrong with it: {other:?}"),
        }
    }
}
