//! Acting as somebody else: what `Impersonate-*` asks for, and who may have it.
//!
//! Owns spec 7.2: the 400 of a request that names everything but a user, the constrained modes of
//! 1.36 (verbs `impersonate:MODE` and `impersonate-on:MODE:VERB`), the legacy verb `impersonate`
//! on each part of the identity, and the groups an impersonated user gets by itself.
//! Refuses to judge the request itself; that happens afterwards, as the impersonated user.
//!
//! Invariant: nobody becomes somebody else without an explicit permit for each part.

use http::HeaderMap;

use super::authn::{self, AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use super::authz::{Attributes, Authorizer, Decision, ResourceTarget, Target, go_quote};

/// Why a caller stays who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImpersonationError {
    /// The headers make no sense: a 400 with this text.
    BadRequest(String),
    /// The caller may not: a 403 for this question.
    Forbidden(Box<Attributes>, String),
}

/// The user a request acts as: the caller itself, unless it asks to be somebody else and may.
///
/// # Errors
/// See [`ImpersonationError`].
pub fn effective_user(
    authorizer: &Authorizer,
    caller: UserInfo,
    headers: &HeaderMap,
    request: &Attributes,
) -> Result<UserInfo, ImpersonationError> {
    let Some(wanted) = authn::requested_user(headers) else {
        return Ok(caller);
    };
    if wanted.name.is_empty() {
        let text = format!(
            "requested {} without impersonating a user name",
            go_value(&wanted)
        );
        return Err(ImpersonationError::BadRequest(text));
    }
    if !constrained(authorizer, &caller, &wanted, request) {
        legacy(authorizer, &caller, &wanted, request)?;
    }
    Ok(with_own_groups(wanted))
}

/// The way a user is named in `impersonate:MODE`; none for nodes, which only the legacy verb makes.
fn mode(wanted: &UserInfo) -> Option<&'static str> {
    if wanted.name.starts_with("system:node:") {
        None
    } else if service_account(&wanted.name).is_some() {
        Some("serviceaccount")
    } else {
        Some("user-info")
    }
}

fn constrained(
    authorizer: &Authorizer,
    caller: &UserInfo,
    wanted: &UserInfo,
    request: &Attributes,
) -> bool {
    let Some(mode) = mode(wanted) else {
        return false;
    };
    let on = Attributes {
        user: caller.clone(),
        verb: format!("impersonate-on:{mode}:{}", request.verb),
        target: request.target.clone(),
    };
    if !authorizer.authorize(&on).allowed {
        return false;
    }
    let verb = format!("impersonate:{mode}");
    parts(wanted, "authentication.k8s.io")
        .into_iter()
        .all(|target| permits(authorizer, caller, &verb, target).1.allowed)
}

fn legacy(
    authorizer: &Authorizer,
    caller: &UserInfo,
    wanted: &UserInfo,
    request: &Attributes,
) -> Result<(), ImpersonationError> {
    for target in parts(wanted, "") {
        let (attributes, decision) = permits(authorizer, caller, "impersonate", target);
        if decision.allowed {
            continue;
        }
        // The refusal names the constrained verb when there is a mode for this user.
        let refused = match mode(wanted) {
            Some(mode) => Attributes {
                user: caller.clone(),
                verb: format!("impersonate-on:{mode}:{}", request.verb),
                target: request.target.clone(),
            },
            None => attributes,
        };
        return Err(ImpersonationError::Forbidden(
            Box::new(refused),
            decision.reason,
        ));
    }
    Ok(())
}

fn permits(
    authorizer: &Authorizer,
    caller: &UserInfo,
    verb: &str,
    target: ResourceTarget,
) -> (Attributes, Decision) {
    let attributes = Attributes {
        user: caller.clone(),
        verb: verb.to_owned(),
        target: Target::Resource(target),
    };
    let decision = authorizer.authorize(&attributes);
    (attributes, decision)
}

/// Every part of an identity as the resource one must be allowed to impersonate.
fn parts(wanted: &UserInfo, user_group: &str) -> Vec<ResourceTarget> {
    let target = |group: &str, resource: &str, name: &str| ResourceTarget {
        group: group.to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..ResourceTarget::default()
    };
    let mut parts = vec![match service_account(&wanted.name) {
        Some((namespace, name)) => ResourceTarget {
            namespace: namespace.to_owned(),
            ..target(user_group, "serviceaccounts", name)
        },
        None => target(user_group, "users", &wanted.name),
    }];
    parts.extend(
        wanted
            .groups
            .iter()
            .map(|group| target(user_group, "groups", group)),
    );
    if !wanted.uid.is_empty() {
        parts.push(target("authentication.k8s.io", "uids", &wanted.uid));
    }
    for (key, values) in &wanted.extra {
        parts.extend(values.iter().map(|value| ResourceTarget {
            subresource: key.clone(),
            ..target("authentication.k8s.io", "userextras", value)
        }));
    }
    parts
}

fn with_own_groups(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account(&user.name)
    {
        let own = format!("system:serviceaccounts:{namespace}");
        user.groups = vec!["system:serviceaccounts".to_owned(), own];
    }
    if user.name == authn::ANONYMOUS {
        if !user.is_in(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.to_owned());
        }
    } else if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// A user as Go's `%#v` prints `&user.DefaultInfo{…}`.
fn go_value(user: &UserInfo) -> String {
    let slice = |values: &[String]| {
        let values: Vec<_> = values.iter().map(|value| go_quote(value)).collect();
        values.join(", ")
    };
    let groups = if user.groups.is_empty() {
        "[]string(nil)".to_owned()
    } else {
        format!("[]string{{{}}}", slice(&user.groups))
    };
    let entries: Vec<_> = user
        .extra
        .iter()
        .map(|(key, values)| format!("{}:[]string{{{}}}", go_quote(key), slice(values)))
        .collect();
    let extra = if entries.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        format!("map[string][]string{{{}}}", entries.join(", "))
    };
    let (name, uid) = (go_quote(&user.name), go_quote(&user.uid));
    format!("&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{groups}, Extra:{extra}}}")
}
