//! What the connections of both sides share: socket options, and streams that run on their
//! connection's own task.
//!
//! Owns: [`Streams`], the futures of one HTTP/2 connection, and the rule when they and the
//! connection are polled; the adapters its bytes pass (`io.rs`).
//! Refuses: to spawn. hyper's usual executor gives every stream a task of its own: ten wakes where
//! one is enough, and threads that meet at the connection's lock.
//! Invariant: one event wakes a connection's task once. Whatever streams write while they are
//! polled is flushed by the connection in the same poll, and a wake that a poll causes itself is
//! answered in that poll instead of by the scheduler; one that streams cause by writing is answered
//! already by the poll of the connection that follows theirs.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered, task::AtomicWaker};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub(crate) mod deadline;
mod entrance;
mod io;

use deadline::Stream as Task;
pub(crate) use io::{Gate, Socket};

/// Rounds of one poll before the task lets others run.
const ROUNDS: usize = 8;

/// The stream futures of one connection. Polled together with it; dropped with it.
pub(crate) struct Streams {
    started: StreamExecutor,
    running: FuturesUnordered<Task>,
    rounds: Arc<Rounds>,
    /// Wakes `rounds` for a stream, and for the connection.
    wakers: [Waker; 2],
}

/// What hyper starts a connection's streams on.
#[derive(Clone, Default)]
pub(crate) struct StreamExecutor {
    started: Arc<Mutex<Vec<Task>>>,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.started.lock().push(Task::new(stream));
    }
}

/// What one poll of the connection's own future means for the whole.
pub(crate) enum Step<T> {
    /// It goes on.
    Running,
    /// It is over and so are its streams.
    Done(T),
}

impl Streams {
    /// No streams yet.
    pub(crate) fn new() -> Self {
        let rounds = Arc::new(Rounds::default());
        let of_streams = Waker::from(Arc::new(StreamWake(Arc::clone(&rounds))));
        Self {
            started: StreamExecutor::default(),
            running: FuturesUnordered::new(),
            wakers: [of_streams, Waker::from(Arc::clone(&rounds))],
            rounds,
        }
    }

    /// What to give to hyper.
    pub(crate) fn executor(&self) -> StreamExecutor {
        self.started.clone()
    }

    /// What wakes the connection of these streams.
    pub(crate) fn connection_waker(&self) -> Waker {
        self.wakers[1].clone()
    }

    /// Streams that run now.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Every stream is polled in the next poll, whether woken or not.
    pub(crate) fn wake_all(&mut self) {
        self.running = std::mem::take(&mut self.running).into_iter().collect();
        self.rounds.streams.store(true, Ordering::SeqCst);
    }

    /// Polls the streams and, after them, the connection by `connection`, until neither has
    /// anything to do.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut connection: impl FnMut(&mut Self, &mut Context<'_>) -> Step<T>,
    ) -> Poll<T> {
        let (rounds, wakers) = (Arc::clone(&self.rounds), self.wakers.clone());
        let [mut of_streams, mut of_connection] = wakers.each_ref().map(Context::from_waker);
        rounds.begin(context.waker());
        for _ in 0..ROUNDS {
            if rounds.streams.swap(false, Ordering::SeqCst) {
                while let Poll::Ready(Some(())) = self.running.poll_next_unpin(&mut of_streams) {}
            }
            rounds.connection.swap(false, Ordering::SeqCst); // not a store: it sees what woke it
            if let Step::Done(result) = connection(self, &mut of_connection) {
                rounds.end();
                return Poll::Ready(result);
            }
            let started = std::mem::take(&mut *self.started.started.lock());
            if started.is_empty() && !rounds.are_wanted() {
                break;
            }
            if !started.is_empty() {
                self.running.extend(started);
                rounds.streams.store(true, Ordering::SeqCst);
            }
        }
        rounds.end();
        Poll::Pending
    }
}

/// Remembers wakes during a poll, passes them on outside of one.
#[derive(Default)]
struct Rounds {
    task: AtomicWaker,
    polling: AtomicBool,
    /// Whether a stream was woken since the streams were last polled.
    streams: AtomicBool,
    /// Whether the connection was woken since it was last polled.
    connection: AtomicBool,
}

impl Rounds {
    fn begin(&self, task: &Waker) {
        self.task.register(task);
        self.polling.store(true, Ordering::SeqCst);
    }

    fn are_wanted(&self) -> bool {
        self.streams.load(Ordering::SeqCst) || self.connection.load(Ordering::SeqCst)
    }

    /// A wake that came too late for the last round is passed on.
    fn end(&self) {
        self.polling.store(false, Ordering::SeqCst);
        if self.are_wanted() {
            self.task.wake();
        }
    }

    fn want(&self, who: &AtomicBool) {
        let is_new = !who.swap(true, Ordering::SeqCst);
        if is_new && !self.polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Wake for Rounds {
    fn wake(self: Arc<Self>) {
        self.want(&self.connection);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.want(&self.connection);
    }
}

/// The [`Rounds`] as a stream wakes them.
struct StreamWake(Arc<Rounds>);

impl Wake for StreamWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.want(&self.0.streams);
    }
}

/// Options of every TCP connection: no delay, and a dead peer is noticed after `interval` +
/// `timeout`, also when data waits unacknowledged or the peer keeps its window shut.
///
/// # Errors
/// When the system refuses an option.
pub(crate) fn tune(
    socket: &TcpStream,
    interval: Duration,
    timeout: Duration,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let whole = |it: Duration| it.max(Duration::from_secs(1)); // the system counts in seconds
    let keep_alive = TcpKeepalive::new().with_time(whole(interval));
    #[cfg(target_os = "linux")]
    {
        let keep_alive = keep_alive.with_interval(whole(timeout / 3)).with_retries(3);
        socket.set_tcp_keepalive(&keep_alive)?;
        socket.set_tcp_user_timeout(Some(interval + timeout))
    }
    #[cfg(not(target_os = "linux"))]
    {
        socket.set_tcp_keepalive(&keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct CountWakes(AtomicUsize);

    impl Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_caused_by_the_poll_itself_is_answered_in_that_poll() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut streams = Streams::new();
        let mut polls = 0;
        let polled = streams.poll(&mut context, |_, context| {
            polls += 1;
            if polls == 1 {
                context.waker().wake_by_ref();
            }
            Step::<()>::Running
        });
        assert!(polled.is_pending());
        assert_eq!(polls, 2);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_poll_that_never_settles_lets_other_tasks_run() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut streams = Streams::new();
        let polled = streams.poll(&mut Context::from_waker(&waker), |_, context| {
            context.waker().wake_by_ref();
            Step::<()>::Running
        });
        assert!(polled.is_pending());
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_stream_woken_from_outside_wakes_the_connection_and_then_runs() {
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut streams = Streams::new();
        let (give, take) = tokio::sync::oneshot::channel::<()>();
        hyper::rt::Executor::execute(&streams.executor(), async { drop(take.await) });
        assert!(
            streams
                .poll(&mut context, |_, _| Step::<()>::Running)
                .is_pending()
        );
        assert_eq!((streams.len(), wakes.0.load(Ordering::SeqCst)), (1, 0));

        give.send(()).expect("the stream waits");
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(
            streams
                .poll(&mut context, |_, _| Step::<()>::Running)
                .is_pending()
        );
        assert_eq!(streams.len(), 0);
    }

    #[test]
    fn all_streams_run_again_when_asked_to() {
        let polls = Arc::new(AtomicUsize::new(0));
        let mut context = Context::from_waker(Waker::noop());
        let mut streams = Streams::new();
        for _ in 0..3 {
            let polls = Arc::clone(&polls);
            let stream = std::future::poll_fn(move |_| {
                polls.fetch_add(1, Ordering::SeqCst);
                Poll::<()>::Pending
            });
            hyper::rt::Executor::execute(&streams.executor(), stream);
        }
        assert!(
            streams
                .poll(&mut context, |_, _| Step::<()>::Running)
                .is_pending()
        );
        assert!(
            streams
                .poll(&mut context, |_, _| Step::<()>::Running)
                .is_pending()
        );
        assert_eq!(polls.load(Ordering::SeqCst), 3);
        streams.wake_all();
        assert!(
            streams
                .poll(&mut context, |_, _| Step::<()>::Running)
                .is_pending()
        );
        assert_eq!(polls.load(Ordering::SeqCst), 6);
    }
}
