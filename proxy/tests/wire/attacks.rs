//! What an attacker sends, what must not come of it, and what the answer is.
//!
//! The table of attacks, by what is attacked. Those that other tests hold already are only named:
//!
//! ```text
//!  identity by headers, in names, values, cases, spellings   here; passthrough/headers.rs (units)
//!  the same by a front proxy that is none                    tiers.rs, authn/front_proxy/tests.rs
//!  Connection naming an identity header                      here; conformance/identity.rs, 138
//!  request smuggling by lengths                              bad_clients.rs
//!  targets and pseudo-headers of HTTP/2                      here
//!  h2c and other HTTP by upgrade                             here; passthrough/tunnel.rs
//!  paths and selectors that mean two things                  here; request/tests.rs (tables of units)
//!  another node's name, objects and secrets                  here
//!  tokens of other audiences, broken reviewers               identity.rs
//!  certificates: unknown, expired, not for clients           identity.rs, tls/tests.rs
//!  certificates and tokens that are too large                here
//!  rapid reset, CONTINUATION, slow headers, many headers     bad_clients.rs
//!  impersonation                                             identity.rs; conformance/identity.rs, 139
//! ```
//!
//! Two measures. Of requests that are forwarded, a recorder in the apiserver's place says what
//! arrived: the caller's own identity, whole, or nothing. Of reads, the embedded apiserver asked
//! directly says what is right, and nobody gets what is another's.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use rcgen::{DnType, SanType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use watershed_loadtest::apiserver::{Apiserver, Options, certs::Pki};

use crate::{
    bad_clients::frames::{END_HEADERS, END_STREAM, PREFACE, frame, frames},
    certificates,
    client::{Client, Protocol, empty, full},
    fixture::Fixture,
    objects::load,
    peer::{Caller, HTTP1, HTTP2, in_time},
    scripted::Scripted,
};

mod forwarded;
mod reads;
mod wire;

use wire::{Fields, Outcome, ask_http1, ask_http2};
