//! Turns: so many at once, and for those who wait a queue that is fair.
//!
//! Owns: who of those who wait is next, and how many may wait. Everybody waits in a line of its own
//! (an address, a user); the lines take turns, so that one with a hundred thousand in it costs another
//! line one turn. A line may be as long as the room it leaves: the first to flood takes half, and
//! there is always room for a line that is new.
//! Refuses: to know what a turn is for.
//! Invariant: free turns and taken ones are always as many as at the beginning; nobody waits while a
//! turn is free; who goes away while waiting leaves no trace.
//!
//! The order is that of start-time fair queueing with equal shares: whoever comes is numbered one
//! after the last of its line, or after the turn that was given last, whichever is later, and the
//! lowest number is next.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

/// Gives turns.
pub(super) struct Turns {
    waiting_max: usize,
    hasher: RandomState,
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// The number of the turn that was given last.
    now: u64,
    /// How many have waited so far.
    arrivals: u64,
    waiting: BTreeMap<Place, Waiting>,
    lines: HashMap<u64, Line>,
}

/// The number of its turn, then of its arrival.
type Place = (u64, u64);

struct Waiting {
    /// Hash of whom the line is of; two that share one share its turns.
    line: u64,
    turn: oneshot::Sender<Turn>,
}

/// A line with somebody in it.
#[derive(Default)]
struct Line {
    length: usize,
    /// The number of its last turn.
    last: u64,
}

/// A turn; given to the next when dropped.
pub(super) struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// `at_once` turns, for which up to `waiting_max` may wait.
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting_max,
            hasher: RandomState::new(),
            state: Mutex::new(State {
                free: at_once,
                now: 0,
                arrivals: 0,
                waiting: BTreeMap::new(),
                lines: HashMap::new(),
            }),
        })
    }

    /// A turn in the line of `whom`, within `patience`; `None` when the line is too long or none came.
    pub(super) async fn take(
        self: &Arc<Self>,
        whom: impl Hash,
        patience: Duration,
    ) -> Option<Turn> {
        let line = self.hasher.hash_one(whom);
        let (turn, place) = {
            let mut state = self.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Some(Turn(Some(Arc::clone(self))));
            }
            state.enter(line, self.waiting_max)?
        };
        let _leaving = Leaving { turns: self, place };
        timeout(patience, turn).await.ok()?.ok()
    }

    /// Gives a turn on.
    fn give(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let Some((place, next)) = state.waiting.pop_first() else {
                    state.free += 1;
                    return;
                };
                state.now = place.0;
                state.shorten(next.line);
                next
            };
            match next.turn.send(Turn(Some(Arc::clone(&self)))) {
                Ok(()) => return,
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }
}

impl State {
    fn enter(&mut self, line: u64, most: usize) -> Option<(oneshot::Receiver<Turn>, Place)> {
        let room = most - self.waiting.len();
        let length = self.lines.get(&line).map_or(0, |it| it.length);
        if length >= room {
            return None;
        }
        let own = self.lines.entry(line).or_default();
        own.length += 1;
        own.last = own.last.max(self.now) + 1;
        self.arrivals += 1;
        let place = (own.last, self.arrivals);
        let (turn, receiver) = oneshot::channel();
        self.waiting.insert(place, Waiting { line, turn });
        Some((receiver, place))
    }

    fn shorten(&mut self, line: u64) {
        if let Some(own) = self.lines.get_mut(&line) {
            own.length -= 1;
            if own.length == 0 {
                self.lines.remove(&line);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.give();
        }
    }
}

/// Somebody who waits, or has its turn by now.
struct Leaving<'a> {
    turns: &'a Turns,
    place: Place,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock();
        if let Some(gone) = state.waiting.remove(&self.place) {
            state.shorten(gone.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::JoinSet;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn is_empty(turns: &Turns) -> bool {
        let state = turns.state.lock();
        state.waiting.is_empty() && state.lines.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_flooded_costs_another_one_turn() {
        let turns = Turns::new(1, 1000);
        let first = turns.take("first", PATIENCE).await.expect("it is free");
        let mut order = Vec::new();
        let mut waiting = JoinSet::new();
        for (name, count) in [("flood", 400), ("a", 2), ("b", 1)] {
            for _ in 0..count {
                let turns = Arc::clone(&turns);
                waiting.spawn(async move { (name, turns.take(name, PATIENCE).await) });
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        while let Some(Ok((name, turn))) = waiting.join_next().await {
            order.push(name);
            drop(turn.expect("nobody waits too long"));
        }
        let at = |name| {
            order
                .iter()
                .position(|it| *it == name)
                .expect("it had a turn")
        };
        assert!(at("a") <= 2 && at("b") <= 2, "{:?}", &order[..5]);
        let second = order.iter().rposition(|it| *it == "a").expect("two turns");
        assert!(second <= 5, "{:?}", &order[..8]);
        assert_eq!(order.len(), 403);
        assert!(is_empty(&turns));
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_takes_half_of_the_room_and_leaves_room_for_others() {
        let turns = Turns::new(1, 100);
        let _taken = turns.take("first", PATIENCE).await.expect("it is free");
        let mut waiting: Vec<_> = (0..200)
            .map(|_| turns.take("flood", PATIENCE).boxed())
            .collect();
        let refused = waiting
            .iter_mut()
            .filter_map(|it| it.now_or_never())
            .inspect(|turn| assert!(turn.is_none()));
        assert_eq!(refused.count(), 150);
        let mut other = Box::pin(turns.take("other", PATIENCE));
        assert!((&mut other).now_or_never().is_none(), "it waits");
        drop((waiting, other));
        assert!(is_empty(&turns), "who goes away leaves no trace");
    }

    #[tokio::test(start_paused = true)]
    async fn no_turn_is_lost_or_made_whoever_gives_up() {
        const AT_ONCE: usize = 3;
        let turns = Turns::new(AT_ONCE, 500);
        let mut random = fastrand::Rng::with_seed(7);
        let mut asking = JoinSet::new();
        for _ in 0..2000 {
            let (turns, line) = (Arc::clone(&turns), random.u8(..5));
            let [patience, work, life] = [(); 3].map(|()| Duration::from_millis(random.u64(1..40)));
            asking.spawn(timeout(life, async move {
                let _turn = turns.take(line, patience).await?;
                tokio::time::sleep(work).await;
                Some(())
            }));
            if random.bool() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let mut served = 0;
        while let Some(asked) = asking.join_next().await {
            served += usize::from(matches!(asked, Ok(Ok(Some(())))));
        }
        assert!(served > 100, "{served}");
        assert!(is_empty(&turns));
        assert_eq!(turns.state.lock().free, AT_ONCE);
    }
}
