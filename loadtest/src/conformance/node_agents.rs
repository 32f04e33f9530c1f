//! What is beyond the Node authorizer: roles of nodes and of the agents on them, and the moment at
//! which a decision is true.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cluster::config_maps;
use super::machine::{Caller, Node, create_secret, pod, pods, secret};
use super::{Cluster, Identity, Setup};
use crate::client::Request;

const RBAC: &str = "rbac.authorization.k8s.io";
/// Pods that are started one by one, each to be looked after at once.
const STARTS: usize = 30;

/// Binds a role to a subject, in a namespace or in all.
async fn bind(
    cluster: &Cluster,
    namespace: Option<&str>,
    (kind, role): (&str, &str),
    subject: Value,
) -> anyhow::Result<()> {
    let (collection, own) = match namespace {
        Some(namespace) => (
            format!("namespaces/{namespace}/rolebindings"),
            "RoleBinding",
        ),
        None => ("clusterrolebindings".to_owned(), "ClusterRoleBinding"),
    };
    let name = cluster.name(&format!("b{:04x}", fastrand::u16(..)));
    let body = json!({"apiVersion": format!("{RBAC}/v1"), "kind": own, "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role}, "subjects": [subject]});
    cluster
        .create(&format!("/apis/{RBAC}/v1/{collection}"), &body)
        .await?;
    Ok(())
}

/// 69: what the graph does not grant a role can, as kubeadm's for the group of all nodes does.
pub async fn a_role_grants_nodes_what_the_graph_does_not(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let namespace = cluster.namespace("kube").await?;
    for name in ["kubeadm-config", "another"] {
        cluster.config_map(&namespace, name).await?;
    }
    let target = format!("{}/kubeadm-config", config_maps(&namespace));
    own.caller.may_not(&target).await?;
    let role = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role",
        "metadata": {"name": "nodes-kubeadm-config"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"],
            "resourceNames": ["kubeadm-config"]}]});
    let roles = format!("/apis/{RBAC}/v1/namespaces/{namespace}/roles");
    cluster.create(&roles, &role).await?;
    let nodes = json!({"apiGroup": RBAC, "kind": "Group", "name": "system:nodes"});
    let role = ("Role", "nodes-kubeadm-config");
    bind(cluster, Some(&namespace), role, nodes).await?;
    own.caller.may_soon(&target).await?;
    other.caller.may_soon(&target).await?;
    let within = config_maps(&namespace);
    for target in [
        format!("{within}/another"),
        within.clone(),
        format!("{within}?fieldSelector=metadata.name%3Dkubeadm-config"),
    ] {
        own.caller.may_not(&target).await?;
    }
    Ok(())
}

/// 71: who is told of a pod may read what the pod mounts, at once.
pub async fn a_node_told_of_its_pod_reads_what_it_mounts(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.embedded()?; // the graph of a real apiserver hears of pods later than watchers
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
        &allowWatchBookmarks=true";
    let target = format!(
        "/api/v1/pods?fieldSelector=spec.nodeName%3D{}&{query}",
        node.name
    );
    let mut watch = node.caller.client.watch(Request::get(target)).await?;
    ensure!(watch.event_now().await?.ends_initial_events);
    for round in 0..STARTS {
        let name = format!("s{round}");
        create_secret(cluster, &namespace, &name).await?;
        let volumes = json!([{"name": "v", "secret": {"secretName": name}}]);
        let spec = json!({"nodeName": node.name, "volumes": volumes});
        pod(cluster, &namespace, &format!("p{round}"), &spec).await?;
        let event = watch.change().await?;
        ensure!(event.kind == "ADDED", "{event:?}");
        let own = format!("/api/v1/namespaces/{namespace}/secrets");
        let target = format!("{own}?fieldSelector=metadata.name%3D{name}&{query}");
        let mut mounted = node.caller.client.watch(Request::get(target)).await?;
        let event = mounted.event_now().await?;
        ensure!(event.key == format!("{namespace}/{name}"), "{event:?}");
    }
    Ok(())
}

/// Questions about access that reached the apiserver, by review or by being passed through.
fn asked(cluster: &Cluster) -> anyhow::Result<(u64, u64)> {
    let counters = cluster.embedded()?.counters();
    let reviews = counters.requests("create", "authorization.k8s.io", "subjectaccessreviews");
    Ok((reviews, counters.requests("get", "", "secrets")))
}

/// 72: a proxy refuses by itself only what it knows to be as the apiserver knows it; while it hears
/// nothing new, the apiserver is asked and its word given.
pub async fn a_refusal_is_as_fresh_as_the_apiservers(cluster: &Cluster) -> anyhow::Result<()> {
    let decides = cluster.proxy()?.decides;
    cluster.embedded()?;
    let cluster = &cluster.own(Setup::default()).await?;
    let apiserver = cluster.embedded()?;
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    for name in ["first", "second"] {
        create_secret(cluster, &namespace, name).await?;
        let volumes = json!([{"name": "v", "secret": {"secretName": name}}]);
        let spec = json!({"nodeName": node.name, "volumes": volumes});
        if name == "second" {
            // Nothing is heard from here on: neither the pod nor anything else.
            apiserver.lag(true);
        }
        pod(cluster, &namespace, name, &spec).await?;
        if name == "first" {
            node.caller.may_soon(&secret(&namespace, name)).await?;
            let before = asked(cluster)?;
            for _ in 0..5 {
                node.caller
                    .is_refused(&secret(&namespace, "nobodys"))
                    .await?;
            }
            let after = asked(cluster)?;
            ensure!(
                !decides || after == before,
                "asked: {before:?}, then {after:?}"
            );
        }
    }
    let before = asked(cluster)?;
    let answer = node
        .caller
        .client
        .get(&secret(&namespace, "second"))
        .await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let between = asked(cluster)?;
    ensure!(between > before, "not asked: {before:?}");
    node.caller
        .is_refused(&secret(&namespace, "nobodys"))
        .await?;
    ensure!(asked(cluster)? > between, "not asked: {between:?}");
    // What the node may read but is not there is as uncertain.
    let absent = "absent";
    let volumes = json!([{"name": "v", "secret": {"secretName": absent}}]);
    let spec = json!({"nodeName": node.name, "volumes": volumes});
    pod(cluster, &namespace, "third", &spec).await?;
    create_secret(cluster, &namespace, absent).await?;
    let answer = node.caller.client.get(&secret(&namespace, absent)).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    apiserver.lag(false);
    node.caller.may_soon(&secret(&namespace, absent)).await
}

/// 73: kube-proxy reads by its role, as the user it may be and as a service account; a role with
/// names grants lists of them.
pub async fn kube_proxy_reads_by_its_role(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "kube-proxy"}});
    cluster.create(&accounts, &account).await?;
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600}});
    let token = cluster
        .create(&format!("{accounts}/kube-proxy/token"), &token)
        .await?;
    let token = token["status"]["token"].as_str().context("no token")?;
    let subject = json!({"kind": "ServiceAccount", "namespace": namespace, "name": "kube-proxy"});
    bind(
        cluster,
        None,
        ("ClusterRole", "system:node-proxier"),
        subject.clone(),
    )
    .await?;
    let by_token = Identity::anonymous().with_token(token);
    let node = cluster.name("n1");
    for identity in [cluster.user("system:kube-proxy", None)?, by_token.clone()] {
        let caller = Caller::new(cluster, &identity)?;
        let own = format!("/api/v1/nodes?fieldSelector=metadata.name%3D{node}");
        for target in [
            "/api/v1/services?labelSelector=%21service.kubernetes.io/service-proxy-name\
             &fieldSelector=spec.clusterIP!%3DNone",
            "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=\
             %21service.kubernetes.io/headless",
            "/apis/networking.k8s.io/v1/servicecidrs?limit=500",
            &own,
            "/api/v1/nodes?limit=500",
            "/api/v1/endpoints?limit=500",
        ] {
            caller.may_soon(target).await?;
            caller
                .may(&format!("{target}&watch=1&timeoutSeconds=1"))
                .await?;
        }
        caller.may(&format!("/api/v1/nodes/{node}")).await?;
        for target in [
            format!("/api/v1/namespaces/{namespace}/services/x"),
            "/api/v1/pods".to_owned(),
            format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"),
            format!("/api/v1/namespaces/{namespace}/secrets"),
            format!("/api/v1/nodes/{node}/status"),
        ] {
            caller.may_not(&target).await?;
        }
    }
    named(cluster, &namespace, &by_token, subject).await
}

/// A service account with a role for one name.
async fn named(
    cluster: &Cluster,
    namespace: &str,
    identity: &Identity,
    subject: Value,
) -> anyhow::Result<()> {
    let role = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role",
        "metadata": {"name": "one"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["x"],
            "verbs": ["get", "list", "watch"]}]});
    cluster
        .create(
            &format!("/apis/{RBAC}/v1/namespaces/{namespace}/roles"),
            &role,
        )
        .await?;
    bind(cluster, Some(namespace), ("Role", "one"), subject).await?;
    let (caller, within) = (Caller::new(cluster, identity)?, config_maps(namespace));
    for target in [
        format!("{within}/x"),
        format!("{within}?fieldSelector=metadata.name%3Dx"),
        format!("{within}?fieldSelector=metadata.name%3Dx&watch=1&timeoutSeconds=1"),
    ] {
        caller.may_soon(&target).await?;
    }
    for target in ["/y", "", "?watch=1", "?fieldSelector=metadata.name%3Dy"] {
        caller.may_not(&format!("{within}{target}")).await?;
    }
    caller.may_not(&pods(namespace)).await
}
