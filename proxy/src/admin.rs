//! `/livez`, `/readyz`, `/healthz`, `/metrics` and `/debug/heartbeats`, on a listener of their own.
//!
//! Owns: the wire form of health, as the apiserver's (`healthz.go`, 1.36), and the scrape.
//! Refuses: TLS and identities. The address is loopback by default; a network policy guards any
//! other.
//! Invariant: probes never wait for anything but the checks, which do not wait either, and are
//! answered until the very end of a drain, so that the world can see it.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{net::TcpStream, sync::Semaphore};

use crate::{
    body::Body,
    drain::Drain,
    heartbeats::Absorber,
    metrics::{EXPOSITION_TYPE, exposition},
    request::Query,
};

/// Connections at once; one more waits in the system's backlog.
const CONNECTIONS: usize = 64;
/// From connecting, or the last answer, to the end of the next request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a connection is kept: a reader that stops reading gives its place back.
const LIFETIME: Duration = Duration::from_secs(300);
/// Pause after an `accept` that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Which question a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `/livez`: does the process work; must never depend on an apiserver.
    Live,
    /// `/readyz`: should it get traffic.
    Ready,
}

/// The answer of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// As shown: `upstream`, `cache-pods`.
    pub(crate) name: String,
    /// Why it fails; shown only at `/readyz/<name>`.
    pub(crate) result: Result<(), String>,
}

/// What the admin listener shows.
#[derive(Clone)]
pub(crate) struct AdminOptions {
    /// Runs every check of a probe, in the order they are shown, without waiting. `ping` and, for
    /// readiness, `shutdown` are added here.
    pub(crate) checks: Arc<dyn Fn(Probe) -> Vec<Check> + Send + Sync>,
    /// Called before a scrape: sets the gauges that are read from their source.
    pub(crate) before_scrape: Arc<dyn Fn() + Send + Sync>,
    /// What `/debug/heartbeats` asks, if heartbeats are absorbed.
    pub(crate) heartbeats: Option<Absorber>,
    /// The families.
    pub(crate) registry: Arc<Registry>,
    /// Owner of the connections' tasks; `/readyz` fails once it has begun.
    pub(crate) drain: Drain,
}

/// The bound admin socket.
#[derive(Debug)]
pub(crate) struct Admin {
    socket: tokio::net::TcpListener,
}

impl Admin {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = tokio::net::TcpListener::bind(address).await?;
        Ok(Self { socket })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers for ever; run it in the drain's background, so that probes see the drain.
    pub(crate) async fn serve(self, options: AdminOptions) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match self.socket.accept().await {
                Ok((socket, _peer)) => {
                    let own = options.clone();
                    options.drain.spawn_background(async move {
                        own.connection(socket).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept on the admin listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl AdminOptions {
    async fn connection(self, socket: TcpStream) {
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = self.answer(&request);
            async { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service);
        drop(tokio::time::timeout(LIFETIME, connection).await);
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are answered here\n",
            );
        }
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        if path == "/metrics" {
            (self.before_scrape)();
            let mut answer = Response::new(Body::full(exposition(&self.registry)));
            let kind = HeaderValue::from_static(EXPOSITION_TYPE);
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            return answer;
        }
        if path == "/debug/heartbeats" {
            return self.heartbeats(&Query::parse(query));
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let (endpoint, name) = match path.split_once('/') {
            Some((endpoint, name)) => (endpoint, Some(name)),
            None => (path, None),
        };
        let probe = match endpoint {
            "livez" => Probe::Live,
            "readyz" | "healthz" => Probe::Ready,
            _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        let checks = self.all(probe);
        match name {
            None => report(endpoint, &checks, query),
            Some(name) => one(&checks, name),
        }
    }

    /// What is known of the node that `?node=` names, or of all.
    fn heartbeats(&self, query: &Query) -> Response<Body> {
        let Some(absorber) = &self.heartbeats else {
            let why = "heartbeats are not absorbed: `heartbeats.mode` is Passthrough\n";
            return text(StatusCode::NOT_FOUND, why);
        };
        let node = query.first("node");
        let Some(report) = absorber.report(node) else {
            let why =
                "nothing is known of this node: none of its renewals came here since the start\n";
            return text(StatusCode::NOT_FOUND, why);
        };
        let mut answer = text(StatusCode::OK, report);
        let kind = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }

    fn all(&self, probe: Probe) -> Vec<Check> {
        let ping = Check {
            name: "ping".to_owned(),
            result: Ok(()),
        };
        let mut checks = vec![ping];
        checks.extend((self.checks)(probe));
        match probe {
            Probe::Live => {}
            Probe::Ready => {
                let draining = self.drain.not_ready().is_cancelled();
                let result = if draining {
                    Err("process is shutting down".to_owned())
                } else {
                    Ok(())
                };
                checks.push(Check {
                    name: "shutdown".to_owned(),
                    result,
                });
            }
        }
        checks
    }
}

/// One endpoint with all its checks: `ok`, or a line per check.
fn report(endpoint: &str, checks: &[Check], query: &str) -> Response<Body> {
    let asked: Vec<(&str, &str)> = query
        .split('&')
        .map(|it| it.split_once('=').unwrap_or((it, "")))
        .collect();
    let excluded: Vec<&str> = asked
        .iter()
        .filter(|(key, _)| *key == "exclude")
        .map(|(_, value)| *value)
        .collect();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for Check { name, result } in checks {
        lines += &match result {
            _ if excluded.contains(&name.as_str()) => format!("[+]{name} excluded: ok\n"),
            Ok(()) => format!("[+]{name} ok\n"),
            Err(_) => {
                failed.push(name.as_str());
                format!("[-]{name} failed: reason withheld\n")
            }
        };
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|it| checks.iter().all(|check| check.name != **it))
        .map(|it| format!("{it:?}"))
        .collect();
    if !unknown.is_empty() {
        lines += "warn: some health checks cannot be excluded: no matches for ";
        lines += &unknown.join(",");
        lines += "\n";
    }
    let mut answer = if !failed.is_empty() {
        tracing::debug!(endpoint, checks = failed.join(","), "a probe failed");
        text(
            StatusCode::INTERNAL_SERVER_ERROR,
            lines + endpoint + " check failed\n",
        )
    } else if asked.iter().any(|(key, _)| *key == "verbose") {
        text(StatusCode::OK, lines + endpoint + " check passed\n")
    } else {
        text(StatusCode::OK, "ok")
    };
    let nosniff = HeaderValue::from_static("nosniff");
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

/// One check by name, with the reason if it fails.
fn one(checks: &[Check], name: &str) -> Response<Body> {
    match checks.iter().find(|it| it.name == name) {
        None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        Some(Check { result: Ok(()), .. }) => text(StatusCode::OK, "ok"),
        Some(Check {
            result: Err(reason),
            ..
        }) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("internal server error: {reason}\n"),
        ),
    }
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut answer = Response::new(Body::full(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::metrics::Metrics;

    use super::*;

    fn options(failing: Option<&'static str>) -> (AdminOptions, Metrics) {
        let (metrics, registry) = Metrics::new();
        let counted = metrics.clone();
        let options = AdminOptions {
            checks: Arc::new(move |probe| match probe {
                Probe::Live => Vec::new(),
                Probe::Ready => ["upstream", "cache-pods"]
                    .into_iter()
                    .map(|name| Check {
                        name: name.to_owned(),
                        result: if failing == Some(name) {
                            Err("why".to_owned())
                        } else {
                            Ok(())
                        },
                    })
                    .collect(),
            }),
            heartbeats: None,
            before_scrape: Arc::new(move || {
                counted.connections.set(7);
            }),
            registry: Arc::new(registry),
            drain: Drain::new(),
        };
        (options, metrics)
    }

    async fn ask(options: &AdminOptions, target: &str) -> (u16, String) {
        let request = Request::get(target).body(()).expect("a request");
        let answer = options.answer(&request);
        let code = answer.status().as_u16();
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (code, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn health_reads_as_the_apiservers() {
        let healthy = options(None).0;
        let failing = options(Some("upstream")).0;
        for (options, target, code, body) in [
            (&healthy, "/readyz", 200, "ok"),
            (
                &healthy,
                "/livez?verbose",
                200,
                "[+]ping ok\nlivez check passed\n",
            ),
            (
                &healthy,
                "/readyz?verbose=1&exclude=upstream&exclude=x&exclude=y",
                200,
                "[+]ping ok\n[+]upstream excluded: ok\n[+]cache-pods ok\n[+]shutdown ok\n\
                 warn: some health checks cannot be excluded: no matches for \"x\",\"y\"\n\
                 readyz check passed\n",
            ),
            (&healthy, "/readyz/cache-pods", 200, "ok"),
            (&healthy, "/readyz/nothing", 404, "404 page not found\n"),
            (&healthy, "/", 404, "404 page not found\n"),
            (
                &failing,
                "/healthz",
                500,
                "[+]ping ok\n[-]upstream failed: reason withheld\n[+]cache-pods ok\n\
                 [+]shutdown ok\nhealthz check failed\n",
            ),
            (&failing, "/readyz?exclude=upstream", 200, "ok"),
            (
                &failing,
                "/readyz/upstream",
                500,
                "internal server error: why\n",
            ),
            (&failing, "/livez", 200, "ok"),
        ] {
            assert_eq!(
                ask(options, target).await,
                (code, body.to_owned()),
                "{target}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_draining_proxy_is_alive_and_not_ready() {
        let options = options(None).0;
        options.drain.run(Duration::ZERO).await;
        assert_eq!(ask(&options, "/livez").await.0, 200);
        let (code, body) = ask(&options, "/readyz").await;
        assert_eq!(code, 500);
        assert!(
            body.contains("[-]shutdown failed: reason withheld\n"),
            "{body}"
        );
        let reason = "internal server error: process is shutting down\n".to_owned();
        assert_eq!(ask(&options, "/readyz/shutdown").await, (500, reason));
    }

    #[tokio::test]
    async fn a_scrape_over_the_wire_sees_what_was_set_for_it() {
        let (options, _metrics) = options(None);
        let admin = Admin::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a port");
        let address = admin.local_address().expect("bound");
        options.drain.spawn_background(admin.serve(options.clone()));
        let mut socket = TcpStream::connect(address).await.expect("a listener");
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        socket.write_all(request).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\nwatershed_connections 7\n"), "{answer}");
        assert!(answer.contains("\n# EOF\n"), "{answer}");
        options.drain.run(Duration::ZERO).await;
        assert_eq!(options.drain.tasks(), (0, 0));
    }
}
