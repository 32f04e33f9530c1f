//! Seeded histories against a naive model.
//!
//! A seed decides everything: writes, cuts, compactions, lagging and failing upstreams, clients
//! that are slow, leave and return. After every step these laws are checked: a watch that was read
//! dry equals the list at its version, as does every bookmark and every list; versions never go
//! back; nothing is delivered twice or skipped; memory stays within the limits.
//! `WATERSHED_SIM_SEED=n` replays one seed.

mod client;
mod model;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use watershed_cache::encoding::Encoding;
use watershed_cache::{
    CacheError, FieldSet, Options, Reflector, ReflectorOptions, Resource, ResourceVersion,
    Snapshot, WatchCache,
};

use client::{Client, WANTED};
use model::{Apiserver, Faults, Upstream, View};

const SEEDS: u64 = 200;
const STEPS: usize = 120;
const HISTORY_BYTES: usize = 40_000;
const OBJECTS_BYTES: usize = 200_000;

/// What the readers of a step may build beyond the history.
const BATCH_BYTES: usize = 30_000;

/// A consistent read under way, and the newest version when it was asked.
type Reading = (u64, JoinHandle<Result<Snapshot, CacheError>>);

struct Sim {
    rng: fastrand::Rng,
    model: Arc<Mutex<Apiserver>>,
    cache: WatchCache,
    clients: Vec<Client>,
    readings: Vec<Reading>,
    /// The newest version ever seen in the cache.
    own: u64,
    proven: usize,
    /// The newest snapshot that was proven fresh; its version may be ahead of the cache.
    last_proven: Option<Snapshot>,
}

#[test]
fn histories_of_every_seed_obey_the_laws() {
    let seed = std::env::var("WATERSHED_SIM_SEED")
        .ok()
        .map(|seed| seed.parse().expect("a number"));
    let seeds = seed.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let all = seeds.end - seeds.start > 1;
    let (mut proven, mut relists, mut cuts, mut expired) = (0, 0, 0, 0);
    for seed in seeds {
        let stats = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
            eprintln!("replay with WATERSHED_SIM_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
        proven += stats.0;
        relists += stats.1.relists;
        cuts += stats.1.cuts;
        expired += stats.1.expired_watchers;
    }
    // The histories are worth nothing if they do not get into the corners.
    assert!(
        !all || (proven > 100 && relists > SEEDS + 100 && cuts > 100 && expired > 10),
        "proven {proven}, relists {relists}, cuts {cuts}, expired {expired}"
    );
}

fn run(seed: u64) -> (usize, watershed_cache::Stats) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let mut rng = fastrand::Rng::with_seed(seed);
        let model = Arc::new(Mutex::new(Apiserver::new(rng.fork())));
        let options = Options {
            objects_bytes: OBJECTS_BYTES,
            history_bytes: HISTORY_BYTES,
            ..Options::default()
        };
        let (writer, cache) = WatchCache::new(pods(), Encoding::Json, options);
        let upstream = Upstream(Arc::clone(&model));
        let options = ReflectorOptions {
            seed: Some(seed),
            page_size: 4,
            ..ReflectorOptions::default()
        };
        let reflector = tokio::spawn(Reflector::run(
            writer,
            upstream,
            options,
            std::future::pending(),
        ));
        let clients = (0..12)
            .map(|n| Client::new(WANTED[n % WANTED.len()]))
            .collect();
        let mut sim = Sim {
            rng,
            model,
            cache,
            clients,
            readings: Vec::new(),
            own: 0,
            proven: 0,
            last_proven: None,
        };
        for _ in 0..STEPS {
            sim.step();
            sim.settle().await;
            sim.check().await;
        }
        sim.end_well().await;
        assert!(!reflector.is_finished(), "the reflector lives");
        reflector.abort();
        (sim.proven, sim.cache.stats())
    })
}

fn pods() -> Arc<Resource> {
    Arc::new(Resource {
        group: "".into(),
        version: "v1".into(),
        resource: "pods".into(),
        kind: "Pod".into(),
        namespaced: true,
        custom: false,
        fields: FieldSet::builtin("", "v1", "pods").expect("pods are built in"),
    })
}

impl Sim {
    fn step(&mut self) {
        let mut model = self.model.lock();
        let client = self.rng.usize(..self.clients.len());
        match self.rng.u8(..24) {
            0..=5 => model.write(),
            6 => (0..self.rng.u8(..60)).for_each(|_| model.write()),
            7 => model.write_elsewhere(),
            8 => model.cut(),
            9 => model.compact(),
            10 => {
                model.faults = Faults {
                    no_watch_list: self.rng.bool(),
                    down: self.rng.u8(..4) == 0,
                    lagging: self.rng.u8(..4) == 0,
                };
            }
            11 => {
                model.compact();
                model.cut();
            }
            12..=14 => model.pump(true),
            15..=17 => model.pump(false),
            18..=20 => {
                let lasts = Duration::from_secs(self.rng.u64(1..200));
                let afresh = match self.rng.u8(..4) {
                    0 => self.last_proven.clone(),
                    1 => self.cache.snapshot().ok(),
                    _ => None,
                };
                self.clients[client].reopen(&self.cache, lasts, afresh);
            }
            21 => self.clients[client].close(),
            22 => {
                self.clients[client].read(1, &model);
            }
            _ => {
                let cache = self.cache.clone();
                let patience = Duration::from_secs(3);
                let reading = tokio::spawn(async move { cache.consistent(patience).await });
                self.readings.push((model.version, reading));
            }
        }
    }

    /// Lets tasks run; now and then lets time pass.
    async fn settle(&mut self) {
        for _ in 0..self.rng.usize(..20) {
            tokio::task::yield_now().await;
        }
        match self.rng.u8(..8) {
            0 => tokio::time::sleep(Duration::from_secs(self.rng.u64(1..20))).await,
            1 | 2 => tokio::time::sleep(Duration::from_millis(self.rng.u64(1..1500))).await,
            _ => {}
        }
    }

    async fn check(&mut self) {
        let stats = self.cache.stats();
        assert!(stats.bytes <= OBJECTS_BYTES);
        assert!(
            stats.history_bytes <= HISTORY_BYTES + BATCH_BYTES,
            "{}",
            stats.history_bytes
        );
        let own = stats.resource_version.get();
        assert!(own >= self.own, "versions never go back");
        self.own = own;
        let mut ended = Vec::new();
        let (done, waiting) = self
            .readings
            .drain(..)
            .partition(|(_, reading)| reading.is_finished());
        self.readings = waiting;
        for (asked_at, reading) in done {
            ended.push((asked_at, reading.await.expect("reads do not panic")));
        }
        let model = self.model.lock();
        for (asked_at, result) in ended {
            let Ok(snapshot) = result else { continue };
            let version = snapshot.resource_version().get();
            assert!(version >= asked_at, "{version} does not prove {asked_at}");
            assert_eq!(
                self.listed(&snapshot, 0),
                model.view(version, |_| true),
                "proven at {version}"
            );
            self.proven += 1;
            self.last_proven = Some(snapshot);
        }
        let wanted = self.rng.usize(..WANTED.len());
        if let Ok(snapshot) = self.cache.snapshot() {
            let version = snapshot.resource_version().get();
            let expected = model.view(version, |pod| WANTED[wanted].selects(pod));
            assert_eq!(
                self.listed(&snapshot, wanted),
                expected,
                "list at {version}"
            );
        }
        let past = own.saturating_sub(self.rng.u64(..30));
        if let Ok(snapshot) = self.cache.snapshot_at(ResourceVersion::new(past)) {
            assert_eq!(
                self.listed(&snapshot, 0),
                model.view(past, |_| true),
                "rebuilt at {past}"
            );
        }
        let client = self.rng.usize(..self.clients.len());
        let client = &mut self.clients[client];
        if client.read(usize::MAX, &model) && client.is_open() && client.version() <= own {
            assert!(
                client.is_up_to_date(own, &model),
                "a dry watch equals the list"
            );
        }
    }

    fn listed(&self, snapshot: &Snapshot, wanted: usize) -> View {
        let selection = WANTED[wanted].selection(&self.cache);
        let entry = |object: &Arc<watershed_cache::Object>| {
            (object.key().to_owned(), object.resource_version().get())
        };
        snapshot.iter(&selection).map(entry).collect()
    }

    /// Once everything works, everyone ends up with the newest state.
    async fn end_well(&mut self) {
        self.model.lock().faults = Faults::default();
        let newest = self.model.lock().version;
        for _ in 0..600 {
            self.model.lock().pump(true);
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.cache.resource_version().get() >= newest {
                break;
            }
        }
        assert_eq!(
            self.cache.resource_version().get(),
            newest,
            "the reflector catches up"
        );
        let model = self.model.lock();
        for client in &mut self.clients {
            while !client.is_open() || !client.is_up_to_date(newest, &model) {
                let was = (client.is_open(), client.version());
                client.reopen(&self.cache, Duration::from_secs(60), None);
                client.read(usize::MAX, &model);
                assert_ne!(
                    was,
                    (client.is_open(), client.version()),
                    "every read brings it on"
                );
            }
        }
    }
}
