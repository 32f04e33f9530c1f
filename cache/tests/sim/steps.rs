//! What may happen in one step.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use watershed_cache::{ResourceVersion, WatchCache};

use crate::client::{Begin, Client};
use crate::laws::{Asked, Question};
use crate::model::History;
use crate::reader::{Pager, position_of};
use crate::run::Sim;
use crate::upstream::{Faults, World};
use crate::wanted::WANTED;

/// How long a consistent read waits, as proxies do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How a client that has no watch comes back: where it was, or from the beginning.
pub(crate) fn again(client: &Client, cache: &WatchCache, history: &History) -> Begin {
    match (client.resumes_from(history), cache.snapshot()) {
        (Some(version), _) => Begin::After(version),
        (None, Ok(snapshot)) => Begin::Initial {
            snapshot,
            end_bookmark: true,
        },
        (None, Err(_)) => Begin::Now,
    }
}

impl Sim {
    /// Does one thing.
    pub(crate) fn step(&mut self) {
        if self.rng.u8(..10) == 0 {
            self.note(|| "faults are over".into());
            self.world.lock().heal();
        }
        let kind = self.rng.u8(..32);
        match kind {
            0..=12 => self.upstream_step(kind),
            13..=19 => (0..3).for_each(|_| self.open_some()),
            20 => {
                let client = self.rng.usize(..self.clients.len());
                self.note(|| format!("client {client} hangs up"));
                self.clients[client].close();
            }
            21..=23 => self.read_some(1),
            24..=26 => self.ask_consistent(),
            27 if self.rng.bool() => self.ask_at_least(),
            27 => self.ask_exactly(),
            28..=30 => self.page(),
            _ => self.keep_proven(),
        }
    }

    fn upstream_step(&mut self, kind: u8) {
        let world = Arc::clone(&self.world);
        let mut world = world.lock();
        match kind {
            0..=2 => {
                let count = if kind == 2 {
                    self.rng.u8(..60)
                } else {
                    self.rng.u8(1..6)
                };
                (0..count).for_each(|_| self.write(&mut world));
            }
            3 => world.write_elsewhere(),
            4 => world.cut(),
            5 => {
                world.compact();
                if self.rng.bool() {
                    world.cut();
                }
            }
            6 => world.lag(),
            7 => {
                world.faults = self.faults();
                if world.faults.forgetful && self.rng.bool() {
                    world.lag();
                    world.compact();
                    world.cut();
                }
                self.note(|| format!("{:?}", world.faults));
            }
            8..=10 => world.pump(true),
            _ => world.pump(false),
        }
        self.note(|| format!("upstream {kind}: now at {}", world.history.version));
    }

    fn write(&mut self, world: &mut World) {
        if self.limits.has_heartbeats && self.rng.bool() {
            return world.history.beat(&mut self.rng);
        }
        match self.rng.u8(..16) {
            0 => world.history.expire(&mut self.rng),
            1 => world.history.recreate(&mut self.rng),
            _ => world.history.write(&mut self.rng),
        }
    }

    /// Mostly nothing, else something.
    fn faults(&mut self) -> Faults {
        let mut rarely = |one_in: u8| self.rng.u8(..one_in) == 0;
        let mut faults = Faults {
            no_watch_list: rarely(2),
            hanging: rarely(16),
            slow: rarely(5),
            forgetful: rarely(4),
            amnesia: rarely(4),
            misfit: rarely(8),
            no_bookmarks: rarely(4),
            silent: rarely(12),
            refusal: None,
        };
        if rarely(4) {
            faults.refusal = Some(self.rng.usize(..12));
        }
        faults
    }

    fn open_some(&mut self) {
        let world = Arc::clone(&self.world);
        let world = world.lock();
        let place = self.rng.usize(..self.clients.len());
        let lasts = Duration::from_secs(self.rng.u64(1..200));
        // Who does without heartbeats has nothing but bookmarks to know versions by.
        let bookmarks = self.rng.u8(..5) > 0 || self.clients[place].wanted.is_quiet;
        if self.clients[place].is_open() {
            return;
        }
        let cache = self.cache.clone();
        let cached = self.cached(&cache, &world);
        let own = cache.resource_version().get();
        let proven = self.proven.last().cloned();
        let begin = match (self.rng.u8(..9), proven, cache.snapshot()) {
            (0..=3, ..) => again(&self.clients[place], &cache, &world.history),
            (4, Some(snapshot), _) | (5, _, Ok(snapshot)) => Begin::Initial {
                snapshot,
                end_bookmark: bookmarks,
            },
            (6, _, Ok(snapshot)) => Begin::Initial {
                snapshot,
                end_bookmark: false,
            },
            (7, Some(snapshot), _) => Begin::After(snapshot.resource_version().get()),
            (8, ..) => Begin::After((own + self.rng.u64(..12)).saturating_sub(8)),
            _ => Begin::Now,
        };
        self.note(|| {
            let how = match &begin {
                Begin::After(version) => format!("after {version}"),
                Begin::Now => "now".into(),
                Begin::Initial { snapshot, .. } => {
                    format!("with the state at {}", snapshot.resource_version())
                }
            };
            format!("client {place} watches {how} for {lasts:?}, the cache is at {own}")
        });
        let how = (bookmarks, lasts);
        let client = &mut self.clients[place];
        let on = (&*self.dispatchers, &mut self.tally.met);
        let opened = client.open(begin, how, (cached, &world.history), on);
        self.note(|| format!("opened: {opened}"));
    }

    fn read_some(&mut self, items: usize) {
        let world = Arc::clone(&self.world);
        let world = world.lock();
        let cache = self.cache.clone();
        let cached = self.cached(&cache, &world);
        let place = self.rng.usize(..self.clients.len());
        self.note(|| format!("client {place} reads {items}"));
        self.clients[place].read(items, (cached, &world.history), &mut self.tally.met);
    }

    fn ask_consistent(&mut self) {
        let cache = self.cache.clone();
        let answer = tokio::spawn(async move { cache.consistent(PATIENCE).await });
        let version = self.world.lock().history.version;
        self.note(|| format!("a consistent read at {version}"));
        self.asked.push(Asked {
            question: Question::Consistent(version),
            at: Instant::now(),
            life: self.life,
            answer,
        });
    }

    fn ask_at_least(&mut self) {
        let version = self.world.lock().history.version + 3;
        let version = version.saturating_sub(self.rng.u64(..8));
        let cache = self.cache.clone();
        let wanted = ResourceVersion::new(version);
        let answer = tokio::spawn(async move {
            cache.wait_until_fresh(wanted, PATIENCE).await?;
            cache.snapshot()
        });
        self.note(|| format!("a read not older than {version}"));
        self.asked.push(Asked {
            question: Question::AtLeast(version),
            at: Instant::now(),
            life: self.life,
            answer,
        });
    }

    fn ask_exactly(&mut self) {
        let own = self.cache.resource_version().get();
        let version = (own + 3).saturating_sub(self.rng.u64(..20)).max(1);
        let cache = self.cache.clone();
        let wanted = ResourceVersion::new(version);
        let answer = tokio::spawn(async move { cache.exact(wanted, PATIENCE).await });
        self.note(|| format!("a read exactly at {version}"));
        self.asked.push(Asked {
            question: Question::Exactly(version),
            at: Instant::now(),
            life: self.life,
            answer,
        });
    }

    /// Begins to list in pages, or turns one.
    fn page(&mut self) {
        let world = Arc::clone(&self.world);
        let history = &world.lock().history;
        if self.pagers.len() < 4 {
            let fresh = self.proven.last().cloned().filter(|_| self.rng.bool());
            if let Some(snapshot) = fresh.or_else(|| self.cache.snapshot().ok()) {
                let version = snapshot.resource_version().get();
                let position = position_of(&snapshot, &self.cache, history);
                let wanted = &WANTED[self.rng.usize(..WANTED.len())];
                if position == history.position(version) {
                    self.pagers
                        .push(Pager::new(wanted, self.rng.usize(1..6), version));
                }
            }
        }
        let cache = self.cache.clone();
        self.pagers
            .retain_mut(|pager| self.rng.bool() || pager.turn(&cache, history));
        self.tally.pages += 1;
    }

    /// Forgets all but the newest of the snapshots it kept.
    fn keep_proven(&mut self) {
        let old = self.proven.len().saturating_sub(1);
        self.proven.drain(..old);
    }
}
