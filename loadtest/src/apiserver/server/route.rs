//! The table of paths and methods: what the router of kube-apiserver would find.

use std::sync::Arc;

use http::Method;

use crate::apiserver::request::RequestInfo;
use crate::apiserver::resources::{Registry, Resource};
use crate::apiserver::status::Status;

/// What a resource path leads to.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// A handler.
    Served(Action, Arc<Resource>),
    /// The router, or the dispatch of custom resources, refuses.
    Refused(Status),
    /// No such path, said as text: nothing built in is there.
    PageNotFound,
}

/// The handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// GET of one object.
    Get,
    /// LIST.
    List,
    /// WATCH.
    Watch,
    /// A write, or anything about a subresource.
    Write,
}

/// Finds the route of a resource request.
pub(super) fn find(registry: &Registry, info: &RequestInfo, method: &Method) -> Route {
    if info.path.starts_with("//") {
        return Route::PageNotFound;
    }
    let Some(resource) = registry.find(&info.group, &info.version, &info.resource) else {
        return absent(registry.is_builtin_group(&info.group));
    };
    let nowhere = absent(resource.custom.is_none());
    let in_namespace = !info.namespace.is_empty();
    let is_namespace = resource.group.is_empty() && resource.resource == "namespaces";
    if info.verb == "proxy" || (!resource.namespaced && in_namespace && !is_namespace) {
        return nowhere;
    }
    let depth = info
        .parts
        .iter()
        .rposition(|part| !part.is_empty())
        .map_or(0, |last| last + 1);
    let anywhere = resource.namespaced && !in_namespace;
    if anywhere && (depth > 1 || !resource.allows("list")) {
        return nowhere;
    }
    if info.via_path {
        return match (resource.allows("watch") && depth <= 2, method) {
            (true, &Method::GET) => Route::Served(Action::Watch, resource),
            (true, _) => Route::Refused(Status::method_not_allowed()),
            (false, _) => nowhere,
        };
    }
    match depth {
        1 => collection(resource, info, method, anywhere),
        2 => item(resource, info, method, nowhere),
        _ => {
            let known = resource.subresources.contains(&info.subresource);
            if !known && resource.custom.is_some() {
                let (group, plural) = (&resource.group, &resource.resource);
                // It says so of the object, whether that exists or not.
                return Route::Refused(Status::not_found(group, plural, &info.name));
            }
            let deep = depth > 3 && info.subresource != "proxy";
            if known && !deep {
                Route::Served(Action::Write, resource)
            } else {
                nowhere
            }
        }
    }
}

fn absent(builtin: bool) -> Route {
    if builtin {
        Route::Refused(Status::no_such_resource())
    } else {
        Route::PageNotFound
    }
}

fn is_read(resource: &Resource, method: &Method) -> bool {
    // Custom resources are dispatched by verb, and HEAD has the verbs of GET.
    method == Method::GET || (method == Method::HEAD && resource.custom.is_some())
}

fn collection(
    resource: Arc<Resource>,
    info: &RequestInfo,
    method: &Method,
    anywhere: bool,
) -> Route {
    let verb = match *method {
        Method::POST => "create",
        Method::DELETE => "deletecollection",
        _ if is_read(&resource, method) && resource.allows("list") => {
            return if info.verb == "watch" {
                Route::Served(Action::Watch, resource)
            } else {
                Route::Served(Action::List, resource)
            };
        }
        _ if resource.custom.is_some() && matches!(info.verb.as_str(), "update" | "patch") => {
            return Route::Refused(Status::bad_request("name must be provided"));
        }
        _ => return Route::Refused(Status::method_not_allowed()),
    };
    if !anywhere && resource.allows(verb) {
        Route::Served(Action::Write, resource)
    } else {
        Route::Refused(Status::method_not_allowed())
    }
}

fn item(resource: Arc<Resource>, info: &RequestInfo, method: &Method, nowhere: Route) -> Route {
    if !resource.allows("get") {
        return nowhere;
    }
    if is_read(&resource, method) {
        return Route::Served(Action::Get, resource);
    }
    let posts = info.verb == "create" && resource.custom.is_some();
    let writes = matches!(info.verb.as_str(), "update" | "patch" | "delete");
    if (writes || posts) && resource.allows(&info.verb) {
        Route::Served(Action::Write, resource)
    } else {
        Route::Refused(Status::method_not_allowed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::request::Query;

    fn route(method: &str, target: &str) -> &'static str {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let info = RequestInfo::parse(&method, path, &Query::parse(query)).unwrap();
        match find(&Registry::builtin(), &info, &method) {
            Route::Served(Action::Get, _) => "get",
            Route::Served(Action::List, _) => "list",
            Route::Served(Action::Watch, _) => "watch",
            Route::Served(Action::Write, _) => "write",
            Route::Refused(status) if status.code == 405 => "405",
            Route::Refused(_) => "404",
            Route::PageNotFound => "text",
        }
    }

    #[test]
    fn paths_lead_where_the_router_of_the_apiserver_leads() {
        let cases = [
            ("GET", "/api/v1/pods", "list"),
            ("GET", "/api/v1/pods/", "list"),
            ("GET", "/api/v1/pods?watch=1", "watch"),
            ("GET", "/api/v1/namespaces//secrets", "list"),
            ("GET", "/api/v1/namespaces/a/pods/x?watch=1", "get"),
            ("GET", "/api/v1/namespaces/a/configmaps/a/", "get"),
            ("GET", "/api/v1/pods/x", "404"),
            ("GET", "/api/v1//pods", "404"),
            ("GET", "//api/v1/pods", "text"),
            ("GET", "/api/v1/namespaces/a/nodes", "404"),
            ("GET", "/apis/nope.example/v1/foos", "text"),
            ("GET", "/apis/apps/v9/deployments", "404"),
            ("GET", "/api/v1/namespaces/a/configmaps/a/b", "404"),
            ("GET", "/api/v1/namespaces/a/pods/a/status/x", "404"),
            ("GET", "/api/v1/namespaces/a/pods/a/status", "write"),
            ("GET", "/api/v1/namespaces/a/../a/configmaps", "404"),
            ("GET", "/api/v1/bindings", "404"),
            (
                "GET",
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                "405",
            ),
            ("GET", "/api/v1/watch/componentstatuses", "404"),
            ("GET", "/api/v1/watch/namespaces/a/pods/x", "watch"),
            ("HEAD", "/api/v1/pods", "405"),
            ("PUT", "/api/v1/namespaces/a/configmaps", "405"),
            ("POST", "/api/v1/pods", "405"),
            ("POST", "/api/v1/namespaces/a/pods", "write"),
            ("DELETE", "/api/v1/namespaces/a", "write"),
            ("GET", "/api/v1/namespaces/a/status", "write"),
        ];
        for (method, target, expected) in cases {
            assert_eq!(route(method, target), expected, "{method} {target}");
        }
    }
}
