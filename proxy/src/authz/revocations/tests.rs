use std::{sync::atomic::AtomicUsize, task::Wake};

use tokio::time::advance;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::authz::tests::live;

pub(in crate::authz) const INTERVAL: Duration = Duration::from_secs(300);

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// A connection, and how often it was woken.
struct Connection {
    member: Member,
    wakes: Arc<Wakes>,
}

/// Running revocations, every so often.
pub(in crate::authz) struct Running {
    pub(in crate::authz) own: Arc<Revocations>,
    pub(in crate::authz) live: watch::Sender<Arc<Live>>,
    _task: AbortOnDropHandle<()>,
}

impl Running {
    pub(in crate::authz) fn every(interval: Duration) -> Self {
        let own = Arc::<Revocations>::default();
        let (live, receiver) = watch::channel(live(interval));
        let _task = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&own).run(receiver)));
        Self { own, live, _task }
    }

    fn connection(&self, node: Option<&str>, basis: Basis) -> Connection {
        let wakes = Arc::<Wakes>::default();
        let member = self.own.join(Arc::clone(&wakes).into());
        member.rest_on(basis);
        if let Some(node) = node {
            member.use_node(node);
        }
        Connection { member, wakes }
    }
}

/// Lets the task run.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

pub(in crate::authz) async fn pass(time: Duration) {
    settle().await;
    advance(time).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_something_is_seen_at_once_and_woken_once_for_many_losses() {
    let running = Running::every(INTERVAL);
    let own = running.connection(Some("n1"), Basis::Graph);
    let also = running.connection(Some("n1"), Basis::Either);
    let static_rights = running.connection(Some("n1"), Basis::Nothing);
    let other = running.connection(Some("n2"), Basis::Graph);
    let user = running.connection(None, Basis::Roles);
    let all = [&own, &also, &static_rights, &other, &user];
    let bases = [
        Basis::Graph,
        Basis::Either,
        Basis::Nothing,
        Basis::Graph,
        Basis::Roles,
    ];
    settle().await;
    let marks = || {
        let each = all.iter().zip(bases);
        let marks = each.map(|(it, basis)| it.member.marks().lost(basis));
        marks.collect::<Vec<_>>()
    };
    let before = marks();
    for _ in 0..1000 {
        running.own.revoked(Revoked::Node("n1".into()));
    }
    running.own.revoked(Revoked::Node("n3".into()));
    running.own.revoked(Revoked::Nothing);
    let after = marks();
    let concerned = before.iter().zip(&after).map(|(a, b)| a != b);
    assert_eq!(
        concerned.collect::<Vec<_>>(),
        [true, true, false, false, false]
    );
    settle().await;
    assert_eq!(own.wakes.take(), 0, "what comes at once is gathered");
    pass(GATHERING).await;
    assert_eq!(all.map(|it| it.wakes.take()), [1, 1, 0, 0, 0]);

    running.own.revoked(Revoked::Node("n1".into()));
    pass(GATHERING).await;
    assert_eq!(all.map(|it| it.wakes.take()), [1, 1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_anybody_may_have_lost_wakes_those_that_may_and_so_many_at_once() {
    let running = Running::every(INTERVAL);
    let count = 2 * SWEPT_AT_ONCE + 10;
    let nodes: Vec<_> = (0..count)
        .map(|_| running.connection(None, Basis::Graph))
        .collect();
    let users: Vec<_> = (0..count)
        .map(|_| running.connection(None, Basis::Roles))
        .collect();
    let woken = |all: &[Connection]| all.iter().map(|it| it.wakes.take()).sum::<usize>();
    settle().await;
    running.own.revoked(Revoked::AnyNode);
    for left in [10 + SWEPT_AT_ONCE, 10, 0] {
        pass(GATHERING).await;
        let now = woken(&nodes);
        assert!(now <= count - left && now > 0, "{now} with {left} left");
    }
    assert_eq!(woken(&users), 0);

    let before = users[0].member.marks().lost(Basis::Roles);
    running.own.revoked(Revoked::AnyUser);
    assert_ne!(users[0].member.marks().lost(Basis::Roles), before);
    let mut all = 0;
    while all < count {
        pass(GATHERING).await;
        let now = woken(&users);
        // The turns that come meanwhile are few.
        assert!(now <= SWEPT_AT_ONCE + 10, "{now}");
        assert!(now > 0, "all are woken in the end, {all} were");
        all += now;
    }
}

#[tokio::test(start_paused = true)]
async fn the_turn_of_each_connection_comes_once_in_an_interval_and_spread() {
    const COUNT: usize = 600;
    let running = Running::every(INTERVAL);
    let all: Vec<_> = (0..COUNT)
        .map(|_| running.connection(None, Basis::Nothing))
        .collect();
    let total = || {
        all.iter()
            .map(|it| it.wakes.0.load(Ordering::SeqCst))
            .sum::<usize>()
    };
    let (mut before, mut most) = (0, 0);
    for _ in 0..INTERVAL.as_secs() {
        pass(Duration::from_secs(1)).await;
        most = most.max(total() - before);
        before = total();
    }
    assert!(most <= 4, "{most} had their turn in the same second");
    let each: Vec<usize> = all.iter().map(|it| it.wakes.take()).collect();
    let once = each.iter().filter(|turns| **turns == 1).count();
    assert!(
        once >= COUNT - 4,
        "{once} of {COUNT} had one turn: {each:?}"
    );
    let moved = all.iter().filter(|it| it.member.marks().turns() > 0);
    assert!(moved.count() >= COUNT - 4);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_woken_while_it_is_off_and_a_new_interval_holds_at_once() {
    let running = Running::every(Duration::ZERO);
    let own = running.connection(Some("n1"), Basis::Either);
    for revoked in [
        Revoked::Node("n1".into()),
        Revoked::AnyNode,
        Revoked::AnyUser,
    ] {
        running.own.revoked(revoked);
        pass(INTERVAL).await;
    }
    assert_eq!(own.wakes.take(), 0);
    running.live.send_replace(live(Duration::from_secs(10)));
    for _ in 0..15 {
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(own.wakes.take(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_left_is_not_kept() {
    let running = Running::every(INTERVAL);
    let stays = running.connection(Some("n1"), Basis::Graph);
    for _ in 0..10 {
        let leaves = running.connection(Some("n1"), Basis::Graph);
        leaves.member.use_node("n2");
        leaves.member.use_node("n2");
        drop(leaves);
    }
    {
        let state = running.own.state.lock();
        assert_eq!(state.holders.len(), 2);
        assert_eq!(state.by_node.len(), 1);
        assert_eq!(state.by_node["n1"].len(), 1);
    }
    running.own.revoked(Revoked::Node("n1".into()));
    pass(GATHERING).await;
    assert_eq!(stays.wakes.take(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_loss_between_the_question_and_the_watch_is_not_missed() {
    let running = Running::every(INTERVAL);
    let marks = running.own.marks();
    let own = running.connection(Some("n1"), Basis::Graph);
    let bases = [Basis::Nothing, Basis::Graph, Basis::Roles, Basis::Either];
    let current = |before| bases.map(|basis| own.member.is_current(before, basis));
    assert_eq!(current(marks), [true; 4]);
    running.own.revoked(Revoked::AnyUser);
    assert_eq!(current(marks), [true, true, false, false]);
    running.own.revoked(Revoked::Node("n9".into()));
    assert_eq!(current(marks), [true, false, false, false]);
    assert_eq!(current(running.own.marks()), [true; 4]);
}
