//! One constructor per error of the apiserver's catalogue that a proxy answers itself.

use std::{borrow::Cow, time::Duration};

use watershed_quote::quote;

use super::gotext::sanitize;
use super::{Cause, Details, Form, Status};

/// What a 403 is about: the authorization attributes, as far as the text needs them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused<'a> {
    /// A request for an API resource.
    Resource {
        /// Request verb, e.g. `list`.
        verb: &'a str,
        /// API group, empty for the core group.
        group: &'a str,
        /// Resource in the plural.
        resource: &'a str,
        /// Empty if none.
        subresource: &'a str,
        /// Empty at cluster scope.
        namespace: &'a str,
        /// Empty if the request names no object.
        name: &'a str,
    },
    /// Any other path.
    Path {
        /// HTTP method in lower case.
        verb: &'a str,
        /// The decoded path.
        path: &'a str,
    },
}

impl Status {
    /// 400: a parameter that cannot be decoded, a selector that cannot be parsed, …
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 400: a LIST with a resource version that is no number. `error` is Go's text.
    pub(crate) fn invalid_list_resource_version(error: &str) -> Self {
        Self::bad_request(format!("invalid resource version: {error}"))
    }

    /// 400 by Go's HTTP server: a path with a bad percent escape.
    pub(crate) fn malformed_request_uri() -> Self {
        Self {
            form: Form::Text,
            close: true,
            ..Self::new(400, "", "400 Bad Request")
        }
    }

    /// 401: credentials were bad, or there were none and anonymous requests are off.
    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: the authorizer did not allow it. `reason` is the authorizer's, appended as it is.
    pub(crate) fn forbidden(user: &str, what: Refused<'_>, reason: &str) -> Self {
        let mut inner = sanitize(&refusal(user, what));
        if !reason.is_empty() {
            inner.push_str(": ");
            inner.push_str(reason);
        }
        let (group, resource, name) = match what {
            Refused::Resource {
                group,
                resource,
                name,
                ..
            } => (group, resource, name),
            Refused::Path { .. } => ("", "", ""),
        };
        let message = match (group.is_empty() && resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {inner}"),
            (false, true) => format!("{} is forbidden: {inner}", qualified(resource, group)),
            (false, false) => {
                format!(
                    "{} {} is forbidden: {inner}",
                    qualified(resource, group),
                    quote(name)
                )
            }
        };
        let details = object_details(group, resource, name);
        Self {
            nosniff: true,
            ..Self::new(403, "Forbidden", message).with(details)
        }
    }

    /// 404: no object of that name.
    pub(crate) fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} not found", qualified(resource, group), quote(name));
        Self::new(404, "NotFound", message).with(object_details(group, resource, name))
    }

    /// 406 by the handler: nothing in `Accept` is served here.
    pub(crate) fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// 406 by the router of built-in resources, which looks at the bare media types only.
    pub(crate) fn not_acceptable_by_router(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message).with(Details::default())
    }

    /// 410: a watch from before the window. `oldest` is the oldest acceptable resource version.
    pub(crate) fn expired_watch(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 410 with any text.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422: options that do not go together; `causes` in the order the checks ran.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut texts: Vec<String> = Vec::with_capacity(causes.len());
        for cause in &causes {
            let text = format!("{}: {}", cause.field, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let errors = match texts.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let message = format!(
            "{} {} is invalid: {errors}",
            qualified(kind, group),
            quote(name)
        );
        Self::new(422, "Invalid", message).with(Details {
            causes,
            ..object_details(group, kind, name)
        })
    }

    /// 429: the watch cache has not been ready for `since`. The longer, the later clients come back
    /// (as apiserver `cacher/util.go` `calculateRetryAfterForUnreadyCache`, 1.36). The cache's last
    /// error, which an apiserver appends, is the proxy's own affair.
    pub(crate) fn initializing(since: Duration) -> Self {
        let seconds = (0.06 * since.as_secs_f64()).exp().clamp(1.0, 30.0);
        Self::too_many_requests("storage is (re)initializing", seconds as u32)
    }

    /// 429 as a Status: a limit of the proxy was reached.
    pub(crate) fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).with(Details {
            retry_after_seconds,
            ..Details::default()
        })
    }

    /// 429 as text: there is too much to do (as `fairqueuing`'s refusal, `tooManyRequests`, 1.36).
    pub(crate) fn overloaded(retry_after_seconds: u32) -> Self {
        Self {
            retry_after: Some(retry_after_seconds),
            nosniff: true,
            ..Self::text(429, "Too many requests, please try again later.\n")
        }
    }

    /// 429 as text: the server is leaving, another one will answer (as `with_retry_after.go`).
    pub(crate) fn shutting_down() -> Self {
        let message = "The apiserver is shutting down, please try again later.\n";
        Self {
            retry_after: Some(5),
            close: true,
            ..Self::text(429, message)
        }
    }

    /// 500 without a reason: an error the apiserver does not classify, such as a resource version
    /// that is no number on GET and WATCH.
    pub(crate) fn unclassified(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 500 as text: the request could not be understood or authorized at all. `request_uri` is
    /// the target as sent.
    pub(crate) fn internal_server_error(request_uri: &str, error: &str) -> Self {
        let text = format!("Internal Server Error: {}: {error}", quote(request_uri));
        Self::text(500, format!("{}\n", sanitize(&text)))
    }

    /// 503 with any text: no apiserver can be reached.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(503, "ServiceUnavailable", message).with(Details {
            retry_after_seconds,
            ..Details::default()
        })
    }

    /// 504: the cache did not reach the resource version asked for in time.
    pub(crate) fn resource_version_too_large(requested: u64, current: u64) -> Self {
        let message =
            format!("Timeout: Too large resource version: {requested}, current: {current}");
        let cause = Cause {
            reason: Cow::Borrowed("ResourceVersionTooLarge"),
            message: "Too large resource version".to_owned(),
            field: Cow::Borrowed(""),
        };
        Self::new(504, "Timeout", message).with(Details {
            causes: vec![cause],
            retry_after_seconds: 1,
            ..Details::default()
        })
    }

    /// 504: the request's own deadline passed before an answer began. Never negotiated.
    pub(crate) fn request_timeout() -> Self {
        let message = "Timeout: request did not complete within the allotted timeout";
        Self {
            form: Form::Untyped,
            ..Self::new(504, "Timeout", message).with(Details::default())
        }
    }

    /// 500: how much a consistent watch has to show could not be found out in time; the end of a
    /// stream.
    pub(crate) fn deadline_exceeded() -> Self {
        Self::new(500, "InternalError", "context deadline exceeded")
    }

    fn text(code: u16, message: impl Into<String>) -> Self {
        Self {
            form: Form::Text,
            nosniff: true,
            ..Self::new(code, "", message)
        }
    }

    fn with(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }
}

fn refusal(user: &str, what: Refused<'_>) -> String {
    let user = quote(user);
    match what {
        Refused::Path { verb, path } => format!("User {user} cannot {verb} path {}", quote(path)),
        Refused::Resource {
            verb,
            group,
            resource,
            subresource,
            namespace,
            ..
        } => {
            let resource = if subresource.is_empty() {
                quote(resource)
            } else {
                quote(&format!("{resource}/{subresource}"))
            };
            let group = quote(group);
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {}", quote(namespace))
            };
            format!("User {user} cannot {verb} resource {resource} in API group {group} {scope}")
        }
    }
}

fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

fn object_details(group: &str, kind: &str, name: &str) -> Details {
    Details {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        ..Details::default()
    }
}
