//! Placeholder.

pub mod authn;
pub mod authz;
pub mod certs;
pub mod impersonation;
pub mod schema;
pub mod tokens;
