//! What peers say, taken in.
//!
//! Owns: the listener for peers, their connections, and the verdict that one is gone. Refuses: to
//! pay; what is due is in the estate then.
//! Invariant: a peer is declared gone once for each of its lives: when it says goodbye, when nothing
//! of it was heard for [`SILENCE`], or when its last connection ended and it did not come back
//! within that time.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use watershed_heartbeats::Peer;

use super::{
    Shared,
    frame::{Frame, Frames, Instance, Unreadable},
    link::{BEAT, SILENCE},
};
use crate::{connection, metrics::ReasonLabels};

/// Connections of peers at once, those included that ended a moment ago; further ones are closed.
const CONNECTIONS_MAX: usize = 1_024;
/// By when half of the kubelets of a replica that closed its connections renew elsewhere: of those
/// that live, three in four do.
const RETURNING: Duration = Duration::from_secs(8);

type Io = TlsStream<TcpStream>;

/// Peers that owe.
#[derive(Debug, Default)]
pub(super) struct Debtors {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Instance, Debtor>,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct Debtor {
    peer: Peer,
    connections: usize,
    /// How often it came.
    arrivals: u64,
}

impl Debtors {
    /// One has connected.
    fn arrived(&self, instance: Instance) -> Peer {
        let mut state = self.state.lock();
        let next = state.last.wrapping_add(1);
        let debtor = state.known.entry(instance).or_insert(Debtor {
            peer: Peer(next),
            connections: 0,
            arrivals: 0,
        });
        debtor.connections += 1;
        debtor.arrivals += 1;
        let peer = debtor.peer;
        if peer == Peer(next) {
            state.last = next;
        }
        peer
    }

    /// A connection is over. If it was the last, says how often the peer had come by then.
    fn left(&self, instance: Instance) -> Option<u64> {
        let mut state = self.state.lock();
        let debtor = state.known.get_mut(&instance)?;
        debtor.connections = debtor.connections.saturating_sub(1);
        (debtor.connections == 0).then_some(debtor.arrivals)
    }

    /// Declares one gone, unless it came back or has been declared gone: `true` once for each life.
    fn bury(&self, instance: Instance, arrivals: u64) -> bool {
        let mut state = self.state.lock();
        let known = state.known.get(&instance);
        let is_gone = known.is_some_and(|it| it.connections == 0 && it.arrivals == arrivals);
        if is_gone {
            state.known.remove(&instance);
        }
        is_gone
    }
}

/// How a connection ended.
#[derive(Debug)]
enum Ended {
    /// The peer stops and said so.
    Goodbye,
    /// It fell silent.
    Silent,
    /// It broke, or made no sense.
    Broken(String),
    /// This replica stops.
    Leaving,
}

impl From<Unreadable> for Ended {
    fn from(error: Unreadable) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Takes in what peers say, until this replica stops.
pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let leaving = shared.drain.leaving().clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = leaving.cancelled() => return,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of files, most likely: nothing but time helps.
                tracing::warn!(%error, "cannot accept a peer");
                sleep(BEAT).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let task = Arc::clone(&shared);
        shared.drain.spawn_background(async move {
            task.hear(socket).await;
            drop(place);
        });
    }
}

impl Shared {
    /// One connection, and what follows from its end.
    async fn hear(&self, socket: TcpStream) {
        let address = socket.peer_addr().ok();
        let greeting = timeout(SILENCE, self.greet(socket)).await;
        let (frames, writer, instance) = match greeting {
            Ok(Ok(Some(greeted))) => greeted,
            Ok(Ok(None)) => return, // this replica itself
            Ok(Err(reason)) => {
                self.metrics.refused.inc();
                return tracing::debug!(?address, %reason, "refused who is no peer");
            }
            Err(_) => return tracing::debug!(?address, "no hello"),
        };
        let peer = self.debtors.arrived(instance);
        tracing::debug!(?address, %instance, "peer connected");
        let ended = self.listen_to(peer, frames, writer).await;
        let Some(arrivals) = self.debtors.left(instance) else {
            return;
        };
        let (reason, returning) = match ended {
            Ended::Leaving => return,
            Ended::Goodbye => ("goodbye", Some(RETURNING)),
            Ended::Silent => ("silent", None),
            Ended::Broken(reason) => {
                tracing::debug!(?address, reason, "connection of a peer ended");
                sleep(SILENCE).await;
                ("lost", Some(RETURNING - SILENCE))
            }
        };
        if self.debtors.bury(instance, arrivals) {
            let now = self.ledger.now();
            let mut estate = self.ledger.estate();
            match returning {
                None => estate.died(now, peer),
                Some(within) => estate.closed(now, peer, within),
            }
            let (_held, due) = estate.len();
            drop(estate);
            let labels = ReasonLabels { reason };
            self.metrics.gone.get_or_create(&labels).inc();
            tracing::info!(%instance, ?address, reason, due, "peer gone; paying what it owed, where it is needed");
        }
    }

    /// Who it is; `None` if it is this replica.
    async fn greet(
        &self,
        socket: TcpStream,
    ) -> Result<Option<(Frames<ReadHalf<Io>>, WriteHalf<Io>, Instance)>, Unreadable> {
        connection::tune(&socket, BEAT, SILENCE)?;
        let tls = Arc::clone(&self.tls.load_current().server);
        let stream = TlsAcceptor::from(tls).accept(socket).await?;
        let (reader, mut writer) = split(stream);
        writer.write_all(&Frame::Hello(self.own).to_bytes()).await?;
        writer.flush().await?;
        let mut frames = Frames::new(reader);
        match frames.next().await? {
            Some(Frame::Hello(instance)) if instance == self.own => Ok(None),
            Some(Frame::Hello(instance)) => Ok(Some((frames, writer, instance))),
            Some(_) | None => Err(io::Error::other("it does not say who it is").into()),
        }
    }

    async fn listen_to(
        &self,
        peer: Peer,
        mut frames: Frames<ReadHalf<Io>>,
        mut writer: WriteHalf<Io>,
    ) -> Ended {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut full = false;
        loop {
            tokio::select! {
                () = self.drain.leaving().cancelled() => {
                    drop(timeout(BEAT, writer.shutdown()).await);
                    return Ended::Leaving;
                }
                () = sleep_until(heard + SILENCE) => return Ended::Silent,
                _ = beats.tick() => {
                    let beat = Frame::Beat { full: std::mem::take(&mut full) };
                    if let Err(error) = beat_once(&mut writer, &beat).await {
                        return Ended::Broken(error.to_string());
                    }
                }
                frame = frames.next() => {
                    heard = Instant::now();
                    match frame {
                        Ok(Some(Frame::Beat { .. })) => {}
                        Ok(Some(Frame::Debts(debts))) => {
                            self.metrics.heard.inc_by(debts.len() as u64);
                            let now = self.ledger.now();
                            let mut estate = self.ledger.estate();
                            for told in debts {
                                full |= !estate.hear(peer, told.heir, told.debt(now));
                            }
                        }
                        Ok(Some(Frame::Pay)) => {
                            let now = self.ledger.now();
                            self.ledger.estate().died(now, peer);
                        }
                        Ok(Some(Frame::Goodbye)) => {
                            drop(timeout(BEAT, writer.shutdown()).await);
                            return Ended::Goodbye;
                        }
                        Ok(Some(Frame::Hello(_))) => {
                            return Ended::Broken("a second hello".to_owned());
                        }
                        Ok(None) => return Ended::Broken("it ended".to_owned()),
                        Err(error) => return error.into(),
                    }
                }
            }
        }
    }
}

async fn beat_once(writer: &mut WriteHalf<Io>, beat: &Frame) -> io::Result<()> {
    let writing = async {
        writer.write_all(&beat.to_bytes()).await?;
        writer.flush().await
    };
    timeout(SILENCE, writing)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_gone_once_and_only_if_it_did_not_come_back() {
        let (debtors, one) = (Debtors::default(), Instance::new());
        let peer = debtors.arrived(one);
        assert_eq!(debtors.arrived(one), peer, "a second connection");
        assert_eq!(debtors.left(one), None, "one is open");
        let first = debtors.left(one).unwrap();
        assert_eq!(debtors.arrived(one), peer, "it came back");
        assert!(!debtors.bury(one, first));
        let second = debtors.left(one).unwrap();
        assert!(!debtors.bury(one, first), "that was before");
        assert!(debtors.bury(one, second));
        assert!(!debtors.bury(one, second));
        assert_ne!(debtors.arrived(one), peer, "another life");
        assert_ne!(debtors.arrived(Instance::new()), peer);
    }
}
