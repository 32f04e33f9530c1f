//! Three kubelets against the embedded apiserver, over the wire.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::client::Endpoint;
use super::fleet::{Fleet, FleetOptions};
use crate::apiserver::{Apiserver, Options};
use crate::churn::{Churn, ChurnOptions};
use crate::measure::verdict::judge;
use crate::scenario::{Administrator, Target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelets_run_pods_and_survive_a_cut_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        dir: Some(folder.path().to_owned()),
        ..Options::default()
    };
    let server = Apiserver::start(options).await.unwrap();
    let url = format!("https://{}", server.addr());
    let target = Target::from_folder(&url, folder.path()).unwrap();
    let stop = CancellationToken::new();
    let admin = Administrator::new(&target).unwrap();

    let endpoint = Endpoint::new(&url, target.pki.ca()).unwrap();
    let options = FleetOptions::new(endpoint, Arc::clone(&target.pki));
    let mut fleet = Fleet::new(options, &stop);
    fleet.grow(3, |_| {}).await.unwrap();

    let mut options = ChurnOptions::new(fleet.nodes());
    options.writes_per_second = 200.0;
    let mut churn = Churn::new(admin.client().clone(), options);
    churn.populate().await.unwrap();
    churn.bind_agents(|_| {}).await.unwrap();
    let stats = Arc::clone(fleet.stats());
    assert!(
        fleet.settle(3 * 8, Duration::from_secs(20)).await,
        "{:?}",
        stats.errors.lines()
    );

    let halt = CancellationToken::new();
    let cuts = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            fleet.cut();
        }
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        halt.cancel();
    };
    tokio::join!(churn.run(&halt), cuts);
    let ledger = &churn.shared().ledger;
    let limit = Duration::from_secs(20);
    let verdict = judge(fleet.kubelets(), &stats, admin.client(), ledger, limit)
        .await
        .unwrap();

    assert_eq!(churn.shared().errors.lines(), Vec::<String>::new());
    assert!(verdict.passed, "{verdict:#?}");
    assert!(verdict.compared >= 24);
    assert!(stats.pods_started.load(Ordering::Relaxed) >= 3);
    assert!(stats.latency.summary().count > 0);
    assert!(stats.resumes.load(Ordering::Relaxed) >= 2 * 3 * 5);
    let excused = stats.excused.load(Ordering::Relaxed); // mounts of pods new or gone at a cut
    assert_eq!(stats.relists.load(Ordering::Relaxed), excused);
    fleet.stop().await;
    server.shutdown().await;
}
