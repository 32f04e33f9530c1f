//! A proxy behind a proxy: each caches for the tier before it, and who asks at the first is who the
//! apiserver sees.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use http::{HeaderName, Method};
use rcgen::DnType;
use serde_json::{Value, json};
use watershed_config::{Config, Credentials, GroupResource, RequestHeader, UpstreamIdentity};
use watershed_loadtest::apiserver::{
    Apiserver, Options,
    authn::Users,
    certs::{Credential, Pki},
};

use crate::{
    certificates,
    client::{Answer, Client, Event, JSON, PROTOBUF, Protocol, empty, full},
    fixture::Fixture,
    objects::{let_read, load, put},
    passthrough::first_over_websocket,
    peer::{self, Caller, metric},
};

type Headers<'a> = &'a [(&'static str, &'a str)];

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REGION: &str = "region-a";
/// What a user of a certificate has beside its name.
const CREDENTIAL_ID: &str = "userextras/authentication.kubernetes.io/credential-id";

/// Client, region, centre, apiserver.
struct Tiers {
    apiserver: Apiserver,
    centre: Fixture,
    region: Fixture,
}

impl Tiers {
    /// alice may read ConfigMaps in `default`; the region may read everything and ask for reviews,
    /// and names itself by a certificate like any client.
    async fn start(
        at_centre: impl FnOnce(&mut Config),
        at_region: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        let users = Users::parse("alice-token,alice,1,\"dev,ops\"\nbob-token,bob,2")?;
        let options = Options {
            users,
            ..Options::default()
        };
        let apiserver = Apiserver::start(options).await?;
        let_read(&apiserver, "default", &["alice"]);
        let_work(&apiserver);
        let centre = Fixture::start(&apiserver, |config| {
            let folder = config.startup.listen.cert_file.parent();
            let own = request_header(folder.unwrap());
            config.startup.request_header = Some(own);
            at_centre(config);
        })
        .await?;
        let own = apiserver.pki().issue(REGION, None)?;
        let region = Fixture::behind(apiserver.pki(), centre.proxy.address(), |config| {
            let file = |name: &str| config.startup.listen.cert_file.with_file_name(name);
            let (cert_file, key_file) = (file("region.crt"), file("region.key"));
            std::fs::write(&cert_file, &own.certificate).unwrap();
            std::fs::write(&key_file, &own.key).unwrap();
            config.startup.upstream.credentials = Credentials::ClientCertificate {
                cert_file,
                key_file,
            };
            at_region(config);
        })
        .await?;
        Ok(Self {
            apiserver,
            centre,
            region,
        })
    }

    fn pki(&self) -> &Pki {
        self.apiserver.pki()
    }

    fn client_of(
        &self,
        fixture: &Fixture,
        credential: Option<&Credential>,
        protocol: Protocol,
    ) -> anyhow::Result<Client> {
        let ca = self.pki().ca();
        Client::new(fixture.proxy.address(), ca, credential, protocol)
    }

    fn directly(&self, credential: Option<&Credential>) -> anyhow::Result<Client> {
        let (address, ca) = (self.apiserver.addr(), self.pki().ca());
        Client::new(address, ca, credential, Protocol::Http2)
    }

    async fn stop(self) {
        self.region.stop().await;
        self.centre.stop().await;
        self.apiserver.shutdown().await;
    }
}

/// The authority that the embedded apiserver's files name, and the headers as it takes them.
fn request_header(folder: &Path) -> RequestHeader {
    let one = |name: &str| vec![name.to_owned()];
    RequestHeader {
        client_ca_file: folder.join("front-proxy-ca.crt"),
        allowed_names: Vec::new(),
        username_headers: one("x-remote-user"),
        group_headers: one("x-remote-group"),
        uid_headers: one("x-remote-uid"),
        extra_header_prefixes: one("x-remote-extra-"),
    }
}

/// Lets the region do what a proxy does under its own name.
fn let_work(apiserver: &Apiserver) {
    let rbac = "rbac.authorization.k8s.io";
    let metadata = json!({"name": REGION, "uid": "u"});
    let reviews = ["subjectaccessreviews", "tokenreviews"];
    let rules = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["*"], "resources": reviews, "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]},
        {"apiGroups": ["*"], "resources": [CREDENTIAL_ID], "verbs": ["impersonate"]},
    ]);
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole",
        "metadata": metadata, "rules": rules});
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": REGION}],
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": REGION}});
    load(apiserver, (rbac, "clusterroles"), role);
    load(apiserver, (rbac, "clusterrolebindings"), binding);
}

async fn with(
    client: &Client,
    (method, target): (Method, &str),
    headers: Headers<'_>,
    body: Option<&Value>,
) -> anyhow::Result<Answer> {
    let body = body.map_or_else(empty, |body| full(body.to_string()));
    let mut request = client.request(method, target).body(body)?;
    request
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static(JSON));
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        request.headers_mut().append(name, value.parse()?);
    }
    client.whole(request).await
}

/// Whom the apiserver sees, extras and all.
async fn who(client: &Client, headers: Headers<'_>) -> anyhow::Result<Value> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = with(client, (Method::POST, REVIEWS), headers, Some(&review)).await?;
    Ok(answer.ok()?["status"]["userInfo"].take())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tier_holds_one_watch_for_all_watches_of_the_tier_before() -> anyhow::Result<()> {
    let tiers = Tiers::start(|_| (), |_| ()).await?;
    put(&tiers.apiserver, "first", 1);
    let alice = tiers.pki().issue("alice", None)?;
    let target = "/api/v1/namespaces/default/configmaps";
    let mut watches = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http2] {
        let client = tiers.client_of(&tiers.region, Some(&alice), protocol)?;
        client
            .get(&format!("{target}?resourceVersion=0"))
            .await?
            .ok()?;
        client.get(target).await?.ok()?;
        let accept = if watches.len() == 1 { PROTOBUF } else { JSON };
        let target = format!("{target}?watch=1&resourceVersion=0");
        watches.push((client.watch(&target, accept).await?, client));
    }
    put(&tiers.apiserver, "second", 2);
    for (watch, _client) in &mut watches {
        for name in ["default/first", "default/second"] {
            let event = watch.object().await?.context("it ended")?;
            ensure!(
                matches!(&event, Event::Object("ADDED", key, _) if key == name),
                "{event:?}"
            );
        }
    }
    // One of each encoding.
    assert_eq!(tiers.apiserver.counters().open_watches("", "configmaps"), 2);
    let watchers = "watershed_watchers{group=\"\",resource=\"configmaps\"}";
    assert_eq!(
        metric(tiers.centre.proxy.admin_address(), watchers).await?,
        2.0
    );
    assert_eq!(
        metric(tiers.region.proxy.admin_address(), watchers).await?,
        3.0
    );
    drop(watches);
    tiers.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forwarded_arrives_as_who_asked_at_the_first_tier() -> anyhow::Result<()> {
    let tiers = Tiers::start(|_| (), |_| ()).await?;
    let pki = tiers.pki();
    let (alice, kubelet) = (
        pki.issue("alice", Some("a,b \u{e9}%"))?,
        pki.issue_node("n1")?,
    );
    let token = [("authorization", "Bearer alice-token")];
    for protocol in PROTOCOLS {
        for (credential, headers) in [
            (Some(&alice), &[][..]),
            (Some(&kubelet), &[]),
            (None, &token),
            // The certificate wins, and nobody after it sees the token.
            (Some(&alice), &[("authorization", "Bearer bob-token")]),
        ] {
            let client = tiers.client_of(&tiers.region, credential, protocol)?;
            let seen = who(&client, headers).await?;
            let expected = who(&tiers.directly(credential)?, headers).await?;
            assert_eq!(seen, expected, "{protocol:?}");
        }
        let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
        let dave = certificates::issue(pki, "dave", |it| {
            it.distinguished_name.push(uid, "uid-of-dave");
        })?;
        let client = tiers.client_of(&tiers.region, Some(&dave), protocol)?;
        let seen = who(&client, &[]).await?;
        assert_eq!(
            (&seen["username"], &seen["uid"]),
            (&json!("dave"), &json!("uid-of-dave"))
        );
        let id = &seen["extra"]["authentication.kubernetes.io/credential-id"][0];
        ensure!(
            id.as_str().is_some_and(|it| it.starts_with("X509SHA256=")),
            "{seen}"
        );
    }
    // Rights go with the name: a kubelet's own Lease, and nobody else's.
    let client = tiers.client_of(&tiers.region, Some(&kubelet), Protocol::Http2)?;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    with(&client, (Method::POST, leases), &[], Some(&lease))
        .await?
        .ok()?;
    let (own, other) = (format!("{leases}/n1"), format!("{leases}/n2"));
    for (method, target, status) in [
        (Method::DELETE, &other, 403),
        (Method::GET, &own, 200),
        (Method::GET, &other, 403),
        (Method::PATCH, &other, 403),
    ] {
        let answer = with(&client, (method.clone(), target), &[], None).await?;
        assert_eq!(
            answer.status,
            status,
            "{method} {target}: {}",
            answer.text()
        );
    }
    tiers.stop().await;
    Ok(())
}

/// Upgraded connections have a way of their own through each tier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_goes_through_both_tiers_as_who_asked() -> anyhow::Result<()> {
    let tiers = Tiers::start(|_| (), |_| ()).await?;
    put(&tiers.apiserver, "x", 1);
    let target = "/api/v1/namespaces/default/configmaps";
    for (user, allowed) in [("alice", true), ("bob", false)] {
        let credential = tiers.pki().issue(user, None)?;
        let client = tiers.client_of(&tiers.region, Some(&credential), Protocol::Http1)?;
        if allowed {
            let event = first_over_websocket(&client, target).await?;
            assert_eq!(event["object"]["metadata"]["name"], "x");
            continue;
        }
        let headers = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let answer = with(&client, (Method::GET, target), &headers, None).await?;
        assert_eq!(answer.status, 403, "{}", answer.text());
        ensure!(answer.text().contains("\\\"bob\\\""), "{}", answer.text());
    }
    tiers.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_says_of_itself_ends_at_the_first_tier() -> anyhow::Result<()> {
    let tiers = Tiers::start(|_| (), |_| ()).await?;
    let alice = tiers.pki().issue("alice", Some("dev"))?;
    let attacks: [Headers<'_>; 4] = [
        &[
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
        ],
        &[("x-remote-uid", "0"), ("x-remote-extra-scopes", "all")],
        &[
            ("x_remote_user", "admin"),
            ("x-remote_group", "system:masters"),
        ],
        &[
            ("connection", "x-remote-user, x-remote-group, x-remote-uid"),
            (
                "connection",
                "x-remote-extra-authentication.kubernetes.io%2fcredential-id",
            ),
        ],
    ];
    for protocol in PROTOCOLS {
        let client = tiers.client_of(&tiers.region, Some(&alice), protocol)?;
        let plain = who(&client, &[]).await?;
        for attack in attacks {
            let hop_by_hop = attack.iter().any(|(name, _)| *name == "connection");
            if hop_by_hop && protocol == Protocol::Http2 {
                continue; // a client library will not send it
            }
            assert_eq!(who(&client, attack).await?, plain, "{attack:?}");
            let secrets = (Method::GET, "/api/v1/secrets");
            let answer = with(&client, secrets, attack, None).await?;
            assert_eq!(answer.status, 403, "{attack:?}: {}", answer.text());
        }
    }
    tiers.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_second_tier_nobody_but_a_front_proxy_speaks_for_others() -> anyhow::Result<()> {
    let tiers = Tiers::start(|_| (), |_| ()).await?;
    put(&tiers.apiserver, "x", 1);
    let pki = tiers.pki();
    let (front_proxy, alice) = (pki.issue_front_proxy()?, pki.issue("alice", None)?);
    let stranger = Pki::ephemeral()?.issue_front_proxy()?;
    let as_alice: Headers<'_> = &[("x-remote-user", "alice")];
    let as_bob: Headers<'_> = &[("x-remote-user", "bob")];
    let as_admin: Headers<'_> = &[("x-remote-user", "a"), ("x-remote-group", "system:masters")];
    let no_name: Headers<'_> = &[("x-remote-user", ""), ("x-remote-group", "system:masters")];
    let bearer: Headers<'_> = &[
        ("authorization", "Bearer alice-token"),
        as_admin[0],
        as_admin[1],
    ];
    let own = "/api/v1/namespaces/default/configmaps";
    let (others, forwarded) = ("/api/v1/secrets", "/version");
    // Credential, headers; the answers to a cached read that alice may make, to one that only an
    // administrator may, and to what is forwarded.
    let table = [
        (Some(&front_proxy), as_alice, [200, 403, 200]),
        (Some(&front_proxy), as_bob, [403, 403, 200]),
        (Some(&front_proxy), as_admin, [200, 200, 200]),
        (Some(&front_proxy), no_name, [401, 401, 401]),
        (Some(&front_proxy), &[], [401, 401, 401]),
        (Some(&stranger), as_admin, [401, 401, 401]),
        (Some(&alice), as_admin, [200, 403, 200]),
        (Some(&alice), as_bob, [200, 403, 200]),
        (None, as_admin, [401, 401, 401]),
        (None, bearer, [200, 403, 200]),
    ];
    for protocol in PROTOCOLS {
        for (row, (credential, headers, expected)) in table.into_iter().enumerate() {
            for (target, status) in [own, others, forwarded].into_iter().zip(expected) {
                // A 401 is the last answer of an HTTP/2 connection.
                let client = tiers.client_of(&tiers.centre, credential, protocol)?;
                let answer = with(&client, (Method::GET, target), headers, None).await?;
                let text = answer.text();
                assert_eq!(answer.status, status, "{row} {target} {protocol:?}: {text}");
            }
        }
    }
    let client = tiers.client_of(&tiers.centre, Some(&front_proxy), Protocol::Http2)?;
    let seen = who(
        &client,
        &[
            ("x-remote-user", "carol"),
            ("x-remote-uid", "u-7"),
            ("x-remote-group", "a,b"),
            ("x-remote-group", "c"),
            ("x-remote-extra-%4bey%2fx", "v"),
            ("x-remote-extra-%4bey%2fx", "w"),
        ],
    );
    let expected = json!({"username": "carol", "uid": "u-7",
        "groups": ["a,b", "c", "system:authenticated"], "extra": {"Key/x": ["v", "w"]}});
    assert_eq!(seen.await?, expected);
    tiers.stop().await;
    Ok(())
}

/// A stranger gets one request of an HTTP/2 connection; those of a front proxy share theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_proxy_keeps_its_connection_when_it_speaks_for_a_stranger() -> anyhow::Result<()> {
    let tiers = Tiers::start(|_| (), |_| ()).await?;
    let pki = tiers.pki();
    let front_proxy = Caller::of(pki, pki.issue_front_proxy()?);
    let client = peer::Client::connect(tiers.centre.proxy.address(), &front_proxy).await?;
    for _ in 0..5 {
        let request = http::Request::get(peer::url("/api/v1/secrets"))
            .header("x-remote-user", "system:anonymous")
            .header("x-remote-group", "system:unauthenticated");
        let answer = client.send(request, "").await?;
        assert_eq!(answer.status(), 403);
        let body = peer::Answer::read(answer).await?.body;
        ensure!(String::from_utf8_lossy(&body).contains("system:anonymous"));
        // Time for a connection to be left.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(client);
    tiers.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_proxy_whose_name_is_not_allowed_speaks_for_nobody() -> anyhow::Result<()> {
    let only = |name: &'static str| {
        move |config: &mut Config| {
            let own = config.startup.request_header.as_mut();
            own.unwrap().allowed_names = vec![name.to_owned()];
        }
    };
    for (name, status) in [("front-proxy-client", 200), ("another", 401)] {
        let tiers = Tiers::start(only(name), |_| ()).await?;
        let alice = tiers.pki().issue("alice", None)?;
        let client = tiers.client_of(&tiers.region, Some(&alice), Protocol::Http2)?;
        let answer = client.get("/version").await?;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        tiers.stop().await;
    }
    Ok(())
}

/// All of them share the region's connections to the centre.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_share_a_front_proxy_get_their_own_answers() -> anyhow::Result<()> {
    const ROUNDS: usize = 40;
    let pass_through = |config: &mut Config| {
        config.live.cache.passthrough.push(GroupResource {
            group: String::new(),
            resource: "configmaps".to_owned(),
        });
    };
    let tiers = Tiers::start(|_| (), pass_through).await?;
    put(&tiers.apiserver, "secret-of-alice", 1);
    let mut asking = tokio::task::JoinSet::new();
    for user in ["alice", "bob"] {
        let credential = tiers.pki().issue(user, None)?;
        let own = tiers.client_of(&tiers.region, Some(&credential), Protocol::Http2)?;
        let own = Arc::new(own);
        for round in 0..ROUNDS {
            let client = Arc::clone(&own);
            asking.spawn(async move {
                let target = match round % 3 {
                    0 => "/api/v1/namespaces/default/configmaps",
                    1 => "/api/v1/namespaces/default/configmaps?resourceVersion=0",
                    _ => "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1",
                };
                let answer = client.get(target).await?;
                let text = answer.text();
                let allowed = user == "alice";
                ensure!(
                    answer.status == if allowed { 200 } else { 403 },
                    "{user}: {text}"
                );
                ensure!(
                    text.contains("secret-of-alice") == allowed,
                    "{user}: {text}"
                );
                anyhow::Ok(())
            });
        }
    }
    while let Some(answered) = asking.join_next().await {
        answered??;
    }
    // The centre answered from its cache.
    assert_eq!(tiers.apiserver.counters().open_watches("", "configmaps"), 1);
    tiers.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impersonation_goes_through_every_tier_and_so_does_a_region_that_impersonates()
-> anyhow::Result<()> {
    let as_alice: Headers<'_> = &[("impersonate-user", "alice"), ("impersonate-group", "g")];
    let tiers = Tiers::start(|_| (), |_| ()).await?;
    let admin = tiers.pki().issue("root", Some("system:masters"))?;
    let bob = tiers.pki().issue("bob", None)?;
    let client = tiers.client_of(&tiers.region, Some(&admin), Protocol::Http2)?;
    let seen = who(&client, as_alice).await?;
    assert_eq!(seen, who(&tiers.directly(Some(&admin))?, as_alice).await?);
    assert_eq!(seen["username"], "alice");
    let client = tiers.client_of(&tiers.region, Some(&bob), Protocol::Http2)?;
    let review = (Method::POST, REVIEWS);
    let refused = with(&client, review.clone(), as_alice, Some(&json!({}))).await?;
    assert_eq!(refused.status, 403, "{}", refused.text());
    tiers.stop().await;

    let impersonate = |config: &mut Config| {
        config.startup.upstream.identity = UpstreamIdentity::Impersonate;
    };
    let tiers = Tiers::start(|_| (), impersonate).await?;
    let alice = tiers.pki().issue("alice", Some("dev"))?;
    let client = tiers.client_of(&tiers.region, Some(&alice), Protocol::Http2)?;
    let seen = who(&client, &[]).await?;
    let direct = who(&tiers.directly(Some(&alice))?, &[]).await?;
    assert_eq!(seen, direct);
    tiers.stop().await;
    Ok(())
}
