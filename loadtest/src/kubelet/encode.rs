//! What a hollow kubelet writes: nodes, leases and delete options in protobuf, patches in JSON.
//!
//! Owns the shape of each body, as a kubelet 1.36 sends it. Refuses to decide when to send one.
//! Invariant: a renewed lease differs from the server's last answer in `renewTime` only.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::protobuf::{Fields, Malformed, Message};

const VERSION: &str = "v1.36.1";
/// Conditions a kubelet owns, with the status of a healthy node.
const CONDITIONS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID"),
    ("Ready", "True", "KubeletReady"),
];

/// Puts a message into the `k8s\0` envelope.
fn wrap(api_version: &str, kind: &str, message: &Message) -> Bytes {
    let kind = Message::default().string(1, api_version).string(2, kind);
    let unknown = Message::default().message(1, &kind).message(2, message);
    let unknown = unknown.string(3, "").string(4, "");
    [b"k8s\0", &unknown.0[..]].concat().into()
}

/// The Node that a kubelet registers.
pub(crate) fn node(name: &str) -> Bytes {
    let metadata = Message::default()
        .string(1, name)
        .entry(11, "beta.kubernetes.io/arch", "amd64")
        .entry(11, "beta.kubernetes.io/os", "linux")
        .entry(11, "kubernetes.io/arch", "amd64")
        .entry(11, "kubernetes.io/hostname", name)
        .entry(11, "kubernetes.io/os", "linux")
        .entry(
            12,
            "volumes.kubernetes.io/controller-managed-attach-detach",
            "true",
        );
    let mut status = Message::default();
    for field in [1, 2] {
        for (resource, amount) in [("cpu", "8"), ("memory", "32Gi"), ("pods", "110")] {
            let quantity = Message::default().string(1, amount);
            let entry = Message::default().string(1, resource).message(2, &quantity);
            status = status.message(field, &entry);
        }
    }
    let address = Message::default().string(1, "Hostname").string(2, name);
    let info = Message::default()
        .string(1, "00000000000000000000000000000000")
        .string(5, "hollow")
        .string(6, "containerd://2.1.0")
        .string(7, VERSION)
        .string(9, "linux")
        .string(10, "amd64");
    status = status.message(5, &address).message(7, &info);
    for image in 0..10 {
        let name = format!("registry.example/library/image-{image}:v1.{image}");
        let image = Message::default().string(1, &name).varint(2, 50_000_000);
        status = status.message(8, &image);
    }
    let node = Message::default().message(1, &metadata);
    wrap(
        "v1",
        "Node",
        &node.message(2, &Message::default()).message(3, &status),
    )
}

/// The CSINode of a node without drivers.
pub(crate) fn csi_node(name: &str, node_uid: &str) -> Bytes {
    let metadata = Message::default().string(1, name);
    let metadata = metadata.message(13, &node_owner(name, node_uid));
    let object = Message::default().message(1, &metadata);
    wrap(
        "storage.k8s.io/v1",
        "CSINode",
        &object.message(2, &Message::default()),
    )
}

/// A new Lease of a node.
pub(crate) fn lease(name: &str, node_uid: &str, duration_seconds: u32, now: Timestamp) -> Bytes {
    let metadata = Message::default()
        .string(1, name)
        .string(3, "kube-node-lease");
    let metadata = metadata.message(13, &node_owner(name, node_uid));
    let spec = Message::default().string(1, name);
    let spec = spec.varint(2, duration_seconds.into());
    let spec = spec.message(4, &micro_time(now));
    let lease = Message::default().message(1, &metadata).message(2, &spec);
    wrap("coordination.k8s.io/v1", "Lease", &lease)
}

/// The server's last Lease (without envelope) with a new `renewTime`.
///
/// # Errors
/// When the lease is not protobuf.
pub(crate) fn renewed(lease: &[u8], now: Timestamp) -> Result<Bytes, Malformed> {
    let mut message = Message::default();
    for field in Fields::new(lease) {
        let field = field?;
        if field.number != 2 {
            message = message.raw(field.raw);
            continue;
        }
        let mut spec = Message::default();
        for member in Fields::new(field.bytes) {
            let member = member?;
            spec = match member.number {
                4 => spec.message(4, &micro_time(now)),
                _ => spec.raw(member.raw),
            };
        }
        message = message.message(2, &spec);
    }
    Ok(wrap("coordination.k8s.io/v1", "Lease", &message))
}

/// The same in JSON, of a lease that the server sent in JSON.
pub(crate) fn renewed_json(lease: &[u8], now: Timestamp) -> Option<Bytes> {
    const MEMBER: &str = "\"renewTime\":\"";
    let text = std::str::from_utf8(lease).ok()?;
    let (head, tail) = text.split_once(MEMBER)?;
    let (_, tail) = tail.split_once('"')?;
    let now = now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    Some(format!("{head}{MEMBER}{now}\"{tail}").into())
}

/// Deletes now, and only the pod with that UID.
pub(crate) fn delete_now(uid: &str) -> Bytes {
    let preconditions = Message::default().string(1, uid);
    let options = Message::default().varint(1, 0).message(2, &preconditions);
    wrap("v1", "DeleteOptions", &options)
}

/// The first node status of a kubelet: every condition in full.
pub(crate) fn node_status(now: Timestamp) -> Bytes {
    let now = seconds(now);
    let conditions = CONDITIONS.map(|(kind, status, reason)| {
        json!({"type": kind, "status": status, "reason": reason, "message": "hollow",
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    });
    body(&json!({"status": {"$setElementOrder/conditions": order(), "conditions": conditions}}))
}

/// A node status in which only time has passed.
pub(crate) fn node_heartbeat(now: Timestamp) -> Bytes {
    let now = seconds(now);
    let conditions = CONDITIONS.map(|(kind, _, _)| json!({"lastHeartbeatTime": now, "type": kind}));
    body(&json!({"status": {"$setElementOrder/conditions": order(), "conditions": conditions}}))
}

/// The status of a pod whose containers run.
pub(crate) fn pod_running(uid: &str, address: &str, now: Timestamp) -> Bytes {
    let now = seconds(now);
    let types = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions = types.map(|kind| {
        json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now})
    });
    body(&json!({"metadata": {"uid": uid}, "status": {
        "$setElementOrder/conditions": types.map(|kind| json!({"type": kind})),
        "phase": "Running", "conditions": conditions, "startTime": now,
        "podIP": address, "podIPs": [{"ip": address}],
    }}))
}

fn node_owner(name: &str, uid: &str) -> Message {
    let owner = Message::default().string(1, "Node").string(3, name);
    owner.string(4, uid).string(5, "v1")
}

fn micro_time(now: Timestamp) -> Message {
    let micros = now.as_microsecond();
    let (second, micro) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let seconds = Message::default().varint(1, second.cast_unsigned());
    seconds.varint(2, (micro * 1000).cast_unsigned())
}

fn order() -> [Value; 4] {
    CONDITIONS.map(|(kind, _, _)| json!({"type": kind}))
}

fn seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn body(value: &Value) -> Bytes {
    value.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::decode::unwrap;
    use crate::kubelet::protobuf::find;

    #[test]
    fn a_renewal_changes_only_the_renew_time() {
        let (first, second) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(77).unwrap());
        let created = lease("n", "uid", 40, first);
        let again = renewed(unwrap(&created).unwrap(), second).unwrap();
        assert_ne!(created, again);
        assert_eq!(again, lease("n", "uid", 40, second));
        let spec = find(unwrap(&again).unwrap(), 2).unwrap().unwrap();
        assert_eq!(find(spec, 4).unwrap().unwrap(), &micro_time(second).0[..]);
    }

    #[test]
    fn in_json_too() {
        let lease = |time: &str| {
            format!(
                r#"{{"managedFields":[{{"f:renewTime":{{}}}}],"spec":{{"renewTime":"{time}"}}}}"#
            )
        };
        let now = Timestamp::from_microsecond(1_000_000_000_001_020).unwrap();
        let again = renewed_json(lease("2026-01-01T00:00:00.000000Z").as_bytes(), now);
        assert_eq!(again.unwrap(), lease("2001-09-09T01:46:40.001020Z"));
    }
}
