//! kube-rs through the proxy: its watchers and reflectors end with what a direct list shows.
//!
//! Owns a churn of pods, ConfigMaps and objects of a CRD, while the apiserver cuts connections,
//! lists again and forgets history; and followers in every mode that kube-rs has. A follower ends
//! at the last write of its resource and compares at once: nothing may still be under way by then.
//! Refuses errors: what happens between proxy and apiserver is not a client's concern.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::Hash,
    net::SocketAddr,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{GroupVersionKind, PartialObjectMeta},
    runtime::{
        reflector::{self, reflector},
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    client::PATIENCE,
    fixture::{Fixture, until},
};

const NAMESPACE: &str = "default";
/// The name of the last object written.
const LAST: &str = "last";
/// Objects that come and go.
const NAMES: u32 = 20;
/// Writes of each resource.
const WRITES: u32 = 160;
/// Writes between two faults of the apiserver.
const FAULT_INTERVAL: u32 = 20;
/// Between two writes: time for what was cut to be opened again.
const PAUSE: Duration = Duration::from_millis(10);
/// What has no answer by then was cut at a bad moment.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_ends_every_watch_with_the_state_of_a_direct_list() -> anyhow::Result<()> {
    let apiserver = Arc::new(Apiserver::start(Options::default()).await?);
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let clients = Clients {
        through: client(fixture.folder(), fixture.proxy.address()).await?,
        direct: client(fixture.folder(), apiserver.addr()).await?,
    };
    let boats = define_boats(&clients.direct).await?;
    let followers = clients.followers(&boats);
    let churn = Churn::start(&clients.direct, &apiserver, &boats);
    // Half of them begin while everything changes.
    until("the middle of the churn", || churn.done() > WRITES / 2).await?;
    let late = clients.followers(&boats);
    for mut joined in [followers, late] {
        while let Some(follower) = joined.join_next().await {
            follower??;
        }
    }
    churn.finish().await?;
    fixture.stop().await;
    Ok(())
}

/// The watchers' ways of starting; the last one sees objects come into and go out of its selector.
fn modes() -> [watcher::Config; 5] {
    let default = watcher::Config::default();
    [
        default.clone(),
        default.clone().page_size(3),
        default.clone().any_semantic(),
        default.clone().streaming_lists(),
        default.streaming_lists().labels("parity!=even"),
    ]
}

/// A client of the server at `address`, as admin.
async fn client(folder: &Path, address: SocketAddr) -> anyhow::Result<Client> {
    let mut kubeconfig = Kubeconfig::read_from(folder.join("admin.kubeconfig"))?;
    for named in &mut kubeconfig.clusters {
        let cluster = named
            .cluster
            .as_mut()
            .context("a cluster without content")?;
        cluster.server = Some(format!("https://{address}"));
    }
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

/// Defines a resource that only discovery knows.
async fn define_boats(client: &Client) -> anyhow::Result<ApiResource> {
    let name = "boats.harbour.example.com";
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "group": "harbour.example.com", "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    }))?;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions
        .create(&PostParams::default(), &definition)
        .await?;
    let established = await_condition(definitions, name, conditions::is_crd_established());
    timeout(PATIENCE, established).await??;
    let kind = GroupVersionKind::gvk("harbour.example.com", "v1", "Boat");
    Ok(ApiResource::from_gvk_with_plural(&kind, "boats"))
}

/// A client through the proxy and one past it.
struct Clients {
    through: Client,
    direct: Client,
}

impl Clients {
    /// Starts followers of whole objects and of metadata, in every mode.
    fn followers(&self, boats: &ApiResource) -> JoinSet<anyhow::Result<()>> {
        let mut followers = JoinSet::new();
        for mode in modes() {
            followers.spawn(self.follower((), &mode, in_namespace::<Pod>));
            followers.spawn(self.follower((), &mode, in_namespace::<ConfigMap>));
            followers.spawn(self.follower((), &mode, in_namespace::<PartialObjectMeta<Pod>>));
            let whole = |client| Api::<DynamicObject>::namespaced_with(client, NAMESPACE, boats);
            followers.spawn(self.follower(boats.clone(), &mode, whole));
            let metadata = |client| {
                Api::<PartialObjectMeta<DynamicObject>>::namespaced_with(client, NAMESPACE, boats)
            };
            followers.spawn(self.follower(boats.clone(), &mode, metadata));
        }
        followers
    }

    /// Follows one watcher and its reflector, then compares both with a direct list.
    fn follower<K>(
        &self,
        kind: K::DynamicType,
        mode: &watcher::Config,
        api: impl Fn(Client) -> Api<K>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + 'static
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Clone + Debug + Eq + Hash + Send + Sync,
    {
        let what = format!("{} {mode:?}", std::any::type_name::<K>());
        let selected = ListParams {
            label_selector: mode.label_selector.clone(),
            ..ListParams::default()
        };
        let events = watcher(api(self.through.clone()), mode.clone());
        let direct = api(self.direct.clone());
        let writer = reflector::store::Writer::new(kind);
        let store = writer.as_reader();
        async move {
            let followed = Followed::up_to_the_end(reflector(writer, events)).await;
            let followed = followed.with_context(|| what.clone())?;
            let wanted = values(&direct.list(&selected).await?.items)?;
            ensure!(
                wanted.contains_key(LAST),
                "{what}: the list lacks the last write"
            );
            same(&values(followed.objects.values())?, &wanted).with_context(|| what.clone())?;
            let kept = store.state();
            let kept = values(kept.iter().map(Arc::as_ref))?;
            same(&kept, &wanted).with_context(|| format!("reflector of {what}"))
        }
    }
}

fn in_namespace<K>(client: Client) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Api::namespaced(client, NAMESPACE)
}

/// The state that a stream of events tells, and the law of what may follow what.
struct Followed<K> {
    objects: BTreeMap<String, K>,
    listing: Option<BTreeMap<String, K>>,
}

impl<K: Resource> Followed<K> {
    /// Takes events until the last write is among them.
    async fn up_to_the_end(
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    ) -> anyhow::Result<Self> {
        let mut events = pin!(events);
        let mut followed = Self {
            objects: BTreeMap::new(),
            listing: None,
        };
        while followed.listing.is_some() || !followed.objects.contains_key(LAST) {
            let event = timeout(PATIENCE, events.next()).await.context("silence")?;
            match event.context("it ended")? {
                Ok(event) => followed.take(event)?,
                Err(error) => ensure!(is_expected(&error), error),
            }
        }
        Ok(followed)
    }

    fn take(&mut self, event: watcher::Event<K>) -> anyhow::Result<()> {
        match event {
            watcher::Event::Init => self.listing = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => {
                let name = object.name_any();
                let listing = self.listing.as_mut().context("an item outside a list")?;
                let twice = listing.insert(name.clone(), object).is_some();
                ensure!(!twice, "{name} is twice in one list");
            }
            watcher::Event::InitDone => {
                self.objects = self.listing.take().context("the end of no list")?;
            }
            watcher::Event::Apply(object) => {
                let (name, new) = (object.name_any(), version(&object)?);
                let old = self.objects.get(&name).map(version).transpose()?;
                ensure!(old < Some(new), "{name}: {new} follows {old:?}");
                self.objects.insert(name, object);
            }
            watcher::Event::Delete(object) => {
                let (name, new) = (object.name_any(), version(&object)?);
                let old = self.objects.remove(&name);
                let old = version(&old.with_context(|| format!("{name} is deleted twice"))?)?;
                ensure!(old < new, "{name}: deleted at {new}, but seen at {old}");
            }
        }
        Ok(())
    }
}

/// What was forgotten is said with 410, and kube-rs lists again. Nothing else may go wrong.
fn is_expected(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::WatchError(status) => status,
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status,
        _ => return false,
    };
    status.code == 410
}

fn version<K: Resource>(object: &K) -> anyhow::Result<u64> {
    let version = object.meta().resource_version.as_deref();
    Ok(version.context("no resource version")?.parse()?)
}

fn values<'a, K: Resource + Serialize + 'a>(
    objects: impl IntoIterator<Item = &'a K>,
) -> anyhow::Result<BTreeMap<String, Value>> {
    let entry = |object: &K| Ok((object.name_any(), serde_json::to_value(object)?));
    objects.into_iter().map(entry).collect()
}

/// Names the first difference.
fn same(got: &BTreeMap<String, Value>, wanted: &BTreeMap<String, Value>) -> anyhow::Result<()> {
    for name in got.keys().chain(wanted.keys()) {
        let (got, wanted) = (got.get(name), wanted.get(name));
        ensure!(got == wanted, "{name} is {got:?}, listed is {wanted:?}");
    }
    Ok(())
}

/// Writers past the proxy, one for each resource, and an apiserver that misbehaves meanwhile.
struct Churn {
    writers: JoinSet<anyhow::Result<()>>,
    done: Arc<AtomicU32>,
}

impl Churn {
    fn start(client: &Client, apiserver: &Arc<Apiserver>, boats: &ApiResource) -> Self {
        let pods = ApiResource::erase::<Pod>(&());
        let config_maps = ApiResource::erase::<ConfigMap>(&());
        let done = Arc::new(AtomicU32::new(0));
        let mut writers = JoinSet::new();
        for (seed, kind) in (1..).zip([pods, config_maps, boats.clone()]) {
            let api = Api::namespaced_with(client.clone(), NAMESPACE, &kind);
            let (apiserver, done) = (Arc::clone(apiserver), Arc::clone(&done));
            let mut rng = fastrand::Rng::with_seed(seed);
            writers.spawn(async move {
                for turn in 0..WRITES {
                    write(&api, &kind, &mut rng).await;
                    if turn % FAULT_INTERVAL == FAULT_INTERVAL - 1 {
                        misbehave(&apiserver, &kind, turn / FAULT_INTERVAL);
                    }
                    done.fetch_max(turn + 1, Ordering::SeqCst);
                    tokio::time::sleep(PAUSE).await;
                }
                let last = object(&kind, LAST, 0);
                api.create(&PostParams::default(), &last).await?;
                anyhow::Ok(())
            });
        }
        Self { writers, done }
    }

    /// Writes that the fastest writer has done.
    fn done(&self) -> u32 {
        self.done.load(Ordering::SeqCst)
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        while let Some(writer) = self.writers.join_next().await {
            writer??;
        }
        Ok(())
    }
}

/// Creates, changes or deletes a random object. What a cut made fail may have happened or not: the
/// list at the end knows.
async fn write(api: &Api<DynamicObject>, kind: &ApiResource, rng: &mut fastrand::Rng) {
    let name = format!("object-{}", rng.u32(0..NAMES));
    let new = object(kind, &name, rng.u32(..));
    let wrote = async {
        if rng.u8(0..5) == 0 {
            api.delete(&name, &DeleteParams::default().grace_period(0))
                .await
                .map(drop)
        } else {
            let created = api.create(&PostParams::default(), &new).await.map(drop);
            match created {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    let metadata = json!({"metadata": new.metadata});
                    let patch = Patch::Merge(&metadata);
                    api.patch(&name, &PatchParams::default(), &patch)
                        .await
                        .map(drop)
                }
                created => created,
            }
        }
    };
    drop(timeout(WRITE_TIMEOUT, wrote).await);
}

fn object(kind: &ApiResource, name: &str, value: u32) -> DynamicObject {
    let spec = match kind.kind.as_str() {
        "Pod" => json!({"spec": {"containers": [{"name": "main", "image": "example.invalid/x"}]}}),
        _ => json!({}),
    };
    let parity = if value.is_multiple_of(2) {
        "even"
    } else {
        "odd"
    };
    let mut object = DynamicObject::new(name, kind).data(spec);
    if name != LAST {
        object
            .labels_mut()
            .insert("parity".to_owned(), parity.to_owned());
    }
    object
        .annotations_mut()
        .insert("value".to_owned(), value.to_string());
    object
}

/// One of the troubles that a proxy has with its apiservers.
fn misbehave(apiserver: &Apiserver, kind: &ApiResource, which: u32) {
    let found = apiserver
        .registry()
        .find(&kind.group, &kind.version, &kind.plural);
    match which % 4 {
        0 => apiserver.faults().cut_connections(),
        1 => apiserver.relist(&found.expect("it is served")),
        2 => {
            apiserver.faults().expire_watches(&kind.plural, 1);
            apiserver.faults().cut_connections();
        }
        _ => apiserver.compact(apiserver.store().revision()),
    }
}
