//! The parsers of the workspace against Go's answers and against second opinions.
//!
//! Owns the tables in `tables/`, which `tests/tables` compares row by row, and the fuzz targets:
//! each a plain function of bytes that panics when a law does not hold. `tests/smoke.rs` runs every
//! one over `corpus/` and a few thousand seeded mutations of it on stable; `fuzz/` runs the same
//! functions under libFuzzer for as long as one likes.
//!
//! Refuses to parse anything itself but where a second opinion is needed: a decoder of protobuf
//! and a splitter of frames, both written as plainly as they can be. Otherwise the second opinion
//! is `serde_json`, or the embedded apiserver, which shares no code with the proxy.
//!
//! Invariant: whatever the bytes are, both opinions agree, or the proxy is the stricter one where
//! that only costs a relist or a forwarded request.

pub mod frames;
pub mod json;
pub mod leases;
pub mod objects;
pub mod protobuf;
pub mod requests;
pub mod selectors;
pub mod tokens;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the libFuzzer target and of its folder in `corpus/`.
    pub name: &'static str,
    /// Panics if the input shows a broken law.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    target("json", json::json),
    target("protobuf", protobuf::protobuf),
    target("frames_json", frames::json),
    target("frames_protobuf", frames::protobuf),
    target("object_json", objects::json),
    target("object_protobuf", objects::protobuf),
    target("list", objects::list),
    target("request", requests::request),
    target("labels", selectors::labels),
    target("fields", selectors::fields),
    target("token", tokens::token),
    target("lease_json", leases::json),
    target("lease_protobuf", leases::protobuf),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}
