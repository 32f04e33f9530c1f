//! The laws of the authorizer, against tables of what kube-apiserver 1.36 answers, and against a
//! naive model that shares no code with it.
//!
//! Objects are described once ([`objects`]) and written in both encodings ([`write`]) from the API's
//! own definitions; the model ([`model`]) evaluates all of them for every question.

mod ask;
mod edges;
mod extraction;
mod model;
mod objects;
mod parity;
mod random;
mod rbac;
mod revocation;
mod rules;
mod write;
