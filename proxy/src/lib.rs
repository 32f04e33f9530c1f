//! The Watershed proxy.

mod admin;
mod authn;
mod authz;
mod body;
mod caches;
mod connection;
mod discovery;
mod drain;
mod handler;
mod listener;
mod memo;
mod metrics;
mod negotiate;
mod passthrough;
mod request;
mod serve;
mod status;
mod tls;
mod upstream;
