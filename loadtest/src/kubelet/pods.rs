//! Pods bound to a hollow kubelet: started at once, ended when asked to go.
//!
//! Owns the life of each pod and the watches of what it mounts. Refuses containers: a pod runs as
//! soon as its status says so.
//! Invariant: each mounted ConfigMap and Secret is watched once, for as long as a pod here needs it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Call, PROTOBUF};
use super::decode::{Object, Volume};
use super::lease::expect;
use super::protobuf::Malformed;
use super::reflector::Subject;
use super::{CALL_TIMEOUT, Kubelet, encode};

const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";

/// What the pod watch tells.
#[derive(Debug)]
pub(super) enum News {
    /// A pod is new or changed.
    Pod(Pod),
    /// A pod is gone.
    Gone(String),
    /// After a list: every other pod is gone.
    Only(HashSet<Box<str>>),
}

/// What is needed of a pod.
#[derive(Debug)]
pub(super) struct Pod {
    key: String,
    path: String,
    uid: String,
    is_running: bool,
    is_deleting: bool,
    mounts: Vec<Subject>,
}

impl News {
    /// News of a pod that is there.
    pub(super) fn pod(object: &Object<'_>) -> Result<Self, Malformed> {
        let metadata = object.metadata;
        let namespace = format!("/api/v1/namespaces/{}", metadata.namespace);
        let mounts = object.volumes()?.into_iter().map(|volume| {
            let (resource, name) = match volume {
                Volume::ConfigMap(name) => ("configmaps", name),
                Volume::Secret(name) => ("secrets", name),
            };
            Subject {
                resource,
                path: format!("{namespace}/{resource}"),
                field_selector: format!("metadata.name={name}"),
            }
        });
        Ok(Self::Pod(Pod {
            key: object.key(),
            path: format!("{namespace}/pods/{}", metadata.name),
            uid: metadata.uid.to_owned(),
            is_running: object.phase()? == "Running",
            is_deleting: metadata.deleting,
            mounts: mounts.collect(),
        }))
    }
}

/// Pods here, and what they mount.
#[derive(Default)]
struct Pods {
    /// UID and mounts by key.
    known: HashMap<String, Known>,
    mounts: HashMap<Subject, Mount>,
}

struct Known {
    uid: String,
    mounts: Vec<Subject>,
    is_ended: bool,
}

struct Mount {
    pods: u32,
    _watch: DropGuard,
}

/// Serves the pods for ever; asks for watches through `commands`.
pub(super) async fn run(
    kubelet: Arc<Kubelet>,
    mut told: mpsc::Receiver<News>,
    commands: mpsc::Sender<(Subject, CancellationToken)>,
) {
    let mut pods = Pods::default();
    while let Some(news) = told.recv().await {
        match news {
            News::Gone(key) => pods.forget(&key),
            News::Only(keys) => {
                let gone = pods.known.keys().filter(|key| !keys.contains(key.as_str()));
                for key in gone.cloned().collect::<Vec<_>>() {
                    pods.forget(&key);
                }
            }
            News::Pod(pod) => pods.serve(&kubelet, pod, &commands).await,
        }
    }
}

impl Pods {
    async fn serve(
        &mut self,
        kubelet: &Kubelet,
        pod: Pod,
        commands: &mpsc::Sender<(Subject, CancellationToken)>,
    ) {
        if self
            .known
            .get(&pod.key)
            .is_some_and(|known| known.uid != pod.uid)
        {
            self.forget(&pod.key);
        }
        if !self.known.contains_key(&pod.key) && !pod.is_deleting {
            self.mount(&pod, commands).await;
            if !pod.is_running {
                start(kubelet, &pod).await;
            }
        }
        if pod.is_deleting {
            let known = self.known.entry(pod.key.clone()).or_insert_with(|| Known {
                uid: pod.uid.clone(),
                mounts: Vec::new(),
                is_ended: false,
            });
            if !std::mem::replace(&mut known.is_ended, true) {
                finish(kubelet, &pod).await;
            }
        }
    }

    async fn mount(&mut self, pod: &Pod, commands: &mpsc::Sender<(Subject, CancellationToken)>) {
        for subject in &pod.mounts {
            if let Some(mount) = self.mounts.get_mut(subject) {
                mount.pods += 1;
                continue;
            }
            let stop = CancellationToken::new();
            let mount = Mount {
                pods: 1,
                _watch: stop.clone().drop_guard(),
            };
            self.mounts.insert(subject.clone(), mount);
            // The receiver lives in the same task and ends with it.
            let _ = commands.send((subject.clone(), stop)).await;
        }
        let known = Known {
            uid: pod.uid.clone(),
            mounts: pod.mounts.clone(),
            is_ended: false,
        };
        self.known.insert(pod.key.clone(), known);
    }

    fn forget(&mut self, key: &str) {
        let Some(known) = self.known.remove(key) else {
            return;
        };
        for subject in known.mounts {
            if let Some(mount) = self.mounts.get_mut(&subject) {
                mount.pods -= 1;
                if mount.pods == 0 {
                    self.mounts.remove(&subject);
                }
            }
        }
    }
}

/// Reads the pod as the status manager does, then reports it as running.
async fn start(kubelet: &Kubelet, pod: &Pod) {
    let gone = StatusCode::NOT_FOUND;
    let answer = kubelet.call(&Call::read(&pod.path), CALL_TIMEOUT).await;
    let answer = expect(kubelet, "get a pod", answer, &[StatusCode::OK, gone]);
    if answer.is_none_or(|answer| answer.status == gone) {
        return;
    }
    let address = format!(
        "10.{}.{}.{}",
        fastrand::u8(..),
        fastrand::u8(..),
        fastrand::u8(1..255)
    );
    let body = encode::pod_running(&pod.uid, &address, Timestamp::now());
    let call = Call::write(
        Method::PATCH,
        format!("{}/status", pod.path),
        STRATEGIC_MERGE,
        body,
    );
    let answer = kubelet.call(&call, CALL_TIMEOUT).await;
    // 409: deleted and created again meanwhile, which the watch will tell
    let expected = [StatusCode::OK, gone, StatusCode::CONFLICT];
    if expect(kubelet, "patch a pod status", answer, &expected).is_some() {
        kubelet.stats.pods_started.fetch_add(1, Ordering::Relaxed);
    }
}

async fn finish(kubelet: &Kubelet, pod: &Pod) {
    let body = encode::delete_now(&pod.uid);
    let call = Call::write(Method::DELETE, &pod.path, PROTOBUF, body);
    let answer = kubelet.call(&call, CALL_TIMEOUT).await;
    let expected = [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    if expect(kubelet, "delete a pod", answer, &expected).is_some() {
        kubelet.stats.pods_finished.fetch_add(1, Ordering::Relaxed);
    }
}
