//! What kubelets say of being alive in their Node's status, and who hears of it.
//!
//! Owns a kubelet that patches its status as client-go does: four times in one strategic merge patch
//! if nothing else changed. Cases are numbered as in the requirements' list.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use watershed_config::{Config, Heartbeats, Subjects};
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    client::{Answer, Client, Event, JSON, PROTOBUF, Protocol, full},
    fixture::{Fixture, until},
    heartbeats::{Cluster, Kubelet, absorb, bounds, media_type},
    objects::version,
};

const PERIOD: u64 = 1800;
pub(crate) const KINDS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
pub(crate) const NODES: &str = "/api/v1/nodes";

/// A kubelet whose Node has a status, at a replica that absorbs.
struct World {
    cluster: Cluster,
    kubelet: Kubelet,
    /// Of its status, in seconds of a day.
    clock: u64,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        Self::with(|_config| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        let replica = Fixture::start(&apiserver, |config| {
            absorb(config, bounds());
            if let Heartbeats::Coalesce(settings) = &mut config.startup.heartbeats {
                settings.node_status_period = Duration::from_secs(PERIOD);
            }
            change(config);
        })
        .await?;
        let cluster = Cluster { apiserver, replica };
        let kubelet = cluster.kubelet("n1").await?;
        let mut world = Self {
            cluster,
            kubelet,
            clock: 0,
        };
        let conditions = KINDS.map(|kind| {
            let status = if kind == "Ready" { "True" } else { "False" };
            json!({"type": kind, "status": status, "reason": "r", "message": "m",
                "lastHeartbeatTime": time(0), "lastTransitionTime": time(0)})
        });
        let status = json!({"status": {"capacity": {"cpu": "4"}, "conditions": conditions,
            "volumesInUse": ["kubernetes.io/csi/x^1"]}});
        let answer = world.patch(status.to_string(), JSON).await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        world.seen(version(&answer.json()?)?).await?;
        Ok(world)
    }

    /// Renews the lease, so that writes are proven to arrive, and patches the status.
    async fn patch(&mut self, body: String, accept: &str) -> anyhow::Result<Answer> {
        self.kubelet.renew().await?;
        let target = format!("{NODES}/n1/status?timeout=10s");
        let client = &self.kubelet.client;
        let mut request = client
            .request(Method::PATCH, &target)
            .header("content-type", "application/strategic-merge-patch+json")
            .body(full(Bytes::from(body)))?;
        request.headers_mut().insert("accept", accept.parse()?);
        client.whole(request).await
    }

    /// Says, so many seconds later, that nothing changed.
    async fn beat(&mut self, seconds: u64, accept: &str) -> anyhow::Result<Answer> {
        self.clock += seconds;
        let answer = self.patch(heartbeat(self.clock), accept).await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        Ok(answer)
    }

    /// The Node as it is stored.
    async fn stored(&self) -> anyhow::Result<Value> {
        let admin = self.cluster.admin()?;
        admin.get(&format!("{NODES}/n1")).await?.ok()
    }

    /// Patches of statuses that reached the apiserver.
    fn patches(&self) -> u64 {
        let counters = self.cluster.apiserver.counters();
        counters.requests("patch", "", "nodes/status")
    }

    /// Waits until the caches in both encodings have a version of the Node.
    async fn seen(&self, version: u64) -> anyhow::Result<()> {
        for accept in [JSON, PROTOBUF] {
            let target = format!("{NODES}/n1?resourceVersion={version}");
            let client = &self.kubelet.client;
            let request = client.request(Method::GET, &target);
            let mut request = request.body(crate::client::empty())?;
            request.headers_mut().insert("accept", accept.parse()?);
            let answer = client.whole(request).await?;
            ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        }
        Ok(())
    }

    /// A client of the replica with groups.
    fn client(&self, user: &str, group: Option<&str>) -> anyhow::Result<Client> {
        let credential = self.cluster.apiserver.pki().issue(user, group)?;
        let replica = &self.cluster.replica;
        replica.client(&self.cluster.apiserver, Some(&credential), Protocol::Http2)
    }

    /// Writes a heartbeat past the proxy, as that of a node of another replica.
    async fn beat_elsewhere(&mut self, seconds: u64) -> anyhow::Result<u64> {
        self.clock += seconds;
        let admin = self.cluster.admin()?;
        let request = admin
            .request(Method::PATCH, &format!("{NODES}/n1/status"))
            .header("content-type", "application/strategic-merge-patch+json")
            .body(full(Bytes::from(heartbeat(self.clock))))?;
        version(&admin.whole(request).await?.ok()?)
    }

    async fn stop(self) {
        self.cluster.stop().await;
    }
}

/// A time of the kubelet's clock.
fn time(second: u64) -> String {
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("2026-01-01T{hour:02}:{minute:02}:{second:02}Z")
}

/// As a kubelet 1.36 writes it.
pub(crate) fn heartbeat(second: u64) -> String {
    let time = time(second);
    let order = KINDS.map(|kind| json!({ "type": kind }));
    let conditions = KINDS.map(|kind| json!({"lastHeartbeatTime": time, "type": kind}));
    json!({"status": {"$setElementOrder/conditions": order, "conditions": conditions}}).to_string()
}

/// The Node with other times in its conditions.
pub(crate) fn beaten(mut node: Value, second: u64) -> Value {
    for condition in node["status"]["conditions"].as_array_mut().unwrap() {
        condition["lastHeartbeatTime"] = time(second).into();
    }
    node
}

#[tokio::test]
async fn case_49_a_heartbeat_is_answered_and_after_the_period_one_is_written() -> anyhow::Result<()>
{
    let mut world = World::start().await?;
    let (before, patches) = (world.stored().await?, world.patches());
    ensure!(heartbeat(0).len() < 450);
    for _beat in 0..3 {
        let answer = world.beat(300, JSON).await?;
        ensure!(media_type(&answer.headers) == JSON && answer.body.ends_with(b"}\n"));
        let shown = answer.json()?;
        ensure!(shown == beaten(before.clone(), world.clock), "{shown}");
        ensure!(shown["status"]["volumesInUse"] == json!(["kubernetes.io/csi/x^1"]));
    }
    let answer = world.beat(300, PROTOBUF).await?;
    ensure!(media_type(&answer.headers) == PROTOBUF && answer.body.starts_with(b"k8s\0"));
    ensure!(world.patches() == patches && world.stored().await? == before);
    // In both encodings it is the stored Node, as long as before.
    let admin = world.cluster.admin()?;
    let request = admin.request(Method::GET, &format!("{NODES}/n1"));
    let mut request = request.body(crate::client::empty())?;
    request.headers_mut().insert("accept", PROTOBUF.parse()?);
    let stored = admin.whole(request).await?.body;
    ensure!(stored.len() == answer.body.len());
    let differ = stored.iter().zip(&answer.body).filter(|(a, b)| a != b);
    ensure!((4..=8).contains(&differ.count()), "four times");
    let answer = world.beat(PERIOD, JSON).await?;
    ensure!(world.patches() == patches + 1, "one is written");
    let stored = world.stored().await?;
    ensure!(answer.json()? == stored && version(&stored)? > version(&before)?);
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn case_50_a_real_patch_takes_along_what_was_absorbed() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.beat(300, JSON).await?;
    let real = heartbeat(310).replace(
        &format!(r#""{}","type":"Ready""#, time(310)),
        &format!(r#""{}","message":"changed","type":"Ready""#, time(310)),
    );
    let patches = world.patches();
    let answer = world.patch(real, JSON).await?.ok()?;
    ensure!(world.patches() == patches + 1);
    let mut expected = beaten(answer.clone(), 310);
    expected["status"]["conditions"][3]["message"] = "changed".into();
    ensure!(answer == expected && world.stored().await? == expected);
    world.seen(version(&answer)?).await?;
    // One of something else: the times come along.
    world.clock = 310;
    world.beat(290, JSON).await?;
    let real = r#"{"status":{"volumesInUse":["kubernetes.io/csi/x^2"]}}"#;
    let answer = world.patch(real.to_owned(), JSON).await?.ok()?;
    ensure!(answer["status"]["volumesInUse"] == json!(["kubernetes.io/csi/x^2"]));
    let stored = world.stored().await?;
    ensure!(stored == beaten(stored.clone(), 600), "{stored}");
    ensure!(stored["status"]["conditions"].as_array().map(Vec::len) == Some(4));
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn case_51_a_node_that_was_taken_for_dead_hears_of_it_and_says_otherwise()
-> anyhow::Result<()> {
    let mut world = World::with(|config| spare(config, &["system:nodes"])).await?;
    world.beat(300, JSON).await?;
    let from = version(&world.stored().await?)?;
    let watch = format!(
        "{NODES}?watch=1&allowWatchBookmarks=true&fieldSelector=metadata.name%3Dn1\
         &resourceVersion={from}"
    );
    let mut watch = world.kubelet.client.watch(&watch, PROTOBUF).await?;
    let unknown = r#"{"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}}"#;
    let admin = world.cluster.admin()?;
    let request = admin
        .request(Method::PATCH, &format!("{NODES}/n1/status"))
        .header("content-type", "application/strategic-merge-patch+json")
        .body(full(Bytes::from(unknown)))?;
    let taken = version(&admin.whole(request).await?.ok()?)?;
    let told = Event::Object("MODIFIED", "n1".to_owned(), taken);
    ensure!(
        watch.object().await? == Some(told),
        "the kubelet hears of it"
    );
    world.seen(taken).await?;
    let patches = world.patches();
    world.beat(300, JSON).await?;
    ensure!(world.patches() == patches + 1, "not absorbed");
    let real = heartbeat(900).replace(
        r#""type":"Ready"}]}}"#,
        r#""status":"True","type":"Ready"}]}}"#,
    );
    let answer = world.patch(real, JSON).await?.ok()?;
    ensure!(answer["status"]["conditions"][3]["status"] == "True");
    ensure!(world.stored().await? == answer);
    world.stop().await;
    Ok(())
}

/// Lets groups do without heartbeats.
fn spare(config: &mut Config, groups: &[&str]) {
    config.startup.suppress_node_events = Subjects {
        users: vec!["system:kube-scheduler".to_owned()],
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
    };
}

#[tokio::test]
async fn case_52_named_clients_hear_of_no_heartbeat_and_their_bookmarks_pass_it()
-> anyhow::Result<()> {
    let mut world = World::with(|config| spare(config, &["quiet"])).await?;
    // One writes managedFields of its own first.
    world.beat_elsewhere(300).await?;
    let group = world.client("cni", Some("quiet"))?;
    let masters = world.client("admin", Some("system:masters"))?;
    let from = world.beat_elsewhere(300).await?;
    world.seen(from).await?;
    allow(&world, "cni");
    let initial = "?watch=1&allowWatchBookmarks=true&sendInitialEvents=true\
                   &resourceVersionMatch=NotOlderThan";
    for accept in [JSON, PROTOBUF] {
        let (mut quiet, begun, newest) = loop {
            let mut quiet = group.watch(&format!("{NODES}{initial}"), accept).await?;
            let begun = version(&world.stored().await?)?;
            ensure!(quiet.next().await? == Some(Event::Object("ADDED", "n1".to_owned(), begun)));
            let end = quiet.next().await?;
            ensure!(matches!(end, Some(Event::Bookmark(at, true)) if at >= begun));
            let after = format!("{NODES}?watch=1&allowWatchBookmarks=true&resourceVersion={begun}");
            let mut loud = masters.watch(&after, accept).await?;
            let unnoticed = format!("{NODES}?watch=1&resourceVersion={begun}");
            let mut unmarked = group.watch(&unnoticed, accept).await?;
            for _beat in 0..3 {
                let beat = world.beat_elsewhere(10).await?;
                let told = Some(Event::Object("MODIFIED", "n1".to_owned(), beat));
                ensure!(loud.object().await? == told, "who is not named hears of it");
                ensure!(unmarked.object().await? == told, "and who has no bookmarks");
            }
            let newest = version(&world.stored().await?)?;
            // It comes a second after the initial events: early, if this machine is busy.
            match quiet.next().await? {
                Some(Event::Bookmark(at, false)) if at < newest => {}
                Some(Event::Bookmark(_, false)) => break (quiet, begun, newest),
                other => anyhow::bail!("{other:?} is no bookmark"),
            }
        };
        // The newest is what a GET brings, and a reconnect brings nothing again.
        let shown = group
            .get(&format!("{NODES}/n1?resourceVersion=0"))
            .await?
            .ok()?;
        ensure!(version(&shown)? == newest && shown == beaten(shown.clone(), world.clock));
        let target = format!("{NODES}?watch=1&allowWatchBookmarks=true&resourceVersion=");
        let mut again = group.watch(&format!("{target}{newest}"), accept).await?;
        let mut from_before = group.watch(&format!("{target}{begun}"), accept).await?;
        let label = json!({"metadata": {"labels": {"seen": accept.replace('/', ".")}}});
        let admin = world.cluster.admin()?;
        let changed = admin
            .write(Method::PATCH, &format!("{NODES}/n1"), &label)
            .await?;
        let told = Event::Object("MODIFIED", "n1".to_owned(), version(&changed.ok()?)?);
        for watch in [&mut quiet, &mut again, &mut from_before] {
            ensure!(
                watch.object().await? == Some(told.clone()),
                "a change is told"
            );
        }
    }
    world.stop().await;
    Ok(())
}

/// Lets a user read nodes.
fn allow(world: &World, user: &str) {
    let rbac = "rbac.authorization.k8s.io";
    let rule =
        json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]});
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole",
        "metadata": {"name": "of-nodes", "uid": "u"}, "rules": [rule]});
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": user, "uid": "u"},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "of-nodes"}});
    let apiserver = &world.cluster.apiserver;
    crate::objects::load(apiserver, (rbac, "clusterroles"), role);
    crate::objects::load(apiserver, (rbac, "clusterrolebindings"), binding);
}

#[tokio::test]
async fn case_53_the_node_lifecycle_controller_hears_of_every_heartbeat() -> anyhow::Result<()> {
    let mut world = World::with(|config| spare(config, &["system:nodes"])).await?;
    let from = world.beat_elsewhere(300).await?;
    world.seen(from).await?;
    let controller = "system:kube-controller-manager";
    allow(&world, controller);
    let client = world.client(controller, None)?;
    let target = format!("{NODES}?watch=1&allowWatchBookmarks=true&resourceVersion={from}");
    let mut watch = client.watch(&target, PROTOBUF).await?;
    for _beat in 0..3 {
        let beat = world.beat_elsewhere(10).await?;
        let told = Event::Object("MODIFIED", "n1".to_owned(), beat);
        ensure!(watch.object().await? == Some(told));
    }
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn case_54_a_kubelet_that_says_it_every_ten_seconds_is_written_once_a_period()
-> anyhow::Result<()> {
    let mut world = World::start().await?;
    let patches = world.patches();
    let (mut due, mut written) = (PERIOD, 0);
    for _beat in 0..400 {
        world.beat(10, JSON).await?;
        if world.clock >= due {
            written += 1;
            due = world.clock + PERIOD;
            let stored = world.stored().await?;
            ensure!(stored == beaten(stored.clone(), world.clock), "{stored}");
            world.seen(version(&stored)?).await?;
        }
    }
    ensure!(written == 2 && world.patches() == patches + written);
    let served = "watershed_requests_total";
    let (_, metrics) = world.cluster.replica.admin("/metrics").await?;
    let line = metrics.lines().find(|line| {
        line.starts_with(served) && line.contains("PATCH") && line.contains("\"heartbeat\"")
    });
    let count = line.and_then(|line| line.split(' ').next_back());
    ensure!(count == Some("398"), "{line:?}");
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_is_not_plainly_a_heartbeat_of_its_own_node_is_forwarded() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.beat(300, JSON).await?;
    let patches = || world.patches();
    let client = &world.kubelet.client;
    let send = |target: &str, content_type: &str, second: u64| {
        let request = client
            .request(Method::PATCH, target)
            .header("content-type", content_type)
            .body(full(Bytes::from(heartbeat(second))));
        async move { client.whole(request?).await }
    };
    let merge = "application/strategic-merge-patch+json";
    for (step, (target, content_type)) in [
        ("/api/v1/nodes/n1/status?fieldManager=kubelet", merge),
        ("/api/v1/nodes/n1/status?dryRun=All", merge),
        ("/api/v1/nodes/n1/status", "application/merge-patch+json"),
        ("/api/v1/nodes/n1", merge),
    ]
    .into_iter()
    .enumerate()
    {
        let before = patches() + requests(&world, "nodes");
        let answer = send(target, content_type, 400 + step as u64).await?;
        let reached = patches() + requests(&world, "nodes") - before;
        ensure!(
            reached == 1,
            "{target}: {} {}",
            answer.status,
            answer.text()
        );
    }
    // Of another node: the apiserver says no.
    let other = world.cluster.client(&world.cluster.replica, "n2")?;
    let request = other
        .request(Method::PATCH, "/api/v1/nodes/n1/status")
        .header("content-type", merge)
        .body(full(Bytes::from(heartbeat(500))))?;
    ensure!(other.whole(request).await?.status == StatusCode::FORBIDDEN);
    world.stop().await;
    Ok(())
}

fn requests(world: &World, resource: &str) -> u64 {
    world
        .cluster
        .apiserver
        .counters()
        .requests("patch", "", resource)
}

#[tokio::test]
async fn a_node_that_came_back_under_its_name_is_not_answered_for() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.beat(300, JSON).await?;
    let stored = world.stored().await?;
    let mut another = stored.clone();
    another["metadata"]["uid"] = crate::heartbeats::uid("b").into();
    crate::objects::load(&world.cluster.apiserver, ("", "nodes"), another);
    let now = version(&world.stored().await?)?;
    world.seen(now).await?;
    let patches = world.patches();
    world.beat(300, JSON).await?;
    ensure!(world.patches() == patches + 1, "its lease is another's");
    let apiserver = &world.cluster.apiserver;
    until("one is stored", || apiserver.store().revision() > now).await?;
    world.stop().await;
    Ok(())
}
