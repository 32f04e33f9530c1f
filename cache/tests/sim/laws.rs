//! What must hold after every step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use watershed_cache::{CacheError, NotFresh, ResourceVersion, Snapshot, Stats};

use crate::reader::{check_bodies, position_of};
use crate::run::Sim;
use crate::steps::PATIENCE;
use crate::upstream::World;
use crate::wanted::WANTED;

/// How late an answer may be: the length of a slice of time.
const SLACK: Duration = Duration::from_millis(600);

/// How long a proof that the apiserver has a past version is believed.
const PROOF_AGE: Duration = Duration::from_secs(1);

/// A read under way.
pub(crate) struct Asked {
    pub(crate) question: Question,
    pub(crate) at: Instant,
    /// The cache it was asked of.
    pub(crate) life: u64,
    pub(crate) answer: JoinHandle<Result<Snapshot, CacheError>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// What is written up to this version, the newest when it was asked.
    Consistent(u64),
    AtLeast(u64),
    Exactly(u64),
}

/// What was seen of the cache before.
#[derive(Debug, Default)]
pub(crate) struct Watchful {
    own: u64,
    /// The newest state anybody was shown.
    shown: u64,
    relists: u64,
    /// Versions it was at, and when that was first noticed.
    seen: VecDeque<(u64, Instant)>,
    checked: Option<Instant>,
}

impl Sim {
    /// Lets tasks run; now and then lets time pass.
    pub(crate) async fn settle(&mut self) {
        for _ in 0..self.rng.usize(..20) {
            tokio::task::yield_now().await;
        }
        let millis = match self.rng.u8(..12) {
            0 => self.rng.u64(1000..90_000),
            1 | 2 => self.rng.u64(1..5000),
            3..=5 => self.rng.u64(1..1500),
            _ => 0,
        };
        let until = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < until {
            let slice = (until - Instant::now()).min(Duration::from_millis(500));
            tokio::time::sleep(slice).await;
            self.world.lock().tick();
            self.answers().await;
        }
    }

    pub(crate) async fn check(&mut self) {
        self.answers().await;
        let world = Arc::clone(&self.world);
        let mut world = world.lock();
        world.served = self.cache.resource_version().get();
        let stats = self.cache.stats();
        self.check_memory(&stats, &world);
        self.check_window(&stats, &world);
        self.check_observer();
        self.check_snapshots(&world);
        self.check_clients(&world);
        assert!(world.open_streams() <= 2, "one watch upstream, and a fence");
    }

    fn check_memory(&mut self, stats: &Stats, world: &World) {
        let limits = self.limits;
        assert!(stats.bytes <= limits.objects_bytes, "{stats:?}");
        let history_max = limits.history_bytes + limits.batch_bytes;
        assert!(stats.history_bytes <= history_max, "{stats:?}");
        if !stats.ready {
            return;
        }
        // What is counted is what is held.
        let (form, history) = (limits.form, &world.history);
        let position = self.cached(&self.cache, world).position;
        let things = history.state(position).values();
        let bytes: usize = things.map(|it| it.own(form).len()).sum();
        assert!(stats.bytes >= bytes, "{stats:?}");
        let held = &history.log[position - stats.history_events..position];
        let old = held.iter().filter_map(|write| write.old.as_ref());
        let bytes: usize = old.map(|it| it.own(form).len()).sum();
        assert!(stats.history_bytes >= bytes, "{stats:?}");
    }

    /// What was told is what the cache holds.
    fn check_observer(&self) {
        let own = self.cache.resource_version();
        let Ok(snapshot) = self.cache.snapshot_at(own) else {
            return; // not ready
        };
        let held = snapshot.range(None, "");
        let held = held.map(|it| (it.key().to_owned(), it.resource_version().get()));
        assert_eq!(self.told.all(), held.collect::<Vec<_>>());
    }

    /// History is what the limits allow: it begins where it must, and no younger event is missing.
    fn check_window(&mut self, stats: &Stats, world: &World) {
        let own = self.cache.resource_version().get();
        assert!(
            !stats.ready || own >= self.watchful.own,
            "versions never go back"
        );
        let watchful = &mut self.watchful;
        let (now, before) = (Instant::now(), watchful.checked.replace(Instant::now()));
        if !stats.ready {
            return;
        }
        let history = &world.history;
        let has_moved = own > watchful.own;
        if has_moved {
            watchful.seen.push_back((own, now));
        }
        watchful.own = own;
        let is_new = watchful.relists != stats.relists;
        watchful.relists = stats.relists;
        let position = self.cached(&self.cache, world).position;
        let (held, floor) = (stats.history_events, stats.oldest.get());
        assert!(floor <= own);
        let first = position.checked_sub(held).expect("no event twice");
        if held > 0 {
            let oldest = history.log[first].version;
            assert!(floor <= oldest, "what is held is served: {stats:?}");
            let before_oldest = first.checked_sub(1).map_or(0, |it| history.log[it].version);
            let least = before_oldest.max(oldest - 1);
            // Either the state was listed at the floor, or events before the oldest were forgotten.
            let is_listed = world.offered.contains(&floor) && floor < oldest;
            assert!(
                floor == least || (is_listed && floor >= before_oldest),
                "{stats:?}"
            );
        } else {
            assert!(
                history.position(floor) == position,
                "events are missing: {stats:?}"
            );
        }
        let Some(before) = before.filter(|_| has_moved && !is_new && held > 1) else {
            return;
        };
        let oldest = history.log[first].version;
        if history.positions(oldest).count() > 1 {
            return; // a part of them came earlier
        }
        let seen = &self.watchful.seen;
        let noticed = seen.iter().find(|(version, _)| *version >= oldest);
        let (_, noticed) = noticed.expect("its version was passed");
        assert!(
            *noticed + self.limits.history_age >= before,
            "too old: {stats:?}"
        );
    }

    /// Lists of now and then are the states of the model.
    fn check_snapshots(&mut self, world: &World) {
        let history = &world.history;
        let cache = self.cache.clone();
        let Ok(newest) = cache.snapshot() else {
            assert!(!cache.is_ready());
            return;
        };
        let wanted = &WANTED[self.rng.usize(..WANTED.len())];
        let position = position_of(&newest, &cache, history);
        let version = newest.resource_version().get();
        assert!(
            version >= self.watchful.shown,
            "nobody is shown an older state"
        );
        self.watchful.shown = version;
        if self.rng.u8(..3) > 0 {
            return;
        }
        check_bodies((&newest, position), wanted, (&cache, history));
        let own = cache.resource_version().get();
        let past = own.saturating_sub(self.rng.u64(..40));
        match cache.snapshot_at(ResourceVersion::new(past)) {
            Ok(snapshot) => {
                assert_eq!(snapshot.resource_version().get(), past);
                let position = position_of(&snapshot, &cache, history);
                check_bodies((&snapshot, position), wanted, (&cache, history));
                self.tally.rebuilt += 1;
            }
            Err(CacheError::Expired { .. }) => assert!(past < cache.stats().oldest.get()),
            Err(other) => panic!("unexpected {other}"),
        }
        // What somebody holds does not change.
        for snapshot in &self.proven {
            position_of(snapshot, &cache, history);
        }
    }

    fn check_clients(&mut self, world: &World) {
        for worker in 0..=self.dispatchers.len() {
            // Some get their turn late, some not for long.
            if worker == self.dispatchers.len() || self.rng.u8(..8) < 3 {
                self.note(|| format!("worker {worker} gets its turn"));
                self.dispatch(worker, world);
            }
        }
        let cache = self.cache.clone();
        let cached = self.cached(&cache, world);
        for client in &self.clients {
            client.check_parked(&world.history);
        }
        for _ in 0..4 {
            let place = self.rng.usize(..self.clients.len());
            let client = &mut self.clients[place];
            client.read(usize::MAX, (cached, &world.history), &mut self.tally.met);
            let is_there = client.is_up_to_date(&world.history);
            assert!(!client.is_open() || is_there, "a dry watch equals the list");
        }
    }

    /// Takes the answers that have come; nobody waits for longer than asked.
    pub(crate) async fn answers(&mut self) {
        for asked in std::mem::take(&mut self.asked) {
            if !asked.answer.is_finished() {
                let waited = asked.at.elapsed();
                assert!(
                    waited <= PATIENCE + SLACK,
                    "{:?} unanswered",
                    asked.question
                );
                self.asked.push(asked);
                continue;
            }
            let Asked {
                question,
                at,
                life,
                answer,
            } = asked;
            let answer = answer.await.expect("reads do not panic");
            self.note(|| {
                let version = answer.as_ref().map(Snapshot::resource_version);
                format!("{question:?} gets {version:?}")
            });
            match answer {
                Ok(snapshot) => {
                    if life == self.life {
                        let version = snapshot.resource_version().get();
                        self.watchful.shown = self.watchful.shown.max(version);
                    }
                    self.check_answer((question, at), snapshot);
                }
                Err(CacheError::Expired { requested, .. }) => {
                    assert!(matches!(question, Question::Exactly(it) if it == requested.get()));
                }
                Err(CacheError::NotReady) => {}
                Err(CacheError::NotFresh(NotFresh::Busy)) => panic!("there is room"),
                Err(CacheError::NotFresh(_)) => self.tally.unproven += 1,
                Err(CacheError::ResourceVersionTooLarge { requested, current }) => {
                    let (Question::AtLeast(asked) | Question::Exactly(asked)) = question else {
                        panic!("{question:?} is about no version");
                    };
                    assert!(asked == requested.get() && current < requested);
                    let has_waited = at.elapsed() >= PATIENCE;
                    assert!(has_waited || matches!(question, Question::Exactly(_)));
                }
            }
        }
    }

    fn check_answer(&mut self, (question, at): (Question, Instant), snapshot: Snapshot) {
        let world = Arc::clone(&self.world);
        let world = world.lock();
        let history = &world.history;
        let version = snapshot.resource_version().get();
        let position = position_of(&snapshot, &self.cache, history);
        match question {
            Question::Exactly(asked) => {
                assert_eq!(version, asked);
                let gone = world.compacted_before(at - PROOF_AGE);
                assert!(version >= gone, "{version} was compacted long ago");
                self.tally.exact += 1;
            }
            Question::Consistent(asked) => {
                assert!(version >= asked, "{version} does not prove {asked}");
                assert!(
                    position >= history.position(asked),
                    "a write before the question is missing"
                );
                self.tally.proven += 1;
                if position == history.position(version) {
                    self.proven.push(snapshot);
                    let old = self.proven.len().saturating_sub(4);
                    self.proven.drain(..old);
                }
            }
            Question::AtLeast(asked) => {
                assert!(version >= asked, "{version} is older than {asked}");
                self.tally.waited += 1;
            }
        }
    }
}
