//! What is no renewal, or not of a live lease of a live node, and so is the apiserver's to judge.

use super::*;

/// Everything that is not exactly a renewal gets the apiserver's answer, word for word, and the
/// next renewal is absorbed again.
#[tokio::test]
async fn what_is_no_renewal_is_answered_by_the_apiserver() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let credential = cluster.apiserver.pki().issue_node("n1")?;
    let (address, ca) = (cluster.apiserver.addr(), cluster.apiserver.pki().ca());
    let directly = Client::new(address, ca, Some(&credential), Protocol::Http2)?;
    let mut directly = Kubelet::new("n1", directly);
    let text = |kubelet: &Kubelet| String::from_utf8(kubelet.renewed(kubelet.second + 1)).unwrap();
    // Each, and what the apiserver says to it.
    type Change = (&'static str, fn(&str) -> String, &'static str, u16);
    let changes: [Change; 9] = [
        ("trial", |it| it.to_owned(), "?dryRun=All", 200),
        ("no version", |it| without(it, "resourceVersion"), "", 422),
        (
            "other uid",
            |it| it.replacen("\"uid\":\"", "\"uid\":\"0", 1),
            "",
            409,
        ),
        ("cut off", |it| it[..it.len() / 2].to_owned(), "", 400),
        ("trailing", |it| format!("{it}x"), "", 400),
        ("no lease", |it| it.replace("\"Lease\"", "\"Pod\""), "", 400),
        (
            "no duration",
            |it| it.replace("Seconds\":40", "Seconds\":0"),
            "",
            422,
        ),
        (
            "other name",
            |it| {
                it.replace(
                    "\"name\":\"n1\",\"namespace\"",
                    "\"name\":\"n2\",\"namespace\"",
                )
            },
            "",
            400,
        ),
        (
            "newer",
            |it| it.replace("\"resourceVersion\":\"", "\"resourceVersion\":\"9"),
            "",
            409,
        ),
    ];
    for (what, change, query, status) in changes {
        let body = change(&text(&kubelet));
        let forwarded = cluster.outcomes("forwarded").await?;
        let own = kubelet.put(body.clone(), query, JSON).await?;
        directly.lease = kubelet.lease.clone();
        let native = directly.put(body, query, JSON).await?;
        ensure!(own.status == status, "{what}: {}", own.text());
        ensure!(
            own.status == native.status && own.body == native.body,
            "{what}: {} / {}",
            own.text(),
            native.text()
        );
        ensure!(cluster.outcomes("forwarded").await? >= forwarded, "{what}");
        let after = until_absorbed(&cluster, &mut kubelet).await;
        after.with_context(|| format!("after {what}"))?;
    }
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn other_managers_and_codings_are_left_to_the_apiserver() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let writes = cluster.writes();
    kubelet.second += 1;
    let body = kubelet.renewed(kubelet.second);
    let answer = kubelet
        .put(body.clone(), "?fieldManager=other", JSON)
        .await?;
    ensure!(answer.status == StatusCode::OK, "{}", answer.text());
    let coded = &[("content-encoding", "gzip")];
    kubelet.put_with(body, "", JSON, coded).await?;
    ensure!(cluster.writes() == writes + 2);
    cluster.stop().await;
    Ok(())
}

/// The same text without a member of `metadata`.
fn without(text: &str, member: &str) -> String {
    let at = text.find(&format!("\"{member}\":")).unwrap();
    let end = text[at..].find(',').unwrap() + at + 1;
    [&text[..at], &text[end..]].concat()
}

#[tokio::test]
async fn a_lease_that_changes_is_written_and_then_absorbed_as_it_is() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    for (from, to) in [
        ("\"leaseDurationSeconds\":40", "\"leaseDurationSeconds\":60"),
        ("\"holderIdentity\":\"n1\"", "\"holderIdentity\":\"n1a\""),
        ("\"namespace\":", "\"labels\":{\"a\":\"b\"},\"namespace\":"),
    ] {
        let writes = cluster.writes();
        kubelet.second += 1;
        let body = String::from_utf8(kubelet.renewed(kubelet.second))?.replace(from, to);
        let answer = kubelet.put(body, "?timeout=10s", JSON).await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        ensure!(cluster.writes() == writes + 1, "{to} is written");
        ensure!(
            answer.text().contains(to) || to.contains("labels"),
            "{}",
            answer.text()
        );
        kubelet.lease = answer.body;
        until_absorbed(&cluster, &mut kubelet).await?;
    }
    cluster.stop().await;
    Ok(())
}

/// Renews until one is absorbed, which is soon.
async fn until_absorbed(cluster: &Cluster, kubelet: &mut Kubelet) -> anyhow::Result<()> {
    for _renewal in 0..400 {
        let writes = cluster.writes();
        let answer = kubelet.renew().await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        if cluster.writes() == writes {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!("no renewal is absorbed")
}

#[tokio::test]
async fn a_node_cannot_renew_another_ones_lease() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let thief = cluster.client(&cluster.replica, "n2")?;
    kubelet.client = thief;
    let answer = kubelet.renew().await?;
    ensure!(answer.status == StatusCode::FORBIDDEN, "{}", answer.text());
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_deleted_lease_is_not_acknowledged_and_can_be_made_anew() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let admin = cluster.admin()?;
    let target = format!("{LEASES}/n1");
    let gone = admin.write(Method::DELETE, &target, &json!({})).await?;
    ensure!(gone.status == StatusCode::OK, "{}", gone.text());
    // As soon as the proxy may know; the apiserver's answer to a PUT with a uid.
    let answer = loop {
        let answer = kubelet.renew().await?;
        if answer.status != StatusCode::OK {
            break answer;
        }
        ensure!(kubelet.second < 1_000, "it is still acknowledged");
    };
    ensure!(answer.status == StatusCode::CONFLICT, "{}", answer.text());
    let answer = kubelet.client.get(&target).await?;
    ensure!(answer.status == StatusCode::NOT_FOUND, "{}", answer.text());
    kubelet.create(&cluster.apiserver).await?;
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_lease_of_a_deleted_or_another_node_is_not_absorbed() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let admin = cluster.admin()?;
    let gone = admin
        .write(Method::DELETE, "/api/v1/nodes/n1", &json!({}))
        .await?;
    ensure!(gone.status == StatusCode::OK, "{}", gone.text());
    until_written(&cluster, &mut kubelet).await?;
    // Another Node of that name: the lease is still the other one's.
    cluster.register("n1", "b");
    for _renewal in 0..10 {
        until_written(&cluster, &mut kubelet).await?;
    }
    let why = "watershed_heartbeats_forwarded_total{reason=\"other-node\"}";
    let forwarded = metric(cluster.replica.proxy.admin_address(), why).await?;
    ensure!(forwarded >= 10.0, "{forwarded}");
    cluster.stop().await;
    Ok(())
}

/// Renews until one is written, which is soon.
async fn until_written(cluster: &Cluster, kubelet: &mut Kubelet) -> anyhow::Result<()> {
    for _renewal in 0..200 {
        let writes = cluster.writes();
        let answer = kubelet.renew().await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        if cluster.writes() > writes {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("every renewal is absorbed")
}

#[tokio::test]
async fn a_clock_that_is_put_back_is_not_hidden() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    kubelet.second += 60;
    ensure!(kubelet.renew().await?.status == StatusCode::OK);
    // The same again, and earlier ones: what the apiserver makes of them is its own.
    kubelet.second -= 1;
    until_written(&cluster, &mut kubelet).await?;
    kubelet.second -= 40;
    for _renewal in 0..5 {
        let writes = cluster.writes();
        kubelet.renew().await?;
        ensure!(cluster.writes() == writes + 1, "forwarded");
    }
    kubelet.second += 60;
    until_absorbed(&cluster, &mut kubelet).await?;
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn two_hosts_of_one_name_are_not_covered_up() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut here = cluster.kubelet("n1").await?;
    let mut there = Kubelet::new("n1", cluster.client(&cluster.replica, "n1")?);
    there.lease = here.lease.clone();
    there.second = here.second + 100;
    for _round in 0..6 {
        there.renew().await?;
        here.renew().await?;
    }
    let why = "watershed_heartbeats_forwarded_total{reason=\"contested\"}";
    let address = cluster.replica.proxy.admin_address();
    ensure!(metric(address, why).await? >= 1.0, "it is noticed");
    let (_, report) = cluster.replica.admin("/debug/heartbeats?node=n1").await?;
    ensure!(report.contains("\"contested\": true"), "{report}");
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn without_their_namespace_no_lease_is_acknowledged() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let admin = cluster.admin()?;
    let namespace = "/api/v1/namespaces/kube-node-lease";
    let gone = admin.write(Method::DELETE, namespace, &json!({})).await?;
    ensure!(gone.status == StatusCode::OK, "{}", gone.text());
    while kubelet.renew().await?.status == StatusCode::OK {
        ensure!(kubelet.second < 3_000, "it is still acknowledged");
        tokio::time::sleep(PAUSE).await;
    }
    for _renewal in 0..5 {
        let answer = kubelet.renew().await?;
        ensure!(answer.status == StatusCode::CONFLICT, "{}", answer.text());
    }
    let mut body: Value = serde_json::from_slice(&kubelet.lease)?;
    for own in ["uid", "resourceVersion"] {
        body["metadata"][own] = json!("");
    }
    let answer = kubelet.client.write(Method::POST, LEASES, &body).await?;
    ensure!(
        [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN].contains(&answer.status),
        "{}",
        answer.text()
    );
    while admin.get(namespace).await?.status != StatusCode::NOT_FOUND {
        tokio::time::sleep(PAUSE).await;
    }
    let body = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "kube-node-lease"}});
    let back = admin
        .write(Method::POST, "/api/v1/namespaces", &body)
        .await?;
    ensure!(back.status == StatusCode::CREATED, "{}", back.text());
    kubelet.create(&cluster.apiserver).await?;
    cluster.stop().await;
    Ok(())
}
