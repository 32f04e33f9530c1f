//! What one caller may have under way, and that it is nobody else's trouble.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;
use watershed_loadtest::apiserver::{Apiserver, Options, authn::Users, faults::Failure};

use crate::{
    client::{Answer, Client, Open, Protocol, empty},
    fixture::{Fixture, preload},
    objects::{let_read, load},
    peer::metric,
};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const LIST: &str = "/api/v1/namespaces/a/configmaps?resourceVersion=0";
const WATCH: &str = "/api/v1/namespaces/a/configmaps?watch=1&resourceVersion=0";
/// Forwarded: an apiserver knows what to do with that parameter, the cache does not.
const FORWARDED_WATCH: &str = "/api/v1/namespaces/a/configmaps?watch=1&resourceVersion=0&x=y";

/// Users with and without a certificate may read ConfigMaps in `a`, which has one.
async fn start() -> anyhow::Result<Apiserver> {
    let users = Users::parse("carol-token,carol,1")?;
    let apiserver = Apiserver::start(Options {
        users,
        ..Options::default()
    })
    .await?;
    let_read(&apiserver, "a", &["alice", "bob", "carol"]);
    load(
        &apiserver,
        ("", "configmaps"),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "one", "namespace": "a", "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }}),
    );
    Ok(apiserver)
}

/// Asks for `target` and returns as soon as the head is there. Carol has a token.
async fn open(client: &Client, target: &str) -> anyhow::Result<Open> {
    let mut request = client.request(Method::GET, target).body(empty())?;
    let token = "Bearer carol-token".parse()?;
    request.headers_mut().insert("authorization", token);
    client.send(request).await
}

/// Asserts that it is the refusal of a caller at its limit.
fn ensure_refused(answer: &Answer, what: &str) -> anyhow::Result<()> {
    let text = answer.text();
    ensure!(answer.status == 429, "{what}: {} {text}", answer.status);
    let status = answer.json()?;
    ensure!(status["kind"] == "Status", "{what}: {text}");
    ensure!(status["reason"] == "TooManyRequests", "{what}: {text}");
    let seconds: u64 = answer.headers["retry-after"].to_str()?.parse()?;
    ensure!((1..=8).contains(&seconds), "{what}: {seconds} s");
    ensure!(status["details"]["retryAfterSeconds"] == seconds, "{text}");
    Ok(())
}

/// Opens `target` until it is let in again.
async fn ensure_served_again(client: &Client, target: &str) -> anyhow::Result<Open> {
    let trying = async {
        loop {
            let answer = open(client, target).await?;
            if answer.status == 200 {
                return anyhow::Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let patience = crate::client::PATIENCE;
    let served = tokio::time::timeout(patience, trying).await;
    served.with_context(|| format!("not served again: {target}"))?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_at_its_limit_of_watches_gets_429_and_another_is_served() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.watches_per_user = 3;
        preload(&mut config.live, "", "configmaps");
    })
    .await?;
    let pki = apiserver.pki();
    let (alice, bob) = (pki.issue("alice", None)?, pki.issue("bob", None)?);
    let admin = pki.issue("admin", Some("system:masters"))?;
    for protocol in PROTOCOLS {
        for credential in [Some(&alice), None] {
            let client = fixture.client(&apiserver, credential, protocol)?;
            let mut watches = Vec::new();
            for target in [WATCH, FORWARDED_WATCH, WATCH] {
                let watch = open(&client, target).await?;
                ensure!(watch.status == 200, "{protocol:?} {target}");
                watches.push(watch);
            }
            for target in [WATCH, FORWARDED_WATCH] {
                let refused = open(&client, target).await?.whole().await?;
                ensure_refused(&refused, &format!("{protocol:?} {target}"))?;
            }
            // Its other requests and everybody else's watches are not concerned.
            ensure!(open(&client, LIST).await?.status == 200);
            for other in [&bob, &admin] {
                let other = fixture.client(&apiserver, Some(other), protocol)?;
                ensure!(open(&other, WATCH).await?.status == 200);
            }
            // The end of any of them makes room for one.
            for end in 0..2 {
                drop(watches.remove(end));
                watches.push(ensure_served_again(&client, WATCH).await?);
                let refused = open(&client, WATCH).await?.whole().await?;
                ensure_refused(&refused, &format!("{protocol:?} after an end"))?;
            }
            drop(watches);
            // With everything over there is room for all again: nothing was lost.
            let mut again = Vec::new();
            for _ in 0..3 {
                again.push(ensure_served_again(&client, WATCH).await?);
            }
        }
    }
    let limited = "watershed_requests_limited_total{reason=\"watchesPerUser\"}";
    let refusals = metric(fixture.proxy.admin_address(), limited).await?;
    ensure!(refusals >= 16.0, "{refusals} were counted");
    let (_, metrics) = fixture.admin("/metrics").await?;
    ensure!(
        metrics.contains("served=\"limited\",code=\"429\""),
        "{metrics}"
    );
    ensure!(!metrics.contains("alice"), "metrics name no users");
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_are_counted_to_the_end_of_their_answers() -> anyhow::Result<()> {
    const HANGING: &str = "/version";
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.requests_per_user = 2;
        config.live.limits.watches_per_user = 1;
    })
    .await?;
    let alice = apiserver.pki().issue("alice", None)?;
    for protocol in PROTOCOLS {
        let client = Arc::new(fixture.client(&apiserver, Some(&alice), protocol)?);
        // Nothing is counted that was refused, answered or is a watch.
        let _watch = ensure_served_again(&client, WATCH).await?;
        for _ in 0..5 {
            ensure_refused(&open(&client, WATCH).await?.whole().await?, "a watch")?;
            ensure!(open(&client, LIST).await?.status == 200);
        }
        apiserver.faults().fail_requests(HANGING, Failure::Hang, 2);
        let hang = || {
            let client = Arc::clone(&client);
            AbortOnDropHandle::new(tokio::spawn(async move { open(&client, HANGING).await }))
        };
        let mut hanging = [hang(), hang()];
        // A list that comes before both of them is still answered, and may be why one of them is not.
        let trying = async {
            loop {
                let answer = open(&client, LIST).await?.whole().await?;
                if answer.status != 200 && hanging.iter().all(|it| !it.is_finished()) {
                    return anyhow::Ok(answer);
                }
                for refused in hanging.iter_mut().filter(|it| it.is_finished()) {
                    *refused = hang();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let refused = tokio::time::timeout(crate::client::PATIENCE, trying).await;
        let refused = refused.context("lists are answered beside two requests")??;
        ensure_refused(&refused, &format!("{protocol:?}"))?;
        drop(hanging);
        ensure_served_again(&client, LIST).await?;
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_limit_holds_for_who_comes_next_and_cuts_nobody() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.watches_per_user = 0;
        config.live.limits.watches_per_agent = 1;
    })
    .await?;
    let pki = apiserver.pki();
    let (alice, node) = (pki.issue("alice", None)?, pki.issue_node("n1")?);
    let other = pki.issue_node("n2")?;
    let client = |credential| fixture.client(&apiserver, Some(credential), Protocol::Http2);
    let (alice, node, other) = (client(&alice)?, client(&node)?, client(&other)?);
    let mut open_ones = Vec::new();
    for _ in 0..4 {
        open_ones.push(open(&alice, WATCH).await?);
    }
    // A node is one agent.
    let own = "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1&resourceVersion=0";
    open_ones.push(open(&node, own).await?);
    ensure_refused(&open(&node, own).await?.whole().await?, "the node")?;
    open_ones.push(open(&other, &own.replace("n1", "n2")).await?);
    for (position, watch) in open_ones.iter().enumerate() {
        ensure!(watch.status == 200, "{position}: {}", watch.status);
    }

    let set = |user, agent| {
        fixture.live.send_modify(|live| {
            let limits = &mut Arc::make_mut(live).limits;
            (limits.watches_per_user, limits.watches_per_agent) = (user, agent);
        });
    };
    set(4, 2);
    ensure_refused(&open(&alice, WATCH).await?.whole().await?, "lowered")?;
    open_ones.push(ensure_served_again(&node, own).await?);
    set(5, 2);
    open_ones.push(ensure_served_again(&alice, WATCH).await?);
    ensure_refused(&open(&node, own).await?.whole().await?, "the node's second")?;
    // The first four begin with an event; nodes have none.
    for watch in &mut open_ones[..4] {
        ensure!(watch.chunk().await?.is_some(), "a watch was cut");
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_has_its_place_until_its_ends_part() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.limits.watches_per_user = 1;
    })
    .await?;
    let alice = apiserver.pki().issue("alice", None)?;
    let client = fixture.client(&apiserver, Some(&alice), Protocol::Http1)?;
    let websocket = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("origin", "http://localhost"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let request = websocket.iter().fold(
        client.request(Method::GET, WATCH),
        |request, (name, value)| request.header(*name, *value),
    );
    let mut tunnel = client.send(request.body(empty())?).await?;
    ensure!(tunnel.status == 101, "{}", tunnel.status);
    let upgraded = hyper::upgrade::on(&mut tunnel.response).await?;
    let refused = open(&client, WATCH).await?.whole().await?;
    ensure_refused(&refused, "beside a tunnel")?;
    drop((upgraded, tunnel));
    ensure_served_again(&client, WATCH).await?;
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}
