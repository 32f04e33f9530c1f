//! How often a node is written.

use std::time::Duration;

use watershed_heartbeats::{After, Asked, Decision, Encoding, Lease, Outcome, Owner, Settings};

use crate::{NODE, absorbing, asked, at, heartbeats, lease, renew_proven, settings, time, writes};

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

/// Gaps between writes as they arrive, seconds.
struct Gaps {
    mean: f64,
    longest: f64,
    /// The share of those that are longer than 50 s.
    long: f64,
}

/// Of a kubelet whose renewals are lost independently, with latencies of 20 to 500 ms.
fn gaps(flush_millis: u64, lost_percent: f64) -> Gaps {
    let period = Duration::from_millis(flush_millis);
    let mut beats = heartbeats(Settings {
        flush_period: Some(period),
        ..settings(300)
    });
    let mut rng = fastrand::Rng::with_seed(flush_millis);
    let (mut now, mut stored_at, mut gaps) = (0, None, Vec::new());
    for _renewal in 0..30_000 {
        now += rng.u64(10_000..10_400);
        if rng.f64() * 100.0 < lost_percent {
            continue;
        }
        if let Decision::Write(write) = renew_proven(&mut beats, now) {
            let done = now + rng.u64(20..500);
            let _relay = beats.finished(at(done), write, Outcome::Written(2));
            gaps.extend(stored_at.map(|stored_at| Duration::from_millis(done - stored_at)));
            stored_at = Some(done);
        }
    }
    let seconds: Vec<_> = gaps.iter().map(Duration::as_secs_f64).collect();
    let count = f64::from(u32::try_from(seconds.len()).expect("not that many"));
    let long = seconds.iter().filter(|gap| **gap > 50.0).count();
    Gaps {
        mean: seconds.iter().sum::<f64>() / count,
        longest: seconds.iter().copied().fold(0.0, f64::max),
        long: f64::from(u32::try_from(long).expect("not that many")) / count,
    }
}

/// For each flush period: how many renewals share a write, and the share of long gaps if two or ten
/// of a hundred renewals are lost.
const ARITHMETIC: [(u64, f64, f64, f64); 7] = [
    (0, 1.0, 0.0, 4e-5),
    (9_500, 1.0, 0.0, 4e-5),
    (16_000, 2.0, 3e-5, 1e-3),
    (19_500, 2.0, 3e-5, 1e-3),
    (26_000, 3.0, 5e-4, 1e-2),
    (29_500, 3.0, 5e-4, 1e-2),
    (36_000, 4.0, 2e-2, 1e-1),
];

#[test]
fn lost_renewals_cost_what_arithmetic_says() {
    for (flush, renewals, at_two, at_ten) in ARITHMETIC {
        let none = gaps(flush, 0.0);
        assert!(
            (none.mean - 10.2 * renewals).abs() < 0.05,
            "{flush}: {}",
            none.mean
        );
        let longest = 10.4 * renewals + 0.5;
        assert!(none.longest <= longest, "{flush}: {}", none.longest);
        let (two, ten) = (gaps(flush, 2.0), gaps(flush, 10.0));
        // Within noise: a handful of gaps in tens of thousands.
        let noise = 1.5e-4;
        assert!(two.long <= at_two * 3.0 + noise, "{flush}: {}", two.long);
        assert!(ten.long <= at_ten * 3.0 + noise, "{flush}: {}", ten.long);
        assert!(ten.long >= at_ten / 3.0 - noise, "{flush}: {}", ten.long);
    }
}

#[test]
fn of_a_thousand_renewals_at_the_usual_grace_period_five_hundred_are_written() {
    let mut beats = heartbeats(settings(50));
    let mut rng = fastrand::Rng::with_seed(4);
    let (mut now, mut written, mut stored_at) = (0, 0, None);
    for _renewal in 0..1_000 {
        now += rng.u64(10_000..10_400);
        if let Decision::Write(write) = renew_proven(&mut beats, now) {
            let done = now + rng.u64(20..500);
            let _relay = beats.finished(at(done), write, Outcome::Written(2));
            let gap = done - stored_at.unwrap_or(done);
            assert!(gap <= 21_500, "{gap}");
            (written, stored_at) = (written + 1, Some(done));
        }
    }
    assert_eq!(written, 500);
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
fn a_replica_that_just_started_writes_the_first_renewal_of_each_node_as_they_come() {
    let mut beats = heartbeats(settings(300));
    let mut rng = fastrand::Rng::with_seed(26);
    let mut phases: Vec<_> = (0..1_000).map(|_| rng.u64(0..10_200)).collect();
    phases.sort_unstable();
    let mut in_second = [0; 11];
    for (node, &now) in phases.iter().enumerate() {
        beats.forwarded(at(now), true);
        let name = format!("n{node}");
        let owner = Some(Owner {
            name: name.as_bytes(),
            uid: NODE,
        });
        let asked = Asked {
            node: &name,
            owner,
            ..asked(time(now))
        };
        match beats.decide(at(now), &asked) {
            Decision::Write(write) => {
                let _relay = beats.finished(at(now), write, Outcome::Written(2));
                in_second[usize::try_from(now / 1_000).expect("a few")] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    // As evenly as kubelets renew, with nothing saved up.
    assert!(
        in_second[..10]
            .iter()
            .all(|writes| (60..140).contains(writes)),
        "{in_second:?}"
    );
}
