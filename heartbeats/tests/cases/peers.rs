//! When a replica or a kubelet is gone.

use watershed_heartbeats::{
    Asked, Debt, Decision, Estate, Heartbeats, Heir, Outcome, Owner, Peer, Renewal, Uid,
};

use crate::{
    ASKED, LEASE, NODE, absorbing, asked, at, heartbeats, renew_proven, settings, time, writes,
};

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

#[test]
fn what_a_dead_kubelet_said_last_is_the_last_that_anybody_writes() {
    for dies_at in (12_000..60_000).step_by(700) {
        let mut beats = absorbing(settings(80));
        let mut estate = Estate::new(9, 50);
        let (mut said, mut stored) = (11_000, 1_000);
        let tell = |beats: &mut Heartbeats, estate: &mut Estate| {
            for debt in beats.changes(9) {
                assert!(estate.hear(Peer(1), Heir::First, debt));
            }
        };
        for now in (21_000..dies_at).step_by(10_000) {
            said = now;
            if let Decision::Write(write) = renew_proven(&mut beats, now) {
                let _relay = beats.finished(at(now + 20), write, Outcome::Written(3));
                stored = now;
            }
            tell(&mut beats, &mut estate);
        }
        // It falls silent; an hour later nobody has written anything for it.
        for now in (dies_at..3_600_000).step_by(1_000) {
            assert_eq!(beats.next(at(now)), None);
            tell(&mut beats, &mut estate);
            assert_eq!(estate.next(at(now)), None);
        }
        assert!(beats.owed().all(|debt| debt.renew_time == time(said)));
        // Nor does anybody when its replica dies too, unless that is at once.
        estate.died(at(3_600_000), Peer(1));
        assert_eq!(estate.next(at(3_600_001)), None);
        let report = beats.report(at(3_600_000), "n1").expect("it is known");
        assert_eq!((report.heard, report.written), (time(said), time(stored)));
    }
}
