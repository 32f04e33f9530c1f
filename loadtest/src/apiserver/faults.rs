//! Misbehaviour on demand: what a proxy must survive.
//!
//! Owns the switches; the places that misbehave ask here. Refuses to decide when: tests and
//! scenarios do. Invariant: with no switch set the server behaves as if this module did not exist.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::authn::Peer;
use super::negotiate::Media;
use super::resources::Resource;
use super::status::Status;

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 429 with `Retry-After: 1`.
    TooManyRequests,
    /// 500 InternalError.
    InternalError,
    /// 503 with `Retry-After: 1`.
    Unavailable,
    /// No answer until the client goes away.
    Hang,
}

/// How the next frames of watches are damaged; the stream ends after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Only the first half is sent, then a clean end of the body.
    Truncated,
    /// A wrong length (protobuf) or a broken value (JSON).
    Malformed,
}

/// Who is cut off, and until when.
#[derive(Debug, Clone, Default)]
struct CutOff {
    user: String,
    until: Option<Instant>,
    is_silent: bool,
}

/// The switches.
#[derive(Debug)]
pub struct Faults {
    connections: watch::Sender<u64>,
    cut_off: watch::Sender<CutOff>,
    stalled: AtomicBool,
    stall_wakers: Mutex<Vec<Waker>>,
    /// Of which resource, and how many.
    expired_watches: Mutex<(String, u64)>,
    bookmarks_withheld: AtomicBool,
    watch_list_refused: AtomicBool,
    caches_held: AtomicBool,
    failures: Mutex<Vec<(String, Failure, u64)>>,
    damages: Mutex<Vec<(Damage, u64)>>,
    damaged: AtomicBool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            connections: watch::Sender::new(0),
            cut_off: watch::Sender::new(CutOff::default()),
            stalled: AtomicBool::new(false),
            stall_wakers: Mutex::default(),
            expired_watches: Mutex::default(),
            bookmarks_withheld: AtomicBool::new(false),
            watch_list_refused: AtomicBool::new(false),
            caches_held: AtomicBool::new(false),
            failures: Mutex::default(),
            damages: Mutex::default(),
            damaged: AtomicBool::new(false),
        }
    }
}

impl Faults {
    /// Cuts every connection, without a word.
    pub fn cut_connections(&self) {
        self.connections.send_modify(|cut| *cut += 1);
    }

    /// Cuts a user off for a while, and every front proxy with it, as when the network between a
    /// proxy and this server is gone: its connections end, and new ones do once it is known whose
    /// they are. Silent, they stay open and nothing moves on them.
    pub fn cut_off(&self, user: &str, time: Duration, is_silent: bool) {
        self.cut_off.send_replace(CutOff {
            user: user.to_owned(),
            until: Some(Instant::now() + time),
            is_silent,
        });
    }

    /// Waits until a peer is cut off; how long nothing moves before its connection ends.
    pub(super) async fn wait_for_cut_off(&self, peer: &Peer) -> Duration {
        let mut cut_off = self.cut_off.subscribe();
        let left = |cut_off: &CutOff| {
            let until = cut_off.until.filter(|_| peer.is_behind(&cut_off.user))?;
            let left = until.saturating_duration_since(Instant::now());
            (!left.is_zero()).then_some(left)
        };
        let found = cut_off.wait_for(|cut_off| left(cut_off).is_some()).await;
        found.map_or(Duration::ZERO, |cut_off| {
            let silence = left(&cut_off).filter(|_| cut_off.is_silent);
            silence.unwrap_or_default()
        })
    }

    /// Told when connections are to be cut.
    pub(super) fn cuts(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// Stops or resumes all answers: requests wait, watches are silent, connections stay open.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::SeqCst);
        if !stalled {
            for waker in std::mem::take(&mut *self.stall_wakers.lock()) {
                waker.wake();
            }
        }
    }

    /// Ready unless stalled.
    pub(super) fn poll_stall(&self, context: &Context<'_>) -> Poll<()> {
        if !self.stalled.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        let mut wakers = self.stall_wakers.lock();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        drop(wakers);
        // The switch may have been flipped before the waker was stored.
        if self.stalled.load(Ordering::SeqCst) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Waits while stalled.
    pub(super) async fn wait_while_stalled(&self) {
        std::future::poll_fn(|context| self.poll_stall(context)).await;
    }

    /// The next `count` watches of a resource start with ERROR 410 Expired.
    pub fn expire_watches(&self, resource: &str, count: u64) {
        *self.expired_watches.lock() = (resource.to_owned(), count);
    }

    pub(super) fn refuse_watch(&self, resource: &Resource) -> Option<Status> {
        let mut expired = self.expired_watches.lock();
        let (expiring, left) = &mut *expired;
        if *expiring != resource.resource || *left == 0 {
            return None;
        }
        *left -= 1;
        Some(Status::expired(format!(
            "too old resource version: {} is gone by order",
            resource.resource
        )))
    }

    /// Sends no bookmarks, except those that close initial events.
    pub fn withhold_bookmarks(&self, withheld: bool) {
        self.bookmarks_withheld.store(withheld, Ordering::SeqCst);
    }

    pub(super) fn withholds_bookmarks(&self) -> bool {
        self.bookmarks_withheld.load(Ordering::Relaxed)
    }

    /// Plays a server without the WatchList gate.
    pub fn refuse_watch_list(&self, refused: bool) {
        self.watch_list_refused.store(refused, Ordering::SeqCst);
    }

    pub(super) fn refuses_watch_list(&self) -> bool {
        self.watch_list_refused.load(Ordering::Relaxed)
    }

    /// Caches of custom resources that begin stay empty until let go.
    pub fn hold_caches(&self, held: bool) {
        self.caches_held.store(held, Ordering::SeqCst);
    }

    pub(super) fn holds_caches(&self) -> bool {
        self.caches_held.load(Ordering::SeqCst)
    }

    /// The next `count` requests whose path starts with `prefix` fail.
    pub fn fail_requests(&self, prefix: &str, failure: Failure, count: u64) {
        self.failures
            .lock()
            .push((prefix.to_owned(), failure, count));
    }

    /// No request fails any more.
    pub fn heal_requests(&self) {
        self.failures.lock().clear();
    }

    pub(super) fn failure_of(&self, path: &str) -> Option<Failure> {
        let mut failures = self.failures.lock();
        let found = failures
            .iter_mut()
            .find(|(prefix, _, _)| path.starts_with(prefix.as_str()))?;
        found.2 = found.2.saturating_sub(1);
        let failure = found.1;
        failures.retain(|(_, _, left)| *left > 0);
        Some(failure)
    }

    /// Damages the next `count` watch frames; each ends its stream.
    pub fn damage_frames(&self, damage: Damage, count: u64) {
        self.damages.lock().push((damage, count));
        self.damaged.store(true, Ordering::SeqCst);
    }

    pub(super) fn any_damage(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(super) fn damage(&self, frame: &Bytes, media: Media) -> Option<Bytes> {
        if !self.any_damage() {
            return None;
        }
        let mut damages = self.damages.lock();
        let (damage, left) = damages.first_mut()?;
        let damage = *damage;
        *left = left.saturating_sub(1);
        damages.retain(|(_, left)| *left > 0);
        self.damaged.store(!damages.is_empty(), Ordering::SeqCst);
        let mut bytes = frame.to_vec();
        match (damage, media) {
            (Damage::Truncated, _) => bytes.truncate(frame.len() / 2),
            (Damage::Malformed, Media::Protobuf) => bytes[0] = 0x7f,
            (Damage::Malformed, Media::Json | Media::Yaml) => bytes[0] = b']',
        }
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_hits_as_many_requests_as_ordered() {
        let faults = Faults::default();
        faults.fail_requests("/api/v1/pods", Failure::InternalError, 2);
        assert_eq!(faults.failure_of("/api/v1/nodes"), None);
        let failure = Some(Failure::InternalError);
        let path = "/api/v1/pods?watch=1";
        let seen = [
            faults.failure_of(path),
            faults.failure_of(path),
            faults.failure_of(path),
        ];
        assert_eq!(seen, [failure, failure, None]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_proxies_are_cut_off_and_only_for_a_while() {
        let (faults, time) = (Faults::default(), Duration::from_secs(30));
        let (proxy, other) = (Peer::of("watershed"), Peer::of("node"));
        faults.cut_off("watershed", time, true);
        assert_eq!(faults.wait_for_cut_off(&proxy).await, time);
        let cut = tokio::time::timeout(time, faults.wait_for_cut_off(&other));
        assert!(cut.await.is_err());
        let again = tokio::time::timeout(time, faults.wait_for_cut_off(&proxy));
        assert!(again.await.is_err());
    }

    #[test]
    fn a_damaged_frame_is_damaged_once() {
        let faults = Faults::default();
        faults.damage_frames(Damage::Truncated, 1);
        let frame = Bytes::from_static(b"{\"type\":\"ADDED\"}\n");
        assert_eq!(faults.damage(&frame, Media::Json).map(|b| b.len()), Some(8));
        assert_eq!(faults.damage(&frame, Media::Json), None);
    }
}
