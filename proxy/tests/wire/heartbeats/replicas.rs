//! A node whose connections reach different replicas, and a replica that begins.

use super::*;

/// Two replicas each answer what they heard; the client sees no conflict, and the store no time
/// that goes back.
#[tokio::test]
async fn a_node_may_renew_at_two_replicas() -> anyhow::Result<()> {
    let settings = Settings {
        flush_period: Some(Duration::from_millis(50)),
        ..bounds()
    };
    let cluster = Cluster::start(settings).await?;
    let other = Fixture::start(&cluster.apiserver, |config| absorb(config, settings)).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let mut elsewhere = cluster.client(&other, "n1")?;
    let mut newest = String::new();
    for _renewal in 0..60 {
        std::mem::swap(&mut kubelet.client, &mut elsewhere);
        let answer = kubelet.renew().await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        let stored = cluster.stored("n1").await?["spec"]["renewTime"].clone();
        let stored = stored.as_str().context("no time")?.to_owned();
        ensure!(stored >= newest && stored <= time(kubelet.second));
        newest = stored;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ensure!(newest > time(kubelet.second - 30), "it is written");
    other.stop().await;
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_replica_that_begins_writes_the_first_renewal_of_each_node() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    let new = Fixture::start(&cluster.apiserver, |config| absorb(config, bounds())).await?;
    kubelet.client = cluster.client(&new, "n1")?;
    let before = cluster.writes();
    kubelet.renew().await?;
    ensure!(cluster.writes() == before + 1);
    new.stop().await;
    cluster.stop().await;
    Ok(())
}
