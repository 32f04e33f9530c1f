//! The peers that are there, and what is on its way to each.
//!
//! Owns: one outbox for each peer that answered. Refuses: to know sockets ([`super::link`]), and to
//! wait for a peer: one that does not take what it is sent is disconnected, and told everything when
//! it is back.
//! Invariant: a peer has one outbox, by however many addresses it is reached.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use watershed_heartbeats::Heirs;

use super::frame::Instance;

/// Frames on their way to one peer, 15 KiB each: what it may take in later than it was sent.
const OUTBOX: usize = 256;
/// How long a peer that had no room is spared.
const SPARED: Duration = Duration::from_secs(60);

/// The peers that are there.
#[derive(Debug)]
pub(super) struct Links {
    open: Mutex<Vec<Open>>,
    changed: Notify,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Open {
    peer: Instance,
    outbox: mpsc::Sender<Bytes>,
    reset: CancellationToken,
    spared_until: Option<Instant>,
}

impl Open {
    fn is_able(&self, now: Instant) -> bool {
        self.spared_until.is_none_or(|until| until <= now)
    }
}

/// The other end of an outbox; the peer is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Outlet {
    links: Arc<Links>,
    peer: Instance,
    /// What is to be sent. When there is nothing more, the peer is to be told that this replica
    /// stops.
    pub(super) inbox: mpsc::Receiver<Bytes>,
    /// The peer takes too long.
    pub(super) reset: CancellationToken,
}

/// Peers that can be told, at one moment.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Which of them inherits a node, by place among the outboxes.
    pub(super) heirs: Heirs,
    outboxes: Vec<(mpsc::Sender<Bytes>, CancellationToken)>,
}

impl Links {
    /// None yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
        })
    }

    /// Somebody answered. `None` if it did at another place too, or all is being closed.
    pub(super) fn open(self: &Arc<Self>, peer: Instance) -> Option<Outlet> {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let reset = CancellationToken::new();
        let mut open = self.open.lock();
        if self.closing.is_cancelled() || open.iter().any(|it| it.peer == peer) {
            return None;
        }
        open.push(Open {
            peer,
            outbox,
            reset: reset.clone(),
            spared_until: None,
        });
        drop(open);
        self.changed.notify_one();
        Some(Outlet {
            links: Arc::clone(self),
            peer,
            inbox,
            reset,
        })
    }

    /// Somebody has no room for what it is told.
    pub(super) fn is_full(&self, peer: Instance) {
        let mut open = self.open.lock();
        if let Some(link) = open.iter_mut().find(|it| it.peer == peer) {
            link.spared_until = Some(Instant::now() + SPARED);
        }
        drop(open);
        self.changed.notify_one();
    }

    /// Peers came or went since it was last waited for.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Those who can be told now.
    pub(super) fn ready(&self) -> Ready {
        let now = Instant::now();
        let open = self.open.lock();
        let able = || open.iter().filter(|it| it.is_able(now));
        let names: Vec<_> = able().map(|it| it.peer.to_string()).collect();
        let outboxes = able().map(|it| (it.outbox.clone(), it.reset.clone()));
        Ready {
            heirs: Heirs::new(names.iter().map(String::as_str)),
            outboxes: outboxes.collect(),
        }
    }

    /// How many could be told now.
    pub(super) fn able(&self) -> usize {
        let now = Instant::now();
        self.open.lock().iter().filter(|it| it.is_able(now)).count()
    }

    /// Tells nobody anything more. What is in the outboxes is sent.
    pub(super) fn close(&self) {
        let mut open = self.open.lock();
        self.closing.cancel();
        open.clear();
    }

    /// Given when nobody is told anything more.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

impl Ready {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.outboxes.len()
    }

    /// For how many more frames all of them have room.
    pub(super) fn room(&self) -> usize {
        let rooms = self.outboxes.iter().map(|(outbox, _)| outbox.capacity());
        rooms.min().unwrap_or_default()
    }

    /// Puts a frame on its way. One who has not taken those before for so long is disconnected.
    pub(super) fn send(&self, place: usize, frame: Bytes) {
        let (outbox, reset) = &self.outboxes[place];
        if let Err(mpsc::error::TrySendError::Full(_)) = outbox.try_send(frame) {
            reset.cancel();
        }
    }

    /// The same, waiting for room.
    pub(super) async fn send_patiently(&self, place: usize, frame: Bytes) {
        // Closed: the peer is gone.
        drop(self.outboxes[place].0.send(frame).await);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.links.open.lock().retain(|it| it.peer != self.peer);
        self.links.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_at_two_places_is_one_peer() {
        let (links, peer) = (Links::new(), Instance::new());
        let first = links.open(peer).unwrap();
        links.changed().await;
        assert!(links.open(peer).is_none());
        assert_eq!(links.ready().len(), 1);
        drop(first);
        links.changed().await;
        assert_eq!(links.ready().len(), 0);
        assert!(links.open(peer).is_some());
    }

    #[tokio::test]
    async fn who_takes_nothing_is_disconnected() {
        let links = Links::new();
        let outlet = links.open(Instance::new()).unwrap();
        let ready = links.ready();
        for sent in 0..OUTBOX {
            assert_eq!(ready.room(), OUTBOX - sent);
            ready.send(0, Bytes::new());
        }
        assert!(!outlet.reset.is_cancelled());
        ready.send(0, Bytes::new());
        assert!(outlet.reset.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_room_is_spared_for_a_while() {
        let (links, peer) = (Links::new(), Instance::new());
        let _outlet = links.open(peer).unwrap();
        links.is_full(peer);
        assert_eq!(links.ready().len(), 0);
        tokio::time::advance(SPARED).await;
        assert_eq!(links.ready().len(), 1);
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_arrives() {
        let links = Links::new();
        let mut outlet = links.open(Instance::new()).unwrap();
        links.ready().send(0, Bytes::from_static(b"last"));
        links.close();
        assert!(links.open(Instance::new()).is_none());
        assert_eq!(outlet.inbox.recv().await.as_deref(), Some(&b"last"[..]));
        assert_eq!(outlet.inbox.recv().await, None);
    }
}
