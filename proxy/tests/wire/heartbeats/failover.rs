//! A replica goes, in one way or another, and another one writes what it had only answered.
//!
//! The replica that goes is a process of its own, so that a signal can end it or stop it. Nobody
//! renews after that, so what the store gets is from the heir.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{io::copy_bidirectional, net::TcpStream, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;
use watershed_config::{Peers, Replicas, UpstreamIdentity};
use watershed_loadtest::apiserver::certs::Pki;

use super::*;
use crate::{certificates, client::PATIENCE};

/// What the certificates of replicas carry.
const NAME: &str = "peers.test";

/// A cluster whose replica is the heir of another.
struct Pair {
    cluster: Cluster,
    doomed: Doomed,
    way: Way,
}

/// How the other replica reaches the apiserver, until it is cut.
struct Way {
    address: SocketAddr,
    task: AbortOnDropHandle<()>,
}

impl Way {
    async fn to(apiserver: SocketAddr) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let carry = async move {
            let mut open = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                open.spawn(async move {
                    let mut server = TcpStream::connect(apiserver).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(carry));
        Ok(Self { address, task })
    }

    /// Ends every connection, and there are no new ones.
    fn cut(&self) {
        self.task.abort();
    }
}

/// A replica in a process of its own.
struct Doomed {
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Drop for Doomed {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Pair {
    async fn start(identity: Option<UpstreamIdentity>) -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        let places = [free()?, free()?];
        let settings = Settings {
            peers: true,
            ..bounds()
        };
        let pki = apiserver.pki();
        let replica = Fixture::start(&apiserver, |config| {
            absorb(config, settings);
            if let Heartbeats::Coalesce(coalesce) = &mut config.startup.heartbeats {
                let folder = config.startup.listen.cert_file.parent().unwrap();
                coalesce.peers = Some(Box::new(peers(folder, places, pki).unwrap()));
            }
            if let Some(identity) = identity {
                config.startup.upstream.identity = identity;
            }
        })
        .await?;
        let way = Way::to(apiserver.addr()).await?;
        let doomed = Doomed::start(pki, way.address, [places[1], places[0]]).await?;
        let pair = Self {
            cluster: Cluster { apiserver, replica },
            doomed,
            way,
        };
        pair.until("watershed_heartbeats_peers", |it| it == 1.0)
            .await?;
        until_metric(pair.doomed.admin, "watershed_heartbeats_peers", |it| {
            it == 1.0
        })
        .await?;
        Ok(pair)
    }

    /// Waits until the heir says so.
    async fn until(&self, name: &str, is_so: impl Fn(f64) -> bool) -> anyhow::Result<()> {
        until_metric(self.cluster.replica.proxy.admin_address(), name, is_so).await
    }

    async fn heir(&self, name: &str) -> anyhow::Result<f64> {
        metric(self.cluster.replica.proxy.admin_address(), name).await
    }

    /// A kubelet whose last renewal the other replica answered, and the heir heard of.
    async fn kubelet(&self, node: &str) -> anyhow::Result<Kubelet> {
        self.cluster.register(node, "a");
        let pki = self.cluster.apiserver.pki();
        let credential = pki.issue_node(node)?;
        let (address, ca) = (self.doomed.address, pki.ca());
        let client = Client::new(address, ca, Some(&credential), Protocol::Http2)?;
        let mut kubelet = Kubelet::new(node, client);
        kubelet.create(&self.cluster.apiserver).await?;
        Ok(kubelet)
    }

    /// Waits until the store has the kubelet's last renewal.
    async fn written(&self, kubelet: &Kubelet) -> anyhow::Result<()> {
        let last = time(kubelet.second);
        let waiting = async {
            while self.cluster.stored(&kubelet.node).await?["spec"]["renewTime"] != last {
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<_, anyhow::Error>(())
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .context("what was answered is not written")??;
        let lease = self.cluster.stored(&kubelet.node).await?;
        // A kubelet's own renewals say so by their User-Agent, which these clients lack.
        let managers = lease["metadata"]["managedFields"].as_array();
        let is_kubelet = |it: &Value| it["manager"] == "kubelet";
        ensure!(
            managers.is_some_and(|it| it.iter().any(is_kubelet)),
            "{lease}"
        );
        Ok(())
    }

    /// Has kubelets renew, has `end` end their replica, and waits until all is written.
    async fn fails_over(&mut self, end: impl FnOnce(&mut Child)) -> anyhow::Result<()> {
        let (mut one, mut other) = (self.kubelet("n1").await?, self.kubelet("n2").await?);
        let heard = self.heir("watershed_heartbeats_debts_heard_total").await?;
        for kubelet in [&mut one, &mut other] {
            let answer = kubelet.renew().await?;
            ensure!(answer.status == StatusCode::OK, "{}", answer.text());
            let stored = self.cluster.stored(&kubelet.node).await?;
            ensure!(stored["spec"]["renewTime"] != time(kubelet.second));
        }
        let is_heard = |it| it >= heard + 2.0;
        self.until("watershed_heartbeats_debts_heard_total", is_heard)
            .await?;
        end(&mut self.doomed.process);
        self.written(&one).await?;
        self.written(&other).await?;
        let paid = "watershed_heartbeats_debts_paid_total{outcome=\"written\"}";
        self.until(paid, |it| it >= 2.0).await?;
        self.until("watershed_heartbeats_debts_held", |it| it == 0.0)
            .await?;
        self.until("watershed_heartbeats_peers", |it| it == 0.0)
            .await
    }

    async fn stop(self) {
        drop(self.doomed);
        self.cluster.stop().await;
    }
}

impl Doomed {
    async fn start(
        pki: &Pki,
        upstream: SocketAddr,
        places: [SocketAddr; 2],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        pki.write_files(folder.path(), upstream)?;
        let (address, admin) = (free()?, free()?);
        let peers = peers(folder.path(), places, pki)?;
        let file = folder.path().join("watershed.yaml");
        let mut text = std::fs::read_to_string(&file)?
            .replace("127.0.0.1:8443", &address.to_string())
            .replace("127.0.0.1:9443", &admin.to_string());
        let at = text.find("heartbeats:").context("the example has them")?;
        text.truncate(at);
        write!(
            text,
            "drain: {{gracePeriod: 2s}}
heartbeats:
  mode: Coalesce
  nodeMonitorGracePeriod: 5m
  peers:
    listen: \"{}\"
    servers: [\"{}\", \"{}\"]
    serverName: {NAME}
    certFile: {}
    keyFile: {}
    caFile: {}
",
            peers.listen,
            places[0],
            places[1],
            peers.cert_file.display(),
            peers.key_file.display(),
            peers.ca_file.display(),
        )?;
        std::fs::write(&file, text)?;
        let process = Command::new(env!("CARGO_BIN_EXE_watershed"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let doomed = Self {
            process,
            address,
            admin,
            _folder: folder,
        };
        let ready = async {
            while !matches!(ask_admin(admin, "/readyz").await, Ok((200, _))) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await?;
        Ok(doomed)
    }
}

async fn until_metric(
    admin: SocketAddr,
    name: &str,
    is_so: impl Fn(f64) -> bool,
) -> anyhow::Result<()> {
    let waiting = async {
        while !is_so(metric(admin, name).await?) {
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    in_time.with_context(|| format!("not in time: {name}"))?
}

/// An address that nobody listens on now.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Of the replica at the first place; its certificate is written into the folder.
fn peers(folder: &Path, places: [SocketAddr; 2], pki: &Pki) -> anyhow::Result<Peers> {
    let certificate = certificates::issue(pki, "replica", |params| {
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = vec![SanType::DnsName(NAME.try_into().unwrap())];
    })?;
    let (cert_file, key_file) = (folder.join("peer.crt"), folder.join("peer.key"));
    std::fs::write(&cert_file, &certificate.certificate)?;
    std::fs::write(&key_file, &certificate.key)?;
    Ok(Peers {
        listen: places[0],
        replicas: Replicas::Servers(places.map(|it| it.to_string()).into()),
        server_name: NAME.to_owned(),
        cert_file,
        key_file,
        ca_file: folder.join("ca.crt"),
    })
}

fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_child(process);
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn what_a_killed_replica_answered_is_written() -> anyhow::Result<()> {
    let mut pair = Pair::start(None).await?;
    pair.fails_over(|process| process.kill().unwrap()).await?;
    pair.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_a_silent_replica_answered_is_written_by_one_that_impersonates() -> anyhow::Result<()>
{
    let mut pair = Pair::start(Some(UpstreamIdentity::Impersonate)).await?;
    pair.fails_over(|process| signal(process, Signal::STOP))
        .await?;
    pair.stop().await;
    Ok(())
}

/// What it owes is told at the end, so nobody waits for it to come back.
#[tokio::test]
async fn a_replica_that_is_drained_hands_over_what_it_answered() -> anyhow::Result<()> {
    let mut pair = Pair::start(None).await?;
    let kubelet = pair.kubelet("n0").await?;
    pair.fails_over(|process| signal(process, Signal::TERM))
        .await?;
    ensure!(pair.cluster.stored("n0").await?["spec"]["renewTime"] == time(kubelet.second));
    let goodbye = "watershed_heartbeats_peers_gone_total{reason=\"goodbye\"}";
    ensure!(pair.heir(goodbye).await? > 0.0, "nobody was told");
    ensure!(pair.doomed.process.wait()?.success());
    pair.stop().await;
    Ok(())
}

/// It lives, and its kubelets see its errors; what they heard as 200 before is written by the heir.
#[tokio::test]
async fn what_a_replica_that_is_cut_off_answered_is_written() -> anyhow::Result<()> {
    let pair = Pair::start(None).await?;
    let mut kubelet = pair.kubelet("n1").await?;
    ensure!(kubelet.renew().await?.status == StatusCode::OK);
    let answered = kubelet.second;
    pair.way.cut();
    while kubelet.renew().await?.status == StatusCode::OK {
        ensure!(kubelet.second < answered + 2_000, "it still answers");
        tokio::time::sleep(PAUSE).await;
    }
    kubelet.second -= 1;
    pair.written(&kubelet).await?;
    ensure!(pair.heir("watershed_heartbeats_peers").await? > 0.0);
    pair.stop().await;
    Ok(())
}
