//! A server between the proxy and the apiserver that misbehaves about the paths it is told to.
//!
//! Owns: the scripts by path, the orders to watches that are open, and the fate of connections.
//! Without any it passes everything on, each request over a connection of its own, as the identity
//! it came with.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::{broadcast, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use watershed_loadtest::apiserver::Apiserver;

use crate::peer::{Caller, HTTP2};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What happens to the proxy's own requests about a path.
#[derive(Clone)]
pub(super) enum Script {
    /// This answer.
    Answer {
        status: u16,
        headers: Vec<(&'static str, &'static str)>,
        body: Bytes,
    },
    /// This body for lists; no watch brings the whole state, as on a server without WatchList.
    List(&'static str, Bytes),
    /// A 200 of this content type with these bytes; then nothing, for ever.
    Stall(&'static str, Bytes),
    /// No answer at all; once the script is over, a broken stream.
    Hang,
}

/// What happens to open watches of a path.
#[derive(Clone)]
pub(super) enum Order {
    /// These bytes come in between.
    Inject(Bytes),
    /// The body ends.
    End,
    /// The stream is reset.
    Break,
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    Serve,
    /// Open ones get a GOAWAY, new ones are served.
    Leave,
    /// Open ones are reset, new ones get bytes that are no HTTP/2.
    Garbage,
    /// Open ones are reset, new ones are closed after the TLS handshake.
    Refuse,
}

pub(super) struct Meddler {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    apiserver: SocketAddr,
    own: Caller,
    front_proxy: Caller,
    scripts: watch::Sender<HashMap<String, Script>>,
    orders: broadcast::Sender<(String, Order)>,
    connections: watch::Sender<(u64, Connections)>,
    /// Requests of the proxy's own, by path.
    seen: Mutex<HashMap<String, usize>>,
}

impl Meddler {
    pub(super) async fn start(apiserver: &Apiserver) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let pki = apiserver.pki();
        let shared = Arc::new(Shared {
            apiserver: apiserver.addr(),
            own: Caller::admin(pki)?,
            front_proxy: Caller::of(pki, pki.issue_front_proxy()?),
            scripts: watch::Sender::new(HashMap::new()),
            orders: broadcast::Sender::new(64),
            connections: watch::Sender::new((0, Connections::Serve)),
            seen: Mutex::default(),
        });
        let tls = TlsAcceptor::from(pki.server_config()?);
        let own = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let own = Arc::clone(&own);
                let tls = tls.clone();
                tokio::spawn(async move { drop(own.connection(socket, tls).await) });
            }
        });
        Ok(Self {
            address,
            shared,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// From now on this happens to requests about `path`.
    pub(super) fn script(&self, path: &str, script: Script) {
        let path = path.to_owned();
        self.shared.scripts.send_modify(|scripts| {
            scripts.insert(path, script);
        });
    }

    /// Requests about `path` are passed on again.
    pub(super) fn behave(&self, path: &str) {
        self.shared.scripts.send_modify(|scripts| {
            scripts.remove(path);
        });
    }

    /// Does this to the watches of `path` that are open.
    pub(super) fn order(&self, path: &str, order: Order) {
        // Nobody listening means that no watch is open.
        drop(self.shared.orders.send((path.to_owned(), order)));
    }

    /// Does this to the connections.
    pub(super) fn connections(&self, fate: Connections) {
        self.shared.connections.send_modify(|state| {
            *state = (state.0 + 1, fate);
        });
    }

    /// The proxy's own requests about `path` so far.
    pub(super) fn seen(&self, path: &str) -> usize {
        self.shared
            .seen
            .lock()
            .unwrap()
            .get(path)
            .copied()
            .unwrap_or(0)
    }
}

impl Shared {
    async fn connection(
        self: Arc<Self>,
        socket: TcpStream,
        tls: TlsAcceptor,
    ) -> anyhow::Result<()> {
        let same = socket2::SockRef::from(&socket).try_clone()?;
        let mut fate = self.connections.subscribe();
        let mut stream = tls.accept(socket).await?;
        let (_, now) = *fate.borrow_and_update();
        match now {
            Connections::Serve | Connections::Leave => {}
            Connections::Refuse => return Ok(()),
            Connections::Garbage => {
                stream.write_all(&[b'?'; 4096]).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Ok(());
            }
        }
        let service = service_fn(|request| Arc::clone(&self).answer(request));
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(100)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                _ = fate.changed() => {
                    let (_, now) = *fate.borrow_and_update();
                    match now {
                        Connections::Serve => {}
                        Connections::Leave => connection.as_mut().graceful_shutdown(),
                        Connections::Garbage | Connections::Refuse => {
                            same.set_linger(Some(Duration::ZERO))?; // a reset, not an end
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        let asserted = request.headers().contains_key("x-remote-user");
        if !asserted {
            *self.seen.lock().unwrap().entry(path.clone()).or_default() += 1;
            let script = self.scripts.borrow().get(&path).cloned();
            if let Some(script) = script {
                let query = request.uri().query().unwrap_or_default();
                return self.play(&path, query, script).await;
            }
        }
        let caller = if asserted {
            &self.front_proxy
        } else {
            &self.own
        };
        let stream = caller.dial(self.apiserver, HTTP2).await?;
        let (mut sender, connection) =
            client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        let driver = AbortOnDropHandle::new(driver);
        let orders = self.orders.subscribe();
        let (parts, incoming) = sender.send_request(request).await?.into_parts();
        let state = (incoming, orders, path, (sender, driver));
        let body = futures_util::stream::unfold(Some(state), |state| async {
            let (mut incoming, mut orders, path, connection) = state?;
            loop {
                let data = tokio::select! {
                    frame = incoming.frame() => frame?.map_err(BoxError::from),
                    order = orders.recv() => match order {
                        Ok((about, Order::Inject(bytes))) if about == path => Ok(Frame::data(bytes)),
                        Ok((about, Order::End)) if about == path => return None,
                        Ok((about, Order::Break)) if about == path => {
                            return Some((Err("broken by order".into()), None));
                        }
                        Ok(_) | Err(_) => continue,
                    },
                };
                return Some((data, Some((incoming, orders, path, connection))));
            }
        });
        Ok(Response::from_parts(
            parts,
            StreamBody::new(body).boxed_unsync(),
        ))
    }

    async fn play(
        &self,
        path: &str,
        query: &str,
        script: Script,
    ) -> anyhow::Result<Response<Body>> {
        let mut response = Response::new(());
        let (head, stalls) = match script {
            Script::Answer {
                status,
                headers,
                body,
            } => {
                *response.status_mut() = StatusCode::from_u16(status)?;
                for (name, value) in headers {
                    let value = HeaderValue::from_static(value);
                    response.headers_mut().insert(name, value);
                }
                (body, false)
            }
            Script::List(_, _) if query.contains("watch=") => {
                *response.status_mut() = StatusCode::BAD_REQUEST;
                (Bytes::new(), false)
            }
            Script::List(kind, body) => {
                let kind = HeaderValue::from_static(kind);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                (body, false)
            }
            Script::Stall(kind, body) => {
                let kind = HeaderValue::from_static(kind);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                (body, true)
            }
            Script::Hang => {
                self.until_over(path).await;
                anyhow::bail!("hung by order");
            }
        };
        let over = {
            let mut scripts = self.scripts.subscribe();
            let path = path.to_owned();
            async move {
                drop(
                    scripts
                        .wait_for(|scripts| !scripts.contains_key(&path))
                        .await,
                );
            }
        };
        let first = futures_util::stream::once(async { Ok(Frame::data(head)) });
        let rest = futures_util::stream::once(async move {
            if stalls {
                over.await;
                return Some(Err(BoxError::from("stalled by order")));
            }
            None
        });
        let rest = futures_util::StreamExt::filter_map(rest, std::future::ready);
        let body = futures_util::StreamExt::chain(first, rest);
        Ok(response.map(|()| StreamBody::new(body).boxed_unsync()))
    }

    async fn until_over(&self, path: &str) {
        let mut scripts = self.scripts.subscribe();
        let over = scripts
            .wait_for(|scripts| !scripts.contains_key(path))
            .await;
        drop(over.context("the meddler is gone"));
    }
}
