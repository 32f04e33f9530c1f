//! What nodes may read.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Cluster;
use super::cluster::until;
use super::expect::expect_forbidden;
use super::machine::{Node, pod, review};
use crate::client::{JSON, PROTOBUF, Request};

/// What the apiserver's authorizers say when a user is refused something.
async fn reason(cluster: &Cluster, user: &str, attributes: &Value) -> anyhow::Result<String> {
    let groups = ["system:nodes", "system:authenticated"];
    let status = review(cluster, user, &groups, attributes).await?;
    ensure!(status["allowed"] == false, "{attributes}: {status}");
    Ok(status["reason"].as_str().unwrap_or_default().to_owned())
}

/// Two pods: `mine` is bound to the node, `theirs` to another.
async fn two_pods(cluster: &Cluster, node: &Node) -> anyhow::Result<String> {
    let namespace = cluster.namespace("a").await?;
    pod(cluster, &namespace, "mine", &json!({"nodeName": node.name})).await?;
    pod(
        cluster,
        &namespace,
        "theirs",
        &json!({"nodeName": cluster.name("n2")}),
    )
    .await?;
    Ok(namespace)
}

/// 135: without `spec.nodeName` equal to its own name a node lists and watches no pods; a selector
/// that is lost on the way is none.
pub async fn a_node_sees_no_pods_of_others(cluster: &Cluster) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = two_pods(cluster, &node).await?;
    let (own, user, other) = (&node.name, &node.user, cluster.name("n2"));
    let listing = json!({"verb": "list", "resource": "pods", "version": "v1"});
    let why = reason(cluster, user, &listing).await?;
    ensure!(why.ends_with("can only list/watch pods with spec.nodeName field selector"));
    for query in [
        String::new(),
        format!("fieldSelector=spec.nodeName%3D{other}"),
        format!("fieldSelector=spec.nodeName!%3D{own}"),
        format!("fieldSelector=spec.host%3D{own}"),
        format!("fieldSelector=spec.nodeName%3D{own};x=y"),
        format!("fieldSelector=spec.nodeName%3D{own}%zz"),
        format!("fieldSelector=spec.nodeName%3D{own},bogus"),
        format!("fieldSelector=spec.nodeName%3D{other}&fieldSelector=spec.nodeName%3D{own}"),
    ] {
        for (verb, watch) in [("list", ""), ("watch", "&watch=1")] {
            let query = format!("?{query}{watch}");
            let inside = format!("in the namespace \"{namespace}\"");
            let collection = format!("/api/v1/namespaces/{namespace}/pods");
            for (collection, scope) in [
                ("/api/v1/pods", "at the cluster scope"),
                (&*collection, &*inside),
            ] {
                let answer = node
                    .caller
                    .client
                    .get(&format!("{collection}{query}"))
                    .await?;
                let message = format!(
                    "pods is forbidden: User \"{user}\" cannot {verb} resource \"pods\" in API \
                     group \"\" {scope}: {why}"
                );
                expect_forbidden(&answer, &message, r#"{"kind":"pods"}"#)
                    .with_context(|| query.clone())?;
            }
        }
    }
    // Under the old prefix selectors are not authorised.
    let legacy = format!("/api/v1/watch/pods?fieldSelector=spec.nodeName%3D{own}");
    ensure!(node.caller.client.get(&legacy).await?.status == 403);

    let theirs = json!({"verb": "get", "resource": "pods", "version": "v1",
        "namespace": namespace, "name": "theirs"});
    let why = reason(cluster, user, &theirs).await?;
    let message = format!(
        "pods \"theirs\" is forbidden: User \"{user}\" cannot get resource \"pods\" in API group \
         \"\" in the namespace \"{namespace}\": {why}"
    );
    let target = format!("/api/v1/namespaces/{namespace}/pods/theirs");
    let answer = node.caller.client.get(&target).await?;
    expect_forbidden(&answer, &message, r#"{"name":"theirs","kind":"pods"}"#)
}

/// 135: with its own name a node sees the pods bound to it, and each of them by name.
pub async fn a_node_sees_the_pods_bound_to_it(cluster: &Cluster) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = two_pods(cluster, &node).await?;
    let (name, other) = (&node.name, cluster.name("n2"));
    let own = format!("/api/v1/namespaces/{namespace}/pods");
    let is_mine = |list: Value| {
        let items = list["items"].as_array();
        items.is_some_and(|own| own.len() == 1 && own[0]["metadata"]["name"] == "mine")
    };
    for query in [
        format!("fieldSelector=spec.nodeName%3D{name}"),
        format!("fieldSelector=spec.nodeName%3D%3D{name}"),
        format!("fieldSelector=spec.nodeName%3D{name},status.phase%3DPending"),
        format!("fieldSelector=spec.nodeName%3D{name}&fieldSelector=spec.nodeName%3D{other}"),
    ] {
        for collection in ["/api/v1/pods", &own] {
            let target = format!("{collection}?{query}");
            let list = node.caller.client.get(&target).await?.ok();
            ensure!(is_mine(list.with_context(|| query.clone())?), "{query}");
            let mut watch = node
                .caller
                .client
                .watch(Request::get(format!("{target}&watch=1")))
                .await?;
            ensure!(watch.change().await?.key == format!("{namespace}/mine"));
        }
    }
    // Which pods are a node's own is known a moment after they are bound.
    let named = format!("{own}?fieldSelector=metadata.name%3Dmine");
    until("the pod is known to be the node's", async || {
        Ok(node.caller.client.get(&named).await?.status == 200)
    })
    .await?;
    ensure!(is_mine(node.caller.client.get(&named).await?.ok()?));
    node.caller.client.get(&format!("{own}/mine")).await?.ok()?;
    Ok(())
}

/// Two Secrets in a namespace, `s1` mounted by a pod of the node, which is known by now.
async fn two_secrets(cluster: &Cluster, node: &Node) -> anyhow::Result<String> {
    let namespace = cluster.namespace("a").await?;
    let collection = format!("/api/v1/namespaces/{namespace}/secrets");
    for name in ["s1", "s2"] {
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        cluster.create(&collection, &body).await?;
    }
    let target = format!("{collection}/s1");
    ensure!(node.caller.client.get(&target).await?.status == 403);
    let spec = json!({"nodeName": node.name,
        "volumes": [{"name": "v", "secret": {"secretName": "s1"}}]});
    pod(cluster, &namespace, "p", &spec).await?;
    until("the secret is known to be mounted", async || {
        Ok(node.caller.client.get(&target).await?.status == 200)
    })
    .await?;
    Ok(namespace)
}

/// 136: a node reads what its pods mount one by one, by name, however it asks.
pub async fn a_node_reads_by_name_what_its_pods_mount(cluster: &Cluster) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = two_secrets(cluster, &node).await?;
    let own = format!("/api/v1/namespaces/{namespace}/secrets");
    for target in [
        format!("{own}?fieldSelector=metadata.name%3Ds1"),
        format!("{own}?fieldSelector=metadata.name%3Ds1,metadata.name%3Ds2"),
        format!("{own}/s1?resourceVersion=0"),
    ] {
        for accept in [JSON, PROTOBUF] {
            let request = Request::get(&target).header("accept", accept);
            let answer = node.caller.client.whole(request).await?;
            let content_type = answer.header("content-type");
            ensure!(
                (answer.status, content_type) == (200, accept),
                "{target}: {answer:?}"
            );
        }
    }
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
        &allowWatchBookmarks=true&fieldSelector=metadata.name%3Ds1";
    for accept in [JSON, PROTOBUF] {
        let request = Request::get(format!("{own}?{query}")).header("accept", accept);
        let mut watch = node.caller.client.watch(request).await?;
        let event = watch.event_now().await?;
        ensure!((&*event.kind, event.key) == ("ADDED", format!("{namespace}/s1")));
        ensure!(watch.event_now().await?.ends_initial_events);
    }
    Ok(())
}

/// 136: what its pods do not mount, and all there is, a node does not read.
pub async fn a_node_reads_nothing_its_pods_do_not_mount(cluster: &Cluster) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = two_secrets(cluster, &node).await?;
    let own = format!("/api/v1/namespaces/{namespace}/secrets");
    for (query, verb, name) in [
        ("", "list", ""),
        ("?watch=1", "watch", ""),
        ("?fieldSelector=metadata.name%3Ds2", "list", "s2"),
        ("?fieldSelector=metadata.name%3Ds2&watch=1", "watch", "s2"),
        ("?fieldSelector=metadata.name%3Ds1;&watch=1", "watch", ""),
        ("/s2", "get", "s2"),
    ] {
        let attributes = json!({"verb": verb, "resource": "secrets", "version": "v1",
            "namespace": namespace, "name": name});
        let why = reason(cluster, &node.user, &attributes).await?;
        let (quoted, details) = match name {
            "" => (String::new(), r#"{"kind":"secrets"}"#),
            _ => (format!(" \"{name}\""), r#"{"name":"s2","kind":"secrets"}"#),
        };
        let message = format!(
            "secrets{quoted} is forbidden: User \"{}\" cannot {verb} resource \"secrets\" in API \
             group \"\" in the namespace \"{namespace}\": {why}",
            node.user
        );
        let answer = node.caller.client.get(&format!("{own}{query}")).await?;
        expect_forbidden(&answer, &message, details).with_context(|| query)?;
    }
    let everywhere = "/api/v1/secrets?fieldSelector=metadata.name%3Ds1";
    ensure!(node.caller.client.get(everywhere).await?.status == 403);
    Ok(())
}
