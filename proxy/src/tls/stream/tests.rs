//! Both ends over a pipe: tokio-rustls plays the client.

use std::sync::Arc;

use rustls::{ClientConfig, ProtocolVersion, SupportedProtocolVersion, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client::TlsStream as ClientStream};

use super::*;
use crate::tls::{
    ServerTls,
    tests::{Folder, TestCa, client_config},
};

type Ends = (
    io::Result<TlsStream<DuplexStream>>,
    io::Result<ClientStream<DuplexStream>>,
);

/// A handshake through a pipe that holds `pipe` bytes in each direction; the client says it speaks
/// `alpn`.
async fn handshake(
    pipe: usize,
    alpn: &[&[u8]],
    version: &'static SupportedProtocolVersion,
) -> Ends {
    let (ca, folder) = (TestCa::new("ca"), Folder::new());
    let tls = ServerTls::load(folder.server_files(&ca.server("proxy"), &ca.pem()));
    let tls = tls.expect("good files");
    let known = client_config(&ca, Some(&ca.client("someone")), alpn);
    let roots = crate::tls::roots("the CA", std::path::Path::new("test"), ca.pem().as_bytes());
    let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots.expect("a CA"))
        .with_client_cert_resolver(Arc::clone(&known.client_auth_cert_resolver));
    config.alpn_protocols.clone_from(&known.alpn_protocols);
    let (near, far) = duplex(pipe);
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    tokio::join!(tls.accept(near), connector.connect(name, far))
}

async fn connect(
    pipe: usize,
    version: &'static SupportedProtocolVersion,
) -> (TlsStream<DuplexStream>, ClientStream<DuplexStream>) {
    let (server, client) = handshake(pipe, &[b"h2"], version).await;
    (server.expect("a server"), client.expect("a client"))
}

fn is_empty<S>(stream: &TlsStream<S>) -> bool {
    let received = stream.unfinished.capacity() + stream.untaken.capacity();
    received + stream.unsent.capacity() + stream.collected.capacity() == 0
}

#[tokio::test]
async fn bytes_arrive_whole_and_in_order_through_a_pipe_that_holds_few() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (pipe, length) in [(1, 1_000), (1_000, 50_000), (17_000, 300_000)] {
            let sent: Vec<u8> = (0..length).map(|it: u32| (it % 251) as u8).collect();
            let (server, client) = connect(pipe, version).await;
            let (mut from_client, mut to_client) = tokio::io::split(server);
            let (mut from_server, mut to_server) = tokio::io::split(client);
            let (mut up, mut down) = (Vec::new(), Vec::new());
            let sends_down = async {
                to_client.write_all(&sent).await.expect("an open pipe");
                to_client.shutdown().await.expect("an open pipe");
            };
            let sends_up = async {
                to_server.write_all(&sent).await.expect("an open pipe");
                to_server.shutdown().await.expect("an open pipe");
            };
            let ((), (), read_up, read_down) = tokio::join!(
                sends_down,
                sends_up,
                from_client.read_to_end(&mut up),
                from_server.read_to_end(&mut down),
            );
            read_up.expect("an announced end");
            read_down.expect("an announced end");
            assert!(up == sent, "up, {pipe} bytes at once");
            assert!(down == sent, "down, {pipe} bytes at once");
        }
    }
}

#[tokio::test]
async fn pieces_written_together_arrive_as_one_record() {
    let (mut server, mut client) = connect(100_000, &rustls::version::TLS13).await;
    let pieces = [
        IoSlice::new(b"head"),
        IoSlice::new(b""),
        IoSlice::new(b"body"),
    ];
    assert_eq!(server.write_vectored(&pieces).await.expect("room"), 8);
    let mut received = [0; 100];
    assert_eq!(client.read(&mut received).await.expect("a record"), 8);
    assert_eq!(&received[..8], b"headbody");
}

#[tokio::test]
async fn full_frames_are_sent_together_and_none_waits_for_a_frame_that_does_not_come() {
    let frame = [7; 9 + FULL];
    for frames in 1..10 {
        let (mut server, mut client) = connect(1 << 20, &rustls::version::TLS13).await;
        for _ in 0..frames {
            server.write_all(&frame).await.expect("room");
            server.flush().await.expect("an open pipe");
        }
        let waiting = frames % 4 * frame.len();
        assert_eq!(server.collected.len(), waiting, "{frames} frames");
        server.flush().await.expect("an open pipe");
        assert!(is_empty(&server));
        let mut received = vec![0; frames * frame.len()];
        client.read_exact(&mut received).await.expect("all of it");
    }
    // What is not a full frame is sent when it is flushed, and what was before it.
    let (mut server, _client) = connect(1 << 20, &rustls::version::TLS13).await;
    for bytes in [&frame[..], b"end"] {
        server.write_all(bytes).await.expect("room");
        server.flush().await.expect("an open pipe");
    }
    assert!(is_empty(&server));
    // HTTP/1.1 flushes once.
    let (server, _client) = handshake(1 << 20, &[b"http/1.1"], &rustls::version::TLS13).await;
    let mut server = server.expect("a server");
    server.write_all(&frame).await.expect("room");
    server.flush().await.expect("an open pipe");
    assert!(is_empty(&server));
}

#[tokio::test]
async fn a_quiet_connection_holds_no_buffer() {
    let (mut server, mut client) = connect(1_000, &rustls::version::TLS13).await;
    assert!(is_empty(&server));
    assert_eq!(
        server.session.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert_eq!(server.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));

    // More than the pipe holds: a part waits to be sent, then nothing does.
    let sending = async {
        server.write_all(&[7; 5_000]).await.expect("an open pipe");
        assert!(!is_empty(&server));
        server.flush().await.expect("an open pipe");
    };
    let mut received = vec![0; 5_000];
    let (_, ()) = tokio::join!(client.read_exact(&mut received), sending);
    assert!(is_empty(&server));

    // More than the reader has room for: a part waits to be taken, then nothing does.
    client.write_all(&[7; 500]).await.expect("an open pipe");
    let mut received = [0; 100];
    assert_eq!(server.read(&mut received).await.expect("some"), 100);
    assert!(!is_empty(&server));
    server.read_exact(&mut [0; 400]).await.expect("the rest");
    assert!(is_empty(&server));
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_an_error() {
    let (mut server, client) = connect(10_000, &rustls::version::TLS13).await;
    drop(client);
    let error = server
        .read(&mut [0; 10])
        .await
        .expect_err("no close_notify");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    let (mut server, mut client) = connect(10_000, &rustls::version::TLS13).await;
    client.shutdown().await.expect("an open pipe");
    assert_eq!(server.read(&mut [0; 10]).await.expect("an end"), 0);
}

#[tokio::test]
async fn a_client_that_is_refused_is_told_why() {
    let (server, client) = handshake(10_000, &[b"spdy/3"], &rustls::version::TLS13).await;
    let refused = server.expect_err("a foreign protocol");
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    let told = client.expect_err("a foreign protocol").to_string();
    assert!(told.contains("NoApplicationProtocol"), "{told}");
}

#[tokio::test]
async fn what_is_not_tls_ends_the_handshake() {
    let (ca, folder) = (TestCa::new("ca"), Folder::new());
    let tls = ServerTls::load(folder.server_files(&ca.server("proxy"), &ca.pem()));
    let tls = tls.expect("good files");
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0x16; 70_000],
        b"\x16\x03\x01",
    ] {
        let (near, mut far) = duplex(100_000);
        far.write_all(bytes).await.expect("room");
        far.shutdown().await.expect("an open pipe");
        assert!(tls.accept(near).await.is_err());
    }
}
