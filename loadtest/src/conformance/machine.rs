//! A node as it meets a server: who it is, what it asks, and what runs on it.
//!
//! Owns the judgement of one question: granted is whatever is no 403, refused is a 403 in the words
//! the apiserver itself has for the same request. Refuses to wait where nothing changes: a graph is
//! told of objects a moment after they are written, so only what a write brought about is waited
//! for.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cluster::until;
use super::{Cluster, Identity};
use crate::client::{Answer, Client, Request};

/// A caller at the server under test and at the apiserver itself.
pub(super) struct Caller {
    /// At the server under test.
    pub(super) client: Client,
    direct: Client,
}

impl Caller {
    /// A caller with this identity.
    ///
    /// # Errors
    /// When the certificate is unusable.
    pub(super) fn new(cluster: &Cluster, identity: &Identity) -> anyhow::Result<Self> {
        Ok(Self {
            client: cluster.client(identity)?,
            direct: cluster.directly(identity)?,
        })
    }

    /// It may read this, there or not.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) async fn may(&self, target: &str) -> anyhow::Result<()> {
        let status = self.status(target).await?;
        ensure!(matches!(status, 200 | 404), "{target}: {status}");
        Ok(())
    }

    /// It may read this as soon as what was written is known.
    ///
    /// # Errors
    /// When it does not come to that.
    pub(super) async fn may_soon(&self, target: &str) -> anyhow::Result<()> {
        until(target, async || {
            Ok(matches!(self.status(target).await?, 200 | 404))
        })
        .await
    }

    /// It may not read this, in the apiserver's own words.
    ///
    /// # Errors
    /// When it may, or the words are others.
    pub(super) async fn may_not(&self, target: &str) -> anyhow::Result<()> {
        let answer = self.client.get(target).await?;
        ensure!(answer.status == 403, "{target}: {}", answer.text());
        self.is_the_apiservers(target, &answer).await
    }

    /// It may not read this; the apiserver is not asked for its words.
    ///
    /// # Errors
    /// When it may.
    pub(super) async fn is_refused(&self, target: &str) -> anyhow::Result<()> {
        let status = self.status(target).await?;
        ensure!(status == 403, "{target}: {status}");
        Ok(())
    }

    /// It may no longer read this as soon as what was written is known.
    ///
    /// # Errors
    /// When it does not come to that, or the words are others.
    pub(super) async fn may_not_soon(&self, target: &str) -> anyhow::Result<()> {
        until(target, async || Ok(self.status(target).await? == 403)).await?;
        self.may_not(target).await
    }

    /// The answer is the apiserver's own to the same request, refusals included.
    ///
    /// # Errors
    /// When they differ.
    pub(super) async fn is_the_apiservers(
        &self,
        target: &str,
        answer: &Answer,
    ) -> anyhow::Result<()> {
        let direct = self.direct.get(target).await?;
        let parts = |own: &Answer| {
            (
                own.status,
                own.header("content-type").to_owned(),
                own.text(),
            )
        };
        let (own, theirs) = (parts(answer), parts(&direct));
        ensure!(own == theirs, "{target}: {own:?}, and directly {theirs:?}");
        Ok(())
    }

    async fn status(&self, target: &str) -> anyhow::Result<u16> {
        let open = self.client.send(Request::get(target)).await?;
        Ok(open.status())
    }
}

/// A node of this case.
pub(super) struct Node {
    /// Its name.
    pub(super) name: String,
    /// Its user.
    pub(super) user: String,
    /// Asks as it.
    pub(super) caller: Caller,
}

impl Node {
    /// A node whose name ends like this; no Node object is made.
    ///
    /// # Errors
    /// When the certificate cannot be issued.
    pub(super) fn new(cluster: &Cluster, suffix: &str) -> anyhow::Result<Self> {
        let name = cluster.name(suffix);
        let identity = Identity::of(cluster.pki().issue_node(&name)?);
        Ok(Self {
            user: format!("system:node:{name}"),
            caller: Caller::new(cluster, &identity)?,
            name,
        })
    }

    /// The apiserver's review of what it asks.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn review(
        &self,
        cluster: &Cluster,
        attributes: &Value,
    ) -> anyhow::Result<bool> {
        let groups = ["system:nodes", "system:authenticated"];
        let status = review(cluster, &self.user, &groups, attributes).await?;
        let allowed = status["allowed"].as_bool();
        allowed.with_context(|| status.to_string())
    }
}

/// The status of a SubjectAccessReview at the apiserver.
///
/// # Errors
/// When it is refused.
pub(super) async fn review(
    cluster: &Cluster,
    user: &str,
    groups: &[&str],
    attributes: &Value,
) -> anyhow::Result<Value> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes}});
    let target = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    Ok(cluster.create(target, &review).await?["status"].take())
}

/// Creates a pod out of the parts of a spec that matter; its container is added where there is none.
///
/// # Errors
/// When it is refused.
pub(super) async fn pod(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    spec: &Value,
) -> anyhow::Result<()> {
    annotated_pod(cluster, (namespace, name), spec, &json!({})).await
}

/// The same, with annotations.
///
/// # Errors
/// When it is refused.
pub(super) async fn annotated_pod(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    spec: &Value,
    annotations: &Value,
) -> anyhow::Result<()> {
    let mut spec = spec.clone();
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c", "image": "img:1"}]);
    }
    spec["automountServiceAccountToken"] = json!(false);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "annotations": annotations}});
    cluster.create(&pods(namespace), &pod).await?;
    Ok(())
}

/// Deletes a pod, at once.
///
/// # Errors
/// When it is refused.
pub(super) async fn remove_pod(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> anyhow::Result<()> {
    let target = format!("{}/{name}?gracePeriodSeconds=0", pods(namespace));
    cluster.change("DELETE", &target, &json!({})).await?;
    Ok(())
}

/// The path of a namespace's pods.
pub(super) fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// The path of a Secret.
pub(super) fn secret(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

/// Creates a Secret.
///
/// # Errors
/// When it is refused.
pub(super) async fn create_secret(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> anyhow::Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    let collection = format!("/api/v1/namespaces/{namespace}/secrets");
    cluster.create(&collection, &body).await?;
    Ok(())
}
