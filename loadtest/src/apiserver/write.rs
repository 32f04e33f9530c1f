//! Everything that is no read of an object.

mod go_json;
mod managed_fields;
mod names;

use std::sync::Arc;

use super::body::Response;
use super::server::{Exchange, State};
use super::status::Status;

/// Answers POST, PUT, PATCH and DELETE of resources, and every request of a subresource that is
/// no plain read (`status` and `scale` reads included, `log` too): the caller keeps GET, LIST and
/// WATCH without a subresource for itself.
///
/// # Errors
/// With the Status to answer.
pub async fn serve(state: &Arc<State>, exchange: &Exchange) -> Result<Response, Status> {
    let _ = (state, exchange);
    Err(Status::method_not_allowed())
}
