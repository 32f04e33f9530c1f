//! What a bound pod costs, and that the graph reports it.
//!
//! Measured as resident memory with the allocator of the proxy, in a process of its own: one test,
//! because what one frees another would reuse.
#![cfg(target_os = "linux")]

use std::borrow::Cow;

use watershed_authorizer::{Authorizer, Facts, PodFacts, Reference, Referenced};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PODS: usize = 60_000;
const PODS_PER_NODE: usize = 100;

/// Six mentions: three that the namespace shares, one that the deployment shares, and a claim and a
/// secret that no other pod mentions.
fn pod(number: usize) -> PodFacts<'static> {
    let deployment = number % 10_000;
    let namespace = deployment % 300;
    let mention = |kind, name: String| Reference {
        kind,
        name: Cow::Owned(name),
    };
    PodFacts {
        namespace: format!("team-{namespace:04}").into(),
        name: format!("backend-{deployment:05}-7d4b9c5f6d-{number:07}").into(),
        node: format!("node-{:05}.example.internal", number / PODS_PER_NODE).into(),
        references: vec![
            mention(Referenced::ServiceAccount, "default".to_owned()),
            mention(Referenced::ConfigMap, "kube-root-ca.crt".to_owned()),
            mention(Referenced::Secret, "registry-credentials".to_owned()),
            mention(
                Referenced::ConfigMap,
                format!("backend-{deployment:05}-config"),
            ),
            mention(
                Referenced::PersistentVolumeClaim,
                format!("data-backend-{number:07}"),
            ),
            mention(Referenced::Secret, format!("backend-{number:07}-tls")),
        ],
    }
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes: usize = kibibytes.expect("a size").trim().parse().expect("a number");
    kibibytes << 10
}

#[test]
fn a_pod_costs_what_is_reported_and_no_more_than_its_names() {
    let authorizer = Authorizer::default();
    authorizer.upsert(Facts::Pod(pod(0)));
    let empty = resident();
    for number in 0..PODS {
        authorizer.upsert(Facts::Pod(pod(number)));
    }
    let taken = resident() - empty;
    let size = authorizer.graph_size();
    assert_eq!((size.pods, size.mentions), (PODS, 6 * PODS));
    let names: usize = (0..1000)
        .map(|number| {
            let pod = pod(number);
            let own = &pod.references[4..];
            pod.name.len() + own.iter().map(|mention| mention.name.len()).sum::<usize>()
        })
        .sum::<usize>()
        / 1000;
    let (reported, taken) = (size.bytes / PODS, taken / PODS);
    println!("a pod: {taken} B taken, {reported} B reported, {names} B of them its own names");
    assert!(
        reported.abs_diff(taken) * 8 < taken,
        "{reported} B reported, {taken} B taken"
    );
    // Three names of its own, six mentions of eight bytes, and places in tables.
    assert!(
        taken < names + 350,
        "{taken} B a pod with {names} B of names"
    );
}
