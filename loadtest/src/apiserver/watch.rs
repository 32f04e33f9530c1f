//! WATCH: from a checked request to a stream of frames.
//!
//! Owns where a watch starts (W1 to W8 of kube-apiserver 1.36), the stream itself with its selector
//! transitions, its bookmarks and its end. Refuses to buffer beyond the subscription's queue: a
//! slow client fills that and is ended. Invariant: a bookmark is sent after every event it covers,
//! because its resource version is read before the queue is drained.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::body::{Body, Response};
use super::negotiate::{self, Endpoint, Format, Media, Transform};
use super::read::{self, Selected};
use super::render::{Frames, IncludeObject, TableFrames};
use super::request::parse_resource_version;
use super::resources::Resource;
use super::server::{Exchange, State};
use super::status::Status;
use super::store::{FRESHNESS_TIMEOUT, Start, StoreError, Subscription};

mod stream;

use stream::{Bookmarks, WatchStream};

/// How a watch begins.
enum Opened {
    /// With events.
    Stream(Box<Subscription>),
    /// With an ERROR event, and ends.
    Refused(Status),
}

/// Answers a WATCH, also of the legacy path.
pub async fn serve(
    state: &Arc<State>,
    exchange: &Exchange,
    resource: &Arc<Resource>,
) -> Result<Response, Status> {
    let selected = read::select(state, exchange, resource)?;
    if !resource.allows("watch") {
        return Err(Status::not_supported(
            &resource.group,
            &resource.resource,
            "watch",
        ));
    }
    let options = &selected.options;
    let requested = parse_resource_version(&options.resource_version).map_err(Status::unknown)?;
    let opened = open(state, resource, &selected, requested).await?;
    let endpoint = Endpoint::of(resource);
    let whole = negotiate::negotiate(&exchange.headers, &exchange.query, endpoint)?;
    let include = match whole.transform {
        Transform::Table(_) => IncludeObject::parse(&exchange.query)?,
        Transform::None | Transform::Partial(_) | Transform::PartialList(_) => {
            IncludeObject::default()
        }
    };
    let format = negotiate::negotiate_stream(&exchange.headers, endpoint)?;
    let body = match opened {
        Opened::Refused(status) => refusal(resource, format, &status),
        Opened::Stream(_) if matches!(format.transform, Transform::PartialList(_)) => Body::Empty,
        Opened::Stream(subscription) => {
            let parts = (resource, format, include);
            stream(state, selected, *subscription, parts)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let content_type = http::HeaderValue::from_static(format.media.stream_content_type());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, content_type);
    Ok(response)
}

fn refusal(resource: &Resource, format: Format, status: &Status) -> Body {
    let frames = Frames {
        resource,
        format,
        bare: false,
    };
    Body::from(frames.error(status))
}

/// Opens the storage watch by the table of start semantics.
async fn open(
    state: &Arc<State>,
    resource: &Resource,
    selected: &Selected,
    requested: u64,
) -> Result<Opened, Status> {
    let store = &state.store;
    let options = &selected.options;
    let version = options.resource_version.as_str();
    if let Some(status) = state.faults.refuse_watch(resource) {
        return Ok(Opened::Refused(status));
    }
    let start = match options.send_initial_events {
        Some(true) => {
            let fresh = match version {
                "0" => Ok(()),
                "" if resource.cached => store.wait_until_consistent(resource).await.map(|_| ()),
                "" => Ok(()),
                _ if resource.cached => {
                    store
                        .wait_until_fresh(resource, requested, FRESHNESS_TIMEOUT)
                        .await
                }
                _ => match store.revision() {
                    current if requested > current => {
                        Err(StoreError::TooLarge { requested, current })
                    }
                    _ => Ok(()),
                },
            };
            if let Err(StoreError::TooLarge { requested, current }) = fresh {
                let status = Status::too_large_resource_version(requested, current, true);
                return Ok(Opened::Refused(status));
            }
            Start::Initial
        }
        Some(false) if version.is_empty() => Start::After(store.revision()),
        Some(false) if requested == 0 && resource.cached => {
            Start::After(store.cache_version(resource))
        }
        Some(false) if requested == 0 => Start::After(store.revision()),
        None if requested == 0 => Start::Initial,
        Some(false) | None => Start::After(requested),
    };
    match store.watch(resource, selected.scope.clone(), start) {
        Ok(subscription) => Ok(Opened::Stream(Box::new(subscription))),
        Err(StoreError::Compacted) => Ok(Opened::Refused(Status::expired(
            "The resourceVersion for the provided watch is too old.",
        ))),
        Err(error) => Ok(Opened::Refused(read::refused(error, resource))),
    }
}

fn stream(
    state: &Arc<State>,
    selected: Selected,
    subscription: Subscription,
    (resource, format, include): (&Arc<Resource>, Format, IncludeObject),
) -> Body {
    let now = Instant::now();
    let lifetime = match selected.options.timeout_seconds {
        Some(seconds) if seconds > 0 => {
            Duration::from_secs(seconds.unsigned_abs()).min(LIFETIME_MAX)
        }
        Some(seconds) if seconds < 0 => return Body::Empty,
        Some(_) | None => {
            let random = state.profile.watch_timeout.mul_f64(fastrand::f64());
            state.profile.watch_timeout + random
        }
    };
    let bookmarks = Bookmarks::new(&selected.options, resource, (now, now + lifetime));
    let table = match format.transform {
        Transform::Table(v1) if format.media == Media::Json => Some(TableFrames::new(v1, include)),
        Transform::Table(_)
        | Transform::None
        | Transform::Partial(_)
        | Transform::PartialList(_) => None,
    };
    let watch = WatchStream::new(
        Arc::clone(state),
        Arc::clone(resource),
        selected.selection,
        subscription,
        (format, table),
        (bookmarks, now + lifetime),
    );
    Body::stream(watch)
}

/// Longest a watch may ask to live, so that clocks do not overflow. 10 years.
const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
