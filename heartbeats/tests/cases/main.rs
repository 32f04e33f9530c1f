//! The cases that a heartbeat must survive, one by one, on a clock that only moves when told.
//!
//! Bytes are the business of the unit tests of leases; faults that meet, of the simulation. Where
//! each case is, by its number in the list of cases that the design was written against; `wire` is
//! `proxy/tests/wire/heartbeats`, where a real proxy is asked.
//!
//! | case | where |
//! |---|---|
//! | 1 absorbed: cached lease, one new time, nothing written | `objects`, `src/lease/tests.rs`, wire `absorbed` |
//! | 2 both encodings, sizes as usual | `src/lease/tests.rs`, `tests/recorded.rs`, wire `absorbed` |
//! | 3 a due one is one write with the newest version | `pace`, wire `absorbed` |
//! | 4 half of a thousand are written at 50 s | `pace` |
//! | 5 flush periods and losses against the arithmetic | `pace`, `src/bounds.rs` |
//! | 6, 7 changed content is forwarded | `src/lease/tests.rs`, wire `forwarded` |
//! | 8 an older version of equal content is absorbed | `objects` |
//! | 9 a version that the cache has not seen is forwarded | `src/lease/tests.rs` |
//! | 10 no version or uid | `objects`, wire `forwarded` |
//! | 11, 12 a lease that is not there, or deleted | `objects`, wire `forwarded`, simulation |
//! | 13, 14 a Node that is deleted, or another one | `objects`, wire `forwarded`, simulation |
//! | 15 no namespace | wire `forwarded` |
//! | 16, 17 a clock put back, or put right | `objects`, wire `forwarded`, simulation |
//! | 18 two replicas in turn | `pace`, wire `replicas`, simulation |
//! | 19 a late write of an older time is dropped | `objects`, simulation |
//! | 20 nothing is said for a dead kubelet | `peers`, simulation with a controller |
//! | 21, 22 a dead or silent replica | `peers`, simulation |
//! | 23 nothing is answered while writes fail | `trouble`, `src/honesty.rs`, wire `honest`, simulation |
//! | 24 slow writes: the nearest deadline first, nobody given up | `trouble` |
//! | 25 silent watches | `trouble`, simulation |
//! | 26 a replica that just started | `pace`, wire `replicas` |
//! | 27 draining: nothing is absorbed, heirs are told | `trouble` |
//! | 28 two hosts of one name | `objects`, `src/node.rs`, wire `forwarded` |
//! | 29, 30 another node's lease, other queries | wire `forwarded` |
//! | 31 what is not understood | `src/lease/tests.rs`, fuzzing in `oracle`, wire `forwarded` |
//! | 32 foreign edits | simulation, wire `forwarded` |
//! | 33, 34 readers, one manager | wire `absorbed` |
//! | 35 clients that try again at once | `trouble`, wire `honest` |
//! | 49, 50, 51, 54 a Node's status | `tests/node_status.rs`, `proxy/tests/wire/node_status.rs` |
//! | 52, 53 who hears of it | `cache/src/watcher/tests/heartbeats.rs`, its simulation, `proxy/tests/wire/node_status.rs` |

mod objects;
mod pace;
mod peers;
mod trouble;

use std::time::Duration;

use watershed_heartbeats::{
    After, Asked, Bounds, Decision, Heartbeats, Limits, MicroTime, Moment, Outcome, Owner, Renewal,
    Settings, Uid, Write,
};

const LEASE: Uid = Uid::from_bits(1);
const NODE: Uid = Uid::from_bits(2);

fn at(millis: u64) -> Moment {
    Moment::after_start(Duration::from_millis(millis))
}

/// What a kubelet says at a moment, if its clock is right.
fn time(millis: u64) -> MicroTime {
    let micros = i64::try_from(millis * 1_000).expect("not that late");
    MicroTime::from_micros(micros).expect("a time")
}

fn settings(grace_seconds: u64) -> Settings {
    Settings {
        grace_period: Duration::from_secs(grace_seconds),
        tolerated_losses: 2,
        latency_spread: Duration::from_secs(3),
        flush_period: None,
        peers: true,
    }
}

fn heartbeats(settings: Settings) -> Heartbeats {
    limited(settings, Limits::default())
}

fn limited(settings: Settings, limits: Limits) -> Heartbeats {
    let mut beats = Heartbeats::new(Bounds::new(settings).expect("they hold"), limits);
    beats.set_replicated(true);
    beats
}

const ASKED: Asked<'static> = Asked {
    node: "n1",
    connection: 1,
    renewal: Renewal {
        uid: LEASE,
        resource_version: 1,
        renew_time: MicroTime::MIN,
        duration: 40,
    },
    stored: MicroTime::MIN,
    owner: Some(Owner {
        name: b"n1",
        uid: NODE,
    }),
    node_uid: Some(NODE),
    fresh: true,
};

/// A renewal of the usual node that says `said`.
fn asked(said: MicroTime) -> Asked<'static> {
    let renewal = Renewal {
        renew_time: said,
        ..ASKED.renewal
    };
    Asked { renewal, ..ASKED }
}

fn renew(beats: &mut Heartbeats, now: u64) -> Decision {
    beats.decide(at(now), &asked(time(now)))
}

fn writes(beats: &mut Heartbeats, now: u64) -> Write {
    match renew(beats, now) {
        Decision::Write(write) => write,
        other => panic!("at {now}: {other:?}"),
    }
}

/// Something else proves that writes arrive, all the time.
fn renew_proven(beats: &mut Heartbeats, now: u64) -> Decision {
    beats.forwarded(at(now), true);
    renew(beats, now)
}

/// A node that was written at 1 s and absorbed at 11 s.
fn absorbing(settings: Settings) -> Heartbeats {
    let mut beats = heartbeats(settings);
    let write = writes(&mut beats, 1_000);
    assert_eq!(
        beats.finished(at(1_005), write, Outcome::Written(2)),
        After::Relay
    );
    assert_eq!(renew_proven(&mut beats, 11_000), Decision::Absorb);
    beats
}

/// The lease in JSON as the store has it, renewed in the first hour of all.
fn lease(version: u64, renewed: u64) -> String {
    let (minute, second, milli) = (renewed / 60_000, renewed / 1_000 % 60, renewed % 1_000);
    format!(
        r#"{{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{{"name":"n1","uid":"00000000-0000-0000-0000-000000000001","resourceVersion":"{version}"}},"spec":{{"leaseDurationSeconds":40,"renewTime":"1970-01-01T00:{minute:02}:{second:02}.{milli:03}000Z"}}}}"#
    )
}
