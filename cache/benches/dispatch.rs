//! What an event costs the writer and a reader, by number of watchers.
//!
//! Indexed watchers of other objects must not matter; watchers of everything cost in proportion.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;
use watershed_cache::encoding::{Encoding, EventType};
use watershed_cache::selector::{FieldSelector, LabelSelector};
use watershed_cache::{
    FieldSet, Object, Options, Resource, ResourceVersion, Selection, WatchCache, WatchStart,
    Watcher, Writer,
};

fn pods() -> Arc<Resource> {
    Arc::new(Resource {
        group: "".into(),
        version: "v1".into(),
        resource: "pods".into(),
        kind: "Pod".into(),
        namespaced: true,
        custom: false,
        fields: FieldSet::builtin("", "v1", "pods").expect("pods are built in"),
    })
}

/// A pod of about a kilobyte.
fn pod(name: usize, node: usize, version: u64) -> Object {
    let filler = "x".repeat(800);
    let json = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"p{name}","namespace":"a","resourceVersion":"{version}","annotations":{{"filler":"{filler}"}}}},"spec":{{"nodeName":"n{node}"}},"status":{{}}}}"#
    );
    Object::decode(Encoding::Json, &pods(), json.as_bytes()).expect("a pod decodes")
}

fn select(fields: &str) -> Selection {
    let fields = FieldSelector::parse(fields).expect("a field selector");
    Selection {
        namespace: None,
        name: None,
        labels: LabelSelector::parse("").expect("an empty selector"),
        fields: fields.bind(&pods().fields).expect("pods have these fields"),
    }
}

fn cache(objects: usize) -> (Writer, WatchCache) {
    let (mut writer, cache) = WatchCache::new(pods(), Encoding::Json, Options::default());
    let objects = (0..objects).map(|n| pod(n, n, 1));
    writer
        .replace(ResourceVersion::new(1), objects)
        .expect("within the budget");
    (writer, cache)
}

/// Opens watchers and reads them dry, so that each is parked.
fn park(cache: &WatchCache, fields: impl Fn(usize) -> String, count: usize) -> Vec<Watcher> {
    let deadline = Instant::now() + Duration::from_secs(3600);
    let watchers = (0..count).map(|n| {
        let start = WatchStart::Now;
        let mut watcher = cache
            .watch(select(&fields(n)), start, false, deadline)
            .expect("the cache is ready");
        assert!(watcher.next().now_or_never().is_none());
        watcher
    });
    watchers.collect()
}

fn dispatch(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    let mut group = criterion.benchmark_group("dispatch");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for count in [1_000, 100_000] {
        let (mut writer, cache) = cache(1_000);
        let mut watchers = park(&cache, |n| format!("spec.nodeName=n{n}"), count);
        let mut version = 1;
        group.bench_function(
            BenchmarkId::new("apply_to_one_of_indexed", count),
            |bencher| {
                bencher.iter(|| {
                    version += 1;
                    writer
                        .apply(EventType::Modified, pod(7, 7, version))
                        .expect("within the budget");
                    black_box(watchers[7].next().now_or_never())
                });
            },
        );
    }
    for count in [1_000, 10_000] {
        let (mut writer, cache) = cache(1_000);
        let mut watchers = park(&cache, |_| String::new(), count);
        let mut version = 1;
        group.bench_function(BenchmarkId::new("broadcast_to_all", count), |bencher| {
            bencher.iter(|| {
                version += 1;
                writer
                    .apply(EventType::Modified, pod(7, 7, version))
                    .expect("within the budget");
                for watcher in &mut watchers {
                    black_box(watcher.next().now_or_never());
                }
            });
        });
    }
    let (_writer, cache) = cache(10_000);
    for (what, fields) in [
        ("list_all_of_10000", ""),
        ("list_one_node_of_10000", "spec.nodeName=n7"),
    ] {
        let selection = select(fields);
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                let snapshot = cache.snapshot().expect("the cache is ready");
                black_box(
                    snapshot
                        .iter(&selection)
                        .map(|object| object.bytes().len())
                        .sum::<usize>(),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
