//! The way to one peer.
//!
//! Owns: a connection to one place, made again whenever it ends; the sending of what is in the
//! peer's outbox; and the proof that it arrives: the peer says every second that it is there.
//! Refuses: to choose what is sent. Invariant: a peer counts as there only after it has shown its
//! certificate and said who it is, and no longer than [`SILENCE`] after it was last heard.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    frame::{Frame, Frames, Instance, Unreadable},
    links::Outlet,
};
use crate::connection;

/// How often each side says that it is there, whatever else it says.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// A side that was not heard for so long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// From the first packet to the peer's hello.
const CONNECTING: Duration = Duration::from_secs(3);
/// The pause before the next try; up to twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The same where the replica is known already by another address.
const LONG_PAUSE: Duration = Duration::from_secs(30);

type Io = TlsStream<TcpStream>;

/// The way to one place.
pub(super) struct Link {
    pub(super) place: String,
    /// Nobody names the place any more.
    pub(super) gone: CancellationToken,
    pub(super) shared: Arc<Shared>,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it is this replica")]
    Own,
    #[error("the same replica is connected by another address")]
    Twice,
    #[error("this replica stops")]
    Closing,
    #[error("it was not heard for {SILENCE:?}")]
    Silent,
    #[error("it does not take what it is sent")]
    Slow,
    #[error("it ended the connection")]
    Closed,
    #[error("it says what is out of place")]
    Unexpected,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

impl Link {
    /// Connects, and again, until the place is this replica's own, nobody names it any more, or
    /// this replica stops.
    pub(super) async fn run(self) {
        let place = &self.place;
        let mut was_up = true;
        loop {
            let (ended, is_up) = self.connection().await;
            match &ended {
                Ended::Own => return tracing::debug!(%place, "this replica's own place"),
                Ended::Closing => return,
                Ended::Twice => tracing::debug!(%place, reason = %ended, "not connected"),
                reason if is_up => tracing::warn!(%place, %reason, "peer down"),
                reason if was_up => tracing::warn!(%place, %reason, "cannot connect to peer"),
                reason => tracing::debug!(%place, %reason, "cannot connect to peer"),
            }
            was_up = is_up;
            let pause = if matches!(ended, Ended::Twice) {
                LONG_PAUSE
            } else {
                PAUSE
            };
            let pause = pause.mul_f64(1.0 + fastrand::f64());
            tokio::select! {
                () = sleep(pause) => {}
                () = self.gone.cancelled() => return,
                () = self.shared.links.closing().cancelled() => return,
            }
        }
    }

    /// One connection, and whether the peer was there.
    async fn connection(&self) -> (Ended, bool) {
        let connecting = timeout(CONNECTING, self.connect());
        let connected = tokio::select! {
            connected = connecting => connected,
            () = self.shared.links.closing().cancelled() => return (Ended::Closing, false),
        };
        let (frames, writer, peer) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(ended)) => return (ended, false),
            Err(_) => return (Ended::Silent, false),
        };
        let Some(outlet) = self.shared.links.open(peer) else {
            return (Ended::Twice, false);
        };
        tracing::info!(place = %self.place, %peer, "peer up");
        let session = Session {
            link: self,
            frames,
            writer,
            peer,
        };
        (session.run(outlet).await, true)
    }

    async fn connect(&self) -> Result<(Frames<ReadHalf<Io>>, WriteHalf<Io>, Instance), Ended> {
        let socket = TcpStream::connect(&self.place).await?;
        connection::tune(&socket, BEAT, SILENCE)?;
        let tls = Arc::clone(&self.shared.tls.load_current().client);
        let name: ServerName<'static> = self.shared.name.clone();
        let stream = TlsConnector::from(tls).connect(name, socket).await?;
        let (reader, mut writer) = split(stream);
        let hello = Frame::Hello(self.shared.own).to_bytes();
        writer.write_all(&hello).await?;
        writer.flush().await?;
        let mut frames = Frames::new(reader);
        match frames.next().await? {
            Some(Frame::Hello(peer)) if peer == self.shared.own => Err(Ended::Own),
            Some(Frame::Hello(peer)) => Ok((frames, writer, peer)),
            Some(_) => Err(Ended::Unexpected),
            None => Err(Ended::Closed),
        }
    }
}

/// A connection to a peer that said who it is.
struct Session<'a> {
    link: &'a Link,
    frames: Frames<ReadHalf<Io>>,
    writer: WriteHalf<Io>,
    peer: Instance,
}

impl Session<'_> {
    async fn run(mut self, mut outlet: Outlet) -> Ended {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let written = tokio::select! {
                () = outlet.reset.cancelled() => return Ended::Slow,
                () = sleep_until(heard + SILENCE) => return Ended::Silent,
                frame = self.frames.next() => {
                    heard = Instant::now();
                    match frame {
                        Ok(Some(Frame::Beat { full: false })) => {}
                        Ok(Some(Frame::Beat { full: true })) => {
                            self.link.shared.links.is_full(self.peer);
                        }
                        Ok(Some(_)) => return Ended::Unexpected,
                        Ok(None) => return Ended::Closed,
                        Err(error) => return error.into(),
                    }
                    continue;
                }
                frame = outlet.inbox.recv() => match frame {
                    Some(frame) => self.write(frame).await,
                    None => return self.say_goodbye().await,
                },
                _ = beats.tick() => {
                    let ledger = &self.link.shared.ledger;
                    let beat = match ledger.with(|now, table| table.is_cut_off(now)) {
                        false => Frame::Beat { full: false },
                        true => Frame::Pay,
                    };
                    self.write(beat.to_bytes()).await
                }
            };
            if let Err(ended) = written {
                return ended;
            }
        }
    }

    async fn write(&mut self, frame: Bytes) -> Result<(), Ended> {
        let writing = async {
            self.writer.write_all(&frame).await?;
            self.writer.flush().await
        };
        Ok(timeout(SILENCE, writing).await.map_err(|_| Ended::Slow)??)
    }

    /// The last word; over when the peer has taken it in.
    async fn say_goodbye(mut self) -> Ended {
        let saying = async {
            self.write(Frame::Goodbye.to_bytes()).await?;
            self.writer.shutdown().await?;
            while self.frames.next().await?.is_some() {}
            Ok::<_, Ended>(())
        };
        match timeout(SILENCE, saying).await {
            Ok(Ok(())) => tracing::debug!(place = %self.link.place, "said goodbye to peer"),
            Ok(Err(reason)) => {
                tracing::warn!(place = %self.link.place, %reason, "goodbye to peer did not arrive");
            }
            Err(_) => tracing::warn!(place = %self.link.place, "goodbye to peer was not taken in"),
        }
        Ended::Closing
    }
}
