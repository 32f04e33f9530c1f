//! The judge: an embedded apiserver, hollow kubelets, churn and measurements.

pub mod apiserver;
pub mod churn;
pub mod client;
pub mod conformance;
pub mod demo;
pub mod golden;
pub mod heartbeats;
pub mod kubelet;
pub mod measure;
pub mod report;
pub mod scenario;
pub mod watchers;
