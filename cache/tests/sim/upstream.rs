//! Apiservers behind a balancer, as the reflector sees them: they serve the one history, each as far
//! as it has seen it, and go wrong in every way the sim's faults name.
//!
//! What they say is true even when it is old: a list at a version is the state at it, events come in
//! order, and a bookmark follows every event up to it. Only [`Faults::amnesia`] breaks a promise of
//! the real ones, that a list without a version is current.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use watershed_cache::{ListRequest, ListerWatcher, UpstreamError, WatchRequest};

use crate::model::History;
use crate::thing::{Meta, Shape};
use crate::wanted::WANTED;

type Body = ReceiverStream<Result<Bytes, UpstreamError>>;

/// How long an apiserver waits for a version it has not seen: `watch_cache.go` `blockTimeout`.
const PATIENCE: Duration = Duration::from_secs(3);

/// A bookmark comes this long before the end of a watch.
const BEFORE_END: Duration = Duration::from_secs(2);

/// How requests are refused.
const REFUSALS: [(u16, &str, Option<u32>); 8] = [
    (500, "InternalError", None),
    (503, "ServiceUnavailable", Some(2)),
    (429, "TooManyRequests", Some(1)),
    (504, "Timeout", Some(1)),
    (401, "Unauthorized", None),
    (403, "Forbidden", None),
    (404, "NotFound", None),
    (410, "Expired", None),
];

/// What goes wrong from now on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// WatchList is unknown.
    pub(crate) no_watch_list: bool,
    /// New requests fail: no connection, or one of the refusals.
    pub(crate) refusal: Option<usize>,
    /// Requests are never answered.
    pub(crate) hanging: bool,
    /// Answers take seconds.
    pub(crate) slow: bool,
    /// A version that was asked for is not waited for; watches begin some events early.
    pub(crate) forgetful: bool,
    /// A list without a version may be older than what is cached, though never twice in a row.
    pub(crate) amnesia: bool,
    /// Pages of a list do not fit together.
    pub(crate) misfit: bool,
    /// No bookmarks but those that end initial events.
    pub(crate) no_bookmarks: bool,
    /// Open streams bring nothing and do not end.
    pub(crate) silent: bool,
}

/// An upstream watch the reflector has open.
struct Stream {
    chunks: mpsc::Sender<Result<Bytes, UpstreamError>>,
    /// First write not sent yet.
    next: usize,
    server: usize,
    /// Nothing up to here is sent.
    after: u64,
    ends: Instant,
    has_bookmark: bool,
}

/// The history and those who serve it.
pub(crate) struct World {
    pub(crate) history: History,
    pub(crate) faults: Faults,
    pub(crate) rng: fastrand::Rng,
    /// What each server has seen, if not everything.
    servers: [Option<u64>; 3],
    /// Watches and pages at or above this are served.
    compacted: u64,
    /// What was compacted, and when.
    compactions: Vec<(Instant, u64)>,
    streams: Vec<Stream>,
    /// Versions at which a whole state was on offer.
    pub(crate) offered: BTreeSet<u64>,
    /// Up to where the cache is complete, at least.
    pub(crate) served: u64,
    /// Whether the last list without a version was old.
    has_forgotten: bool,
    /// Whether a bookmark may have reached the reflector.
    pub(crate) has_sent_bookmark: bool,
}

impl World {
    pub(crate) fn new(history: History) -> Self {
        Self {
            history,
            faults: Faults::default(),
            rng: fastrand::Rng::with_seed(0),
            servers: [None; 3],
            compacted: 0,
            compactions: Vec::new(),
            streams: Vec::new(),
            offered: BTreeSet::new(),
            served: 0,
            has_forgotten: false,
            has_sent_bookmark: false,
        }
    }

    /// Something else was written.
    pub(crate) fn write_elsewhere(&mut self) {
        self.history.version += self.rng.u64(1..20);
    }

    /// Forgets history up to now, nearly.
    pub(crate) fn compact(&mut self) {
        let version = self.history.version.saturating_sub(self.rng.u64(..6));
        self.compacted = self.compacted.max(version);
        self.compactions.push((Instant::now(), self.compacted));
    }

    /// What was compacted for certain some time ago.
    pub(crate) fn compacted_before(&self, at: Instant) -> u64 {
        let before = self.compactions.iter().rev().find(|(when, _)| *when < at);
        before.map_or(0, |(_, version)| *version)
    }

    /// Some servers fall behind, the others catch up.
    pub(crate) fn lag(&mut self) {
        let Self { servers, rng, .. } = self;
        for server in servers {
            let behind = self.history.version.saturating_sub(rng.u64(..20));
            *server = rng.bool().then_some(behind.max(1));
        }
    }

    /// Everything works from now on.
    pub(crate) fn heal(&mut self) {
        self.faults = Faults::default();
        self.servers = [None; 3];
    }

    fn seen(&self, server: usize) -> u64 {
        self.servers[server].unwrap_or(self.history.version)
    }

    /// Watches that are open upstream.
    pub(crate) fn open_streams(&self) -> usize {
        let open = self.streams.iter().filter(|it| !it.chunks.is_closed());
        open.count()
    }

    /// Breaks or ends streams, some in the middle of a frame.
    pub(crate) fn cut(&mut self) {
        let form = self.history.form;
        for stream in std::mem::take(&mut self.streams) {
            let (code, reason, _) = REFUSALS[self.rng.usize(..REFUSALS.len())];
            let bytes = match self.rng.u8(..8) {
                0 => {
                    self.streams.push(stream); // this one is spared
                    continue;
                }
                1 | 2 => Vec::new(),
                3 => {
                    let reset = UpstreamError::Transport("reset".into());
                    let _ = stream.chunks.try_send(Err(reset));
                    continue;
                }
                4 | 5 => {
                    let mut frame = form.bookmark(u64::MAX, false, Shape::Zeroes);
                    frame.truncate(self.rng.usize(..frame.len() - 1));
                    frame
                }
                6 => form.event("ERROR", &form.status(code, reason)),
                _ => form.nonsense(self.rng.usize(..8)),
            };
            send(&stream.chunks, &mut self.rng, &bytes);
        }
    }

    /// Sends some of what the streams have not had yet; all of it and a bookmark when `all`.
    pub(crate) fn pump(&mut self, all: bool) {
        for place in (0..self.streams.len()).rev() {
            let all = all || self.rng.u8(..4) == 0;
            if !self.faults.silent && !self.advance(place, all, all) {
                self.streams.swap_remove(place);
            }
        }
    }

    /// What time alone brings: the bookmark before the end, and the end.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        for place in (0..self.streams.len()).rev() {
            let stream = &mut self.streams[place];
            let (ends, has_bookmark) = (stream.ends, stream.has_bookmark);
            if now + BEFORE_END >= ends && !has_bookmark && !self.faults.silent {
                stream.has_bookmark = true;
                self.advance(place, true, true);
            }
            if now >= ends {
                self.streams.swap_remove(place);
            }
        }
    }

    /// Moves one stream on. False when nobody reads it.
    fn advance(&mut self, place: usize, all: bool, bookmark: bool) -> bool {
        let seen = self.seen(self.streams[place].server);
        let Self {
            history,
            streams,
            rng,
            faults,
            ..
        } = self;
        let stream = &mut streams[place];
        let upto = history.position(seen);
        let left = upto.saturating_sub(stream.next);
        let count = if all { left } else { rng.usize(..=left.min(3)) };
        let mut bytes = Vec::new();
        for position in stream.next..stream.next + count {
            let (frame, _) = history.frame(position, &WANTED[0]).expect("all are seen");
            bytes.extend(frame);
        }
        stream.next += count;
        if bookmark && !faults.no_bookmarks && stream.next == upto {
            // Any version from the last event on is true.
            let last = upto
                .checked_sub(1)
                .map_or(0, |last| history.log[last].version);
            let version = if rng.bool() {
                seen
            } else {
                rng.u64(last..=seen)
            };
            if version > stream.after || faults.forgetful {
                bytes.extend(history.form.bookmark(version, false, Shape::Zeroes));
                self.has_sent_bookmark = true;
            }
        }
        send(&stream.chunks, rng, &bytes)
    }

    /// Whether and after which delay a request fails.
    fn refuse(&mut self) -> (Duration, Option<UpstreamError>) {
        let millis = match self.faults {
            Faults { hanging: true, .. } => 100_000,
            Faults { slow: true, .. } => self.rng.u64(..2500),
            _ => [0, 0, 0, self.rng.u64(..200)][self.rng.usize(..4)],
        };
        let refusal = self.faults.refusal.map(|which| match REFUSALS.get(which) {
            None => UpstreamError::Transport("refused".into()),
            Some(&(code, reason, retry_after)) => status(code, reason, retry_after),
        });
        (Duration::from_millis(millis), refusal)
    }

    /// The version at which somebody serves a whole state, or after which delay nobody does.
    fn whole(&mut self, not_older_than: Option<u64>) -> Result<u64, Duration> {
        let server = self.rng.usize(..3);
        let seen = self.seen(server);
        let version = match not_older_than {
            None => {
                // Older than all that was served, or nobody could tell.
                self.has_forgotten = self.faults.amnesia && !self.has_forgotten && self.served > 1;
                if self.has_forgotten {
                    self.rng.u64(1..self.served)
                } else {
                    self.history.version
                }
            }
            Some(least) if seen >= least && self.rng.bool() => self.rng.u64(least..=seen),
            Some(least) if seen >= least || self.faults.forgetful => seen,
            Some(_) => return Err(PATIENCE),
        };
        self.offered.insert(version);
        Ok(version)
    }

    fn list(&mut self, request: &ListRequest) -> (Duration, Result<Bytes, UpstreamError>) {
        let (delay, refusal) = self.refuse();
        if let Some(refusal) = refusal {
            return (delay, Err(refusal));
        }
        let (version, from) = match &request.continue_token {
            Some(token) => {
                let (version, from) = token.split_once('.').expect("a token of ours");
                let version: u64 = version.parse().expect("a token of ours");
                if version < self.compacted {
                    return (delay, Err(status(410, "Expired", None)));
                }
                (version, from.replace('_', "/"))
            }
            None if request.exactly.is_some() => {
                let version = request.exactly.expect("just seen").get();
                if version > self.history.version {
                    return (delay, Err(status(504, "Timeout", Some(1))));
                }
                if version < self.compacted {
                    return (delay, Err(status(410, "Expired", None)));
                }
                (version, String::new())
            }
            None => match self.whole(request.not_older_than.map(|it| it.get())) {
                Ok(version) => (version, String::new()),
                Err(waited) => return (waited, Err(status(504, "Timeout", Some(1)))),
            },
        };
        let mut rest = self.history.at(version).range(from..);
        let limit = request.limit.unwrap_or(usize::MAX);
        let page: Vec<_> = rest.by_ref().take(limit).map(|(_, thing)| thing).collect();
        let misfit = self.faults.misfit && request.continue_token.is_some();
        let token = rest
            .next()
            .map(|(key, _)| format!("{version}.{}", key.replace('/', "_")));
        let meta = Meta {
            version: version + u64::from(misfit),
            token: token.as_deref(),
            remaining: None,
        };
        let mut body = self.history.form.list(meta, page.into_iter());
        if self.faults.misfit && self.rng.bool() {
            body.truncate(self.rng.usize(..body.len() - 2));
        }
        (delay, Ok(body.into()))
    }

    fn watch(&mut self, request: &WatchRequest) -> (Duration, Result<Body, UpstreamError>) {
        let (delay, refusal) = self.refuse();
        if let Some(refusal) = refusal {
            return (delay, Err(refusal));
        }
        let form = self.history.form;
        let (chunks, body) = mpsc::channel(4096);
        let body = ReceiverStream::new(body);
        let asked = request.resource_version.map(|it| it.get());
        let mut bytes = Vec::new();
        let after = if request.send_initial_events {
            if self.faults.no_watch_list {
                return (delay, Err(status(422, "Invalid", None)));
            }
            let version = match self.whole(asked) {
                Ok(version) => version,
                Err(waited) => {
                    let too_large = form.event("ERROR", &form.status(504, "Timeout"));
                    send(&chunks, &mut self.rng, &too_large);
                    return (waited, Ok(body));
                }
            };
            for thing in self.history.at(version).values() {
                bytes.extend(form.event("ADDED", thing.own(form)));
            }
            bytes.extend(form.bookmark(version, true, Shape::Zeroes));
            self.has_sent_bookmark = true;
            if self.rng.u8(..12) == 0 {
                bytes.truncate(self.rng.usize(..bytes.len()));
                send(&chunks, &mut self.rng, &bytes);
                return (delay, Ok(body));
            }
            version
        } else {
            let after = asked.expect("a watch starts somewhere");
            if after < self.compacted {
                if self.rng.bool() {
                    return (delay, Err(status(410, "Expired", None)));
                }
                bytes.extend(form.event("ERROR", &form.status(410, "Expired")));
                send(&chunks, &mut self.rng, &bytes);
                return (delay, Ok(body));
            }
            after
        };
        send(&chunks, &mut self.rng, &bytes);
        let early = if self.faults.forgetful {
            self.rng.usize(..5)
        } else {
            0
        };
        self.streams.push(Stream {
            chunks,
            next: self.history.position(after).saturating_sub(early),
            server: self.rng.usize(..3),
            after,
            ends: Instant::now() + request.timeout,
            has_bookmark: false,
        });
        (delay, Ok(body))
    }
}

fn status(code: u16, reason: &str, retry_after: Option<u32>) -> UpstreamError {
    UpstreamError::Status {
        code,
        reason: reason.into(),
        message: "no".into(),
        retry_after,
    }
}

/// Sends bytes in chunks cut anywhere. False when nobody reads.
fn send(
    chunks: &mpsc::Sender<Result<Bytes, UpstreamError>>,
    rng: &mut fastrand::Rng,
    mut rest: &[u8],
) -> bool {
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rng.usize(1..=rest.len()));
        if chunks.try_send(Ok(Bytes::copy_from_slice(chunk))).is_err() {
            return false;
        }
        rest = after;
    }
    !chunks.is_closed()
}

/// The world as a reflector sees it.
#[derive(Clone)]
pub(crate) struct Upstream(pub(crate) Arc<Mutex<World>>);

impl ListerWatcher for Upstream {
    type Body = Body;

    async fn list(&self, request: ListRequest) -> Result<Bytes, UpstreamError> {
        tokio::task::yield_now().await;
        let (delay, answer) = self.0.lock().list(&request);
        tokio::time::sleep(delay).await;
        answer
    }

    async fn watch(&self, request: WatchRequest) -> Result<Body, UpstreamError> {
        tokio::task::yield_now().await;
        let (delay, answer) = self.0.lock().watch(&request);
        tokio::time::sleep(delay).await;
        answer
    }
}
