//! What the apiservers serve: which resources exist, which may be cached, and what the cache must
//! know of them.
//!
//! Owns: the answers of the upstream's discovery, memoised for a short time, single-flighted.
//! Refuses: to guess. A resource is eligible only when the upstream lists it with both `list` and
//! `watch` and serves it itself or from a CustomResourceDefinition; whatever cannot be learned
//! (aggregated APIs, refused or failed look-ups) is forwarded, and the reason says why.
//! Invariant: a look-up never fails a request. Its worst answer is "pass it through".
//!
//! Decided against: one informer over all CustomResourceDefinitions. It would cost every replica
//! the memory of every schema; a custom resource is looked up when it is first asked for, and its
//! definition is compared again while its cache is open (`caches.rs`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use moka::future::Cache;
use serde::Deserialize;
use watershed_cache::{FieldSet, Resource};

use crate::{
    body::Body,
    upstream::{Pool, Upstream},
};

/// How long an answer is believed. A new CustomResourceDefinition is seen after this long.
const BELIEVED_FOR: Duration = Duration::from_secs(30);

/// The largest discovery document or definition that is read, in bytes; definitions with large
/// schemas reach about one MiB.
const DOCUMENT_BYTES: usize = 8 << 20;

/// Group versions and resources remembered at once.
const ENTRIES: u64 = 4096;

/// Resources an apiserver answers from its store and not from a watch cache: limits, bookmarks and
/// old versions mean something else there (as `default_storage_factory_builder.go`, 1.36).
const STORED_ONLY: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// Names one served version of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupVersionResource {
    /// API group; empty for core.
    pub(crate) group: Arc<str>,
    /// Version in the group.
    pub(crate) version: Arc<str>,
    /// Plural name.
    pub(crate) resource: Arc<str>,
}

/// A resource that may be cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discovered {
    /// What the cache must know of it.
    pub(crate) resource: Resource,
    /// Identifies the definition of a custom resource and its generation: another value means other
    /// bytes for the same resource version, so the cache has to be built anew. Empty for built-ins.
    pub(crate) definition: String,
}

/// Why a resource is not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ineligible {
    /// Discovery does not list it, or without `list` and `watch`.
    Unlisted,
    /// An aggregated API serves it.
    Aggregated,
    /// The apiserver does not serve it from a watch cache either.
    StoredOnly,
    /// Its lists have a kind of their own.
    ListKind,
    /// The upstream did not say.
    Unknown,
}

/// Looks resources up at the upstream. Clones share what is remembered.
#[derive(Clone)]
pub(crate) struct Discovery {
    upstream: Upstream,
    group_versions: Cache<String, Arc<Vec<ApiResource>>>,
    resources: Cache<GroupVersionResource, Result<Arc<Discovered>, Ineligible>>,
    preferred: Cache<String, Arc<str>>,
}

impl Discovery {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            group_versions: remember(),
            resources: remember(),
            preferred: remember(),
        }
    }

    /// The resource, or why it must be passed through. Errors are not remembered.
    pub(crate) async fn resource(
        &self,
        gvr: &GroupVersionResource,
    ) -> Result<Arc<Discovered>, Ineligible> {
        self.resources
            .try_get_with_by_ref(gvr, async {
                match self.look_up(gvr).await {
                    Ok(found) => Ok(Ok(Arc::new(found))),
                    Err(Ineligible::Unknown) => Err(Ineligible::Unknown),
                    Err(reason) => Ok(Err(reason)),
                }
            })
            .await
            .unwrap_or_else(|reason: Arc<Ineligible>| Err(*reason))
    }

    /// The same, not from memory: for whoever checks whether a definition has changed.
    pub(crate) async fn resource_now(
        &self,
        gvr: &GroupVersionResource,
    ) -> Result<Arc<Discovered>, Ineligible> {
        self.group_versions
            .invalidate(&group_version_path(gvr))
            .await;
        self.resources.invalidate(gvr).await;
        self.resource(gvr).await
    }

    /// The version the apiserver prefers of a group; `None` while that cannot be learned.
    pub(crate) async fn preferred_version(&self, group: &str) -> Option<Arc<str>> {
        if group.is_empty() {
            return Some("v1".into());
        }
        let path = format!("/apis/{group}");
        let fetch = async {
            match self.document::<ApiGroup>(&path).await {
                Ok(Some(found)) => Ok(found.preferred_version.version.as_str().into()),
                Ok(None) | Err(_) => Err(()),
            }
        };
        self.preferred.try_get_with_by_ref(group, fetch).await.ok()
    }

    async fn look_up(&self, gvr: &GroupVersionResource) -> Result<Discovered, Ineligible> {
        if STORED_ONLY.contains(&(&gvr.group, &gvr.resource)) {
            return Err(Ineligible::StoredOnly);
        }
        let listed = self.listed(gvr).await?;
        let origin = match FieldSet::builtin(&gvr.group, &gvr.version, &gvr.resource) {
            Some(fields) => Origin::BuiltIn(fields),
            None => self.origin(gvr).await?,
        };
        let (custom, fields, definition) = match origin {
            Origin::BuiltIn(fields) => (false, fields, String::new()),
            Origin::Custom { fields, definition } => (true, fields, definition),
        };
        Ok(Discovered {
            resource: Resource {
                group: gvr.group.clone(),
                version: gvr.version.clone(),
                resource: gvr.resource.clone(),
                kind: listed.kind.as_str().into(),
                namespaced: listed.namespaced,
                custom,
                fields,
            },
            definition,
        })
    }

    /// The resource's line in its group version's document.
    async fn listed(&self, gvr: &GroupVersionResource) -> Result<ApiResource, Ineligible> {
        let path = group_version_path(gvr);
        let fetch = async {
            match self.document::<ApiResourceList>(&path).await {
                Ok(Some(list)) => Ok(Arc::new(list.resources)),
                Ok(None) => Err(Ineligible::Unlisted),
                Err(reason) => Err(reason),
            }
        };
        let resources = self
            .group_versions
            .try_get_with_by_ref(&path, fetch)
            .await
            .map_err(|reason: Arc<Ineligible>| *reason)?;
        let verb = |it: &ApiResource, verb: &str| it.verbs.iter().any(|known| known == verb);
        resources
            .iter()
            .find(|it| it.name == *gvr.resource && verb(it, "list") && verb(it, "watch"))
            .cloned()
            .ok_or(Ineligible::Unlisted)
    }

    /// Who serves a resource this build does not know by name.
    async fn origin(&self, gvr: &GroupVersionResource) -> Result<Origin, Ineligible> {
        let definition = format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}.{}",
            gvr.resource, gvr.group
        );
        if let Some(found) = self.document::<Definition>(&definition).await? {
            return found.origin(&gvr.version);
        }
        let service = format!(
            "/apis/apiregistration.k8s.io/v1/apiservices/{}.{}",
            gvr.version, gvr.group
        );
        match self.document::<ApiService>(&service).await? {
            Some(found) if found.spec.service.is_some() => Err(Ineligible::Aggregated),
            Some(_) => Ok(Origin::BuiltIn(FieldSet::unknown())),
            None => Err(Ineligible::Unknown),
        }
    }

    /// `None` when there is no such document.
    async fn document<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
    ) -> Result<Option<T>, Ineligible> {
        let unknown = |why: &dyn std::fmt::Display| {
            tracing::warn!(path, why = %why, "discovery failed; what it is about is passed through");
            Ineligible::Unknown
        };
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .body(Body::Empty)
            .expect("a path of API names is a URI");
        let response = self
            .upstream
            .send(Pool::Own, request)
            .await
            .map_err(|error| unknown(&error))?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            code => return Err(unknown(&format!("the apiserver answered {code}"))),
        }
        let body: Bytes = response
            .into_body()
            .bytes(DOCUMENT_BYTES)
            .await
            .map_err(|error| unknown(&error))?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| unknown(&format!("malformed at line {}", error.line())))
    }
}

fn group_version_path(gvr: &GroupVersionResource) -> String {
    if gvr.group.is_empty() {
        format!("/api/{}", gvr.version)
    } else {
        format!("/apis/{}/{}", gvr.group, gvr.version)
    }
}

fn remember<K, V>() -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(ENTRIES)
        .time_to_live(BELIEVED_FOR)
        .build()
}

enum Origin {
    BuiltIn(Arc<FieldSet>),
    Custom {
        fields: Arc<FieldSet>,
        definition: String,
    },
}

#[derive(Deserialize)]
struct ApiResourceList {
    #[serde(default)]
    resources: Vec<ApiResource>,
}

#[derive(Clone, Deserialize)]
struct ApiResource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroup {
    preferred_version: PreferredVersion,
}

#[derive(Deserialize)]
struct PreferredVersion {
    version: String,
}

#[derive(Deserialize)]
struct ApiService {
    #[serde(default)]
    spec: ApiServiceSpec,
}

#[derive(Default, Deserialize)]
struct ApiServiceSpec {
    service: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Definition {
    metadata: DefinitionMetadata,
    spec: DefinitionSpec,
}

#[derive(Deserialize)]
struct DefinitionMetadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    generation: i64,
}

#[derive(Deserialize)]
struct DefinitionSpec {
    names: DefinitionNames,
    scope: String,
    #[serde(default)]
    versions: Vec<DefinitionVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefinitionNames {
    kind: String,
    list_kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefinitionVersion {
    name: String,
    #[serde(default)]
    selectable_fields: Vec<SelectableField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableField {
    json_path: String,
}

impl Definition {
    fn origin(&self, version: &str) -> Result<Origin, Ineligible> {
        // The cache names a list after its kind; a definition may choose another name.
        let names = &self.spec.names;
        if names
            .list_kind
            .as_ref()
            .is_some_and(|it| *it != format!("{}List", names.kind))
        {
            return Err(Ineligible::ListKind);
        }
        let paths = self
            .spec
            .versions
            .iter()
            .filter(|it| it.name == version)
            .flat_map(|it| {
                it.selectable_fields
                    .iter()
                    .map(|field| field.json_path.as_str())
            });
        Ok(Origin::Custom {
            fields: FieldSet::custom(self.spec.scope == "Namespaced", paths),
            definition: format!("{}/{}", self.metadata.uid, self.metadata.generation),
        })
    }
}
