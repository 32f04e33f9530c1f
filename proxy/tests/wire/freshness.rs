//! A read without a resource version shows every write before it, whatever the upstream does.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::json;
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    client::{Answer, Client, Event, JSON, PROTOBUF, Protocol},
    fixture::{Fixture, until},
    objects::{listed, put, version},
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const COUNTER: &str = "/api/v1/namespaces/default/configmaps/counter";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// Writes that are read back while the collection is small enough to be proven whole.
const SMALL_ROUNDS: u64 = 25;
/// And while a proof takes a watch.
const LARGE_ROUNDS: u64 = 2;
/// ConfigMaps that make it so.
const LARGE: usize = 80;

fn admin(apiserver: &Apiserver, address: std::net::SocketAddr) -> anyhow::Result<Client> {
    let pki = apiserver.pki();
    let credential = pki.issue("admin", Some("system:masters"))?;
    Client::new(address, pki.ca(), Some(&credential), Protocol::Http2)
}

/// The counter's version in the initial events of a watch.
async fn streamed(client: &Client, accept: &'static str) -> anyhow::Result<u64> {
    let target = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan"
    );
    let mut watch = client.watch(&target, accept).await?;
    let mut found = None;
    loop {
        match watch.next().await?.context("it ended")? {
            Event::Object(_, key, version) if key == "default/counter" => found = Some(version),
            Event::Object(..) | Event::Bookmark(_, false) => {}
            Event::Bookmark(_, true) => return found.context("no counter"),
            Event::Error(code, text) => anyhow::bail!("{code} {text}"),
        }
    }
}

/// Reads in every way and demands the write at `written`, or a newer one.
async fn demand(client: &Client, written: u64) -> anyhow::Result<()> {
    let get = async { version(&client.get(COUNTER).await?.ok()?) };
    let list = async { listed(&client.get(CONFIG_MAPS).await?.ok()?, "counter") };
    let everywhere = async { listed(&client.get("/api/v1/configmaps").await?.ok()?, "counter") };
    let (get, list, everywhere, json, protobuf) = tokio::try_join!(
        get,
        list,
        everywhere,
        streamed(client, JSON),
        streamed(client, PROTOBUF)
    )?;
    for (name, seen) in [
        ("GET", get),
        ("LIST", list),
        ("LIST of all", everywhere),
        ("WATCH as JSON", json),
        ("WATCH as protobuf", protobuf),
    ] {
        ensure!(seen >= written, "{name} shows {seen} after {written}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_without_a_version_contains_every_write_before_it() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let client = admin(&apiserver, fixture.proxy.address())?;
    let writer = admin(&apiserver, apiserver.addr())?;
    put(&apiserver, "counter", 0);
    demand(&client, 0).await?;
    for round in 0..SMALL_ROUNDS + LARGE_ROUNDS {
        if round == SMALL_ROUNDS {
            for filler in 0..LARGE {
                put(&apiserver, &format!("filler-{filler}"), 0);
            }
        }
        let patch = json!({"data": {"value": round.to_string()}});
        let written = writer.write(Method::PATCH, COUNTER, &patch).await?.ok()?;
        let written = version(&written)?;
        demand(&client, written)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lags_makes_no_read_stale() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.consistent_read_timeout = Duration::from_secs(1);
    })
    .await?;
    let client = admin(&apiserver, fixture.proxy.address())?;
    put(&apiserver, "counter", 0);
    demand(&client, 0).await?;
    apiserver.lag(true);
    let written = put(&apiserver, "counter", 1);
    let cached = client
        .get(&format!("{CONFIG_MAPS}?resourceVersion=0"))
        .await?
        .ok()?;
    ensure!(
        listed(&cached, "counter")? < written,
        "the stream does not lag"
    );
    let get = async { version(&client.get(COUNTER).await?.ok()?) };
    let list = async { listed(&client.get(CONFIG_MAPS).await?.ok()?, "counter") };
    let (get, list, watch) = tokio::join!(get, list, streamed(&client, JSON));
    assert_eq!(get?, written, "GET");
    assert_eq!(list?, written, "LIST");
    // A watch may be refused; it must not begin with the past.
    ensure!(watch.as_ref().is_err() || watch.as_ref().is_ok_and(|seen| *seen == written));
    apiserver.lag(false);
    demand(&client, written).await?;
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_during_a_stall_waits_and_is_fresh() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let client = admin(&apiserver, fixture.proxy.address())?;
    put(&apiserver, "counter", 0);
    demand(&client, 0).await?;
    apiserver.faults().stall(true);
    let written = put(&apiserver, "counter", 1);
    let reading = demand(&client, written);
    let stalled = tokio::time::timeout(Duration::from_millis(500), reading).await;
    ensure!(stalled.is_err(), "{stalled:?} without asking the apiserver");
    let old = client.get(&format!("{COUNTER}?resourceVersion=0")).await?;
    ensure!(version(&old.ok()?)? < written, "RV 0 needs no apiserver");
    apiserver.faults().stall(false);
    demand(&client, written).await?;
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_never_comes_is_answered_as_the_apiserver_does() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let proxied = admin(&apiserver, fixture.proxy.address())?;
    let direct = admin(&apiserver, apiserver.addr())?;
    put(&apiserver, "counter", 0);
    proxied.get(CONFIG_MAPS).await?.ok()?;
    let future = "resourceVersion=99999999";
    let targets = [
        (format!("{COUNTER}?{future}"), 504),
        (format!("{CONFIG_MAPS}?{future}"), 504),
        (
            format!("{CONFIG_MAPS}?{future}&resourceVersionMatch=NotOlderThan"),
            504,
        ),
        (
            format!(
                "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&{future}\
                 &resourceVersionMatch=NotOlderThan"
            ),
            200,
        ),
    ];
    let mut asked = tokio::task::JoinSet::new();
    let clients = std::sync::Arc::new((proxied, direct));
    for (target, code) in targets {
        let clients = std::sync::Arc::clone(&clients);
        asked.spawn(async move {
            let (proxied, direct) = &*clients;
            let (ours, theirs): (Answer, Answer) =
                tokio::try_join!(proxied.get(&target), direct.get(&target))?;
            ensure!(ours.status == code, "{target}: {}", ours.text());
            ensure!(ours.status == theirs.status, "{target}: {}", theirs.text());
            let (ours, theirs) = (ours.text(), theirs.text());
            ensure!(ours == theirs, "{target}:\n{ours}\n{theirs}");
            Ok(())
        });
    }
    while let Some(answered) = asked.join_next().await {
        answered??;
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_opens_at_first_use_and_closes_when_idle() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.cache.defaults.idle_timeout = Duration::from_millis(400);
    })
    .await?;
    let client = admin(&apiserver, fixture.proxy.address())?;
    let open = || apiserver.counters().open_watches("", "configmaps");
    let written = put(&apiserver, "counter", 0);
    for round in 0..2 {
        assert_eq!(open(), 0, "nobody asked, round {round}");
        let list = client.get(CONFIG_MAPS).await?.ok()?;
        assert_eq!(listed(&list, "counter")?, written);
        until("the cache is open", || open() == 1).await?;
        let target = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&list)?);
        let mut watch = client.watch(&target, JSON).await?;
        let waited = tokio::time::timeout(Duration::from_millis(900), watch.next()).await;
        ensure!(waited.is_err(), "{waited:?} from a watch that is idle");
        assert_eq!(open(), 1, "a watcher keeps it open");
        drop(watch);
        until("the cache is closed", || open() == 0).await?;
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_resource_is_cached_while_it_is_defined() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.cache.defaults.idle_timeout = Duration::from_secs(2);
    })
    .await?;
    let proxied = admin(&apiserver, fixture.proxy.address())?;
    let direct = admin(&apiserver, apiserver.addr())?;
    let names = json!({
        "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
    });
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": names,
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}],
        },
    });
    proxied.write(Method::POST, CRDS, &definition).await?.ok()?;
    served(&direct, 200).await?;

    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "one"}, "size": 1});
    proxied.write(Method::POST, WIDGETS, &widget).await?.ok()?;
    let list = proxied.get(WIDGETS).await?.ok()?;
    assert_eq!(list["items"][0]["size"], 1);
    let open = || apiserver.counters().open_watches("example.com", "widgets");
    until("it is cached", || open() == 1).await?;
    let target = format!("{WIDGETS}?watch=1&resourceVersion={}", version(&list)?);
    let mut watch = proxied.watch(&target, JSON).await?;

    let path = format!("{CRDS}/widgets.example.com");
    let delete = direct.request(Method::DELETE, &path);
    direct
        .whole(delete.body(crate::client::empty())?)
        .await?
        .ok()?;
    served(&direct, 404).await?;
    let gone = watch.object().await?;
    ensure!(
        matches!(gone, Some(Event::Object("DELETED", ..)) | None),
        "{gone:?}"
    );
    if gone.is_some() {
        assert_eq!(watch.object().await?, None);
    }
    served(&proxied, 404).await?;
    until("its cache is closed", || open() == 0).await?;
    let (ours, theirs) = (proxied.get(WIDGETS).await?, direct.get(WIDGETS).await?);
    assert_eq!(ours.text(), theirs.text());
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// Waits until widgets are answered with this code.
async fn served(client: &Client, code: u16) -> anyhow::Result<()> {
    let asking = async {
        while client.get(WIDGETS).await?.status != code {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(crate::client::PATIENCE, asking).await?
}
