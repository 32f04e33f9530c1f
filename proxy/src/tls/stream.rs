//! The server's end of a TLS connection that keeps no buffers while it is quiet.
//!
//! Owns: the socket and its TLS session. Records are read, opened and sealed in buffers that the
//! connections of a thread share; a connection keeps bytes of its own only while a record is half
//! received, half taken or half sent. Full frames of HTTP/2, which are flushed one by one, are
//! collected and sealed together: in full records, and in a quarter of the calls of the kernel.
//! Refuses: to take plaintext while earlier records wait for the socket, so what waits is never
//! more than one write; and to judge certificates (`tls/verify.rs`).
//! Invariant: an end of the stream that the peer did not announce is an error, never an end.
//!
//! rustls' own buffered connection, which tokio-rustls is built on, keeps 4 KiB for reading from
//! its first byte to its last. Over tens of thousands of watches that is most of what TLS costs.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread::LocalKey,
};

use bytes::{Buf, BytesMut};
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
        WriteTraffic,
    },
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ALPN_H2;

/// Bytes read from a socket at once, beside the beginning of a record that came before: a whole
/// record of 16 KiB and some.
const READ: usize = 20 << 10;
/// Bytes of unfinished records at most. Only a message of the handshake can take more than one
/// record; this is rustls' own limit of one.
const UNFINISHED_MAX: usize = 64 << 10;
/// A full DATA frame of HTTP/2, without its head. A write of so much belongs to something long.
const FULL: usize = 16 << 10;
/// Plaintext sealed and sent at once: four such frames with their heads.
const WRITE: usize = 4 * FULL + 256;

thread_local! {
    static RECEIVED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static PLAIN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SEALED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The state of a session in which plaintext may be sent.
type Traffic<'a> = WriteTraffic<'a, ServerConnectionData>;

/// TLS over `S`.
pub(crate) struct TlsStream<S> {
    socket: S,
    session: UnbufferedServerConnection,
    /// Received: a record without its end.
    unfinished: Vec<u8>,
    /// Plaintext for which the last reader had no room.
    untaken: BytesMut,
    /// Records for which the socket had no room.
    unsent: BytesMut,
    /// Full frames that wait for more of them; empty between two polls of the connection.
    collected: Vec<u8>,
    /// A full frame was written, and not flushed since.
    expects_more: bool,
    /// Only HTTP/2 flushes once more.
    is_http2: bool,
    /// The peer announced that it sends no more.
    is_closed_by_peer: bool,
    /// We did.
    is_closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Does the handshake over `socket`.
    ///
    /// # Errors
    /// When the socket fails or ends, or the client's TLS is not acceptable; it is told why.
    pub(crate) async fn accept(socket: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut stream = Self {
            socket,
            session: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            unfinished: Vec::new(),
            untaken: BytesMut::new(),
            unsent: BytesMut::new(),
            collected: Vec::new(),
            expects_more: false,
            is_http2: false,
            is_closed_by_peer: false,
            is_closed: false,
        };
        std::future::poll_fn(|context| stream.poll_handshake(context)).await?;
        stream.is_http2 = stream.alpn_protocol() == Some(ALPN_H2);
        Ok(stream)
    }

    /// What ALPN chose.
    pub(crate) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// The chain the client presented, leaf first.
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = self.poll_send(context)?;
            if !self.session.is_handshaking() {
                ready!(sent);
                return Pin::new(&mut self.socket).poll_flush(context);
            }
            // Reads also while it cannot send: clients send a part before they read on.
            ready!(self.poll_receive(context, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads from the socket once. Plaintext goes to `into`, and where that is full, to `untaken`.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        borrow(&RECEIVED, |received| {
            let before = self.unfinished.len();
            if before > UNFINISHED_MAX {
                return Poll::Ready(Err(invalid("a TLS message is too long")));
            }
            if received.len() < before + READ {
                received.resize(before + READ, 0);
            }
            let mut room = ReadBuf::new(&mut received[before..before + READ]);
            ready!(Pin::new(&mut self.socket).poll_read(context, &mut room))?;
            let new = room.filled().len();
            if new == 0 {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed the connection without a TLS close_notify",
                )));
            }
            received[..before].copy_from_slice(&self.unfinished);
            let received = &mut received[..before + new];
            let (done, opened) = self.open(received, into, |_| Ok(()));
            self.unfinished = received[done..].to_vec();
            let sent = self.poll_send(context); // a refusal is sent too
            opened?;
            match sent {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
            }
        })
    }

    /// Takes the whole records `received` begins with; says how many bytes those were. What they
    /// must be answered with is in `unsent` afterwards, also when they are an error. Calls
    /// `when_open` if plaintext may be sent then.
    fn open<T>(
        &mut self,
        received: &mut [u8],
        into: &mut ReadBuf<'_>,
        mut when_open: impl FnMut(&mut Traffic<'_>) -> io::Result<T>,
    ) -> (usize, io::Result<Option<T>>) {
        let mut done = 0;
        loop {
            let status = self.session.process_tls_records(&mut received[done..]);
            let mut discard = status.discard;
            let end = match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        let taken = into.remaining().min(record.payload.len());
                        let (now, later) = record.payload.split_at(taken);
                        into.put_slice(now);
                        self.untaken.extend_from_slice(later);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    encode(&mut message, &mut self.unsent);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(message)) => {
                    message.done(); // it has its place in `unsent`
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.is_closed_by_peer = true;
                    None
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    Some(when_open(&mut traffic).map(Some))
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Some(Ok(None)),
                Ok(state) => Some(Err(invalid(format!("TLS is in state {state:?}")))),
                Err(error) => {
                    self.add_alerts();
                    Some(Err(invalid(error)))
                }
            };
            done += discard;
            if let Some(end) = end {
                return (done, end);
            }
        }
    }

    /// Adds to `unsent` what a session that failed has still to say.
    fn add_alerts(&mut self) {
        while self.session.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut message)) =
                self.session.process_tls_records(&mut []).state
        {
            encode(&mut message, &mut self.unsent);
        }
    }

    /// Takes pieces of plaintext to seal them together with what follows; says how much.
    fn collect(&mut self, pieces: &[IoSlice<'_>]) -> usize {
        if self.collected.capacity() == 0 {
            self.collected = PLAIN.take();
            self.collected.clear();
        }
        let before = self.collected.len();
        for piece in pieces {
            let room = WRITE - self.collected.len();
            self.collected
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
        self.collected.len() - before
    }

    /// Seals what was collected, and sends it as [`Self::poll_seal`] does.
    fn poll_collected(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.collected.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut plain = std::mem::take(&mut self.collected);
        let sealed = self.poll_seal(context, |traffic, sealed| traffic.encrypt(&plain, sealed));
        plain.clear();
        PLAIN.set(plain);
        sealed
    }

    /// Seals by `seal` and sends what of it the socket takes; the rest waits in `unsent`.
    fn poll_seal(
        &mut self,
        context: &mut Context<'_>,
        seal: impl Fn(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Poll<io::Result<()>> {
        borrow(&SEALED, |sealed| {
            let mut unfinished = std::mem::take(&mut self.unfinished);
            let (done, length) =
                self.open(&mut unfinished, &mut ReadBuf::new(&mut []), |traffic| {
                    loop {
                        match seal(traffic, sealed) {
                            Ok(length) => return Ok(length),
                            Err(EncryptError::InsufficientSize(InsufficientSizeError {
                                required_size,
                            })) => sealed.resize(required_size, 0),
                            Err(error) => return Err(io::Error::other(error)),
                        }
                    }
                });
            unfinished.drain(..done);
            self.unfinished = unfinished;
            let Some(length) = length? else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let mut sealed = &sealed[..length];
            if self.unsent.is_empty() {
                match Pin::new(&mut self.socket).poll_write(context, sealed) {
                    Poll::Ready(sent) => sealed.advance(sent?),
                    Poll::Pending => {}
                }
            }
            self.unsent.extend_from_slice(sealed);
            Poll::Ready(Ok(()))
        })
    }

    /// Sends what waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        self.unsent = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        while into.filled().len() == before {
            if !this.untaken.is_empty() {
                let taken = into.remaining().min(this.untaken.len());
                into.put_slice(&this.untaken[..taken]);
                this.untaken.advance(taken);
                if this.untaken.is_empty() {
                    this.untaken = BytesMut::new();
                }
                break;
            }
            if this.is_closed_by_peer || into.remaining() == 0 {
                break;
            }
            ready!(this.poll_receive(context, into))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        plain: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(plain)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let taken = this.collect(pieces);
        let has_room = this.collected.len() + FULL <= WRITE;
        this.expects_more = this.is_http2 && taken >= FULL && has_room;
        if !this.expects_more {
            ready!(this.poll_collected(context))?;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // HTTP/2 flushes after each full frame, and once more when it has none left.
        if std::mem::take(&mut this.expects_more) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_send(context))?;
        ready!(this.poll_collected(context))?;
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        ready!(this.poll_collected(context))?;
        ready!(this.poll_send(context))?;
        if !std::mem::replace(&mut this.is_closed, true) {
            // A session that cannot say goodbye any more is shut down without.
            let _ = this.poll_seal(context, |traffic, sealed| {
                traffic.queue_close_notify(sealed)
            });
        }
        ready!(this.poll_send(context))?;
        match ready!(Pin::new(&mut this.socket).poll_shutdown(context)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }
}

impl<S> std::fmt::Debug for TlsStream<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

/// Lends out a buffer of the thread. It stays as long as it was grown, and holds what was last in
/// it.
fn borrow<T>(buffer: &'static LocalKey<Cell<Vec<u8>>>, with: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut lent = buffer.take();
    let result = with(&mut lent);
    buffer.set(lent);
    result
}

/// Appends a message of rustls' own, as of the handshake.
fn encode(message: &mut EncodeTlsData<'_, ServerConnectionData>, to: &mut BytesMut) {
    let before = to.len();
    let mut length = 0;
    loop {
        to.resize(before + length, 0);
        match message.encode(&mut to[before..]) {
            Ok(written) => {
                to.truncate(before + written);
                return;
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                length = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
