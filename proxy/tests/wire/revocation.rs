//! A right that is taken away from a running watch, and a caller who is not known any more.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use serde_json::json;
use watershed_loadtest::apiserver::{
    Apiserver, Options,
    authn::Users,
    certs::{Credential, Pki},
};

use crate::{
    client::{Answer, Client, Event, JSON, PATIENCE, PROTOBUF, Protocol, Watch, empty},
    fixture::Fixture,
    objects::{let_read, load, put},
};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const START: &str = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
    &allowWatchBookmarks=true";

/// Far below what a configuration may say, so that no test waits for it.
const INTERVAL: Duration = Duration::from_millis(200);

/// An apiserver where alice and bob may watch the ConfigMaps of `default`, by a right of each, and a
/// proxy that looks at watches every `interval`.
async fn start(interval: Duration) -> anyhow::Result<(Apiserver, Fixture)> {
    start_as(interval, false).await
}

/// The same, the proxy knowing whether Node and RBAC are all that the apiserver authorizes by.
async fn start_as(interval: Duration, rbac: bool) -> anyhow::Result<(Apiserver, Fixture)> {
    let users = Users::parse("alice-token,alice,1\nbob-token,bob,2")?;
    let apiserver = Apiserver::start(Options {
        users,
        ..Options::default()
    })
    .await?;
    let_read(&apiserver, "default", &["alice", "bob"]);
    put(&apiserver, "first", 1);
    let fixture = Fixture::start(&apiserver, |config| {
        config.startup.authorizers.rbac = rbac;
        config.live.authorization.revalidate_watches = interval;
        config.live.authorization.allow_ttl = INTERVAL;
        config.live.authorization.deny_ttl = INTERVAL;
    })
    .await?;
    Ok((apiserver, fixture))
}

/// A watch of all ConfigMaps of `default` whose initial events are over.
async fn watch(client: &Client, accept: &'static str) -> anyhow::Result<Watch> {
    let mut watch = client
        .watch(&format!("{COLLECTION}?{START}"), accept)
        .await?;
    loop {
        match watch.next().await?.context("it ended")? {
            Event::Object("ADDED", ..) => {}
            Event::Bookmark(_, true) => return Ok(watch),
            other => anyhow::bail!("{other:?}"),
        }
    }
}

async fn ask_again(client: &Client) -> anyhow::Result<Answer> {
    client
        .get(&format!("{COLLECTION}?watch=1&timeoutSeconds=1"))
        .await
}

/// Reads a watch up to its end, which must be a clean one. None of its events is of an object that
/// was written after the right was gone.
async fn ended(mut watch: Watch) -> anyhow::Result<()> {
    loop {
        match watch.next().await? {
            None => return Ok(()),
            Some(Event::Bookmark(..)) => {}
            Some(Event::Object(_, key, _)) => ensure!(key != "default/late", "{key}"),
            Some(other) => anyhow::bail!("{other:?}"),
        }
    }
}

async fn goes_on(watch: &mut Watch, key: &str) -> anyhow::Result<()> {
    loop {
        match watch.object().await?.context("it ended")? {
            Event::Object("ADDED", found, _) if found == key => return Ok(()),
            Event::Object(..) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
}

/// The number of watches that were ended, by what was not good any more.
async fn revoked(fixture: &Fixture, reason: &str) -> anyhow::Result<u64> {
    let (_, metrics) = fixture.admin("/metrics").await?;
    let name = format!("watershed_watches_revoked_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    Ok(line.map_or(Ok(0), str::parse)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_whose_right_was_taken_away_ends_and_its_retry_gets_403() -> anyhow::Result<()> {
    let (apiserver, fixture) = start(INTERVAL).await?;
    let (ca, address) = (apiserver.pki().ca(), fixture.proxy.address());
    let mut watches = Vec::new();
    let mut others = Vec::new();
    for protocol in PROTOCOLS {
        for accept in [JSON, PROTOBUF] {
            let alice = apiserver.pki().issue("alice", Some("dev"))?;
            let alice = Client::new(address, ca, Some(&alice), protocol)?;
            watches.push((watch(&alice, accept).await?, alice));
            let bob = apiserver.pki().issue("bob", Some("dev"))?;
            let bob = Client::new(address, ca, Some(&bob), protocol)?;
            others.push((watch(&bob, accept).await?, bob));
        }
    }
    let_read(&apiserver, "default", &["bob"]);
    for (watch, alice) in watches {
        ended(watch).await?;
        let answer = ask_again(&alice).await?;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(answer.json()?["reason"], "Forbidden");
    }
    put(&apiserver, "late", 1);
    for (watch, _bob) in &mut others {
        goes_on(watch, "default/late").await?;
    }
    assert_eq!(revoked(&fixture, "authorization").await?, 4);
    assert_eq!(revoked(&fixture, "authentication").await?, 0);
    drop(others);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// Longer than a test lasts: what ends, was told to.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_proxy_decides_a_watch_ends_as_soon_as_its_right_goes() -> anyhow::Result<()> {
    let (apiserver, fixture) = start_as(NEVER, true).await?;
    let (ca, address) = (apiserver.pki().ca(), fixture.proxy.address());
    let admin = apiserver.pki().issue("admin", Some("system:masters"))?;
    let admin = Client::new(apiserver.addr(), ca, Some(&admin), Protocol::Http2)?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"nodeName": "n1", "containers": [], "imagePullSecrets": [{"name": "own"}]}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "own", "namespace": "default", "uid": "u"}});
    load(&apiserver, ("", "pods"), pod);
    load(&apiserver, ("", "secrets"), secret);
    let own = "/api/v1/namespaces/default/secrets?watch=1&fieldSelector=metadata.name%3Down";
    for protocol in PROTOCOLS {
        let_read(&apiserver, "default", &["alice", "bob"]);
        let alice = apiserver.pki().issue("alice", Some("dev"))?;
        let alice = Client::new(address, ca, Some(&alice), protocol)?;
        let bob = apiserver.pki().issue("bob", Some("dev"))?;
        let bob = Client::new(address, ca, Some(&bob), protocol)?;
        let permitted = async |client: &Client| {
            tokio::time::timeout(PATIENCE, async {
                while ask_again(client).await?.status != 200 {}
                anyhow::Ok(())
            })
            .await?
        };
        permitted(&alice).await?;
        permitted(&bob).await?;
        let (alices, mut bobs) = (watch(&alice, JSON).await?, watch(&bob, PROTOBUF).await?);
        let_read(&apiserver, "default", &["bob"]);
        ended(alices).await?;
        assert_eq!(ask_again(&alice).await?.status, 403);
        let name = format!("next-{protocol:?}").to_lowercase();
        put(&apiserver, &name, 1);
        goes_on(&mut bobs, &format!("default/{name}")).await?;

        let binding = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/reader";
        admin
            .write(Method::DELETE, binding, &json!({}))
            .await?
            .ok()?;
        ended(bobs).await?;
        assert_eq!(ask_again(&bob).await?.status, 403);
    }
    let node = |name: &str| -> anyhow::Result<Client> {
        let credential = apiserver.pki().issue_node(name)?;
        Client::new(address, ca, Some(&credential), Protocol::Http2)
    };
    let (kubelet, other) = (node("n1")?, node("n2")?);
    let secrets = kubelet.watch(own, JSON).await?;
    let mut nodes = other
        .watch(
            "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn2",
            JSON,
        )
        .await?;
    let (pod, now) = (
        "/api/v1/namespaces/default/pods/p",
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}),
    );
    admin.write(Method::DELETE, pod, &now).await?.ok()?;
    ended(secrets).await?;
    assert_eq!(kubelet.get(own).await?.status, 403);
    let n2 = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2", "uid": "u"}});
    load(&apiserver, ("", "nodes"), n2);
    goes_on(&mut nodes, "n2").await?;
    assert_eq!(revoked(&fixture, "authorization").await?, 5);
    drop(nodes);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_a_watch_outlives_its_right_as_on_an_apiserver() -> anyhow::Result<()> {
    let (apiserver, fixture) = start(Duration::ZERO).await?;
    let alice = apiserver.pki().issue("alice", Some("dev"))?;
    let (ca, address) = (apiserver.pki().ca(), fixture.proxy.address());
    for protocol in PROTOCOLS {
        let_read(&apiserver, "default", &["alice"]);
        let alice = Client::new(address, ca, Some(&alice), protocol)?;
        tokio::time::timeout(PATIENCE, async {
            while ask_again(&alice).await?.status != 200 {}
            anyhow::Ok(())
        })
        .await??;
        let mut watch = alice
            .watch(&format!("{COLLECTION}?watch=1&resourceVersion=0"), JSON)
            .await?;
        let_read(&apiserver, "default", &[]);
        tokio::time::timeout(PATIENCE, async {
            while ask_again(&alice).await?.status != 403 {}
            anyhow::Ok(())
        })
        .await??;
        let name = format!("late-{protocol:?}").to_lowercase();
        put(&apiserver, &name, 1);
        goes_on(&mut watch, &format!("default/{name}")).await?;
    }
    assert_eq!(revoked(&fixture, "authorization").await?, 0);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_reviews_fail_no_watch_ends() -> anyhow::Result<()> {
    let (apiserver, fixture) = start(INTERVAL).await?;
    let alice = apiserver.pki().issue("alice", Some("dev"))?;
    let (ca, address) = (apiserver.pki().ca(), fixture.proxy.address());
    let alice = Client::new(address, ca, Some(&alice), Protocol::Http2)?;
    let mut watch = watch(&alice, JSON).await?;
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let failure = watershed_loadtest::apiserver::faults::Failure::InternalError;
    apiserver.faults().fail_requests(reviews, failure, u64::MAX);
    let failed = "watershed_authorization_total{source=\"review\",decision=\"error\"}";
    tokio::time::timeout(PATIENCE, async {
        while !fixture.admin("/metrics").await?.1.contains(failed) {
            tokio::time::sleep(INTERVAL).await;
        }
        anyhow::Ok(())
    })
    .await
    .context("it is asked about")??;
    put(&apiserver, "next", 1);
    goes_on(&mut watch, "default/next").await?;
    assert_eq!(revoked(&fixture, "authorization").await?, 0);
    drop(watch);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

/// A certificate of the cluster's authority for alice that is good for so long.
fn short_lived(fixture: &Fixture, life: Duration) -> anyhow::Result<Credential> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name = rcgen::DistinguishedName::new();
    authority
        .distinguished_name
        .push(DnType::CommonName, "watershed-loadtest-ca");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = std::fs::read_to_string(fixture.folder().join("ca.key"))?;
    let issuer = Issuer::from_params(&authority, KeyPair::from_pem(&key)?);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "alice");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = (std::time::SystemTime::now() + life).into();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Credential {
        certificate: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_neither_its_certificate_nor_many_turns_of_its_token() -> anyhow::Result<()>
{
    let (apiserver, fixture) = start(INTERVAL).await?;
    let (ca, address) = (apiserver.pki().ca(), fixture.proxy.address());
    for protocol in PROTOCOLS {
        let short = short_lived(&fixture, Duration::from_secs(3))?;
        let short = Client::new(address, ca, Some(&short), protocol)?;
        let expiring = watch(&short, JSON).await?;
        let bearer = Client::new(address, ca, None, protocol)?;
        let target = format!("{COLLECTION}?{START}");
        let with_token = || {
            let request = bearer.request(Method::GET, &target);
            request.header("authorization", "Bearer alice-token")
        };
        let open = bearer.send(with_token().body(empty())?).await?;
        assert_eq!(open.status, 200);
        open.whole().await.context("its end is clean")?;
        assert_eq!(bearer.send(with_token().body(empty())?).await?.status, 200);

        ended(expiring).await?;
        // It ends a moment after, and a 401 is the last answer of an HTTP/2 connection.
        let answer = ask_again(&short).await?;
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    assert_eq!(revoked(&fixture, "authentication").await?, 4);
    assert_eq!(revoked(&fixture, "authorization").await?, 0);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_not_believed_any_more_ends_the_watches_of_its_certificates()
-> anyhow::Result<()> {
    let (apiserver, fixture) = start(INTERVAL).await?;
    let (ca, address) = (apiserver.pki().ca(), fixture.proxy.address());
    let alice = apiserver.pki().issue("alice", Some("dev"))?;
    let alice = Client::new(address, ca, Some(&alice), Protocol::Http2)?;
    let watch = watch(&alice, JSON).await?;
    let stranger = Pki::ephemeral()?;
    std::fs::write(fixture.folder().join("ca.crt"), stranger.ca())?;
    ended(watch).await?;
    assert_eq!(revoked(&fixture, "authentication").await?, 1);
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}
