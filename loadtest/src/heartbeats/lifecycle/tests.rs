//! The rule in virtual time: passes every five seconds, leases that arrive between them.

use super::*;

const GRACE: Duration = Duration::from_secs(50);
/// `--node-monitor-period`.
const PASS: f64 = 5.0;

fn lease(renew_time: i64) -> Observed {
    Observed {
        heartbeat: Some(1),
        renew_time: Some(renew_time),
    }
}

/// Visits one node in passes that begin at `phase`; `arrivals` are when the store shows a newer
/// time. When it is lost, and how often it was.
fn watch(arrivals: &[f64], phase: f64, end: f64) -> (Option<f64>, u32) {
    let (start, mut lifecycle) = (Instant::now(), Lifecycle::new(GRACE));
    let (mut lost, mut losses, mut at) = (None, 0, phase);
    while at <= end {
        let seen = arrivals.iter().filter(|arrival| **arrival <= at).count();
        let now = start + Duration::from_secs_f64(at);
        match lifecycle.visit(now, "n", lease(seen as i64)) {
            Some(Change::Lost) => (lost, losses) = (lost.or(Some(at)), losses + 1),
            Some(Change::Found) | None => {}
        }
        at += PASS + 0.001;
    }
    (lost, losses)
}

/// Deaths in every phase of renewals that are `interval` apart, of which every n-th is written:
/// from death to loss.
fn delays(interval: f64, n: u32, latency: f64) -> Vec<f64> {
    let flush = interval * f64::from(n);
    let mut delays = Vec::new();
    for death in 0..40 {
        for phase in 0..10 {
            let death = 200.0 + flush * f64::from(death) / 40.0;
            let writes = (0..1000).map(|at| f64::from(at) * flush);
            let arrivals: Vec<_> = writes.take_while(|at| *at <= death).collect();
            let arrivals: Vec<_> = arrivals.iter().map(|at| at + latency).collect();
            let phase = PASS * f64::from(phase) / 10.0;
            let (lost, losses) = watch(&arrivals, phase, death + 100.0);
            assert_eq!(losses, 1);
            delays.push(lost.unwrap() - death);
        }
    }
    delays.sort_by(f64::total_cmp);
    delays
}

#[test]
fn a_death_is_found_within_the_bounds_of_the_native_control_plane() {
    for (n, latency) in [(1, 0.02), (2, 0.02), (2, 0.5), (3, 0.1)] {
        let delays = delays(10.2, n, latency);
        let (least, most) = (delays[0], delays[delays.len() - 1]);
        let grace = GRACE.as_secs_f64();
        assert!(
            least >= latency + grace - 10.2 * f64::from(n),
            "{n}: {least}"
        );
        assert!(most <= latency + grace + 2.0 * (PASS + 0.01), "{n}: {most}");
    }
}

#[test]
fn absorption_costs_margin_and_not_time_of_detection() {
    let (native, absorbed) = (delays(10.2, 1, 0.02), delays(10.2, 2, 0.02));
    let (native, absorbed) = (native.last().unwrap(), absorbed.last().unwrap());
    assert!((native - absorbed).abs() < 0.6, "{native} {absorbed}");
}

#[test]
fn a_gap_up_to_the_grace_period_is_no_loss_in_any_phase_and_a_longer_one_is() {
    for phase in 0..50 {
        let phase = f64::from(phase) / 10.0;
        assert_eq!(watch(&[0.0, 10.0, 59.9, 70.0, 120.0], phase, 125.0).1, 0);
        assert_eq!(watch(&[0.0, 10.0, 70.1], phase, 75.0).1, 1, "{phase}");
    }
}

#[test]
fn only_a_later_time_refreshes() {
    let (start, mut lifecycle) = (Instant::now(), Lifecycle::new(GRACE));
    let mut visit = |at: f64, time| {
        let now = start + Duration::from_secs_f64(at);
        lifecycle.visit(now, "n", lease(time))
    };
    assert_eq!(visit(0.0, 100), None);
    assert_eq!(visit(30.0, 100), None); // equal
    assert_eq!(visit(40.0, 99), None); // a clock that was put back
    assert_eq!(visit(50.0, 100), None); // not after, but at the end of the grace period
    assert_eq!(visit(50.1, 100), Some(Change::Lost));
    assert_eq!(visit(55.0, 101), Some(Change::Found));
}

#[test]
fn a_time_far_off_is_as_good_as_any() {
    let (start, mut lifecycle) = (Instant::now(), Lifecycle::new(GRACE));
    for step in 0..20 {
        let now = start + Duration::from_secs(step * 40);
        let seen = lease(-1_000_000 + step as i64);
        assert_eq!(lifecycle.visit(now, "n", seen), None);
    }
}

#[test]
fn another_status_heartbeat_refreshes_and_the_pass_after_it_once_more() {
    let (start, mut lifecycle) = (Instant::now(), Lifecycle::new(GRACE));
    let seen = |heartbeat| Observed {
        heartbeat: Some(heartbeat),
        renew_time: Some(7),
    };
    let mut visit = |at, heartbeat| {
        let now = start + Duration::from_secs(at);
        lifecycle.visit(now, "n", seen(heartbeat))
    };
    assert_eq!(visit(0, 1), None);
    assert_eq!(visit(45, 0), None); // older, but another one
    assert_eq!(visit(94, 0), None); // the forgotten lease counts as new
    assert_eq!(visit(144, 0), None);
    assert_eq!(visit(145, 0), Some(Change::Lost));
}

#[test]
fn a_node_that_never_said_ready_has_the_longer_grace_of_a_start() {
    let (start, mut lifecycle) = (Instant::now(), Lifecycle::new(GRACE));
    let visit = |lifecycle: &mut Lifecycle, at| {
        lifecycle.visit(start + Duration::from_secs(at), "n", Observed::default())
    };
    assert_eq!(visit(&mut lifecycle, 0), None);
    assert_eq!(visit(&mut lifecycle, 60), None);
    assert_eq!(visit(&mut lifecycle, 61), Some(Change::Lost));
    assert_eq!(lifecycle.lost(), 1);
    lifecycle.forget("n");
    assert_eq!(visit(&mut lifecycle, 62), None);
}
