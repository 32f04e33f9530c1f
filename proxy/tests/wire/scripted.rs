//! An apiserver that does what a test tells it: one function answers every request.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use watershed_loadtest::apiserver::certs::Pki;

use crate::client::Payload;

/// Runs until it is dropped.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Scripted {
    /// Serves HTTP/1.1 and HTTP/2 with the server certificate of `pki`.
    pub(crate) async fn start<H, F>(pki: &Pki, handle: H) -> anyhow::Result<Self>
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Payload>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::clone(&pki.server_config()?));
        let task = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handle) = (acceptor.clone(), handle.clone());
                connections.spawn(async move {
                    // A peer that goes away ends its own connection only.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| {
                        let answer = handle(request);
                        async move { Ok::<_, std::convert::Infallible>(answer.await) }
                    });
                    let io = TokioIo::new(stream);
                    if is_http2 {
                        let builder =
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(io, service).await);
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        drop(builder.serve_connection(io, service).with_upgrades().await);
                    }
                });
            }
        };
        Ok(Self {
            address,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        })
    }
}
