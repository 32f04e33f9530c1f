//! Lists nobody reads: what they hold is bounded, what is bounded is refused in words clients know,
//! and nodes get what is theirs all the while.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use watershed_config::Config;
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    fixture::Fixture,
    objects::load,
    peer::{Answer, Caller, Client, JSON, in_time, metric, url},
};

/// More than fits between server and client: HTTP/2 windows of the client, sockets, a place.
const OBJECTS: usize = 600;
const OBJECT_BYTES: usize = 20_000;
/// Lists that fit a budget of 1 MiB beside the quarter that is kept for nodes.
const PLACES: usize = 3;
const PLACE: f64 = 256.0 * 1024.0;

const EVERYTHING: &str = "/api/v1/configmaps?resourceVersion=0";
const WATCH: &str = "/api/v1/configmaps?watch=1&resourceVersion=0";
const OWN_PODS: &str = "/api/v1/pods?watch=1&resourceVersion=0&fieldSelector=spec.nodeName%3Dn1";
const HELD: &str = "watershed_initial_list_bytes";

struct Site {
    apiserver: Apiserver,
    fixture: Fixture,
    caller: Caller,
    client: Client,
}

impl Site {
    async fn start(change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        for index in 0..OBJECTS {
            let metadata =
                json!({"name": format!("c{index:04}"), "namespace": "default", "uid": "u"});
            let data = json!({"x": "x".repeat(OBJECT_BYTES)});
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                "data": data});
            load(&apiserver, ("", "configmaps"), object);
        }
        let metadata = json!({"name": "p", "namespace": "default", "uid": "u"});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}});
        load(&apiserver, ("", "pods"), pod);
        let fixture = Fixture::start(&apiserver, |config| {
            config.live.limits.initial_list_bytes = 1 << 20;
            change(config);
        })
        .await?;
        let caller = Caller::admin(apiserver.pki())?;
        let client = Client::connect(fixture.proxy.address(), &caller).await?;
        Ok(Self {
            apiserver,
            fixture,
            caller,
            client,
        })
    }

    /// A list whose head came, on a connection of its own.
    async fn unread(&self, path: &str) -> anyhow::Result<(Client, Response<Incoming>)> {
        let client = Client::connect(self.fixture.proxy.address(), &self.caller).await?;
        let request = Request::get(url(path)).header(header::ACCEPT, JSON);
        let answer = client.send(request, "").await?;
        ensure!(answer.status() == StatusCode::OK, "{answer:?}");
        Ok((client, answer))
    }

    async fn until_held(&self, bytes: f64) -> anyhow::Result<()> {
        let reached = async {
            while metric(self.fixture.proxy.admin_address(), HELD).await? != bytes {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        in_time(reached).await.context("so many bytes are held")?
    }

    async fn refused(&self, priority: &str) -> anyhow::Result<f64> {
        let name = format!("watershed_initial_lists_refused_total{{reason=\"{priority}\"}}");
        metric(self.fixture.proxy.admin_address(), &name).await
    }

    /// Asserts that a collection is refused as an overloaded apiserver refuses.
    async fn assert_refused(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.client.get(path, JSON).await?;
        ensure!(answer.status == StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
        ensure!(&*answer.body == b"Too many requests, please try again later.\n");
        ensure!(answer.headers[header::CONTENT_TYPE] == "text/plain; charset=utf-8");
        let seconds: u32 = answer.headers[header::RETRY_AFTER].to_str()?.parse()?;
        ensure!((1..=8).contains(&seconds), "{seconds}");
        Ok(())
    }
}

#[tokio::test]
async fn lists_nobody_reads_are_bounded_and_nodes_are_served_beside_them() -> anyhow::Result<()> {
    let site = Site::start(|_| {}).await?;
    let whole = site.client.get(EVERYTHING, JSON).await?;
    ensure!(whole.status == StatusCode::OK && whole.body.len() > OBJECTS * OBJECT_BYTES);
    site.until_held(0.0).await?;
    let mut unread = Vec::new();
    for _ in 0..PLACES {
        unread.push(site.unread(EVERYTHING).await?);
    }
    site.until_held(PLACES as f64 * PLACE).await?;

    site.assert_refused(EVERYTHING).await?;
    site.assert_refused(WATCH).await?;
    ensure!(site.refused("collection").await? == 2.0);
    let mut own = site.client.watch(OWN_PODS, JSON).await?;
    own.expect("ADDED", "p").await?;
    for path in [
        "/api/v1/namespaces/default/configmaps/c0000?resourceVersion=0",
        "/api/v1/namespaces/default/configmaps?resourceVersion=0&fieldSelector=metadata.name%3Dc0000",
        "/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%3Dn1",
    ] {
        let answer = site.client.get(path, JSON).await?;
        ensure!(answer.status == StatusCode::OK, "{path}: {answer:?}");
    }
    ensure!(site.refused("node").await? == 0.0);

    // What was put aside is still the list it began as, whatever was written since.
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c0599", "namespace": "default", "uid": "u"}});
    load(&site.apiserver, ("", "configmaps"), object);
    let (client, answer) = unread.pop().context("one of them")?;
    let late = Answer::read(answer).await?;
    ensure!(late.body == whole.body, "{} bytes", late.body.len());
    drop((client, unread));
    site.until_held(0.0).await?;
    ensure!(site.client.get(EVERYTHING, JSON).await?.status == StatusCode::OK);
    drop((own, site.client));
    site.fixture.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_list_or_initial_events_that_nobody_takes_in_time_are_cut() -> anyhow::Result<()> {
    let site = Site::start(|config| {
        config.live.limits.request_timeout = Duration::from_secs(3);
    })
    .await?;
    site.client.get(EVERYTHING, JSON).await?;
    for path in [EVERYTHING, WATCH] {
        let (_client, answer) = site.unread(path).await?;
        site.until_held(PLACE).await?;
        site.until_held(0.0).await?;
        let read = Answer::read(answer).await;
        ensure!(read.is_err(), "{path} came to an end");
    }
    drop(site.client);
    site.fixture.stop().await;
    Ok(())
}
