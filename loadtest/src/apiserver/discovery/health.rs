//! `/healthz`, `/livez` and `/readyz`: well until the server is terminated, check by check.
//!
//! Owns the texts of spec 9.2 and the names of the checks of kube-apiserver 1.36.

use http::{StatusCode, header};

use crate::apiserver::body::{Body, Response};
use crate::apiserver::request::Query;

/// The checks between those particular to a path, in the order they are printed.
const CHECKS: &[&str] = &[
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/storage-readiness",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
];

fn checks(path: &str) -> Vec<&'static str> {
    let first: &[&str] = match path {
        "readyz" => &["ping", "log", "etcd", "etcd-readiness", "informer-sync"],
        _ => &["ping", "log", "loopback-serving-certificate", "etcd"],
    };
    let last: &[&str] = if path == "readyz" { &["shutdown"] } else { &[] };
    [first, CHECKS, last].concat()
}

/// Answers a health path; `None` for a check that does not exist.
pub(super) fn serve(segments: &[&str], query: &Query, terminating: bool) -> Option<Response> {
    let (path, check) = segments.split_first()?;
    let checks = checks(path);
    if *path == "readyz" && terminating && matches!(check, [] | ["shutdown"]) {
        return Some(failed(&checks));
    }
    if !check.is_empty() {
        let check = check.join("/");
        return checks
            .contains(&check.as_str())
            .then(|| answer("ok".to_owned(), false));
    }
    if query.first("verbose").is_none() {
        return Some(answer("ok".to_owned(), true));
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    for check in &checks {
        let verdict = if excluded.contains(check) {
            " excluded: ok"
        } else {
            " ok"
        };
        text.push_str(&format!("[+]{check}{verdict}\n"));
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.contains(name))
        .map(|name| format!("\"{name}\""))
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        text.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {unknown}\n"
        ));
    }
    text.push_str(&format!("{path} check passed\n"));
    Some(answer(text, true))
}

/// The answer of a server that is being shut down.
fn failed(checks: &[&str]) -> Response {
    let passed = checks.iter().filter(|check| **check != "shutdown");
    let mut text: String = passed.map(|check| format!("[+]{check} ok\n")).collect();
    text.push_str("[-]shutdown failed: reason withheld\nreadyz check failed\n");
    let mut response = answer(text, true);
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn answer(text: String, nosniff: bool) -> Response {
    let mut builder = http::Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    if nosniff {
        builder = builder.header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    }
    builder
        .body(Body::from(text))
        .expect("constant headers are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_checks_exist_or_do_not() {
        let query = Query::parse("");
        assert!(serve(&["livez", "ping"], &query, false).is_some());
        assert!(
            serve(
                &["livez", "poststarthook", "rbac", "bootstrap-roles"],
                &query,
                false
            )
            .is_some()
        );
        assert!(serve(&["readyz", "shutdown"], &query, false).is_some());
        assert!(serve(&["livez", "shutdown"], &query, false).is_none());
    }
}
