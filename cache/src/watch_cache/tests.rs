use futures_util::Stream;

use crate::encoding::EventType;
use crate::object::Object;

use super::*;
use crate::testing::{cache_of, cache_with, drain, pod, pods, rv, select};

fn listed(snapshot: &Snapshot) -> Vec<String> {
    let everything = select("");
    let entry = |object: &Arc<Object>| format!("{}@{}", object.key(), object.resource_version());
    snapshot.iter(&everything).map(entry).collect()
}

#[tokio::test(start_paused = true)]
async fn repeats_and_old_news_change_nothing() {
    let (mut writer, cache) = cache_of(10, &[("a/x", 5)]);
    writer.put("a/y", 12);
    let before = (
        listed(&cache.snapshot().unwrap()),
        cache.stats().history_events,
    );
    writer.put("a/y", 12);
    writer.put("a/x", 11);
    writer.delete("a/x", 11);
    writer.delete("a/y", 12);
    writer.bookmark(11);
    assert_eq!(
        (
            listed(&cache.snapshot().unwrap()),
            cache.stats().history_events
        ),
        before
    );
    assert_eq!(cache.resource_version(), rv(12));
}

/// Writes down what it is told, and when it is woken.
#[derive(Debug, Default)]
struct Diary(Mutex<Vec<String>>);

impl Diary {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }

    fn note(&self, what: &str, object: &Object) {
        let entry = format!("{what} {}@{}", object.key(), object.resource_version());
        self.0.lock().push(entry);
    }
}

impl Observer for Diary {
    fn upserted(&self, object: &Object) {
        self.note("upserted", object);
    }

    fn removed(&self, object: &Object) {
        self.note("removed", object);
    }

    fn closed(&self) {
        self.0.lock().push("closed".into());
    }
}

impl std::task::Wake for Diary {
    fn wake(self: Arc<Self>) {
        self.0.lock().push("woken".into());
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_hears_of_a_change_before_anybody_is_woken() {
    let diary = Arc::<Diary>::default();
    let options = Options {
        observer: Some(Arc::clone(&diary) as _),
        ..Options::default()
    };
    let (mut writer, cache) = cache_with(options, 10, &[("a/x", 5), ("a/y", 6)]);
    assert_eq!(diary.take(), ["closed", "upserted a/x@5", "upserted a/y@6"]);

    let mut watcher = cache.watch_after("", 10);
    let waker = std::task::Waker::from(Arc::clone(&diary));
    let mut wait = || {
        let mut context = std::task::Context::from_waker(&waker);
        while std::pin::Pin::new(&mut watcher)
            .poll_next(&mut context)
            .is_ready()
        {}
    };
    wait();
    writer.put("a/z", 11);
    assert_eq!(diary.take(), ["upserted a/z@11", "woken"]);
    wait();
    writer.delete("a/x", 12);
    assert_eq!(diary.take(), ["removed a/x@5", "woken"]);
    wait();
    writer
        .replace(rv(20), [pod("a/y", 6), pod("a/z", 15)])
        .unwrap();
    assert_eq!(diary.take(), ["upserted a/z@15", "woken"]);
    drop(writer);
    assert_eq!(diary.take(), ["closed"]);
}

#[tokio::test(start_paused = true)]
async fn several_deletions_may_share_a_version() {
    let (mut writer, cache) = cache_of(10, &[("a/x", 5), ("a/y", 6)]);
    writer.delete("a/x", 11);
    writer.delete("a/y", 11);
    writer.delete("a/y", 11);
    assert!(cache.snapshot().unwrap().is_empty());
    assert_eq!(cache.stats().events_received, 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_before_the_first_sync() {
    let (mut writer, cache) = WatchCache::new(pods(), Encoding::Json, Options::default());
    writer.put("a/x", 5);
    writer.bookmark(6);
    assert!(!cache.is_ready());
    assert_eq!(cache.snapshot().unwrap_err(), CacheError::NotReady);
    writer.replace(rv(4), [pod("a/x", 4)]).unwrap();
    cache.ready().await;
    assert_eq!(listed(&cache.snapshot().unwrap()), ["a/x@4"]);
}

#[tokio::test(start_paused = true)]
async fn any_past_version_within_the_window_can_be_rebuilt() {
    let (mut writer, cache) = cache_of(10, &[("a/x @n1", 5)]);
    let mut states = vec![(10, listed(&cache.snapshot().unwrap()))];
    for version in 11..60 {
        let what = format!("a/p{} @n{}", version % 7, version % 3);
        if version % 4 == 0 {
            writer.delete(&what, version)
        } else {
            writer.put(&what, version)
        }
        states.push((version, listed(&cache.snapshot().unwrap())));
    }
    for (version, state) in states {
        let past = cache.snapshot_at(rv(version)).unwrap();
        assert_eq!(
            (past.resource_version(), listed(&past)),
            (rv(version), state)
        );
    }
    let past = |version| cache.snapshot_at(rv(version)).map(drop);
    assert_eq!(
        past(9),
        Err(CacheError::Expired {
            requested: rv(9),
            oldest: rv(11)
        })
    );
    let (requested, current) = (rv(60), rv(59));
    assert_eq!(
        past(60),
        Err(CacheError::ResourceVersionTooLarge { requested, current })
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_version_ends_when_it_comes_or_time_is_up() {
    let (mut writer, cache) = cache_of(10, &[]);
    let wait = |version| cache.wait_until_fresh(rv(version), Duration::from_secs(3));
    assert_eq!(wait(10).await, Ok(()));
    let (requested, current) = (rv(12), rv(10));
    assert_eq!(
        wait(12).await,
        Err(CacheError::ResourceVersionTooLarge { requested, current })
    );
    let (waited, ()) = tokio::join!(wait(12), async { writer.bookmark(12) });
    assert_eq!(waited, Ok(()));
    let (waited, ()) = tokio::join!(wait(99), async { drop(writer) });
    assert_eq!(waited, Err(CacheError::NotReady));
}

#[tokio::test(start_paused = true)]
async fn outgrowing_the_budget_closes_the_cache() {
    let options = Options {
        objects_bytes: 20_000,
        ..Options::default()
    };
    let (mut writer, cache) = cache_with(options, 10, &[]);
    let error = (11..).find_map(|version| {
        let object = pod(&format!("a/p{version}"), version);
        writer.apply(EventType::Added, object).err()
    });
    assert!(error.is_some_and(|error| error.bytes > 20_000));
    assert!(!cache.is_ready() && !cache.stats().ready);
    assert_eq!(cache.snapshot().unwrap_err(), CacheError::NotReady);
    assert_eq!(cache.stats().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn history_keeps_within_its_bytes_frames_included() {
    let options = Options {
        history_bytes: 50_000,
        ..Options::default()
    };
    let (mut writer, cache) = cache_with(options, 10, &[]);
    let mut watcher = cache.watch_after("", 10);
    for version in 11..500 {
        writer.put("a/x", version);
        assert_eq!(crate::testing::drain(&mut watcher).len(), 1);
        let bytes = cache.stats().history_bytes;
        assert!(bytes < 50_000 + 2_000, "{bytes}");
    }
    assert!(cache.stats().history_events > 20);
}

#[tokio::test(start_paused = true)]
async fn history_younger_than_75_seconds_stays_whatever_the_setting_says() {
    let options = Options {
        history_age: Duration::from_secs(1),
        ..Options::default()
    };
    let (mut writer, cache) = cache_with(options, 10, &[]);
    writer.put("a/x", 11);
    tokio::time::advance(Duration::from_secs(74)).await;
    writer.put("a/x", 12);
    assert_eq!(cache.stats().history_events, 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    writer.bookmark(13);
    assert_eq!(cache.stats().history_events, 1);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_object_is_shared_across_a_relist() {
    let (mut writer, cache) = cache_of(10, &[("a/x", 5), ("a/y", 6)]);
    let before = Arc::clone(cache.snapshot().unwrap().get("a", "x").unwrap());
    writer
        .replace(rv(20), [pod("a/x", 5), pod("a/y", 19)])
        .unwrap();
    let after = cache.snapshot().unwrap();
    assert!(Arc::ptr_eq(&before, after.get("a", "x").unwrap()));
    assert_eq!(after.get("a", "y").unwrap().resource_version(), rv(19));
}

#[tokio::test(start_paused = true)]
async fn the_last_use_is_the_last_read_or_watch() {
    let (_writer, cache) = cache_of(10, &[]);
    let opened = cache.last_used();
    tokio::time::advance(Duration::from_secs(60)).await;
    cache.stats();
    assert_eq!(cache.last_used(), opened);
    cache.snapshot().unwrap();
    assert_eq!(cache.last_used() - opened, Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn events_applied_together_are_seen_together_and_in_order() {
    let (mut writer, cache) = cache_of(10, &[("a/x", 5), ("a/y", 6)]);
    let before = cache.snapshot().unwrap();
    let mut watcher = cache.watch_after("", 10);
    let mut progress = cache.shared.progress.subscribe();
    progress.mark_unchanged();
    let events = [
        (EventType::Modified, pod("a/x", 11)),
        (EventType::Modified, pod("a/x", 11)), // a repeat
        (EventType::Added, pod("a/z", 12)),
        (EventType::Modified, pod("a/x", 13)),
        (EventType::Deleted, pod("a/y", 14)),
        (EventType::Deleted, pod("a/z", 14)),
    ];
    writer.apply_all(events).unwrap();
    assert_eq!(*progress.borrow_and_update(), Some(rv(14)));
    assert_eq!(
        drain(&mut watcher),
        [
            "MODIFIED a/x@11",
            "ADDED a/z@12",
            "MODIFIED a/x@13",
            "DELETED a/y@14",
            "DELETED a/z@14"
        ]
    );
    let after = cache.snapshot().unwrap();
    assert_eq!((after.len(), after.resource_version()), (1, rv(14)));
    assert_eq!(after.get("a", "x").unwrap().resource_version(), rv(13));
    assert_eq!((before.len(), before.resource_version()), (2, rv(10)));
    assert_eq!(before.get("a", "x").unwrap().resource_version(), rv(5));
    let between = cache.snapshot_at(rv(12)).unwrap();
    assert_eq!(between.len(), 3, "history has every step");
    writer
        .apply_all([(EventType::Modified, pod("a/x", 13))])
        .unwrap();
    assert!(!progress.has_changed().unwrap(), "a repeat is no news");
}
