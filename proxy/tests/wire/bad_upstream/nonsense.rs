//! What may come in the middle of a watch and means nothing.

use bytes::Bytes;

use super::meddler::Order;
use crate::peer::{JSON, PROTOBUF};

/// Bytes that come in the middle of a watch of `resource`, and how it ends.
pub(super) struct Nonsense {
    pub(super) resource: &'static str,
    pub(super) accept: &'static str,
    pub(super) orders: Vec<Order>,
    /// What the proxy counts it as; `None` where the stream itself is in order.
    pub(super) counted: Option<&'static str>,
}

/// Each kind of nonsense on a resource and encoding of its own.
pub(super) fn nonsense() -> Vec<Nonsense> {
    let mut all = json();
    all.extend(protobuf());
    all
}

impl Nonsense {
    fn new(resource: &'static str, accept: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self {
            resource,
            accept,
            orders: vec![Order::Inject(bytes.into())],
            counted: Some("malformed"),
        }
    }

    fn then(mut self, end: Order) -> Self {
        self.orders.push(end);
        self.counted = Some("cut");
        self
    }

    fn uncounted(self) -> Self {
        Self {
            counted: None,
            ..self
        }
    }
}

fn json() -> Vec<Nonsense> {
    let json = |resource, text: &str| Nonsense::new(resource, JSON, text.to_owned());
    let mut endless = json("serviceaccounts", r#"{"type":"ADDED","object":{"a":""#);
    let mebibyte = Bytes::from(vec![b'a'; 1 << 20]);
    let rest = std::iter::repeat_n(Order::Inject(mebibyte), 17);
    endless.orders.extend(rest);
    vec![
        json("configmaps", r#"{"type":"ADDED","obj"#).then(Order::End),
        json("secrets", r#"{"type":"ADDED""#).then(Order::Break),
        json("services", "<html>no</html>"),
        json("endpoints", "{\"type\":\"WHAT\",\"object\":{}}\n"),
        endless,
        json(
            "limitranges",
            &object("Secret", r#","resourceVersion":"99999""#),
        ),
        json("resourcequotas", &object("ResourceQuota", "")),
        json("podtemplates", &"[".repeat(100_000)),
        Nonsense::new(
            "replicationcontrollers",
            JSON,
            &b"{\"type\":\"\xff\xfe\",\"object\":{}}\n"[..],
        ),
        json("persistentvolumeclaims", ERROR).uncounted(),
        // Older than what is known: ignored.
        json("pods", &object("Pod", r#","resourceVersion":"7""#)).uncounted(),
    ]
}

fn protobuf() -> Vec<Nonsense> {
    let protobuf = |resource, bytes: &'static [u8]| Nonsense::new(resource, PROTOBUF, bytes);
    vec![
        protobuf("configmaps", b"\0\0\0\x40k8s\0").then(Order::End),
        protobuf("secrets", b"\x7f\xff\xff\xffk8s\0"),
        protobuf("services", b"\0\0\0\x03\xff\xff\xff"),
        protobuf("endpoints", b"\0\0\0\0"),
        protobuf("pods", b"{\"type\":\"ADDED\"}\n"),
    ]
}

/// An error in the middle, as a server that fails sends it.
const ERROR: &str = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\
    \"status\":\"Failure\",\"code\":500,\"reason\":\"Broken\"}}\n";

/// A change of the object `before`.
fn object(kind: &str, version: &str) -> String {
    let metadata = format!(r#"{{"name":"before","namespace":"default","uid":"u"{version}}}"#);
    let object = format!(r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{metadata}}}"#);
    format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n")
}
