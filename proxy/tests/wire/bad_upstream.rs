//! Apiservers that misbehave: the clients of what is affected see nothing or a clean end, everybody
//! else sees nothing at all, and all is well again when the apiserver is.
//!
//! The proxy reaches its apiserver through `meddler`, which plays tricks on one resource at a time,
//! so that many run side by side on one proxy and show that none reaches over to another.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::StatusCode;
use watershed_config::Live;
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    fixture::Fixture,
    peer::{Answer, Caller, Client, JSON, PROTOBUF, Watch, in_time, metric, until, write},
};

mod meddler;
mod nonsense;

use meddler::{Connections, Meddler, Order, Script};
use nonsense::nonsense;

struct Site {
    apiserver: Apiserver,
    meddler: Meddler,
    fixture: Fixture,
    client: Client,
}

impl Site {
    async fn start() -> anyhow::Result<Self> {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Live)) -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        let meddler = Meddler::start(&apiserver).await?;
        let fixture = Fixture::start(&apiserver, |config| {
            config.startup.upstream.servers = vec![format!("https://{}", meddler.address)];
            config.live.limits.consistent_read_timeout = Duration::from_millis(300);
            change(&mut config.live);
        })
        .await?;
        let caller = Caller::admin(apiserver.pki())?;
        let client = Client::connect(fixture.proxy.address(), &caller).await?;
        Ok(Self {
            apiserver,
            meddler,
            fixture,
            client,
        })
    }

    async fn view(&self, resource: &'static str, accept: &'static str) -> anyhow::Result<View<'_>> {
        let mut view = View {
            site: self,
            resource,
            accept,
            watch: self
                .client
                .watch(&watch_path(resource, "0"), accept)
                .await?,
            objects: HashMap::new(),
            version: 0,
            initial: true,
            reopened: false,
        };
        view.write_and_see("before").await?;
        Ok(view)
    }

    /// How often streams of a resource were given up for this reason.
    async fn broken(&self, resource: &str, accept: &str, reason: &str) -> anyhow::Result<f64> {
        let encoding = if accept == JSON { "json" } else { "protobuf" };
        let labels = format!(
            "group=\"\",version=\"v1\",resource=\"{resource}\",encoding=\"{encoding}\",reason=\"{reason}\""
        );
        let name = format!("watershed_watch_cache_broken_streams_total{{{labels}}}");
        metric(self.fixture.proxy.admin_address(), &name).await
    }

    async fn stop(self) {
        drop(self.client);
        self.fixture.stop().await;
    }
}

fn list_path(resource: &str) -> String {
    format!("/api/v1/{resource}")
}

fn watch_path(resource: &str, version: &str) -> String {
    format!("/api/v1/{resource}?watch=1&allowWatchBookmarks=1&resourceVersion={version}")
}

/// What a client makes of its watch: the state of a resource, by the events it was given.
struct View<'a> {
    site: &'a Site,
    resource: &'static str,
    accept: &'static str,
    watch: Watch,
    objects: HashMap<String, u64>,
    version: u64,
    /// Initial events come in the order of names; all others in that of versions.
    initial: bool,
    reopened: bool,
}

impl View<'_> {
    /// Writes an object and follows the watch up to its event. A watch that ends cleanly is opened
    /// again where it ended, from the whole state if that is too long ago; nothing else may happen
    /// to it.
    async fn write_and_see(&mut self, name: &str) -> anyhow::Result<()> {
        let version = write(&self.site.apiserver, self.resource, name, "x");
        self.until(version).await
    }

    async fn until(&mut self, version: u64) -> anyhow::Result<()> {
        let following = async {
            while self.version < version {
                self.step().await?;
            }
            anyhow::Ok(())
        };
        let followed = in_time(following).await;
        followed.with_context(|| format!("{} never reach {version}", self.resource))??;
        (self.initial, self.reopened) = (false, false);
        Ok(())
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        match self.watch.next().await? {
            Some(event) if event.kind == "ERROR" && self.reopened => {
                self.objects.clear();
                (self.version, self.initial) = (0, true);
                self.reopen().await
            }
            Some(event) => self.apply(&event),
            None => self.reopen().await,
        }
    }

    fn apply(&mut self, event: &crate::peer::Event) -> anyhow::Result<()> {
        ensure!(event.kind != "ERROR", "{}: {event:?}", self.resource);
        let is_newer = event.version > self.version;
        ensure!(is_newer || self.initial, "{event:?} after {}", self.version);
        self.version = self.version.max(event.version);
        self.objects.insert(event.name.clone(), event.version);
        Ok(())
    }

    async fn reopen(&mut self) -> anyhow::Result<()> {
        let path = watch_path(self.resource, &self.version.to_string());
        let opening = async {
            loop {
                match self.site.client.watch(&path, self.accept).await {
                    Ok(watch) => return watch,
                    // A cache that is being filled asks to come back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        self.watch = in_time(opening).await?;
        self.reopened = true;
        Ok(())
    }

    /// Asserts that the client is told all that the apiserver has, and nothing else.
    async fn assert_complete(&mut self) -> anyhow::Result<()> {
        let resource = self.site.apiserver.registry();
        let resource = resource.find("", "v1", self.resource).context("one")?;
        let stored = self.site.apiserver.store().read_all(&resource, None);
        let stored = stored.iter();
        let stored: HashMap<_, _> = stored
            .map(|it| (it.name.clone(), it.resource_version))
            .collect();
        self.initial = true; // some initial events may still be on their way
        let following = async {
            while self.objects != stored {
                self.step().await?;
            }
            anyhow::Ok(())
        };
        let followed = in_time(following).await;
        followed.with_context(|| format!("{} are not complete", self.resource))?
    }
}

#[tokio::test]
async fn nonsense_in_a_watch_is_not_passed_on_and_loses_nothing() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut cases = Vec::new();
    for case in nonsense() {
        let view = site.view(case.resource, case.accept).await?;
        cases.push((case, view));
    }
    // Orders are by path: the two encodings of a resource take turns.
    for accept in [JSON, PROTOBUF] {
        for (case, view) in cases.iter_mut().filter(|(case, _)| case.accept == accept) {
            for order in &case.orders {
                site.meddler.order(&list_path(view.resource), order.clone());
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            write(&site.apiserver, view.resource, "meanwhile", accept);
        }
        for (_, view) in &mut cases {
            view.write_and_see(&format!("after-{}", accept.len()))
                .await?;
        }
    }
    for (case, view) in &mut cases {
        view.assert_complete().await?;
        if let Some(reason) = case.counted {
            let counted = site.broken(case.resource, case.accept, reason).await?;
            ensure!(counted >= 1.0, "{} {} {reason}", case.resource, case.accept);
        }
    }
    drop(cases);
    site.stop().await;
    Ok(())
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Script {
    Script::Answer {
        status,
        headers: headers.to_vec(),
        body: Bytes::from_static(body.as_bytes()),
    }
}

const JSON_TYPE: (&str, &str) = ("content-type", "application/json");

/// How a watch ends, and what the server says to the requests that follow.
fn refusals() -> Vec<(&'static str, Order, Script)> {
    let later = ("retry-after", "1");
    let expired = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\
        \"status\":\"Failure\",\"code\":410,\"reason\":\"Expired\"}}\n";
    // The whole state again, from a server that is behind.
    let older = "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"ReplicationController\",\
        \"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"5\",\"annotations\":\
        {\"k8s.io/initial-events-end\":\"true\"}}}}\n";
    let ended = vec![
        (
            "configmaps",
            answer(500, &[JSON_TYPE], "{\"kind\":\"Status\"}"),
        ),
        ("secrets", answer(503, &[later], "")),
        ("services", answer(429, &[later, JSON_TYPE], "{}")),
        (
            "endpoints",
            answer(200, &[("content-type", "text/html")], "<html>hello</html>"),
        ),
        ("serviceaccounts", answer(200, &[JSON_TYPE], "")),
        (
            "limitranges",
            answer(302, &[("location", "https://127.0.0.1:1/")], ""),
        ),
        ("resourcequotas", answer(400, &[JSON_TYPE], "{\"kind\":")),
        ("podtemplates", Script::Hang),
        (
            "pods",
            Script::Stall("application/json", "{\"type\":\"ADD".into()),
        ),
    ];
    let ended = ended
        .into_iter()
        .map(|(resource, script)| (resource, Order::End, script));
    let behind = Script::Stall("application/json", older.into());
    ended
        .chain([(
            "replicationcontrollers",
            Order::Inject(expired.into()),
            behind,
        )])
        .collect()
}

#[tokio::test]
async fn a_server_that_refuses_or_hangs_is_waited_for() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut bystander = site.view("persistentvolumeclaims", JSON).await?;
    let mut views = Vec::new();
    for (resource, order, script) in refusals() {
        let view = site.view(resource, JSON).await?;
        site.meddler.script(&list_path(resource), script);
        site.meddler.order(&list_path(resource), order);
        views.push(view);
    }
    for (n, view) in views.iter_mut().enumerate() {
        let path = list_path(view.resource);
        let before = site.meddler.seen(&path);
        until("it is asked again", || {
            site.meddler.seen(&path) > before.min(1)
        })
        .await?;
        write(&site.apiserver, view.resource, "meanwhile", "x");
        view.watch.expect_silence().await?;
        bystander.write_and_see(&format!("during-{n}")).await?;
        // What is there is still served, as old as it is; a consistent read is passed through.
        let answer = site
            .client
            .get(&format!("{path}?resourceVersion=0"), JSON)
            .await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
        ensure!(!answer.body.escape_ascii().to_string().contains("meanwhile"));
        let answer = site.client.get(&path, JSON).await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
        ensure!(
            answer.body.escape_ascii().to_string().contains("meanwhile"),
            "{answer:?}"
        );
    }
    for view in &mut views {
        site.meddler.behave(&list_path(view.resource));
    }
    for view in &mut views {
        view.write_and_see("after").await?;
        view.assert_complete().await?;
    }
    drop((views, bystander));
    site.stop().await;
    Ok(())
}

/// First lists that are none.
fn lists() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "configmaps",
            JSON,
            r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[{"#,
        ),
        (
            "secrets",
            JSON,
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}"#,
        ),
        (
            "services",
            JSON,
            r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{},"items":[]}"#,
        ),
        // Page after page, and nothing on any.
        (
            "endpoints",
            JSON,
            r#"{"kind":"EndpointsList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"x"},"items":[]}"#,
        ),
        ("limitranges", JSON, "null"),
        ("resourcequotas", PROTOBUF, "k8s\0\u{a}\u{7f}"),
        ("podtemplates", PROTOBUF, "{}"),
    ]
}

#[tokio::test]
async fn a_first_list_that_makes_no_sense_is_never_served() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let checks = lists().into_iter().map(|(resource, accept, body)| {
        let site = &site;
        async move {
            let path = list_path(resource);
            write(&site.apiserver, resource, "one", "x");
            site.meddler
                .script(&path, Script::List(accept, body.into()));
            let cached = format!("{path}?resourceVersion=0");
            let answer = site.client.get(&cached, accept).await?;
            let code = answer.status;
            ensure!(code == StatusCode::TOO_MANY_REQUESTS, "{path}: {answer:?}");
            ensure!(answer.headers.contains_key("retry-after"), "{answer:?}");
            let counted = site.broken(resource, accept, "malformed").await?;
            ensure!(counted >= 1.0, "{path}");
            site.meddler.behave(&path);
            let served = async {
                loop {
                    let answer = site.client.get(&cached, accept).await?;
                    if answer.status == StatusCode::OK {
                        return anyhow::Ok(answer.body);
                    }
                }
            };
            let body = in_time(served).await.context(path)??;
            ensure!(body.escape_ascii().to_string().contains("one"), "{body:?}");
            anyhow::Ok(())
        }
    });
    let mut bystander = site.view("persistentvolumeclaims", JSON).await?;
    let checking = futures_util::future::try_join_all(checks);
    let watching = async {
        for n in 0..10 {
            bystander.write_and_see(&format!("during-{n}")).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        anyhow::Ok(())
    };
    futures_util::future::try_join(checking, watching).await?;
    drop(bystander);
    site.stop().await;
    Ok(())
}

/// A Status that says why.
fn status(code: u16, reason: &'static str) -> Script {
    let text = format!(
        "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\
         \"message\":\"{reason} by order\",\"reason\":\"{reason}\",\"code\":{code}}}"
    );
    Script::Answer {
        status: code,
        headers: vec![JSON_TYPE],
        body: text.into(),
    }
}

#[tokio::test]
async fn what_the_proxy_may_not_list_is_passed_through_and_the_log_says_why() -> anyhow::Result<()>
{
    let log = Log::install();
    let site = Site::start().await?;
    let mut bystander = site.view("secrets", JSON).await?;
    write(&site.apiserver, "configmaps", "one", "x");
    let path = list_path("configmaps");
    site.meddler.script(&path, status(403, "Forbidden"));
    for accept in [JSON, PROTOBUF] {
        let answer = site.client.get(&path, accept).await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
        ensure!(
            answer.body.escape_ascii().to_string().contains("one"),
            "{answer:?}"
        );
    }
    let mut watch = site
        .client
        .watch(&watch_path("configmaps", "0"), JSON)
        .await?;
    watch.expect("ADDED", "one").await?;
    ensure!(
        log.says("configmaps/v1 (json)", "Forbidden by order"),
        "{}",
        log.text()
    );
    bystander.write_and_see("during").await?;
    let served =
        "watershed_requests_total{verb=\"LIST\",resource=\"\",served=\"refused\",code=\"200\"}";
    ensure!(metric(site.fixture.proxy.admin_address(), served).await? >= 1.0);

    // One that was served until now: its watchers end cleanly, and go on at the apiserver.
    let mut view = site.view("services", JSON).await?;
    site.meddler
        .script(&list_path("services"), status(403, "Forbidden"));
    site.meddler.order(&list_path("services"), Order::End);
    view.write_and_see("later").await?;
    view.assert_complete().await?;

    // 401 is a matter of the proxy's credentials: what is there is served while they are mended.
    let mut view = site.view("endpoints", JSON).await?;
    site.meddler
        .script(&list_path("endpoints"), status(401, "Unauthorized"));
    site.meddler.order(&list_path("endpoints"), Order::End);
    until("it is asked again", || {
        site.meddler.seen(&list_path("endpoints")) > 1
    })
    .await?;
    view.watch.expect_silence().await?;
    let answer = site
        .client
        .get("/api/v1/endpoints?resourceVersion=0", JSON)
        .await?;
    ensure!(answer.status == StatusCode::OK, "{answer:?}");
    bystander.write_and_see("after").await?;
    drop((watch, view, bystander));
    site.stop().await;
    Ok(())
}

#[tokio::test]
async fn connections_that_break_or_leave_are_replaced_and_nothing_is_lost() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut views = Vec::new();
    for (resource, accept) in [
        ("configmaps", JSON),
        ("services", PROTOBUF),
        ("secrets", JSON),
    ] {
        views.push(site.view(resource, accept).await?);
    }
    for (n, fate) in [
        Connections::Leave,
        Connections::Garbage,
        Connections::Serve,
        Connections::Refuse,
        Connections::Serve,
    ]
    .into_iter()
    .enumerate()
    {
        site.meddler.connections(fate);
        let name = format!("during-{n}");
        match fate {
            Connections::Leave | Connections::Serve => {
                for view in &mut views {
                    view.write_and_see(&name).await?;
                }
                let answer = site.client.get("/api/v1/nodes?limit=1", JSON).await?;
                ensure!(answer.status == StatusCode::OK, "{answer:?}");
            }
            Connections::Garbage | Connections::Refuse => {
                for view in &mut views {
                    write(&site.apiserver, view.resource, &name, "x");
                    view.watch.expect_silence().await?;
                    let path = format!("/api/v1/{}?resourceVersion=0", view.resource);
                    let answer = site.client.get(&path, view.accept).await?;
                    ensure!(answer.status == StatusCode::OK, "{answer:?}");
                }
                assert_unavailable(&site.client.get("/api/v1/nodes?limit=1", JSON).await?)?;
            }
        }
    }
    for view in &mut views {
        view.write_and_see("after").await?;
        view.assert_complete().await?;
    }
    drop(views);
    site.stop().await;
    Ok(())
}

fn assert_unavailable(answer: &Answer) -> anyhow::Result<()> {
    let status: serde_json::Value = serde_json::from_slice(&answer.body)?;
    ensure!([502, 503].contains(&answer.status.as_u16()), "{answer:?}");
    ensure!(status["kind"] == "Status", "{status}");
    ensure!(
        status["message"]
            .as_str()
            .is_some_and(|it| it.contains("apiserver")),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn a_forwarded_request_that_hangs_is_answered_in_time() -> anyhow::Result<()> {
    let site =
        Site::start_with(|live| live.limits.request_timeout = Duration::from_secs(1)).await?;
    let mut bystander = site.view("secrets", JSON).await?;
    site.apiserver.faults().fail_requests(
        "/api/v1/nodes",
        watershed_loadtest::apiserver::faults::Failure::Hang,
        100,
    );
    let answer = site.client.get("/api/v1/nodes?limit=1", JSON).await?;
    ensure!(answer.status == StatusCode::GATEWAY_TIMEOUT, "{answer:?}");
    bystander.write_and_see("during").await?;
    drop(bystander);
    site.stop().await;
    Ok(())
}

/// The warnings of every proxy in this process.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn install() -> Self {
        static LOG: std::sync::OnceLock<Log> = std::sync::OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::WARN)
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .init();
            log
        });
        log.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Whether one line has both.
    fn says(&self, one: &str, other: &str) -> bool {
        self.text()
            .lines()
            .any(|line| line.contains(one) && line.contains(other))
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_upstream_that_answers_with_the_past_is_never_believed() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let mut view = site.view("configmaps", JSON).await?;
    view.write_and_see("first").await?;
    let path = list_path("configmaps");
    let past = "{\"kind\":\"ConfigMapList\",\"apiVersion\":\"v1\",\
        \"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}\n";
    let past = Script::List("application/json", Bytes::from_static(past.as_bytes()));
    site.meddler.script(&path, past);

    let consistent = site.client.get(&path, JSON).await?;
    let text = String::from_utf8_lossy(&consistent.body).into_owned();
    assert_eq!(consistent.status, StatusCode::GATEWAY_TIMEOUT, "{text}");
    assert_eq!(consistent.headers["retry-after"], "1");
    ensure!(text.contains("Too large resource version: "), "{text}");
    ensure!(text.contains(", current: 1\""), "{text}");
    let cached = format!("{path}?resourceVersion=0");
    let cached = site.client.get(&cached, JSON).await?;
    let text = String::from_utf8_lossy(&cached.body).into_owned();
    ensure!(text.contains("\"first\""), "{text}");
    let mut watch = site.client.watch(&format!("{path}?watch=1"), JSON).await?;
    let event = watch.next().await?.context("no error")?;
    assert_eq!(event.kind, "ERROR");
    view.write_and_see("meanwhile").await?;

    site.meddler.behave(&path);
    let fresh = async {
        while site.client.get(&path, JSON).await?.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    in_time(fresh).await??;
    view.assert_complete().await?;
    drop(view);
    site.stop().await;
    Ok(())
}
