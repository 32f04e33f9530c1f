use std::sync::atomic::AtomicUsize;
use std::task::{Context, Wake};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::testing::{cache_with, drain, fold_until_the_end, lines};
use crate::view::TICK;
use crate::watch_cache::{Options, WatchCache, Writer};

fn cache_on(workers: &Workers) -> (Writer, WatchCache) {
    let options = Options {
        workers: workers.clone(),
        ..Options::default()
    };
    cache_with(options, 10, &[])
}

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_woken_once_however_many_events_and_watches_wait() {
    let (workers, mut dispatchers) = Workers::new(1);
    let (mut writer, cache) = cache_on(&workers);
    let counter = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&counter));
    let mut context = Context::from_waker(&waker);
    let mut running = Box::pin(dispatchers.remove(0).run());
    for round in 1..4 {
        assert!(running.poll_unpin(&mut context).is_pending());
        let watches: Vec<_> = (0..9).map(|_| cache.watch_after("", 10)).collect();
        (0..5).for_each(|n| writer.put("a/x", 10 * round + n + 1));
        assert_eq!(counter.0.load(Ordering::Relaxed) as u64, round);
        let ready = workers.each[0].ready.lock();
        assert_eq!(ready.as_ref().map(Vec::len), Some(1));
        drop((ready, watches));
    }
}

#[tokio::test(start_paused = true)]
async fn watches_of_a_worker_that_ended_are_served_by_the_writer() {
    let (workers, mut dispatchers) = Workers::new(2);
    let (mut writer, cache) = cache_on(&workers);
    let (first, second) = (dispatchers.remove(0), dispatchers.remove(0));
    let here = first.enter();
    assert_eq!(workers.here(), Some(0));
    let mut of_first = cache.watch_after("", 10);
    drop(here);
    assert_eq!(workers.here(), None);
    let here = second.enter();
    let mut of_second = cache.watch_after("", 10);
    drop(here);
    writer.put("a/x", 11);
    assert_eq!(drain(&mut of_first), [""; 0]);
    drop(first);
    assert_eq!(
        drain(&mut of_first),
        ["ADDED a/x@11"],
        "what was left is told"
    );
    for version in 12..15 {
        writer.put("a/x", version);
        let seen = drain(&mut of_first);
        assert_eq!(seen, [format!("MODIFIED a/x@{version}")]);
    }
    assert_eq!(drain(&mut of_second), [""; 0]);
    second.dispatch();
    assert_eq!(drain(&mut of_second).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_worker_keeps_the_time_of_its_watches_until_it_ends() {
    let (workers, mut dispatchers) = Workers::new(1);
    let (mut writer, cache) = cache_on(&workers);
    let running = tokio::spawn(dispatchers.remove(0).run());
    tokio::task::yield_now().await;
    let begin = Instant::now();
    let mut watcher = cache.watch_list("", 100);
    writer.put("a/x", 11);
    let mut seen = Vec::new();
    let late = |seconds: u64| begin.elapsed().checked_sub(Duration::from_secs(seconds));
    for seconds in [0, 0, 1, 61] {
        seen.extend(lines(&watcher.next().await.unwrap()));
        assert!(late(seconds).is_some_and(|late| late <= 2 * TICK));
    }
    let news = ["ADDED a/x@11", "BOOKMARK @11", "BOOKMARK @11"];
    assert_eq!(seen, [&["BOOKMARK @10 end"], &news[..]].concat());
    running.abort();
    let _cancelled = running.await;
    assert_eq!(lines(&watcher.next().await.unwrap()), ["BOOKMARK @11"]);
    assert!(late(98).is_some_and(|late| late <= Duration::from_millis(10)));
    assert_eq!(watcher.next().await, None);
    assert!(late(100).is_some_and(|late| late <= Duration::from_millis(10)));
}

/// A worker thread, with readers that fold what they see until `z/end` has come.
fn work(dispatcher: Dispatcher, workers: &Workers, cache: &WatchCache) -> Vec<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let dispatching = tokio::spawn(dispatcher.run());
        tokio::task::yield_now().await;
        assert!(workers.here().is_some());
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            readers.spawn(fold_until_the_end(cache.clone(), "ns=z"));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let views = readers.join_all().await;
        dispatching.abort();
        views
    })
}

#[test]
fn watches_on_worker_threads_have_no_gap_and_no_double() {
    let (workers, dispatchers) = Workers::new(2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let (mut writer, cache) = cache_on(&workers);
    std::thread::scope(|scope| {
        let threads: Vec<_> = dispatchers
            .into_iter()
            .map(|dispatcher| scope.spawn(|| work(dispatcher, &workers, &cache)))
            .collect();
        let mut version = 10;
        while !threads.iter().all(|thread| thread.is_finished()) {
            version += 1;
            let what = format!("z/p{} @n{}", version % 13, version % 2);
            match version % 5 {
                0 => writer.delete(&what, version),
                _ => writer.put(&what, version),
            }
            if version == 800 {
                writer.put("z/end", version + 1);
                break;
            }
            std::thread::yield_now();
        }
        let snapshot = cache.snapshot().unwrap();
        let everything = crate::testing::select("");
        let objects = snapshot.iter(&everything);
        let listed: Vec<_> = objects
            .map(|object| format!("{}@{}", object.key(), object.resource_version()))
            .collect();
        for thread in threads {
            for view in thread.join().unwrap() {
                assert_eq!(view, listed);
            }
        }
    });
}
