//! Callers with different rights ask the same questions of the same caches, and no byte of one
//! reaches another.
//!
//! Each owner's objects carry a marker that nobody can guess. Everything a caller receives, heads
//! included and after decompression, is searched for the markers of others; what it may have is
//! there in full. Requests of all callers interleave over connections of their own and over shared
//! ones, where only the token of each request says whose it is, as behind a load balancer. Objects
//! and rights change meanwhile.

use std::{collections::BTreeMap, io::Read as _, time::Duration};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use futures_util::future::{BoxFuture, try_join_all};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use watershed_loadtest::{
    apiserver::{
        Apiserver, Options,
        authn::Users,
        certs::{Credential, Pki},
    },
    client::{Client, JSON, PROTOBUF, Protocol, Request, tls},
};

use crate::{
    fixture::{FORMS, Fixture, Form},
    objects::{let_read, load},
};

/// Rounds of requests of each lane, in each form of deciding; one request of a round may be a watch,
/// which takes a second.
const ROUNDS: usize = 16;
/// Small objects of each owner, and large ones: together they make a list that is compressed.
const SECRETS: usize = 4;
const CONFIG_MAPS: usize = 16;
const CONFIG_MAP_BYTES: usize = 9 << 10;
/// How long a decision may be remembered here.
const REMEMBERED: Duration = Duration::from_millis(100);
/// How long a right that was taken away may take to be gone, and one that was given to be there.
const SOON: Duration = Duration::from_secs(20);
/// Times that rights are given and taken.
const CHANGES: usize = 4;

/// The owners: a name, which is also that of their namespace and of their node.
const OWNERS: [&str; 2] = ["alice", "bob"];

/// Markers of each owner's objects.
type Markers = BTreeMap<&'static str, String>;

/// One who asks, and over what.
struct Lane {
    client: Client,
    /// In turn, or all at once over HTTP/2.
    callers: Vec<&'static str>,
    is_shared: bool,
    identity: Identity,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    User,
    Node,
}

/// What is asked, and how much of an own marker is in the answer.
struct Question {
    target: String,
    owner: &'static str,
    /// Objects of the owner in the answer to who may have it.
    objects: usize,
}

fn metadata(namespace: &str, name: &str, marker: &str) -> Value {
    json!({"name": name, "namespace": namespace, "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "x"},
        "annotations": {"marker": marker}})
}

/// Objects of every owner, some of them in later rounds; written again they stay what they are.
fn populate(apiserver: &Apiserver, markers: &Markers, round: usize) {
    for (owner, marker) in markers {
        let at = |index: usize| format!("{marker}-{index}.");
        for index in (0..SECRETS).filter(|index| round == 0 || round % SECRETS == *index) {
            let metadata = metadata(owner, &format!("s{index}"), &at(index));
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": metadata, "data": {"round": format!("{round:04}")}});
            load(apiserver, ("", "secrets"), secret);
            let metadata = self::metadata(owner, &format!("p{index}"), &at(index));
            let volume = json!({"name": "v", "secret": {"secretName": format!("s{index}")}});
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": {"nodeName": owner, "containers": [], "volumes": [volume]}});
            load(apiserver, ("", "pods"), pod);
        }
        if round > 0 {
            // What is quiet takes a second to be proven fresh; this is of nobody.
            let metadata = metadata("nobody", "tick", &format!("{round}"));
            let tick = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
            load(apiserver, ("", "configmaps"), tick);
            continue;
        }
        for index in 0..CONFIG_MAPS {
            let metadata = metadata(owner, &format!("c{index}"), &at(index));
            let filling: String = (0..CONFIG_MAP_BYTES)
                .map(|_| fastrand::alphanumeric())
                .collect();
            let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                "data": {"filling": filling}});
            load(apiserver, ("", "configmaps"), config);
        }
    }
}

/// A role for secrets beside that for ConfigMaps.
fn let_read_all(apiserver: &Apiserver, namespace: &str, users: &[&str]) {
    let_read(apiserver, namespace, users);
    let rbac = "rbac.authorization.k8s.io";
    let rule = json!({"apiGroups": [""], "resources": ["configmaps", "secrets"],
        "verbs": ["get", "list", "watch"]});
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "rules": [rule],
        "metadata": {"name": "reader", "namespace": namespace, "uid": "u"}});
    load(apiserver, (rbac, "roles"), role);
}

fn question(rng: &mut Rng, identity: Identity, may_watch: bool) -> Question {
    let owner = OWNERS[rng.usize(..OWNERS.len())];
    let watch = "watch=1&timeoutSeconds=1&allowWatchBookmarks=true";
    let watch_list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let within = format!("/api/v1/namespaces/{owner}");
    let one = rng.usize(..SECRETS);
    let by_node = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{owner}");
    let named = format!("{within}/secrets?fieldSelector=metadata.name%3Ds{one}");
    let version = ["", "&resourceVersion=0"][rng.usize(..2)];
    let (target, objects) = match (identity, rng.u32(..if may_watch { 12 } else { 10 })) {
        (Identity::User, 0 | 1) => (format!("{within}/secrets/s{one}?{version}"), 1),
        (Identity::User, 2) => (format!("{within}/secrets?{version}"), SECRETS),
        (Identity::User, 3) => (format!("{within}/configmaps?{version}"), CONFIG_MAPS),
        (Identity::User, 4 | 5) => (format!("{within}/secrets?labelSelector=app%3Dx"), SECRETS),
        (Identity::User, 6) => (format!("{within}/secrets?limit=3"), 3),
        (Identity::User, 7..=9) => (format!("{named}{version}"), 1),
        (Identity::User, 10) => (
            format!("{within}/secrets?{watch}&resourceVersion=0"),
            SECRETS,
        ),
        (Identity::User, _) => (format!("{within}/secrets?{watch}&{watch_list}"), SECRETS),
        (Identity::Node, 0 | 1) => (format!("{within}/secrets/s{one}?{version}"), 1),
        (Identity::Node, 2 | 3) => (format!("{by_node}{version}"), SECRETS),
        (Identity::Node, 4) => (format!("{by_node}&limit=3"), 3),
        (Identity::Node, 5) => (format!("{within}/pods/p{one}"), 1),
        (Identity::Node, 6..=9) => (format!("{named}{version}"), 1),
        (Identity::Node, 10) => (format!("{by_node}&{watch}&{watch_list}"), SECRETS),
        (Identity::Node, _) => (format!("{named}&{watch}&resourceVersion=0"), 1),
    };
    Question {
        target,
        owner,
        objects,
    }
}

/// All that came: head and body, as a client understands them.
async fn heard(client: &Client, request: Request) -> anyhow::Result<(u16, String)> {
    let answer = client.whole(request).await?;
    let head = format!("{:?}", answer.headers);
    let body = match answer.header("content-encoding") {
        "gzip" => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut plain)?;
            plain
        }
        _ => answer.body.to_vec(),
    };
    // Markers are ASCII, so nothing of one is lost.
    let body = String::from_utf8_lossy(&body);
    Ok((answer.status, format!("{head}\n{body}")))
}

impl Lane {
    /// Asks one question as one of the callers; both sides of the law.
    async fn ask(
        &self,
        rng: &mut Rng,
        (caller, may_watch): (&str, bool),
        markers: &Markers,
    ) -> anyhow::Result<u64> {
        let question = question(rng, self.identity, may_watch);
        let mut request = Request::get(&question.target);
        request = request.header("accept", [JSON, PROTOBUF][rng.usize(..2)]);
        if rng.bool() {
            request = request.header("accept-encoding", "gzip");
        }
        if self.is_shared {
            let kind = match self.identity {
                Identity::User => "token",
                Identity::Node => "node",
            };
            request = request.header("authorization", format!("Bearer {caller}-{kind}"));
        }
        let (status, text) = heard(&self.client, request).await?;
        let what = format!("{caller}: {}", question.target);
        for (other, marker) in markers.iter().filter(|(owner, _)| **owner != caller) {
            ensure!(!text.contains(marker), "{what}: got an object of {other}'s");
        }
        if caller != question.owner {
            ensure!(status == 403, "{what}: {status}");
            return Ok(0);
        }
        ensure!(status == 200, "{what}: {status} {text}");
        let own = (0..CONFIG_MAPS.max(SECRETS))
            .filter(|index| text.contains(&format!("{}-{index}.", markers[caller])))
            .count();
        ensure!(
            own == question.objects,
            "{what}: {own} of {} objects",
            question.objects
        );
        Ok(1)
    }

    /// Requests at a time: all callers at once over a shared HTTP/2 connection, one after the other
    /// over a shared one of HTTP/1.1.
    fn at_once(&self) -> usize {
        match (self.client.protocol(), self.is_shared) {
            (Protocol::Http2, _) => 8,
            (Protocol::Http1, false) => 4,
            (Protocol::Http1, true) => 1,
        }
    }

    /// Asks for a while: how much was granted, of how much.
    async fn run(&self, seed: u64, markers: &Markers) -> anyhow::Result<(u64, u64)> {
        let mut rng = Rng::with_seed(seed);
        let mut counts = (0, 0);
        for _ in 0..ROUNDS {
            let asked = (0..self.at_once()).map(|index| {
                let mut own = rng.fork();
                async move {
                    let caller = self.callers[own.usize(..self.callers.len())];
                    self.ask(&mut own, (caller, index == 0), markers).await
                }
            });
            let granted = try_join_all(asked).await?;
            counts.0 += granted.iter().sum::<u64>();
            counts.1 += granted.len() as u64;
        }
        Ok(counts)
    }
}

/// Connections of one caller each, and of all together; as users and as nodes.
fn lanes(pki: &Pki, fixture: &Fixture) -> anyhow::Result<Vec<Lane>> {
    let client = |credential: Option<&Credential>, protocol| {
        let tls = tls(pki.ca(), credential)?;
        anyhow::Ok(Client::new(fixture.proxy.address(), tls, protocol))
    };
    let mut lanes = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for identity in [Identity::User, Identity::Node] {
            for owner in OWNERS {
                let credential = match identity {
                    Identity::User => pki.issue(owner, Some("dev"))?,
                    Identity::Node => pki.issue_node(owner)?,
                };
                lanes.push(Lane {
                    client: client(Some(&credential), protocol)?,
                    callers: vec![owner],
                    is_shared: false,
                    identity,
                });
            }
            lanes.push(Lane {
                client: client(None, protocol)?,
                callers: OWNERS.to_vec(),
                is_shared: true,
                identity,
            });
        }
    }
    Ok(lanes)
}

/// A user whose right to read one owner's namespace is given and taken: while it is taken, nothing
/// of the owner comes; of the other nothing ever does.
async fn waver(apiserver: &Apiserver, client: &Client, markers: &Markers) -> anyhow::Result<()> {
    let collection = "/api/v1/namespaces/alice/secrets";
    let (own, others) = (&markers["alice"], &markers["bob"]);
    let mut asked = 0;
    let mut ask = async || {
        asked += 1;
        let targets = [
            collection.to_owned(),
            format!("{collection}?resourceVersion=0"),
            format!("{collection}/s1"),
            format!("{collection}?limit=2"),
            "/api/v1/namespaces/alice/configmaps".to_owned(),
        ];
        let request = Request::get(&targets[asked % targets.len()]).header("accept", JSON);
        let request = request.header("authorization", "Bearer carol-token");
        let (status, text) = heard(client, request).await?;
        ensure!(!text.contains(others), "carol: got an object of bob's");
        ensure!(
            (status == 200) == text.contains(own),
            "carol: {status} {text}"
        );
        anyhow::Ok(status)
    };
    for change in 0..CHANGES {
        let (users, expected): (&[&str], u16) = match change % 2 {
            0 => (&["alice", "carol"], 200),
            _ => (&["alice"], 403),
        };
        let_read_all(apiserver, "alice", users);
        let deadline = Instant::now() + SOON;
        // Each of the targets is decided about on its own.
        let mut in_a_row = 0;
        while in_a_row < 5 {
            ensure!(Instant::now() < deadline, "{expected} does not come");
            in_a_row = if ask().await? == expected {
                in_a_row + 1
            } else {
                0
            };
        }
        for _ in 0..5 {
            let status = ask().await?;
            ensure!(status == expected, "after {expected} came {status}");
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was asked is what the test shows")]
async fn isolate(form: Form, seed: u64) -> anyhow::Result<()> {
    let users = Users::parse(
        "alice-token,alice,1\nbob-token,bob,2\ncarol-token,carol,3\n\
         alice-node,system:node:alice,4,\"system:nodes\"\nbob-node,system:node:bob,5,\"system:nodes\"",
    )?;
    let apiserver = Apiserver::start(Options {
        users,
        ..Options::default()
    })
    .await?;
    let marker = |owner| (owner, format!("marker-{:016x}", fastrand::u64(..)));
    let markers: Markers = OWNERS.map(marker).into();
    for owner in OWNERS {
        let_read_all(&apiserver, owner, &[owner]);
    }
    populate(&apiserver, &markers, 0);
    let fixture = Fixture::start(&apiserver, |config| {
        form.declare(config);
        config.live.authorization.allow_ttl = REMEMBERED;
        config.live.authorization.deny_ttl = REMEMBERED;
    })
    .await?;
    let lanes = lanes(apiserver.pki(), &fixture)?;
    let over_http2 = Client::new(
        fixture.proxy.address(),
        tls(apiserver.pki().ca(), None)?,
        Protocol::Http2,
    );
    let asking = lanes.iter().enumerate().map(|(index, lane)| {
        let running = lane.run(seed ^ index as u64, &markers);
        let running: BoxFuture<'_, anyhow::Result<(u64, u64)>> = Box::pin(running);
        running
    });
    let all = async {
        tokio::try_join!(
            try_join_all(asking),
            waver(&apiserver, &over_http2, &markers)
        )
    };
    let writing = async {
        for round in 1.. {
            sleep(Duration::from_millis(20)).await;
            populate(&apiserver, &markers, round);
        }
    };
    let (counts, ()) = tokio::select! {
        all = all => all?,
        () = writing => anyhow::bail!("it writes for ever"),
    };
    let is_alive = |(granted, asked): &(u64, u64)| granted * 8 > *asked;
    ensure!(counts.iter().all(is_alive), "granted and asked: {counts:?}");
    let asked: u64 = counts.iter().map(|(_, asked)| asked).sum();
    let (_, metrics) = fixture.admin("/metrics").await?;
    let cached = metrics.lines().filter(|line| {
        line.starts_with("watershed_requests_total{") && line.contains("served=\"cache\"")
    });
    let cached = cached.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let cached = cached.sum::<f64>();
    ensure!(
        cached > asked as f64 / 3.0,
        "{cached} of {asked} came from caches"
    );
    println!("{form:?}: {asked} requests, {cached} of the answers and of carol's from caches");
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_byte_of_what_is_anothers() -> anyhow::Result<()> {
    for form in FORMS {
        let seed = fastrand::u64(..);
        let isolated = isolate(form, seed).await;
        isolated.with_context(|| format!("{form:?}, seed {seed}"))?;
    }
    Ok(())
}
