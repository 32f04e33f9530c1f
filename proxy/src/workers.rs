//! Where client connections run: one thread for each core, each with a runtime of its own.
//!
//! Owns: the worker threads, what each carries, and the choice of one for a new connection.
//! Refuses: everything that is not for one client. Caches, the proxy's own connections to
//! apiservers, files and the admin listener stay on the runtime the proxy was started on: an ingest
//! that takes a core must not stop a share of the clients. The connections that forwarded requests
//! go on are run by the worker of the client (`upstream/nearby.rs`).
//! Invariant: a connection never leaves its worker, so its streams, its timers and its socket wake
//! it without another thread. A panic ends one connection; one of the dispatch itself ends the
//! worker, whose clients then find another. Threads end with their [`Threads`].
//!
//! Rejected: one runtime whose threads steal from each other, where every wake may cross cores; and
//! a listening socket for each worker (`SO_REUSEPORT`), where the system deals connections by hash
//! and nobody counts what they carry.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, WorkerLabels};

/// Those a new connection may go to. Clones are the same workers.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    each: Arc<[Worker]>,
    to_caches: watershed_cache::Workers,
}

/// Where connections run, and what they carry there.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    runtime: Handle,
    connections: Gauge,
    streams: Gauge,
    is_gone: Arc<AtomicBool>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub(crate) fn start(count: NonZeroUsize, metrics: &Metrics) -> io::Result<(Self, Threads)> {
        let (to_caches, dispatchers) = watershed_cache::Workers::new(count.get());
        let mut threads = Threads {
            stop: CancellationToken::new(),
            running: Vec::with_capacity(count.get()),
        };
        let workers = dispatchers
            .into_iter()
            .enumerate()
            .map(|(index, dispatcher)| {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let worker = Worker::new(runtime.handle().clone(), index, metrics);
                let stop = threads.stop.clone();
                let dispatching = stop.run_until_cancelled_owned(dispatcher.run());
                let end = End(Arc::clone(&worker.is_gone));
                let thread = thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(move || {
                        let _end = end;
                        runtime.block_on(dispatching);
                    })?;
                threads.running.push(thread);
                Ok(worker)
            });
        let each = workers.collect::<io::Result<_>>()?;
        Ok((Self { each, to_caches }, threads))
    }

    /// One worker: the current runtime.
    #[cfg(test)]
    pub(crate) fn here(metrics: &Metrics) -> Self {
        Self {
            each: Arc::new([Worker::new(Handle::current(), 0, metrics)]),
            to_caches: watershed_cache::Workers::inline(),
        }
    }

    /// The same threads, as caches know them.
    pub(crate) fn to_caches(&self) -> &watershed_cache::Workers {
        &self.to_caches
    }

    /// The one that carries least, of those that live. Streams are counted and not only
    /// connections: a controller's connection with hundreds of watches weighs what it weighs.
    /// Connections are counted and not only streams: those that were just accepted have none yet.
    pub(crate) fn least_loaded(&self) -> Option<&Worker> {
        let living = self
            .each
            .iter()
            .filter(|worker| !worker.is_gone.load(Ordering::Relaxed));
        living.min_by_key(|worker| worker.connections.get() + worker.streams.get())
    }
}

/// Says when a thread has ended.
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The cores this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

impl Worker {
    fn new(runtime: Handle, index: usize, metrics: &Metrics) -> Self {
        let labels = WorkerLabels {
            worker: index as u64,
        };
        Self {
            runtime,
            connections: metrics.worker_connections.get_or_create(&labels).clone(),
            streams: metrics.worker_streams.get_or_create(&labels).clone(),
            is_gone: Arc::default(),
        }
    }

    /// Where its tasks are spawned.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Counts one more connection, without streams, from now on.
    pub(crate) fn take(&self) -> Load {
        self.connections.inc();
        Load {
            worker: self.clone(),
            streams: 0,
        }
    }
}

/// What one connection adds to its worker, while it lives.
#[derive(Debug)]
pub(crate) struct Load {
    worker: Worker,
    streams: usize,
}

impl Load {
    /// The connection has so many streams now.
    pub(crate) fn set_streams(&mut self, streams: usize) {
        if streams != self.streams {
            self.worker
                .streams
                .inc_by(difference(self.streams, streams));
            self.streams = streams;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.set_streams(0);
        self.worker.connections.dec();
    }
}

fn difference(from: usize, to: usize) -> i64 {
    to as i64 - from as i64
}

/// The threads of the workers. Dropped, they end soon, whatever still runs on them.
#[derive(Debug)]
pub(crate) struct Threads {
    stop: CancellationToken,
    running: Vec<thread::JoinHandle<()>>,
}

impl Threads {
    /// Ends the threads and waits until they are gone.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let running = std::mem::take(&mut self.running);
        let joined =
            tokio::task::spawn_blocking(|| running.into_iter().all(|thread| thread.join().is_ok()));
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("a worker thread panicked");
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    #[tokio::test]
    async fn a_new_connection_goes_where_least_is_carried() {
        let (metrics, _) = Metrics::new();
        let (workers, threads) = Workers::start(TWO, &metrics).expect("two threads");
        let take = || {
            let worker = workers.least_loaded().expect("both live");
            (worker.runtime().id(), worker.take())
        };
        let (first, mut busy) = take();
        busy.set_streams(2);
        let others = [take(), take(), take()];
        assert!(others.iter().all(|(worker, _)| *worker != first));
        let (again, _load) = take();
        assert_eq!(
            again, first,
            "three connections weigh as one with two streams"
        );
        drop(others);
        assert_ne!(take().0, first, "what ended weighs nothing");
        drop(busy);
        threads.end().await;
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_and_the_end_ends_all() {
        let (metrics, _) = Metrics::new();
        let (workers, threads) = Workers::start(NonZeroUsize::MIN, &metrics).expect("a thread");
        let worker = workers.least_loaded().expect("it lives").runtime().clone();
        let panicked = worker.spawn(async { panic!("of one connection") }).await;
        assert!(panicked.is_err_and(|error| error.is_panic()));

        let (lives, dropped) = oneshot::channel::<()>();
        let (started, running) = oneshot::channel();
        drop(worker.spawn(async move {
            let _lives = lives;
            started
                .send(thread::current().name().map(str::to_owned))
                .expect("the test waits");
            std::future::pending::<()>().await;
        }));
        let name = running.await.expect("the worker lives on");
        assert_eq!(name.as_deref(), Some("worker-0"));
        threads.end().await;
        assert!(dropped.await.is_err(), "nothing is left");
        assert!(
            workers.least_loaded().is_none(),
            "nobody goes where nothing runs"
        );
    }
}
