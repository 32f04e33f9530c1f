//! What the apiserver serves: built-in resources, and custom ones that come and go at run time.
//!
//! Owns the registry (group, version, resource) → `Resource`, with everything discovery prints
//! about it, and the facts the store needs: whether it is namespaced, cached, and under which name
//! its objects are stored. Refuses to know how objects are encoded. Invariant: resources that share
//! objects (events of two groups, versions of one CRD) share `storage`, so that one write is seen
//! through all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;
use serde_json::Value;

mod builtin;

/// A served resource: one (group, version, resource).
#[derive(Debug, Clone)]
pub struct Resource {
    /// Small number unique within a process; a key for encodings.
    pub id: u32,
    /// API group, empty for the core group.
    pub group: String,
    /// API version, as `v1`.
    pub version: String,
    /// Plural name, as in paths.
    pub resource: String,
    /// Kind of its objects.
    pub kind: String,
    /// Singular name as discovery prints it.
    pub singular: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories for kubectl, as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs as discovery prints them.
    pub verbs: Vec<String>,
    /// Subresources, as `status`; the verbs are `get patch update` except where discovery knows
    /// better.
    pub subresources: Vec<String>,
    /// Set for custom resources.
    pub custom: Option<Custom>,
    /// Whether a watch cache stands before the store (not for events).
    pub cached: bool,
    /// Name of the table its objects are in: `pods`, `deployments.apps`.
    pub storage: String,
    /// Text of the `Warning` header of reads, empty for none.
    pub warning: String,
}

/// What only custom resources have.
#[derive(Debug, Clone, Default)]
pub struct Custom {
    /// Selectable fields of this version without the leading dot, as `spec.color`.
    pub selectable_fields: Vec<String>,
    /// The version's entry of the CRD (`schema`, `additionalPrinterColumns`, `subresources`).
    pub version: Value,
    /// Name of the CRD.
    pub crd: String,
    /// Generation of the CRD: changes with its spec.
    pub generation: i64,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`, as errors name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// Whether discovery offers the verb.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Path of the cluster-wide collection, as `/apis/apps/v1/deployments`.
    pub fn list_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}/{}", self.version, self.resource)
        } else {
            format!("/apis/{}/{}/{}", self.group, self.version, self.resource)
        }
    }

    /// Kind of the list, as `PodList`.
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => match custom.version.get("listKind").and_then(Value::as_str) {
                Some(kind) => kind.to_owned(),
                None => format!("{}List", self.kind),
            },
            None => format!("{}List", self.kind),
        }
    }

    /// Go name of the internal list type, as some 406 texts print it.
    pub fn go_list_type(&self) -> String {
        match &self.custom {
            Some(_) => "*unstructured.UnstructuredList".to_owned(),
            None => format!("*{}.{}List", self.go_package(), self.kind),
        }
    }

    /// Go name of the internal type.
    pub fn go_type(&self) -> String {
        match &self.custom {
            Some(_) => "*unstructured.Unstructured".to_owned(),
            None => format!("*{}.{}", self.go_package(), self.kind),
        }
    }

    fn go_package(&self) -> &str {
        match self.group.split('.').next().unwrap_or("") {
            "" | "events" => "core",
            "rbac" => "rbac",
            first => first,
        }
    }
}

/// All served resources; cheap to clone lookups out of.
#[derive(Debug)]
pub struct Registry {
    served: RwLock<BTreeMap<(String, String, String), Arc<Resource>>>,
    next: AtomicU32,
}

impl Registry {
    /// The built-in resources of kube-apiserver 1.36.
    pub fn builtin() -> Self {
        let registry = Self {
            served: RwLock::default(),
            next: AtomicU32::new(1),
        };
        for resource in builtin::resources() {
            registry.add(resource);
        }
        registry
    }

    /// Adds or replaces a resource; its `id` is assigned here.
    pub fn add(&self, mut resource: Resource) -> Arc<Resource> {
        resource.id = self.next.fetch_add(1, Ordering::Relaxed);
        let resource = Arc::new(resource);
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.resource.clone(),
        );
        self.served.write().insert(key, Arc::clone(&resource));
        resource
    }

    /// Stops serving a resource.
    pub fn remove(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), resource.to_owned());
        self.served.write().remove(&key)
    }

    /// Looks a resource up by its plural name.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), resource.to_owned());
        self.served.read().get(&key).cloned()
    }

    /// Looks a resource up by kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        let served = self.served.read();
        served
            .values()
            .find(|r| r.group == group && r.version == version && r.kind == kind)
            .cloned()
    }

    /// Every resource, ordered by group, version, name.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.served.read().values().cloned().collect()
    }

    /// Whether any resource of the group is built in (its unknown paths get a JSON 404).
    pub fn is_builtin_group(&self, group: &str) -> bool {
        builtin::is_group(group)
    }

    /// Whether any resource of (group, version) is served.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.served
            .read()
            .keys()
            .any(|(g, v, _)| g == group && v == version)
    }

    /// The resources of a CRD that are served, one per version; none when the CRD names no served
    /// version.
    pub fn from_crd(crd: &Value) -> Vec<Resource> {
        let spec = &crd["spec"];
        let names = &spec["names"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .map(|a| a.iter().map(text).collect())
                .unwrap_or_default()
        };
        let group = text(&spec["group"]);
        let plural = text(&names["plural"]);
        let versions = spec["versions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let served = versions
            .iter()
            .filter(|v| v["served"].as_bool().unwrap_or(false));
        served
            .map(|version| {
                let subresources = version["subresources"].as_object();
                let kind = text(&names["kind"]);
                let singular = text(&names["singular"]);
                Resource {
                    id: 0,
                    version: text(&version["name"]),
                    resource: plural.clone(),
                    singular: if singular.is_empty() {
                        kind.to_lowercase()
                    } else {
                        singular
                    },
                    kind,
                    short_names: texts(&names["shortNames"]),
                    categories: texts(&names["categories"]),
                    namespaced: spec["scope"].as_str() == Some("Namespaced"),
                    verbs: builtin::CRUD.split(' ').map(str::to_owned).collect(),
                    subresources: subresources
                        .map(|s| s.keys().cloned().collect())
                        .unwrap_or_default(),
                    custom: Some(custom(crd, version)),
                    cached: true,
                    storage: format!("{plural}.{group}"),
                    warning: crd_warning(&group, version, &names["kind"]),
                    group: group.clone(),
                }
            })
            .collect()
    }
}

fn custom(crd: &Value, version: &Value) -> Custom {
    let paths = version["selectableFields"].as_array();
    let path = |field: &Value| {
        let path = field["jsonPath"].as_str().unwrap_or_default();
        path.trim_start_matches('.').to_owned()
    };
    let mut version_entry = version.clone();
    if let (Some(kind), Some(entry)) = (
        crd["spec"]["names"].get("listKind"),
        version_entry.as_object_mut(),
    ) {
        entry.insert("listKind".to_owned(), kind.clone());
    }
    Custom {
        selectable_fields: paths
            .map(|p| p.iter().map(path).collect())
            .unwrap_or_default(),
        version: version_entry,
        crd: crd["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        generation: crd["metadata"]["generation"].as_i64().unwrap_or_default(),
    }
}

fn crd_warning(group: &str, version: &Value, kind: &Value) -> String {
    if version["deprecated"].as_bool() != Some(true) {
        return String::new();
    }
    match version["deprecationWarning"].as_str() {
        Some(text) => text.to_owned(),
        None => format!(
            "{group}/{} {} is deprecated",
            version["name"].as_str().unwrap_or_default(),
            kind.as_str().unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_both_groups_share_their_objects() {
        let registry = Registry::builtin();
        let core = registry.find("", "v1", "events").map(|r| r.storage.clone());
        let new = registry
            .find("events.k8s.io", "v1", "events")
            .map(|r| r.storage.clone());
        assert_eq!(core, new);
        assert!(core.is_some());
    }

    #[test]
    fn only_served_versions_of_a_crd_become_resources() {
        let crd = json!({"metadata": {"name": "w.x.io"}, "spec": {
            "group": "x.io", "scope": "Cluster",
            "names": {"plural": "ws", "kind": "W", "listKind": "WList"},
            "versions": [
                {"name": "v1", "served": true, "selectableFields": [{"jsonPath": ".spec.color"}]},
                {"name": "v2", "served": false}]}});
        let resources = Registry::from_crd(&crd);
        assert_eq!(resources.len(), 1);
        assert_eq!(resources[0].singular, "w");
        assert!(!resources[0].namespaced);
        let custom = resources[0]
            .custom
            .as_ref()
            .map(|c| c.selectable_fields.clone());
        assert_eq!(custom, Some(vec!["spec.color".to_owned()]));
    }
}
