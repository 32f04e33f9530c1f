//! Who has to be asked again about what was permitted before, and when.
//!
//! Owns: the connections that hold watches, found by the node whose rights they use; counters that
//! a watch compares before it delivers ([`Marks`]); and the task that wakes idle connections, those
//! that lost something at once and each of the others once in an interval.
//! Refuses: to decide anything, and to know requests. What a woken watch asks is its own affair
//! (`tenure.rs`). Announcing waits for nobody: it takes one lock for a look-up, and neither its cost
//! nor the lock grows with the number of connections.
//! Invariant: once [`Revocations::revoked`] has returned, every watch that may be concerned sees
//! another [`Marks`] before it delivers anything more; and whoever is idle is woken too, a moment
//! later.
//!
//! ```text
//!   a cache's writer ──► revoked(Node n) ─► marks of n's connections ──┐
//!                        revoked(Any…)   ─► marks of everybody ──sweep─┤ 50 ms, then so many at once
//!   the interval ─────────────────────────────────────────────rota─────┴─► wakes the connection
//! ```
//!
//! Rejected: a timer for each watch, which costs more memory than all the rest of this; and to wake
//! everybody at once, which holds up what is to be delivered meanwhile.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use watershed_authorizer::Revoked;
use watershed_config::Live;

use crate::authn::UserInfo;

/// How long news are gathered before anybody is woken for them. A kubelet that hears that its pod is
/// gone stops to watch what only the pod needed, and is not told 403 for having been slower than us.
const GATHERING: Duration = Duration::from_millis(50);

/// Connections that are woken between two looks, when anybody may have lost something: 10,000 a
/// second.
const SWEPT_AT_ONCE: usize = 500;

/// Connections looked at between two looks.
const LOOKED_AT_AT_ONCE: usize = 4096;

/// The longest time between two looks.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// What the permit of a watch depends on, of all that can be lost at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// On nothing that is watched.
    Nothing,
    /// On what the node's pods mention.
    Graph,
    /// On roles and bindings.
    Roles,
    /// On both: the apiserver decided about a node, and did not say by what.
    Either,
}

impl Basis {
    const fn bit(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Graph => 1,
            Self::Roles => 2,
            Self::Either => Self::Graph.bit() | Self::Roles.bit(),
        }
    }
}

/// Counters of what was lost so far. They wrap; only whether they differ says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// By anybody whose rights come from roles.
    users: u32,
    /// By any node.
    nodes: u32,
    /// By one node, whichever; of a connection: by one of its own.
    single: u32,
    /// Times that the connection's turn came.
    turns: u8,
}

impl Marks {
    /// One number for all that concerns a permit: another one when something was lost that it may
    /// rest on.
    pub(crate) const fn lost(self, basis: Basis) -> u32 {
        match basis {
            Basis::Nothing => 0,
            Basis::Graph => self.nodes.wrapping_add(self.single),
            Basis::Roles => self.users,
            Basis::Either => {
                let of_nodes = self.nodes.wrapping_add(self.single);
                of_nodes.wrapping_add(self.users)
            }
        }
    }

    /// How often the connection's turn has come.
    pub(crate) const fn turns(self) -> u8 {
        self.turns
    }
}

/// See the module text.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    users: AtomicU32,
    nodes: AtomicU32,
    single: Apart,
    state: Mutex<State>,
    news: Notify,
}

/// Written thousands of times a second, beside what every watch reads with every event.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(AtomicU32);

#[derive(Debug, Default)]
struct State {
    /// By their place; the order of the rota.
    holders: Vec<Option<Held>>,
    free: Vec<u32>,
    /// Those that use the rights of a node.
    by_node: HashMap<Arc<str>, Vec<Arc<Holder>>>,
    /// To be woken next, each once.
    due: Vec<Arc<Holder>>,
    sweep: Sweep,
    /// Whose turn is next, and what of a turn has passed.
    rota: (usize, f64),
}

#[derive(Debug)]
struct Held {
    holder: Arc<Holder>,
    nodes: Vec<Arc<str>>,
}

/// A walk past all connections. What is announced meanwhile makes it longer by a round.
#[derive(Debug, Default)]
struct Sweep {
    at: usize,
    left: usize,
    /// The bases it is about, as bits.
    bases: u8,
}

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Holder {
    revocations: Arc<Revocations>,
    lost: AtomicU32,
    turns: AtomicU8,
    /// The bases of its watches, those that have ended included, as bits.
    bases: AtomicU8,
    is_due: AtomicBool,
    place: u32,
    wake: Waker,
    /// Who opened a watch here last.
    user: Mutex<Option<Arc<UserInfo>>>,
}

/// The place of one connection among those that hold watches, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member(Arc<Holder>);

impl Revocations {
    /// To be told of every loss, after it has taken effect and before the event that caused it is
    /// delivered. May be called with locks held and often. What is only unknown for a while, as
    /// while a feed is closed, nobody has lost: it is announced once everything is known again.
    pub(crate) fn revoked(&self, revoked: Revoked) {
        match revoked {
            Revoked::Nothing => {}
            Revoked::Node(node) => {
                self.single.0.fetch_add(1, Ordering::Release);
                let state = &mut *self.state.lock();
                let was_idle = state.due.is_empty();
                for holder in state.by_node.get(&*node).into_iter().flatten() {
                    holder.lost.fetch_add(1, Ordering::Release);
                    let is_concerned = holder.rests_on(Basis::Graph.bit());
                    if is_concerned && !holder.is_due.swap(true, Ordering::Relaxed) {
                        state.due.push(Arc::clone(holder));
                    }
                }
                if was_idle && !state.due.is_empty() {
                    self.news.notify_one();
                }
            }
            Revoked::AnyNode => self.revoked_from_any(&self.nodes, Basis::Graph.bit()),
            Revoked::AnyUser => self.revoked_from_any(&self.users, Basis::Roles.bit()),
        }
    }

    fn revoked_from_any(&self, counter: &AtomicU32, bases: u8) {
        counter.fetch_add(1, Ordering::Release);
        let mut state = self.state.lock();
        state.sweep.left = state.holders.len();
        state.sweep.bases |= bases;
        self.news.notify_one();
    }

    /// What was lost so far by anybody, to be taken before a permit is asked for.
    pub(crate) fn marks(&self) -> Marks {
        Marks {
            users: self.users.load(Ordering::Acquire),
            nodes: self.nodes.load(Ordering::Acquire),
            single: self.single.0.load(Ordering::Acquire),
            turns: 0,
        }
    }

    /// Adds a connection, which is woken by `wake` whenever its watches have to look at their
    /// marks.
    pub(crate) fn join(self: &Arc<Self>, wake: Waker) -> Member {
        let state = &mut *self.state.lock();
        let place = state.free.pop().unwrap_or_else(|| {
            state.holders.push(None);
            u32::try_from(state.holders.len() - 1).expect("connections are fewer")
        });
        let holder = Arc::new(Holder {
            revocations: Arc::clone(self),
            lost: AtomicU32::new(0),
            turns: AtomicU8::new(0),
            bases: AtomicU8::new(0),
            is_due: AtomicBool::new(false),
            place,
            wake,
            user: Mutex::default(),
        });
        state.holders[place as usize] = Some(Held {
            holder: Arc::clone(&holder),
            nodes: Vec::new(),
        });
        Member(holder)
    }

    /// Wakes who has to be woken, for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>, mut live: watch::Receiver<Arc<Live>>) {
        let interval = |live: &Live| live.authorization.revalidate_watches;
        let mut last = Instant::now();
        loop {
            let every = interval(&live.borrow_and_update());
            tokio::select! {
                () = self.news.notified() => sleep(GATHERING).await,
                () = sleep(self.pause(every)) => {}
                Ok(()) = live.changed() => {}
            }
            let (now, every) = (Instant::now(), interval(&live.borrow()));
            for holder in self.take_due((now - last, every)) {
                holder.wake.wake_by_ref();
            }
            last = now;
        }
    }

    /// The time to the next turn.
    fn pause(&self, every: Duration) -> Duration {
        let state = self.state.lock();
        if state.sweep.left > 0 || !state.due.is_empty() {
            return GATHERING;
        }
        let turn = every / u32::try_from(state.holders.len()).map_or(u32::MAX, |it| it.max(1));
        if every.is_zero() {
            LOOK_INTERVAL_MAX
        } else {
            turn.clamp(GATHERING, LOOK_INTERVAL_MAX)
        }
    }

    /// Who is to be woken now. Nobody while it is off.
    fn take_due(&self, (passed, every): (Duration, Duration)) -> Vec<Arc<Holder>> {
        let state = &mut *self.state.lock();
        let mut due = std::mem::take(&mut state.due);
        for holder in &due {
            holder.is_due.store(false, Ordering::Relaxed);
        }
        if every.is_zero() {
            state.sweep = Sweep::default();
            return Vec::new();
        }
        state.sweep_into(&mut due);
        state.take_turns(passed.as_secs_f64() / every.as_secs_f64(), &mut due);
        due
    }
}

impl State {
    fn sweep_into(&mut self, due: &mut Vec<Arc<Holder>>) {
        let enough = due.len() + SWEPT_AT_ONCE;
        for _ in 0..self.sweep.left.min(LOOKED_AT_AT_ONCE) {
            self.sweep.left -= 1;
            self.sweep.at = (self.sweep.at + 1) % self.holders.len();
            let Some(Held { holder, .. }) = &self.holders[self.sweep.at] else {
                continue;
            };
            if holder.rests_on(self.sweep.bases) {
                due.push(Arc::clone(holder));
            }
            if due.len() >= enough {
                break;
            }
        }
        if self.sweep.left == 0 {
            self.sweep.bases = 0;
        }
    }

    /// Gives a share of all connections their turn.
    fn take_turns(&mut self, share: f64, due: &mut Vec<Arc<Holder>>) {
        let len = self.holders.len();
        if len == 0 {
            return;
        }
        let (at, owed) = &mut self.rota;
        *owed = (*owed + share * len as f64).min(len as f64);
        while *owed >= 1.0 {
            *owed -= 1.0;
            *at = (*at + 1) % len;
            if let Some(Held { holder, .. }) = &self.holders[*at] {
                holder.turns.fetch_add(1, Ordering::Release);
                due.push(Arc::clone(holder));
            }
        }
    }

    fn leave(&mut self, holder: &Arc<Holder>) {
        let held = self.holders[holder.place as usize].take();
        self.free.push(holder.place);
        for node in held.into_iter().flat_map(|held| held.nodes) {
            let Some(holders) = self.by_node.get_mut(&node) else {
                continue;
            };
            holders.retain(|other| !Arc::ptr_eq(other, holder));
            if holders.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }
}

impl Holder {
    fn rests_on(&self, bases: u8) -> bool {
        self.bases.load(Ordering::Relaxed) & bases != 0
    }
}

impl Member {
    /// What was lost so far by anybody, and by the nodes of this connection.
    pub(crate) fn marks(&self) -> Marks {
        Marks {
            users: self.0.revocations.users.load(Ordering::Acquire),
            nodes: self.0.revocations.nodes.load(Ordering::Acquire),
            single: self.0.lost.load(Ordering::Acquire),
            turns: self.0.turns.load(Ordering::Acquire),
        }
    }

    /// Whether nothing that a permit depends on was lost since `before`, which was taken by
    /// [`Revocations::marks`].
    pub(crate) fn is_current(&self, before: Marks, basis: Basis) -> bool {
        self.0.revocations.marks().lost(basis) == before.lost(basis)
    }

    /// This user, or an equal one that a watch of this connection keeps already: each review of a
    /// token makes a new one.
    pub(crate) fn share(&self, user: &Arc<UserInfo>) -> Arc<UserInfo> {
        let mut last = self.0.user.lock();
        match &*last {
            Some(known) if known == user => Arc::clone(known),
            Some(_) | None => Arc::clone(last.insert(Arc::clone(user))),
        }
    }

    /// Notes that a watch of this connection rests on `basis`.
    pub(crate) fn rest_on(&self, basis: Basis) {
        self.0.bases.fetch_or(basis.bit(), Ordering::Relaxed);
    }

    /// Notes that a watch of this connection uses the rights of a node.
    pub(crate) fn use_node(&self, node: &str) {
        let state = &mut *self.0.revocations.state.lock();
        let held = state.holders[self.0.place as usize].as_mut();
        let held = held.expect("a member has its place");
        if held.nodes.iter().any(|known| **known == *node) {
            return;
        }
        let node: Arc<str> = match state.by_node.get_key_value(node) {
            Some((known, _)) => Arc::clone(known),
            None => node.into(),
        };
        held.nodes.reserve_exact(1);
        held.nodes.push(Arc::clone(&node));
        let holders = state.by_node.entry(node).or_default();
        holders.reserve_exact(1);
        holders.push(Arc::clone(&self.0));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.revocations.state.lock().leave(&self.0);
    }
}

#[cfg(test)]
pub(super) mod tests;
