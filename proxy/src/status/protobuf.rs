//! Status in protobuf: gogo-proto2 rules, so every scalar is written even when empty.

use super::{Cause, Details, Status};

const MAGIC: &[u8] = b"k8s\0";

pub(super) fn encode(status: &Status) -> Vec<u8> {
    let raw = message(status);
    let mut out = MAGIC.to_vec();
    let mut type_meta = Vec::with_capacity(12);
    bytes(&mut type_meta, 1, b"v1");
    bytes(&mut type_meta, 2, b"Status");
    bytes(&mut out, 1, &type_meta);
    bytes(&mut out, 2, &raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

fn message(status: &Status) -> Vec<u8> {
    let mut meta = Vec::new();
    bytes(&mut meta, 1, b"");
    bytes(&mut meta, 2, b"");
    bytes(
        &mut meta,
        3,
        status
            .continue_token
            .as_deref()
            .unwrap_or_default()
            .as_bytes(),
    );

    let mut out = Vec::with_capacity(64 + status.message.len());
    bytes(&mut out, 1, &meta);
    bytes(&mut out, 2, b"Failure");
    bytes(&mut out, 3, status.message.as_bytes());
    bytes(&mut out, 4, status.reason.as_bytes());
    if let Some(found) = &status.details {
        bytes(&mut out, 5, &details(found));
    }
    number(&mut out, 6, u64::from(status.code));
    out
}

fn details(details: &Details) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 1, details.name.as_bytes());
    bytes(&mut out, 2, details.group.as_bytes());
    bytes(&mut out, 3, details.kind.as_bytes());
    for found in &details.causes {
        bytes(&mut out, 4, &cause(found));
    }
    number(&mut out, 5, u64::from(details.retry_after_seconds));
    bytes(&mut out, 6, b"");
    out
}

fn cause(cause: &Cause) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 1, cause.reason.as_bytes());
    bytes(&mut out, 2, cause.message.as_bytes());
    bytes(&mut out, 3, cause.field.as_bytes());
    out
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
