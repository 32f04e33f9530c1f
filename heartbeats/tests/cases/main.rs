//! The cases that a heartbeat must survive, one by one, on a clock that only moves when told.
//!
//! Bytes are the business of the unit tests of leases; faults that meet, of the simulation.

use std::time::Duration;

use watershed_heartbeats::{
    After, Asked, Bounds, Debt, Decision, Encoding, Estate, Heartbeats, Heir, Honesty, Lease,
    Limits, MicroTime, Moment, Needless, Outcome, Owner, Peer, Reason, Renewal, Settings, Turn,
    Uid, Write,
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

#[test]
fn every_nth_healthy_renewal_is_written_and_no_gap_is_longer() {
    for (grace, renewals_per_write) in [(50, 2), (80, 5), (120, 9), (300, 26)] {
        let mut beats = heartbeats(settings(grace));
        let mut rng = fastrand::Rng::with_seed(grace);
        let (mut now, mut written, mut stored_at, mut longest) = (0, 0_u64, None, 0);
        for _renewal in 0..26 * 9 * 10 {
            now += rng.u64(10_000..10_400);
            match renew_proven(&mut beats, now) {
                Decision::Absorb => {}
                Decision::Write(write) => {
                    let done = now + rng.u64(20..500);
                    let _relay = beats.finished(at(done), write, Outcome::Written(written + 2));
                    written += 1;
                    longest = longest.max(done - stored_at.unwrap_or(done));
                    stored_at = Some(done);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            written,
            (26 * 9 * 10_u64).div_ceil(renewals_per_write),
            "{grace}"
        );
        assert!(
            longest <= renewals_per_write * 10_400 + 500,
            "{grace}: {longest}"
        );
    }
}

/// The share of gaps between writes that are longer than 50 s, if some renewals are lost.
fn long_gaps(flush_millis: u64, lost_percent: f64) -> f64 {
    let period = Duration::from_millis(flush_millis);
    let mut beats = heartbeats(Settings {
        flush_period: Some(period),
        ..settings(300)
    });
    let mut rng = fastrand::Rng::with_seed(flush_millis);
    let (mut now, mut stored_at) = (0, 0);
    let (mut gaps, mut long) = (0_u32, 0_u32);
    for _renewal in 0..100_000 {
        now += rng.u64(10_000..10_400);
        if rng.f64() * 100.0 < lost_percent {
            continue;
        }
        if let Decision::Write(write) = renew_proven(&mut beats, now) {
            let done = now + rng.u64(20..500);
            let _relay = beats.finished(at(done), write, Outcome::Written(2));
            gaps += 1;
            long += u32::from(done - stored_at > 50_000);
            stored_at = done;
        }
    }
    f64::from(long) / f64::from(gaps)
}

#[test]
fn lost_renewals_cost_what_arithmetic_says() {
    for (flush, at_two, at_ten) in [
        (16_000, 3e-5, 1e-3),
        (19_500, 3e-5, 1e-3),
        (29_500, 5e-4, 1e-2),
        (36_000, 2e-2, 1e-1),
    ] {
        assert!(long_gaps(flush, 0.0) == 0.0, "{flush}");
        let (two, ten) = (long_gaps(flush, 2.0), long_gaps(flush, 10.0));
        assert!(
            two <= at_two * 3.0 && ten <= at_ten * 3.0,
            "{flush}: {two} {ten}"
        );
        assert!(ten >= at_ten / 3.0, "{flush}: {ten}");
    }
}

#[test]
fn a_due_renewal_is_one_write_and_the_next_is_absorbed() {
    let mut beats = absorbing(settings(50));
    let write = writes(&mut beats, 21_000);
    assert_eq!(write.renew_time(), time(21_000));
    assert_eq!(
        beats.finished(at(21_010), write, Outcome::Written(3)),
        After::Relay
    );
    assert_eq!(renew_proven(&mut beats, 31_000), Decision::Absorb);
}

/// The lease in JSON as the store has it, renewed in the first hour of all.
fn lease(version: u64, renewed: u64) -> String {
    let (minute, second, milli) = (renewed / 60_000, renewed / 1_000 % 60, renewed % 1_000);
    format!(
        r#"{{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{{"name":"n1","uid":"00000000-0000-0000-0000-000000000001","resourceVersion":"{version}"}},"spec":{{"leaseDurationSeconds":40,"renewTime":"1970-01-01T00:{minute:02}:{second:02}.{milli:03}000Z"}}}}"#
    )
}

#[test]
fn two_replicas_that_renew_in_turn_write_as_often_as_one() {
    let mut pair = [heartbeats(settings(50)), heartbeats(settings(50))];
    let (mut version, mut written) = (1, 0);
    let mut stored = lease(version, 0);
    for renewal in 1..=200_u64 {
        let now = renewal * 10_200;
        let read = Lease::read(Encoding::Json, stored.as_bytes()).expect("a lease");
        let asked = Asked {
            stored: read.renew_time(),
            ..asked(time(now))
        };
        let turn = usize::from(renewal % 2 == 0);
        pair[turn].forwarded(at(now), true);
        match pair[turn].decide(at(now), &asked) {
            Decision::Absorb => {}
            Decision::Write(write) => {
                let body = write.body(&read).expect("it is newer");
                version += 1;
                written += 1;
                stored = String::from_utf8(body).expect("JSON");
                stored = stored.replace(
                    &format!(r#""resourceVersion":"{}""#, version - 1),
                    &format!(r#""resourceVersion":"{version}""#),
                );
                assert_eq!(
                    stored,
                    lease(version, now),
                    "real version, uid, one new time"
                );
                let relay = pair[turn].finished(at(now + 20), write, Outcome::Written(version));
                assert_eq!(relay, After::Relay);
                let read = Lease::read(Encoding::Json, stored.as_bytes()).expect("a lease");
                pair.iter_mut()
                    .for_each(|beats| beats.lease_seen(at(now + 30), "n1", &read));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((99..=103).contains(&written), "{written}");
}

#[test]
fn a_late_flush_of_an_older_time_is_dropped() {
    let mut beats = absorbing(settings(50));
    let write = writes(&mut beats, 21_000);
    let newer = lease(9, 21_001);
    let newer = Lease::read(Encoding::Json, newer.as_bytes()).expect("a lease");
    assert_eq!(write.body(&newer), Err(Needless::Stored));
    let outcome = Outcome::Needless(Needless::Stored);
    assert_eq!(beats.finished(at(21_001), write, outcome), After::Absorb);
    let write = writes(&mut beats, 31_000);
    let other = lease(9, 5).replace("000000000001", "000000000009");
    let other = Lease::read(Encoding::Json, other.as_bytes()).expect("a lease");
    assert_eq!(write.body(&other), Err(Needless::OtherLease));
    let outcome = Outcome::Needless(Needless::OtherLease);
    assert_eq!(beats.finished(at(31_001), write, outcome), After::Forward);
}

#[test]
fn a_node_that_is_gone_or_another_one_is_not_answered_for() {
    for (node_uid, owner, reason) in [
        (None, ASKED.owner, Reason::OtherNode),
        (Some(Uid::from_bits(9)), ASKED.owner, Reason::OtherNode),
        (Some(NODE), None, Reason::NotOwned),
        (
            Some(NODE),
            Some(Owner {
                name: b"n2",
                uid: NODE,
            }),
            Reason::NotOwned,
        ),
    ] {
        let mut beats = absorbing(settings(50));
        let asked = Asked {
            node_uid,
            owner,
            ..asked(time(21_000))
        };
        assert_eq!(beats.decide(at(21_000), &asked), Decision::Forward(reason));
    }
}

#[test]
fn a_lease_that_was_deleted_is_forgotten_and_its_successor_begins_anew() {
    let mut beats = absorbing(settings(50));
    beats.deleted("n1");
    assert_eq!((beats.len(), beats.owed().count()), (0, 0));
    let mut beats = absorbing(settings(50));
    let renewal = Renewal {
        uid: Uid::from_bits(7),
        ..asked(time(12_000)).renewal
    };
    let successor = Asked { renewal, ..ASKED };
    assert!(matches!(
        beats.decide(at(12_000), &successor),
        Decision::Write(_)
    ));
    assert_eq!(
        beats.owed().count(),
        0,
        "nothing of the old lease is written into the new one"
    );
}

#[test]
fn a_clock_that_is_put_back_is_forwarded_until_it_has_caught_up() {
    let mut beats = absorbing(settings(120));
    assert!(beats.absorbs_status(at(11_000), "n1"));
    let same = beats.decide(at(11_001), &asked(time(11_000)));
    assert_eq!(same, Decision::Forward(Reason::NotNewer));
    for (now, said) in [(12_000, 1_000), (21_000, 10_999), (21_500, 11_000)] {
        beats.forwarded(at(now), true);
        let decision = beats.decide(at(now), &asked(time(said)));
        assert_eq!(decision, Decision::Forward(Reason::NotNewer), "{said}");
        assert_eq!(
            beats.absorbs_status(at(now), "n1"),
            said == 11_000,
            "{said}"
        );
    }
    beats.forwarded(at(31_500), true);
    assert_eq!(
        beats.decide(at(31_500), &asked(time(21_000))),
        Decision::Absorb
    );
    assert!(beats.absorbs_status(at(31_500), "n1"));
}

#[test]
fn watches_that_tell_nothing_and_a_replica_that_stops_answer_nothing() {
    let mut beats = absorbing(settings(50));
    let stale = Asked {
        fresh: false,
        ..asked(time(20_000))
    };
    assert_eq!(
        beats.decide(at(20_000), &stale),
        Decision::Forward(Reason::Stale)
    );
    beats.drain();
    assert_eq!(
        renew_proven(&mut beats, 20_001),
        Decision::Forward(Reason::Draining)
    );
    assert_eq!(beats.owed().count(), 1, "heirs are told");
}

#[test]
fn nothing_is_answered_when_writes_fail_until_one_arrives() {
    let mut beats = absorbing(settings(120));
    assert_eq!(beats.honesty(at(15_999)), Honesty::Honest);
    for failure in 0..8 {
        beats.forwarded(at(12_000 + failure), false);
    }
    let write = writes(&mut beats, 13_000);
    assert_eq!(
        beats.finished(at(13_001), write, Outcome::Failed),
        After::Relay
    );
    let (mut tried, mut shed) = (0, 0);
    for now in (17_000..27_000).step_by(10) {
        match renew(&mut beats, now) {
            Decision::Write(write) => {
                tried += 1;
                let _relay = beats.finished(at(now + 1), write, Outcome::Failed);
            }
            Decision::Shed => shed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(tried <= 40 && shed >= 960, "{tried} tried, {shed} shed");
    let write = writes(&mut beats, 28_000);
    let _relay = beats.finished(at(28_001), write, Outcome::Written(9));
    // Half the writes of the last seconds failed: one is not enough yet.
    assert_eq!(beats.honesty(at(28_002)), Honesty::Unproven);
    (0..40).for_each(|success| beats.forwarded(at(28_010 + success), true));
    assert_eq!(renew_proven(&mut beats, 38_000), Decision::Absorb);
}

#[test]
fn a_replica_that_just_started_writes_the_first_renewal_of_each_node() {
    let mut beats = heartbeats(settings(300));
    for node in 0..1_000 {
        beats.forwarded(at(node), true);
        let name = format!("n{node}");
        let owner = Some(Owner {
            name: name.as_bytes(),
            uid: NODE,
        });
        let asked = Asked {
            node: &name,
            owner,
            ..asked(time(5))
        };
        match beats.decide(at(node), &asked) {
            Decision::Write(write) => {
                let _relay = beats.finished(at(node), write, Outcome::Written(2));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_conflict_is_tried_once_more_and_then_told() {
    let mut beats = absorbing(settings(50));
    let write = writes(&mut beats, 21_000);
    let After::Again(write) = beats.finished(at(21_010), write, Outcome::Conflict) else {
        panic!("not tried again");
    };
    assert_eq!(
        beats.finished(at(21_020), write, Outcome::Conflict),
        After::Relay
    );
    assert_eq!(beats.writes().1, 0, "nothing is under way");
    let write = writes(&mut beats, 31_000);
    assert_eq!(
        beats.finished(at(31_010), write, Outcome::Missing),
        After::Relay
    );
    assert!(beats.is_empty(), "no lease, no node");
}

#[test]
fn a_write_whose_client_has_gone_proves_nothing_and_gives_its_place_back() {
    for (proven, honesty) in [(true, Honesty::Honest), (false, Honesty::Unproven)] {
        let limits = Limits {
            under_way: 1,
            ..Limits::default()
        };
        let bounds = Bounds::new(settings(50)).expect("they hold");
        let mut beats = Heartbeats::new(bounds, limits);
        for now in (1_000..1_400).step_by(10) {
            if proven {
                beats.forwarded(at(now), true);
            }
            let write = writes(&mut beats, now);
            beats.gone(at(now + 5), write);
            assert_eq!(beats.writes(), (0, 0, 1), "nothing is under way");
        }
        assert_eq!(beats.honesty(at(1_400)), honesty, "{proven}");
        assert_eq!(beats.owed().count(), 0, "nobody was answered");
    }
}

#[test]
fn clients_that_go_because_writes_are_slow_leave_room() {
    let mut beats = heartbeats(settings(50));
    let before = beats.writes().2;
    let write = writes(&mut beats, 1_000);
    beats.gone(at(1_500), write);
    assert_eq!(beats.writes().2, before, "that may have been anything");
    let write = writes(&mut beats, 2_000);
    beats.gone(at(11_000), write);
    assert_eq!(beats.writes().2, before / 2);
}

#[test]
fn two_hosts_of_one_name_are_not_absorbed() {
    let mut beats = absorbing(settings(300));
    let mut last = None;
    for step in 2..10 {
        for (connection, now, said) in [
            (1, step * 10_000 + 1_000, step * 10_000 + 1_000),
            (
                2,
                step * 10_000 + 6_000,
                step * 10_000 - 60_000 * u64::from(step > 6),
            ),
        ] {
            beats.forwarded(at(now), true);
            let asked = Asked {
                connection,
                ..asked(time(said))
            };
            last = Some(beats.decide(at(now), &asked));
        }
    }
    assert_eq!(last, Some(Decision::Forward(Reason::Contested)));
}

#[test]
fn when_the_upstream_is_slow_the_nearest_deadline_goes_first() {
    let limits = Limits {
        under_way: 1,
        ..Limits::default()
    };
    let mut beats = limited(settings(50), limits);
    let names: Vec<_> = (0..5).map(|node| format!("n{node}")).collect();
    let of = |node: usize, now: u64| Asked {
        node: &names[node],
        owner: Some(Owner {
            name: names[node].as_bytes(),
            uid: NODE,
        }),
        ..asked(time(now))
    };
    for (node, now) in [(0, 1_000), (3, 2_000), (1, 3_000), (4, 4_000), (2, 5_000)] {
        let Decision::Write(write) = beats.decide(at(now), &of(node, now)) else {
            panic!("nothing else is under way");
        };
        let _relay = beats.finished(at(now), write, Outcome::Written(2));
    }
    let Decision::Write(mut write) = beats.decide(at(30_000), &of(0, 30_000)) else {
        panic!("it is due");
    };
    for node in [1, 2, 3, 4] {
        let decision = beats.decide(at(30_000), &of(node, 30_000));
        assert!(matches!(decision, Decision::Wait(_)), "{decision:?}");
    }
    let mut order = Vec::new();
    for now in [31_000, 32_000, 33_000, 34_000] {
        let _relay = beats.finished(at(now), write, Outcome::Written(3));
        let Some((_ticket, Turn::Write(next))) = beats.next(at(now)) else {
            panic!("nobody's turn");
        };
        order.push(next.node().to_owned());
        write = next;
    }
    assert_eq!(order, ["n3", "n1", "n4", "n2"]);
}

#[test]
fn what_a_dead_replica_owed_is_paid_within_a_grace_period() {
    let mut beats = absorbing(settings(50));
    let mut estate = Estate::new(9, 50);
    for debt in beats.changes(9) {
        assert!(estate.hear(Peer(1), Heir::First, debt));
    }
    // Told nothing for three seconds, the peer is taken for dead.
    estate.died(at(14_000), Peer(1));
    let paid = estate.next(at(14_500)).expect("a debt");
    let expected = Debt {
        node: "n1".into(),
        uid: LEASE,
        renew_time: time(11_000),
        written: time(1_000),
        heard_at: at(11_000),
    };
    assert_eq!(paid, expected);
}

#[test]
fn without_a_peer_that_hears_what_is_safe_without_peers_holds_at_once() {
    let mut beats = heartbeats(settings(50));
    let write = writes(&mut beats, 1_000);
    let _relay = beats.finished(at(1_005), write, Outcome::Written(2));
    assert_eq!(renew_proven(&mut beats, 11_000), Decision::Absorb);
    let told = beats.changes(9).len();
    assert_eq!((told, beats.untold()), (1, 0));
    beats.set_replicated(false);
    let Decision::Write(write) = renew_proven(&mut beats, 16_000) else {
        panic!("nothing is absorbed at 50 s without peers");
    };
    let _failed = beats.finished(at(16_005), write, Outcome::Failed);
    beats.set_replicated(true);
    beats.tell_all();
    let owed: Vec<_> = beats.changes(9);
    assert_eq!(owed.len(), 1, "a new peer hears of what is owed");
    assert_eq!(owed[0].renew_time, time(11_000));
}

#[test]
fn a_table_that_is_full_forwards_newcomers_and_serves_whom_it_knows() {
    let limits = Limits {
        nodes: 1,
        ..Limits::default()
    };
    let mut beats = limited(settings(50), limits);
    let write = writes(&mut beats, 1_000);
    let _relay = beats.finished(at(1_005), write, Outcome::Written(2));
    let owner = Some(Owner {
        name: b"n2",
        uid: NODE,
    });
    let newcomer = Asked {
        node: "n2",
        owner,
        ..asked(time(2_000))
    };
    let decision = beats.decide(at(2_000), &newcomer);
    assert_eq!(decision, Decision::Forward(Reason::TooManyNodes));
    assert_eq!(renew_proven(&mut beats, 11_000), Decision::Absorb);
}

/// For each node, the longest time between two writes, and from the last renewal that peers were
/// told of to the first elsewhere, if its replica falls silent and the kubelets take 45 s to notice.
fn gaps_around_a_black_hole(heirs: bool) -> Vec<(u64, u64)> {
    const NODES: u64 = 50;
    const SILENT_FROM: u64 = 100_000;
    let mut beats = heartbeats(settings(50));
    let mut estate = Estate::new(99, 50);
    let names: Vec<_> = (0..NODES).map(|node| format!("n{node}")).collect();
    let mut stored: Vec<Vec<u64>> = vec![Vec::new(); names.len()];
    let mut heard = vec![0; names.len()];
    let mut told_of = heard.clone();
    for now in (0..SILENT_FROM).step_by(200) {
        beats.forwarded(at(now), true);
        for (index, name) in names.iter().enumerate() {
            let phase = 200 * u64::try_from(index).expect("a few");
            if now % 10_200 != phase {
                continue;
            }
            heard[index] = now;
            let uid = Uid::from_bits(10 + u128::from(phase));
            let renewal = Renewal {
                uid,
                ..asked(time(now)).renewal
            };
            let owner = Some(Owner {
                name: name.as_bytes(),
                uid: NODE,
            });
            let asked = Asked {
                node: name,
                renewal,
                owner,
                ..ASKED
            };
            if let Decision::Write(write) = beats.decide(at(now), &asked) {
                let _relay = beats.finished(at(now + 20), write, Outcome::Written(2));
                stored[index].push(now);
            }
        }
        if now % 1_000 == 0 {
            told_of.clone_from(&heard);
            let mut told = beats.changes(99).into_iter();
            assert!(told.all(|debt| estate.hear(Peer(1), Heir::First, debt)));
        }
    }
    if heirs {
        estate.died(at(SILENT_FROM), Peer(1));
    }
    for now in (SILENT_FROM + 3_000..SILENT_FROM + 45_000).step_by(20) {
        if let Some(debt) = estate.next(at(now)) {
            let index = names
                .iter()
                .position(|name| **name == *debt.node)
                .expect("known");
            assert!(debt.renew_time <= time(heard[index]), "nothing is made up");
            stored[index].push(now);
        }
    }
    let native = told_of.iter().map(|told_of| SILENT_FROM + 45_000 - told_of);
    let gaps = stored.iter_mut().map(|stored| {
        // The first renewal elsewhere is written at once.
        stored.push(SILENT_FROM + 45_000);
        stored
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(0)
    });
    gaps.zip(native).collect()
}

#[test]
fn a_silent_replica_costs_no_more_than_it_would_without_absorption() {
    // What was absorbed in the second before is lost with the replica: peers have not heard it.
    let bound = |native: u64| native.max(2 * 10_400 + 500);
    let with = gaps_around_a_black_hole(true);
    assert!(
        with.iter().all(|&(gap, native)| gap <= bound(native)),
        "{with:?}"
    );
    let without = gaps_around_a_black_hole(false);
    assert!(
        without.iter().any(|&(gap, native)| gap > bound(native)),
        "the case is a case"
    );
}
