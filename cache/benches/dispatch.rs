//! What an event costs the writer and its readers, by number of watchers: indexed watchers of other
//! objects must not matter; watchers of everything cost in proportion.

use std::hint::black_box;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;
use watershed_cache::encoding::EventType;
use watershed_cache::{WatchCache, WatchStart, Watcher};

use crate::case::{Case, Steps};
use crate::subject;

const OBJECTS: usize = 1_000;

pub(crate) fn cases() -> Vec<Case> {
    let indexed = |count: usize| {
        let name = format!("dispatch/to one of {count} indexed");
        let fields = |watcher| format!("spec.nodeName=node-{watcher:05}");
        Case::new(name, move || steps(count, fields, Some(7)))
    };
    let broadcast = |count: usize| {
        let name = format!("dispatch/to all of {count}");
        let case = Case::new(name, move || steps(count, |_| String::new(), None));
        case.of(count as u64).runs(10)
    };
    vec![
        indexed(1_000),
        indexed(100_000),
        broadcast(1_000),
        broadcast(10_000),
    ]
}

/// An update of pod 7, and the watcher it concerns, or all of them, read until dry.
fn steps(count: usize, fields: fn(usize) -> String, reader: Option<usize>) -> Steps {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let (mut writer, cache) = subject::cache(OBJECTS);
    let mut watchers = {
        let _inside = runtime.enter();
        park(&cache, fields, count)
    };
    let mut version = 1;
    Steps::objects(
        move || {
            version += 1;
            subject::pod(7, version)
        },
        move |object| {
            let _inside = runtime.enter();
            writer
                .apply(EventType::Modified, object)
                .expect("within the budget");
            let readers = reader.map_or(0..count, |one| one..one + 1);
            for watcher in &mut watchers[readers] {
                black_box(watcher.next().now_or_never());
            }
        },
    )
}

/// Opens watchers and reads them dry, so that each is parked.
fn park(cache: &WatchCache, fields: fn(usize) -> String, count: usize) -> Vec<Watcher> {
    let deadline = Instant::now() + Duration::from_secs(3600);
    let watchers = (0..count).map(|n| {
        let start = WatchStart::Now;
        let mut watcher = cache
            .watch(subject::select(&fields(n)), start, false, deadline)
            .expect("the cache is ready");
        assert!(watcher.next().now_or_never().is_none());
        watcher
    });
    watchers.collect()
}
