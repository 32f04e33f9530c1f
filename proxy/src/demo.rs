//! `watershed demo`: an embedded apiserver, this proxy and hollow kubelets in one process.
//!
//! Owns: starting the three in order and stopping them in reverse.
//! Refuses: to look inside the proxy. The kubelets, the table and the verdict are the load
//! generator's, which reaches the proxy over the wire as anybody would.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use watershed_config::Config;
use watershed_loadtest::{
    apiserver::{self, Apiserver, certs::Pki},
    demo::DemoOptions,
    scenario::Target,
};

use crate::Proxy;

/// The command line of `watershed demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many hollow kubelets to run; each holds one connection and about eight watches.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    kubelets: usize,
    /// How long to churn once all kubelets have started; Ctrl-C ends it earlier.
    #[arg(long, default_value_t = 60, value_name = "S")]
    seconds: u64,
    /// Write what was measured as a self-contained HTML page.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the demo until its time is over or Ctrl-C.
///
/// # Errors
/// When a part cannot be started, and when the verdict is negative: something was lost, doubled or
/// out of order, or a kubelet saw an error.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    raise_file_limit(arguments.kubelets)?;
    let folder = tempfile::tempdir().context("cannot make a folder for certificates")?;
    let apiserver = Apiserver::start(apiserver::Options {
        dir: Some(folder.path().to_owned()),
        ..apiserver::Options::default()
    })
    .await
    .context("cannot start the embedded apiserver")?;
    let (_live, proxy) = start_proxy(folder.path())
        .await
        .context("cannot start the proxy")?;

    let stop = CancellationToken::new();
    let target = Target {
        url: format!("https://{}", proxy.address()),
        admin: Some(format!("http://{}", proxy.admin_address())),
        apiserver: Some(format!("https://{}", apiserver.addr())),
        pki: Arc::new(Pki::open(folder.path())?),
        pid: None,
    };
    let options = DemoOptions {
        kubelets: arguments.kubelets,
        duration: Some(Duration::from_secs(arguments.seconds)),
        report: arguments.report,
    };
    let show = watershed_loadtest::demo::run(options, target, stop.clone());
    let mut show = std::pin::pin!(show);
    let summary = tokio::select! {
        summary = &mut show => summary,
        _ = tokio::signal::ctrl_c() => {
            stop.cancel();
            show.await
        }
    }?;
    proxy.drain().await;
    apiserver.shutdown().await;
    if !summary.passed {
        bail!("the verdict is negative, see above");
    }
    Ok(())
}

/// The proxy of the example configuration the apiserver wrote, on free ports.
async fn start_proxy(
    folder: &std::path::Path,
) -> anyhow::Result<(watch::Sender<Arc<watershed_config::Live>>, Proxy)> {
    let mut config = Config::load(&folder.join("watershed.yaml"))?;
    config.startup.listen.address.set_port(0);
    config.startup.admin.address.set_port(0);
    config.live.drain.grace_period = Duration::from_secs(5);
    let (live, receiver) = watch::channel(Arc::new(config.live.clone()));
    let proxy = Proxy::start(&config, receiver).await?;
    Ok((live, proxy))
}

/// Three sockets a kubelet are in this process: its own, the proxy's, and now and then one upstream.
fn raise_file_limit(kubelets: usize) -> anyhow::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = 2 * kubelets as u64 + 1024;
    if let Some(most) = limit.maximum
        && most < wanted
    {
        bail!(
            "{kubelets} kubelets need {wanted} open files and the system allows {most}; use --kubelets {}",
            most.saturating_sub(1024) / 2
        );
    }
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}
