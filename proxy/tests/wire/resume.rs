//! Upstream trouble that no watcher may notice, and the trouble it must be told of.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use serde_json::{Value, json};
use watershed_loadtest::apiserver::{
    Apiserver, Options, Profile, faults::Damage, resources::Resource,
};

use crate::{
    client::{Client, Event, JSON, PROTOBUF, Protocol, Watch},
    fixture::{Fixture, until},
};

/// Times that every upstream stream breaks, and writes before and after each.
const BREAKS: usize = 10;
const WRITES: usize = 40;

/// What selectors see of a pod.
#[derive(Clone, Debug)]
struct Shape {
    namespace: String,
    name: String,
    node: String,
    color: &'static str,
}

/// A commit: what the pod was and what it became.
struct Commit {
    version: u64,
    key: String,
    before: Option<Shape>,
    after: Option<Shape>,
}

/// The pods of the apiserver, written past the wire so that no cut loses an answer.
struct Pods<'a> {
    apiserver: &'a Apiserver,
    resource: Arc<Resource>,
    rng: Rng,
    now: BTreeMap<String, Shape>,
    log: Vec<Commit>,
}

impl<'a> Pods<'a> {
    fn new(apiserver: &'a Apiserver) -> Self {
        let resource = apiserver.registry().find("", "v1", "pods");
        Self {
            apiserver,
            resource: resource.expect("pods are built in"),
            rng: Rng::with_seed(7),
            now: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// A random write of a random pod.
    fn write(&mut self) {
        let (namespace, name) = (self.rng.usize(0..3), self.rng.usize(0..8));
        let node = format!("node-{}", self.rng.usize(0..4));
        let color = if self.rng.bool() { "red" } else { "blue" };
        let key = format!("ns-{namespace}/pod-{name}");
        match self.now.get(&key).cloned() {
            Some(_) if self.rng.u8(0..4) == 0 => self.delete(&key),
            Some(shape) => self.put(Shape { color, ..shape }),
            None => self.put(Shape {
                namespace: format!("ns-{namespace}"),
                name: format!("pod-{name}"),
                node,
                color,
            }),
        }
    }

    /// A write that every selection sees as its last event.
    fn last(&mut self) {
        let key = "ns-1/pod-3";
        if self.now.contains_key(key) {
            self.delete(key);
        }
        self.put(Shape {
            namespace: "ns-1".to_owned(),
            name: "pod-3".to_owned(),
            node: "node-1".to_owned(),
            color: "red",
        });
    }

    fn put(&mut self, shape: Shape) {
        let key = format!("{}/{}", shape.namespace, shape.name);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": shape.name, "namespace": shape.namespace, "uid": format!("uid-of-{key}"),
                "labels": {"color": shape.color}, "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"noise": self.rng.u64(..).to_string()},
            },
            "spec": {
                "nodeName": shape.node, "containers": [{"name": "main", "image": "x"}],
            },
            "status": {"phase": "Running"},
        });
        let stored = self.apiserver.store().load(&self.resource, pod);
        let before = self.now.insert(key.clone(), shape.clone());
        self.log.push(Commit {
            version: stored.resource_version,
            key,
            before,
            after: Some(shape),
        });
    }

    fn delete(&mut self, key: &str) {
        let before = self.now.remove(key).expect("it exists");
        let place = (before.namespace.as_str(), before.name.as_str());
        let revision = self.apiserver.store().revision();
        let deleted = self
            .apiserver
            .store()
            .delete(&self.resource, place, None, Some(0));
        let Ok(watershed_loadtest::apiserver::store::Deleted::Gone(last)) = deleted else {
            panic!("{key} is not gone: {deleted:?}");
        };
        if last.resource_version == revision + 2 {
            // It was marked as being deleted first.
            self.log.push(Commit {
                version: revision + 1,
                key: key.to_owned(),
                before: Some(before.clone()),
                after: Some(before.clone()),
            });
        }
        self.log.push(Commit {
            version: last.resource_version,
            key: key.to_owned(),
            before: Some(before),
            after: None,
        });
    }

    /// The events after a version that a watch of a selection is due.
    fn events(&self, after: u64, selects: fn(&Shape) -> bool) -> Vec<Event> {
        let due = |commit: &Commit| {
            let was = commit.before.as_ref().is_some_and(selects);
            let is = commit.after.as_ref().is_some_and(selects);
            let change = match (was, is) {
                (false, false) => return None,
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
            };
            Some(Event::Object(change, commit.key.clone(), commit.version))
        };
        let later = self.log.iter().filter(|commit| commit.version > after);
        later.filter_map(due).collect()
    }

    /// The selected pods and their versions at a version.
    fn state(&self, at: u64, selects: fn(&Shape) -> bool) -> BTreeMap<String, u64> {
        let mut state = BTreeMap::new();
        for commit in self.log.iter().filter(|commit| commit.version <= at) {
            match &commit.after {
                Some(shape) if selects(shape) => {
                    state.insert(commit.key.clone(), commit.version);
                }
                Some(_) | None => {
                    state.remove(&commit.key);
                }
            }
        }
        state
    }
}

type Selection = (&'static str, &'static str, fn(&Shape) -> bool);

const SELECTIONS: [Selection; 5] = [
    ("/api/v1/pods", "", |_| true),
    ("/api/v1/namespaces/ns-1/pods", "", |pod| {
        pod.namespace == "ns-1"
    }),
    (
        "/api/v1/pods",
        "fieldSelector=metadata.name%3Dpod-3&",
        |pod| pod.name == "pod-3",
    ),
    (
        "/api/v1/pods",
        "fieldSelector=spec.nodeName%3Dnode-1&",
        |pod| pod.node == "node-1",
    ),
    ("/api/v1/pods", "labelSelector=color%3Dred&", |pod| {
        pod.color == "red"
    }),
];

/// What one watch saw: its initial state, the version of that, and the events after it.
struct Seen {
    state: BTreeMap<String, u64>,
    version: u64,
    events: Vec<Event>,
}

/// Reads the initial events.
async fn initial(watch: &mut Watch) -> anyhow::Result<(BTreeMap<String, u64>, u64)> {
    let mut state = BTreeMap::new();
    loop {
        match watch.next().await? {
            Some(Event::Object("ADDED", key, version)) => {
                ensure!(state.insert(key.clone(), version).is_none(), "{key} twice");
            }
            Some(Event::Bookmark(version, true)) => return Ok((state, version)),
            other => anyhow::bail!("{other:?} among initial events"),
        }
    }
}

/// Reads until the event at `last` comes.
async fn follow(mut watch: Watch, last: impl Future<Output = u64>) -> anyhow::Result<Seen> {
    let (state, version) = initial(&mut watch).await?;
    let (mut events, mut newest) = (Vec::new(), version);
    let mut last = std::pin::pin!(last);
    let mut until = None;
    while until.is_none_or(|until| newest < until) {
        let next = tokio::select! {
            biased;
            last = &mut last, if until.is_none() => {
                until = Some(last);
                continue;
            }
            next = watch.next() => next?,
        };
        match next.context("the watch ended")? {
            Event::Bookmark(at, _) => ensure!(at >= newest, "a bookmark went back"),
            Event::Error(code, text) => anyhow::bail!("{code} {text}"),
            Event::Object(change, key, at) => {
                newest = at;
                events.push(Event::Object(change, key, at));
            }
        }
    }
    Ok(Seen {
        state,
        version,
        events,
    })
}

fn admin(fixture: &Fixture, apiserver: &Apiserver) -> anyhow::Result<Client> {
    let credential = apiserver.pki().issue("admin", Some("system:masters"))?;
    let address = fixture.proxy.address();
    Client::new(
        address,
        apiserver.pki().ca(),
        Some(&credential),
        Protocol::Http2,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_upstream_streams_lose_double_and_reorder_nothing() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let client = admin(&fixture, &apiserver)?;
    let mut pods = Pods::new(&apiserver);
    (0..30).for_each(|_| pods.write());

    let (told, last) = tokio::sync::watch::channel(0);
    let mut watches = tokio::task::JoinSet::new();
    for (index, (path, selector, _)) in SELECTIONS.into_iter().enumerate() {
        for accept in [JSON, PROTOBUF] {
            let target = format!(
                "{path}?{selector}watch=1&allowWatchBookmarks=true&sendInitialEvents=true\
                 &resourceVersionMatch=NotOlderThan"
            );
            let watch = client.watch(&target, accept).await?;
            let mut last = last.clone();
            let last = async move { *last.wait_for(|it| *it > 0).await.expect("it is told") };
            watches.spawn(async move { (index, accept, follow(watch, last).await) });
        }
    }
    let opened = || apiserver.counters().requests("watch", "", "pods");
    for round in 0..BREAKS {
        let before = opened();
        for _ in 0..WRITES {
            pods.write();
            tokio::task::yield_now().await;
        }
        match round {
            3 => apiserver.faults().damage_frames(Damage::Truncated, 2),
            6 => apiserver.faults().damage_frames(Damage::Malformed, 2),
            _ => apiserver.faults().cut_connections(),
        }
        (0..WRITES).for_each(|_| pods.write());
        until("both caches watch again", || {
            opened() >= before + 2 && apiserver.counters().open_watches("", "pods") == 2
        })
        .await?;
    }
    pods.last();
    told.send_replace(pods.log.last().context("there were writes")?.version);
    while let Some(watch) = watches.join_next().await {
        let (index, accept, seen) = watch?;
        let (path, selector, selects) = SELECTIONS[index];
        let name = format!("{path}?{selector} as {accept}");
        let seen = seen.with_context(|| name.clone())?;
        assert_eq!(seen.state, pods.state(seen.version, selects), "{name}");
        assert_eq!(seen.events, pods.events(seen.version, selects), "{name}");
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Writes a ConfigMap past the wire.
fn put(apiserver: &Apiserver, name: &str) -> u64 {
    let resource = apiserver.registry().find("", "v1", "configmaps");
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name, "namespace": "default", "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
    });
    let resource = resource.expect("configmaps are built in");
    apiserver.store().load(&resource, object).resource_version
}

async fn list(client: &Client) -> anyhow::Result<(u64, Value)> {
    let list = client.get(CONFIG_MAPS).await?.ok()?;
    let version = list["metadata"]["resourceVersion"].as_str();
    Ok((version.context("no version")?.parse()?, list))
}

/// The next event that is no bookmark is this object's.
async fn expect(watch: &mut Watch, name: &str, version: u64) -> anyhow::Result<()> {
    let seen = watch.object().await?;
    let key = format!("default/{name}");
    ensure!(
        matches!(&seen, Some(Event::Object(_, own, at)) if *own == key && *at == version),
        "{seen:?} instead of {key} at {version}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relist_ends_watches_cleanly_and_forgets_what_came_before() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let client = admin(&fixture, &apiserver)?;
    let (old, _) = list(&client).await?;
    let from = |version: u64| format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
    let mut watch = client.watch(&from(old), JSON).await?;
    let first = put(&apiserver, "first");
    expect(&mut watch, "first", first).await?;

    apiserver.faults().expire_watches("configmaps", 1);
    apiserver.faults().cut_connections();
    let end = watch.object().await?;
    assert_eq!(end, None, "a relist ends a watch without a word");

    let second = put(&apiserver, "second");
    let mut watch = client.watch(&from(old), JSON).await?;
    let Some(Event::Error(410, text)) = watch.next().await? else {
        anyhow::bail!("a watch from before the relist is not expired");
    };
    assert!(
        text.starts_with(&format!("too old resource version: {old} (")),
        "{text}"
    );
    assert_eq!(watch.next().await?, None, "an ERROR event is the last");

    let (now, listed) = list(&client).await?;
    ensure!(now >= second, "{now} is older than {second}");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    let mut watch = client.watch(&from(now), JSON).await?;
    let third = put(&apiserver, "third");
    expect(&mut watch, "third", third).await?;
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apiserver_that_restarts_is_resumed_from() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let client = admin(&fixture, &apiserver)?;
    let (version, _) = list(&client).await?;
    let target = format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
    let mut watch = client.watch(&target, JSON).await?;
    for round in 0..3 {
        let name = format!("round-{round}");
        let before = put(&apiserver, &name);
        expect(&mut watch, &name, before).await?;
        // Its caches start at this very version, so what comes next is all there is.
        apiserver.restart();
        let after = put(&apiserver, &name);
        expect(&mut watch, &name, after).await?;
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_behind_moves_no_version_back() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = |listen, first_revision| {
        Apiserver::start(Options {
            listen,
            dir: Some(folder.path().to_owned()),
            profile: Profile {
                first_revision,
                controllers: false,
                ..Profile::default()
            },
            ..Options::default()
        })
    };
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let later = std::net::TcpListener::bind(free)?.local_addr()?;
    let ahead = server(free, 90_000).await?;
    let servers = [ahead.addr(), later].map(|it| format!("https://{it}"));
    let fixture = Fixture::start(&ahead, |config| {
        config.startup.upstream.servers = servers.to_vec();
        config.live.authorization.allow_ttl = Duration::from_secs(300);
    })
    .await?;
    let client = admin(&fixture, &ahead)?;
    put(&ahead, "one");
    let (mut newest, _) = list(&client).await?;
    let target = format!("{CONFIG_MAPS}?watch=1&resourceVersion={newest}");
    let mut watch = client.watch(&target, JSON).await?;

    let behind = server(later, 20_000).await?;
    ahead.shutdown().await;
    let asked = || behind.counters().requests("watch", "", "configmaps") > 0;
    until("the cache watches the server that is behind", asked).await?;
    for round in 0..20 {
        put(&behind, &format!("late-{round}"));
        let seen = client
            .get(&format!("{CONFIG_MAPS}?resourceVersion=0"))
            .await?
            .ok()?;
        let version = seen["metadata"]["resourceVersion"].as_str();
        let version: u64 = version.context("no version")?.parse()?;
        ensure!(version >= newest, "{version} after {newest}");
        newest = version;
    }
    fixture.stop().await;
    while let Some(event) = watch.object().await? {
        let is_new = matches!(&event, Event::Object(_, _, at) if *at > 90_000);
        ensure!(is_new, "{event:?} from a server that is behind");
    }
    behind.shutdown().await;
    Ok(())
}
