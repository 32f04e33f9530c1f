//! Cases of a node's status: one kubelet that renews its lease and says that it is alive, and the
//! store that hears of it now and then. Numbers are those of the requirements' list of cases.

use std::time::Duration;

use watershed_heartbeats::{
    Asked, AskedStatus, Bounds, Decision, Encoding, Heartbeats, Limits, MicroTime, Moment,
    NodeStatus, Outcome, Owner, Renewal, Settings, StatusDecision, StatusHeartbeat, StatusRenewal,
    StatusTimes, Uid, fold,
};

const PERIOD: Duration = Duration::from_secs(1800);
/// When the tests begin, by the kubelet's clock.
const START: u64 = 1_714_978_800;

struct World {
    beats: Heartbeats,
    now: u64,
    /// What the kubelet's clock is ahead of the tests'.
    skew: i64,
    /// The Node in the store and in the cache.
    node: String,
    version: u32,
    written: u32,
    answer: Option<String>,
}

impl World {
    fn new() -> Self {
        let settings = Settings {
            grace_period: Duration::from_secs(50),
            tolerated_losses: 2,
            latency_spread: Duration::from_secs(3),
            flush_period: None,
            peers: true,
        };
        let bounds = Bounds::new(settings).expect("they hold");
        let mut world = Self {
            beats: Heartbeats::new(bounds, Limits::default()),
            now: 1,
            skew: 0,
            node: String::new(),
            version: 1,
            written: 0,
            answer: None,
        };
        world.node = node(world.version, world.clock(), "True");
        world.renew();
        world.pass(10);
        world
    }

    fn clock(&self) -> u64 {
        (START + self.now)
            .checked_add_signed(self.skew)
            .expect("a time")
    }

    fn moment(&self) -> Moment {
        Moment::after_start(Duration::from_secs(self.now))
    }

    /// The kubelet renews its lease every ten seconds.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds / 10 {
            self.now += 10;
            self.renew();
        }
    }

    fn renew(&mut self) {
        let uid = Uid::from_bits(1);
        let micros = |seconds: u64| i64::try_from(seconds * 1_000_000).expect("a time");
        let asked = Asked {
            node: "n1",
            connection: 1,
            renewal: Renewal {
                uid,
                resource_version: 1,
                renew_time: MicroTime::from_micros(micros(self.clock())).expect("a time"),
                duration: 40,
            },
            stored: MicroTime::from_micros(micros(START)).expect("a time"),
            owner: Some(Owner { name: b"n1", uid }),
            node_uid: Some(uid),
            fresh: true,
        };
        let now = self.moment();
        if let Decision::Write(write) = self.beats.decide(now, &asked) {
            self.beats.finished(now, write, Outcome::Written(2));
        }
        // Other nodes of this replica are written to all the time.
        self.beats.forwarded(now, true);
    }

    /// The kubelet says that nothing changed.
    fn say(&mut self) -> StatusDecision {
        let patch = heartbeat(&time(self.clock()));
        let heartbeat = StatusHeartbeat::read(patch.as_bytes()).expect("it is one");
        let stored = self.node.clone();
        let cached = NodeStatus::read(Encoding::Json, stored.as_bytes()).expect("a Node");
        let decision = cached.compare(&heartbeat).map(|renewal| {
            let asked = AskedStatus {
                node: "n1",
                renewal,
                period: PERIOD,
                fresh: true,
            };
            let decision = self.beats.decide_status(self.moment(), &asked);
            (decision, cached.renewed(renewal.times).expect("as long"))
        });
        match decision {
            Some((StatusDecision::Absorb, answer)) => {
                self.answer = Some(String::from_utf8(answer).expect("text"));
                StatusDecision::Absorb
            }
            other => {
                let (before, after) = (self.node.clone(), time(self.clock()));
                self.version += 1;
                self.written += 1;
                let status = if before.contains("Unknown") {
                    "Unknown"
                } else {
                    "True"
                };
                self.node = node(self.version, self.clock(), status);
                assert!(self.node.contains(&after));
                other.map_or(StatusDecision::Forward, |(decision, _)| decision)
            }
        }
    }
}

fn time(seconds: u64) -> String {
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // Tests stay within a day or so.
    let day = 6 + (seconds / 86_400 - START / 86_400);
    format!("2024-05-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// As kube-apiserver 1.36 writes it.
fn node(version: u32, heartbeat: u64, ready: &str) -> String {
    let time = time(heartbeat);
    let condition = |kind: &str, status: &str| {
        format!(
            r#"{{"type":"{kind}","status":"{status}","lastHeartbeatTime":"{time}","lastTransitionTime":"2024-05-01T00:00:00Z","reason":"r","message":"m"}}"#
        )
    };
    let conditions = [
        condition("MemoryPressure", "False"),
        condition("DiskPressure", "False"),
        condition("PIDPressure", "False"),
        condition("Ready", ready),
    ]
    .join(",");
    format!(
        r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"n1","uid":"cfd131fb-cefd-42bc-bb35-eadbd338477a","resourceVersion":"{version}"}},"spec":{{}},"status":{{"capacity":{{"cpu":"4"}},"conditions":[{conditions}],"volumesInUse":["kubernetes.io/csi/x^1"]}}}}"#
    )
}

/// As a kubelet 1.36 writes it.
fn heartbeat(time: &str) -> String {
    let kinds = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    let order = kinds
        .map(|kind| format!(r#"{{"type":"{kind}"}}"#))
        .join(",");
    let conditions = kinds
        .map(|kind| format!(r#"{{"lastHeartbeatTime":"{time}","type":"{kind}"}}"#))
        .join(",");
    format!(
        r#"{{"status":{{"$setElementOrder/conditions":[{order}],"conditions":[{conditions}]}}}}"#
    )
}

#[test]
fn case_49_a_heartbeat_is_absorbed_and_after_the_period_one_is_written() {
    let mut world = World::new();
    for minutes in (5..30).step_by(5) {
        world.pass(300);
        assert_eq!(
            world.say(),
            StatusDecision::Absorb,
            "after {minutes} minutes"
        );
        let answer = world.answer.take().unwrap();
        assert!(answer.contains(r#""resourceVersion":"1""#), "{answer}");
        assert!(answer.contains(r#""volumesInUse":["kubernetes.io/csi/x^1"]"#));
        assert_eq!(answer, node(1, world.clock(), "True"));
    }
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::WriteThrough);
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::Absorb);
    assert_eq!(world.written, 1);
}

#[test]
fn case_50_a_real_patch_takes_along_what_was_absorbed() {
    let mut world = World::new();
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::Absorb);
    let absorbed = time(world.clock());
    let real = r#"{"status":{"$setElementOrder/conditions":[{"type":"MemoryPressure"},{"type":"DiskPressure"},{"type":"PIDPressure"},{"type":"Ready"}],"conditions":[{"lastHeartbeatTime":"2024-05-06T09:09:09Z","message":"changed","type":"Ready"}]}}"#;
    assert_eq!(StatusHeartbeat::read(real.as_bytes()), None);
    let times = world.beats.absorbed_status("n1").unwrap();
    let cached = NodeStatus::read(Encoding::Json, world.node.as_bytes()).unwrap();
    let folded = fold(real.as_bytes(), times, cached.times()).unwrap();
    let kinds = ["MemoryPressure", "DiskPressure", "PIDPressure"];
    let added = kinds
        .map(|kind| format!(r#"{{"lastHeartbeatTime":"{absorbed}","type":"{kind}"}},"#))
        .concat();
    let expected = real.replace(r#""conditions":["#, &format!(r#""conditions":[{added}"#));
    assert_eq!(String::from_utf8(folded).unwrap(), expected);
}

#[test]
fn case_51_what_the_controller_took_for_dead_is_not_answered_for() {
    let mut world = World::new();
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::Absorb);
    world.node = node(2, world.clock() - 300, "Unknown");
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::Forward);
    let real = heartbeat(&time(world.clock()));
    let real = real.replace(
        r#""type":"Ready"}]}}"#,
        r#""status":"True","type":"Ready"}]}}"#,
    );
    assert_eq!(StatusHeartbeat::read(real.as_bytes()), None);
    // The controller's word came from the store, the kubelet's goes there.
    world.node = node(3, world.clock(), "True");
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::Absorb);
}

#[test]
fn case_54_a_kubelet_that_says_it_every_ten_seconds_is_written_once_a_period() {
    let mut world = World::new();
    for _ in 0..3 * 360 {
        world.pass(10);
        assert_ne!(world.say(), StatusDecision::Forward);
    }
    assert_eq!(world.written, 3 * 3600 / 1800);
}

#[test]
fn case_16_while_the_clock_was_put_back_every_heartbeat_is_forwarded() {
    let mut world = World::new();
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::Absorb);
    world.skew = -60;
    world.pass(10);
    assert_eq!(world.say(), StatusDecision::Forward);
    world.pass(40);
    assert_eq!(world.say(), StatusDecision::Forward);
    // By now it says more than it ever did.
    world.pass(20);
    assert_eq!(world.say(), StatusDecision::Absorb);
}

#[test]
fn a_node_whose_lease_is_not_renewed_has_nothing_else_to_go_by() {
    let mut world = World::new();
    world.now += 41;
    world.beats.forwarded(world.moment(), true);
    assert_eq!(world.say(), StatusDecision::Forward);
    world.beats.deleted("n1");
    world.now += 1;
    assert_eq!(world.say(), StatusDecision::Forward);
}

#[test]
fn nothing_is_absorbed_without_a_proof_that_writes_arrive() {
    let mut world = World::new();
    world.now += 5;
    assert_eq!(world.say(), StatusDecision::Forward);
    world.beats.forwarded(world.moment(), true);
    world.now += 1;
    assert_eq!(world.say(), StatusDecision::Absorb);
    world.beats.drain();
    world.now += 1;
    assert_eq!(world.say(), StatusDecision::Forward);
}

#[test]
fn a_replica_that_has_just_begun_does_not_write_what_another_has_written() {
    let mut world = World::new();
    world.pass(1_200);
    let mut other = World::new();
    (other.now, other.node) = (world.now, world.node);
    other.renew();
    other.pass(300);
    assert_eq!(other.say(), StatusDecision::Absorb);
    other.pass(300);
    assert_eq!(other.say(), StatusDecision::WriteThrough);
}

#[test]
fn an_answer_never_says_less_than_one_before() {
    let mut world = World::new();
    world.pass(300);
    assert_eq!(world.say(), StatusDecision::Absorb);
    // The same again, and one that overtook it.
    assert_eq!(world.say(), StatusDecision::Forward);
    let times = |seconds: i64| StatusTimes::from_seconds([seconds; 4]);
    let renewal = StatusRenewal {
        times: times(i64::try_from(world.clock()).unwrap() - 1),
        stored: times(i64::try_from(world.clock()).unwrap() - 300),
    };
    let asked = AskedStatus {
        node: "n1",
        renewal,
        period: PERIOD,
        fresh: true,
    };
    let decision = world.beats.decide_status(world.moment(), &asked);
    assert_eq!(decision, StatusDecision::Forward);
    let stale = AskedStatus {
        renewal: StatusRenewal {
            times: times(i64::try_from(world.clock()).unwrap() + 1),
            ..renewal
        },
        ..asked
    };
    let now = world.moment();
    let mut decide = |asked| world.beats.decide_status(now, &asked);
    assert_eq!(
        decide(AskedStatus {
            fresh: false,
            ..stale
        }),
        StatusDecision::Forward
    );
    assert_eq!(
        decide(AskedStatus {
            period: Duration::ZERO,
            ..stale
        }),
        StatusDecision::WriteThrough
    );
    assert_eq!(decide(stale), StatusDecision::Absorb);
}
