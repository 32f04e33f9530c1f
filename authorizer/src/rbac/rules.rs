//! Does a rule allow a request?
//!
//! Owns the matching of `pkg/apis/rbac/v1/evaluation_helpers.go` (1.36), oddities included: a rule
//! that names objects never matches a request without a name, and all stars at the end of a path
//! are one. Only rules are read: of an aggregated cluster role those that the controller wrote into
//! it. Selectors play no part.

use crate::attributes::Attributes;
use crate::facts::PolicyRule;

/// Whether the rule allows the request.
pub(super) fn allows(rule: &PolicyRule, asks: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, asks.verb) {
        return false;
    }
    if !asks.is_resource {
        return rule
            .non_resource_urls
            .iter()
            .any(|url| url_matches(url, asks.path));
    }
    has(&rule.api_groups, asks.group)
        && rule
            .resources
            .iter()
            .any(|resource| resource_matches(resource, asks))
        && (rule.resource_names.is_empty() || names(&rule.resource_names, asks.name))
}

/// Whether a list has the value, or a star.
fn has(list: &[Box<str>], value: &str) -> bool {
    list.iter().any(|item| &**item == "*" || **item == *value)
}

fn names(list: &[Box<str>], name: &str) -> bool {
    list.iter().any(|item| **item == *name)
}

/// `*`, `pods`, `pods/log` or `*/log`.
fn resource_matches(allowed: &str, asks: &Attributes<'_>) -> bool {
    if allowed == "*" {
        return true;
    }
    if asks.subresource.is_empty() {
        return allowed == asks.resource;
    }
    let Some(rest) = allowed.strip_suffix(asks.subresource) else {
        return false;
    };
    let resource = rest.strip_suffix('/');
    resource.is_some_and(|resource| resource == "*" || resource == asks.resource)
}

/// `/healthz` or `/healthz/*`.
fn url_matches(allowed: &str, path: &str) -> bool {
    allowed == path || (allowed.ends_with('*') && path.starts_with(allowed.trim_end_matches('*')))
}
