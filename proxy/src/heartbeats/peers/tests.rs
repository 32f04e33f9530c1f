//! Replicas of one process, over loopback: what one owes is paid, whatever becomes of it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::watch, time::sleep};
use tokio_rustls::TlsConnector;
use watershed_heartbeats::{
    Asked, Bounds, Decision, Heartbeats, MicroTime, Moment, Outcome, Owner, Reason, Renewal,
    Settings, Uid,
};

use super::{
    frame::{Frame, Frames},
    link::SILENCE,
    *,
};
use crate::tls::tests::{Folder, Issued, TestCa};

const NAME: &str = "peers.test";
/// What the slowest machine needs.
const PATIENCE: Duration = Duration::from_secs(30);
const NODES: u32 = 40;

/// A store, and all who watch it.
#[derive(Clone, Default)]
struct Shelf {
    paid: Arc<Mutex<Vec<String>>>,
    watching: Arc<Mutex<Vec<Arc<Ledger>>>>,
    broken: Arc<AtomicBool>,
}

impl Store for Shelf {
    async fn pay(&self, debt: &Debt) -> Paid {
        if self.broken.load(Ordering::Relaxed) {
            return Paid::Failed;
        }
        self.paid.lock().push(debt.node.to_string());
        for ledger in self.watching.lock().iter() {
            ledger.estate().stored(debt.uid, debt.renew_time);
        }
        Paid::Written
    }
}

impl Shelf {
    /// Waits until so many were paid, and which.
    async fn paid(&self, count: u32) -> Vec<String> {
        let count = usize::try_from(count).unwrap();
        until("payments", || self.paid.lock().len() >= count).await;
        let mut paid = self.paid.lock().clone();
        paid.sort();
        paid
    }
}

/// What replicas have in common.
struct Fleet {
    ca: TestCa,
    store: Shelf,
}

struct Replica {
    ledger: Arc<Ledger>,
    drain: Drain,
    metrics: PeerMetrics,
    places: watch::Sender<Vec<String>>,
    place: String,
    shared: Arc<Shared>,
    _files: Folder,
}

impl Fleet {
    fn new() -> Self {
        Self {
            ca: TestCa::new("ca"),
            store: Shelf::default(),
        }
    }

    async fn replica(&self, nodes: u32) -> Replica {
        self.replica_at("127.0.0.1:0", nodes).await
    }

    async fn replica_at(&self, listen: &str, nodes: u32) -> Replica {
        let settings = Settings {
            grace_period: Duration::from_secs(600),
            tolerated_losses: 2,
            latency_spread: Duration::from_secs(3),
            flush_period: None,
            peers: true,
        };
        let files = Folder::new();
        let Issued { certificate, key } = self.ca.replica(NAME);
        let listener = TcpListener::bind(listen).await.unwrap();
        let place = listener.local_addr().unwrap();
        let settings_of_peers = config::Peers {
            listen: place,
            replicas: config::Replicas::Servers(Vec::new()),
            server_name: NAME.to_owned(),
            cert_file: files.write("tls.crt", &certificate),
            key_file: files.write("tls.key", &key),
            ca_file: files.write("ca.crt", &self.ca.pem()),
        };
        let ledger = Arc::new(Ledger::new(Bounds::new(settings).unwrap(), nodes));
        self.store.watching.lock().push(Arc::clone(&ledger));
        let (drain, metrics) = (Drain::new(), PeerMetrics::default());
        let own = (drain.clone(), metrics.clone());
        let peers = Peers::new(&settings_of_peers, listener, Arc::clone(&ledger), own);
        let mut peers = peers.unwrap();
        let (places, scripted) = watch::channel(Vec::new());
        peers.places = Places::Scripted(scripted);
        let shared = Arc::clone(&peers.shared);
        let (all, _registry) = Metrics::new();
        peers.run(self.store.clone(), Duration::from_secs(60), &all);
        Replica {
            ledger,
            drain,
            metrics,
            places,
            place: place.to_string(),
            shared,
            _files: files,
        }
    }

    /// So many, all of which hear each other.
    async fn replicas(&self, count: usize) -> Vec<Replica> {
        let mut replicas = Vec::new();
        for _replica in 0..count {
            replicas.push(self.replica(NODES).await);
        }
        introduce(&replicas);
        for replica in &replicas {
            replica.has(count - 1).await;
        }
        replicas
    }
}

fn introduce(replicas: &[Replica]) {
    let places: Vec<_> = replicas.iter().map(|it| it.place.clone()).collect();
    for replica in replicas {
        replica.places.send_replace(places.clone());
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = timeout(PATIENCE, waiting).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}

fn time(second: i64) -> MicroTime {
    MicroTime::from_micros(second * 1_000_000).unwrap()
}

/// Decides about a renewal of the kubelet, as if it came `later` than now.
fn renew(table: &mut Heartbeats, now: Moment, node: u32, later: u64) -> Decision {
    let name = format!("n{node}");
    let owner = Uid::from_bits(1);
    table.decide(
        now + Duration::from_secs(later),
        &Asked {
            node: &name,
            connection: 1,
            renewal: Renewal {
                uid: Uid::from_bits(1_000 + u128::from(node)),
                resource_version: 1,
                renew_time: time(100 + i64::try_from(later).unwrap()),
                duration: 40,
            },
            stored: time(50),
            owner: Some(Owner {
                name: name.as_bytes(),
                uid: owner,
            }),
            node_uid: Some(owner),
            fresh: true,
        },
    )
}

impl Replica {
    /// Writes a renewal of each node, and answers a later one without writing it.
    fn absorb(&self, nodes: std::ops::Range<u32>) {
        self.ledger.with(|now, table| {
            for node in nodes {
                let Decision::Write(write) = renew(table, now, node, 0) else {
                    panic!("the first is written");
                };
                let _relay = table.finished(now, write, Outcome::Written(2));
                table.forwarded(now + Duration::from_secs(10), true);
                assert_eq!(renew(table, now, node, 10), Decision::Absorb);
            }
        });
    }

    /// Waits until so many peers hear of what is not written here.
    async fn has(&self, peers: usize) {
        let peers = i64::try_from(peers).unwrap();
        until("peers", || self.metrics.alive.get() == peers).await;
    }

    fn held(&self) -> usize {
        self.ledger.estate().len().0
    }

    /// As by `kill -9`: sockets are closed, nothing is said.
    async fn kill(self) -> String {
        self.drain.cut().cancel();
        until("tasks", || self.drain.tasks() == (0, 0)).await;
        self.place
    }
}

fn names(nodes: std::ops::Range<u32>) -> Vec<String> {
    nodes
        .map(|node| format!("n{node}"))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[tokio::test]
async fn what_a_killed_replica_owed_is_paid_once_by_its_heirs() {
    let fleet = Fleet::new();
    let mut replicas = fleet.replicas(4).await;
    replicas[0].absorb(0..NODES);
    let held = || replicas.iter().map(Replica::held).sum::<usize>();
    until("two heirs each", || held() == 2 * NODES as usize).await;
    let killed = Instant::now();
    replicas.remove(0).kill().await;
    assert_eq!(fleet.store.paid(NODES).await, names(0..NODES));
    assert!(killed.elapsed() >= SILENCE, "it might have come back");
    // Nobody holds anything any more, so nobody pays again.
    until("nothing held", || replicas.iter().all(|it| it.held() == 0)).await;
    assert_eq!(replicas[0].metrics.alive.get(), 2);
}

#[tokio::test]
async fn a_second_heir_pays_what_the_first_cannot() {
    let fleet = Fleet::new();
    let mut replicas = fleet.replicas(3).await;
    replicas[0].absorb(0..NODES);
    until("told", || replicas[2].held() == NODES as usize).await;
    let (first, second) = (replicas.remove(0), replicas.remove(0));
    tokio::join!(first.kill(), second.kill());
    assert_eq!(fleet.store.paid(NODES).await, names(0..NODES));
}

#[tokio::test]
async fn a_replica_that_is_drained_hands_over_what_it_owes() {
    let fleet = Fleet::new();
    let replicas = fleet.replicas(3).await;
    // Too late to be told of it before it leaves.
    replicas[0].absorb(0..NODES);
    replicas[0].drain.run(Duration::from_secs(5)).await;
    // None of the kubelets comes back.
    assert_eq!(fleet.store.paid(NODES).await, names(0..NODES));
    let decision = replicas[0]
        .ledger
        .with(|now, table| renew(table, now, 0, 20));
    assert_eq!(decision, Decision::Forward(Reason::Draining));
    for replica in &replicas[1..] {
        replica.has(1).await;
    }
}

#[tokio::test]
async fn a_replica_that_comes_back_is_another_and_its_old_debts_are_paid() {
    let fleet = Fleet::new();
    let mut replicas = fleet.replicas(2).await;
    replicas[0].absorb(0..NODES);
    until("told", || replicas[1].held() == NODES as usize).await;
    let place = replicas.remove(0).kill().await;
    replicas[0].has(0).await;
    let back = fleet.replica_at(&place, NODES).await;
    back.places.send_replace(vec![replicas[0].place.clone()]);
    replicas[0].has(1).await;
    back.has(1).await;
    assert_eq!(fleet.store.paid(NODES).await, names(0..NODES));
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_gone() {
    let fleet = Fleet::new();
    let replica = fleet.replica(NODES).await;
    // Speaks as a replica does, and then no more; the connection stays.
    let socket = TcpStream::connect(&replica.place).await.unwrap();
    let client = Arc::clone(&replica.shared.tls.load_current().client);
    let name = replica.shared.name.clone();
    let connected = TlsConnector::from(client).connect(name, socket).await;
    let (reader, mut writer) = tokio::io::split(connected.unwrap());
    let owed = Debt {
        node: "n1".into(),
        uid: Uid::from_bits(7),
        renew_time: time(9),
        written: time(1),
        heard_at: Moment::START,
    };
    let told = vec![Told::of(Heir::First, owed, Moment::START)];
    for frame in [Frame::Hello(Instance::new()), Frame::Debts(told)] {
        writer.write_all(&frame.to_bytes()).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(fleet.store.paid(1).await, ["n1"]);
    // It was told all the while that somebody listens, and then no more.
    let mut frames = Frames::new(reader);
    let mut heard = Vec::new();
    while let Ok(Some(frame)) = frames.next().await {
        heard.push(frame);
    }
    assert!(matches!(heard[0], Frame::Hello(_)));
    assert!(
        heard[1..]
            .iter()
            .all(|it| *it == Frame::Beat { full: false })
    );
    assert!(heard.len() >= 3, "{heard:?}");
}

#[tokio::test]
async fn peers_come_and_go_as_the_name_says() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.replica(NODES).await, fleet.replica(NODES).await);
    one.absorb(0..1);
    // Its own place is no peer.
    one.places.send_replace(vec![one.place.clone()]);
    one.has(0).await;
    // A replica at two addresses is one.
    let port = other.place.rsplit_once(':').unwrap().1;
    let twice = vec![
        one.place.clone(),
        other.place.clone(),
        format!("localhost:{port}"),
    ];
    one.places.send_replace(twice);
    one.has(1).await;
    until("what is owed is told to who comes", || other.held() == 1).await;
    // One that is not named any more stays as long as it is there.
    one.places.send_replace(vec![one.place.clone()]);
    one.absorb(1..2);
    until("told", || other.held() == 2).await;
    assert_eq!(one.metrics.alive.get(), 1);
    other.kill().await;
    one.has(0).await;
}

#[tokio::test]
async fn a_peer_without_room_does_not_count() {
    let fleet = Fleet::new();
    let (one, small) = (fleet.replica(NODES).await, fleet.replica(1).await);
    one.places.send_replace(vec![small.place.clone()]);
    one.has(1).await;
    one.absorb(0..4);
    one.has(0).await;
    let untold = one.ledger.with(|_now, table| table.untold());
    assert_eq!(untold, 4, "they wait for somebody");
}

#[tokio::test]
async fn a_payment_that_fails_is_tried_again() {
    let fleet = Fleet::new();
    let mut replicas = fleet.replicas(2).await;
    fleet.store.broken.store(true, Ordering::Relaxed);
    replicas[0].absorb(0..NODES);
    replicas[0].drain.run(Duration::from_secs(5)).await;
    let heir = replicas.remove(1);
    let failed = crate::metrics::OutcomeLabels { outcome: "failed" };
    until("failures", || {
        heir.metrics.paid.get_or_create(&failed).get() > 0
    })
    .await;
    fleet.store.broken.store(false, Ordering::Relaxed);
    assert_eq!(fleet.store.paid(NODES).await, names(0..NODES));
}
