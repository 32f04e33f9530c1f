//! No token, key or object of anybody in what the process tells: its log at trace level, its metrics
//! and admin pages, and its answers to others.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use watershed_loadtest::apiserver::{
    Apiserver, Options,
    authn::Users,
    certs::Pki,
    faults::{Damage, Failure},
};

use crate::{
    client::{Client, JSON, PROTOBUF, Protocol, empty, full},
    fixture::ask_admin,
    objects::{let_read, load},
    peer::{Caller, HTTP1, in_time, until},
};

const SECRETS: &str = "/api/v1/namespaces/a/secrets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESSES: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

const GOOD_TOKEN: &str = "alices-t0ken/which+nobody~else_may.see";
const BAD_TOKEN: &str = "an-0ld.t0ken/that+somebody~may_still.use";
const BASIC: &str = "root:pa55word+of/somebody";
const IN_OBJECT: &str = "the pa55word in a Secret, of course";
const WRITTEN: &str = "another pa55word, on its way to be stored";

/// What must not be told, and every way in which it could be.
struct Untold(Vec<(String, String)>);

impl Untold {
    /// Nothing yet but what the constants above say.
    fn new() -> Self {
        let mut untold = Self(Vec::new());
        for secret in [GOOD_TOKEN, BAD_TOKEN, BASIC, IN_OBJECT, WRITTEN] {
            untold.add(secret, secret.as_bytes());
        }
        untold
    }

    fn add(&mut self, name: &str, secret: &[u8]) {
        let mut forms = vec![
            String::from_utf8_lossy(secret).into_owned(),
            percent_encode(secret, NON_ALPHANUMERIC).to_string(),
            secret.escape_ascii().to_string(),
            format!("{:?}", &secret[1..secret.len() - 1]),
        ];
        // base64 of something around it looks different by where it begins.
        for before in 0..3_usize {
            let around = [&b"..."[..before], secret, b"..."].concat();
            for encoded in [
                BASE64_STANDARD.encode(&around),
                BASE64_URL_SAFE_NO_PAD.encode(&around),
            ] {
                forms.push(encoded[4..encoded.len() - 8].to_owned());
            }
        }
        // Debug of bytes, within a longer list too.
        let list = forms[3].trim_matches(['[', ']']).to_owned();
        forms[3] = list;
        let named = forms.into_iter().map(|form| (name.to_owned(), form));
        self.0.extend(named);
    }

    /// The key in a PEM file: its text, line by line, and its bytes.
    fn add_key(&mut self, path: &Path) -> anyhow::Result<()> {
        let pem = std::fs::read_to_string(path)?;
        let name = path.display().to_string();
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        for line in lines.clone().filter(|line| line.len() > 20) {
            self.add(&name, line.as_bytes());
        }
        let der = BASE64_STANDARD.decode(lines.collect::<String>())?;
        // PKCS #8 of a P-256 key: 36 bytes that all of them begin with, then the key.
        self.add(&name, &der[36..68]);
        Ok(())
    }

    fn ensure_not_in(&self, place: &str, told: &str) -> anyhow::Result<()> {
        for (name, form) in &self.0 {
            if let Some(at) = told.find(form.as_str()) {
                let around = &told.as_bytes()[at.saturating_sub(300)..told.len().min(at + 300)];
                anyhow::bail!("{name} is in {place}: {}", String::from_utf8_lossy(around));
            }
        }
        Ok(())
    }
}

#[test]
fn what_must_not_be_told_is_found_in_every_form() -> anyhow::Result<()> {
    let untold = Untold::new();
    let told = |text: &str| untold.ensure_not_in("a test", text).is_err();
    let url_safe = BASE64_URL_SAFE_NO_PAD.encode(format!("Bearer {GOOD_TOKEN}"));
    let debug = json!({"message": format!("{:?}", IN_OBJECT.as_bytes())});
    for text in [
        format!("bad token {BAD_TOKEN}, sorry"),
        format!(
            "/?access_token={}",
            percent_encode(GOOD_TOKEN.as_bytes(), NON_ALPHANUMERIC)
        ),
        format!("Basic {}", BASE64_STANDARD.encode(BASIC)),
        secret("db", WRITTEN).to_string(),
        format!("got {url_safe}"),
        debug.to_string(),
    ] {
        ensure!(told(&text), "{text}");
    }
    ensure!(!told("alice may not read Secret db"));
    Ok(())
}

/// `watershed serve` in a process of its own; killed when dropped.
struct Serving {
    process: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Serving {
    async fn start(folder: tempfile::TempDir) -> anyhow::Result<Self> {
        let config = folder.path().join("watershed.yaml");
        let text = std::fs::read_to_string(&config)?
            .replace("\"127.0.0.1:8443\"", "\"127.0.0.1:0\"")
            .replace("\"127.0.0.1:9443\"", "\"127.0.0.1:0\"");
        let own = "authentication: {tokenReview: {cacheTTL: 0s}}\n\
                   limits: {consistentReadTimeout: 300ms}\ndrain: {gracePeriod: 1s}\n";
        std::fs::write(&config, text + own)?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let process = Command::new(env!("CARGO_BIN_EXE_watershed"))
            .args([
                "--log-level",
                "trace",
                "--log-format",
                "json",
                "serve",
                "--config",
            ])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let nowhere = SocketAddr::from(([0; 4], 0));
        let mut serving = Self {
            process,
            folder,
            address: nowhere,
            admin: nowhere,
        };
        until("it serves", || serving.logged("\"serving\"")).await?;
        let log = serving.log();
        let line = log.lines().find(|line| line.contains("\"serving\""));
        let line: Value = serde_json::from_str(line.context("it serves")?)?;
        let field = |name: &str| line["fields"][name].as_str().unwrap_or_default().parse();
        (serving.address, serving.admin) = (field("address")?, field("admin.address")?);
        Ok(serving)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap()
    }

    fn logged(&self, words: &str) -> bool {
        self.log().contains(words)
    }

    fn client(
        &self,
        pki: &Pki,
        user: Option<(&str, Option<&str>)>,
        protocol: Protocol,
    ) -> anyhow::Result<Client> {
        let credential = user
            .map(|(name, group)| pki.issue(name, group))
            .transpose()?;
        Client::new(self.address, pki.ca(), credential.as_ref(), protocol)
    }

    /// Drains it, and the whole log.
    async fn stop(mut self) -> anyhow::Result<String> {
        let pid = Pid::from_raw(self.process.id().try_into()?).context("a process")?;
        kill_process(pid, Signal::TERM)?;
        until("it ends", || matches!(self.process.try_wait(), Ok(Some(_)))).await?;
        Ok(self.log())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn start() -> anyhow::Result<(Apiserver, Serving)> {
    let users = Users::parse(&format!("{GOOD_TOKEN},alice,1"))?;
    let folder = tempfile::tempdir()?;
    let apiserver = Apiserver::start(Options {
        users,
        dir: Some(folder.path().to_owned()),
        ..Options::default()
    })
    .await?;
    let_read(&apiserver, "a", &["alice", "bob"]);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    load(&apiserver, ("", "namespaces"), namespace);
    put(&apiserver, "db", IN_OBJECT);
    let serving = Serving::start(folder).await?;
    Ok((apiserver, serving))
}

fn put(apiserver: &Apiserver, name: &str, password: &str) {
    load(apiserver, ("", "secrets"), secret(name, password));
}

fn secret(name: &str, password: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {
            "name": name, "namespace": "a", "uid": name,
            "annotations": {"kept-for-kubectl": password},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }, "data": {"password": BASE64_STANDARD.encode(password)}})
}

/// What is answered to a request with these headers; connections that end count as no answer.
async fn ask(client: &Client, target: &str, headers: &[(&'static str, String)]) -> (u16, String) {
    let mut request = client.request(Method::GET, target).body(empty()).unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match client.whole(request).await {
        Ok(answer) => (answer.status.as_u16(), answer.text()),
        Err(_ended) => (0, String::new()),
    }
}

/// Tokens, good and bad, in every place a client can put one, while reviews work and while not.
async fn show_tokens(
    (apiserver, serving): (&Apiserver, &Serving),
    untold: &Untold,
) -> anyhow::Result<()> {
    let pki = apiserver.pki();
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    let subprotocol = |token: &str| {
        let token = BASE64_URL_SAFE_NO_PAD.encode(token);
        let list = format!("base64url.bearer.authorization.k8s.io.{token}, v4.channel.k8s.io");
        vec![
            ("connection", "upgrade".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("sec-websocket-protocol", list),
        ]
    };
    let reset = || apiserver.faults().heal_requests();
    let failures: [(&str, Option<Failure>); 4] = [
        (REVIEWS, None),
        (REVIEWS, Some(Failure::Unavailable)),
        (REVIEWS, Some(Failure::InternalError)),
        (ACCESSES, Some(Failure::InternalError)),
    ];
    for (path, failure) in failures {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            if let Some(failure) = failure {
                apiserver.faults().fail_requests(path, failure, 2);
            }
            for token in [GOOD_TOKEN, BAD_TOKEN] {
                let client = serving.client(pki, None, protocol)?;
                let plain = bearer(token);
                let (code, _) = ask(&client, CONFIG_MAPS, &plain).await;
                let expected = if token == GOOD_TOKEN { 200 } else { 401 };
                ensure!(failure.is_some() || code == expected, "{code} for {token}");
                for target in [SECRETS, "/version", "//", "/api/v1/%zz"] {
                    let (code, told) = ask(&client, target, &plain).await;
                    ensure!(target != SECRETS || code != 200, "{told}");
                    untold.ensure_not_in(&format!("the answer for {target}"), &told)?;
                }
                let with = format!("{CONFIG_MAPS}?access_token={token}&limit=x");
                let (_, told) = ask(&client, &with, &bearer(&format!("{token} {token}"))).await;
                untold.ensure_not_in("an answer", &told)?;
            }
            reset();
        }
        let client = serving.client(pki, None, Protocol::Http1)?;
        ask(&client, CONFIG_MAPS, &subprotocol(GOOD_TOKEN)).await;
        ask(&client, CONFIG_MAPS, &subprotocol(BAD_TOKEN)).await;
        let basic = format!("Basic {}", BASE64_STANDARD.encode(BASIC));
        ask(&client, CONFIG_MAPS, &[("authorization", basic)]).await;
    }
    // Heads that cannot be parsed.
    let stranger = Caller::admin(pki)?;
    for head in [
        format!("GET / HTTP/1.1\r\nAuthorization: Bearer {BAD_TOKEN}\r\nno header\r\n\r\n"),
        format!("GET /{GOOD_TOKEN}\0 HTTP/1.1\r\n\r\n"),
        format!("Authorization: Bearer {GOOD_TOKEN}\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nAuthorization: {BAD_TOKEN}{}\r\n\r\n",
            "x".repeat(99_999)
        ),
    ] {
        let mut stream = stranger.dial(serving.address, HTTP1).await?;
        drop(stream.write_all(head.as_bytes()).await);
        let mut answer = Vec::new();
        drop(in_time(stream.read_to_end(&mut answer)).await?);
        untold.ensure_not_in("an answer", &String::from_utf8_lossy(&answer))?;
    }
    Ok(())
}

/// Objects: read, watched, written, broken on their way, not ready, refused.
async fn show_objects(
    (apiserver, serving): (&Apiserver, &Serving),
    untold: &Untold,
) -> anyhow::Result<()> {
    let pki = apiserver.pki();
    let admin = ("admin", Some("system:masters"));
    let bob = serving.client(pki, Some(("bob", None)), Protocol::Http2)?;
    for (protocol, accept) in [(Protocol::Http1, JSON), (Protocol::Http2, PROTOBUF)] {
        let admin = serving.client(pki, Some(admin), protocol)?;
        let accepting = [("accept", accept.to_owned())];
        let (code, _) = ask(&admin, SECRETS, &accepting).await;
        ensure!(code == 200, "{code}");
        let target = format!("{SECRETS}?watch=1&resourceVersion=0");
        let mut watch = admin.watch(&target, accept).await?;
        watch.object().await?;
        for damage in [Damage::Malformed, Damage::Truncated] {
            apiserver.faults().damage_frames(damage, 2);
            put(
                apiserver,
                "db",
                &format!("{IN_OBJECT} {protocol:?} {damage:?}"),
            );
            in_time(watch.object()).await??;
        }
        for path in [SECRETS, ACCESSES] {
            apiserver
                .faults()
                .fail_requests(path, Failure::InternalError, 3);
            for target in [
                SECRETS,
                &format!("{SECRETS}/db"),
                &format!("{SECRETS}?watch=1&x=y"),
            ] {
                let (_, told) = ask(&bob, target, &accepting).await;
                untold.ensure_not_in("an answer to bob", &told)?;
            }
            apiserver.faults().heal_requests();
        }
        // Not proven fresh: read once for all.
        apiserver.lag(true);
        put(apiserver, "late", IN_OBJECT);
        ask(&admin, SECRETS, &accepting).await;
        apiserver.lag(false);
        let mut writing = secret(&format!("new-{protocol:?}").to_lowercase(), WRITTEN);
        let created = admin.write(Method::POST, SECRETS, &writing).await?;
        ensure!(created.status == 201, "{}", created.text());
        writing["data"] = json!(WRITTEN);
        let refused = admin.write(Method::POST, SECRETS, &writing).await?;
        ensure!(!refused.status.is_success());
        let torn = format!("{{\"data\": {{\"password\": \"{WRITTEN}");
        let request = admin.request(Method::POST, SECRETS);
        let request = request.header("content-type", JSON).body(full(torn))?;
        admin.whole(request).await?;
        let refused = bob.write(Method::POST, SECRETS, &writing).await?;
        untold.ensure_not_in("an answer to bob", &refused.text())?;
    }
    Ok(())
}

/// Credentials that change under the running process into what cannot be used, each of it secret:
/// cut off, then with another beginning and end. Files are looked at every ten seconds.
async fn break_files(serving: &Serving) -> anyhow::Result<()> {
    let names = ["server.key", "watershed.kubeconfig", "front-proxy.key"];
    let files = names.map(|name| serving.file(name));
    let good = files.each_ref().map(std::fs::read_to_string);
    let break_file = |at: usize, broken: String| std::fs::write(&files[at], broken);
    let whole = |at: usize| good[at].as_deref().unwrap().to_owned();
    let cut = |at: usize| whole(at)[..whole(at).len() / 2].to_owned();
    let seen = |what: &str, times| {
        let log = serving.log();
        let complaints = log
            .lines()
            .filter(|line| line.contains("new files cannot be used"));
        complaints.filter(|line| line.contains(what)).count() >= times
    };
    let both_seen = |times| move || seen("listener", times) && seen("credentials", times);
    break_file(0, cut(0))?;
    break_file(1, format!("{}\n  x: [{BAD_TOKEN}", cut(1)))?;
    until("they were seen", both_seen(1)).await?;
    break_file(0, whole(0).replace("-----", "- -"))?;
    break_file(1, whole(1))?;
    break_file(2, cut(2))?;
    until("others were seen", both_seen(2)).await?;
    (0..3).try_for_each(|at| break_file(at, whole(at)))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_told_in_logs_metrics_pages_or_answers_to_others() -> anyhow::Result<()> {
    let (apiserver, serving) = start().await?;
    let mut untold = Untold::new();
    for key in [
        "server.key",
        "watershed.key",
        "front-proxy.key",
        "admin.key",
    ] {
        untold.add_key(&serving.file(key))?;
    }
    let site = (&apiserver, &serving);
    show_tokens(site, &untold).await?;
    show_objects(site, &untold).await?;
    break_files(&serving).await?;
    for page in [
        "/metrics",
        "/livez?verbose",
        "/readyz?verbose",
        "/healthz?verbose&exclude=x",
        "/readyz/upstream",
        "/readyz/ping",
        &format!("/readyz/{BAD_TOKEN}"),
        "/debug",
        "/debug/caches",
        "/",
    ] {
        let (_, told) = ask_admin(serving.admin, page).await?;
        untold.ensure_not_in(page, &told)?;
    }
    let log = serving.stop().await?;
    for words in [
        "\"not authenticated\"",
        "\"retrying\"",
        "\"level\":\"DEBUG\"",
    ] {
        ensure!(log.contains(words), "{words} is not in the log: {log}");
    }
    untold.ensure_not_in("the log", &log)?;
    apiserver.shutdown().await;
    Ok(())
}
