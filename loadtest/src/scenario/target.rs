//! What is loaded, and the connection of its administrator.
//!
//! Owns addresses and certificates. Refuses to load anything.
//! Invariant: the administrator's connection is none of those that are measured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::apiserver::certs::Pki;
use crate::kubelet::client::{Call, Client, Endpoint};

/// What load is put on: a proxy or an apiserver, reached over the wire.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where kubelets connect, `https://HOST:PORT`; replicas of it, for heartbeats, after commas.
    pub url: String,
    /// The proxy's admin listener, `http://HOST:PORT`; `/metrics` is read from it.
    pub admin: Option<String>,
    /// The embedded apiserver behind the proxy, `https://HOST:PORT`; its `/debug/requests` tells
    /// what reached it, and writes go to it directly. `None`: writes go to `url`.
    pub apiserver: Option<String>,
    /// Signs the certificates of kubelets and of the administrator; its CA signed the servers'.
    pub pki: Arc<Pki>,
    /// The process to measure, if it is not this one.
    pub pid: Option<u32>,
}

impl Target {
    /// A target whose certificates lie in a folder, as the embedded apiserver writes it.
    ///
    /// # Errors
    /// When the folder holds no authority.
    pub fn from_folder(url: &str, folder: &Path) -> Result<Self> {
        for name in ["ca.crt", "ca.key"] {
            let path = folder.join(name);
            ensure!(
                path.is_file(),
                "{} is missing; see `watershed-loadtest apiserver --dir`",
                path.display()
            );
        }
        let pki = Arc::new(Pki::open(folder)?);
        Ok(Self {
            url: url.to_owned(),
            admin: None,
            apiserver: None,
            pki,
            pid: None,
        })
    }

    /// Where kubelets connect.
    ///
    /// # Errors
    /// When the address is malformed or cannot be resolved.
    pub fn endpoint(&self) -> Result<Endpoint> {
        Endpoint::new(&self.url, self.pki.ca())
    }

    /// All replicas of it.
    ///
    /// # Errors
    /// As [`Target::endpoint`].
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        let replicas = self.url.split(',');
        let replicas = replicas.map(|url| Endpoint::new(url.trim(), self.pki.ca()));
        replicas.collect()
    }
}

/// A connection with every right. Dropping it closes the connection.
#[derive(Debug)]
pub struct Administrator {
    client: Client,
    _connection: AbortOnDropHandle<()>,
    /// Never cut on purpose.
    _cuts: watch::Sender<u64>,
}

const TIMEOUT: Duration = Duration::from_secs(10);

impl Administrator {
    /// Connects to the apiserver behind the target, or to the target where there is none behind.
    ///
    /// # Errors
    /// When the address is malformed or the certificate cannot be issued.
    pub fn new(target: &Target) -> Result<Self> {
        Self::at(target, target.apiserver.as_ref().unwrap_or(&target.url))
    }

    /// Connects to a server whose certificate the target's authority signed.
    ///
    /// # Errors
    /// When the address is malformed or the certificate cannot be issued.
    pub fn at(target: &Target, url: &str) -> Result<Self> {
        let endpoint = Endpoint::new(url, target.pki.ca())?;
        let credential = target.pki.issue("loadtest", Some("system:masters"))?;
        let (client, connection) = endpoint.client(&credential, Arc::new(Semaphore::new(1)))?;
        let (cuts, cut) = watch::channel(0);
        let task = tokio::spawn(connection.run(cut));
        Ok(Self {
            client,
            _connection: AbortOnDropHandle::new(task),
            _cuts: cuts,
        })
    }

    /// Its connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// When it does not, with the reason.
    pub async fn check(&self) -> Result<()> {
        let call = Call::read("/api/v1/namespaces/default").json();
        let answer = self.client.call(&call, TIMEOUT).await;
        let answer = answer.context("reach the server; is it running, and is --dir its folder")?;
        ensure!(
            answer.status == StatusCode::OK,
            "the server answers {} to an administrator",
            answer.status
        );
        Ok(())
    }

    /// What reached the embedded apiserver so far; none from another server.
    pub async fn upstream(&self) -> Option<Upstream> {
        let answer = self
            .client
            .call(&Call::read("/debug/requests").json(), TIMEOUT)
            .await
            .ok()?;
        let report: Value = serde_json::from_slice(&answer.body).ok()?;
        Upstream::read(&report)
    }
}

/// Requests and open watches as the embedded apiserver counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// (verb, resource, requests so far).
    pub requests: Vec<(String, String, u64)>,
    /// Watches open now.
    pub watches: u64,
}

impl Upstream {
    fn read(report: &Value) -> Option<Self> {
        let requests = report["requests"].as_array()?.iter().map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            (
                text("verb"),
                text("resource"),
                row["count"].as_u64().unwrap_or(0),
            )
        });
        let watches = report["watches"].as_array()?.iter();
        let watches = watches.map(|row| row["open"].as_u64().unwrap_or(0)).sum();
        Some(Self {
            requests: requests.collect(),
            watches,
        })
    }

    /// Requests so far of the verbs that `keep` wants.
    pub fn count(&self, keep: impl Fn(&str, &str) -> bool) -> u64 {
        let kept = self
            .requests
            .iter()
            .filter(|(verb, resource, _)| keep(verb, resource));
        kept.map(|(_, _, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn upstream_counts_are_summed_by_verb() {
        let report = json!({
            "requests": [
                {"verb": "get", "group": "", "resource": "pods", "count": 3},
                {"verb": "get", "group": "", "resource": "nodes", "count": 4},
                {"verb": "watch", "group": "", "resource": "nodes", "count": 5},
            ],
            "watches": [{"group": "", "resource": "nodes", "open": 2}],
        });
        let upstream = Upstream::read(&report).unwrap();
        assert_eq!(upstream.count(|verb, _| verb == "get"), 7);
        assert_eq!(upstream.watches, 2);
        assert_eq!(Upstream::read(&json!({"kind": "Status"})), None);
    }
}
