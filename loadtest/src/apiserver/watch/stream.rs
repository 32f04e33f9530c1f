//! One watch as a stream of bytes: initial events, replayed history, live events, bookmarks, the
//! end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::apiserver::counters::OpenWatch;
use crate::apiserver::negotiate::Format;
use crate::apiserver::render::{Frames, TableFrames};
use crate::apiserver::request::ListOptions;
use crate::apiserver::resources::Resource;
use crate::apiserver::selectors::Selection;
use crate::apiserver::server::State;
use crate::apiserver::status::Status;
use crate::apiserver::store::{Event, EventType, Stored, Subscription};

/// Frames are handed to the connection in pieces of about this size.
const BATCH_BYTES: usize = 64 * 1024;
/// Time between bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A bookmark comes this long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// When bookmarks are due.
#[derive(Debug)]
pub(super) struct Bookmarks {
    /// The one that closes the initial events.
    end_pending: bool,
    next: Option<Instant>,
    deadline: Instant,
}

impl Bookmarks {
    pub(super) fn new(
        options: &ListOptions,
        resource: &Resource,
        (now, deadline): (Instant, Instant),
    ) -> Self {
        let allowed = options.allow_watch_bookmarks;
        let initial = options.send_initial_events == Some(true);
        let mut bookmarks = Self {
            end_pending: allowed && initial,
            next: None,
            deadline,
        };
        if allowed && resource.cached {
            bookmarks.schedule(now);
            // A watch that still had its closing bookmark ahead sits in the ticker's very next
            // bucket.
            if initial && bookmarks.next.is_some() {
                bookmarks.next = Some(now + Duration::from_millis(1000));
            }
        }
        bookmarks
    }

    fn schedule(&mut self, now: Instant) {
        let before_end = self.deadline - BOOKMARK_BEFORE_END;
        self.next = (before_end > now).then(|| (now + BOOKMARK_INTERVAL).min(before_end));
    }
}

/// A watch.
pub(super) struct WatchStream {
    state: Arc<State>,
    resource: Arc<Resource>,
    selection: Selection,
    format: Format,
    table: Option<TableFrames>,
    /// One frame a time, without length prefixes.
    bare: bool,
    subscription: Subscription,
    initial: std::vec::IntoIter<Arc<Stored>>,
    history: std::vec::IntoIter<Arc<Event>>,
    bookmarks: Bookmarks,
    /// A bookmark that waits for the queue to be drained.
    due: Option<u64>,
    last_version: u64,
    deadline: Pin<Box<Sleep>>,
    alarm: Pin<Box<Sleep>>,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    _open: OpenWatch,
}

impl WatchStream {
    pub(super) fn new(
        state: Arc<State>,
        resource: Arc<Resource>,
        selection: Selection,
        mut subscription: Subscription,
        (format, table, bare): (Format, Option<TableFrames>, bool),
        (bookmarks, deadline): (Bookmarks, Instant),
    ) -> Self {
        let alarm = bookmarks.next.unwrap_or(deadline);
        let server = Arc::clone(&state);
        let shutdown = async move {
            tokio::select! {
                () = server.shutdown.cancelled() => {}
                () = server.lifecycle.watch_end() => {}
            }
        };
        Self {
            initial: std::mem::take(&mut subscription.initial).into_iter(),
            history: std::mem::take(&mut subscription.history).into_iter(),
            last_version: subscription.start_version,
            deadline: Box::pin(sleep_until(deadline)),
            alarm: Box::pin(sleep_until(alarm)),
            shutdown: Box::pin(shutdown),
            _open: state.counters.open_watch(&resource),
            state,
            resource,
            selection,
            format,
            table,
            bare,
            subscription,
            bookmarks,
            due: None,
            ended: false,
        }
    }

    fn frames(&self) -> Frames<'_> {
        Frames {
            resource: &self.resource,
            format: self.format,
            bare: self.bare,
        }
    }

    fn initial_frame(&mut self, object: &Stored) -> Option<Result<Bytes, Status>> {
        if !self.selection.matches(&self.resource, &object.value) {
            return None;
        }
        let frames = Frames {
            resource: &self.resource,
            format: self.format,
            bare: self.bare,
        };
        Some(match &mut self.table {
            Some(table) => table.event(&frames, EventType::Added, object),
            None => frames.object(EventType::Added, object),
        })
    }

    fn event_frame(&mut self, event: &Event) -> Option<Result<Bytes, Status>> {
        if event.resource_version <= self.subscription.start_version {
            return None;
        }
        let passes = |object: &Stored| self.selection.matches(&self.resource, &object.value);
        let (event_type, object) = event.seen_by(passes)?;
        self.last_version = event.resource_version;
        let frames = Frames {
            resource: &self.resource,
            format: self.format,
            bare: self.bare,
        };
        Some(match &mut self.table {
            Some(table) => table.event(&frames, event_type, object),
            None => frames.event(event, event_type, object),
        })
    }

    fn bookmark_frame(&mut self, resource_version: u64, end: bool) -> Result<Bytes, Status> {
        let frames = Frames {
            resource: &self.resource,
            format: self.format,
            bare: self.bare,
        };
        match &mut self.table {
            Some(table) => table.bookmark(&frames, resource_version, end),
            None => {
                let value = frames.bookmark(resource_version, end)?;
                frames.value(EventType::Bookmark, &value)
            }
        }
    }

    /// The next frame that needs no waiting, in stream order; `None` when the queue is dry.
    fn next_frame(&mut self, context: &mut Context<'_>) -> Option<Result<Bytes, Status>> {
        while let Some(object) = self.initial.next() {
            if let Some(frame) = self.initial_frame(&object) {
                return Some(frame);
            }
        }
        if std::mem::take(&mut self.bookmarks.end_pending) {
            return Some(self.bookmark_frame(self.subscription.start_version, true));
        }
        while let Some(event) = self.history.next() {
            if let Some(frame) = self.event_frame(&event) {
                return Some(frame);
            }
        }
        loop {
            match self.subscription.events.poll_recv(context) {
                Poll::Ready(Some(event)) => {
                    if let Some(frame) = self.event_frame(&event) {
                        return Some(frame);
                    }
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    return None;
                }
                Poll::Pending => break,
            }
        }
        let due = self.due.take()?.max(self.last_version);
        (due > self.subscription.start_version && !self.state.faults.withholds_bookmarks())
            .then(|| self.bookmark_frame(due, false))
    }

    /// Notes a bookmark that has come due; its resource version is read before the queue is
    /// drained.
    fn poll_alarm(&mut self, context: &mut Context<'_>) {
        while self.bookmarks.next.is_some() && self.alarm.as_mut().poll(context).is_ready() {
            self.due = Some(self.state.store.cache_version(&self.resource));
            self.bookmarks.schedule(Instant::now());
            if let Some(next) = self.bookmarks.next {
                self.alarm.as_mut().reset(next);
            }
        }
    }

    fn append(&mut self, batch: &mut BytesMut, frame: Result<Bytes, Status>) -> bool {
        match frame {
            Ok(frame) => match self.state.faults.damage(&frame, self.format.media) {
                Some(damaged) => {
                    batch.extend_from_slice(&damaged);
                    self.ended = true;
                    return false;
                }
                None => batch.extend_from_slice(&frame),
            },
            Err(status) => {
                let frame = self.frames().error(&status);
                batch.extend_from_slice(&frame);
                self.ended = true;
                return false;
            }
        }
        true
    }
}

impl Stream for WatchStream {
    type Item = io::Result<Bytes>;

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        ready!(this.state.faults.poll_stall(context));
        if this.deadline.as_mut().poll(context).is_ready()
            || this.shutdown.as_mut().poll(context).is_ready()
        {
            this.ended = true;
            return Poll::Ready(None);
        }
        this.poll_alarm(context);
        // A single frame is handed on as it is; more are put together.
        let Some(first) = this.next_frame(context) else {
            return if this.ended {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        };
        let mut batch = BytesMut::new();
        if let Ok(frame) = &first
            && !this.state.faults.any_damage()
        {
            let more = if this.bare {
                None
            } else {
                this.next_frame(context)
            };
            let Some(second) = more else {
                return Poll::Ready(Some(Ok(frame.clone())));
            };
            batch.reserve(BATCH_BYTES);
            batch.extend_from_slice(frame);
            if !this.append(&mut batch, second) {
                return Poll::Ready(Some(Ok(batch.freeze())));
            }
        } else if !this.append(&mut batch, first) {
            return Poll::Ready(Some(Ok(batch.freeze())));
        }
        while !this.bare && batch.len() < BATCH_BYTES {
            match this.next_frame(context) {
                Some(frame) => {
                    if !this.append(&mut batch, frame) {
                        break;
                    }
                }
                None => break,
            }
        }
        Poll::Ready(Some(Ok(batch.freeze())))
    }
}
