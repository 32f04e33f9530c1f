use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use watershed_cache::{
    ListRequest, ListerWatcher, Options, Reflector, ReflectorOptions, Resource, UpstreamError,
    WatchCache, WatchRequest, encoding::Encoding,
};

use super::*;
use crate::{
    authn::{Reviewer, UserInfo, scripted::Scripted},
    authz::{Authorizer, Revocations, Source, tests::live},
    request::{Query, RequestInfo},
};

impl Local {
    /// Decides nothing: everything is for the apiserver to say.
    pub(crate) fn undeclared() -> Self {
        World::new(false, false).local
    }
}

/// What the apiserver holds of one resource, and how it behaves.
#[derive(Clone, Default)]
struct Upstream {
    objects: Arc<Mutex<Vec<Value>>>,
    api_version: String,
    /// It answers the first list and no other.
    falls_silent: bool,
    lists: Arc<Mutex<usize>>,
}

impl ListerWatcher for Upstream {
    type Body = stream::BoxStream<'static, Result<Bytes, UpstreamError>>;

    async fn list(&self, _: ListRequest) -> Result<Bytes, UpstreamError> {
        *self.lists.lock() += 1;
        if self.falls_silent && *self.lists.lock() > 1 {
            std::future::pending::<Infallible>().await;
        }
        let body = json!({
            "apiVersion": self.api_version,
            "kind": "PodList",
            "metadata": {"resourceVersion": "100"},
            "items": *self.objects.lock(),
        });
        Ok(body.to_string().into())
    }

    async fn watch(&self, request: WatchRequest) -> Result<Self::Body, UpstreamError> {
        if request.send_initial_events {
            return Err(UpstreamError::Status {
                code: 422,
                reason: "Invalid".to_owned(),
                message: "sendInitialEvents is forbidden".to_owned(),
                retry_after: None,
            });
        }
        Ok(stream::pending().boxed())
    }
}

/// A control plane and the caches that local decisions depend on.
struct World {
    inputs: Inputs,
    local: Local,
    reflectors: Vec<tokio::task::JoinHandle<()>>,
    /// Publishes the settings.
    _live: watch::Sender<Arc<watershed_config::Live>>,
}

impl World {
    fn new(node: bool, rbac: bool) -> Self {
        let settings = live(Duration::from_secs(300));
        let (publisher, settings) = watch::channel(settings);
        let declared = Authorizers {
            node,
            rbac,
            feature_gates: watershed_config::FeatureGates {
                kubelet_service_account_token_for_credential_providers: true,
                pod_certificate_request: false,
                cluster_trust_bundle: false,
            },
        };
        let inputs = Inputs::new(declared, Arc::<Revocations>::default(), settings);
        Self {
            local: Local::new(inputs.clone(), declared),
            inputs,
            reflectors: Vec::new(),
            _live: publisher,
        }
    }

    /// Opens the cache of an input, and fills it.
    async fn open(&mut self, (group, resource): (&'static str, &'static str), upstream: Upstream) {
        let feed = self.inputs.feed(group, resource).expect("it is an input");
        let options = Options {
            observer: Some(Arc::clone(&feed) as _),
            ..Options::default()
        };
        let what = Resource {
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            ..Resource::pods()
        };
        let upstream = Upstream {
            api_version: what.api_version(),
            ..upstream
        };
        let (writer, cache) = WatchCache::new(Arc::new(what), Encoding::Json, options);
        self.inputs.feeds(&feed, &cache);
        let forever = std::future::pending();
        let running = Reflector::run(writer, upstream, ReflectorOptions::default(), forever);
        self.reflectors.push(tokio::spawn(running));
        let filled = tokio::time::timeout(Duration::from_secs(60), cache.ready()).await;
        assert!(filled.is_ok(), "{:?}", *cache.status().borrow());
    }

    /// Opens all inputs, with these pods.
    async fn open_all(&mut self, pods: &[Value]) {
        let wanted: Vec<_> = self.inputs.wanted().collect();
        for (group, resource) in wanted {
            let upstream = Upstream::default();
            if resource == "pods" {
                *upstream.objects.lock() = pods.to_vec();
            }
            self.open((group, resource), upstream).await;
        }
    }

    /// Asks, with a script for the reviews. Panics when more is asked than the script holds.
    async fn ask<const N: usize>(&self, script: [bool; N], target: &str) -> Result<Source, String> {
        let reviews = script.map(|allowed| Ok(json!({"status": {"allowed": allowed}})));
        let script = Scripted::new(reviews);
        let reviewer = Arc::new(Reviewer::new(script.clone()));
        let authorizer = Authorizer::new(self.local.clone(), reviewer, Default::default());
        let uri: Uri = target.parse().unwrap();
        let query = Query::parse(uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&Method::GET, &uri, &query).unwrap();
        let user = UserInfo {
            name: "system:node:n1".to_owned(),
            groups: vec!["system:nodes".to_owned(), "system:authenticated".to_owned()],
            ..UserInfo::default()
        };
        let attributes = Attributes::new(user.into(), &info);
        let settings = live(Duration::from_secs(300));
        let answer = authorizer.authorize(&attributes, &settings.authorization);
        let answer = answer.await;
        assert_eq!(script.asked().len(), N, "{target}");
        match answer {
            Ok(permit) => Ok(permit.source()),
            Err(error) => Err(error.status(&attributes, target).message().to_owned()),
        }
    }
}

fn pod(name: &str, node: &str, secret: &str) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "50"},
        "spec": {"nodeName": node, "imagePullSecrets": [{"name": secret}]},
    })
}

const NODES: &str = "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn1";
const SECRET: &str = "/api/v1/namespaces/ns/secrets/s";
const UNRELATED: &str = "secrets \"s\" is forbidden: User \"system:node:n1\" cannot get resource \
    \"secrets\" in API group \"\" in the namespace \"ns\": no relationship found between node 'n1' \
    and this object";

#[tokio::test(start_paused = true)]
async fn what_rules_or_pods_allow_a_node_needs_no_review() {
    let mut world = World::new(true, false);
    assert_eq!(
        world.ask([], NODES).await,
        Ok(Source::Local(Grant::NodeRule))
    );
    assert_eq!(world.ask([true], SECRET).await, Ok(Source::Review));
    world.open_all(&[pod("p", "n1", "s")]).await;
    assert_eq!(
        world.ask([], SECRET).await,
        Ok(Source::Local(Grant::NodeGraph))
    );
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_with_other_authorizers_refuses_by_itself() {
    let mut world = World::new(true, false);
    world.open_all(&[pod("p", "n2", "s")]).await;
    assert_eq!(world.ask([true], SECRET).await, Ok(Source::Review));
    let undeclared = World::new(false, false);
    assert_eq!(undeclared.ask([true], NODES).await, Ok(Source::Review));
}

#[tokio::test(start_paused = true)]
async fn with_node_and_rbac_alone_a_refusal_by_fresh_facts_needs_no_review() {
    let mut world = World::new(true, true);
    world.open_all(&[pod("p", "n2", "s")]).await;
    assert_eq!(world.ask([], SECRET).await, Err(UNRELATED.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn without_proof_that_the_facts_are_fresh_the_apiserver_is_asked() {
    let mut world = World::new(true, true);
    let wanted: Vec<_> = world.inputs.wanted().collect();
    for (group, resource) in wanted {
        let falls_silent = resource == "pods";
        let upstream = Upstream {
            falls_silent,
            ..Upstream::default()
        };
        world.open((group, resource), upstream).await;
    }
    assert_eq!(world.ask([true], SECRET).await, Ok(Source::Review));
}

#[tokio::test(start_paused = true)]
async fn without_one_of_the_inputs_the_apiserver_is_asked() {
    let mut world = World::new(true, true);
    let wanted: Vec<_> = world.inputs.wanted().collect();
    for input in wanted
        .into_iter()
        .filter(|(_, resource)| *resource != "rolebindings")
    {
        world.open(input, Upstream::default()).await;
    }
    assert_eq!(world.ask([true], SECRET).await, Ok(Source::Review));
}

#[tokio::test(start_paused = true)]
async fn with_an_object_that_cannot_be_read_nobody_is_refused_locally() {
    let mut world = World::new(true, true);
    let mut unreadable = pod("p", "n1", "s");
    unreadable["spec"]["imagePullSecrets"] = json!("s");
    world.open_all(&[unreadable, pod("q", "n1", "t")]).await;
    assert_eq!(world.ask([true], SECRET).await, Ok(Source::Review));
    let readable = SECRET.replace("secrets/s", "secrets/t");
    assert_eq!(
        world.ask([], &readable).await,
        Ok(Source::Local(Grant::NodeGraph))
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_cache_said_gives_nobody_anything() {
    let mut world = World::new(true, true);
    world.open_all(&[pod("p", "n1", "s")]).await;
    assert_eq!(
        world.ask([], SECRET).await,
        Ok(Source::Local(Grant::NodeGraph))
    );
    for reflector in world.reflectors.drain(..) {
        reflector.abort();
        drop(reflector.await);
    }
    assert_eq!(world.ask([false], SECRET).await.map_err(drop), Err(()));
    assert_eq!(world.inputs.authorizer().graph_size().pods, 0);
}

#[tokio::test(start_paused = true)]
async fn facts_beyond_their_limit_are_let_go_and_the_apiserver_is_asked() {
    let mut world = World::new(true, true);
    let pods = (0..10_000).map(|n| pod(&format!("p{n:0100}"), "n1", &format!("s{n:0100}")));
    let pods: Vec<_> = pods.chain([pod("p", "n1", "s")]).collect();
    let mut settings = (*live(Duration::ZERO)).clone();
    settings.limits.authorization_bytes = 1 << 20;
    world._live.send_replace(Arc::new(settings));
    world.open_all(&pods).await;
    assert!(world.inputs.bytes() < 1 << 20);
    assert_eq!(world.ask([true], SECRET).await, Ok(Source::Review));
}

#[tokio::test(start_paused = true)]
async fn one_cache_feeds_a_resource_and_another_when_it_has_ended() {
    let world = World::new(true, false);
    let open = || {
        let feed = world.inputs.feed("", "pods")?;
        let (_, cache) = WatchCache::new(
            Arc::new(Resource::pods()),
            Encoding::Json,
            Options::default(),
        );
        world.inputs.feeds(&feed, &cache);
        Some(feed)
    };
    let first = open().expect("nobody feeds it");
    assert!(open().is_none());
    world.inputs.ended(&first);
    assert!(open().is_some());
    assert!(
        world.inputs.feed("", "services").is_none(),
        "it is no input"
    );
    assert!(
        world
            .inputs
            .feed("rbac.authorization.k8s.io", "roles")
            .is_none()
    );
}
