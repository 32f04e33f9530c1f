//! The state machine of one watch, as client-go's reflector with WatchList (1.35 and later).
//!
//! Owns which request comes next, when, and what is counted. Refuses I/O and decoding of bodies:
//! `watches` feeds it events and the way each stream ended.
//!
//! ```text
//! List(rv) ──initial-events-end──► Watch ──clean end──► Watch, at once, from the last version
//!    ▲                               │  ──429──────────► Watch, after a back-off
//!    └──410, 5xx, very short watch───┘     (a list that answers 410 is asked again without rv)
//! ```
//! Invariant: after the first sync a view is replaced only by a complete newer list.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::decode::{Change, Event, Object};
use super::view::{Entry, Rule, View};

/// First delay after a failure (client-go: 800 ms, doubled, times 1 to 2 at random).
const BACKOFF: Duration = Duration::from_millis(800);
/// Longest delay before jitter.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A watch that served this long ends a series of failures.
const BACKOFF_RESET: Duration = Duration::from_secs(120);
/// A watch that ends sooner than this without an event is a failure.
const VERY_SHORT: Duration = Duration::from_secs(1);
/// Retries that client-go makes of one request on `Retry-After` before the reflector hears of it.
const RETRIES_MAX: u32 = 10;

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// Resource, for messages and counters.
    pub resource: &'static str,
    /// Collection, `/api/v1/namespaces/default/configmaps`.
    pub path: String,
    /// Field selector, not percent-encoded; empty for none.
    pub field_selector: String,
}

/// How a stream or an attempt to open one ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// End of the stream, or the connection was cut under it.
    Clean,
    /// The server answered with another code than 200.
    Refused {
        /// HTTP code.
        code: u16,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
    },
    /// An ERROR event with this code.
    Error {
        /// Code of its Status.
        code: u64,
    },
    /// The stream was not a watch stream.
    Malformed,
}

/// What an event meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// An initial event, kept until the list is complete.
    Initial,
    /// The view is complete and new.
    Synced,
    /// A live event; with the send time of its write, if this is the first event of it.
    Live(Option<u64>),
    /// A bookmark.
    Bookmark,
    /// An ERROR event: the stream is over.
    Failed(End),
}

/// Numbers of one reflector since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams opened from a known version.
    pub resumes: u64,
    /// Lists asked for after the first was complete.
    pub relists: u64,
    /// Those of them that a faultless server causes too: after a stream that was cut within a
    /// second and without an event (client-go distrusts it), and after a 403 for an object whose
    /// pod is gone.
    pub excused: u64,
    /// Failures of any kind; a clean end is none.
    pub failures: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Asks for initial events, not older than the version; without one, consistent. Left when
    /// they are complete.
    List(Option<u64>),
    /// Watches from the view's version. Left when the server says that it cannot go on from there.
    Watch,
}

/// One watch over its many streams.
#[derive(Debug)]
pub struct Reflector {
    subject: Subject,
    timeouts: RangeInclusive<u64>,
    state: State,
    initial: HashMap<Box<str>, Entry>,
    opened: Option<Instant>,
    events: u64,
    retries: u32,
    backoff: Duration,
    counts: Counts,
    rng: Rng,
}

impl Reflector {
    /// A watch whose streams last a random number of seconds in `timeouts`.
    #[must_use]
    pub fn new(subject: Subject, timeouts: RangeInclusive<u64>, rng: Rng) -> Self {
        Self {
            subject,
            timeouts,
            state: State::List(None),
            initial: HashMap::new(),
            opened: None,
            events: 0,
            retries: 0,
            backoff: BACKOFF,
            counts: Counts::default(),
            rng,
        }
    }

    /// Path and query of the next stream.
    pub fn request(&mut self, view: &View) -> String {
        let mut query = String::from("allowWatchBookmarks=true");
        if !self.subject.field_selector.is_empty() {
            query += "&fieldSelector=";
            query += &escape(&self.subject.field_selector);
        }
        match self.state {
            State::List(version) => {
                if let Some(version) = version {
                    query += &format!("&resourceVersion={version}");
                }
                query += "&resourceVersionMatch=NotOlderThan&sendInitialEvents=true";
            }
            State::Watch => {
                self.counts.resumes += 1;
                query += &format!("&resourceVersion={}", view.resource_version());
            }
        }
        let seconds = self.rng.u64(self.timeouts.clone());
        if self.subject.resource != "pods" {
            query += &format!("&timeout={}m{}s", seconds / 60, seconds % 60);
        }
        format!(
            "{}?{query}&timeoutSeconds={seconds}&watch=true",
            self.subject.path
        )
    }

    /// The server answered 200.
    pub fn opened(&mut self, now: Instant) {
        self.opened = Some(now);
        self.events = 0;
        self.retries = 0;
        self.initial.clear();
    }

    /// Takes in an event.
    pub fn event(&mut self, event: Event<'_>, view: &mut View) -> Result<Seen, Rule> {
        self.events += 1;
        match (event, self.state) {
            (Event::Error(status), State::List(_) | State::Watch) => {
                Ok(Seen::Failed(End::Error { code: status.code }))
            }
            (Event::Object { change, object }, State::List(_)) => self.initial(change, &object),
            (Event::Object { change, object }, State::Watch) => {
                view.apply(change, &object).map(Seen::Live)
            }
            (
                Event::Bookmark {
                    resource_version,
                    initial_events_end,
                },
                State::List(_),
            ) => {
                if !initial_events_end {
                    return Ok(Seen::Bookmark);
                }
                self.state = State::Watch;
                let entries = std::mem::take(&mut self.initial);
                view.replace(entries, resource_version)
                    .map(|()| Seen::Synced)
            }
            (
                Event::Bookmark {
                    resource_version, ..
                },
                State::Watch,
            ) => view.bookmark(resource_version).map(|()| Seen::Bookmark),
        }
    }

    fn initial(&mut self, change: Change, object: &Object<'_>) -> Result<Seen, Rule> {
        let known = match change {
            Change::Added | Change::Modified => {
                let entry = Entry::of(object);
                self.initial.insert(object.key().into_boxed_str(), entry)
            }
            Change::Deleted => {
                self.initial.remove(object.key().as_str());
                None
            }
        };
        match (known, change) {
            (Some(_), Change::Added) => Err(Rule::Doubled),
            (Some(_) | None, _) => Ok(Seen::Initial),
        }
    }

    /// A stream ended, or could not be opened: how long to wait before the next request.
    pub fn ended(&mut self, end: &End, view: &View, now: Instant) -> Duration {
        let lasted = self.opened.take().map(|opened| now.duration_since(opened));
        if lasted.is_some_and(|lasted| lasted >= BACKOFF_RESET) {
            self.backoff = BACKOFF;
        }
        let list = State::List(view.is_synced().then(|| view.resource_version()));
        let very_short = self.events == 0 && lasted.is_some_and(|lasted| lasted < VERY_SHORT);
        match *end {
            End::Clean if !very_short => return Duration::ZERO,
            End::Refused {
                code,
                retry_after: Some(seconds),
            } if (code == 429 || code >= 500) && self.retries < RETRIES_MAX => {
                self.retries += 1;
                return Duration::from_secs(seconds);
            }
            End::Refused { code: 429, .. } | End::Error { code: 429 } => {}
            End::Error { code: 410 } | End::Refused { code: 410, .. } => {
                self.state = if matches!(self.state, State::List(_)) {
                    State::List(None)
                } else {
                    list
                };
                self.count_relist(view);
            }
            End::Clean | End::Refused { .. } | End::Error { .. } | End::Malformed => {
                self.state = list;
                self.count_relist(view);
                let is_excused = matches!(end, End::Clean | End::Refused { code: 403, .. });
                self.counts.excused += u64::from(is_excused && view.is_synced());
            }
        }
        self.counts.failures += 1;
        self.delay()
    }

    fn count_relist(&mut self, view: &View) {
        if view.is_synced() {
            self.counts.relists += 1;
        }
    }

    fn delay(&mut self) -> Duration {
        let delay = self.backoff.mul_f64(1.0 + self.rng.f64());
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        delay
    }

    /// What it watches.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether it is asking for initial events.
    #[must_use]
    pub fn is_listing(&self) -> bool {
        matches!(self.state, State::List(_))
    }

    /// Numbers so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Percent-encodes the value of a query parameter as Go's `url.QueryEscape`, for field selectors.
fn escape(value: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(value, KEPT).to_string()
}

#[cfg(test)]
mod tests;
