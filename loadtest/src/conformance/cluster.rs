//! What a case meets: a server under test, the apiserver behind it, users and names of its own.
//!
//! Owns the clients of one case and what the case started for itself. Refuses to change anything
//! but through the API. Invariant: what a cluster names carries its own prefix, so two cases never
//! meet in one namespace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Environment, Identity, Proxied, Running, Setup, Started, Subject, does_not_apply};
use crate::apiserver::Apiserver;
use crate::apiserver::certs::Pki;
use crate::client::{Client, Exchange, Journal, Protocol, Request};

/// The longest wait for what happens soon, such as a role taking effect.
const SOON: Duration = Duration::from_secs(30);

/// A server under test as one case meets it.
pub struct Cluster {
    subject: Subject,
    environment: Arc<dyn Environment>,
    prefix: String,
    journal: Option<Journal>,
    admin: Client,
    direct: Client,
    owned: Mutex<Vec<Box<dyn Running>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.subject.fmt(formatter)
    }
}

impl Cluster {
    /// The subject as one case meets it. With a journal, what its clients say to the server under
    /// test is written down.
    ///
    /// # Errors
    /// When a certificate cannot be issued.
    pub fn new(
        subject: Subject,
        environment: Arc<dyn Environment>,
        journal: Option<Journal>,
    ) -> anyhow::Result<Self> {
        let pki = subject.control_plane.pki();
        let identity = Identity::of(pki.issue("admin", Some("system:masters"))?);
        let admin = identity.client(subject.address, &subject.ca, Protocol::Http1)?;
        let address = subject.control_plane.address();
        Ok(Self {
            prefix: format!("t{:08x}", fastrand::u32(..)),
            admin: match &journal {
                Some(journal) => admin.with_journal(Arc::clone(journal)),
                None => admin,
            },
            direct: identity.client(address, pki.ca(), Protocol::Http1)?,
            subject,
            environment,
            journal,
            owned: Mutex::default(),
        })
    }

    /// A cluster nobody else uses, started for this case and ended with it.
    ///
    /// # Errors
    /// When it cannot be started, or the environment cannot have this setup.
    pub async fn own(&self, setup: Setup) -> anyhow::Result<Self> {
        let Started { subject, running } = self.environment.start(setup).await?;
        self.owned.lock().push(running);
        let journal = self.journal.clone();
        Self::new(subject, Arc::clone(&self.environment), journal)
    }

    /// Stops the servers the case started last, as their operator would.
    pub async fn stop_own(&self) {
        let last = self.owned.lock().pop();
        if let Some(running) = last {
            running.stop().await;
        }
    }

    /// Ends what the case started for itself.
    pub async fn end(self) {
        drop((self.admin, self.direct));
        for running in self.owned.into_inner() {
            running.stop().await;
        }
    }

    /// The administrator (`system:masters`) at the server under test.
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// Another client, an administrator at the apiserver itself.
    pub fn direct(&self) -> &Client {
        &self.direct
    }

    /// A client of the server under test over HTTP/1.1.
    ///
    /// # Errors
    /// When the certificate is unusable.
    pub fn client(&self, identity: &Identity) -> anyhow::Result<Client> {
        self.client_over(identity, Protocol::Http1)
    }

    /// A client of the server under test.
    ///
    /// # Errors
    /// When the certificate is unusable.
    pub fn client_over(&self, identity: &Identity, protocol: Protocol) -> anyhow::Result<Client> {
        let client = identity.client(self.subject.address, &self.subject.ca, protocol)?;
        Ok(match &self.journal {
            Some(journal) => client.with_journal(Arc::clone(journal)),
            None => client,
        })
    }

    /// A client of the apiserver itself, to compare with.
    ///
    /// # Errors
    /// When the certificate is unusable.
    pub fn directly(&self, identity: &Identity) -> anyhow::Result<Client> {
        let address = self.subject.control_plane.address();
        identity.client(address, self.pki().ca(), Protocol::Http1)
    }

    /// The holder of a certificate with this name (CN) and at most one group (O).
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn user(&self, name: &str, group: Option<&str>) -> anyhow::Result<Identity> {
        Ok(Identity::of(self.pki().issue(name, group)?))
    }

    /// The authorities the apiserver trusts.
    pub fn pki(&self) -> &Pki {
        self.subject.control_plane.pki()
    }

    /// How the servers were started.
    pub fn setup(&self) -> &Setup {
        &self.subject.setup
    }

    /// What every name this cluster gives out begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A name no other case has; names keep the order of their suffixes.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    /// Creates a namespace no other case has, and returns its name.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn namespace(&self, suffix: &str) -> anyhow::Result<String> {
        let name = self.name(suffix);
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &body).await?;
        Ok(name)
    }

    /// Creates an object as another client, and returns it as stored.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create(&self, collection: &str, object: &Value) -> anyhow::Result<Value> {
        self.change("POST", collection, object).await
    }

    /// Changes an object as another client: PUT, PATCH (a merge patch), POST or DELETE.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn change(&self, method: &str, target: &str, body: &Value) -> anyhow::Result<Value> {
        let request = Request::new(method, target).json(body);
        let answer = self.direct.whole(request).await?;
        answer.ok().with_context(|| format!("{method} {target}"))
    }

    /// Creates a ConfigMap as another client, and returns it as stored.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn config_map(&self, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        self.create(&config_maps(namespace), &body).await
    }

    /// Lets a user do something in a namespace, and waits until the apiserver does.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn allow(&self, user: &str, namespace: &str, rule: &Value) -> anyhow::Result<String> {
        let group = "rbac.authorization.k8s.io";
        let role = self.name(&format!("role-{:04x}", fastrand::u16(..)));
        let collection = format!("/apis/{group}/v1/namespaces/{namespace}");
        let metadata = json!({"name": role});
        let body = json!({"apiVersion": format!("{group}/v1"), "kind": "Role",
            "metadata": metadata, "rules": [rule]});
        self.create(&format!("{collection}/roles"), &body).await?;
        let body = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": metadata, "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}]});
        self.create(&format!("{collection}/rolebindings"), &body)
            .await?;
        let attributes = json!({"namespace": namespace,
            "verb": rule["verbs"][0], "group": rule["apiGroups"][0],
            "resource": rule["resources"][0], "name": rule["resourceNames"][0]});
        self.review(user, &attributes, true).await?;
        Ok(role)
    }

    /// Waits until the apiserver allows something to a user, or no longer does.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn review(
        &self,
        user: &str,
        attributes: &Value,
        allowed: bool,
    ) -> anyhow::Result<()> {
        let review = json!({"apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes}});
        let target = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        until("a role takes effect", async || {
            let answer = self.create(target, &review).await?;
            Ok(answer["status"]["allowed"] == allowed)
        })
        .await
    }

    /// The proxy under test.
    ///
    /// # Errors
    /// When the apiserver itself is under test: the case does not apply.
    pub fn proxy(&self) -> anyhow::Result<Proxied> {
        match self.subject.proxy {
            Some(proxy) => Ok(proxy),
            None => does_not_apply("it is about the proxy"),
        }
    }

    /// Whether a proxy is under test.
    pub fn is_through_proxy(&self) -> bool {
        self.subject.proxy.is_some()
    }

    /// The embedded apiserver under test or behind the proxy.
    ///
    /// # Errors
    /// When it is a real one: the case does not apply.
    pub fn embedded(&self) -> anyhow::Result<&Apiserver> {
        match self.subject.control_plane.embedded() {
            Some(apiserver) => Ok(apiserver),
            None => does_not_apply("a real apiserver cannot be made to misbehave"),
        }
    }

    /// Discards history below a revision. On a cluster of the case's own only.
    ///
    /// # Errors
    /// When the storage refuses.
    pub async fn compact(&self, revision: u64) -> anyhow::Result<()> {
        self.subject.control_plane.compact(revision).await
    }

    /// The sum of the proxy's metric lines that have this name and all of these labels
    /// (`label="value"`).
    ///
    /// # Errors
    /// When there is no proxy, or it does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let text = admin_page(self.proxy()?.admin, "/metrics").await?;
        let mut sum = 0.0;
        for line in text.lines() {
            let Some((own, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let base = own.split('{').next();
            if base == Some(name) && labels.iter().all(|label| own.contains(label)) {
                sum += value.parse::<f64>()?;
            }
        }
        Ok(sum)
    }

    /// What the clients exchanged with the server under test; empty without a journal.
    pub fn transcript(&self) -> Vec<Exchange> {
        self.journal
            .as_ref()
            .map(|own| own.lock().clone())
            .unwrap_or_default()
    }
}

/// The path of a namespace's ConfigMaps.
pub(super) fn config_maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// A rule for ConfigMaps, for [`Cluster::allow`].
pub(super) fn reading(verbs: &[&str]) -> Value {
    json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs})
}

/// Waits until something is so.
///
/// # Errors
/// When it is not in time, or cannot be found out.
pub(super) async fn until(
    what: &str,
    mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + SOON;
    while !is_so().await? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn admin_page(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    use http_body_util::{BodyExt as _, Empty};
    let stream = tokio::net::TcpStream::connect(address).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    let _driver = tokio_util::task::AbortOnDropHandle::new(driver);
    let request = http::Request::get(path).header("host", "admin");
    let request = request.body(Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let text = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&text).into_owned())
}
