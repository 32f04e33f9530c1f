//! The point of the tier: what reaches the apiserver does not grow with the number of kubelets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tokio_util::sync::CancellationToken;
use watershed_loadtest::{
    apiserver::{Apiserver, Options, certs::Pki},
    churn::{Churn, ChurnOptions},
    kubelet::fleet::{Fleet, FleetOptions},
    scenario::{Administrator, Target},
};

use crate::fixture::{Fixture, until};

/// Kubelets in the second half; the first has one.
const MANY: usize = 500;

/// What a kubelet with an agent pod watches: own node, services, CSI drivers, runtime classes, own
/// pods, and a ConfigMap, a Secret and the root CA's ConfigMap of the pod.
const WATCHES_PER_KUBELET: u64 = 8;

/// What kubelets read that the proxy caches, as (group, resource).
const CACHED: [(&str, &str); 9] = [
    ("", "nodes"),
    ("", "services"),
    ("", "pods"),
    ("", "configmaps"),
    ("", "secrets"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("node.k8s.io", "runtimeclasses"),
    ("coordination.k8s.io", "leases"),
];

/// Numbers by a text that names what they are of.
type Table = BTreeMap<String, u64>;

fn open_watches(apiserver: &Apiserver) -> Table {
    let report = apiserver.counters().report();
    let rows = report["watches"].as_array().into_iter().flatten();
    let row = |row: &serde_json::Value| {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let name = format!("{} {}", text("resource"), text("group"));
        (name, row["open"].as_u64().unwrap_or_default())
    };
    rows.map(row).filter(|(_, open)| *open > 0).collect()
}

fn requests(apiserver: &Apiserver) -> Table {
    let all = apiserver.counters().all_requests();
    let named = |key: &watershed_loadtest::apiserver::counters::Key| {
        format!("{} {} {}", key.verb, key.resource, key.group)
    };
    all.iter()
        .map(|(key, count)| (named(key), *count))
        .collect()
}

#[expect(clippy::print_stdout, reason = "the tables are what the test shows")]
fn show(title: &str, one: &Table, many: &Table) {
    println!("{title:<60} {:>8} {:>8}", "1", MANY);
    for (name, count) in many {
        let before = one.get(name).copied().unwrap_or_default();
        println!("{name:<60} {before:>8} {count:>8}");
    }
}

/// Starts kubelets until there are `count` and gives each an agent pod, and waits for all watches.
async fn grow(fleet: &mut Fleet, admin: &Administrator, count: usize) -> anyhow::Result<()> {
    fleet.grow(count, |_| ()).await?;
    let mut churn = Churn::new(admin.client().clone(), ChurnOptions::new(fleet.nodes()));
    churn.populate().await?;
    churn.bind_agents(|_| ()).await?;
    let wanted = WATCHES_PER_KUBELET * count as u64;
    let settled = fleet.settle(wanted, Duration::from_secs(120)).await;
    let errors = fleet.stats().errors.lines();
    ensure!(settled, "not every watch is open: {errors:?}");
    ensure!(errors.is_empty(), "{errors:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_reads_do_not_grow_with_kubelets() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let apiserver = Apiserver::start(Options {
        dir: Some(folder.path().to_owned()),
        ..Options::default()
    })
    .await?;
    let fixture = Fixture::start(&apiserver, |config| {
        // A debug build on a busy machine is slow; how long a reader waits is not what is counted.
        config.live.limits.consistent_read_timeout = Duration::from_secs(30);
    })
    .await?;
    let target = Target {
        url: format!("https://{}", fixture.proxy.address()),
        admin: None,
        apiserver: Some(format!("https://{}", apiserver.addr())),
        pki: Arc::new(Pki::open(folder.path())?),
        pid: None,
    };
    let admin = Administrator::new(&target)?;
    let mut options = FleetOptions::new(target.endpoint()?, Arc::clone(&target.pki));
    options.starting_max = MANY; // all at once: what they read is shared by whoever starts together
    let mut fleet = Fleet::new(options, &CancellationToken::new());

    grow(&mut fleet, &admin, 1).await?;
    // One for each resource: a short watch that proves freshness may still be open.
    let is_settled = || open_watches(&apiserver).values().all(|open| *open == 1);
    until("each cache watches once", is_settled).await?;
    let (watches_of_one, requests_of_one) = (open_watches(&apiserver), requests(&apiserver));
    grow(&mut fleet, &admin, MANY).await?;
    let requests_of_many = requests(&apiserver);
    // The short watches that prove freshness end within seconds; one more for good would not.
    let settled = until("only the caches watch", || {
        open_watches(&apiserver) == watches_of_one
    });
    let settled = settled.await;
    let watches_of_many = open_watches(&apiserver);
    show("open watches", &watches_of_one, &watches_of_many);
    show("requests", &requests_of_one, &requests_of_many);

    settled.with_context(|| format!("{watches_of_one:?} became {watches_of_many:?}"))?;
    for (group, resource) in CACHED {
        let more = |verb: &str| {
            let name = format!("{verb} {resource} {group}");
            let count = |table: &Table| table.get(&name).copied().unwrap_or_default();
            count(&requests_of_many) - count(&requests_of_one)
        };
        assert_eq!(more("get"), 0, "{resource}");
        // Proofs of freshness: lists of a few objects and short watches, each for all who wait.
        let (lists, watches, each) = (more("list"), more("watch"), MANY as u64);
        ensure!(lists < each / 2, "{resource}: {lists} more lists");
        ensure!(watches < each / 10, "{resource}: {watches} more watches");
    }
    fleet.stop().await;
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}
