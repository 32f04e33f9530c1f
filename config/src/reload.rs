//! Re-reads the file, and publishes what may change while the proxy runs.
//!
//! The file is read every few seconds and compared with what was read last. A notification service
//! of the operating system was rejected: a mounted ConfigMap is a farm of symlinks that are swapped
//! as a whole, and polling one small file costs nothing and misses nothing.
//!
//! Only [`Live`] is published. A key of [`Startup`] that changed is reported as waiting for a
//! restart, and the live part of the same file takes effect. A broken file is reported once, and
//! the settings in force stay in force until a good one appears.

use std::future::Future;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::{Config, Live, LoadError, Startup};

/// How often the file is looked at. A kubelet brings a changed ConfigMap into a pod within a
/// minute or so; five seconds more are not felt.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Largest configuration file that is read, in bytes: what a ConfigMap can hold.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Watches one configuration file.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    startup: Startup,
    live: watch::Sender<Arc<Live>>,
    /// What was found last, so that nothing is reported twice; nothing before the first look.
    last: Option<Found>,
}

/// What stands at the path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Text(String),
    Unreadable(ErrorKind),
}

/// What a look at the file led to.
#[derive(Debug)]
enum Outcome {
    /// The file is what it was.
    Same,
    /// The file is valid. `published` when its live part differs from the one in force;
    /// `restart` names the changed keys that wait for one.
    Accepted {
        published: bool,
        restart: Vec<&'static str>,
    },
    /// The file cannot be used; what was in force still is.
    Refused(LoadError),
}

impl Reloader {
    /// A reloader for the file at `path`, which `config` was just read from, and a receiver that
    /// holds the live settings in force.
    pub fn new(path: PathBuf, config: &Config) -> (Self, watch::Receiver<Arc<Live>>) {
        let (live, receiver) = watch::channel(Arc::new(config.live.clone()));
        // The first look compares settings and not texts, so that a change between the caller's
        // reading and now is not lost.
        (
            Self {
                path,
                startup: config.startup.clone(),
                live,
                last: None,
            },
            receiver,
        )
    }

    /// Looks at the file every `interval` until `shutdown` resolves or every receiver is gone.
    pub async fn run(mut self, interval: Duration, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                () = self.live.closed() => return,
                _ = ticks.tick() => {}
            }
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let Ok(read) = read else { return };
            self.report(read);
        }
    }

    /// Takes what was read and logs what follows from it.
    fn report(&mut self, read: Result<String, Error>) {
        let first = self.last.is_none();
        let outcome = self.look(read);
        let file = self.path.display();
        match outcome {
            Outcome::Same => {}
            Outcome::Accepted { published, restart } => {
                if published {
                    tracing::info!(%file, "configuration reloaded");
                } else if restart.is_empty() && !first {
                    tracing::info!(%file, "configuration file changed, but no setting in it did");
                }
                for key in restart {
                    tracing::warn!(%file, key, "changed setting needs a restart to take effect");
                }
            }
            Outcome::Refused(error) => {
                tracing::error!(%file, %error, "configuration refused; the one in force stays");
            }
        }
    }

    fn look(&mut self, read: Result<String, Error>) -> Outcome {
        let found = match &read {
            Ok(text) => Found::Text(text.clone()),
            Err(error) => Found::Unreadable(error.kind()),
        };
        if self.last.as_ref() == Some(&found) {
            return Outcome::Same;
        }
        self.last = Some(found);
        let config = read
            .map_err(|source| LoadError::Read {
                path: self.path.clone(),
                source,
            })
            .and_then(|text| Config::parse(&text, &self.path));
        match config {
            Err(error) => Outcome::Refused(error),
            Ok(config) => {
                let restart = changed(&self.startup, &config.startup);
                let published = self.live.send_if_modified(|live| {
                    let differs = **live != config.live;
                    if differs {
                        *live = Arc::new(config.live);
                    }
                    differs
                });
                Outcome::Accepted { published, restart }
            }
        }
    }
}

/// Reads a configuration file, refusing one that is too large.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        let message = format!("larger than {FILE_BYTES_MAX} bytes, so not a configuration file");
        return Err(Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// The keys in which two startup parts differ.
fn changed(old: &Startup, new: &Startup) -> Vec<&'static str> {
    // Naming every field makes the compiler ask for a line when one is added.
    let Startup {
        region,
        listen,
        request_header,
        admin,
        upstream,
        authorizers,
        heartbeats,
        suppress_node_events,
    } = old;
    [
        ("region", *region != new.region),
        ("listen.address", listen.address != new.listen.address),
        ("listen.certFile", listen.cert_file != new.listen.cert_file),
        ("listen.keyFile", listen.key_file != new.listen.key_file),
        (
            "listen.clientCAFile",
            listen.client_ca_file != new.listen.client_ca_file,
        ),
        (
            "authentication.requestHeader",
            *request_header != new.request_header,
        ),
        ("admin.address", *admin != new.admin),
        ("upstream.servers", upstream.servers != new.upstream.servers),
        ("upstream.caFile", upstream.ca_file != new.upstream.ca_file),
        (
            "upstream.credentials",
            upstream.credentials != new.upstream.credentials,
        ),
        (
            "upstream.identity",
            upstream.identity != new.upstream.identity,
        ),
        (
            "authorization.node",
            authorizers.node != new.authorizers.node,
        ),
        (
            "authorization.rbac",
            authorizers.rbac != new.authorizers.rbac,
        ),
        (
            "authorization.featureGates",
            authorizers.feature_gates != new.authorizers.feature_gates,
        ),
        (
            "heartbeats",
            *heartbeats != new.heartbeats || *suppress_node_events != new.suppress_node_events,
        ),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: watershed.dev/v1alpha1
kind: ProxyConfiguration
listen: {address: '127.0.0.1:8443', certFile: a, keyFile: b}
upstream: {credentials: {inCluster: true}, identity: {mode: Impersonate}}
";

    fn start() -> (Reloader, watch::Receiver<Arc<Live>>) {
        let path = PathBuf::from("watershed.yaml");
        let config = Config::parse(GOOD, &path).unwrap();
        Reloader::new(path, &config)
    }

    fn with(line: &str) -> Result<String, Error> {
        Ok(format!("{GOOD}{line}\n"))
    }

    #[test]
    fn a_changed_live_setting_is_published_once() {
        let (mut reloader, live) = start();
        let outcome = reloader.look(with("limits: {connections: 7}"));
        assert!(
            matches!(outcome, Outcome::Accepted { published: true, restart } if restart.is_empty())
        );
        assert_eq!(live.borrow().limits.connections, 7);
        assert!(matches!(
            reloader.look(with("limits: {connections: 7}")),
            Outcome::Same
        ));
        let outcome = reloader.look(with("limits: {connections: 7} # a remark"));
        assert!(matches!(
            outcome,
            Outcome::Accepted {
                published: false,
                ..
            }
        ));
    }

    #[test]
    fn a_changed_startup_setting_waits_and_the_live_part_does_not() {
        let (mut reloader, live) = start();
        let outcome = reloader.look(with("region: eu\nlimits: {connections: 7}"));
        let Outcome::Accepted {
            published: true,
            restart,
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(restart, ["region"]);
        assert_eq!(live.borrow().limits.connections, 7);
    }

    #[test]
    fn a_broken_file_is_reported_once_and_changes_nothing() {
        let (mut reloader, live) = start();
        let outcome = reloader.look(with("limits: {connections: 0}"));
        assert!(matches!(
            outcome,
            Outcome::Refused(LoadError::Invalid { .. })
        ));
        assert!(matches!(
            reloader.look(with("limits: {connections: 0}")),
            Outcome::Same
        ));
        let gone = || Err(Error::from(ErrorKind::NotFound));
        assert!(matches!(
            reloader.look(gone()),
            Outcome::Refused(LoadError::Read { .. })
        ));
        assert!(matches!(reloader.look(gone()), Outcome::Same));
        assert_eq!(live.borrow().limits.connections, 250_000);
        assert!(matches!(
            reloader.look(with("")),
            Outcome::Accepted {
                published: false,
                ..
            }
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_symlink_is_noticed_and_the_task_ends_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watershed.yaml");
        std::fs::write(folder.path().join("1"), GOOD).unwrap();
        std::fs::write(
            folder.path().join("2"),
            with("limits: {connections: 7}").unwrap(),
        )
        .unwrap();
        std::os::unix::fs::symlink("1", &path).unwrap();
        let (reloader, mut live) = Reloader::new(path.clone(), &Config::load(&path).unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(reloader.run(RELOAD_INTERVAL, async {
            stopped.await.unwrap_or_default();
        }));
        std::os::unix::fs::symlink("2", folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), &path).unwrap();
        live.changed().await.unwrap();
        assert_eq!(live.borrow().limits.connections, 7);
        drop(stop);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_when_nobody_listens() {
        let (reloader, live) = start();
        drop(live);
        reloader.run(RELOAD_INTERVAL, std::future::pending()).await;
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(
            read(file.path()).unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
    }
}
