//! Reads that have to reach the apiserver, the past, and what replicas owe to one client.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use watershed_loadtest::apiserver::{Apiserver, Options, authn::Users, faults::Failure};

use crate::{
    client::{Answer, Client, Event, JSON, Protocol},
    fixture::Fixture,
    objects::{let_read, listed, put, version},
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const COUNTER: &str = "/api/v1/namespaces/default/configmaps/counter";

/// Reads of each user at one time.
const READS: usize = 20;

async fn start() -> anyhow::Result<Apiserver> {
    let apiserver = Apiserver::start(Options {
        users: Users::parse("a,alice,1\nb,bob,2\nc,carol,3")?,
        ..Options::default()
    })
    .await?;
    let_read(&apiserver, "default", &["alice", "bob"]);
    Ok(apiserver)
}

fn client(apiserver: &Apiserver, to: &Fixture, user: &str) -> anyhow::Result<Client> {
    let pki = apiserver.pki();
    let group = (user == "admin").then_some("system:masters");
    let credential = pki.issue(user, group)?;
    Client::new(
        to.proxy.address(),
        pki.ca(),
        Some(&credential),
        Protocol::Http2,
    )
}

/// What a consistent watch begins with: the counter's version, or the error it ends with.
async fn streamed(client: &Client) -> anyhow::Result<Result<u64, (u64, String)>> {
    let target = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=30");
    let mut watch = client.watch(&target, JSON).await?;
    let mut found = None;
    loop {
        match watch.next().await?.context("it ended")? {
            Event::Object(_, key, version) if key == "default/counter" => found = Some(version),
            Event::Object(..) | Event::Bookmark(_, false) => {}
            Event::Bookmark(_, true) => return Ok(Ok(found.context("no counter")?)),
            Event::Error(code, text) => {
                ensure!(watch.next().await?.is_none(), "more after an error");
                return Ok(Err((code, text)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_reads_of_permitted_users_are_read_once_as_the_proxy() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.consistent_read_timeout = Duration::from_millis(300);
    })
    .await?;
    put(&apiserver, "counter", 0);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| {
        let client = client(&apiserver, &fixture, user);
        Arc::new(client.expect("a certificate"))
    });
    // Decisions are remembered, so that nobody has to ask for one while nothing is answered.
    for target in [CONFIG_MAPS, COUNTER] {
        for permitted in [&alice, &bob] {
            permitted.get(target).await?.ok()?;
        }
        assert_eq!(carol.get(target).await?.status, StatusCode::FORBIDDEN);
    }
    apiserver.lag(true);
    let written = put(&apiserver, "counter", 1);
    let lists = || apiserver.counters().requests("list", "", "configmaps");
    let gets = || apiserver.counters().requests("get", "", "configmaps");
    let (lists_before, gets_before) = (lists(), gets());
    apiserver.faults().stall(true);
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..READS {
        for client in [&alice, &bob, &carol] {
            for target in [CONFIG_MAPS, COUNTER] {
                let client = Arc::clone(client);
                let is_carol = Arc::ptr_eq(&client, &carol);
                reading.spawn(async move { (is_carol, target, client.get(target).await) });
            }
        }
    }
    // Until most of them have given up hope of a proof and wait for a shared read. Well short of what
    // a shared read waits for: the apiserver, once awake, takes three seconds to give up its cache.
    tokio::time::sleep(Duration::from_secs(1)).await;
    apiserver.faults().stall(false);
    let mut audit_ids = std::collections::HashSet::new();
    while let Some(read) = reading.join_next().await {
        let (is_carol, target, answer) = read?;
        let answer: Answer = answer?;
        audit_ids.insert(answer.headers["audit-id"].clone());
        if is_carol {
            assert_eq!(answer.status, StatusCode::FORBIDDEN);
            ensure!(!answer.text().contains("\"data\""), "{}", answer.text());
            continue;
        }
        ensure!(
            !answer
                .headers
                .contains_key("x-kubernetes-pf-flowschema-uid")
        );
        let object = answer.ok()?;
        let seen = match target {
            COUNTER => version(&object)?,
            _ => listed(&object, "counter")?,
        };
        assert_eq!(seen, written, "{target}");
    }
    assert_eq!(audit_ids.len(), 6 * READS, "every answer has its own");
    // One for all who came before it began: a few rounds, by how slowly they came.
    let (lists, gets) = (lists() - lists_before, gets() - gets_before);
    ensure!(lists < READS as u64 / 2, "{lists} lists");
    ensure!(gets < READS as u64 / 4, "{gets} GETs");
    let (_, metrics) = fixture.admin("/metrics").await?;
    ensure!(metrics.contains("served=\"shared\""), "{metrics}");
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_reads_its_own_writes_from_every_replica() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let (one, other) = tokio::try_join!(
        Fixture::start(&apiserver, |_| ()),
        Fixture::start(&apiserver, |_| ())
    )?;
    let clients = [
        client(&apiserver, &one, "admin")?,
        client(&apiserver, &other, "admin")?,
    ];
    put(&apiserver, "counter", 0);
    for client in &clients {
        client.get(CONFIG_MAPS).await?.ok()?;
    }
    for (round, lagging) in [(1, false), (2, false), (3, true), (4, false)] {
        apiserver.lag(lagging);
        let patch = json!({"data": {"value": round.to_string()}});
        let written = clients[0]
            .write(Method::PATCH, COUNTER, &patch)
            .await?
            .ok()?;
        let written = version(&written)?;
        let reads = clients.iter().map(|client| async move {
            let (get, list, watch) = tokio::join!(
                client.get(COUNTER),
                client.get(CONFIG_MAPS),
                streamed(client)
            );
            let seen = (version(&get?.ok()?)?, listed(&list?.ok()?, "counter")?);
            ensure!(seen == (written, written), "{seen:?} after {written}");
            match watch? {
                Ok(seen) => assert_eq!(seen, written, "round {round}"),
                // As an apiserver whose cache lags: it names the version it has yet to reach.
                Err((504, text)) if lagging => {
                    let numbers = text.strip_prefix("Timeout: Too large resource version: ");
                    let (wanted, current) = numbers
                        .and_then(|it| it.split_once(", current: "))
                        .with_context(|| text.clone())?;
                    let (wanted, current): (u64, u64) = (wanted.parse()?, current.parse()?);
                    ensure!(current < written && written <= wanted, "{text}");
                }
                Err(error) => anyhow::bail!("round {round}: {error:?}"),
            }
            Ok(())
        });
        futures_util::future::try_join_all(reads).await?;
    }
    one.stop().await;
    other.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_served_as_long_as_the_apiserver_has_it() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let proxied = client(&apiserver, &fixture, "admin")?;
    let pki = apiserver.pki();
    let credential = pki.issue("admin", Some("system:masters"))?;
    let direct = Client::new(
        apiserver.addr(),
        pki.ca(),
        Some(&credential),
        Protocol::Http2,
    )?;
    proxied.get(CONFIG_MAPS).await?.ok()?;
    for name in ["a", "b", "c"] {
        put(&apiserver, name, 0);
    }
    let page = proxied.get(&format!("{CONFIG_MAPS}?limit=1")).await?.ok()?;
    let then = version(&page)?;
    put(&apiserver, "b", 1);
    let token = page["metadata"]["continue"].as_str().context("no token")?;
    let targets = [
        format!("{CONFIG_MAPS}?limit=1&continue={token}"),
        format!("{CONFIG_MAPS}?continue={token}"),
        format!("{CONFIG_MAPS}?limit=1&continue={token}&resourceVersion=0"),
        format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact"),
        format!("{CONFIG_MAPS}?resourceVersion={then}&limit=2"),
        format!("{CONFIG_MAPS}?resourceVersion={then}&limit=2&labelSelector=!none"),
        format!("{CONFIG_MAPS}?resourceVersion={then}&limit=1&fieldSelector=metadata.name%3Db"),
        format!(
            "{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact\
             &fieldSelector=metadata.name%3Db"
        ),
    ];
    let same = async |target: &str| {
        let (ours, theirs) = tokio::try_join!(proxied.get(target), direct.get(target))?;
        ensure!(ours.status == theirs.status, "{target}: {}", ours.text());
        let (ours, theirs) = (ours.text(), theirs.text());
        ensure!(ours == theirs, "{target}:\n{ours}\n{theirs}");
        Ok(ours)
    };
    let lists = || apiserver.counters().requests("list", "", "configmaps");
    proxied.get(CONFIG_MAPS).await?.ok()?;
    let before = lists();
    for target in &targets {
        same(target).await?;
    }
    // Ours: a question a second at most, and the probe of the single key; theirs: each.
    let upstream = lists() - before - targets.len() as u64;
    ensure!(
        upstream <= 4,
        "{upstream} lists for {} reads",
        targets.len()
    );

    apiserver.compact(then + 1);
    tokio::time::sleep(Duration::from_millis(1100)).await; // a proof is believed for a second
    for target in targets.iter().take(4) {
        ensure!(same(target).await?.contains("\"code\":410"), "{target}");
    }
    let gone: Value = serde_json::from_str(&same(&targets[0]).await?)?;
    let token = gone["metadata"]["continue"].as_str().context("no token")?;
    let rest = proxied
        .get(&format!("{CONFIG_MAPS}?continue={token}"))
        .await?
        .ok()?;
    ensure!(version(&rest)? > then, "an inconsistent page is current");
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(2));
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_cache_is_filled_storms_are_told_to_come_back_and_single_reads_are_forwarded()
-> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let client = Arc::new(client(&apiserver, &fixture, "admin")?);
    let written = put(&apiserver, "counter", 0);
    // What the proxy asks to fill its cache; its clients ask about one namespace.
    let faults = apiserver.faults();
    faults.fail_requests("/api/v1/configmaps", Failure::Unavailable, u64::MAX);
    let targets = [
        (COUNTER.to_owned(), 200),
        (format!("{COUNTER}?resourceVersion=0"), 200),
        (format!("{CONFIG_MAPS}?limit=5"), 200),
        (CONFIG_MAPS.to_owned(), 429),
        (format!("{CONFIG_MAPS}?limit=5&labelSelector=a"), 429),
        (format!("{CONFIG_MAPS}?resourceVersion=0"), 429),
        (format!("{CONFIG_MAPS}?watch=1"), 429),
    ];
    let mut asked = tokio::task::JoinSet::new();
    for (target, status) in targets {
        let client = Arc::clone(&client);
        asked.spawn(async move {
            let answer = client.get(&target).await?;
            ensure!(answer.status == status, "{target}: {}", answer.text());
            if status == 429 {
                assert_eq!(answer.json()?["message"], "storage is (re)initializing");
                assert_eq!(answer.headers["retry-after"], "1");
                assert_eq!(answer.json()?["details"]["retryAfterSeconds"], 1);
            }
            Ok(())
        });
    }
    while let Some(answered) = asked.join_next().await {
        answered??;
    }
    faults.heal_requests();
    let recovered = async {
        while client.get(CONFIG_MAPS).await?.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(crate::client::PATIENCE, recovered).await??;
    let list = client.get(CONFIG_MAPS).await?.ok()?;
    assert_eq!(listed(&list, "counter")?, written);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}
