//! What lease, Node and kubelet say.

use watershed_heartbeats::{
    After, Asked, Decision, Differs, Encoding, Estate, Heir, Lease, Needless, Outcome, Owner, Peer,
    Reason, Renewal, Uid, Unread,
};

use crate::{ASKED, LEASE, NODE, absorbing, asked, at, lease, settings, time, writes};

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
    let report = beats.report(at(96_000), "n1").expect("it is known");
    assert!(report.contested, "people are told");
}

#[test]
fn a_renewal_of_an_older_version_with_equal_content_is_absorbed() {
    let mut beats = absorbing(settings(50));
    // Another replica wrote version 9; the kubelet still has version 2.
    let (cached, body) = (lease(9, 11_000), lease(2, 20_000));
    let cached = Lease::read(Encoding::Json, cached.as_bytes()).expect("a lease");
    beats.lease_seen(at(11_500), "n1", &cached);
    let renewal = cached.compare(body.as_bytes()).expect("a renewal");
    beats.forwarded(at(20_000), true);
    let asked = Asked { renewal, ..ASKED };
    assert_eq!(beats.decide(at(20_000), &asked), Decision::Absorb);
    let answer = cached.renewed(renewal.renew_time);
    assert_eq!(answer, lease(9, 20_000).into_bytes(), "the newest version");
}

#[test]
fn a_body_without_version_or_uid_is_no_renewal() {
    let cached = lease(9, 11_000);
    let cached = Lease::read(Encoding::Json, cached.as_bytes()).expect("a lease");
    for (old, new) in [
        (r#""resourceVersion":"9""#, r#""resourceVersion":"""#),
        (r#","resourceVersion":"9""#, ""),
        (r#""uid":"00000000-0000-0000-0000-000000000001","#, ""),
    ] {
        let body = lease(9, 20_000).replace(old, new);
        let refused = cached.compare(body.as_bytes());
        assert_eq!(refused, Err(Differs::Unread(Unread::Incomplete)), "{new}");
    }
}

#[test]
fn of_a_node_that_was_deleted_nothing_is_left_to_write() {
    let mut beats = absorbing(settings(50));
    let mut estate = Estate::new(9, 50);
    for debt in beats.changes(9) {
        assert!(estate.hear(Peer(1), Heir::First, debt));
    }
    assert_eq!((beats.owed().count(), estate.len().0), (1, 1));
    beats.deleted("n1");
    let gone = Asked {
        node_uid: None,
        ..asked(time(21_000))
    };
    let decision = beats.decide(at(21_000), &gone);
    assert_eq!(decision, Decision::Forward(Reason::OtherNode));
    assert_eq!((beats.owed().count(), beats.changes(9).len()), (0, 0));
    // Garbage collection deletes the lease, then the replica dies.
    estate.forget(LEASE);
    estate.died(at(22_000), Peer(1));
    assert_eq!(estate.next(at(23_000)), None);
}

#[test]
fn a_clock_that_was_an_hour_ahead_is_forwarded_when_it_is_put_right() {
    let mut beats = absorbing(settings(300));
    let hour = 3_600_000;
    beats.forwarded(at(21_000), true);
    let ahead = beats.decide(at(21_000), &asked(time(21_000 + hour)));
    assert_eq!(ahead, Decision::Absorb, "nobody here compares clocks");
    assert!(beats.absorbs_status(at(21_000), "n1"));
    for now in (31_000..21_000 + hour).step_by(10_000) {
        beats.forwarded(at(now), true);
        let right = beats.decide(at(now), &asked(time(now)));
        assert_eq!(right, Decision::Forward(Reason::NotNewer), "{now}");
        assert!(
            !beats.absorbs_status(at(now), "n1"),
            "the status has to speak for it"
        );
    }
    let now = 31_000 + hour;
    beats.forwarded(at(now), true);
    let caught_up = beats.decide(at(now), &asked(time(now)));
    assert!(matches!(caught_up, Decision::Write(_)), "{caught_up:?}");
    assert!(beats.absorbs_status(at(now), "n1"));
}
