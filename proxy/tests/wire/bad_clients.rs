//! Clients that break the rules: each gets a clear error or is closed within its limits, and a
//! well-behaved one on another connection notices nothing.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use http::{Method, Request, StatusCode, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use watershed_config::Config;
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    fixture::Fixture,
    peer::{
        Answer, Caller, Client, HTTP1, HTTP2, JSON, PROTOBUF, Watch, in_time, metric, url, write,
    },
};

pub(crate) mod frames;
mod requests;

use frames::{
    END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, PREFACE, body, frame, frames, get, goaway,
    open_windows,
};

const WATCH: &str = "/api/v1/configmaps?watch=1&resourceVersion=0";

/// A proxy with one well-behaved client.
struct Site {
    apiserver: Apiserver,
    fixture: Fixture,
    caller: Caller,
    client: Client,
    watch: Watch,
    written: u32,
}

impl Site {
    async fn start(change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        let fixture = Fixture::start(&apiserver, change).await?;
        let caller = Caller::admin(apiserver.pki())?;
        let client = Client::connect(fixture.proxy.address(), &caller).await?;
        let watch = client.watch(WATCH, JSON).await?;
        Ok(Self {
            apiserver,
            fixture,
            caller,
            client,
            watch,
            written: 0,
        })
    }

    fn address(&self) -> SocketAddr {
        self.fixture.proxy.address()
    }

    async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        metric(self.fixture.proxy.admin_address(), name).await
    }

    /// Waits until so many watches are served from the cache.
    async fn until_watched_by(&self, watches: f64) -> anyhow::Result<()> {
        let name = "watershed_watchers{group=\"\",resource=\"configmaps\"}";
        let reached = async {
            while self.metric(name).await? != watches {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        in_time(reached).await.context("so many watches")?
    }

    async fn http1(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        self.caller.dial(self.address(), HTTP1).await
    }

    /// An HTTP/2 connection on which frames are written by hand; the preface is sent.
    async fn http2(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut stream = self.caller.dial(self.address(), HTTP2).await?;
        stream.write_all(PREFACE).await?;
        Ok(stream)
    }

    /// Asserts that the well-behaved client gets its events and answers.
    async fn assert_unharmed(&mut self) -> anyhow::Result<()> {
        self.written += 1;
        let name = format!("unharmed-{}", self.written);
        write(&self.apiserver, "configmaps", &name, "x");
        loop {
            let event = self.watch.next().await?.context("the watch ended")?;
            if event.name == name {
                break;
            }
        }
        let path = format!("/api/v1/namespaces/default/configmaps/{name}");
        let answer = self.client.get(&path, JSON).await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
        Ok(())
    }

    async fn stop(self) {
        drop((self.watch, self.client));
        self.fixture.stop().await;
    }
}

/// Everything the peer sends until it closes.
async fn until_closed(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<Vec<u8>> {
    let mut seen = Vec::new();
    // A reset, or an end without close_notify, is an end too.
    drop(
        in_time(stream.read_to_end(&mut seen))
            .await
            .context("it stays open")?,
    );
    Ok(seen)
}

#[tokio::test]
async fn a_malformed_request_line_or_header_is_a_400_and_the_end() -> anyhow::Result<()> {
    let mut site = Site::start(|_| {}).await?;
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = "a".repeat(100_000);
    for (request, code) in [
        ("GET\r\n\r\n".to_owned(), "400"),
        ("GET /api/v1/pods HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("\u{0}\u{1}garbage\r\n\r\n".to_owned(), "400"),
        ("GET /api v1/pods HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), "400"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{0}\r\n\r\n".to_owned(),
            "400",
        ),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431"),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}{long}\r\n\r\n"),
            "431",
        ),
        (
            format!("GET /{long}{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            "4",
        ),
    ] {
        let mut stream = site.http1().await?;
        // It may close before it has read everything.
        drop(stream.write_all(request.as_bytes()).await);
        let seen = String::from_utf8_lossy(&until_closed(&mut stream).await?).into_owned();
        let shown = &request[..request.len().min(60)];
        ensure!(
            seen.starts_with(&format!("HTTP/1.1 {code}")),
            "{shown:?}: {seen}"
        );
    }
    site.assert_unharmed().await?;
    site.stop().await;
    Ok(())
}

/// Two ways to say where a body ends: either refused, or understood in one way only, and then the
/// connection is over. Nothing hidden in a body ever reaches the apiserver as a request.
#[tokio::test]
async fn a_request_cannot_hide_in_the_body_of_another() -> anyhow::Result<()> {
    const HIDDEN: &str = "GET /api/v1/limitranges HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut site = Site::start(|_| {}).await?;
    for lengths in [
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: +6\r\n",
        "Content-Length: 6, 5\r\n",
        "Content-Length: 0x6\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Content-Length : 6\r\n",
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let mut stream = site.http1().await?;
        let request = format!(
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: a\r\n\
             Content-Type: application/json\r\n{lengths}\r\n0\r\n\r\n{HIDDEN}"
        );
        stream.write_all(request.as_bytes()).await?;
        let seen = String::from_utf8_lossy(&until_closed(&mut stream).await?).into_owned();
        ensure!(seen.starts_with("HTTP/1.1 4"), "{lengths:?}: {seen}");
        ensure!(
            seen.matches("HTTP/1.1 ").count() == 1,
            "{lengths:?}: {seen}"
        );
    }
    let hidden = site
        .apiserver
        .counters()
        .requests("list", "", "limitranges");
    ensure!(hidden == 0);
    site.assert_unharmed().await?;
    site.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_rapid_reset_burst_ends_the_connection_that_sends_it() -> anyhow::Result<()> {
    let mut site = Site::start(|_| {}).await?;
    let mut stream = site.http2().await?;
    let mut burst = Vec::new();
    for n in 0..2000 {
        let id = 2 * n + 1;
        burst.extend(frame("HEADERS", END_HEADERS | END_STREAM, id, &get(WATCH)));
        burst.extend(frame("RST_STREAM", 0, id, &8_u32.to_be_bytes()));
    }
    drop(stream.write_all(&burst).await);
    let seen = until_closed(&mut stream).await?;
    ensure!(
        goaway(&seen) == Some(ENHANCE_YOUR_CALM),
        "{:?}",
        goaway(&seen)
    );
    site.assert_unharmed().await?;
    while site.metric("watershed_connections ").await? > 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await; // a deadline is the test's own
    }
    ensure!(
        site.metric("watershed_watchers{group=\"\",resource=\"configmaps\"}")
            .await?
            == 1.0
    );
    site.stop().await;
    Ok(())
}

#[tokio::test]
async fn endless_headers_end_the_connection_that_sends_them() -> anyhow::Result<()> {
    let mut site = Site::start(|_| {}).await?;
    // CONTINUATION frames without end, each with a header that is kept.
    let mut stream = site.http2().await?;
    let mut flood = frame("HEADERS", END_STREAM, 1, &get(WATCH));
    let mut header = vec![0x00, 0x01, b'x', 0x7f, 0x81, 0x3e];
    header.extend([b'a'; 8192]);
    for _ in 0..200 {
        flood.extend(frame("CONTINUATION", 0, 1, &header));
    }
    drop(stream.write_all(&flood).await);
    let seen = until_closed(&mut stream).await?;
    ensure!(
        goaway(&seen).is_some_and(|code| code != 0),
        "{:?}",
        goaway(&seen)
    );

    // Empty ones.
    let mut stream = site.http2().await?;
    let mut flood = frame("HEADERS", END_STREAM, 1, &get(WATCH));
    for _ in 0..20_000 {
        flood.extend(frame("CONTINUATION", 0, 1, &[]));
    }
    drop(stream.write_all(&flood).await);
    let seen = until_closed(&mut stream).await?;
    ensure!(
        goaway(&seen).is_some_and(|code| code != 0),
        "{:?}",
        goaway(&seen)
    );

    // One request with more headers than allowed is answered, and its connection goes on.
    let large = "a".repeat(70_000);
    let request = Request::get(url(WATCH)).header("x-large", large);
    match site.client.send(request, "").await {
        Ok(answer) => {
            let code = answer.status();
            ensure!(
                code == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "{code}"
            );
        }
        Err(error) => anyhow::bail!("no answer to large headers: {error:#}"),
    }
    site.assert_unharmed().await?;
    site.stop().await;
    Ok(())
}

#[tokio::test]
async fn slow_handshakes_headers_and_half_open_sockets_are_closed_in_time() -> anyhow::Result<()> {
    let mut site = Site::start(|config| {
        config.live.limits.handshake_timeout = Duration::from_millis(300);
        config.live.limits.header_timeout = Duration::from_millis(300);
    })
    .await?;
    let mut silent = TcpStream::connect(site.address()).await?;
    let mut slow = TcpStream::connect(site.address()).await?;
    slow.write_all(&[22, 3, 1]).await?;
    let mut garbage = TcpStream::connect(site.address()).await?;
    garbage
        .write_all(b"GET / HTTP/1.1\r\nHost: plain\r\n\r\n")
        .await?;
    let mut half_open = TcpStream::connect(site.address()).await?;
    half_open.shutdown().await?;
    for socket in [&mut silent, &mut slow, &mut garbage, &mut half_open] {
        let mut seen = Vec::new();
        drop(in_time(socket.read_to_end(&mut seen)).await?);
    }
    for (alpn, start) in [
        (HTTP1, &b"GET /api HTTP/1.1\r\nHost: a\r\nX-Slow"[..]),
        (HTTP1, b""),
        (HTTP2, PREFACE),
        (HTTP2, &PREFACE[..20]),
    ] {
        let mut stream = site.caller.dial(site.address(), alpn).await?;
        stream.write_all(start).await?;
        until_closed(&mut stream).await?;
    }
    let refused =
        |reason: &str| format!("watershed_connections_refused_total{{reason=\"{reason}\"}}");
    ensure!(site.metric(&refused("handshake_timeout")).await? >= 2.0);
    ensure!(site.metric(&refused("handshake")).await? >= 1.0);
    site.assert_unharmed().await?;
    site.stop().await;
    Ok(())
}

#[tokio::test]
async fn one_stream_more_than_allowed_is_refused_and_the_others_go_on() -> anyhow::Result<()> {
    const REFUSED_STREAM: u32 = 7;
    let mut site = Site::start(|config| config.live.limits.watches_per_connection = 4).await?;
    let mut stream = site.http2().await?;
    let mut opened = Vec::new();
    for n in 0..5 {
        let id = 2 * n + 1;
        opened.extend(frame("HEADERS", END_HEADERS | END_STREAM, id, &get(WATCH)));
    }
    stream.write_all(&opened).await?;
    let mut seen = Vec::new();
    let reset = async {
        loop {
            stream.read_buf(&mut seen).await?;
            let found = frames(&seen);
            let answered = found.iter().filter(|it| it.kind == 1).count();
            if let Some(reset) = found.into_iter().find(|it| it.kind == 3)
                && answered == 4
            {
                return anyhow::Ok(reset);
            }
        }
    };
    let reset = in_time(reset).await??;
    ensure!(
        reset.stream == 9 && reset.payload == REFUSED_STREAM.to_be_bytes(),
        "{reset:?}"
    );
    site.assert_unharmed().await?;
    site.stop().await;
    Ok(())
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_closed_and_the_others_go_on() -> anyhow::Result<()> {
    let mut site = Site::start(|config| config.live.limits.connections = 2).await?;
    let second = Client::connect(site.address(), &site.caller).await?;
    for _ in 0..3 {
        ensure!(Client::connect(site.address(), &site.caller).await.is_err());
    }
    let refused = "watershed_connections_refused_total{reason=\"limit\"}";
    ensure!(site.metric(refused).await? >= 3.0);
    site.assert_unharmed().await?;
    drop(second);
    let again = async {
        while Client::connect(site.address(), &site.caller).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(again).await.context("a place is given back")?;
    site.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_reads_costs_no_memory_and_delays_nobody() -> anyhow::Result<()> {
    const EVENTS: usize = 10_000;
    const HISTORY: u32 = 256 << 10;
    let mut site = Site::start(|config| {
        config.live.cache.defaults.history_bytes = HISTORY.into();
    })
    .await?;
    let mut stalled = site.http2().await?;
    let opened = frame("HEADERS", END_HEADERS | END_STREAM, 1, &get(WATCH));
    stalled.write_all(&opened).await?;
    site.until_watched_by(2.0).await?;
    let data = "x".repeat(60);
    let mut last = 0;
    for n in 0..EVENTS {
        let (name, data) = (format!("flow-{}", n % 100), format!("{data}{}", n % 7));
        let version = write(&site.apiserver, "configmaps", &name, &data);
        while n % 100 == 99 && last < version {
            let event = site.watch.next().await?.context("the watch ended")?;
            ensure!(event.version > last, "{event:?} after {last}");
            last = event.version;
        }
    }
    ensure!(site.metric("watershed_slow_watchers ").await? >= 1.0);
    let labels = "group=\"\",version=\"v1\",resource=\"configmaps\",encoding=\"json\"";
    let history = format!("watershed_watch_cache_history_bytes{{{labels}}}");
    let history = site.metric(&history).await?;
    ensure!(history > 0.0 && history <= f64::from(HISTORY), "{history}");

    // It reads again: what it was given is whole, then its watch ends cleanly, since the rest is
    // forgotten.
    stalled.write_all(&open_windows(1)).await?;
    let body = in_time(body(&mut stalled, 1)).await??;
    ensure!(body.ends_with(b"\n"));
    let lines = body.split(|byte| *byte == b'\n');
    for line in lines.filter(|line| !line.is_empty()) {
        serde_json::from_slice::<serde_json::Value>(line)?;
    }
    let kept = body.len();
    ensure!(kept < 1 << 20, "{kept} bytes were kept for it");
    site.assert_unharmed().await?;
    site.stop().await;
    Ok(())
}

/// What must be equal of two answers: the status, every header of meaning, and each byte.
fn comparable(answer: &Answer) -> (u16, Vec<(&'static str, String)>, String) {
    let compared = [
        "content-type",
        "cache-control",
        "retry-after",
        "warning",
        "x-content-type-options",
        "allow",
        "location",
    ];
    let headers = compared.into_iter().filter_map(|name| {
        let value = answer.headers.get(name)?;
        Some((name, String::from_utf8_lossy(value.as_bytes()).into_owned()))
    });
    let body = answer.body.escape_ascii().to_string();
    (answer.status.as_u16(), headers.collect(), body)
}

#[tokio::test]
async fn malformed_requests_get_the_apiservers_own_answer() -> anyhow::Result<()> {
    let mut site = Site::start(|_| {}).await?;
    let direct = Client::connect(site.apiserver.addr(), &site.caller).await?;
    let mut different = Vec::new();
    for (method, path, headers, body) in requests::all() {
        for accept in [JSON, PROTOBUF] {
            let mut answers = Vec::new();
            for client in [&direct, &site.client] {
                let mut request = Request::builder()
                    .method(Method::from_bytes(method.as_bytes())?)
                    .uri(url(path));
                if !headers.iter().any(|(name, _)| *name == "accept") {
                    request = request.header(header::ACCEPT, accept);
                }
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let answer = client.send(request, body).await?;
                let answer = Answer::read(answer)
                    .await
                    .with_context(|| path.to_owned())?;
                answers.push(comparable(&answer));
            }
            if answers[0].0 < 400 {
                different.push(format!(
                    "{method} {path} is not malformed: {:?}",
                    answers[0]
                ));
            } else if answers[0] != answers[1] {
                let (direct, proxied) = (&answers[0], &answers[1]);
                different.push(format!(
                    "{method} {path} ({accept})\n  direct  {direct:?}\n  proxied {proxied:?}"
                ));
            }
        }
    }
    ensure!(different.is_empty(), "\n{}", different.join("\n"));
    site.assert_unharmed().await?;
    site.stop().await;
    Ok(())
}
