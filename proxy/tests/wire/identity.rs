//! Who is let in, as whom, and that nobody gets what another may see.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use http::{HeaderName, Method};
use rcgen::DnType;
use serde_json::json;
use watershed_config::UpstreamIdentity;
use watershed_loadtest::apiserver::{
    Apiserver, Options,
    authn::Users,
    certs::{Credential, Pki},
    faults::Failure,
};

use crate::{
    certificates,
    client::{Answer, Client, JSON, PROTOBUF, Protocol, empty, full},
    fixture::Fixture,
    objects::{let_read, load},
};

/// Headers of a request, by name.
type Headers<'a> = &'a [(&'static str, &'a str)];

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Rounds of interleaved requests; each has eight.
const ROUNDS: usize = 60;

fn config_maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// alice may read ConfigMaps in `a`, bob in `b`; each namespace holds one, named after it.
async fn start() -> anyhow::Result<Apiserver> {
    let users = Users::parse("alice-token,alice,1\nbob-token,bob,2")?;
    let apiserver = Apiserver::start(Options {
        users,
        ..Options::default()
    })
    .await?;
    for (namespace, user) in [("a", "alice"), ("b", "bob")] {
        let_read(&apiserver, namespace, &[user]);
        load(
            &apiserver,
            ("", "configmaps"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
                "name": format!("of-{user}"), "namespace": namespace, "uid": "u",
                "creationTimestamp": "2026-01-01T00:00:00Z",
            }}),
        );
    }
    Ok(apiserver)
}

/// A request with headers of its own.
async fn with(
    client: &Client,
    method: Method,
    target: &str,
    headers: Headers<'_>,
) -> anyhow::Result<Answer> {
    let mut request = client.request(method, target).body(empty())?;
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        request.headers_mut().insert(name, value.parse()?);
    }
    client.whole(request).await
}

/// Whom the apiserver sees.
async fn seen_as(client: &Client, headers: Headers<'_>) -> anyhow::Result<String> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let mut request = client
        .request(Method::POST, REVIEW)
        .header("content-type", JSON)
        .body(full(review.to_string()))?;
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        request.headers_mut().insert(name, value.parse()?);
    }
    let answer = client.whole(request).await?.ok()?;
    let name = answer["status"]["userInfo"]["username"].as_str();
    Ok(name.context("no user")?.to_owned())
}

/// An administrator's certificate of the cluster's authority that was good until 2021.
fn expired(pki: &Pki) -> anyhow::Result<Credential> {
    certificates::issue(pki, "admin", |params| {
        let group = DnType::OrganizationName;
        params.distinguished_name.push(group, "system:masters");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_valid_credential_get_a_401_status() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let stranger = Pki::ephemeral()?.issue("admin", Some("system:masters"))?;
    let expired = expired(apiserver.pki())?;
    let cases: [(&str, Option<&Credential>, Headers<'_>); 5] = [
        ("nothing", None, &[]),
        ("an unknown authority", Some(&stranger), &[]),
        ("an expired certificate", Some(&expired), &[]),
        ("a bad token", None, &[("authorization", "Bearer nobody's")]),
        (
            "no token",
            None,
            &[("authorization", "Basic YWxpY2U6YWxpY2U=")],
        ),
    ];
    for protocol in PROTOCOLS {
        for (name, credential, headers) in cases {
            for target in [config_maps("a").as_str(), "/version", "/apis"] {
                let ask = async || {
                    let client = fixture.client(&apiserver, credential, protocol)?;
                    with(&client, Method::GET, target, headers).await
                };
                // A 401 is the last answer of an HTTP/2 connection; a client that meets its end
                // asks again over another.
                let answer = match ask().await {
                    Err(_ended) if protocol == Protocol::Http2 => ask().await?,
                    answer => answer?,
                };
                let status = answer.json()?;
                assert_eq!(answer.status, 401, "{name}, {protocol:?}, {target}");
                assert_eq!(status["kind"], "Status", "{name}");
                assert_eq!(status["reason"], "Unauthorized", "{name}");
            }
        }
    }
    let mut known = apiserver.counters().all_requests();
    known.retain(|key, _| key.resource == "configmaps" && key.verb == "get");
    assert!(known.is_empty(), "{known:?} reached the apiserver");
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_token_is_good_for_cached_reads_and_for_passing_through() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let token = [("authorization", "Bearer alice-token")];
    for protocol in PROTOCOLS {
        let client = fixture.client(&apiserver, None, protocol)?;
        let list = with(&client, Method::GET, &config_maps("a"), &token).await?;
        assert_eq!(list.ok()?["items"][0]["metadata"]["name"], "of-alice");
        assert_eq!(seen_as(&client, &token).await?, "alice");
    }
    // The cache of the JSON list and the watch behind it are all that was read.
    let watches = apiserver.counters().open_watches("", "configmaps");
    assert_eq!(watches, 1);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hides_a_token_behind_a_blank_is_warned_whoever_answers() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.authentication.anonymous = true;
    })
    .await?;
    let alice = apiserver.pki().issue("alice", Some("dev"))?;
    let hidden = [("authorization", "Bearer  x")];
    for credential in [Some(&alice), None] {
        let ca = apiserver.pki().ca();
        let direct = Client::new(apiserver.addr(), ca, credential, Protocol::Http1)?;
        let proxied = fixture.client(&apiserver, credential, Protocol::Http1)?;
        // Answered by the cache, passed through, and refused by the apiserver.
        for target in [&*config_maps("a"), "/version", "/metrics"] {
            let theirs = with(&direct, Method::GET, target, &hidden).await?;
            let ours = with(&proxied, Method::GET, target, &hidden).await?;
            assert_eq!(ours.status, theirs.status, "{target}");
            let warnings = |answer: &Answer| -> Vec<_> {
                answer.headers.get_all("warning").iter().cloned().collect()
            };
            assert_eq!(warnings(&ours), warnings(&theirs), "{target}");
            assert_eq!(warnings(&ours).len(), 1, "{target}");
        }
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_403_is_the_apiservers_byte_for_byte() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let bob = apiserver.pki().issue("bob", Some("dev"))?;
    let targets = [
        config_maps("a"),
        format!("{}/of-alice", config_maps("a")),
        format!("{}?watch=1", config_maps("a")),
        format!("{}?labelSelector=x%3Dy&limit=5", config_maps("a")),
        format!("{}?fieldSelector=metadata.name%3Dx", config_maps("a")),
        "/api/v1/configmaps".to_owned(),
        "/api/v1/nodes".to_owned(),
        "/api/v1/nodes/node-0?resourceVersion=0".to_owned(),
        "/apis/apps/v1/deployments?watch=1".to_owned(),
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/x".to_owned(),
    ];
    for protocol in PROTOCOLS {
        let ca = apiserver.pki().ca();
        let direct = Client::new(apiserver.addr(), ca, Some(&bob), protocol)?;
        let proxied = fixture.client(&apiserver, Some(&bob), protocol)?;
        for target in &targets {
            for accept in [JSON, PROTOBUF, "application/yaml"] {
                let headers = [("accept", accept)];
                let theirs = with(&direct, Method::GET, target, &headers).await?;
                let ours = with(&proxied, Method::GET, target, &headers).await?;
                assert_eq!(theirs.status, 403, "{target}: {}", theirs.text());
                assert_eq!(ours.status, 403, "{target}: {}", ours.text());
                assert_eq!(ours.text(), theirs.text(), "{target} {accept}");
                for header in ["content-type", "x-content-type-options", "cache-control"] {
                    let (ours, theirs) = (ours.headers.get(header), theirs.headers.get(header));
                    assert_eq!(ours, theirs, "{target} {accept} {header}");
                }
            }
        }
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_users_see_their_own_and_nothing_else() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    // One connection without a certificate: only the token of each request tells them apart.
    let shared = Arc::new(fixture.client(&apiserver, None, Protocol::Http2)?);
    let pki = apiserver.pki();
    let own = |user: &str| -> anyhow::Result<Arc<Client>> {
        let credential = pki.issue(user, Some("dev"))?;
        let client = fixture.client(&apiserver, Some(&credential), Protocol::Http2)?;
        Ok(Arc::new(client))
    };
    let (alice, bob) = (own("alice")?, own("bob")?);
    let mut requests = tokio::task::JoinSet::new();
    for round in 0..ROUNDS {
        for namespace in ["a", "b"] {
            for (user, certain) in [("alice", &alice), ("bob", &bob)] {
                for client in [&shared, certain] {
                    let client = Arc::clone(client);
                    requests.spawn(async move {
                        let token = format!("Bearer {user}-token");
                        let target = match round % 3 {
                            0 => config_maps(namespace),
                            1 => format!("{}?resourceVersion=0", config_maps(namespace)),
                            _ => format!("{}?watch=1&timeoutSeconds=1", config_maps(namespace)),
                        };
                        let headers = [("authorization", token.as_str())];
                        let answer = with(&client, Method::GET, &target, &headers).await?;
                        let allowed = (user, namespace) == ("alice", "a")
                            || (user, namespace) == ("bob", "b");
                        let expected = if allowed { 200 } else { 403 };
                        let text = answer.text();
                        ensure!(answer.status == expected, "{user} {target}: {text}");
                        let sees = |owner: &str| text.contains(&format!("\"of-{owner}\""));
                        ensure!(
                            sees("alice") == (allowed && user == "alice"),
                            "{user}: {text}"
                        );
                        ensure!(sees("bob") == (allowed && user == "bob"), "{user}: {text}");
                        anyhow::Ok(())
                    });
                }
            }
        }
    }
    while let Some(answered) = requests.join_next().await {
        answered??;
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_name_another_user_have_no_effect() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let alice = apiserver.pki().issue("alice", Some("dev"))?;
    let attacks: [Headers<'_>; 3] = [
        &[
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
        ],
        &[
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
        ],
        &[("x-remote-uid", "0"), ("x_remote_user", "admin")],
    ];
    for attack in attacks {
        for protocol in PROTOCOLS {
            let client = fixture.client(&apiserver, Some(&alice), protocol)?;
            let cached = with(&client, Method::GET, &config_maps("b"), attack).await?;
            assert_eq!(cached.status, 403, "{attack:?}: {}", cached.text());
            let passed = with(&client, Method::DELETE, &config_maps("b"), attack).await?;
            assert_eq!(passed.status, 403, "{attack:?}: {}", passed.text());
            assert_eq!(seen_as(&client, attack).await?, "alice", "{attack:?}");
        }
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impersonation_is_the_apiservers_to_decide() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let admin = apiserver.pki().issue("admin", Some("system:masters"))?;
    let alice = apiserver.pki().issue("alice", Some("dev"))?;
    let admin = fixture.client(&apiserver, Some(&admin), Protocol::Http2)?;
    let alice = fixture.client(&apiserver, Some(&alice), Protocol::Http2)?;
    // The cache is open and knows the administrator's rights.
    admin.get(&config_maps("b")).await?.ok()?;
    let forwarded = || apiserver.counters().requests("list", "", "configmaps");
    let before = forwarded();
    let as_alice = [("impersonate-user", "alice")];
    let own = with(&admin, Method::GET, &config_maps("a"), &as_alice).await?;
    assert_eq!(own.ok()?["items"][0]["metadata"]["name"], "of-alice");
    let other = with(&admin, Method::GET, &config_maps("b"), &as_alice).await?;
    assert_eq!(other.status, 403, "{}", other.text());
    assert_eq!(seen_as(&admin, &as_alice).await?, "alice");
    assert_eq!(forwarded(), before + 2);
    let as_admin = [
        ("impersonate-user", "admin"),
        ("impersonate-group", "system:masters"),
    ];
    let refused = with(&alice, Method::GET, &config_maps("a"), &as_admin).await?;
    assert_eq!(refused.status, 403, "{}", refused.text());
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// The apiserver knows one level of impersonation, which the proxy needs itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impersonation_through_a_proxy_that_impersonates_is_refused_and_never_dropped()
-> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.startup.upstream.identity = UpstreamIdentity::Impersonate;
    })
    .await?;
    let pki = apiserver.pki();
    let admin = pki.issue("admin", Some("system:masters"))?;
    for protocol in PROTOCOLS {
        let certain = fixture.client(&apiserver, Some(&admin), protocol)?;
        // The cache is open and knows the administrator's rights.
        certain.get(&config_maps("b")).await?.ok()?;
        assert_eq!(seen_as(&certain, &[]).await?, "admin");
        let forwarded = || apiserver.counters().requests("list", "", "configmaps");
        let before = forwarded();
        for headers in [
            &[("impersonate-user", "alice")][..],
            &[("impersonate-group", "g")],
            &[("impersonate-uid", "1")],
            &[("impersonate-extra-scopes", "all")],
            &[("impersonate-user", "")],
        ] {
            for target in [&*config_maps("b"), "/version"] {
                let refused = with(&certain, Method::GET, target, headers).await?;
                assert_eq!(refused.status, 403, "{headers:?}: {}", refused.text());
                let message = refused.json()?["message"].take();
                let message = message.as_str().context("no message")?;
                ensure!(message.contains("upstream.identity.mode"), "{message}");
            }
        }
        assert_eq!(forwarded(), before);
        // A token speaks for itself, so its owner may.
        let token = ("authorization", "Bearer alice-token");
        let own = fixture.client(&apiserver, None, protocol)?;
        let direct = Client::new(apiserver.addr(), pki.ca(), None, protocol)?;
        for as_somebody in [("impersonate-user", "bob"), ("impersonate-group", "g")] {
            let target = config_maps("a");
            let headers = [token, as_somebody];
            let ours = with(&own, Method::GET, &target, &headers).await?;
            let theirs = with(&direct, Method::GET, &target, &headers).await?;
            assert_eq!((ours.status, ours.text()), (theirs.status, theirs.text()));
            ensure!(ours.status.is_client_error(), "{}", ours.text());
        }
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_audience_is_a_401() -> anyhow::Result<()> {
    let apiserver = start().await?;
    for (audience, status) in [
        ("https://kubernetes.default.svc", 200),
        ("somebody-else", 401),
    ] {
        let fixture = Fixture::start(&apiserver, |config| {
            config.live.authentication.token_review.audiences = vec![audience.to_owned()];
        })
        .await?;
        let token = [("authorization", "Bearer alice-token")];
        for protocol in PROTOCOLS {
            let client = fixture.client(&apiserver, None, protocol)?;
            let answer = with(&client, Method::GET, &config_maps("a"), &token).await?;
            assert_eq!(answer.status, status, "{audience}: {}", answer.text());
        }
        fixture.stop().await;
    }
    apiserver.shutdown().await;
    Ok(())
}

/// An apiserver says 401 when it cannot tell who asks, whatever was wrong with its reviewer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_reviewer_lets_nobody_in() -> anyhow::Result<()> {
    let apiserver = start().await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.authentication.anonymous = true;
    })
    .await?;
    let token = [("authorization", "Bearer alice-token")];
    let ask = async || {
        let client = fixture.client(&apiserver, None, Protocol::Http1)?;
        with(&client, Method::GET, &config_maps("a"), &token).await
    };
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let faults = apiserver.faults();
    faults.fail_requests(reviews, Failure::InternalError, u64::MAX);
    let refused = ask().await?;
    assert_eq!(refused.status, 401, "{}", refused.text());
    faults.heal_requests();
    assert_eq!(ask().await?.status, 200, "nothing of it is remembered");
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_callers_are_let_in_only_where_that_is_configured() -> anyhow::Result<()> {
    let apiserver = start().await?;
    for (anonymous, cached, version) in [(false, 401, 401), (true, 403, 200)] {
        let fixture = Fixture::start(&apiserver, |config| {
            config.live.authentication.anonymous = anonymous;
        })
        .await?;
        let client = fixture.client(&apiserver, None, Protocol::Http2)?;
        let answer = client.get(&config_maps("a")).await?;
        assert_eq!(answer.status, cached, "{}", answer.text());
        assert_eq!(answer.text().contains("system:anonymous"), anonymous);
        let answer = client.get("/version").await?;
        assert_eq!(answer.status, version, "{}", answer.text());
        fixture.stop().await;
    }
    apiserver.shutdown().await;
    Ok(())
}
