//! A proxy in front of an embedded apiserver, on free ports, with every certificate it needs.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::watch};
use tokio_util::task::AbortOnDropHandle;
use watershed::Proxy;
use watershed_config::{CachedResource, Config, Live};
use watershed_loadtest::apiserver::{
    Apiserver,
    certs::{Credential, Pki},
};

use crate::client::{Client, PATIENCE, Protocol, empty};

/// A running proxy. Its files live as long as it does.
pub(crate) struct Fixture {
    pub(crate) proxy: Proxy,
    /// The live settings; dropping it would only end reloading.
    pub(crate) live: watch::Sender<Arc<Live>>,
    /// None when the files were for the start only.
    folder: Option<tempfile::TempDir>,
}

/// Who decides what a client may. What it may is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The apiserver, asked by SubjectAccessReview.
    Reviews,
    /// The proxy, told that Node and RBAC are the apiserver's authorizers.
    Local,
}

/// Every form.
pub(crate) const FORMS: [Form; 2] = [Form::Reviews, Form::Local];

impl Form {
    /// Declares the control plane so that it comes to this form.
    pub(crate) fn declare(self, config: &mut Config) {
        config.startup.authorizers.node = self.decides();
        config.startup.authorizers.rbac = self.decides();
    }

    /// Whether the proxy decides.
    pub(crate) fn decides(self) -> bool {
        match self {
            Self::Reviews => false,
            Self::Local => true,
        }
    }
}

/// How often certificates and credentials are looked at: often, so that no test waits for it.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_millis(50);

impl Fixture {
    /// The example proxy of `apiserver`, changed by `change`.
    pub(crate) async fn start(
        apiserver: &Apiserver,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        Self::behind(apiserver.pki(), apiserver.addr(), change).await
    }

    /// The same, leaving no files behind: for a proxy that lives as long as the process.
    pub(crate) async fn start_without_files(
        apiserver: &Apiserver,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        let (pki, address) = (apiserver.pki(), apiserver.addr());
        let mut own = Self::polling(pki, address, Duration::from_hours(24), change).await?;
        own.folder = None;
        Ok(own)
    }

    /// The example proxy of the apiserver at `address`, whose certificates are of `pki`.
    pub(crate) async fn behind(
        pki: &Pki,
        address: SocketAddr,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        Self::polling(pki, address, RELOAD_INTERVAL, change).await
    }

    async fn polling(
        pki: &Pki,
        address: SocketAddr,
        interval: Duration,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        pki.write_files(folder.path(), address)?;
        let mut config = Config::load(&folder.path().join("watershed.yaml"))?;
        config.startup.listen.address.set_port(0);
        config.startup.admin.address.set_port(0);
        config.live.drain.grace_period = Duration::from_secs(1);
        // Most peers of these tests are no whole control plane; who has one declares a form.
        config.startup.authorizers.rbac = false;
        change(&mut config);
        let (live, receiver) = watch::channel(Arc::new(config.live.clone()));
        let proxy = Proxy::start_polling(&config, receiver, interval).await?;
        until_ready(&proxy).await?;
        Ok(Self {
            proxy,
            live,
            folder: Some(folder),
        })
    }

    /// A client of the proxy, which trusts the authority of `apiserver`.
    pub(crate) fn client(
        &self,
        apiserver: &Apiserver,
        credential: Option<&Credential>,
        protocol: Protocol,
    ) -> anyhow::Result<Client> {
        let (address, ca) = (self.proxy.address(), apiserver.pki().ca());
        Client::new(address, ca, credential, protocol)
    }

    /// The status and text of a path of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> anyhow::Result<(u16, String)> {
        ask_admin(self.proxy.admin_address(), path).await
    }

    /// Where the certificates and kubeconfigs are.
    pub(crate) fn folder(&self) -> &Path {
        let folder = self.folder.as_ref();
        folder.expect("this fixture keeps its files").path()
    }

    /// Ends the proxy and everything it runs.
    pub(crate) async fn stop(self) {
        self.proxy.drain().await;
    }
}

/// Adds a resource whose caches are opened at start.
pub(crate) fn preload(live: &mut Live, group: &str, resource: &str) {
    live.cache.resources.push(CachedResource {
        group: group.to_owned(),
        version: None,
        resource: resource.to_owned(),
        preload: true,
        settings: live.cache.defaults.clone(),
    });
}

/// The status and text of a path of an admin listener.
pub(crate) async fn ask_admin(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let request = http::Request::get(path).header("host", "admin");
    let answer = sender.send_request(request.body(empty())?).await?;
    let (status, body) = (answer.status().as_u16(), answer.into_body());
    let text = body.collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    in_time.with_context(|| format!("not in time: {what}"))
}

/// Waits until every preloaded cache has synced.
async fn until_ready(proxy: &Proxy) -> anyhow::Result<()> {
    let ready = async {
        while !proxy.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready).await?;
    Ok(())
}
