//! Bad requests and bad upstreams: a clear answer, and no harm to anybody else.

use std::time::Duration;

use anyhow::ensure;
use watershed_loadtest::apiserver::{Apiserver, Options, faults::Failure};

use crate::{
    client::{Client, PATIENCE, Protocol},
    fixture::Fixture,
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn start() -> anyhow::Result<(Apiserver, Fixture, Client, Client)> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| ()).await?;
    let pki = apiserver.pki();
    let credential = pki.issue("admin", Some("system:masters"))?;
    let admin = |address| Client::new(address, pki.ca(), Some(&credential), Protocol::Http2);
    let (proxied, direct) = (admin(fixture.proxy.address())?, admin(apiserver.addr())?);
    Ok((apiserver, fixture, proxied, direct))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_options_are_refused_in_the_apiservers_words() -> anyhow::Result<()> {
    let (apiserver, fixture, proxied, direct) = start().await?;
    proxied.get(CONFIG_MAPS).await?.ok()?;
    for options in [
        "?labelSelector=a%3D%3D%3D",
        "?labelSelector=a+in+(",
        "?fieldSelector=spec.nope%3Dx",
        "?fieldSelector=a",
        "?resourceVersion=abc",
        "?resourceVersion=-1",
        "?resourceVersionMatch=Exact",
        "?resourceVersion=1&resourceVersionMatch=Bogus",
        "?resourceVersion=0&resourceVersionMatch=Exact",
        "?limit=abc",
        "?continue=garbage",
        "?timeout=never",
        "?watch=1&timeoutSeconds=x",
        "?watch=1&sendInitialEvents=true",
        "?watch=1&resourceVersion=abc",
        "?watch=1&fieldSelector=spec.nope%3Dx",
        "/one?resourceVersion=abc",
        "/one/no-such-subresource",
    ] {
        let target = format!("{CONFIG_MAPS}{options}");
        let (ours, theirs) = (proxied.get(&target).await?, direct.get(&target).await?);
        ensure!(theirs.status.is_client_error() || theirs.status.is_server_error());
        assert_eq!(ours.status, theirs.status, "{target}: {}", ours.text());
        assert_eq!(ours.text(), theirs.text(), "{target}");
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_hangs_or_fails_for_one_resource_harms_no_other() -> anyhow::Result<()> {
    let (apiserver, fixture, client, _) = start().await?;
    client.get(CONFIG_MAPS).await?.ok()?;
    let cached = format!("{CONFIG_MAPS}?resourceVersion=0");
    for failure in [Failure::Hang, Failure::InternalError, Failure::Unavailable] {
        apiserver
            .faults()
            .fail_requests("/api/v1/secrets", failure, 2);
        let troubled = async {
            loop {
                let answer = client.get(SECRETS).await?;
                if answer.status == 200 {
                    return anyhow::Ok(());
                }
                let status = answer.json()?;
                ensure!(status["kind"] == "Status", "{failure:?}: {}", answer.text());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let others = async {
            loop {
                for _ in 0..10 {
                    client.get(&cached).await?.ok()?;
                    tokio::time::sleep(Duration::from_millis(50)).await; // the pace of a reader
                }
                // What hangs, hangs until its connection goes.
                apiserver.faults().cut_connections();
            }
        };
        let both = async {
            tokio::select! {
                recovered = troubled => recovered,
                harmed = others => harmed,
            }
        };
        tokio::time::timeout(PATIENCE, both).await??;
    }
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}
