//! Who gets a place, who waits, who is sent away.

use std::collections::HashSet;

use tokio::{task::JoinSet, time::Instant};

use super::*;

/// Four places: three for everybody, one kept for nodes.
const FOUR: u64 = 4 * HELD_MAX;

struct Subject {
    budget: ListBudget,
    held: Gauge,
    refused: Family<ReasonLabels, Counter>,
}

impl Subject {
    fn new() -> Self {
        let (held, refused) = (Gauge::default(), Family::default());
        Self {
            budget: ListBudget::new(held.clone(), refused.clone()),
            held,
            refused,
        }
    }

    async fn collection(&self) -> Result<Place, Busy> {
        self.budget
            .admit(u64::MAX, Priority::Collection, FOUR)
            .await
    }

    async fn node(&self) -> Result<Place, Busy> {
        self.budget.admit(u64::MAX, Priority::Node, FOUR).await
    }

    async fn collections(&self, count: usize) -> Vec<Place> {
        let mut places = Vec::new();
        for _ in 0..count {
            places.push(self.collection().await.expect("there is a place"));
        }
        places
    }

    fn refused(&self, reason: &'static str) -> u64 {
        self.refused.get_or_create(&ReasonLabels { reason }).get()
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_any_length_takes_what_it_can_hold_and_gives_it_back() {
    let subject = Subject::new();
    let long = subject.collection().await.unwrap();
    let short = subject.budget.admit(100, Priority::Node, FOUR);
    let short = short.await.unwrap();
    assert_eq!(subject.held.get(), HELD_MAX as i64 + 100);
    drop(long);
    assert_eq!(subject.held.get(), 100);
    drop(short);
    assert_eq!(subject.held.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn collections_leave_a_quarter_to_nodes() {
    let subject = Subject::new();
    let places = subject.collections(3).await;
    assert!(subject.collection().await.is_err());
    let node = subject.node().await;
    assert!(node.is_ok());
    assert!(subject.node().await.is_err(), "the quarter is taken too");
    assert_eq!(
        (subject.refused("collection"), subject.refused("node")),
        (1, 1)
    );
    drop(places);
    assert!(subject.collection().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_what_is_kept_for_it_only_where_nothing_else_is_left() {
    let subject = Subject::new();
    let nodes = [
        subject.node().await,
        subject.node().await,
        subject.node().await,
    ];
    assert!(nodes.iter().all(Result::is_ok));
    assert!(subject.collection().await.is_err());
    assert!(subject.node().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_waits_for_one_and_after_a_second_no_longer() {
    let subject = Subject::new();
    let mut places = subject.collections(3).await;
    let begun = Instant::now();
    assert!(subject.collection().await.is_err());
    assert_eq!(begun.elapsed(), WAIT);

    let freed = async {
        tokio::time::sleep(WAIT / 2).await;
        places.pop();
    };
    let (waited, ()) = tokio::join!(subject.collection(), freed);
    assert!(waited.is_ok());
    assert_eq!(begun.elapsed(), WAIT + WAIT / 2);
}

#[tokio::test(start_paused = true)]
async fn those_sent_away_together_do_not_come_back_together() {
    let subject = Subject::new();
    let _places = subject.collections(3).await;
    let refusals = futures_util::future::join_all((0..200).map(|_| subject.collection())).await;
    let mut seconds = HashSet::new();
    for refusal in refusals {
        seconds.insert(refusal.expect_err("there is no place").retry_after);
    }
    assert!(seconds.iter().all(|it| status::RETRY_AFTER.contains(it)));
    assert!(seconds.len() > 4, "{seconds:?}");
    assert_eq!(subject.refused("collection"), 200);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_number_that_may_wait_nobody_does() {
    let subject = Arc::new(Subject::new());
    let _places = subject.collections(3).await;
    let mut waiting = JoinSet::new();
    for _ in 0..WAITING_MAX {
        let subject = Arc::clone(&subject);
        waiting.spawn(async move { subject.collection().await.is_ok() });
    }
    while subject.budget.waiting.load(Ordering::Relaxed) < WAITING_MAX {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    assert!(subject.collection().await.is_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    while let Some(admitted) = waiting.join_next().await {
        assert!(!admitted.unwrap());
    }
    let begun = Instant::now();
    assert!(subject.collection().await.is_err());
    assert_eq!(begun.elapsed(), WAIT, "they are gone");
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_is_for_those_who_come_after_it() {
    let subject = Subject::new();
    let before = subject.collections(3).await;
    let larger = |priority| subject.budget.admit(u64::MAX, priority, 2 * FOUR);
    let mut after = Vec::new();
    for _ in 0..6 {
        after.push(larger(Priority::Collection).await.expect("there is room"));
    }
    assert!(larger(Priority::Collection).await.is_err());
    assert_eq!(subject.held.get(), 9 * HELD_MAX as i64);
    drop((before, after));
    assert_eq!(subject.held.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_growing_place_takes_what_collections_may_take_and_no_more() {
    let subject = Subject::new();
    let mut place = subject.budget.growing(FOUR);
    assert!(place.grow(3 * HELD_MAX as usize));
    assert!(!place.grow(1));
    assert!(!place.grow(usize::MAX));
    assert_eq!(subject.held.get(), 3 * HELD_MAX as i64);
    assert!(subject.collection().await.is_err());
    drop(place);
    assert!(subject.collection().await.is_ok());
    assert_eq!(subject.held.get(), 0);
}
