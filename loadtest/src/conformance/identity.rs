//! Who is let in, as whom, and what the others are told.

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::cluster::{config_maps, reading, until};
use super::expect::{expect_forbidden, expect_status, no_config_maps};
use super::{Cluster, Identity};
use crate::apiserver::certs::Pki;
use crate::client::{Client, Protocol, Request};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Whom the server under test, and the apiserver behind it, take a client for.
async fn whoami(client: &Client, headers: &[(&str, &str)]) -> anyhow::Result<Value> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = Request::new("POST", REVIEWS).json(&review);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    Ok(client.whole(request).await?.ok()?["status"]["userInfo"].take())
}

/// 134: without credentials a request is `system:anonymous`; credentials that are wrong are not
/// ignored, unless others are right; schemes nobody knows are.
pub async fn a_stranger_is_refused_by_name_and_a_bad_token_altogether(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    cluster.config_map(&namespace, "x").await?;
    let target = config_maps(&namespace);
    let user = cluster.name("alice");
    let anonymous = no_config_maps("system:anonymous", "list", &namespace);
    let nobody = no_config_maps(&user, "list", &namespace);
    let stranger = Identity::of(Pki::ephemeral()?.issue("admin", Some("system:masters"))?);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = |identity: &Identity| cluster.client_over(identity, protocol);
        let clients = [
            client(&Identity::anonymous())?,
            client(&cluster.user(&user, None)?)?,
            client(&cluster.user("admin", Some("system:masters"))?)?,
        ];
        for (authorization, is_recognised, warns) in [
            ("Bearer garbage", true, false),
            ("bearer garbage", true, false),
            ("Bearer a.b.c", true, false),
            ("Basic YWRtaW46YWRtaW4=", false, false),
            ("Bearer", false, false),
            ("Bearer ", false, false),
            ("Bearer  x", false, true),
            ("Token x", false, false),
            ("", false, false),
        ] {
            let request = Request::get(&target).header("authorization", authorization);
            let [without, alice, admin] = &clients;
            let answer = without.whole(request.clone()).await?;
            if is_recognised {
                expect_status(&answer, 401, "Unauthorized", "Unauthorized", "")?;
                ensure!(answer.headers.get("www-authenticate").is_none());
            } else {
                expect_forbidden(&answer, &anonymous, r#"{"kind":"configmaps"}"#)?;
            }
            let answer = alice.whole(request.clone()).await?;
            expect_forbidden(&answer, &nobody, r#"{"kind":"configmaps"}"#)?;
            let answer = admin.whole(request).await?;
            answer.ok().with_context(|| authorization)?;
            let warning = match warns {
                true => {
                    "299 - \"the provided Authorization header contains extra space before the \
                     bearer token, and is ignored\""
                }
                false => "",
            };
            let own = answer.header("warning");
            ensure!(own == warning, "{authorization:?}: Warning: {own}");
        }
        let answer = client(&stranger)?.get(&target).await?;
        expect_status(&answer, 401, "Unauthorized", "Unauthorized", "")?;
        let answer = clients[0].get(&format!("{target}?watch=1")).await?;
        let anonymous = no_config_maps("system:anonymous", "watch", &namespace);
        expect_forbidden(&answer, &anonymous, r#"{"kind":"configmaps"}"#)?;
    }
    Ok(())
}

/// 134: over HTTP/2 who does not say who it is gets one request a connection; who does keeps it,
/// refused or not.
pub async fn a_stranger_keeps_no_http2_connection(cluster: &Cluster) -> anyhow::Result<()> {
    let target = config_maps(&cluster.namespace("a").await?);
    let anonymous = Identity::anonymous();
    for (identity, target, status) in [
        (anonymous.clone(), &*target, 403),
        (anonymous.clone(), "/readyz", 200),
        (anonymous.with_token("bad"), &*target, 401),
    ] {
        let client = cluster.client_over(&identity, Protocol::Http2)?;
        ensure!(client.get(target).await?.status == status);
        until("the connection is closed", async || {
            Ok(client.is_left().await)
        })
        .await?;
    }
    let alice = cluster.user(&cluster.name("alice"), None)?;
    let client = cluster.client_over(&alice, Protocol::Http2)?;
    for _ in 0..3 {
        ensure!(client.get(&target).await?.status == 403);
        ensure!(!client.is_left().await);
    }
    Ok(())
}

/// 138: identity headers of a client that is no front proxy do nothing, also not when it has them
/// dropped on the way.
pub async fn headers_of_front_proxies_give_nobody_another_name(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let user = cluster.name("alice");
    let alice = cluster.user(&user, None)?;
    let admin = [
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Uid", "1"),
        ("X-Remote-Extra-Scopes", "all"),
        ("x-remote-user", "admin"),
    ];
    let dropped = [
        (
            "Connection",
            "X-Remote-User, X-Remote-Group, X-Remote-Extra-Scopes, Authorization",
        ),
        ("Connection", "close, x-remote-uid"),
    ];
    let target = config_maps(&namespace);
    for (identity, name) in [
        (&alice, &*user),
        (&Identity::anonymous(), "system:anonymous"),
    ] {
        for (protocol, headers) in [
            (Protocol::Http1, admin.to_vec()),
            (Protocol::Http2, admin.to_vec()),
            (Protocol::Http1, [&admin[..], &dropped[..]].concat()),
            (Protocol::Http1, dropped.to_vec()),
        ] {
            let client = cluster.client_over(identity, protocol)?;
            let request = headers
                .iter()
                .fold(Request::get(&target), |own, (name, value)| {
                    own.header(*name, *value)
                });
            let message = no_config_maps(name, "list", &namespace);
            let answer = client.whole(request).await?;
            expect_forbidden(&answer, &message, r#"{"kind":"configmaps"}"#)
                .with_context(|| format!("{headers:?}"))?;
            if name != user {
                continue; // a stranger may not even ask who it is
            }
            let plain = whoami(&client, &[]).await?;
            ensure!(plain["username"] == name, "{plain}");
            let info = whoami(&client, &headers).await?;
            ensure!(info == plain, "{headers:?}: {info}, not {plain}");
        }
    }
    Ok(())
}

/// 139: impersonation ends as it does at the apiserver, whoever tries it.
pub async fn who_impersonates_gets_what_the_apiserver_gives(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    cluster.config_map(&namespace, "x").await?;
    let (alice, bob) = (cluster.name("alice"), cluster.name("bob"));
    cluster
        .allow(&alice, &namespace, &reading(&["list"]))
        .await?;
    let target = format!("{}/x", config_maps(&namespace));
    let collection = config_maps(&namespace);
    for impersonator in [
        cluster.user("admin", Some("system:masters"))?,
        cluster.user(&bob, None)?,
        Identity::anonymous(),
    ] {
        let clients = (
            cluster.client(&impersonator)?,
            cluster.directly(&impersonator)?,
        );
        for headers in [
            vec![("Impersonate-User", &*alice)],
            vec![("Impersonate-User", &*bob)],
            vec![("Impersonate-Group", "g")],
            vec![("Impersonate-Uid", "1")],
            vec![("Impersonate-Extra-Scopes", "a")],
            vec![
                ("Impersonate-User", "x"),
                ("Impersonate-Group", "system:masters"),
            ],
            vec![("impersonate-user", "system:serviceaccount:ns:sa")],
            vec![("Impersonate-User", "system:anonymous")],
            vec![
                ("Impersonate-User", "system:node:n"),
                ("Impersonate-Group", "system:nodes"),
            ],
        ] {
            for target in [&target, &collection] {
                let request = headers
                    .iter()
                    .fold(Request::get(target), |own, (name, value)| {
                        own.header(*name, *value)
                    });
                let direct = clients.1.whole(request.clone()).await?;
                let answer = clients.0.whole(request).await?;
                let same = |own: &str| match answer.status {
                    // Other cases write to the collection's resource.
                    200 if target == &collection => {
                        own.split("\"items\"").nth(1).map(str::to_owned)
                    }
                    _ => Some(own.to_owned()),
                };
                ensure!(
                    (answer.status, same(&answer.text())) == (direct.status, same(&direct.text())),
                    "{headers:?}: {} {}, not {} {}",
                    answer.status,
                    answer.text(),
                    direct.status,
                    direct.text()
                );
            }
        }
    }
    // What it comes to, where the text is not the apiserver's own affair.
    let admin = cluster.admin();
    let listing = |user: &str| Request::get(&collection).header("impersonate-user", user);
    admin.whole(listing(&alice)).await?.ok()?;
    let answer = admin.whole(listing(&bob)).await?;
    let message = no_config_maps(&bob, "list", &namespace);
    expect_forbidden(&answer, &message, r#"{"kind":"configmaps"}"#)?;
    let info = whoami(admin, &[("impersonate-user", &bob)]).await?;
    ensure!(info["username"] == *bob, "{info}");
    Ok(())
}

/// 142: the same request of two users at the same time, one of whom may not: nothing crosses over.
pub async fn nobody_gets_what_another_may_see(cluster: &Cluster) -> anyhow::Result<()> {
    const ROUNDS: usize = 24;
    let namespace = cluster.namespace("a").await?;
    cluster.config_map(&namespace, "x").await?;
    let (alice, bob) = (cluster.name("alice"), cluster.name("bob"));
    cluster
        .allow(&alice, &namespace, &reading(&["list", "watch", "get"]))
        .await?;
    let collection = config_maps(&namespace);
    let requests = [
        (collection.clone(), "list"),
        (format!("{collection}?resourceVersion=0"), "list"),
        (format!("{collection}?watch=1&resourceVersion=0"), "watch"),
    ];
    let ask = async |user: &str, protocol| {
        let client = cluster.client_over(&cluster.user(user, None)?, protocol)?;
        for round in 0..ROUNDS {
            let (target, verb) = &requests[round % requests.len()];
            if user == bob {
                let message = no_config_maps(user, verb, &namespace);
                let answer = client.get(target).await?;
                expect_forbidden(&answer, &message, r#"{"kind":"configmaps"}"#)?;
                continue;
            }
            let mut open = client.send(Request::get(target)).await?;
            ensure!(open.status() == 200, "{target}: {}", open.status());
            let first = open.chunk().await?.context("an answer has a body")?;
            let text = String::from_utf8_lossy(&first);
            ensure!(text.contains(r#""name":"x""#), "{target}: {text}");
        }
        anyhow::Ok(())
    };
    let protocols = [Protocol::Http1, Protocol::Http2];
    let pairs = protocols
        .iter()
        .flat_map(|own| [(&alice, *own), (&bob, *own)]);
    try_join_all(pairs.map(|(user, protocol)| ask(user, protocol))).await?;
    Ok(())
}
