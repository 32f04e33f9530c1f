//! A replica whose writes do not arrive says so: it forwards, then sheds, and never answers 200.

use watershed_loadtest::apiserver::faults::Failure;

use super::*;

/// How long a write proves that writes arrive.
const PROOF: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_cannot_be_written_is_not_acknowledged() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    cluster
        .apiserver
        .faults()
        .fail_requests(LEASES, Failure::InternalError, u64::MAX);
    tokio::time::sleep(PROOF + Duration::from_millis(500)).await;
    let mut answers = Vec::new();
    for _renewal in 0..20 {
        let answer = kubelet.renew().await?;
        ensure!(answer.status != StatusCode::OK, "acknowledged unwritten");
        answers.push(answer.status);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // First the apiserver's own answer, then, when all fails, one that a client waits after.
    ensure!(
        answers[0] == StatusCode::INTERNAL_SERVER_ERROR,
        "{answers:?}"
    );
    ensure!(
        answers.contains(&StatusCode::TOO_MANY_REQUESTS),
        "{answers:?}"
    );
    let answer = loop {
        let answer = kubelet.renew().await?;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            break answer;
        }
    };
    ensure!(answer.headers["retry-after"] == "1");
    // A client that waits as long as it is told, as client-go does, asks once a second.
    let (begun, mut attempts) = (tokio::time::Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(3) {
        let answer = kubelet.renew().await?;
        attempts += 1;
        if let Some(seconds) = answer.headers.get("retry-after") {
            tokio::time::sleep(Duration::from_secs(seconds.to_str()?.parse()?)).await;
        }
    }
    // A trial meets the apiserver's error, which a client asks again after at once.
    ensure!(attempts <= 24, "{attempts}");
    ensure!(cluster.outcomes("refused").await? >= 1.0);
    let (_, report) = cluster.replica.admin("/debug/heartbeats").await?;
    ensure!(report.contains("refusing renewals"), "{report}");
    // Healed: the first that arrives is the proof that others need.
    cluster.apiserver.faults().heal_requests();
    let writes = cluster.writes();
    while kubelet.renew().await?.status != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(cluster.writes() > writes, "written, not acknowledged");
    while cluster.outcomes("absorbed").await? < 1.0 || kubelet.renew().await?.status != 200 {}
    cluster.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_apiserver_that_is_silent_is_not_vouched_for() -> anyhow::Result<()> {
    let cluster = Cluster::start(bounds()).await?;
    let mut kubelet = cluster.kubelet("n1").await?;
    cluster.apiserver.faults().stall(true);
    tokio::time::sleep(PROOF + Duration::from_millis(500)).await;
    kubelet.second += 1;
    let body = kubelet.renewed(kubelet.second);
    let answer = kubelet.put(body, "?timeout=1s", JSON).await?;
    ensure!(
        answer.status == StatusCode::GATEWAY_TIMEOUT,
        "{}",
        answer.text()
    );
    // A client that asks for a short deadline proves nothing about the apiserver.
    let (_, report) = cluster.replica.admin("/debug/heartbeats").await?;
    ensure!(report.contains("writing every renewal"), "{report}");
    cluster.apiserver.faults().stall(false);
    while kubelet.renew().await?.status != StatusCode::OK {}
    cluster.stop().await;
    Ok(())
}
