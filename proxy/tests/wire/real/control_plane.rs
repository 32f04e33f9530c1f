//! `etcd` and `kube-apiserver` as processes: alone with their storage, on free ports of loopback.
//!
//! Owns the processes, their data and certificates in a folder of their own, and their end: SIGTERM
//! by process id, SIGKILL for who does not listen. Refuses to go on without the executables, and to
//! hide why one of them ended: its last lines are in the error.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use watershed_loadtest::{
    apiserver::{Apiserver, certs::Pki},
    client::{Client, Protocol, Request, tls},
    conformance::{ControlPlane, Setup},
};

/// How long a process may take to answer: an apiserver builds its whole API first.
const START: Duration = Duration::from_secs(180);
/// How long it may take to end once asked.
const END: Duration = Duration::from_secs(15);
/// Between two looks at something.
const POLL: Duration = Duration::from_millis(100);
/// Lines of a log that an error shows.
const LAST_LINES: usize = 40;
/// The role of the proxy's own identity, as the chart grants it.
const RBAC: &str = include_str!("../../../../deploy/chart/templates/rbac.yaml");

/// Where the executables are.
#[derive(Clone, Debug)]
pub(super) struct Assets {
    etcd: PathBuf,
    apiserver: PathBuf,
}

impl Assets {
    /// The folder that `KUBEBUILDER_ASSETS` names.
    pub(super) fn from_env() -> anyhow::Result<Self> {
        let folder = std::env::var_os("KUBEBUILDER_ASSETS")
            .filter(|folder| !folder.is_empty())
            .context(
                "KUBEBUILDER_ASSETS is not set: it names the folder with etcd and kube-apiserver",
            )?;
        let executable = |name: &str| {
            let path = Path::new(&folder).join(name);
            ensure!(
                path.is_file(),
                "KUBEBUILDER_ASSETS has no {}",
                path.display()
            );
            Ok(path)
        };
        Ok(Self {
            etcd: executable("etcd")?,
            apiserver: executable("kube-apiserver")?,
        })
    }
}

/// A running control plane.
pub(super) struct RealControlPlane {
    address: SocketAddr,
    etcd: SocketAddr,
    pki: Pki,
    processes: Vec<Process>,
    folder: tempfile::TempDir,
}

impl RealControlPlane {
    /// Starts both processes; the apiserver is ready when this returns, and lets the proxy's
    /// identity do what the chart lets it do.
    pub(super) async fn start(assets: &Assets, setup: &Setup) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let pki = Pki::open(folder.path())?;
        let (address, etcd) = (free_port().await?, free_port().await?);
        pki.write_files(folder.path(), address)?;
        let signing = rcgen::KeyPair::generate()?;
        std::fs::write(folder.path().join("sa.key"), signing.serialize_pem())?;
        std::fs::write(folder.path().join("sa.pub"), signing.public_key_pem())?;
        let mut own = Self {
            address,
            etcd,
            pki,
            processes: Vec::new(),
            folder,
        };
        own.start_etcd(assets).await?;
        own.start_apiserver(assets, setup).await?;
        own.grant_the_proxy().await?;
        Ok(own)
    }

    /// Certificate and key of the proxy's own identity, which has no right but the chart's.
    pub(super) fn proxy_credential(&self) -> anyhow::Result<(PathBuf, PathBuf)> {
        let files = ["crt", "key"].map(|end| self.folder.path().join(format!("proxy.{end}")));
        let own = self.pki.issue(PROXY_USER, None)?;
        std::fs::write(&files[0], own.certificate)?;
        std::fs::write(&files[1], own.key)?;
        let [certificate, key] = files;
        Ok((certificate, key))
    }

    async fn start_etcd(&mut self, assets: &Assets) -> anyhow::Result<()> {
        let client = format!("http://{}", self.etcd);
        let arguments = [
            format!("--data-dir={}", self.folder.path().join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            "--unsafe-no-fsync=true".to_owned(),
        ];
        let mut process = Process::start(&assets.etcd, &arguments, self.folder.path())?;
        let etcd = self.etcd;
        process
            .until_it(|| async move { TcpStream::connect(etcd).await.is_ok() })
            .await?;
        self.processes.push(process);
        Ok(())
    }

    async fn start_apiserver(&mut self, assets: &Assets, setup: &Setup) -> anyhow::Result<()> {
        let arguments = self.apiserver_arguments(setup);
        let mut process = Process::start(&assets.apiserver, &arguments, self.folder.path())?;
        let admin = &self.admin()?;
        process
            .until_it(|| async move {
                let answer = admin.get("/readyz").await;
                answer.is_ok_and(|answer| answer.status == 200)
            })
            .await?;
        self.processes.push(process);
        Ok(())
    }

    fn apiserver_arguments(&self, setup: &Setup) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        // Alone, but for the lease of its identity: no endpoints, and no compaction but the cases'
        // own. With an interval of 0 it would not even notice theirs.
        let gates = format!("WatchList={}", setup.watch_list);
        let ttl = format!("{}s", setup.event_ttl.as_secs());
        [
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", self.address.port().to_string()),
            ("etcd-servers", format!("http://{}", self.etcd)),
            ("etcd-compaction-interval", "1h".to_owned()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
            ("cert-dir", file("run")),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
            ("client-ca-file", file("ca.crt")),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".to_owned(),
            ),
            ("service-account-key-file", file("sa.pub")),
            ("service-account-signing-key-file", file("sa.key")),
            ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
            (
                "requestheader-allowed-names",
                "front-proxy-client".to_owned(),
            ),
            ("requestheader-username-headers", "X-Remote-User".to_owned()),
            ("requestheader-uid-headers", "X-Remote-Uid".to_owned()),
            ("requestheader-group-headers", "X-Remote-Group".to_owned()),
            (
                "requestheader-extra-headers-prefix",
                "X-Remote-Extra-".to_owned(),
            ),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("anonymous-auth", setup.anonymous.to_string()),
            ("enable-admission-plugins", "NodeRestriction".to_owned()),
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ("allow-privileged", "true".to_owned()),
            ("event-ttl", ttl),
            ("feature-gates", gates),
        ]
        .map(|(flag, value)| format!("--{flag}={value}"))
        .to_vec()
    }

    fn admin(&self) -> anyhow::Result<Client> {
        let credential = self.pki.issue("admin", Some("system:masters"))?;
        let tls = tls(self.pki.ca(), Some(&credential))?;
        Ok(Client::new(self.address, tls, Protocol::Http1))
    }

    /// Grants what the chart grants, to a user instead of a service account.
    async fn grant_the_proxy(&self) -> anyhow::Result<()> {
        let admin = self.admin()?;
        let (_, rules) = RBAC
            .split_once("\nrules:")
            .context("the chart grants nothing")?;
        let (rules, _) = rules
            .split_once("\n  {{")
            .context("the chart is different")?;
        let role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n\
             metadata: {{name: {PROXY_USER}}}\nrules:{rules}\n"
        );
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": PROXY_USER},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": PROXY_USER,
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": PROXY_USER,
            }],
        });
        let group = "/apis/rbac.authorization.k8s.io/v1";
        let role = Request::new("POST", format!("{group}/clusterroles"))
            .header("content-type", "application/yaml")
            .body(role);
        let binding = Request::new("POST", format!("{group}/clusterrolebindings")).json(&binding);
        for request in [role, binding] {
            let answer = admin.whole(request).await?;
            ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": PROXY_USER, "resourceAttributes": {"verb": "list", "resource": "pods"}},
        });
        let granted = async {
            loop {
                let target = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
                let answer = admin
                    .whole(Request::new("POST", target).json(&review))
                    .await?;
                if answer.ok()?["status"]["allowed"] == true {
                    return anyhow::Ok(());
                }
                sleep(POLL).await;
            }
        };
        timeout(START, granted)
            .await
            .context("the proxy gets no rights")?
    }

    /// Ends both processes, the apiserver first.
    pub(super) async fn stop(mut self) {
        while let Some(process) = self.processes.pop() {
            process.stop().await;
        }
    }
}

/// Whom the proxy is to the apiserver.
const PROXY_USER: &str = "watershed";

impl ControlPlane for RealControlPlane {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pki(&self) -> &Pki {
        &self.pki
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            // Apiservers learn of a compaction by the key that the one that compacts writes.
            let note = json!({
                "key": BASE64.encode("compact_rev_key"),
                "value": BASE64.encode(revision.to_string()),
            });
            let answer = post(self.etcd, "/v3/kv/put", note.to_string()).await?;
            ensure!(answer.0 == 200, "etcd refuses a key: {}", answer.1);
            let body = json!({"revision": revision.to_string(), "physical": true}).to_string();
            let answer = post(self.etcd, "/v3/kv/compaction", body).await?;
            ensure!(
                answer.0 == 200,
                "etcd refuses to compact: {} {}",
                answer.0,
                answer.1
            );
            Ok(())
        })
    }

    fn embedded(&self) -> Option<&Apiserver> {
        None
    }
}

/// A process that writes its log into a file. Dropping it kills it.
struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    fn start(executable: &Path, arguments: &[String], folder: &Path) -> anyhow::Result<Self> {
        let name = executable
            .file_name()
            .context("an executable without a name")?;
        let name = name.to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = Command::new(executable)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", executable.display()))?;
        Ok(Self { name, log, child })
    }

    /// Waits until something is so, which it never is once the process has ended.
    async fn until_it<Looking>(&mut self, mut is_so: impl FnMut() -> Looking) -> anyhow::Result<()>
    where
        Looking: Future<Output = bool>,
    {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}\n{}", self.name, self.last_lines());
            }
            if is_so().await {
                return Ok(());
            }
            if begun.elapsed() > START {
                bail!("{} is not ready in time\n{}", self.name, self.last_lines());
            }
            sleep(POLL).await;
        }
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    async fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself, which the look below finds out.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < END {
            sleep(POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
async fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    Ok(listener.local_addr()?)
}

/// Status and text of a POST without TLS.
async fn post(address: SocketAddr, path: &str, body: String) -> anyhow::Result<(u16, String)> {
    use http_body_util::BodyExt as _;
    let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    let _driver = tokio_util::task::AbortOnDropHandle::new(driver);
    let request = http::Request::post(path).header("host", "etcd");
    let answer = sender.send_request(request.body(body)?).await?;
    let (status, body) = (answer.status().as_u16(), answer.into_body());
    let text = body.collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}
