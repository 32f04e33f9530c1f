//! Asks the apiserver which past versions it still has.
//!
//! One question at a time serves every reader that arrived before it: a LIST of one object at
//! exactly the lowest version anybody wants. An answer proves that version and all later ones; a
//! 410 says that it and all earlier ones are gone, and the next lowest is asked about. Anything
//! else proves nothing, and the readers forward their requests.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::resource_version::ResourceVersion;
use crate::retention::Kept;

use super::{ListRequest, ListerWatcher, Upstream};

/// How long a question may take to answer.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Answers those who wait to know whether a past version is still there.
pub(super) struct Historian<'a, L> {
    upstream: &'a Upstream<'a, L>,
}

impl<'a, L: ListerWatcher> Historian<'a, L> {
    pub(super) fn new(upstream: &'a Upstream<'a, L>) -> Self {
        Self { upstream }
    }

    pub(super) async fn run(self) -> Infallible {
        loop {
            let readers = self.upstream.shared.questions.demand().await;
            self.answer(readers).await;
        }
    }

    async fn answer(&self, mut readers: Vec<(ResourceVersion, oneshot::Sender<Kept>)>) {
        readers.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
        while let Some((lowest, _)) = readers.last() {
            let lowest = *lowest;
            let kept = self.ask(lowest).await;
            // A loss says nothing about later versions; everything else is the answer to all.
            while let Some((version, reader)) = readers.pop() {
                if kept == Kept::Gone && version > lowest {
                    readers.push((version, reader));
                    break;
                }
                let _ = reader.send(kept); // a reader that left needs no answer
            }
        }
    }

    async fn ask(&self, version: ResourceVersion) -> Kept {
        let known = self.upstream.shared.retention.lock().of(version);
        if known != Kept::Unknown {
            return known;
        }
        self.upstream.shared.counters.probes.bump();
        let asked = Instant::now();
        let request = ListRequest {
            limit: Some(1),
            exactly: Some(version),
            ..ListRequest::default()
        };
        let page = tokio::time::timeout(QUESTION_TIMEOUT, self.upstream.page(request)).await;
        let kept = match page {
            Ok(Ok(page)) if page.resource_version == version => Kept::Yes,
            Ok(Err(error)) if error.is_expired() => Kept::Gone,
            Ok(_) | Err(_) => Kept::Unknown,
        };
        let mut retention = self.upstream.shared.retention.lock();
        retention.learn(version, asked, kept);
        kept
    }
}
