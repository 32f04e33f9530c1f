//! Files that change while the proxy runs: new ones are used, broken ones reported, and nobody who
//! is connected notices.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use tokio_util::task::AbortOnDropHandle;
use watershed::Proxy;
use watershed_config::{Config, Reloader};
use watershed_loadtest::apiserver::{
    Apiserver, Options,
    certs::{Credential, Pki},
};

use crate::{
    fixture::{Fixture, RELOAD_INTERVAL, ask_admin, preload},
    peer::{Caller, Client, JSON, in_time, metric, until, write},
};

const CONFIGMAPS: &str = "/api/v1/configmaps?resourceVersion=0";
const WATCH: &str = "/api/v1/configmaps?watch=1&resourceVersion=0";
const CHANGED: &str = "watershed_tls_reloads_total{outcome=\"changed\"}";
const INVALID: &str = "watershed_tls_reloads_total{outcome=\"invalid\"}";

fn replace(folder: &Path, stem: &str, new: &Credential) {
    std::fs::write(folder.join(format!("{stem}.crt")), &new.certificate).unwrap();
    std::fs::write(folder.join(format!("{stem}.key")), &new.key).unwrap();
}

/// Waits until the metric has grown above `before`.
async fn until_above(fixture: &Fixture, name: &str, before: f64) -> anyhow::Result<()> {
    let address = fixture.proxy.admin_address();
    let grown = async {
        while metric(address, name).await? <= before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    in_time(grown).await.with_context(|| name.to_owned())?
}

#[tokio::test]
async fn a_new_certificate_is_served_and_old_connections_live_on() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| {}).await?;
    let (address, admin_address) = (fixture.proxy.address(), fixture.proxy.admin_address());
    let caller = Caller::admin(apiserver.pki())?;
    let old = Client::connect(address, &caller).await?;
    let mut watch = old.watch(WATCH, JSON).await?;

    let next = Pki::ephemeral()?;
    replace(fixture.folder(), "server", next.server());
    until_above(&fixture, CHANGED, 0.0).await?;
    let new = Client::connect(address, &caller.trusting(next.ca())).await?;
    ensure!(new.server == next.server().chain()?[0].to_vec());
    ensure!(new.server != old.server);
    ensure!(new.get(CONFIGMAPS, JSON).await?.status == StatusCode::OK);
    ensure!(old.get(CONFIGMAPS, JSON).await?.status == StatusCode::OK);
    see(&apiserver, &mut watch, "after-new").await?;

    // A broken file, then a key that belongs to another certificate.
    let invalid = metric(admin_address, INVALID).await?;
    std::fs::write(fixture.folder().join("server.crt"), "-----BEGIN nothing")?;
    until_above(&fixture, INVALID, invalid).await?;
    let invalid = metric(admin_address, INVALID).await?;
    let other = Pki::ephemeral()?;
    std::fs::write(
        fixture.folder().join("server.crt"),
        &other.server().certificate,
    )?;
    until_above(&fixture, INVALID, invalid).await?;
    let same = Client::connect(address, &caller.trusting(next.ca())).await?;
    ensure!(same.server == new.server);
    see(&apiserver, &mut watch, "after-broken").await?;

    drop((watch, old, new, same));
    fixture.stop().await;
    Ok(())
}

#[tokio::test]
async fn files_that_anybody_may_write_to_are_not_taken() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |_| {}).await?;
    let address = fixture.proxy.address();
    let caller = Caller::admin(apiserver.pki())?;
    let old = Client::connect(address, &caller).await?;
    let key = fixture.folder().join("server.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o666))?;
    until_above(&fixture, INVALID, 0.0).await?;
    let next = Pki::ephemeral()?;
    replace(fixture.folder(), "server", next.server());
    let same = Client::connect(address, &caller).await?;
    ensure!(same.server == old.server);
    std::fs::set_permissions(&key, Permissions::from_mode(0o640))?;
    until_above(&fixture, CHANGED, 0.0).await?;
    let new = Client::connect(address, &caller.trusting(next.ca())).await?;
    ensure!(new.server != old.server);
    drop((old, same, new));
    fixture.stop().await;
    Ok(())
}

/// Writes a configmap and reads the watch up to its event.
async fn see(
    apiserver: &Apiserver,
    watch: &mut crate::peer::Watch,
    name: &str,
) -> anyhow::Result<()> {
    write(apiserver, "configmaps", name, "x");
    loop {
        let event = watch.next().await?.context("the watch ended")?;
        if event.name == name {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_new_client_ca_judges_the_next_request_and_cuts_nobody() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let mut client_ca = Path::new("").to_owned();
    let fixture = Fixture::start(&apiserver, |config| {
        let listen = &mut config.startup.listen;
        client_ca = listen.cert_file.with_file_name("clients.crt");
        std::fs::write(&client_ca, apiserver.pki().ca()).unwrap();
        listen.client_ca_file = Some(client_ca.clone());
    })
    .await?;
    let address = fixture.proxy.address();
    let next = Pki::ephemeral()?;
    let old = Caller::admin(apiserver.pki())?;
    let caller = Caller::admin(&next)?.trusting(apiserver.pki().ca());
    let (old, new) = (
        Client::connect(address, &old).await?,
        Client::connect(address, &caller).await?,
    );
    let mut watch = old.watch(WATCH, JSON).await?;
    let status = |answer: anyhow::Result<crate::peer::Answer>| answer.map(|it| it.status);
    ensure!(status(old.get(CONFIGMAPS, JSON).await)? == StatusCode::OK);
    ensure!(status(new.get(CONFIGMAPS, JSON).await)? == StatusCode::UNAUTHORIZED);
    // That was the last answer of its connection. The other one's watch goes on after its own.
    let new = Client::connect(address, &caller).await?;

    std::fs::write(&client_ca, next.ca())?;
    until_above(&fixture, CHANGED, 0.0).await?;
    ensure!(status(old.get(CONFIGMAPS, JSON).await)? == StatusCode::UNAUTHORIZED);
    ensure!(status(new.get(CONFIGMAPS, JSON).await)? == StatusCode::OK);
    see(&apiserver, &mut watch, "still-watched").await?;

    std::fs::write(&client_ca, "no certificate")?;
    until_above(&fixture, INVALID, 0.0).await?;
    ensure!(status(new.get(CONFIGMAPS, JSON).await)? == StatusCode::OK);

    drop((watch, old, new));
    fixture.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_new_front_proxy_certificate_is_used_for_what_is_forwarded() -> anyhow::Result<()> {
    const FORWARDED: &str = "/api/v1";
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        // One the apiserver does not believe.
        let folder = config.startup.listen.cert_file.parent().unwrap();
        let stranger = Pki::ephemeral().unwrap().issue_front_proxy().unwrap();
        replace(folder, "front-proxy", &stranger);
    })
    .await?;
    let caller = Caller::admin(apiserver.pki())?;
    let client = Client::connect(fixture.proxy.address(), &caller).await?;
    let mut watch = client.watch(WATCH, JSON).await?;
    let answer = client.get(FORWARDED, JSON).await?;
    ensure!(answer.status == StatusCode::UNAUTHORIZED, "{answer:?}");

    let good = apiserver.pki().issue_front_proxy()?;
    replace(fixture.folder(), "front-proxy", &good);
    until_above(&fixture, CHANGED, 0.0).await?;
    let answer = client.get(FORWARDED, JSON).await?;
    ensure!(answer.status == StatusCode::OK, "{answer:?}");

    let invalid = metric(fixture.proxy.admin_address(), INVALID).await?;
    std::fs::write(fixture.folder().join("front-proxy.key"), "no key")?;
    until_above(&fixture, INVALID, invalid).await?;
    let answer = client.get(FORWARDED, JSON).await?;
    ensure!(answer.status == StatusCode::OK, "{answer:?}");
    see(&apiserver, &mut watch, "still-watched").await?;

    drop((watch, client));
    fixture.stop().await;
    Ok(())
}

/// A proxy that follows its configuration file.
struct Followed {
    proxy: Proxy,
    folder: tempfile::TempDir,
    _reloader: AbortOnDropHandle<()>,
}

impl Followed {
    async fn start(apiserver: &Apiserver) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        apiserver
            .pki()
            .write_files(folder.path(), apiserver.addr())?;
        let path = folder.path().join("watershed.yaml");
        let text = std::fs::read_to_string(&path)?;
        let text = text
            .replace("127.0.0.1:8443", "127.0.0.1:0")
            .replace("127.0.0.1:9443", "127.0.0.1:0");
        std::fs::write(&path, text + "drain: {gracePeriod: 1s}\n")?;
        let config = Config::load(&path)?;
        let (reloader, live) = Reloader::new(path, &config);
        let proxy = Proxy::start(&config, live).await?;
        let reloader = tokio::spawn(reloader.run(RELOAD_INTERVAL, std::future::pending()));
        Ok(Self {
            proxy,
            folder,
            _reloader: AbortOnDropHandle::new(reloader),
        })
    }

    /// Puts the file with these further lines in place, whole at once.
    fn configure(&self, lines: &str) -> anyhow::Result<()> {
        let path = self.folder.path().join("watershed.yaml");
        let text = std::fs::read_to_string(&path)?;
        let (base, _) = text.split_once("drain:").context("the base")?;
        let next = self.folder.path().join("next.yaml");
        std::fs::write(&next, format!("{base}drain: {{gracePeriod: 1s}}\n{lines}"))?;
        Ok(std::fs::rename(next, path)?)
    }
}

#[tokio::test]
async fn a_changed_configuration_is_in_force_at_once_and_a_broken_one_never() -> anyhow::Result<()>
{
    let apiserver = Apiserver::start(Options::default()).await?;
    let followed = Followed::start(&apiserver).await?;
    let address = followed.proxy.address();
    let caller = Caller::admin(apiserver.pki())?;
    let client = Client::connect(address, &caller).await?;
    let mut watch = client
        .watch("/api/v1/secrets?watch=1&resourceVersion=0", JSON)
        .await?;
    let lists = || apiserver.counters().requests("list", "", "configmaps");

    // Cached, then passed through, then cached again.
    ensure!(client.get(CONFIGMAPS, JSON).await?.status == StatusCode::OK);
    ensure!(lists() == 0, "answered from the cache");
    until("the cache is open", || {
        apiserver.counters().open_watches("", "configmaps") == 1
    })
    .await?;
    followed.configure("cache: {passthrough: [{group: \"\", resource: configmaps}]}\n")?;
    until("its cache is closed", || {
        apiserver.counters().open_watches("", "configmaps") == 0
    })
    .await?;
    ensure!(client.get(CONFIGMAPS, JSON).await?.status == StatusCode::OK);
    ensure!(lists() == 1, "passed through");

    // A limit: those who are in stay, one more is closed.
    followed.configure("limits: {connections: 1}\n")?;
    let refused = async {
        while Client::connect(address, &caller).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(refused).await.context("the limit is in force")?;
    write(&apiserver, "secrets", "one", "x");
    watch.expect("ADDED", "one").await?;
    ensure!(client.get(CONFIGMAPS, JSON).await?.status == StatusCode::OK);
    ensure!(lists() == 1, "cached again");

    // Broken files: what is in force stays.
    for broken in [
        "limits: {connections: 0}\n",
        "limits: [\n",
        "colour: blue\n",
    ] {
        followed.configure(broken)?;
        tokio::time::sleep(RELOAD_INTERVAL * 4).await;
        let second = Client::connect(address, &caller).await;
        ensure!(second.is_err(), "{broken} has changed the limit");
        write(
            &apiserver,
            "secrets",
            "two",
            broken.get(..6).unwrap_or_default(),
        );
        ensure!(watch.next().await?.is_some());
    }

    followed.configure("")?;
    let let_in = async {
        while Client::connect(address, &caller).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(let_in).await.context("the limit is gone")?;
    write(&apiserver, "secrets", "three", "x");
    watch.expect("ADDED", "three").await?;
    let ready = ask_admin(followed.proxy.admin_address(), "/readyz").await?;
    ensure!(ready == (200, "ok".to_owned()), "{ready:?}");

    drop((watch, client));
    followed.proxy.drain().await;
    Ok(())
}

#[tokio::test]
async fn a_changed_idle_time_closes_unused_caches_and_zero_keeps_them() -> anyhow::Result<()> {
    let apiserver = Apiserver::start(Options::default()).await?;
    let fixture = Fixture::start(&apiserver, |config| {
        config.live.cache.defaults.idle_timeout = Duration::ZERO;
        preload(&mut config.live, "", "secrets");
    })
    .await?;
    let caller = Caller::admin(apiserver.pki())?;
    let client = Client::connect(fixture.proxy.address(), &caller).await?;
    let open = |resource: &str| apiserver.counters().open_watches("", resource);
    ensure!(client.get(CONFIGMAPS, JSON).await?.status == StatusCode::OK);
    ensure!(open("configmaps") == 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure!(open("configmaps") == 1, "zero keeps a cache open");
    fixture.live.send_modify(|live| {
        let mut changed = (**live).clone();
        changed.cache.defaults.idle_timeout = Duration::from_millis(200);
        *live = std::sync::Arc::new(changed);
    });
    until("an unused cache is closed", || open("configmaps") == 0).await?;
    ensure!(
        open("secrets") == 2,
        "a preloaded one stays, in both encodings"
    );
    drop(client);
    fixture.stop().await;
    Ok(())
}
