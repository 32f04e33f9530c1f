//! The least a server can do for a renewal: TLS, HTTP/2, and the body sent back.
//!
//! Owns a process of its own, so that its CPU can be told apart. Refuses to look at anything: what a
//! proxy takes beyond this is its own doing, and what it takes up to here is the libraries' and the
//! kernel's.
//! Invariant: it lives as long as the socket that is its standard input.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::apiserver::certs::Pki;
use crate::kubelet::client::PROTOBUF;
use crate::kubelet::encode;
use crate::watchers::{Process, stdin_socket};

/// The process. Dropping it ends it.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub url: String,
    /// Its number.
    pub pid: u32,
    _socket: BufReader<UnixStream>,
    _process: Process,
}

impl Echo {
    /// Starts the process, with the certificates of a folder.
    ///
    /// # Errors
    /// When it cannot be started, or does not say where it listens.
    pub async fn start(folder: &Path) -> Result<Self> {
        let (socket, process) = Process::start(&["echo".as_ref(), folder.as_os_str()])?;
        let (mut socket, mut url) = (BufReader::new(socket), String::new());
        socket.read_line(&mut url).await?;
        Ok(Self {
            url: url.trim().to_owned(),
            pid: process.id(),
            _socket: socket,
            _process: process,
        })
    }
}

/// Serves until standard input ends, and says there where.
///
/// # Errors
/// When standard input is no socket, the folder has no certificates or there is no port.
pub async fn serve(folder: &Path) -> Result<()> {
    let (mut socket, mut byte) = (stdin_socket()?, [0]);
    let acceptor = TlsAcceptor::from(Pki::open(folder)?.server_config()?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("https://{}\n", listener.local_addr()?);
    socket.write_all(url.as_bytes()).await?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                connections.spawn(connection(stream, acceptor.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = socket.read(&mut byte) => return Ok(()),
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let lease = Arc::new(encode::node("echo"));
    let service = service_fn(move |request| answer(request, Arc::clone(&lease)));
    let server = http2::Builder::new(TokioExecutor::new());
    server
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

/// A lease is created with a Node for its owner, then renewed.
async fn answer(
    request: Request<Incoming>,
    node: Arc<Bytes>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_read = request.method() == Method::GET;
    let is_node = request.uri().path().starts_with("/api/v1/nodes/");
    let (status, body) = match (is_read, is_node) {
        (true, true) => (StatusCode::OK, Bytes::clone(&node)),
        (true, false) => (StatusCode::NOT_FOUND, Bytes::new()),
        (false, _) => {
            let is_created = request.method() == Method::POST;
            let body = request.into_body().collect().await;
            let body = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
            let status = if is_created {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            (status, body)
        }
    };
    let answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, PROTOBUF)
        .header(CONTENT_LENGTH, body.len());
    let answer = answer.body(Full::new(body));
    Ok(answer.expect("the headers are valid"))
}
