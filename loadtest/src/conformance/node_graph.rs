//! What a node may because of what runs on it: the ways from an object to a pod bound to it.

use anyhow::ensure;
use serde_json::{Value, json};

use super::Cluster;
use super::machine::{Node, annotated_pod, create_secret, pod, pods, remove_pod, secret};
use crate::client::Request;

/// The path of a ConfigMap.
fn config_map(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

/// Every place of a pod that can mention a secret, with a secret named after the place. What is
/// added to a container later is missing.
fn mentions_secrets(node: &str) -> (Value, Vec<&'static str>) {
    let reference = |name: &str| json!({"name": name});
    let variable = |name: &str| json!([{"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
    let volumes = json!([
        {"name": "secret", "secret": {"secretName": "volume"}},
        {"name": "projected", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
        {"name": "azure-file", "azureFile": {"secretName": "azure-file", "shareName": "s"}},
        {"name": "cephfs", "cephfs": {"monitors": ["m"], "secretRef": reference("cephfs")}},
        {"name": "cinder", "cinder": {"volumeID": "v", "secretRef": reference("cinder")}},
        {"name": "flex", "flexVolume": {"driver": "x/y", "secretRef": reference("flex")}},
        {"name": "rbd", "rbd": {"monitors": ["m"], "image": "i", "secretRef": reference("rbd")}},
        {"name": "scale-io", "scaleIO": {"gateway": "https://g", "system": "s",
            "volumeName": "v", "secretRef": reference("scale-io")}},
        {"name": "iscsi", "iscsi": {"targetPortal": "10.0.0.1:3260", "lun": 0,
            "iqn": "iqn.2001-04.com.example:storage", "secretRef": reference("iscsi")}},
        {"name": "storageos", "storageos": {"volumeName": "v", "volumeNamespace": "n",
            "secretRef": reference("storageos")}},
        {"name": "csi", "csi": {"driver": "csi.example.com",
            "nodePublishSecretRef": reference("csi")}},
    ]);
    let spec = json!({
        "nodeName": node,
        "imagePullSecrets": [reference("pull")],
        "initContainers": [{"name": "i", "image": "img:1", "env": variable("init-env"),
            "envFrom": [{"secretRef": reference("init-env-from")}]}],
        "containers": [{"name": "c", "image": "img:1", "env": variable("env"),
            "envFrom": [{"secretRef": reference("env-from")}]}],
        "volumes": volumes,
    });
    let names = vec![
        "volume",
        "projected",
        "azure-file",
        "cephfs",
        "cinder",
        "flex",
        "rbd",
        "scale-io",
        "iscsi",
        "storageos",
        "csi",
        "pull",
        "init-env",
        "init-env-from",
        "env",
        "env-from",
    ];
    (spec, names)
}

/// 58: wherever a pod can mention a secret, its node may read the secret; by name only, and no
/// other node may.
pub async fn a_secret_is_read_wherever_the_pod_mentions_it(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let namespace = cluster.namespace("a").await?;
    let (spec, names) = mentions_secrets(&own.name);
    pod(cluster, &namespace, "p", &spec).await?;
    let collection = format!("/api/v1/namespaces/{namespace}/secrets");
    for name in names {
        let target = secret(&namespace, name);
        own.caller.may_soon(&target).await?;
        let named = format!("{collection}?fieldSelector=metadata.name%3D{name}");
        own.caller.may(&named).await?;
        own.caller
            .may(&format!("{named}&watch=1&timeoutSeconds=1"))
            .await?;
        other.caller.may_not(&target).await?;
        // A name means the kind of object it was mentioned as.
        own.caller.may_not(&config_map(&namespace, name)).await?;
    }
    for target in [
        "/nobodys",
        "",
        "?watch=1",
        "?fieldSelector=metadata.name%3Dnobodys",
        "?labelSelector=metadata.name%3Dvolume",
        "?fieldSelector=metadata.name!%3Dvolume",
        "?fieldSelector=type%3DOpaque",
    ] {
        own.caller.may_not(&format!("{collection}{target}")).await?;
    }
    own.caller
        .may_not("/api/v1/secrets?fieldSelector=metadata.name%3Dvolume")
        .await?;

    // A container that is added while the pod runs mentions one more.
    let late = secret(&namespace, "late");
    own.caller.may_not(&late).await?;
    let container = json!({"name": "e", "image": "img:1", "targetContainerName": "c",
        "envFrom": [{"secretRef": {"name": "late"}}]});
    let target = format!("{}/p/ephemeralcontainers", pods(&namespace));
    let change = json!({"spec": {"ephemeralContainers": [container]}});
    cluster.change("PATCH", &target, &change).await?;
    own.caller.may_soon(&late).await?;
    other.caller.may_not(&late).await
}

/// 58: so with ConfigMaps.
pub async fn a_config_map_is_read_wherever_the_pod_mentions_it(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let namespace = cluster.namespace("a").await?;
    let variable = json!([{"name": "V",
        "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}}]);
    let spec = json!({
        "nodeName": own.name,
        "initContainers": [{"name": "i", "image": "img:1",
            "envFrom": [{"configMapRef": {"name": "init"}}]}],
        "containers": [{"name": "c", "image": "img:1", "env": variable,
            "envFrom": [{"configMapRef": {"name": "env-from"}}]}],
        "volumes": [
            {"name": "config", "configMap": {"name": "volume"}},
            {"name": "projected", "projected": {"sources": [{"configMap": {"name": "projected"}}]}},
        ],
    });
    pod(cluster, &namespace, "p", &spec).await?;
    for name in ["env", "init", "env-from", "volume", "projected"] {
        let target = config_map(&namespace, name);
        own.caller.may_soon(&target).await?;
        other.caller.may_not(&target).await?;
        own.caller.may_not(&secret(&namespace, name)).await?;
    }
    own.caller.may_not(&config_map(&namespace, "nobodys")).await
}

/// A persistent volume with these secrets, bound to a claim or to none.
async fn volume(
    cluster: &Cluster,
    name: &str,
    claim: Option<(&str, &str)>,
    csi: &Value,
) -> anyhow::Result<String> {
    let mut csi = csi.clone();
    csi["driver"] = json!("csi.example.com");
    csi["volumeHandle"] = json!("h");
    let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "csi": csi});
    if let Some((namespace, name)) = claim {
        spec["claimRef"] = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "namespace": namespace, "name": name});
    }
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name}, "spec": spec});
    cluster.create("/api/v1/persistentvolumes", &volume).await?;
    Ok(format!("/api/v1/persistentvolumes/{name}"))
}

/// A pod on a node that mounts a claim.
async fn mounts(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    (node, claim): (&Node, &str),
) -> anyhow::Result<()> {
    let volume = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    let spec = json!({"nodeName": node.name, "volumes": volume});
    pod(cluster, namespace, name, &spec).await
}

/// 59: the secrets a kubelet needs for a volume are reached through volume and claim; those of the
/// controllers are not.
pub async fn a_secret_is_reached_through_volume_and_claim(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let (namespace, vault) = (cluster.namespace("a").await?, cluster.namespace("v").await?);
    mounts(cluster, (&namespace, "mine"), (&own, "c")).await?;
    mounts(cluster, (&namespace, "theirs"), (&other, "d")).await?;
    let reference = |name: &str| json!({"name": name, "namespace": vault});
    let csi = json!({
        "nodeStageSecretRef": reference("stage"), "nodePublishSecretRef": reference("publish"),
        "nodeExpandSecretRef": reference("expand"),
        "controllerPublishSecretRef": reference("controller-publish"),
        "controllerExpandSecretRef": reference("controller-expand"),
    });
    let name = cluster.name("pv");
    let own_volume = volume(cluster, &name, Some((&namespace, "c")), &csi).await?;
    let unbound = json!({"nodeStageSecretRef": reference("unbound")});
    let unbound = volume(cluster, &cluster.name("loose"), None, &unbound).await?;
    for target in [
        own_volume.clone(),
        secret(&vault, "stage"),
        secret(&vault, "publish"),
        secret(&vault, "expand"),
        format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/c"),
    ] {
        own.caller.may_soon(&target).await?;
        other.caller.may_not(&target).await?;
    }
    for target in [
        secret(&vault, "controller-publish"),
        secret(&vault, "controller-expand"),
        secret(&namespace, "stage"),
        secret(&vault, "unbound"),
        unbound,
        "/api/v1/persistentvolumes".to_owned(),
        format!("/api/v1/persistentvolumes?fieldSelector=metadata.name%3D{name}"),
        format!("{own_volume}/status"),
    ] {
        own.caller.may_not(&target).await?;
    }
    Ok(())
}

/// 60: a mirror pod grants its node itself and nothing that it mentions.
pub async fn a_mirror_pod_grants_nothing_but_itself(cluster: &Cluster) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    let spec = json!({"nodeName": node.name, "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"name": "c", "image": "img:1",
            "envFrom": [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "m"}}]}]});
    let mirror = json!({"kubernetes.io/config.mirror": "hash"});
    annotated_pod(cluster, (&namespace, "static"), &spec, &mirror).await?;
    node.caller
        .may_soon(&format!("{}/static", pods(&namespace)))
        .await?;
    for target in [
        secret(&namespace, "s"),
        secret(&namespace, "pull"),
        config_map(&namespace, "m"),
        format!("/api/v1/namespaces/{namespace}/serviceaccounts/default"),
    ] {
        node.caller.may_not(&target).await?;
    }
    Ok(())
}

/// 61: a pod that has ended grants what it granted; one that is deleted nothing more, but a watch
/// that runs goes on.
pub async fn a_pod_grants_until_it_is_deleted(cluster: &Cluster) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    create_secret(cluster, &namespace, "s").await?;
    let volumes = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    let spec = json!({"nodeName": node.name, "volumes": volumes});
    pod(cluster, &namespace, "p", &spec).await?;
    let target = secret(&namespace, "s");
    node.caller.may_soon(&target).await?;
    let status = format!("{}/p/status", pods(&namespace));
    let ended = json!({"status": {"phase": "Succeeded"}});
    cluster.change("PATCH", &status, &ended).await?;
    node.caller.may(&target).await?;

    let query = "watch=1&fieldSelector=metadata.name%3Ds&sendInitialEvents=true\
        &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let watching = format!("/api/v1/namespaces/{namespace}/secrets?{query}");
    let mut watch = node.caller.client.watch(Request::get(&watching)).await?;
    let first = watch.event_now().await?;
    ensure!(first.kind == "ADDED", "{first:?}");
    ensure!(watch.event_now().await?.ends_initial_events);
    remove_pod(cluster, &namespace, "p").await?;
    node.caller.may_not_soon(&target).await?;
    node.caller.may_not(&watching).await?;
    let change = json!({"stringData": {"k": "v"}});
    cluster.change("PATCH", &target, &change).await?;
    let event = watch.change().await?;
    ensure!(event.kind == "MODIFIED", "{event:?}");
    Ok(())
}

/// 62: a volume that is let go of grants nothing more; a claim is granted by the pod alone, before
/// there is a volume or even the claim.
pub async fn a_volume_grants_while_it_is_claimed(cluster: &Cluster) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    mounts(cluster, (&namespace, "p"), (&node, "c")).await?;
    let claim = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/c");
    node.caller.may_soon(&claim).await?;
    let name = cluster.name("pv");
    node.caller
        .may_not(&format!("/api/v1/persistentvolumes/{name}"))
        .await?;
    let csi = json!({"nodeStageSecretRef": {"name": "s", "namespace": namespace}});
    let path = volume(cluster, &name, Some((&namespace, "c")), &csi).await?;
    let needed = secret(&namespace, "s");
    node.caller.may_soon(&path).await?;
    node.caller.may(&needed).await?;

    let released = json!({"spec": {"claimRef": null}});
    cluster.change("PATCH", &path, &released).await?;
    node.caller.may_not_soon(&path).await?;
    node.caller.may_not(&needed).await?;
    node.caller.may(&claim).await?;
    let bound = json!({"spec": {"claimRef": {"namespace": namespace, "name": "c",
        "kind": "PersistentVolumeClaim", "apiVersion": "v1"}}});
    cluster.change("PATCH", &path, &bound).await?;
    node.caller.may_soon(&needed).await?;
    cluster.change("DELETE", &path, &json!({})).await?;
    Ok(())
}

/// 63: claims that are made for a pod are reached by the names they get: one by the volume's, one
/// by what is written into the pod's status.
pub async fn a_claim_made_for_a_pod_is_reached_by_its_name(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let namespace = cluster.namespace("a").await?;
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let spec = json!({
        "nodeName": own.name,
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}],
        "resourceClaims": [
            {"name": "given", "resourceClaimName": "shared-gpu"},
            {"name": "made", "resourceClaimTemplateName": "gpu"},
        ],
    });
    pod(cluster, &namespace, "p", &spec).await?;
    let claims = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims");
    let devices = format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims");
    for target in [
        format!("{claims}/p-scratch"),
        format!("{devices}/shared-gpu"),
    ] {
        own.caller.may_soon(&target).await?;
        other.caller.may_not(&target).await?;
    }
    let made = format!("{devices}/p-made-x7k2");
    for target in [
        made.clone(),
        format!("{claims}/scratch"),
        format!("{devices}/gpu"),
        format!("{devices}/made"),
        devices.clone(),
        format!("{devices}?fieldSelector=metadata.name%3Dshared-gpu"),
        format!("{devices}/shared-gpu/status"),
    ] {
        own.caller.may_not(&target).await?;
    }
    let statuses = json!([{"name": "made", "resourceClaimName": "p-made-x7k2"}]);
    let change = json!({"status": {"resourceClaimStatuses": statuses}});
    cluster
        .change("PATCH", &format!("{}/p/status", pods(&namespace)), &change)
        .await?;
    own.caller.may_soon(&made).await?;
    other.caller.may_not(&made).await
}

/// 65: a node reads the service accounts that its pods run as, one by one, and asks for tokens of
/// them.
pub async fn a_node_reads_the_accounts_its_pods_run_as(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let namespace = cluster.namespace("a").await?;
    let spec = json!({"nodeName": own.name, "serviceAccountName": "robot"});
    pod(cluster, &namespace, "p", &spec).await?;
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    own.caller.may_soon(&format!("{accounts}/robot")).await?;
    other.caller.may_not(&format!("{accounts}/robot")).await?;
    for target in ["/person", "", "?watch=1"] {
        own.caller.may_not(&format!("{accounts}{target}")).await?;
    }
    for (verb, name, subresource, allowed) in [
        ("create", "robot", "token", true),
        ("create", "person", "token", false),
        ("create", "", "token", false),
        ("create", "robot", "", false),
        ("get", "robot", "token", false),
        ("update", "robot", "", false),
    ] {
        let attributes = json!({"verb": verb, "version": "v1", "namespace": namespace,
            "resource": "serviceaccounts", "name": name, "subresource": subresource});
        let decided = own.review(cluster, &attributes).await?;
        ensure!(decided == allowed, "{verb} {name}/{subresource}");
    }
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    let mut paths = Vec::new();
    for node in [&own, &other] {
        let name = format!("{}-va", node.name);
        let source = json!({"persistentVolumeName": "pv"});
        let body = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
            "metadata": {"name": name},
            "spec": {"attacher": "csi.example.com", "nodeName": node.name, "source": source}});
        cluster.create(attachments, &body).await?;
        paths.push(format!("{attachments}/{name}"));
    }
    // As with what is attached to a node: it is read by name.
    own.caller.may_soon(&paths[0]).await?;
    own.caller.may_not(&paths[1]).await?;
    own.caller.may_not(attachments).await
}
