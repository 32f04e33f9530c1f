//! Paths outside the resource tree: discovery, OpenAPI, version, health, metrics.

use std::sync::Arc;

use super::body::Response;
use super::server::{Exchange, State};

/// Answers a non-resource path; `None` when there is no such path (`404 page not found`).
pub fn serve(state: &Arc<State>, exchange: &Exchange) -> Option<Response> {
    let _ = (state, exchange);
    None
}
