//! What an operator sees: probes, metrics, and an end that loses nobody.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::net::TcpStream;
use watershed_config::{GroupResource, Live};
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    client::{Client, Event, JSON, PATIENCE, Protocol},
    fixture::{Fixture, ask_admin, preload},
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The families of what works today, as a scrape names them.
const FAMILIES: [&str; 15] = [
    "watershed_upstream_watches",
    "watershed_upstream_requests",
    "watershed_watchers",
    "watershed_connections",
    "watershed_requests",
    "watershed_watch_events",
    "watershed_watch_cache_objects",
    "watershed_watch_cache_bytes",
    "watershed_watch_cache_history_bytes",
    "watershed_watch_cache_resource_version",
    "watershed_watch_cache_lag_seconds",
    "watershed_watch_cache_relists",
    "watershed_watch_delivery_seconds",
    "watershed_slow_watchers",
    "watershed_authorization",
];

async fn start() -> anyhow::Result<(Apiserver, Fixture, Client)> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        preload(&mut config.live, "", "configmaps");
        config.live.drain.grace_period = Duration::from_secs(6);
    })
    .await?;
    let pki = apiserver.pki();
    let credential = pki.issue("admin", Some("system:masters"))?;
    let address = fixture.proxy.address();
    let client = Client::new(address, pki.ca(), Some(&credential), Protocol::Http2)?;
    Ok((apiserver, fixture, client))
}

/// Writes a ConfigMap past the wire.
fn put(apiserver: &Apiserver, name: &str) {
    let resource = apiserver.registry().find("", "v1", "configmaps");
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": "u"},
    });
    let resource = resource.expect("configmaps are built in");
    apiserver.store().load(&resource, object);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_show_what_is_open() -> anyhow::Result<()> {
    let (apiserver, fixture, client) = start().await?;
    put(&apiserver, "one");
    let mut watch = client
        .watch(&format!("{CONFIG_MAPS}?watch=1"), JSON)
        .await?;
    ensure!(watch.object().await?.is_some());
    // What was there before tells nothing about delays; what comes now does.
    let delays = async {
        let none = "watershed_watch_delivery_seconds_count 0";
        while fixture.admin("/metrics").await?.1.contains(none) {
            put(&apiserver, "one");
            ensure!(watch.object().await?.is_some());
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, delays).await??;

    let (code, text) = fixture.admin("/livez?verbose").await?;
    assert_eq!(code, 200, "{text}");
    let (code, text) = fixture.admin("/readyz?verbose").await?;
    assert_eq!(code, 200, "{text}");
    for check in [
        "upstream",
        "cache-configmaps-json",
        "cache-configmaps-protobuf",
    ] {
        assert!(
            text.contains(&format!("[+]{check} ok")),
            "{check} in {text}"
        );
    }
    let (code, text) = fixture.admin("/metrics").await?;
    assert_eq!(code, 200);
    for family in FAMILIES {
        assert!(
            text.contains(&format!("# TYPE {family} ")),
            "{family} in {text}"
        );
    }
    let cache = r#"group="",version="v1",resource="configmaps",encoding="json""#;
    for sample in [
        format!("watershed_upstream_watches{{{cache}}} 1"),
        format!("watershed_watch_cache_objects{{{cache}}} 1"),
        r#"watershed_watchers{group="",resource="configmaps"} 1"#.to_owned(),
        "watershed_connections 1".to_owned(),
        "watershed_slow_watchers 0".to_owned(),
    ] {
        assert!(
            text.lines().any(|line| line == sample),
            "{sample} in {text}"
        );
    }
    drop(watch);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_apiserver_the_proxy_lives_and_is_not_ready() -> anyhow::Result<()> {
    let (apiserver, fixture, client) = start().await?;
    client.get(CONFIG_MAPS).await?.ok()?;
    apiserver.shutdown().await;
    let refused = async {
        while fixture.admin("/readyz").await?.0 != 500 {
            let answer = client.get("/version").await?;
            ensure!(!answer.status.is_success(), "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, refused).await??;
    assert_eq!(fixture.admin("/livez").await?.0, 200);
    // What is cached is still served to whom it was served before.
    let cached = format!("{CONFIG_MAPS}?resourceVersion=0");
    client.get(&cached).await?.ok()?;
    fixture.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_setting_is_in_force_without_a_restart() -> anyhow::Result<()> {
    let (apiserver, fixture, client) = start().await?;
    let lists = || apiserver.counters().requests("list", "", "configmaps");
    let target = format!("{CONFIG_MAPS}?resourceVersion=0");
    let before = lists();
    client.get(&target).await?.ok()?;
    assert_eq!(lists(), before, "it is cached");
    fixture.live.send_modify(|live| {
        let mut changed = Live::clone(live);
        changed.cache.passthrough.push(GroupResource {
            group: String::new(),
            resource: "configmaps".to_owned(),
        });
        *live = Arc::new(changed);
    });
    let before = lists();
    client.get(&target).await?.ok()?;
    assert_eq!(lists(), before + 1, "it is passed through");
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_fails_readiness_first_and_ends_watches_cleanly() -> anyhow::Result<()> {
    let (apiserver, fixture, client) = start().await?;
    let mut watch = client
        .watch(&format!("{CONFIG_MAPS}?watch=1"), JSON)
        .await?;
    let (address, admin) = (fixture.proxy.address(), fixture.proxy.admin_address());
    let drain = tokio::spawn(fixture.stop());
    let not_ready = async {
        while ask_admin(admin, "/readyz").await?.0 != 500 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, not_ready).await??;
    // Not ready, and still there for whoever has not heard of it: for a tenth of the grace period.
    TcpStream::connect(address)
        .await
        .context("it does not accept any more")?;
    put(&apiserver, "late");
    let late = watch.object().await?;
    let is_late = matches!(&late, Some(Event::Object(_, key, _)) if key == "default/late");
    ensure!(is_late, "{late:?} instead of an event during the drain");
    assert_eq!(watch.object().await?, None, "a drain ends a watch cleanly");
    tokio::time::timeout(PATIENCE, drain).await??;
    ensure!(
        TcpStream::connect(address).await.is_err(),
        "it still accepts"
    );
    apiserver.shutdown().await;
    Ok(())
}
