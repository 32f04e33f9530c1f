//! When the upstream, a watch or a client is in trouble.

use std::collections::BTreeMap;

use watershed_heartbeats::{
    After, Asked, Bounds, Decision, Heartbeats, Honesty, Limits, Outcome, Owner, Reason, Turn,
    Write,
};

use crate::{
    NODE, absorbing, asked, at, heartbeats, limited, renew, renew_proven, settings, time, writes,
};

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
    let mut now = 1_000;
    while beats.writes().2 < 40 {
        now += 10;
        let write = writes(&mut beats, now);
        let _relay = beats.finished(at(now), write, Outcome::Written(2));
        beats.deleted("n1");
    }
    now += 10;
    let write = writes(&mut beats, now);
    beats.gone(at(now + 500), write);
    assert_eq!(beats.writes().2, 40, "that may have been anything");
    let write = writes(&mut beats, now + 1_000);
    beats.gone(at(now + 10_000), write);
    assert_eq!(beats.writes().2, 20);
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

/// How long each of some nodes is not written at most, if a write takes five seconds.
fn longest_gaps_when_slow(nodes: u64) -> Vec<u64> {
    const LATENCY: u64 = 5_000;
    let mut beats = heartbeats(settings(50));
    let names: Vec<_> = (0..nodes).map(|node| format!("n{node}")).collect();
    let mut next: Vec<_> = (0..nodes).map(|node| node * 10_200 / nodes).collect();
    let mut gaps = vec![(0, 0); names.len()]; // the last write, the longest gap
    let (mut flights, mut parked) = (Vec::new(), BTreeMap::new());
    for now in (0..400_000).step_by(20) {
        let arrived: Vec<_> = flights.extract_if(.., |(done, _)| *done <= now).collect();
        for (done, write) in arrived {
            let write: Write = write;
            let index: usize = write.node()[1..].parse().expect("a number");
            let (last, longest) = gaps[index];
            gaps[index] = (done, longest.max(done - last));
            next[index] = now + 10_200;
            let _relay = beats.finished(at(now), write, Outcome::Written(2));
        }
        while let Some((ticket, turn)) = beats.next(at(now)) {
            let index = parked.remove(&ticket).expect("it waits");
            match turn {
                Turn::Write(write) => flights.push((now + LATENCY, write)),
                Turn::Absorb => next[index] = now + 10_200,
                // The kubelet tries again.
                Turn::Shed | Turn::Forward => next[index] = now + 1_000,
            }
        }
        for (index, name) in names.iter().enumerate() {
            if next[index] > now {
                continue;
            }
            let owner = Some(Owner {
                name: name.as_bytes(),
                uid: NODE,
            });
            let asked = Asked {
                node: name,
                owner,
                ..asked(time(now + 1))
            };
            next[index] = u64::MAX;
            match beats.decide(at(now), &asked) {
                Decision::Absorb => next[index] = now + 10_200,
                Decision::Write(write) => flights.push((now + LATENCY, write)),
                Decision::Wait(ticket) => drop(parked.insert(ticket, index)),
                Decision::Shed | Decision::Forward(_) => next[index] = now + 1_000,
            }
        }
    }
    gaps.into_iter()
        .map(|(last, longest)| longest.max(400_000 - last))
        .collect()
}

#[test]
fn writes_of_five_seconds_keep_a_hundred_nodes_alive() {
    let gaps = longest_gaps_when_slow(100);
    assert!(gaps.iter().all(|gap| *gap <= 50_000), "{gaps:?}");
}
