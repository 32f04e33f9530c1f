//! What a node may whatever runs on it: itself, its pods by selector, what all nodes share.

use anyhow::ensure;
use serde_json::{Value, json};

use super::machine::{Caller, Node, pod, pods, review};
use super::{Cluster, Identity};
use crate::client::{Protocol, Request};

/// 55: a node is who has the prefix, the group and a name; nobody else is one.
pub async fn only_prefix_and_group_together_make_a_node(cluster: &Cluster) -> anyhow::Result<()> {
    let (name, dotted) = (cluster.name("n1"), cluster.name("n.1.example.com"));
    let services = "/api/v1/services?limit=1";
    for (user, group, is_node) in [
        (format!("system:node:{name}"), Some("system:nodes"), true),
        (format!("system:node:{dotted}"), Some("system:nodes"), true),
        (format!("system:node:{name}"), None, false),
        (format!("system:node:{name}"), Some("system:node"), false),
        (name.clone(), Some("system:nodes"), false),
        (format!("system:nodes:{name}"), Some("system:nodes"), false),
        (format!("System:Node:{name}"), Some("system:nodes"), false),
        ("system:node:".to_owned(), Some("system:nodes"), false),
    ] {
        let node = user.rsplit(':').next().unwrap_or_default();
        let own = format!("/api/v1/nodes?fieldSelector=metadata.name%3D{node}");
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let identity = cluster.user(&user, group)?;
            let client = cluster.client_over(&identity, protocol)?;
            let caller = Caller::new(cluster, &identity)?;
            for target in [services, &own] {
                let answer = client.get(target).await?;
                let expected = if is_node { 200 } else { 403 };
                ensure!(answer.status == expected, "{user} {group:?}: {answer:?}");
                if !is_node {
                    caller.is_the_apiservers(target, &answer).await?;
                }
            }
        }
    }
    // Other groups beside it change nothing. A certificate of the suite has one group at most.
    let attributes = json!({"verb": "get", "resource": "nodes", "version": "v1", "name": name});
    let user = format!("system:node:{name}");
    for (groups, is_node) in [
        (
            &["a", "system:nodes", "system:authenticated", "b"][..],
            true,
        ),
        (&["system:authenticated", "a"], false),
    ] {
        let status = review(cluster, &user, groups, &attributes).await?;
        ensure!(status["allowed"] == is_node, "{groups:?}: {status}");
        let request = Request::get(format!("/api/v1/nodes/{name}"));
        let request = request.header("impersonate-user", &user);
        let request = groups.iter().fold(request, |request, group| {
            request.header("impersonate-group", *group)
        });
        let answer = cluster.admin().whole(request).await?;
        let expected = if is_node { 404 } else { 403 };
        ensure!(answer.status == expected, "{groups:?}: {answer:?}");
    }
    Ok(())
}

/// 56: a node reads the Node of its own name, there or not, however it names it; all nodes it does
/// not, and under the old prefix no selector names one.
pub async fn a_node_reads_its_own_node_by_name(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let granted = async |node: &Node, name: &str| {
        for target in [
            format!("/api/v1/nodes/{name}"),
            format!("/api/v1/nodes/{name}?resourceVersion=0"),
            format!("/api/v1/nodes?fieldSelector=metadata.name%3D{name}"),
            format!("/api/v1/nodes?fieldSelector=metadata.name%3D%3D{name}"),
            format!("/api/v1/nodes?fieldSelector=metadata.name%3D{name}&watch=1&timeoutSeconds=1"),
            format!("/api/v1/watch/nodes/{name}?timeoutSeconds=1"),
        ] {
            node.caller.may(&target).await?;
        }
        anyhow::Ok(())
    };
    granted(&own, &own.name).await?; // before there is such a node
    for node in [&own, &other] {
        let body =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name.as_str()}});
        cluster.create("/api/v1/nodes", &body).await?;
    }
    granted(&own, &own.name).await?;
    let other = &other.name;
    for target in [
        format!("/api/v1/nodes/{other}"),
        format!("/api/v1/nodes?fieldSelector=metadata.name%3D{other}"),
        format!("/api/v1/nodes?fieldSelector=metadata.name!%3D{other}"),
        format!("/api/v1/nodes?fieldSelector=metadata.name%3D{other}&watch=1"),
        "/api/v1/nodes".to_owned(),
        "/api/v1/nodes?watch=1".to_owned(),
        format!(
            "/api/v1/nodes?labelSelector=kubernetes.io/hostname%3D{}",
            own.name
        ),
        format!("/api/v1/watch/nodes/{other}"),
        format!(
            "/api/v1/watch/nodes?fieldSelector=metadata.name%3D{}",
            own.name
        ),
        format!("/api/v1/nodes/{}/proxy/", own.name),
        format!("/api/v1/nodes/{}/status", own.name),
    ] {
        own.caller.may_not(&target).await?;
    }
    for (verb, subresource, allowed) in [
        ("create", "", true),
        ("update", "", true),
        ("patch", "status", true),
        ("delete", "", false),
        ("deletecollection", "", false),
        ("get", "status", false),
    ] {
        let attributes = json!({"verb": verb, "resource": "nodes", "version": "v1",
            "subresource": subresource, "name": other});
        ensure!(own.review(cluster, &attributes).await? == allowed, "{verb}");
    }
    Ok(())
}

/// 57: one requirement of `spec.nodeName` to be its own grants a node a list of pods, wherever and
/// beside whatever it stands.
pub async fn a_node_lists_pods_by_its_own_name(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let namespace = cluster.namespace("a").await?;
    pod(cluster, &namespace, "mine", &json!({"nodeName": own.name})).await?;
    pod(
        cluster,
        &namespace,
        "theirs",
        &json!({"nodeName": other.name}),
    )
    .await?;
    let (name, caller) = (&own.name, &own.caller);
    let own_pods = pods(&namespace);
    caller.may_soon(&format!("{own_pods}/mine")).await?;
    for collection in ["/api/v1/pods", &own_pods] {
        for (query, expected) in [
            (format!("spec.nodeName%3D{name}"), &["mine"][..]),
            (format!("spec.nodeName%3D%3D{name}"), &["mine"]),
            (
                format!("spec.nodeName%3D{name},status.phase%3DPending"),
                &["mine"],
            ),
            (
                format!("spec.nodeName%3D{name},status.phase%3DRunning"),
                &[],
            ),
            (
                format!("spec.nodeName%3D{name},spec.nodeName%3D{}", other.name),
                &[],
            ),
        ] {
            let target = format!("{collection}?fieldSelector={query}");
            let list = caller.client.get(&target).await?.ok()?;
            ensure!(names(&list) == expected, "{target}: {list}");
            caller
                .may(&format!("{target}&watch=1&timeoutSeconds=1"))
                .await?;
        }
        for query in [
            String::new(),
            format!("fieldSelector=spec.nodeName%3D{}", other.name),
            format!("fieldSelector=spec.nodeName!%3D{}", other.name),
            format!("fieldSelector=spec.nodeName!%3D{name}"),
            format!("fieldSelector=spec.nodeName%3D{}", name.to_uppercase()),
            format!("labelSelector=spec.nodeName%3D{name}"),
        ] {
            for watch in ["", "&watch=1"] {
                caller
                    .may_not(&format!("{collection}?{query}{watch}"))
                    .await?;
            }
        }
    }
    caller.may_not(&format!("{own_pods}/theirs")).await?;
    caller.may_not(&format!("{own_pods}/mine/log")).await?;
    let named = |name: &str| format!("{own_pods}?fieldSelector=metadata.name%3D{name}");
    caller.may(&named("mine")).await?;
    caller.may_not(&named("theirs")).await
}

/// The names in a list.
fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

/// 64: slices are listed by the node's own name and read by whose they are; requests for pod
/// certificates, whose gate is off, nobody's rules are about.
pub async fn slices_are_read_by_the_node_they_are_of(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, Node::new(cluster, "n2")?);
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let mut paths = Vec::new();
    for node in [&own, &other] {
        let name = format!("{}-gpu", node.name);
        let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
        let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
            "metadata": {"name": name},
            "spec": {"driver": "gpu.example.com", "nodeName": node.name, "pool": pool}});
        cluster.create(slices, &slice).await?;
        paths.push(format!("{slices}/{name}"));
    }
    let (name, caller) = (&own.name, &own.caller);
    caller.may_soon(&paths[0]).await?;
    caller.may_not(&paths[1]).await?;
    let by_node = format!("{slices}?fieldSelector=spec.nodeName%3D{name}");
    let list = caller.client.get(&by_node).await?.ok()?;
    ensure!(names(&list) == [format!("{name}-gpu")], "{list}");
    caller.may(&format!("{by_node},spec.driver%3Dx")).await?;
    caller
        .may(&format!("{by_node}&watch=1&timeoutSeconds=1"))
        .await?;
    for query in [
        String::new(),
        "?watch=1".to_owned(),
        format!("?fieldSelector=spec.nodeName%3D{}", other.name),
        format!("?fieldSelector=spec.nodeName!%3D{}", other.name),
        format!("?fieldSelector=metadata.name%3D{name}-gpu"),
        "?fieldSelector=spec.driver%3Dgpu.example.com".to_owned(),
    ] {
        caller.may_not(&format!("{slices}{query}")).await?;
    }
    let selector = |node: &str| json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [node]}]});
    for (verb, node, allowed) in [
        ("create", "", true),
        ("deletecollection", name.as_str(), true),
        ("deletecollection", other.name.as_str(), false),
        ("deletecollection", "", false),
    ] {
        let mut attributes = json!({"verb": verb, "version": "v1", "group": "resource.k8s.io",
            "resource": "resourceslices"});
        if !node.is_empty() {
            attributes["fieldSelector"] = selector(node);
        }
        ensure!(
            own.review(cluster, &attributes).await? == allowed,
            "{verb} {node}"
        );
    }
    let requests = "/apis/certificates.k8s.io/v1beta1";
    for target in [
        format!("{requests}/podcertificaterequests?fieldSelector=spec.nodeName%3D{name}"),
        format!("{requests}/namespaces/a/podcertificaterequests/x"),
    ] {
        caller.may_not(&target).await?;
    }
    Ok(())
}

/// 66: the status of a claim is written by the node that mounts it, and read by none.
pub async fn the_status_of_a_claim_is_written_and_not_read(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    let volume = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    let spec = json!({"nodeName": node.name, "volumes": volume});
    pod(cluster, &namespace, "p", &spec).await?;
    let claims = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims");
    node.caller.may_soon(&format!("{claims}/c")).await?;
    for target in [
        "c/status",
        "other",
        "other/status",
        "",
        "?fieldSelector=metadata.name%3Dc",
    ] {
        let slash = if target.starts_with('?') { "" } else { "/" };
        node.caller
            .may_not(&format!("{claims}{slash}{target}"))
            .await?;
    }
    for (verb, subresource, name, allowed) in [
        ("update", "status", "c", true),
        ("patch", "status", "c", true),
        ("get", "status", "c", false),
        ("patch", "status", "other", false),
        ("patch", "", "c", false),
        ("create", "", "", false),
    ] {
        let attributes = json!({"verb": verb, "version": "v1", "namespace": namespace,
            "resource": "persistentvolumeclaims", "subresource": subresource, "name": name});
        let decided = node.review(cluster, &attributes).await?;
        ensure!(decided == allowed, "{verb} {name}/{subresource}");
    }
    Ok(())
}

/// 67: a node has one lease, of its own name, in one namespace, and no view of others.
pub async fn a_node_has_its_own_lease_only(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (Node::new(cluster, "n1")?, cluster.name("n2"));
    let leases =
        |namespace: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let held = leases("kube-node-lease");
    let name = &own.name;
    own.caller.may(&format!("{held}/{name}")).await?;
    for target in [
        format!("{held}/{other}"),
        held.clone(),
        format!("{held}?watch=1"),
        format!("{held}?fieldSelector=metadata.name%3D{name}"),
        format!("{held}?fieldSelector=metadata.name%3D{name}&watch=1"),
        format!("{}/{name}", leases("kube-system")),
        "/apis/coordination.k8s.io/v1/leases".to_owned(),
    ] {
        own.caller.may_not(&target).await?;
    }
    for (verb, namespace, lease, allowed) in [
        ("create", "kube-node-lease", "", true),
        ("update", "kube-node-lease", name.as_str(), true),
        ("patch", "kube-node-lease", name.as_str(), true),
        ("delete", "kube-node-lease", name.as_str(), true),
        ("update", "kube-node-lease", other.as_str(), false),
        ("create", "kube-system", "", false),
        ("list", "kube-node-lease", "", false),
    ] {
        let attributes = json!({"verb": verb, "version": "v1", "namespace": namespace,
            "group": "coordination.k8s.io", "resource": "leases", "name": lease});
        let decided = own.review(cluster, &attributes).await?;
        ensure!(decided == allowed, "{verb} {namespace}/{lease}");
    }
    Ok(())
}

/// 68: what is every node's alike needs no pod; what is no node's, no node reads.
pub async fn a_node_without_pods_reads_what_all_nodes_share(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    let within = format!("/api/v1/namespaces/{namespace}");
    for collection in [
        "/api/v1/services",
        &format!("{within}/services"),
        "/apis/storage.k8s.io/v1/csidrivers",
        "/apis/node.k8s.io/v1/runtimeclasses",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    ] {
        node.caller.may(collection).await?;
        node.caller.may(&format!("{collection}/x")).await?;
        node.caller
            .may(&format!("{collection}?watch=1&timeoutSeconds=1"))
            .await?;
    }
    node.caller.may(&format!("{within}/endpoints/x")).await?;
    let own = format!("/apis/storage.k8s.io/v1/csinodes/{}", node.name);
    node.caller.may(&own).await?;
    for target in [
        format!("{within}/endpoints"),
        format!("{within}/endpoints?watch=1"),
        format!("{within}/events"),
        format!("{within}/events/x"),
        "/apis/events.k8s.io/v1/events".to_owned(),
        format!("{within}/services/x/status"),
        "/apis/storage.k8s.io/v1/csinodes".to_owned(),
        format!("/apis/storage.k8s.io/v1/csinodes/{}", cluster.name("n2")),
        format!("{own}/status"),
        "/apis/storage.k8s.io/v1/storageclasses".to_owned(),
        "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
        "/apis/certificates.k8s.io/v1beta1/clustertrustbundles".to_owned(),
        "/api/v1/namespaces".to_owned(),
        within.clone(),
    ] {
        node.caller.may_not(&target).await?;
    }
    for (verb, group, resource, allowed) in [
        ("create", "", "events", true),
        ("patch", "events.k8s.io", "events", true),
        ("delete", "", "events", false),
        ("create", "authentication.k8s.io", "tokenreviews", true),
        (
            "create",
            "authorization.k8s.io",
            "subjectaccessreviews",
            true,
        ),
        (
            "delete",
            "certificates.k8s.io",
            "certificatesigningrequests",
            false,
        ),
    ] {
        let attributes = json!({"verb": verb, "version": "v1", "group": group,
            "resource": resource});
        ensure!(
            node.review(cluster, &attributes).await? == allowed,
            "{verb} {resource}"
        );
    }
    Ok(())
}

/// 74: a selector that cannot be read widens nothing: who may do what is asked without it is told
/// so, and who may not is refused as if it was not there.
pub async fn a_selector_that_cannot_be_read_widens_nothing(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let node = Node::new(cluster, "n1")?;
    let namespace = cluster.namespace("a").await?;
    let user = cluster.name("alice");
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]});
    cluster.allow(&user, &namespace, &rule).await?;
    cluster
        .review(
            &user,
            &json!({"namespace": namespace, "verb": "watch", "resource": "pods"}),
            true,
        )
        .await?;
    let alice = Caller::new(cluster, &cluster.user(&user, None)?)?;
    let admin = Caller::new(cluster, &cluster.user("admin", Some("system:masters"))?)?;
    let own = &node.name;
    let selectors = [
        format!("spec.nodeName%3D{own},bogus"),
        format!("spec.nodeName%20in%20({own})"),
        "bogus".to_owned(),
        format!("spec.nodeName%3D{own}%5C"),
        format!("spec.nodeName%3D{own}%5Cx"),
        "metadata.name%3Da,,b%3D".to_owned(),
        "spec.bogus%3D1".to_owned(),
    ];
    for selector in &selectors {
        for watch in ["", "&watch=1&timeoutSeconds=1"] {
            let target = format!("{}?fieldSelector={selector}{watch}", pods(&namespace));
            node.caller.may_not(&target).await?;
            for caller in [&alice, &admin] {
                let answer = caller.client.get(&target).await?;
                ensure!(answer.status == 400, "{target}: {answer:?}");
                caller.is_the_apiservers(&target, &answer).await?;
            }
            // What needs no selector is granted, and then found wrong.
            let target = format!("/api/v1/services?fieldSelector={selector}{watch}");
            let answer = node.caller.client.get(&target).await?;
            ensure!(answer.status == 400, "{target}: {answer:?}");
            node.caller.is_the_apiservers(&target, &answer).await?;
        }
    }
    // No key equal to no value is everything, which only who may see everything is shown.
    let target = format!("{}?fieldSelector=%3D%3D", pods(&namespace));
    node.caller.may_not(&target).await?;
    alice.may(&target).await?;
    let nobody = Caller::new(cluster, &Identity::anonymous())?;
    let target = format!("{}?fieldSelector=bogus", pods(&namespace));
    nobody.may_not(&target).await
}
