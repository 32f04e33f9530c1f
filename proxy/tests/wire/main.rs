//! The proxy as its peers see it: real sockets, real TLS, an apiserver behind it.
//!
//! One binary with a module per concern, so that it is linked once. `fixture` starts what a test
//! needs on free ports of the loopback interface; nothing here reaches into the proxy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod bad_clients;
mod bad_upstream;
mod certificates;
mod client;
mod conformance;
mod counting;
mod fixture;
mod freshness;
mod golden;
mod heartbeats;
mod identity;
mod isolation;
mod kube_rs;
mod limits;
mod lists;
mod node_status;
mod objects;
mod operations;
mod parity;
mod passthrough;
mod peer;
mod real;
mod reload;
mod representations;
mod resume;
mod revocation;
mod scripted;
mod secrets;
mod shared;
mod storm;
mod tiers;
mod traps;
mod trouble;
