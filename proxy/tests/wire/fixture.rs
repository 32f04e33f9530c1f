//! A proxy in front of an embedded apiserver, on free ports, with every certificate it needs.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;
use watershed::Proxy;
use watershed_config::{CachedResource, Config, Live};
use watershed_loadtest::apiserver::Apiserver;

/// A running proxy. Its files live as long as it does.
pub(crate) struct Fixture {
    pub(crate) proxy: Proxy,
    /// The live settings; dropping it would only end reloading.
    pub(crate) live: watch::Sender<Arc<Live>>,
    folder: tempfile::TempDir,
}

impl Fixture {
    /// The example proxy of `apiserver`, changed by `change`.
    pub(crate) async fn start(
        apiserver: &Apiserver,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        apiserver
            .pki()
            .write_files(folder.path(), apiserver.addr())?;
        let mut config = Config::load(&folder.path().join("watershed.yaml"))?;
        config.startup.listen.address.set_port(0);
        config.startup.admin.address.set_port(0);
        config.live.drain.grace_period = Duration::from_secs(1);
        change(&mut config);
        let (live, receiver) = watch::channel(Arc::new(config.live.clone()));
        let proxy = Proxy::start(&config, receiver).await?;
        until_ready(&proxy).await?;
        Ok(Self {
            proxy,
            live,
            folder,
        })
    }

    /// Where the certificates and kubeconfigs are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
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
