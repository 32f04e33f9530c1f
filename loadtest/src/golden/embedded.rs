//! A fresh embedded apiserver for one recording, with the recorded users' certificates.
//!
//! The suite of this package aims at it directly; that of the proxy puts a proxy in front and keeps
//! the rest. Writes are executed as recorded, never loaded into the store from the side.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Scenario, Target};
use crate::apiserver::certs::Pki;
use crate::apiserver::{Apiserver, Options, Profile};
use crate::client::tls;

/// A running server with the profile a scenario was recorded on.
pub struct Embedded {
    apiserver: Arc<Apiserver>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Embedded").finish_non_exhaustive()
    }
}

impl Embedded {
    /// Starts a server on a free port.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(scenario: &Scenario) -> anyhow::Result<Self> {
        let options = Options {
            profile: profile(&scenario.server),
            ..Options::default()
        };
        Ok(Self {
            apiserver: Arc::new(Apiserver::start(options).await?),
        })
    }

    /// The server.
    pub fn apiserver(&self) -> &Apiserver {
        &self.apiserver
    }

    /// The server itself as the target of a replay.
    ///
    /// # Errors
    /// When a certificate cannot be issued.
    pub fn target(&self) -> anyhow::Result<Target> {
        self.target_behind(self.apiserver.addr(), self.apiserver.pki().ca())
    }

    /// A proxy in front of the server as the target: its address, and the PEM text of the authority
    /// its serving certificate is from.
    ///
    /// # Errors
    /// When a certificate cannot be issued.
    pub fn target_behind(&self, address: SocketAddr, ca: &str) -> anyhow::Result<Target> {
        Ok(Target {
            address,
            users: users(self.apiserver.pki(), ca)?,
            apiserver: Arc::clone(&self.apiserver),
            may_lack: &[],
        })
    }

    /// Stops the server and everything it runs.
    pub async fn stop(self) {
        // Whoever still holds it, such as a target, ends it by letting go.
        if let Some(apiserver) = Arc::into_inner(self.apiserver) {
            apiserver.shutdown().await;
        }
    }
}

/// The recorded profiles, as `golden/README.md` lists them. No controller ran.
fn profile(server: &str) -> Profile {
    let recorded = Profile {
        version: "v0.0.0-master+$Format:%H$",
        controllers: false,
        ..Profile::default()
    };
    match server {
        "nowatchlist" => Profile {
            watch_list: false,
            ..recorded
        },
        "slow" => Profile {
            event_ttl: Duration::from_secs(20),
            ..recorded
        },
        _ => recorded,
    }
}

fn users(pki: &Pki, ca: &str) -> anyhow::Result<HashMap<String, rustls::ClientConfig>> {
    let stranger = Pki::ephemeral()?.issue("stranger", Some("system:masters"))?;
    let credentials = [
        ("admin", Some(pki.issue("admin", Some("system:masters"))?)),
        ("node1", Some(pki.issue_node("node1")?)),
        ("node2", Some(pki.issue_node("node2")?)),
        ("alice", Some(pki.issue("alice", Some("dev"))?)),
        ("bob", Some(pki.issue("bob", Some("dev"))?)),
        ("weird", Some(pki.issue("we<i>rd&co", Some("dev"))?)),
        ("front-proxy", Some(pki.issue_front_proxy()?)),
        ("stranger", Some(stranger)),
        ("anonymous", None),
    ];
    credentials
        .into_iter()
        .map(|(user, credential)| Ok((user.to_owned(), tls(ca, credential.as_ref())?)))
        .collect()
}
