//! Roles and bindings.

use serde_json::json;

use super::{Message, Written, metadata};
use crate::objects::{Binding, Role};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(crate) fn role(role: &Role) -> Written {
    let (metadata_json, metadata) = metadata(&role.namespace, &role.name, &[]);
    let mut message = Message::new().message(1, metadata);
    let mut rules = Vec::new();
    for rule in &role.rules {
        let json = json!({
            "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources,
            "resourceNames": rule.names, "nonResourceURLs": rule.urls,
        });
        let rule = Message::new()
            .texts(1, &rule.verbs)
            .texts(2, &rule.groups)
            .texts(3, &rule.resources)
            .texts(4, &rule.names)
            .texts(5, &rule.urls);
        rules.push(json);
        message = message.message(2, rule);
    }
    let json = json!({"metadata": metadata_json, "rules": rules});
    let kind = if role.namespace.is_empty() {
        "ClusterRole"
    } else {
        "Role"
    };
    Written::new(kind, "rbac.authorization.k8s.io/v1", json, message)
}

pub(crate) fn binding(binding: &Binding) -> Written {
    let (metadata_json, metadata) = metadata(&binding.namespace, &binding.name, &[]);
    let (kind, name) = &binding.role;
    let mut message = Message::new().message(1, metadata);
    let mut subjects = Vec::new();
    for (kind, namespace, name) in &binding.subjects {
        let mut json = json!({"kind": kind, "apiGroup": RBAC, "name": name});
        if !namespace.is_empty() {
            json["namespace"] = json!(namespace);
        }
        subjects.push(json);
        let subject = Message::new().text(1, kind).text(2, RBAC);
        message = message.message(2, subject.text(3, name).text(4, namespace));
    }
    let role = Message::new().text(1, RBAC).text(2, kind).text(3, name);
    let message = message.message(3, role);
    let json = json!({
        "metadata": metadata_json, "subjects": subjects,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
    });
    let kind = if binding.namespace.is_empty() {
        "ClusterRoleBinding"
    } else {
        "RoleBinding"
    };
    Written::new(kind, "rbac.authorization.k8s.io/v1", json, message)
}
