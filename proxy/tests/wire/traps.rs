//! What has killed or hurt other proxies and caches of watches, each as the law that would have
//! saved them.
//!
//! | incident | law | where |
//! |---|---|---|
//! | etcd grpc-proxy: whoever came first lent the others its token | permits are each client's own | here |
//! | YurtHub: shared lists behind `AlwaysAllow`; kcp: wildcards only for masters | as above | here, `identity` |
//! | karmada#6479: reads without a version, exact ones and pages went upstream once a client | reads are shared | here, `counting` |
//! | kubernetes#138494: what a stalled cache could not answer fell through to etcd | a stall is not multiplied | here |
//! | kcp#4007: 160,000 series, some for each client | series do not grow with clients | here |
//! | openyurt#2679: goroutines stayed when their watches had ended | tasks end with their watches | here |
//! | openyurt#2593: panics on answers that made no sense | nonsense is waited out | `bad_upstream` |
//! | felix#1537, Typha: connections into a black hole | silence is noticed by pings | here, `bad_clients` |
//! | Typha: restarts disconnected everybody at once | a drain ends watches a few at a time | `operations` |
//! | calico#5662: a rebalancer that miscounted and killed connections at random | does not apply: no connection is closed to balance load | |
//! | karmada: versions encoded anew | versions are the apiserver's own | `golden`, every comparison of bytes |
//!
//! Those that concern the cache alone stand in `cache/tests/traps.rs`.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use serde_json::json;
use tokio::{runtime::Handle, task::JoinSet};
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    client::{Answer, Client, Event, JSON, PROTOBUF, Protocol},
    fixture::{Fixture, until},
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Clients that ask the same.
const MANY: u64 = 60;

async fn start() -> anyhow::Result<(Apiserver, Fixture)> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.consistent_read_timeout = Duration::from_secs(10); // a busy machine
    })
    .await?;
    Ok((apiserver, fixture))
}

fn client(fixture: &Fixture, apiserver: &Apiserver, user: &str) -> anyhow::Result<Client> {
    let group = (user == "admin").then_some("system:masters");
    let credential = apiserver.pki().issue(user, group)?;
    let (address, ca) = (fixture.proxy.address(), apiserver.pki().ca());
    Client::new(address, ca, Some(&credential), Protocol::Http2)
}

fn put(apiserver: &Apiserver, (resource, kind): (&str, &str), name: &str) -> u64 {
    let found = apiserver.registry().find("", "v1", resource);
    let object = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "default", "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
    });
    let found = found.expect("it is built in");
    apiserver.store().load(&found, object).resource_version
}

/// The same request by many at once.
async fn by_many(client: &Arc<Client>, target: &str) -> anyhow::Result<Vec<Answer>> {
    let mut asking = JoinSet::new();
    for _ in 0..MANY {
        let (client, target) = (Arc::clone(client), target.to_owned());
        asking.spawn(async move { client.get(&target).await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asking.join_next().await {
        answers.push(answer??);
    }
    Ok(answers)
}

/// etcd's grpc-proxy joined the watches of all clients and sent the token of whoever came first;
/// YurtHub serves shared lists under an authorizer that always allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_a_cached_watch_needs_a_permit_of_its_own() -> anyhow::Result<()> {
    let (apiserver, fixture) = start().await?;
    put(&apiserver, ("secrets", "Secret"), "s");
    let admin = client(&fixture, &apiserver, "admin")?;
    let nobody = client(&fixture, &apiserver, "nobody")?;
    for accept in [JSON, PROTOBUF] {
        let target = format!("{SECRETS}?watch=1");
        let mut first = admin.watch(&target, accept).await?;
        ensure!(first.object().await?.is_some(), "the cache is filled");
        for form in [
            "",
            "?resourceVersion=0",
            "?limit=1",
            "?watch=1",
            "?watch=1&resourceVersion=0",
            "/s",
            "/s?resourceVersion=0",
        ] {
            let answer = nobody.get(&format!("{SECRETS}{form}")).await?;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{form}: {}",
                answer.text()
            );
        }
        let everywhere = nobody.get("/api/v1/secrets?resourceVersion=0").await?;
        assert_eq!(everywhere.status, StatusCode::FORBIDDEN);
        let version = put(&apiserver, ("secrets", "Secret"), "s");
        let seen = first.object().await?;
        let news = Event::Object("MODIFIED", "default/s".into(), version);
        assert_eq!(seen, Some(news), "the first is not disturbed");
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// karmada#6479: reads that a cache could have answered were passed on, once for every client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_read_is_asked_for_a_few_times() -> anyhow::Result<()> {
    let (apiserver, fixture) = start().await?;
    for name in 0..6 {
        put(&apiserver, ("configmaps", "ConfigMap"), &format!("c{name}"));
    }
    let admin = Arc::new(client(&fixture, &apiserver, "admin")?);
    let first = admin.get(&format!("{CONFIG_MAPS}?limit=2")).await?.ok()?;
    let token = first["metadata"]["continue"].as_str().context("no token")?;
    let version = first["metadata"]["resourceVersion"].as_str();
    let version = version.context("no version")?;
    let counted = || {
        let counters = apiserver.counters();
        counters.requests("list", "", "configmaps") + counters.requests("get", "", "configmaps")
    };
    for target in [
        CONFIG_MAPS.to_owned(),
        format!("{CONFIG_MAPS}?limit=2"),
        format!("{CONFIG_MAPS}?limit=2&continue={token}"),
        format!("{CONFIG_MAPS}?resourceVersion={version}"),
        format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"),
        format!("{CONFIG_MAPS}/c3"),
    ] {
        let before = counted();
        let answers = by_many(&admin, &target).await?;
        for answer in &answers {
            assert_eq!(answer.status, StatusCode::OK, "{target}: {}", answer.text());
        }
        let more = counted() - before;
        ensure!(
            more < MANY / 4,
            "{target}: {more} requests for {MANY} clients"
        );
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// kubernetes#138494: when the watch cache could not be proven fresh, every consistent read fell
/// through to etcd, which took it down for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_not_multiplied_by_those_who_wait() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.consistent_read_timeout = Duration::from_millis(500);
        config.live.limits.request_timeout = Duration::from_secs(2);
    })
    .await?;
    put(&apiserver, ("configmaps", "ConfigMap"), "c");
    let admin = Arc::new(client(&fixture, &apiserver, "admin")?);
    by_many(&admin, CONFIG_MAPS).await?;
    let counted = || {
        let counters = apiserver.counters();
        ["list", "watch", "get"]
            .map(|verb| counters.requests(verb, "", "configmaps"))
            .iter()
            .sum::<u64>()
    };
    let before = counted();
    apiserver.faults().stall(true);
    let watches = by_many(&admin, &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await?;
    for answer in &watches {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        ensure!(
            answer.text().starts_with("{\"type\":\"ERROR\""),
            "nothing proves {}",
            answer.text()
        );
    }
    let lists = by_many(&admin, CONFIG_MAPS).await?;
    for answer in &lists {
        ensure!(
            answer.status.is_server_error(),
            "nothing proves {}",
            answer.text()
        );
    }
    apiserver.faults().stall(false);
    let recovered = async {
        while admin.get(CONFIG_MAPS).await?.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(crate::client::PATIENCE, recovered).await??;
    let more = counted() - before;
    ensure!(more < MANY / 3, "{more} requests for {} clients", 2 * MANY);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// kcp#4007: a label for each client made 160,000 series.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_metric_grows_with_clients_names_or_selectors() -> anyhow::Result<()> {
    let (apiserver, fixture) = start().await?;
    put(&apiserver, ("configmaps", "ConfigMap"), "c");
    let ask = async |user: &str, what: usize| {
        let client = client(&fixture, &apiserver, user)?;
        for target in [
            CONFIG_MAPS.to_owned(),
            format!("/api/v1/namespaces/n{what}/configmaps"),
            format!("{CONFIG_MAPS}/c{what}"),
            format!("{CONFIG_MAPS}?labelSelector=a{what}%3Db"),
            format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc{what}"),
            format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&labelSelector=a{what}%3Db"),
            format!("/api/v1/nowhere{what}"),
            format!("/apis/g{what}.example.com/v1/things"),
        ] {
            client.get(&target).await?;
        }
        anyhow::Ok(())
    };
    let series = async || {
        let (_, text) = fixture.admin("/metrics").await?;
        anyhow::Ok(text.lines().filter(|line| !line.starts_with('#')).count())
    };
    for user in ["admin", "nobody"] {
        ask(user, 0).await?;
    }
    let before = series().await?;
    for what in 1..12 {
        ask("admin", what).await?;
        ask(&format!("user-{what}"), what).await?;
    }
    let after = series().await?;
    assert_eq!(after, before, "{}", fixture.admin("/metrics").await?.1);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// openyurt#2679: what was started for a watch stayed when the watch had ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_end_with_the_watches_they_served() -> anyhow::Result<()> {
    let (apiserver, fixture) = start().await?;
    put(&apiserver, ("configmaps", "ConfigMap"), "c");
    let alive = || Handle::current().metrics().num_alive_tasks();
    let target = format!("{CONFIG_MAPS}?watch=1");
    let open = async || {
        let mut watches = Vec::new();
        for user in 0..4 {
            let protocol = [Protocol::Http1, Protocol::Http2][user % 2];
            let credential = apiserver.pki().issue("admin", Some("system:masters"))?;
            let (address, ca) = (fixture.proxy.address(), apiserver.pki().ca());
            let client = Client::new(address, ca, Some(&credential), protocol)?;
            for _ in 0..5 {
                let mut watch = client.watch(&target, JSON).await?;
                ensure!(watch.object().await?.is_some());
                watches.push(watch);
            }
        }
        anyhow::Ok(watches)
    };
    drop(open().await?); // caches and connections to the apiserver stay
    let none_open = || async {
        let text = fixture.admin("/metrics").await?.1;
        let watchers = r#"watershed_watchers{group="",resource="configmaps"} 0"#;
        anyhow::Ok(text.contains(watchers) && text.contains("watershed_connections 0"))
    };
    let ended = async {
        while !none_open().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(crate::client::PATIENCE, ended).await??;
    let before = alive();
    for _ in 0..3 {
        drop(open().await?);
    }
    // A proof of freshness that was begun for them may still run.
    until("every task has ended", || alive() <= before).await?;
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}
