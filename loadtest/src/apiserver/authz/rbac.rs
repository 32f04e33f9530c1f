//! Role-based access control over the roles and bindings that exist.
//!
//! Owns the evaluation order (cluster bindings, then those of the request's namespace), wildcards,
//! `resourceNames` and the reason texts, as `plugin/pkg/auth/authorizer/rbac`, 1.36. Refuses
//! escalation checks, which guard writes of roles, and aggregation, which is a controller's.
//!
//! Invariant: a rule with `resourceNames` never matches a request without a name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Attributes, Decision, ResourceTarget, Target, go_quote};
use crate::apiserver::authn::UserInfo;

/// Every role and binding, by namespace (empty for cluster-wide ones) and name.
#[derive(Debug, Default)]
pub(super) struct Rules {
    roles: BTreeMap<(String, String), Role>,
    bindings: BTreeMap<String, BTreeMap<String, Binding>>,
}

#[derive(Debug, Default)]
struct Role {
    rules: Vec<Rule>,
}

/// One policy rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) verbs: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) resource_names: Vec<String>,
    pub(super) paths: Vec<String>,
}

#[derive(Debug)]
struct Binding {
    cluster_role: bool,
    role: String,
    subjects: Vec<Subject>,
}

#[derive(Debug)]
struct Subject {
    kind: String,
    namespace: String,
    name: String,
}

impl Rules {
    pub(super) fn observe(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        object: Option<&Value>,
    ) {
        match resource {
            "roles" | "clusterroles" => {
                let key = (namespace.to_owned(), name.to_owned());
                match object {
                    Some(object) => self.roles.insert(key, Role::new(object)),
                    None => self.roles.remove(&key),
                };
            }
            "rolebindings" | "clusterrolebindings" => {
                let bindings = self.bindings.entry(namespace.to_owned()).or_default();
                match object {
                    Some(object) => bindings.insert(name.to_owned(), Binding::new(object)),
                    None => bindings.remove(name),
                };
            }
            _ => {}
        }
    }

    pub(super) fn authorize(&self, attributes: &Attributes) -> Decision {
        let namespace = match &attributes.target {
            Target::Resource(target) => target.namespace.as_str(),
            Target::Path(_) => "",
        };
        let mut missing = Vec::new();
        let mut scopes = vec![""];
        if !namespace.is_empty() {
            scopes.push(namespace);
        }
        for scope in scopes {
            for (name, binding) in self.bindings.get(scope).into_iter().flatten() {
                let Some(subject) = binding.subject_of(&attributes.user, scope) else {
                    continue;
                };
                match self.rules(binding, scope) {
                    Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                        return Decision::allow(binding.reason(scope, name, subject));
                    }
                    Some(_) => {}
                    None if missing.contains(&binding.missing()) => {}
                    None => missing.push(binding.missing()),
                }
            }
        }
        Decision::no_opinion(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            several => format!("RBAC: [{}]", several.join(", ")),
        })
    }

    /// The rules of every binding that names the user, as a SelfSubjectRulesReview prints them.
    pub(super) fn of_user(&self, user: &UserInfo, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        let mut scopes = vec![""];
        if !namespace.is_empty() {
            scopes.push(namespace);
        }
        for scope in scopes {
            for binding in self
                .bindings
                .get(scope)
                .into_iter()
                .flat_map(BTreeMap::values)
            {
                if binding.subject_of(user, scope).is_none() {
                    continue;
                }
                for rule in self.rules(binding, scope).into_iter().flatten() {
                    if rule.paths.is_empty() {
                        resources.push(json!({
                            "verbs": rule.verbs,
                            "apiGroups": rule.groups,
                            "resources": rule.resources,
                            "resourceNames": rule.resource_names,
                        }));
                    } else {
                        paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
                    }
                }
            }
        }
        (resources, paths)
    }

    /// The rules a binding grants; `None` when its role does not exist.
    fn rules(&self, binding: &Binding, scope: &str) -> Option<&[Rule]> {
        let scope = if binding.cluster_role { "" } else { scope };
        let role = self.roles.get(&(scope.to_owned(), binding.role.clone()))?;
        Some(&role.rules)
    }
}

impl Role {
    fn new(object: &Value) -> Self {
        let rules = object["rules"].as_array().into_iter().flatten();
        Self {
            rules: rules.map(Rule::new).collect(),
        }
    }
}

impl Rule {
    fn new(rule: &Value) -> Self {
        Self {
            verbs: strings(&rule["verbs"]),
            groups: strings(&rule["apiGroups"]),
            resources: strings(&rule["resources"]),
            resource_names: strings(&rule["resourceNames"]),
            paths: strings(&rule["nonResourceURLs"]),
        }
    }

    pub(super) fn allows(&self, attributes: &Attributes) -> bool {
        let has = |list: &[String], wanted: &str| {
            list.iter().any(|entry| entry == "*" || entry == wanted)
        };
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        match &attributes.target {
            Target::Path(path) => self.paths.iter().any(|pattern| covers(pattern, path)),
            Target::Resource(target) => {
                has(&self.groups, &target.group)
                    && self.resources.iter().any(|pattern| names(pattern, target))
                    && (self.resource_names.is_empty()
                        || self.resource_names.contains(&target.name))
            }
        }
    }
}

/// Whether a non-resource URL of a rule covers a path: exactly, or by a trailing `*`.
fn covers(pattern: &str, path: &str) -> bool {
    pattern == path
        || pattern
            .strip_suffix('*')
            .is_some_and(|prefix| path.starts_with(prefix))
}

/// Whether a resource of a rule (`*`, `pods`, `pods/log`, `*/scale`) names the target.
fn names(pattern: &str, target: &ResourceTarget) -> bool {
    if pattern == "*" {
        return true;
    }
    match (pattern.split_once('/'), target.subresource.as_str()) {
        (None, "") => pattern == target.resource,
        (Some((resource, subresource)), wanted) => {
            subresource == wanted && (resource == "*" || resource == target.resource)
        }
        (None, _) => false,
    }
}

impl Binding {
    fn new(object: &Value) -> Self {
        let subjects = object["subjects"].as_array();
        Self {
            cluster_role: object["roleRef"]["kind"] == "ClusterRole",
            role: string(&object["roleRef"]["name"]),
            subjects: subjects
                .into_iter()
                .flatten()
                .map(|subject| Subject {
                    kind: string(&subject["kind"]),
                    namespace: string(&subject["namespace"]),
                    name: string(&subject["name"]),
                })
                .collect(),
        }
    }

    fn subject_of(&self, user: &UserInfo, scope: &str) -> Option<&Subject> {
        self.subjects
            .iter()
            .find(|subject| match subject.kind.as_str() {
                "User" => subject.name == user.name,
                "Group" => user.is_in(&subject.name),
                "ServiceAccount" => {
                    let namespace = if subject.namespace.is_empty() {
                        scope
                    } else {
                        &subject.namespace
                    };
                    let rest = user.name.strip_prefix("system:serviceaccount:");
                    rest.and_then(|rest| rest.split_once(':')) == Some((namespace, &subject.name))
                }
                _ => false,
            })
    }

    fn reason(&self, scope: &str, name: &str, subject: &Subject) -> String {
        let binding = if scope.is_empty() {
            format!("ClusterRoleBinding {}", go_quote(name))
        } else {
            format!("RoleBinding {}", go_quote(&format!("{name}/{scope}")))
        };
        let role = format!("{} {}", self.role_kind(), go_quote(&self.role));
        let subject = match subject.kind.as_str() {
            "ServiceAccount" => {
                let full = format!("{}/{}", subject.name, subject.namespace);
                format!("ServiceAccount {}", go_quote(&full))
            }
            kind => format!("{kind} {}", go_quote(&subject.name)),
        };
        format!("RBAC: allowed by {binding} of {role} to {subject}")
    }

    fn role_kind(&self) -> &'static str {
        if self.cluster_role {
            "ClusterRole"
        } else {
            "Role"
        }
    }

    fn missing(&self) -> String {
        let kind = self.role_kind().to_ascii_lowercase();
        format!(
            "{kind}.rbac.authorization.k8s.io {} not found",
            go_quote(&self.role)
        )
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(string).collect()
}
