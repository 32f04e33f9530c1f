//! One run: a world, a cache, its clients, and the steps they take.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use watershed_cache::{
    Dispatcher, Options, Reflector, ReflectorOptions, ReflectorStatus, ResourceVersion, Snapshot,
    WatchCache, Workers,
};

use crate::client::{Cached, Client, Met};
use crate::laws::{Asked, Watchful};
use crate::model::History;
use crate::observer::Told;
use crate::reader::{Pager, position_of};
use crate::thing::Form;
use crate::upstream::{Upstream, World};
use crate::wanted::WANTED;

/// Steps of one run.
pub(crate) const STEPS: usize = 160;

/// Clients of one run.
const CLIENTS: usize = 14;

/// One seed, to be run once.
pub(crate) struct Run {
    seed: u64,
    steps: BTreeSet<usize>,
    log: Option<Arc<Mutex<Vec<String>>>>,
}

/// What a run met, to see that histories get into the corners.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) met: Met,
    pub(crate) proven: u64,
    pub(crate) unproven: u64,
    pub(crate) waited: u64,
    pub(crate) pages: u64,
    pub(crate) exact: u64,
    pub(crate) rebuilt: u64,
    pub(crate) over_budget: u64,
    relists: u64,
    cuts: u64,
    malformed: u64,
    fences: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { met, .. } = other;
        self.met.events += met.events;
        self.met.bookmarks += met.bookmarks;
        self.met.initial += met.initial;
        self.met.replaced += met.replaced;
        self.met.overtaken += met.overtaken;
        self.met.expired += met.expired;
        self.met.slept += met.slept;
        self.met.spared += met.spared;
        self.proven += other.proven;
        self.unproven += other.unproven;
        self.waited += other.waited;
        self.pages += other.pages;
        self.exact += other.exact;
        self.rebuilt += other.rebuilt;
        self.over_budget += other.over_budget;
        self.relists += other.relists;
        self.cuts += other.cuts;
        self.malformed += other.malformed;
        self.fences += other.fences;
    }

    /// Whether the seeds of a test run got everywhere.
    pub(crate) fn is_rich(&self) -> bool {
        let Met {
            events,
            bookmarks,
            initial,
            replaced,
            overtaken,
            expired,
            slept,
            spared,
        } = self.met;
        let of_clients = [
            events, bookmarks, initial, replaced, overtaken, expired, slept, spared,
        ];
        of_clients.iter().all(|&count| count > 20)
            && [
                self.proven,
                self.unproven,
                self.waited,
                self.pages,
                self.rebuilt,
                self.exact,
            ]
            .iter()
            .chain(&[self.relists, self.cuts, self.malformed, self.fences])
            .all(|&count| count > 20)
            && self.over_budget > 0
    }
}

/// What a run consists of while it goes on.
pub(crate) struct Sim {
    pub(crate) rng: fastrand::Rng,
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) limits: Limits,
    pub(crate) cache: WatchCache,
    reflector: JoinHandle<()>,
    /// Who observes the cache.
    pub(crate) told: Arc<Told>,
    /// How many caches there have been.
    pub(crate) life: u64,
    workers: Workers,
    pub(crate) dispatchers: Vec<Dispatcher>,
    pub(crate) clients: Vec<Client>,
    pub(crate) pagers: Vec<Pager>,
    pub(crate) asked: Vec<Asked>,
    /// Snapshots that were proven fresh; their versions may be ahead of the cache.
    pub(crate) proven: Vec<Snapshot>,
    pub(crate) watchful: Watchful,
    pub(crate) tally: Tally,
    log: Option<Arc<Mutex<Vec<String>>>>,
}

/// The limits of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) form: Form,
    note_max: usize,
    pub(crate) objects_bytes: usize,
    pub(crate) history_bytes: usize,
    pub(crate) history_age: Duration,
    /// What the readers of a step may build beyond the history.
    pub(crate) batch_bytes: usize,
    page_size: usize,
    /// Threads that watches live on, besides the writer's.
    workers: usize,
    /// Whether kubelets say that they are alive, and some clients do without.
    pub(crate) has_heartbeats: bool,
    seed: u64,
}

impl Limits {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let form = [Form::Json, Form::Protobuf, Form::Custom][rng.usize(..3)];
        // Big objects fill more than one piece of a stream.
        let note_max = [40, 400, 400, 14_000][rng.usize(..4)];
        let object = note_max + 1_000;
        let generous = rng.u8(..8) > 0;
        Self {
            form,
            note_max,
            objects_bytes: object * if generous { 19 } else { rng.usize(3..9) },
            history_bytes: object * rng.usize(8..60),
            history_age: Duration::from_secs([75, 120, 300][rng.usize(..3)]),
            batch_bytes: (64 << 10) + 30 * object,
            page_size: rng.usize(2..7),
            workers: [0, 2, 3, 4][rng.usize(..4)],
            has_heartbeats: seed.is_multiple_of(3),
            seed,
        }
    }

    fn open(
        &self,
        world: &Arc<Mutex<World>>,
        workers: &Workers,
    ) -> (WatchCache, JoinHandle<()>, Arc<Told>) {
        let told = Arc::<Told>::default();
        let options = Options {
            observer: Some(Arc::clone(&told) as _),
            objects_bytes: self.objects_bytes,
            history_bytes: self.history_bytes,
            history_age: self.history_age,
            workers: workers.clone(),
            heartbeats: self.has_heartbeats,
            ..Options::default()
        };
        let resource = self.form.resource();
        let (writer, cache) = WatchCache::new(resource, self.form.encoding(), options);
        let options = ReflectorOptions {
            seed: Some(self.seed),
            page_size: self.page_size,
            frame_max: 64 << 10,
            ..ReflectorOptions::default()
        };
        let upstream = Upstream(Arc::clone(world));
        let running = Reflector::run(writer, upstream, options, std::future::pending());
        (cache, tokio::spawn(running), told)
    }
}

impl Run {
    pub(crate) fn new(seed: u64, steps: BTreeSet<usize>, logged: bool) -> Self {
        Self {
            seed,
            steps,
            log: logged.then(Arc::default),
        }
    }

    /// What happened, a line each.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log
            .as_ref()
            .map(|log| log.lock().clone())
            .unwrap_or_default()
    }

    /// Runs it.
    ///
    /// # Panics
    /// When a law is broken.
    pub(crate) fn go(&self) -> Tally {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.expect("a runtime").block_on(async {
            let mut sim = Sim::new(self.seed, self.log.clone());
            for &step in &self.steps {
                // Every step has numbers of its own, so that others can be left out.
                let seed = self
                    .seed
                    .wrapping_mul(STEPS as u64)
                    .wrapping_add(step as u64);
                sim.rng = fastrand::Rng::with_seed(seed);
                sim.world.lock().rng = sim.rng.fork();
                sim.note(|| format!("step {step}"));
                sim.step();
                sim.settle().await;
                sim.check().await;
                sim.replace_ended();
            }
            sim.end_well().await;
            sim.tally()
        })
    }
}

impl Sim {
    fn new(seed: u64, log: Option<Arc<Mutex<Vec<String>>>>) -> Self {
        let limits = Limits::new(seed);
        let history = History::new(limits.form, limits.note_max);
        let world = Arc::new(Mutex::new(World::new(history)));
        let (workers, dispatchers) = Workers::new(limits.workers);
        let (cache, reflector, told) = limits.open(&world, &workers);
        let mut rng = fastrand::Rng::with_seed(seed);
        let first = rng.usize(..WANTED.len());
        let wanted = (0..CLIENTS).map(|n| {
            let is_quiet = limits.has_heartbeats && n % 2 == 0;
            WANTED[(first + n) % WANTED.len()].or_quiet(is_quiet)
        });
        // Some are of no worker.
        let mut client = |wanted| Client::new(wanted, rng.usize(..=limits.workers));
        let sim = Self {
            workers,
            dispatchers,
            clients: wanted.map(&mut client).collect(),
            rng,
            world,
            limits,
            cache,
            reflector,
            told,
            life: 0,
            pagers: Vec::new(),
            asked: Vec::new(),
            proven: Vec::new(),
            watchful: Watchful::default(),
            tally: Tally::default(),
            log,
        };
        sim.note(|| format!("{limits:?}"));
        sim
    }

    /// Writes a line of the log, if there is one.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log.lock().push(line());
        }
    }

    /// A worker gets its turn. Watches that live on none need none.
    pub(crate) fn dispatch(&mut self, worker: usize, world: &World) {
        if let Some(dispatcher) = self.dispatchers.get(worker) {
            dispatcher.dispatch();
            dispatcher.tick();
        }
        let cache = self.cache.clone();
        let cached = self.cached(&cache, world);
        let clients = self.clients.iter_mut();
        clients
            .filter(|client| client.worker == worker)
            .for_each(|client| client.tell(cached));
    }

    /// What a client can know of the cache now.
    pub(crate) fn cached<'a>(&self, cache: &'a WatchCache, world: &World) -> Cached<'a> {
        let history = &world.history;
        let own = cache.resource_version().get();
        let positions = history.positions(own);
        // The newest snapshot may be a proven one, ahead of what was taken in.
        let position = match cache.snapshot_at(ResourceVersion::new(own)) {
            Ok(snapshot) if positions.end() > positions.start() => {
                position_of(&snapshot, cache, history)
            }
            _ => *positions.end(),
        };
        Cached {
            cache,
            life: self.life,
            position,
            is_amid: position < *positions.end(),
            may_know_shape: world.has_sent_bookmark,
        }
    }

    /// Opens another cache when the objects outgrew the budget of the one before.
    fn replace_ended(&mut self) {
        if !self.reflector.is_finished() {
            return;
        }
        let status = self.cache.status().borrow().clone();
        let ReflectorStatus::OverBudget { bytes } = status else {
            panic!("the reflector ended as {status:?}");
        };
        assert!(bytes > self.limits.objects_bytes);
        assert!(!self.cache.is_ready() && self.cache.snapshot().is_err());
        if self.rng.u8(..4) > 0 {
            return; // not at once
        }
        self.note(|| format!("over budget: {bytes}"));
        self.tally.over_budget += 1;
        self.count();
        assert_eq!(self.told.all(), [], "a closed cache holds nothing");
        (self.cache, self.reflector, self.told) = self.limits.open(&self.world, &self.workers);
        self.life += 1;
        self.world.lock().served = 0;
        self.watchful = Watchful::default();
    }

    /// Once everything works, everyone ends up with the newest state.
    async fn end_well(&mut self) {
        self.world.lock().heal();
        let newest = self.world.lock().history.version;
        let life = self.life;
        for _ in 0..1200 {
            self.world.lock().pump(true);
            self.world.lock().tick();
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.answers().await;
            self.replace_ended();
            if self.life > life + 2 {
                return; // the objects do not fit
            }
            if self.cache.resource_version().get() >= newest && self.asked.is_empty() {
                break;
            }
        }
        assert_eq!(
            self.cache.resource_version().get(),
            newest,
            "the reflector catches up"
        );
        assert!(self.asked.is_empty(), "every read is answered");
        self.note(|| "all is well".into());
        self.bring_up_to_date();
    }

    fn bring_up_to_date(&mut self) {
        let world = Arc::clone(&self.world);
        let world = world.lock();
        let cache = self.cache.clone();
        (0..self.dispatchers.len()).for_each(|worker| self.dispatch(worker, &world));
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            let mut patience = 100;
            let cached = self.cached(&cache, &world);
            loop {
                client.read(usize::MAX, (cached, &world.history), &mut self.tally.met);
                if client.is_up_to_date(&world.history) {
                    break;
                }
                if !client.is_open() {
                    let begin = crate::steps::again(client, &cache, &world.history);
                    let lasts = (true, Duration::from_secs(60));
                    let on = (&*self.dispatchers, &mut self.tally.met);
                    client.open(begin, lasts, (cached, &world.history), on);
                }
                patience -= 1;
                assert!(patience > 0, "{:?} comes on", client.wanted);
            }
        }
        self.clients = clients;
    }

    /// Adds what the cache counted.
    fn count(&mut self) {
        let stats = self.cache.stats();
        self.tally.relists += stats.relists;
        self.tally.cuts += stats.cuts;
        self.tally.malformed += stats.malformed;
        self.tally.fences += stats.fences;
    }

    fn tally(&mut self) -> Tally {
        self.count();
        self.tally
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.reflector.abort();
    }
}
