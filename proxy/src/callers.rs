//! What each caller has under way, and the limits on it.
//!
//! Owns: two counts, of streams (watches, logs, tunnels) and of other requests, for every *agent* (a
//! node, or the service account of one pod: one process) and for every user name. Each has its
//! limit; the one of an agent is small, so that one that runs wild cannot take a replica down, the
//! one of a name is large, since a daemon of every node is one user.
//! Refuses: queues. Who is at its limit is told to come back; nobody waits, and nobody else notices.
//! As kube-apiserver's priority and fairness, it leaves members of `system:masters` alone: an
//! administrator gets in whatever runs wild under the same name.
//! Invariant: a count is what is under way and never above the limit in force when it grew. A name
//! that has neither a connection nor anything under way takes no memory.
//!
//! ```text
//!   connection ─OnceLock─► Tally of the agent ─► Tally of its name      Place: one of a count,
//!                              ▲    the table knows both weakly         held by the answer's body
//! ```
//!
//! A connection keeps the tally of its first caller, so that its further requests touch two atomics
//! and no lock.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use watershed_config::Limits;

use crate::{
    authn::UserInfo,
    status::{self, Status},
};

/// Parts of the table, each with a lock of its own: many more than there are threads.
const SHARDS: usize = 256;
/// The least time between two log lines about one caller at its limit.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Where the review of a token says which pod it was given to.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Everybody who has something under way. Clones are the same.
#[derive(Clone)]
pub(crate) struct Callers {
    table: Arc<Table>,
}

struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    begun: Instant,
}

type Shard = Mutex<HashMap<Name, Weak<Tally>>>;

/// A user name, and the UID of the pod its token was given to; empty where there is none and for
/// all pods together.
type Name = (Box<str>, Box<str>);

/// What one caller has under way. Known to the table while somebody holds it.
pub(crate) struct Tally {
    name: Name,
    level: Level,
    streams: AtomicU32,
    requests: AtomicU32,
    /// When the log last told of a refusal, in milliseconds after the table's beginning; 0 is never.
    warned: AtomicU64,
    table: Arc<Table>,
}

/// Which limits a tally has.
enum Level {
    /// Those of an agent, and those of the user name, where others may share it.
    Agent(Option<Arc<Tally>>),
    /// Those of a user name.
    User,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A watch, a log, a tunnel: what has no deadline of its own.
    Stream,
    /// Anything else.
    Request,
}

/// One thing under way; given back when dropped.
pub(crate) struct Place {
    tally: Arc<Tally>,
    kind: Kind,
}

/// Too much is under way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// The configuration's key of the limit.
    pub(crate) limit: &'static str,
    kind: Kind,
}

impl Callers {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        let shards = std::iter::repeat_with(Shard::default).take(SHARDS);
        Self {
            table: Arc::new(Table {
                shards: shards.collect(),
                hasher: RandomState::new(),
                begun: Instant::now(),
            }),
        }
    }

    /// A place among what a caller has under way; `None` for those without a limit. `known` is
    /// where its connection keeps its tally.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(crate) fn enter(
        &self,
        (user, known): (&UserInfo, &OnceLock<Arc<Tally>>),
        kind: Kind,
        limits: &Limits,
    ) -> Result<Option<Place>, Full> {
        // As they are exempt from an apiserver's priority and fairness.
        if user.is_master() {
            return Ok(None);
        }
        let tally = known.get_or_init(|| self.tally(user));
        let place = if tally.is_of(user) {
            tally.enter(kind, limits)
        } else {
            self.tally(user).enter(kind, limits)
        };
        place.map(Some)
    }

    fn tally(&self, user: &UserInfo) -> Arc<Tally> {
        let (table, pod) = (&self.table, pod_uid(user));
        if user.is_node() {
            return table.find(&user.name, "", || Level::Agent(None));
        }
        let of_name = || table.find(&user.name, "", || Level::User);
        if pod.is_empty() {
            return of_name();
        }
        table.find(&user.name, pod, || Level::Agent(Some(of_name())))
    }

    /// How many tallies there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.shards.iter().map(|it| it.lock().len()).sum()
    }
}

impl Table {
    fn shard(&self, name: &Name) -> &Shard {
        let hash = usize::try_from(self.hasher.hash_one(name) % SHARDS as u64);
        &self.shards[hash.expect("it is less than the number of shards")]
    }

    fn find(self: &Arc<Self>, user: &str, pod: &str, level: impl FnOnce() -> Level) -> Arc<Tally> {
        let name = (Box::from(user), Box::from(pod));
        let shard = self.shard(&name);
        if let Some(tally) = shard.lock().get(&name).and_then(Weak::upgrade) {
            return tally;
        }
        // Outside of the lock: it may find another tally in the same shard.
        let level = level();
        let mut shard = shard.lock();
        if let Some(tally) = shard.get(&name).and_then(Weak::upgrade) {
            drop(shard); // `level` is dropped after it, which may need the lock
            return tally;
        }
        let tally = Arc::new(Tally {
            name: name.clone(),
            level,
            streams: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            warned: AtomicU64::new(0),
            table: Arc::clone(self),
        });
        shard.insert(name, Arc::downgrade(&tally));
        tally
    }
}

impl Tally {
    /// Whether it is this caller's.
    fn is_of(&self, user: &UserInfo) -> bool {
        *self.name.0 == *user.name && *self.name.1 == *pod_uid(user)
    }

    fn enter(self: &Arc<Self>, kind: Kind, limits: &Limits) -> Result<Place, Full> {
        self.take(kind, limits)?;
        if let Some(user) = self.user() {
            user.take(kind, limits)
                .inspect_err(|_full| self.give(kind))?;
        }
        let tally = Arc::clone(self);
        Ok(Place { tally, kind })
    }

    fn take(&self, kind: Kind, limits: &Limits) -> Result<(), Full> {
        let (limit, most) = match (&self.level, kind) {
            (Level::Agent(_), Kind::Stream) => ("watchesPerAgent", limits.watches_per_agent),
            (Level::Agent(_), Kind::Request) => ("requestsPerAgent", limits.requests_per_agent),
            (Level::User, Kind::Stream) => ("watchesPerUser", limits.watches_per_user),
            (Level::User, Kind::Request) => ("requestsPerUser", limits.requests_per_user),
        };
        let most = if most == 0 { u32::MAX } else { most };
        let grown = |count: u32| (count < most).then(|| count + 1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = self.count(kind).fetch_update(set, get, grown);
        if taken.is_err() {
            self.warn(limit);
        }
        taken
            .map(|_before| ())
            .map_err(|_full| Full { limit, kind })
    }

    fn give(&self, kind: Kind) {
        self.count(kind).fetch_sub(1, Ordering::Relaxed);
    }

    fn user(&self) -> Option<&Arc<Self>> {
        match &self.level {
            Level::Agent(user) => user.as_ref(),
            Level::User => None,
        }
    }

    fn count(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Stream => &self.streams,
            Kind::Request => &self.requests,
        }
    }

    /// Names the caller in the log, now and then: metrics name no users.
    fn warn(&self, limit: &'static str) {
        let now = u64::try_from(self.table.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let interval = WARNING_INTERVAL.as_millis() as u64;
        let due = |warned: u64| {
            (warned == 0 || now.saturating_sub(warned) >= interval).then_some(now.max(1))
        };
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.warned.fetch_update(set, get, due).is_ok() {
            let (name, pod) = &self.name;
            tracing::warn!(
                user.name = name,
                pod.uid = pod,
                limit,
                "a caller is at its limit"
            );
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tally.give(self.kind);
        if let Some(user) = self.tally.user() {
            user.give(self.kind);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.name).lock();
        // Somebody of the same name may have come since the last holder left.
        if shard
            .get(&self.name)
            .is_some_and(|it| it.strong_count() == 0)
        {
            shard.remove(&self.name);
        }
    }
}

impl Full {
    /// What the caller is told.
    pub(crate) fn status(self) -> Status {
        let message = match self.kind {
            Kind::Stream => "too many watches of this caller are open, please try again later",
            Kind::Request => {
                "too many requests of this caller are under way, please try again later"
            }
        };
        Status::too_many_requests(message, fastrand::u32(status::RETRY_AFTER))
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut tally = formatter.debug_struct("Tally");
        tally.field("name", &self.name).finish_non_exhaustive()
    }
}

fn pod_uid(user: &UserInfo) -> &str {
    let values = user.extra.get(POD_UID);
    values.and_then(|it| it.first()).map_or("", String::as_str)
}

#[cfg(test)]
mod tests;
