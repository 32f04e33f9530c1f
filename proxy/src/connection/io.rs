//! The two places where bytes of a connection pass an adapter: below TLS and above it.
//!
//! Owns: [`Socket`], which writes a lone piece with `send` where rustls asks for a vectored write,
//! and [`Gate`], which does not look for bytes to read until some came, and lets requests in a few
//! at a time (`entrance.rs`).
//! Refuses: to reorder, to wait for anything but its turn, or to hold more than one read.
//! Invariant: a read that was refused by the gate would have been pending, and what makes it ready
//! wakes the connection; or requests were let in, and the connection is woken for the rest.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::entrance::Entrance;

/// A TCP socket that is written with the cheapest call that will do.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) TcpStream);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces {
            [piece] => Pin::new(&mut self.0).poll_write(context, piece),
            pieces => Pin::new(&mut self.0).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Reads only when there may be something to read. HTTP/2 looks for frames whenever its connection
/// is polled, and each look goes through TLS down to the socket; a connection that only sends
/// events is polled for every one of them.
///
/// The requests of one read come in a few at a time. HTTP/2 takes in whatever it can read before it
/// hands on the first request, and keeps room for as many as long as the connection lives.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    io: T,
    bell: Arc<Bell>,
    waker: Waker,
    entrance: Entrance,
    /// Read, but not let in yet.
    held: BytesMut,
}

impl<T> Gate<T> {
    /// The server's end of HTTP/2 from its first byte on. Wakes `connection` when bytes came. It has
    /// to be the same task as long as this lives.
    pub(crate) fn new(io: T, connection: Waker) -> Self {
        let bell = Arc::new(Bell {
            rang: AtomicBool::new(true),
            connection,
        });
        Self {
            io,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            entrance: Entrance::default(),
            held: BytesMut::new(),
        }
    }
}

#[derive(Debug)]
struct Bell {
    /// Whether a read may be ready.
    rang: AtomicBool,
    connection: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::SeqCst);
        self.connection.wake_by_ref();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gate<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            io,
            bell,
            waker,
            entrance,
            held,
        } = self.get_mut();
        if !bell.rang.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        if entrance.take_full() {
            bell.connection.wake_by_ref(); // it has rung, so the rest is read then
            return Poll::Pending;
        }
        if !held.is_empty() {
            let room = into.remaining().min(held.len());
            into.put_slice(&held.split_to(entrance.let_in(&held[..room])));
            if held.is_empty() {
                *held = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        bell.rang.swap(false, Ordering::SeqCst); // before the look: what comes later rings again
        let before = into.filled().len();
        let read = Pin::new(io).poll_read(&mut Context::from_waker(waker), into);
        if read.is_ready() {
            bell.rang.store(true, Ordering::SeqCst);
            let end = before + entrance.let_in(&into.filled()[before..]);
            held.extend_from_slice(&into.filled()[end..]);
            into.set_filled(end);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gate<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts the looks; ready when told to.
    #[derive(Default)]
    struct Source {
        looks: usize,
        bytes: usize,
        reader: Option<Waker>,
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.looks += 1;
            if self.bytes == 0 {
                self.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            self.bytes -= 1;
            into.put_slice(b"x");
            Poll::Ready(Ok(()))
        }
    }

    struct CountWakes(AtomicUsize);

    impl Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn nothing_is_read_until_bytes_came_and_then_everything() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let mut gate = Gate::new(Source::default(), Waker::from(Arc::clone(&wakes)));
        let read = |gate: &mut Gate<Source>| {
            let mut bytes = [0];
            let mut into = ReadBuf::new(&mut bytes);
            let mut context = Context::from_waker(Waker::noop());
            Pin::new(gate).poll_read(&mut context, &mut into).is_ready()
        };
        assert!((0..3).all(|_| !read(&mut gate)));
        assert_eq!(gate.io.looks, 1);

        gate.io.bytes = 2;
        gate.io.reader.take().expect("who reads is known").wake();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(
            [(); 4].map(|()| read(&mut gate)),
            [true, true, false, false]
        );
        assert_eq!(gate.io.looks, 4);
    }
}
