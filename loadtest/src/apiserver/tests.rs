//! The server over its socket, where no recording looks: faults, counters, WebSockets, restarts.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::faults::{Damage, Failure};
use super::*;

async fn server() -> Apiserver {
    let profile = Profile {
        controllers: false,
        ..Profile::default()
    };
    let options = Options {
        profile,
        ..Options::default()
    };
    Apiserver::start(options).await.unwrap()
}

/// An administrator's connection.
async fn connect(server: &Apiserver) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(server.pki().ca().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let admin = server.pki().issue("admin", Some("system:masters")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(admin.chain().unwrap(), admin.private_key().unwrap())
        .unwrap();
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

/// Sends a GET and reads until the connection ends or `until` has come.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str, headers: &str, until: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(stream, until).await
}

async fn read_until(stream: &mut TlsStream<TcpStream>, until: &str) -> String {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&seen).into_owned();
            if !until.is_empty() && text.contains(until) {
                return text;
            }
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return text,
                Ok(count) => seen.extend_from_slice(&chunk[..count]),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .unwrap()
}

fn store_configmap(server: &Apiserver, name: &str) {
    let resource = server.registry().find("", "v1", "configmaps").unwrap();
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}});
    server.store().load(&resource, value);
}

const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1";

#[tokio::test]
async fn what_reached_the_server_is_counted() {
    let server = server().await;
    let mut stream = connect(&server).await;
    get(&mut stream, "/api/v1/nodes", "", "\"items\"").await;
    assert_eq!(server.counters().requests("list", "", "nodes"), 1);
    let mut watch = connect(&server).await;
    store_configmap(&server, "a");
    get(&mut watch, WATCH, "", "ADDED").await;
    assert_eq!(server.counters().open_watches("", "configmaps"), 1);
    let report = get(&mut stream, "/debug/requests", "", "\"watches\"").await;
    assert!(report.contains("\"open\":1"), "{report}");
    server.shutdown().await;
    assert!(read_until(&mut watch, "").await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn a_websocket_gets_one_message_per_event() {
    let server = server().await;
    store_configmap(&server, "a");
    store_configmap(&server, "b");
    let headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://x\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut stream = connect(&server).await;
    let text = get(&mut stream, WATCH, headers, "\"name\":\"b\"").await;
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    assert_eq!(text.matches("{\"type\":\"ADDED\"").count(), 2);
    let mut stream = connect(&server).await;
    let without_origin = headers.replace("Origin: http://x\r\n", "");
    let text = get(&mut stream, WATCH, &without_origin, "\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
}

#[tokio::test]
async fn faults_strike_once_ordered_and_then_stop() {
    let server = server().await;
    let mut stream = connect(&server).await;
    server
        .faults()
        .fail_requests("/api/v1/nodes", Failure::TooManyRequests, 1);
    let text = get(&mut stream, "/api/v1/nodes", "", "\"code\"").await;
    assert!(text.starts_with("HTTP/1.1 429") && text.contains("retry-after: 1"));
    let text = get(&mut stream, "/api/v1/nodes", "", "\"items\"").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    server.faults().expire_watches("configmaps", 1);
    let text = get(&mut stream, WATCH, "", "\"code\"").await;
    assert!(text.contains("\"reason\":\"Expired\""), "{text}");
    server.faults().damage_frames(Damage::Truncated, 1);
    store_configmap(&server, "a");
    let mut stream = connect(&server).await;
    let text = get(&mut stream, WATCH, "", "0\r\n\r\n").await;
    assert!(
        text.contains("{\"type\"") && !text.contains("}}}"),
        "{text}"
    );
    server.faults().cut_connections();
    assert_eq!(read_until(&mut stream, "").await, "");
}

#[tokio::test]
async fn a_restarted_server_knows_no_history() {
    let server = server().await;
    let before = server.store().revision();
    store_configmap(&server, "a");
    server.restart();
    let mut stream = connect(&server).await;
    let path = format!("{WATCH}&resourceVersion={before}");
    let text = get(&mut stream, &path, "", "\"code\"").await;
    let current = server.store().revision();
    let expected = format!("too old resource version: {before} ({current})");
    assert!(text.contains(&expected), "{text}");
}

#[tokio::test]
async fn an_aggregated_role_gets_the_rules_it_selects() {
    let server = server().await;
    let group = "rbac.authorization.k8s.io";
    let roles = server.registry().find(group, "v1", "clusterroles").unwrap();
    let role = |name: &str, labels: serde_json::Value| {
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels, "uid": "u"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [name]}]})
    };
    let selector = json!({"matchLabels": {"into": "all"}});
    let mut all = role("all", json!({"into": "all"}));
    all["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
    for object in [
        all,
        role("pods", json!({"into": "all"})),
        role("secrets", json!({"into": "nothing"})),
    ] {
        server.store().load(&roles, object);
    }
    let rules = || server.store().read(&roles, "", "all").unwrap().value["rules"].clone();
    let expected = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    controllers::aggregate_cluster_roles(server.state());
    assert_eq!(rules(), expected);
    server.shutdown().await;
}
