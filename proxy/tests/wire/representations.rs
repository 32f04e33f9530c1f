//! One object, many forms: metadata, indentation, compression, each as the apiserver gives it and
//! none at its expense.

use std::io::Read as _;

use anyhow::{Context as _, ensure};
use flate2::read::GzDecoder;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use watershed_loadtest::apiserver::{Apiserver, Options, authn::Users};

use crate::{
    client::{Answer, Client, JSON, Open, Protocol, empty},
    fixture::Fixture,
};

const GADGETS: &str = "/apis/example.com/v1/namespaces/a/gadgets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";

/// Bodies above this are compressed.
const GZIP_MIN: usize = 131_072;

struct Site {
    apiserver: Apiserver,
    fixture: Fixture,
    direct: Client,
    proxied: Client,
}

impl Site {
    async fn start() -> anyhow::Result<Self> {
        let users = Users::parse("alice-token,alice,1\nbob-token,bob,2\ncarol-token,carol,3")?;
        let apiserver = Apiserver::start(Options {
            users,
            ..Options::default()
        })
        .await?;
        let fixture = Fixture::start(&apiserver, |_config| {}).await?;
        let admin = apiserver.pki().issue("admin", Some("system:masters"))?;
        let client =
            |address| Client::new(address, apiserver.pki().ca(), Some(&admin), Protocol::Http2);
        let direct = client(apiserver.addr())?;
        let proxied = client(fixture.proxy.address())?;
        Ok(Self {
            direct,
            proxied,
            apiserver,
            fixture,
        })
    }

    async fn stop(self) {
        drop((self.direct, self.proxied));
        self.fixture.stop().await;
        self.apiserver.shutdown().await;
    }

    async fn write(&self, target: &str, object: &Value) -> anyhow::Result<()> {
        let answer = self.direct.write(Method::POST, target, object).await?;
        answer.ok().map(drop)
    }

    /// The value of a counter of the proxy.
    async fn metric(&self, line: &str) -> anyhow::Result<u64> {
        let (_, text) = self.fixture.admin("/metrics").await?;
        let value = text.lines().find_map(|it| it.strip_prefix(line));
        Ok(value.map_or(0, |it| it.trim().parse().unwrap_or(0)))
    }

    /// Requests of this verb that were not answered from the cache.
    async fn forwarded(&self, resource: &str) -> anyhow::Result<Vec<String>> {
        let (_, text) = self.fixture.admin("/metrics").await?;
        let family = "watershed_requests_total";
        let is_it = |line: &&str| {
            line.starts_with(family)
                && line.contains(&format!("resource=\"{resource}\""))
                && !line.contains("served=\"cache\"")
        };
        Ok(text.lines().filter(is_it).map(str::to_owned).collect())
    }
}

async fn ask(client: &Client, target: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let mut request = client.request(Method::GET, target);
    request.headers_mut().context("a request")?.clear();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.whole(request.body(empty())?).await
}

fn config_map(name: &str, data: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "a", "labels": {"app": name},
            "annotations": {"escapes": "<&>\u{2028}\u{1}é\"\\"}},
        "data": {"x": data, "empty": ""}})
}

fn gadget(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gadget",
        "metadata": {"name": name, "namespace": "a", "labels": {"b": "1", "a": "<2>"},
            "finalizers": ["example.com/z", "example.com/a"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a",
                "uid": "u", "controller": true, "blockOwnerDeletion": false}]},
        "spec": {"empty": {}, "none": [], "list": [1, {"x": []}]}})
}

async fn with_objects(site: &Site) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    site.write("/api/v1/namespaces", &namespace).await?;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition", "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Gadget", "listKind": "GadgetList", "plural": "gadgets",
                "singular": "gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}]}});
    let target = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    site.write(target, &definition).await?;
    while ask(&site.direct, GADGETS, &[]).await?.status != StatusCode::OK {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for name in ["a", "b", "c"] {
        site.write(CONFIG_MAPS, &config_map(name, "1")).await?;
        site.write(GADGETS, &gadget(name)).await?;
    }
    Ok(())
}

const ONE: [&str; 5] = [
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1;pretty=1",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "application/json;pretty=1",
];

const LIST: [&str; 5] = [
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1;pretty=1",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/json;pretty=1",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_is_given_from_the_cache_with_the_apiservers_bytes() -> anyhow::Result<()> {
    let site = Site::start().await?;
    with_objects(&site).await?;
    for (collection, resource) in [(CONFIG_MAPS, "configmaps"), (GADGETS, "gadgets")] {
        let mut targets: Vec<(String, &str)> = Vec::new();
        for accept in ONE {
            targets.push((format!("{collection}/a"), accept));
            targets.push((format!("{collection}/nope"), accept));
        }
        for accept in LIST {
            targets.push((collection.to_owned(), accept));
            targets.push((format!("{collection}?limit=2"), accept));
            targets.push((format!("{collection}?labelSelector=app=zz"), accept));
        }
        targets.push((format!("{collection}?pretty=true"), JSON));
        targets.push((format!("{collection}/a?pretty=true"), JSON));
        for (target, accept) in targets {
            let headers = [("accept", accept)];
            let expected = ask(&site.direct, &target, &headers).await?;
            let answer = ask(&site.proxied, &target, &headers).await?;
            let context = format!("{target} {accept}\n{}", answer.text());
            ensure!(answer.status == expected.status, "{context}");
            ensure!(
                answer.body == expected.body,
                "{context}\n{}",
                expected.text()
            );
            let header = |answer: &Answer| answer.headers.get("content-type").cloned();
            ensure!(header(&answer) == header(&expected), "{context}");
        }
        let forwarded = site.forwarded(resource).await?;
        ensure!(forwarded.is_empty(), "{forwarded:?}");
    }
    site.stop().await;
    Ok(())
}

async fn open(client: &Client, target: &str, accept: &str) -> anyhow::Result<Open> {
    let mut request = client.request(Method::GET, target).body(empty())?;
    request.headers_mut().insert("accept", accept.parse()?);
    client.send(request).await
}

/// The frames of a whole watch, without plain bookmarks, which come when they come.
fn events(answer: &Answer, protobuf: bool) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    if protobuf {
        let mut rest = &answer.body[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (frame, next) = after.split_at(u32::from_be_bytes(*length) as usize);
            frames.push(frame.to_vec());
            rest = next;
        }
    } else {
        let lines = answer.body.split_inclusive(|it| *it == b'\n');
        frames.extend(lines.map(<[u8]>::to_vec));
    }
    frames.retain(|frame| {
        let has = |text: &[u8]| frame.windows(text.len()).any(|it| it == text);
        !has(b"BOOKMARK") || has(b"initial-events-end")
    });
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_metadata_sees_what_a_direct_one_sees() -> anyhow::Result<()> {
    let site = Site::start().await?;
    with_objects(&site).await?;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                 &allowWatchBookmarks=true&labelSelector=a!=left&timeoutSeconds=4";
    for (collection, resource) in [(CONFIG_MAPS, "configmaps"), (GADGETS, "gadgets")] {
        let target = format!("{collection}?{query}");
        for (round, accept) in ONE[..4].iter().copied().enumerate() {
            let direct = open(&site.direct, &target, accept).await?;
            let proxied = open(&site.proxied, &target, accept).await?;
            for (method, path, body) in [
                (
                    Method::PATCH,
                    "/a",
                    json!({"metadata": {"labels": {"c": round.to_string()}}}),
                ),
                (
                    Method::PATCH,
                    "/a",
                    json!({"metadata": {"labels": {"a": "left"}}}),
                ),
                (
                    Method::PATCH,
                    "/a",
                    json!({"metadata": {"labels": {"a": "back"}}}),
                ),
                (
                    Method::PATCH,
                    "/b",
                    json!({"metadata": {"finalizers": null}}),
                ),
            ] {
                let target = format!("{collection}{path}");
                site.direct.write(method, &target, &body).await?.ok()?;
            }
            let expected = direct.whole().await?;
            let answer = proxied.whole().await?;
            ensure!(answer.headers.get("content-type") == expected.headers.get("content-type"));
            let protobuf = accept.contains("protobuf");
            let (got, want) = (events(&answer, protobuf), events(&expected, protobuf));
            ensure!(want.len() >= 7, "{accept}: {} events", want.len());
            ensure!(
                got == want,
                "{target} {accept}\n{}\n{}",
                answer.text(),
                expected.text()
            );
        }
        let forwarded = site.forwarded(resource).await?;
        ensure!(forwarded.is_empty(), "{forwarded:?}");
    }
    site.stop().await;
    Ok(())
}

/// A reader of the proxy with a token, who accepts gzip.
async fn read(site: &Site, user: &str, target: &str) -> anyhow::Result<Answer> {
    let address = site.fixture.proxy.address();
    let client = Client::new(address, site.apiserver.pki().ca(), None, Protocol::Http2)?;
    let token = format!("Bearer {user}-token");
    let headers = [
        ("accept", JSON),
        ("accept-encoding", "br, gzip"),
        ("authorization", &token),
    ];
    ask(&client, target, &headers).await
}

fn unzipped(answer: &Answer) -> anyhow::Result<Vec<u8>> {
    ensure!(
        answer
            .headers
            .get("content-encoding")
            .is_some_and(|it| it == "gzip")
    );
    ensure!(
        answer
            .headers
            .get("vary")
            .is_some_and(|it| it == "Accept-Encoding")
    );
    let mut plain = Vec::new();
    GzDecoder::new(&*answer.body).read_to_end(&mut plain)?;
    Ok(plain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_share_a_compression_but_never_a_permit() -> anyhow::Result<()> {
    let site = Site::start().await?;
    with_objects(&site).await?;
    let large = config_map("large", &"0123456789abcdef".repeat(20_000));
    site.write(CONFIG_MAPS, &large).await?;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "reader", "namespace": "a"}, "rules": [rule]});
    site.write(&format!("{rbac}/namespaces/a/roles"), &role)
        .await?;
    let subject =
        |name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "reader", "namespace": "a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [subject("alice"), subject("bob")]});
    site.write(&format!("{rbac}/namespaces/a/rolebindings"), &binding)
        .await?;

    let plain = ask(&site.direct, CONFIG_MAPS, &[("accept", JSON)]).await?;
    ensure!(plain.body.len() > GZIP_MIN);
    let target = format!("{CONFIG_MAPS}?resourceVersion=0");
    // Filled once, so that version 0 means everything.
    ask(&site.proxied, CONFIG_MAPS, &[("accept", JSON)]).await?;
    let alice = read(&site, "alice", &target).await?;
    let bob = read(&site, "bob", &target).await?;
    let carol = read(&site, "carol", &target).await?;
    ensure!(unzipped(&alice)? == plain.body, "{}", alice.text());
    ensure!(alice.body == bob.body);
    ensure!(carol.status == StatusCode::FORBIDDEN, "{}", carol.text());
    ensure!(carol.headers.get("content-encoding").is_none());
    let outcome = |word: &str| format!("watershed_compressed_lists_total{{outcome=\"{word}\"}}");
    ensure!(site.metric(&outcome("compressed")).await? == 1);
    ensure!(site.metric(&outcome("shared")).await? == 1);

    // A write makes another list of it.
    site.write(CONFIG_MAPS, &config_map("d", "2")).await?;
    let after = read(&site, "alice", CONFIG_MAPS).await?;
    let plain = ask(&site.direct, CONFIG_MAPS, &[("accept", JSON)]).await?;
    ensure!(unzipped(&after)? == plain.body);
    ensure!(site.metric(&outcome("compressed")).await? == 2);
    site.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_longer_than_128_kib_is_compressed() -> anyhow::Result<()> {
    let site = Site::start().await?;
    with_objects(&site).await?;
    site.write(CONFIG_MAPS, &config_map("e", "")).await?;
    let one = format!("{CONFIG_MAPS}/e");
    let list = format!("{CONFIG_MAPS}?labelSelector=app=e");
    for target in [one, list] {
        for accept in [JSON, ONE[4]] {
            let first = json!({"data": {"x": "first"}});
            let path = format!("{CONFIG_MAPS}/e");
            site.direct
                .write(Method::PATCH, &path, &first)
                .await?
                .ok()?;
            let direct = ask(&site.direct, &target, &[("accept", accept)]).await?;
            let around = direct.body.len() - "first".len();
            for wanted in [GZIP_MIN, GZIP_MIN + 1] {
                let patch = json!({"data": {"x": "x".repeat(wanted - around)}});
                site.direct
                    .write(Method::PATCH, &path, &patch)
                    .await?
                    .ok()?;
                let plain = ask(&site.proxied, &target, &[("accept", accept)]).await?;
                ensure!(plain.headers.get("vary").is_none());
                let headers = [("accept", accept), ("accept-encoding", "gzip")];
                let answer = ask(&site.proxied, &target, &headers).await?;
                let context = format!("{target} {accept} {}", plain.body.len());
                if plain.body.len() > GZIP_MIN {
                    ensure!(unzipped(&answer)? == plain.body, "{context}");
                } else {
                    ensure!(
                        answer.headers.get("content-encoding").is_none(),
                        "{context}"
                    );
                    ensure!(answer.headers.get("vary").is_none(), "{context}");
                    ensure!(answer.body == plain.body, "{context}");
                }
                ensure!(plain.body.len() == wanted, "{context}");
            }
        }
    }
    site.stop().await;
    Ok(())
}
