//! The life of a request, in the order of kube-apiserver's handler chain.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT, WARNING};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::{Exchange, State, access, route};
use crate::apiserver::authn::{self, Peer, UserInfo};
use crate::apiserver::body::{Body, Response};
use crate::apiserver::faults::Failure;
use crate::apiserver::impersonation::{self, ImpersonationError};
use crate::apiserver::request::{Query, RequestInfo, go_quote};
use crate::apiserver::resources::Resource;
use crate::apiserver::status::Status;
use crate::apiserver::{discovery, list, negotiate, read, watch, write};
use route::{Action, Route};

/// Largest request body, as the apiserver's default.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// An answer and how far the request came.
struct Outcome {
    response: Response,
    /// It passed priority and fairness.
    admitted: bool,
    /// It came past the URL.
    parsed: bool,
    /// It is from nobody who proved who it is.
    stranger: bool,
}

/// Answers one request. Over HTTP/2 `Connection: close` is for the connection, not for the client.
pub(super) async fn handle(
    state: Arc<State>,
    peer: Arc<Peer>,
    secure_h2: bool,
    request: Request<Incoming>,
) -> Response {
    let audit_id = request.headers().get(AUDIT_ID).cloned();
    state.faults.wait_while_stalled().await;
    let warning = authn::warning(request.headers());
    let outcome = chain(&state, &peer, request).await;
    let mut response = outcome.response;
    let headers = response.headers_mut();
    let audit_id =
        audit_id.or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
    if let Some(audit_id) = audit_id {
        headers.insert(AUDIT_ID, audit_id);
    }
    if outcome.parsed {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    if outcome.admitted {
        headers.insert("x-kubernetes-pf-flowschema-uid", PF_UID);
        headers.insert("x-kubernetes-pf-prioritylevel-uid", PF_UID);
    }
    if let Some(warning) = warning {
        let text = format!("299 - {}", go_quote(warning));
        headers.extend(
            HeaderValue::from_str(&text)
                .ok()
                .map(|text| (WARNING, text)),
        );
    }
    if secure_h2 && outcome.stranger {
        // HTTP/2 is for those who say who they are (gate UnauthenticatedHTTP2DOSMitigation, 1.36).
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// No flow control here, but clients log the identifiers.
const PF_UID: HeaderValue = HeaderValue::from_static("00000000-0000-4000-8000-000000000000");

async fn chain(state: &Arc<State>, peer: &Peer, request: Request<Incoming>) -> Outcome {
    let (mut parts, incoming) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let failure = state.faults.failure_of(target);
    let (info, broken) = match RequestInfo::parse(&parts.method, parts.uri.path(), &query) {
        Ok(info) => (info, None),
        Err(_) => (RequestInfo::default(), Some(internal_text(target))),
    };
    if let Some(response) = broken {
        return Outcome {
            response,
            admitted: false,
            parsed: false,
            stranger: false,
        };
    }
    let mut exchange = Exchange {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body: Bytes::new(),
        user: UserInfo::default(),
        info,
        query,
    };
    let early = |response| Outcome {
        response,
        admitted: false,
        parsed: true,
        stranger: false,
    };
    if let Some(failure) = failure {
        return early(failed(state, &exchange, failure).await);
    }
    if let Some(outcome) = turned_away(state, &exchange) {
        return outcome;
    }
    let timeout = match timeout(state, &exchange) {
        Ok(timeout) => timeout,
        Err(status) => return early(state.answer_status(&exchange, &status)),
    };
    let stranger = match admit(state, peer, &mut exchange) {
        Ok(stranger) => stranger,
        Err(outcome) => return *outcome,
    };
    let work = serve(state, &mut exchange, incoming, upgrade);
    let response = match timeout {
        None => work.await,
        Some(timeout) => match tokio::time::timeout(timeout, work).await {
            Ok(response) => response,
            Err(_) => timed_out(),
        },
    };
    Outcome {
        response,
        admitted: !runs_long(&exchange.info),
        parsed: true,
        stranger,
    }
}

/// Authentication, impersonation, authorization. Tells whether the caller proved nothing.
fn admit(state: &State, peer: &Peer, exchange: &mut Exchange) -> Result<bool, Box<Outcome>> {
    let caller = state.authenticator.authenticate(peer, &exchange.headers);
    let stranger = !caller.as_ref().is_ok_and(UserInfo::is_known);
    let refuse = |exchange: &Exchange, status: &Status, admitted: bool| {
        Box::new(Outcome {
            response: state.answer_status(exchange, status),
            admitted,
            parsed: true,
            stranger,
        })
    };
    let Ok(caller) = caller else {
        return Err(refuse(exchange, &Status::unauthorized(), false));
    };
    state.counters.count(&exchange.info);
    let question = access::attributes(&exchange.info, &caller);
    let headers = &exchange.headers;
    let user = impersonation::effective_user(&state.authorizer, caller, headers, &question);
    match user {
        Ok(user) => exchange.user = user,
        Err(error) => {
            let status = match error {
                ImpersonationError::BadRequest(text) => Status::bad_request(text),
                ImpersonationError::Forbidden(question, reason) => {
                    access::forbidden(&question, &reason)
                }
            };
            let mut outcome = refuse(exchange, &status, false);
            nosniff(&mut outcome.response);
            return Err(outcome);
        }
    }
    let question = access::attributes(&exchange.info, &exchange.user);
    let decision = state.authorizer.authorize(&question);
    if decision.allowed {
        return Ok(stranger);
    }
    let status = access::forbidden(&question, &decision.reason);
    let mut outcome = refuse(exchange, &status, !runs_long(&exchange.info));
    nosniff(&mut outcome.response);
    Err(outcome)
}

/// The router and what it leads to.
async fn serve(
    state: &Arc<State>,
    exchange: &mut Exchange,
    incoming: Incoming,
    upgrade: Option<OnUpgrade>,
) -> Response {
    if !exchange.info.is_resource {
        if exchange.info.path == "/debug/requests" {
            return debug(state);
        }
        if exchange.info.path == "/debug/cut" {
            return cut(state, &exchange.query);
        }
        if let Some(torrent) = &state.torrent
            && exchange.info.path == "/debug/torrent"
        {
            return torrent.control(&exchange.query);
        }
        return discovery::serve(state, exchange).unwrap_or_else(page_not_found);
    }
    let (action, resource) = match route::find(&state.registry, &exchange.info, &exchange.method) {
        Route::Served(action, resource) => (action, resource),
        Route::Refused(status) => return state.answer_status(exchange, &status),
        Route::PageNotFound => return page_not_found(),
    };
    state.store.touch(&resource);
    let watchable = matches!(action, Action::List | Action::Watch);
    let plain = matches!(exchange.info.subresource.as_str(), "" | "status" | "scale");
    if resource.custom.is_none()
        && plain
        && let Err(status) = negotiate::route(&exchange.headers, watchable)
    {
        return state.answer_status(exchange, &status);
    }
    if let Some(torrent) = &state.torrent
        && watchable
        && exchange.info.path == "/api/v1/pods"
    {
        return torrent.serve(exchange);
    }
    let answer = match action {
        Action::Get => read::get(state, exchange, &resource).await,
        Action::List => list::serve(state, exchange, &resource).await,
        Action::Watch => watch::serve(state, exchange, &resource, upgrade).await,
        Action::Write => match Limited::new(incoming, BODY_BYTES_MAX).collect().await {
            Ok(body) => {
                exchange.body = body.to_bytes();
                write::serve(state, exchange).await
            }
            Err(error) => Err(Status::bad_request(error.to_string())),
        },
    };
    let mut response = answer.unwrap_or_else(|status| state.answer_status(exchange, &status));
    warn(&mut response, &resource);
    response
}

fn warn(response: &mut Response, resource: &Resource) {
    if resource.warning.is_empty() {
        return;
    }
    let text = format!("299 - {}", go_quote(&resource.warning));
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(WARNING, value);
    }
}

/// The answer of a server on its way out.
fn turned_away(state: &State, exchange: &Exchange) -> Option<Outcome> {
    let outcome = |response, parsed| Outcome {
        response,
        admitted: false,
        parsed,
        stranger: false,
    };
    if state.lifecycle.is_refusing() && !outlives_shutdown(exchange) {
        return Some(outcome(refused(), false));
    }
    if !state.shutdown.is_cancelled() {
        return None;
    }
    let mut response = state.answer_status(exchange, &Status::shutting_down());
    let seconds = HeaderValue::from_static("1");
    response.headers_mut().insert(RETRY_AFTER, seconds);
    Some(outcome(response, true))
}

/// What a server that is leaving still answers, as `hasExemptPathPrefix` of 1.36.
fn outlives_shutdown(exchange: &Exchange) -> bool {
    let path = exchange.uri.path();
    let agent = exchange.headers.get(USER_AGENT);
    ["/readyz", "/livez", "/healthz", "/metrics"]
        .iter()
        .any(|probe| path.starts_with(probe))
        || agent.is_some_and(|agent| agent.as_bytes().starts_with(b"kube-apiserver/"))
}

/// The answer to whom another server will serve.
fn refused() -> Response {
    let body = "The apiserver is shutting down, please try again later.\n";
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, body);
    nosniff(&mut response);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn debug(state: &State) -> Response {
    let mut response = Response::new(Body::from(state.counters.report().to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Cuts the proxies in front of this server off: `user=` is their own, for `seconds=`, with
/// `silent=true` without a word.
fn cut(state: &State, query: &Query) -> Response {
    let seconds = query.first("seconds").and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or_default());
    let is_silent = query.first("silent") == Some("true");
    let user = query.first("user").unwrap_or_default();
    state.faults.cut_off(user, time, is_silent);
    debug(state)
}

fn nosniff(response: &mut Response) {
    response
        .headers_mut()
        .insert(NOSNIFF, HeaderValue::from_static("nosniff"));
}

fn text(code: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::Full(text.into()));
    *response.status_mut() = code;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn page_not_found() -> Response {
    let mut response = text(StatusCode::NOT_FOUND, "404 page not found\n");
    nosniff(&mut response);
    response
}

/// The 500 of a URL that names no resource although it should.
fn internal_text(target: &str) -> Response {
    let body = format!(
        "Internal Server Error: {}: failed to create RequestInfo: unable to determine kind and namespace from url, {target}",
        go_quote(target)
    );
    let body = body
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let mut response = text(StatusCode::INTERNAL_SERVER_ERROR, format!("{body}\n"));
    nosniff(&mut response);
    response
}

/// The answer after the request timeout; never negotiated.
fn timed_out() -> Response {
    text(
        StatusCode::GATEWAY_TIMEOUT,
        "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete within the allotted timeout\",\"reason\":\"Timeout\",\"details\":{},\"code\":504}\n",
    )
}

async fn failed(state: &State, exchange: &Exchange, failure: Failure) -> Response {
    let status = match failure {
        Failure::TooManyRequests => Status::too_many_requests("too many requests by order", 1),
        Failure::InternalError => Status::internal("failed by order"),
        Failure::Unavailable => {
            let mut status = Status::shutting_down();
            status.details = Status::too_many_requests("", 1).details;
            status
        }
        Failure::Hang => std::future::pending().await,
    };
    state.answer_status(exchange, &status)
}

/// Requests other than watches that may run for as long as they like; priority and fairness ignores
/// them.
fn runs_long(info: &RequestInfo) -> bool {
    let long = ["exec", "attach", "portforward", "proxy", "log"];
    info.verb == "proxy" || (info.is_resource && long.contains(&info.subresource.as_str()))
}

/// The request's own timeout, bounded by the server's; `None` for what may run long.
fn timeout(state: &State, exchange: &Exchange) -> Result<Option<Duration>, Status> {
    let info = &exchange.info;
    if info.verb == "watch" || runs_long(info) {
        return Ok(None);
    }
    let limit = state.profile.request_timeout;
    let text = exchange.query.first("timeout").unwrap_or("");
    if text.is_empty() {
        return Ok(Some(limit));
    }
    let wanted = go_duration(text).map_err(|error| {
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - {error}"
        ))
    })?;
    Ok(Some(if wanted.is_zero() {
        limit
    } else {
        wanted.min(limit)
    }))
}

/// Go's `time.ParseDuration`; a negative one counts as none.
fn go_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.')
            .count();
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest
            .bytes()
            .take_while(|b| !b.is_ascii_digit() && *b != b'.')
            .count();
        let (unit, next) = rest.split_at(letters);
        rest = next;
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(format!("time: missing unit in duration {}", go_quote(text))),
                unit => {
                    let (unit, text) = (go_quote(unit), go_quote(text));
                    return Err(format!("time: unknown unit {unit} in duration {text}"));
                }
            };
    }
    if negative {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_in_go() {
        assert_eq!(go_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(go_duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(go_duration("0"), Ok(Duration::ZERO));
        let text = |t: &str| Err(t.to_owned());
        assert_eq!(go_duration("abc"), text("time: invalid duration \"abc\""));
        assert_eq!(
            go_duration("5"),
            text("time: missing unit in duration \"5\"")
        );
    }
}
