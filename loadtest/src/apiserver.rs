//! Placeholder.

pub mod authn;
pub mod certs;
pub mod schema;
pub mod tokens;
