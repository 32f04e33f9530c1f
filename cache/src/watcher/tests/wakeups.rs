//! Who is woken, and what threads may do to each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;
use crate::testing::fold_until_the_end;

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Parks a watch that has nothing to say; how often it is woken from then on.
pub(super) fn wakes(mut watcher: Watcher) -> (impl Fn() -> usize, Watcher) {
    let counter = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&counter));
    let polled = watcher.poll_next_unpin(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    (move || counter.0.load(Ordering::Relaxed), watcher)
}

#[tokio::test(start_paused = true)]
async fn an_event_wakes_only_those_who_may_care_and_once() {
    let (mut writer, cache) = cache_of(10, &[("a/x @n1", 5)]);
    let wakes_of = |what: &str| {
        let (count, watcher) = wakes(cache.watch_after(what, 10));
        (what.to_owned(), count, watcher)
    };
    let watches = [
        "",
        "ns=a",
        "ns=b",
        "ns=a name=x",
        "ns=a name=y",
        "node=n1",
        "node=n2",
        "node=n3",
    ];
    let watches = watches.map(wakes_of);
    writer.put("a/x @n2", 11);
    writer.put("a/x @n2", 12);
    for (what, count, _watcher) in &watches {
        let cares = !["ns=b", "ns=a name=y", "node=n3"].contains(&what.as_str());
        assert_eq!(count(), usize::from(cares), "{what}");
    }
}

#[test]
fn no_wakeup_is_lost_between_two_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let (mut writer, cache) = cache_of(10, &[]);
        let reader = tokio::spawn(async move {
            let (mut watcher, mut seen) = (cache.watch_after("", 10), 0);
            while seen < 3_000 {
                seen += watcher
                    .next()
                    .await
                    .expect("no end in sight")
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count();
            }
        });
        for version in 11..3_011 {
            writer.put("a/x", version);
            if version % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::timeout(Duration::from_secs(30), reader)
            .await
            .expect("woken")
            .unwrap();
    });
}

#[test]
fn watches_opened_while_another_thread_writes_have_no_gap_and_no_double() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let (mut writer, cache) = cache_of(10, &[]);
        let mut readers = tokio::task::JoinSet::new();
        for version in 11..1500 {
            let what = format!("z/p{} @n{}", version % 13, version % 2);
            let is_deletion = version % 5 == 0;
            if is_deletion {
                writer.delete(&what, version)
            } else {
                writer.put(&what, version)
            }
            if version % 50 == 0 {
                readers.spawn(fold_until_the_end(cache.clone(), "ns=z"));
            }
            if version % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        writer.put("z/end", 2000);
        let (snapshot, everything) = (cache.snapshot().unwrap(), select(""));
        let objects = snapshot.iter(&everything);
        let listed: Vec<_> = objects
            .map(|object| format!("{}@{}", object.key(), object.resource_version()))
            .collect();
        while let Some(view) = readers.join_next().await {
            assert_eq!(view.unwrap(), listed);
        }
    });
}
