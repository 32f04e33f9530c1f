//! A fleet starts: thousands of consistent watches at once cost the apiserver what a few cost.
//!
//! Every watch here is the one a kubelet's informers of client-go 1.35 and later begin with. They
//! come over a few connections of one user, so that what is counted is the storm and not its
//! handshakes and reviews; `counting` starts whole kubelets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use watershed_loadtest::apiserver::{Apiserver, Options, resources::Resource};

use crate::{
    client::{Client, Event, JSON, Protocol},
    fixture::Fixture,
};

/// Kubelets that start, in turn.
const FEW: usize = 20;
const MANY: usize = 2000;

/// Watches that share a connection.
const PER_CONNECTION: usize = 100;

/// Probes of one resource that may begin in a second.
const PROBES_PER_SECOND: f64 = 50.0;

/// Pods, so many that a probe cannot list them whole.
const PODS: usize = 100;

/// What each kubelet watches, by resource: its own node, all services, its own pods.
const RESOURCES: [&str; 3] = ["nodes", "services", "pods"];

fn target(resource: &str, kubelet: usize) -> String {
    let selector = match resource {
        "nodes" => format!("&fieldSelector=metadata.name%3Dnode-{kubelet}"),
        "pods" => format!("&fieldSelector=spec.nodeName%3Dnode-{kubelet}"),
        _ => String::new(),
    };
    format!(
        "/api/v1/{resource}?allowWatchBookmarks=true&sendInitialEvents=true\
         &resourceVersionMatch=NotOlderThan&resourceVersion=&timeoutSeconds=300&watch=true{selector}"
    )
}

fn put_pod(apiserver: &Apiserver, resource: &Arc<Resource>, index: usize, value: u64) {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{index}"), "namespace": "default", "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"value": value.to_string()},
        },
        "spec": {"nodeName": format!("node-{}", index % FEW), "containers": []},
    });
    apiserver.store().load(resource, object);
}

fn client(apiserver: &Apiserver, address: SocketAddr) -> anyhow::Result<Client> {
    let pki = apiserver.pki();
    let credential = pki.issue("admin", Some("system:masters"))?;
    Client::new(address, pki.ca(), Some(&credential), Protocol::Http2)
}

/// Upstream requests so far of each resource: lists, watches, GETs.
fn upstream(apiserver: &Apiserver) -> [[u64; 3]; RESOURCES.len()] {
    let count = |verb, resource| apiserver.counters().requests(verb, "", resource);
    RESOURCES.map(|resource| ["list", "watch", "get"].map(|verb| count(verb, resource)))
}

/// Starts the watches of so many kubelets and waits until each has its whole initial state. Errors
/// of any kind, a 429 among them, are errors here.
async fn start(apiserver: &Apiserver, address: SocketAddr, kubelets: usize) -> anyhow::Result<()> {
    let mut watches = JoinSet::new();
    let all: Vec<_> = (0..kubelets)
        .flat_map(|kubelet| RESOURCES.map(|resource| target(resource, kubelet)))
        .collect();
    for targets in all.chunks(PER_CONNECTION) {
        let client = Arc::new(client(apiserver, address)?);
        for target in targets {
            let (client, target) = (Arc::clone(&client), target.clone());
            watches.spawn(async move {
                let mut watch = client.watch(&target, JSON).await?;
                loop {
                    match watch.next().await?.context("it ended")? {
                        Event::Bookmark(_, true) => return Ok(()),
                        Event::Object(..) | Event::Bookmark(_, false) => {}
                        Event::Error(code, text) => anyhow::bail!("{target}: {code} {text}"),
                    }
                }
            });
        }
    }
    while let Some(started) = watches.join_next().await {
        started??;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the counts are what the test shows")]
async fn storm(apiserver: &Apiserver, fixture: &Fixture, what: &str) -> anyhow::Result<()> {
    let address = fixture.proxy.address();
    for kubelets in [FEW, MANY] {
        let (before, began) = (upstream(apiserver), Instant::now());
        start(apiserver, address, kubelets).await?;
        let (after, took) = (upstream(apiserver), began.elapsed().as_secs_f64());
        for (index, resource) in RESOURCES.iter().enumerate() {
            let [lists, watches, gets] =
                [0, 1, 2].map(|verb| after[index][verb] - before[index][verb]);
            println!(
                "{what}: {kubelets} kubelets in {took:.1} s: {resource}: \
                 {lists} lists, {watches} watches, {gets} GETs"
            );
            ensure!(gets == 0, "{resource}: {gets} GETs");
            // By time, not by kubelets; the main watch and a fence for each probe at most.
            let most = (took * PROBES_PER_SECOND) as u64 + 2;
            ensure!(lists <= most, "{resource}: {lists} lists in {took} s");
            ensure!(
                watches <= took as u64 + 3,
                "{resource}: {watches} watches in {took} s"
            );
            let each = (kubelets / 4).max(20) as u64;
            ensure!(
                lists + watches < each,
                "{resource}: {lists} + {watches} for {kubelets}"
            );
        }
    }
    let (_, metrics) = fixture.admin("/metrics").await?;
    let forwarded = metrics.lines().filter(|line| {
        line.starts_with("watershed_requests_total{")
            && RESOURCES
                .iter()
                .any(|it| line.contains(&format!("resource=\"{it}\"")))
            && !line.contains("served=\"cache\"")
    });
    let forwarded: Vec<_> = forwarded.collect();
    ensure!(forwarded.is_empty(), "{forwarded:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleets_start_costs_what_a_few_kubelets_cost() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let pods = apiserver.registry().find("", "v1", "pods");
    let pods = pods.context("pods are built in")?;
    for index in 0..PODS {
        put_pod(&apiserver, &pods, index, 0);
    }
    let fixture = Fixture::start(&apiserver, |config| {
        // A debug build on a busy machine is slow; how long a reader waits is not what is counted.
        config.live.limits.consistent_read_timeout = Duration::from_secs(30);
    })
    .await?;
    storm(&apiserver, &fixture, "quiet").await?;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let writing = async {
        for value in 1.. {
            pace.tick().await;
            put_pod(&apiserver, &pods, value as usize % PODS, value);
        }
    };
    tokio::select! {
        stormed = storm(&apiserver, &fixture, "busy") => stormed?,
        () = writing => {}
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}
