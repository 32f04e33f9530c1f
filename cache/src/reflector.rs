//! Lists and watches one resource upstream and feeds the writer of its cache.

use std::fmt;
use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::resource_version::ResourceVersion;
use crate::watch_cache::Writer;

/// The way to the apiserver: raw bodies of one resource in one encoding. Implementations add the path, the encoding's
/// media type and credentials, and bound the size of a list body.
pub trait ListerWatcher: Send + Sync {
    /// Body of a watch, in chunks cut anywhere.
    type Body: Stream<Item = Result<Bytes, UpstreamError>> + Send + Unpin;

    /// Sends a LIST and returns the whole body of a 200.
    fn list(
        &self,
        request: ListRequest,
    ) -> impl Future<Output = Result<Bytes, UpstreamError>> + Send;

    /// Sends a WATCH and returns the body of a 200 as soon as its head has arrived.
    fn watch(
        &self,
        request: WatchRequest,
    ) -> impl Future<Output = Result<Self::Body, UpstreamError>> + Send;
}

/// Parameters of an upstream LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// `limit`; no limit when `None`.
    pub limit: Option<usize>,
    /// `continue` of the page before.
    pub continue_token: Option<String>,
    /// `resourceVersion`, sent with `resourceVersionMatch=NotOlderThan`; `None` asks for a consistent list.
    pub not_older_than: Option<ResourceVersion>,
}

impl ListRequest {
    /// The query string.
    pub fn query(&self) -> String {
        let mut query = String::new();
        if let Some(limit) = self.limit {
            let _ = write!(query, "limit={limit}&");
        }
        if let Some(token) = &self.continue_token {
            let _ = write!(query, "continue={}&", Escaped(token));
        }
        if let Some(version) = self.not_older_than {
            let _ = write!(
                query,
                "resourceVersion={version}&resourceVersionMatch=NotOlderThan&"
            );
        }
        query.pop();
        query
    }
}

/// Parameters of an upstream WATCH. Bookmarks are always allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// `resourceVersion`; `None` is the empty one.
    pub resource_version: Option<ResourceVersion>,
    /// `sendInitialEvents=true` with `resourceVersionMatch=NotOlderThan`.
    pub send_initial_events: bool,
    /// `timeoutSeconds`, whole seconds.
    pub timeout: Duration,
}

impl WatchRequest {
    /// The query string.
    pub fn query(&self) -> String {
        let mut query = String::from("watch=true&allowWatchBookmarks=true");
        if self.send_initial_events {
            query.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        }
        query.push_str("&resourceVersion=");
        if let Some(version) = self.resource_version {
            let _ = write!(query, "{version}");
        }
        let _ = write!(query, "&timeoutSeconds={}", self.timeout.as_secs());
        query
    }
}

/// Text as a query value: everything but letters, digits and `-._~` as percent codes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Why the apiserver did not give what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It answered with an error.
    #[error("the apiserver answered {code} {reason}: {message}")]
    Status {
        /// HTTP status.
        code: u16,
        /// `reason` of the Status body, if it was one.
        reason: String,
        /// `message` of the Status body, or the beginning of another body.
        message: String,
        /// Seconds from `Retry-After`.
        retry_after: Option<u32>,
    },
    /// It could not be reached, or the connection broke.
    #[error("the connection failed: {0}")]
    Transport(String),
}

/// How a reflector is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReflectorStatus {
    /// The first sync is under way.
    Syncing,
    /// Events flow.
    Live,
    /// The stream is down and will be opened again; reads are still answered from what is there.
    Retrying {
        /// What went wrong last.
        last_error: String,
    },
    /// The apiserver answers 401 or 403. On 403 the cache is closed and the resource should pass through. Retried slowly.
    Denied {
        /// What it said.
        message: String,
    },
    /// The apiserver answers 404: the resource was removed. The cache is closed. Retried slowly.
    Gone,
    /// The objects do not fit [`Options::objects_bytes`](crate::Options::objects_bytes); the reflector has ended.
    OverBudget {
        /// What they would take.
        bytes: usize,
    },
    /// The reflector has ended.
    Stopped,
}

/// Timings and limits of a reflector.
#[derive(Clone, Debug)]
pub struct ReflectorOptions {
    /// Objects per page of a paged LIST (500).
    pub page_size: usize,
    /// Largest watch frame (16 MiB and some): a larger one counts as malformed and drops the connection.
    pub frame_max: usize,
    /// Shortest `timeoutSeconds` of a watch (300 s); each is random up to twice this.
    pub watch_timeout_min: Duration,
    /// Silence after which a stream counts as dead and is opened anew (150 s).
    pub silence_max: Duration,
    /// How long one request may take to answer (60 s).
    pub request_timeout: Duration,
    /// Seed of jitter and timeouts; `None` for a random one.
    pub seed: Option<u64>,
}

impl Default for ReflectorOptions {
    fn default() -> Self {
        Self {
            page_size: 500,
            frame_max: (16 << 20) + (64 << 10),
            watch_timeout_min: Duration::from_secs(300),
            silence_max: Duration::from_secs(150),
            request_timeout: Duration::from_secs(60),
            seed: None,
        }
    }
}

/// Feeds one writer.
#[derive(Debug)]
pub struct Reflector;

impl Reflector {
    /// Runs until `shutdown` resolves or the objects outgrow their budget; the cache is closed then.
    pub async fn run<L: ListerWatcher>(
        writer: Writer,
        lister_watcher: L,
        options: ReflectorOptions,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let _ = (writer, lister_watcher, options);
        shutdown.await;
    }
}
