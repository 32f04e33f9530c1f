//! The recordings of a real kube-apiserver, replayed through the proxy.
//!
//! Every recording gets a fresh apiserver and a fresh proxy. `golden/passing.txt` lists those that
//! pass; the test fails when one of them fails, and when one passes that is not listed.
//! `GOLDEN=watch/from-now cargo test -p watershed --test wire golden -- --nocapture` runs one of
//! them (`GOLDEN=watch` a group) and prints both sides of the first difference.

use std::{path::Path, time::Duration};

use watershed_loadtest::golden::{Embedded, Outcome, Scenario, Verdict, judge, replay};

use crate::fixture::{Fixture, Form, preload};

/// Recordings whose outcome rightly differs through a proxy, and why.
const DIFFERENT: [(&str, &str); 2] = [
    (
        "watch/too-old-after-restart",
        "the proxy keeps the history that a restarted apiserver has lost, and replays it",
    ),
    (
        "watch/window-eviction",
        "the proxy keeps history by bytes and age, and replays what a ring of 100 events has lost",
    ),
];

async fn run(scenario: Scenario, form: Form) -> anyhow::Result<Outcome> {
    if !scenario.replayable {
        let reason = "a sample of a race or a fault".to_owned();
        return Ok(Outcome::Skipped { reason });
    }
    if let Some((_, reason)) = DIFFERENT.iter().find(|(id, _)| *id == scenario.id) {
        let reason = (*reason).to_owned();
        return Ok(Outcome::Skipped { reason });
    }
    let server = Embedded::start(&scenario).await?;
    let fixture = Fixture::start(server.apiserver(), |config| {
        // As the recorded apiserver, which lets anonymous requests through to authorization.
        config.live.authentication.anonymous = true;
        // Recordings change rights between two steps; remembered decisions are tested elsewhere.
        config.live.authorization.allow_ttl = Duration::ZERO;
        config.live.authorization.deny_ttl = Duration::ZERO;
        // What was granted to a watch stays granted to it on an apiserver.
        config.live.authorization.revalidate_watches = Duration::ZERO;
        form.declare(config);
        // History that a recording resumes from must have been watched when it was made.
        for resource in ["configmaps", "namespaces", "pods"] {
            preload(&mut config.live, "", resource);
        }
        preload(&mut config.live, "networking.k8s.io", "networkpolicies");
    })
    .await?;
    let mut target =
        server.target_behind(fixture.proxy.address(), server.apiserver().pki().ca())?;
    // The flow schema an apiserver put a request in; an answer from the cache was in none.
    target.may_lack = &[
        "x-kubernetes-pf-flowschema-uid",
        "x-kubernetes-pf-prioritylevel-uid",
    ];
    let outcome = replay(&scenario, &target).await;
    drop(target);
    fixture.stop().await;
    server.stop().await;
    Ok(outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_replay_through_the_proxy() -> anyhow::Result<()> {
    let only = std::env::var("GOLDEN").ok();
    let verdict = judge(only.as_deref(), |scenario| run(scenario, Form::Reviews)).await?;
    println!("{}", verdict.report());
    hold(&verdict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_of_access_replay_where_the_proxy_decides() -> anyhow::Result<()> {
    for group in ["authn", "authz"] {
        let verdict = judge(Some(group), |scenario| run(scenario, Form::Local)).await?;
        println!("{}", verdict.report());
        hold(&verdict)?;
    }
    Ok(())
}

fn hold(verdict: &Verdict) -> anyhow::Result<()> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/golden/passing.txt");
    let wrong = verdict.against(&list)?;
    anyhow::ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}
