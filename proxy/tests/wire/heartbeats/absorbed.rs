//! What is answered without the store, and what is written for it.

use super::*;

#[tokio::test]
async fn a_renewal_is_answered_with_the_stored_lease_and_its_own_time() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let (writes, before) = (cluster.writes(), cluster.stored("n1").await?);
    let absorbed = cluster.outcomes("absorbed").await?;
    for _renewal in 0..3 {
        let answer = kubelet.renew().await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        ensure!(media_type(&answer.headers) == JSON);
        ensure!(answer.headers["cache-control"] == "no-cache, private");
        ensure!(answer.headers.contains_key("audit-id"));
        ensure!(answer.body.ends_with(b"}\n"), "{}", answer.text());
        let mut expected = before.clone();
        expected["spec"]["renewTime"] = json!(time(kubelet.second));
        ensure!(answer.json()? == expected, "{}", answer.text());
    }
    ensure!(cluster.writes() == writes && cluster.stored("n1").await? == before);
    ensure!((cluster.outcomes("absorbed").await? - absorbed - 3.0).abs() < 0.1);
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn both_encodings_are_absorbed_and_answered_as_asked() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    // In JSON, answered in protobuf: as the apiserver writes the same lease.
    let writes = cluster.writes();
    let shown = loop {
        kubelet.second += 1;
        let before = cluster.writes();
        let body = kubelet.renewed(kubelet.second);
        let answer = kubelet.put(body, "", PROTOBUF).await?;
        ensure!(answer.status == StatusCode::OK && media_type(&answer.headers) == PROTOBUF);
        if cluster.writes() == before {
            break answer;
        }
    };
    ensure!(cluster.writes() < writes + 20);
    let request = cluster
        .admin()?
        .request(Method::GET, &format!("{LEASES}/n1"));
    let request = request.header("accept", PROTOBUF);
    let mut request = request.body(crate::client::empty())?;
    request.headers_mut().insert("accept", PROTOBUF.parse()?);
    let stored = cluster.admin()?.whole(request).await?.body;
    ensure!(in_protobuf(&stored, kubelet.second) == *shown.body);
    // In protobuf.
    kubelet.media = PROTOBUF;
    kubelet.lease = shown.body;
    let writes = cluster.writes();
    let answer = kubelet.renew().await?;
    ensure!(answer.status == StatusCode::OK && media_type(&answer.headers) == PROTOBUF);
    ensure!(in_protobuf(&stored, kubelet.second) == *answer.body);
    ensure!(cluster.writes() == writes);
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn one_that_is_due_is_written_with_the_newest_version() -> anyhow::Result<()> {
    let cluster = Cluster::start(Settings {
        flush_period: Some(Duration::from_millis(400)),
        ..bounds()
    })
    .await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let older = kubelet.lease.clone();
    for _write in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // What it echoes is older than what was written since; the proxy knows the newest.
        kubelet.lease = older.clone();
        let (writes, before) = (cluster.writes(), version(&cluster.stored("n1").await?)?);
        let answer = kubelet.renew().await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        ensure!(cluster.writes() == writes + 1, "one write");
        let stored = cluster.stored("n1").await?;
        ensure!(answer.json()? == stored && version(&stored)? > before);
        ensure!(stored["spec"]["renewTime"] == json!(time(kubelet.second)));
        // Nobody but the kubelet has written it.
        let managers = stored["metadata"]["managedFields"].as_array();
        ensure!(managers.context("no managers")?.len() == 1, "{stored}");
    }
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_people_read_is_what_is_stored_and_can_be_written_to() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    kubelet.renew().await?;
    let pki = cluster.apiserver.pki();
    let credential = pki.issue("admin", Some("system:masters"))?;
    let admin = cluster
        .replica
        .client(&cluster.apiserver, Some(&credential), Protocol::Http2)?;
    let mut shown = admin.get(&format!("{LEASES}/n1")).await?.ok()?;
    ensure!(shown == cluster.stored("n1").await?);
    // By somebody else, who changes something: forwarded, and accepted.
    shown["metadata"]["annotations"] = json!({"seen": "yes"});
    let target = format!("{LEASES}/n1");
    let answer = admin.write(Method::PUT, &target, &shown).await?;
    ensure!(answer.status == StatusCode::OK, "{}", answer.text());
    // The kubelet has not seen that: as natively, it is told so, reads and renews.
    let answer = kubelet.renew().await?;
    ensure!(answer.status == StatusCode::CONFLICT, "{}", answer.text());
    kubelet.lease = kubelet.client.get(&target).await?.body;
    let writes = cluster.writes();
    let answer = kubelet.renew().await?;
    ensure!(answer.json()?["metadata"]["annotations"]["seen"] == "yes");
    ensure!(cluster.writes() == writes, "absorbed again");
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn operators_see_what_is_known_of_a_node() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    kubelet.renew().await?;
    let (status, text) = cluster.replica.admin("/debug/heartbeats?node=n1").await?;
    let report: Value = serde_json::from_str(&text)?;
    ensure!(status == 200 && report["node"] == "n1", "{text}");
    let (heard, written) = (&report["lastHeard"], &report["lastWritten"]);
    ensure!(heard["renewTime"] == json!(time(kubelet.second)), "{text}");
    ensure!(written["renewTime"] == cluster.stored("n1").await?["spec"]["renewTime"]);
    ensure!(heard["heardSecondsAgo"].as_f64() < written["heardSecondsAgo"].as_f64());
    ensure!(report["nextDueInSeconds"].as_f64() > Some(100.0), "{text}");
    ensure!(
        report["absorbing"] == true && report["contested"] == false,
        "{text}"
    );
    let (status, text) = cluster.replica.admin("/debug/heartbeats").await?;
    let report: Value = serde_json::from_str(&text)?;
    ensure!(status == 200 && report["nodes"] == 1, "{text}");
    ensure!(
        report["oldestUnwrittenSeconds"].as_f64() > Some(0.0),
        "{text}"
    );
    let (status, text) = cluster.replica.admin("/debug/heartbeats?node=n2").await?;
    ensure!(status == 404 && text.contains("nothing is known"), "{text}");
    let (_, text) = cluster.replica.admin("/metrics").await?;
    for family in [
        "watershed_heartbeats_nodes 1",
        "watershed_heartbeats_absorbing 1",
        "watershed_heartbeats_deadline_misses_total 0",
        "watershed_heartbeats_oldest_unwritten_seconds 0.",
    ] {
        ensure!(text.contains(family), "{family} is not in {text}");
    }
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_lease_that_is_written_a_hundred_times_has_one_manager() -> anyhow::Result<()> {
    let cluster = Cluster::start(Settings {
        flush_period: Some(Duration::ZERO),
        ..bounds()
    })
    .await?;
    cluster.register("n1", "a");
    let mut kubelet = Kubelet::new("n1", cluster.client(&cluster.replica, "n1")?);
    kubelet.make().await?;
    while cluster.outcomes("written").await? < 100.0 {
        let answer = kubelet.renew().await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let stored = cluster.stored("n1").await?;
    ensure!(stored["spec"]["renewTime"] == json!(time(kubelet.second)));
    let managers = stored["metadata"]["managedFields"].as_array();
    ensure!(managers.context("no managers")?.len() == 1, "{stored}");
    cluster.stop().await;
    Ok(())
}
