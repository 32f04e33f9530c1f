//! WATCH: from a checked request to a stream of frames.
//!
//! Owns where a watch starts (W1 to W8 of kube-apiserver 1.36), the stream itself with its selector
//! transitions, its bookmarks and its end. Refuses to buffer beyond the subscription's queue: a
//! slow client fills that and is ended. Invariant: a bookmark is sent after every event it covers,
//! because its resource version is read before the queue is drained.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
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
pub(super) mod websocket;

use stream::{Bookmarks, WatchStream};
use websocket::Handshake;

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
    upgrade: Option<OnUpgrade>,
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
    state.cache_ready(resource)?;
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
    let upgrade = upgrade.filter(|_| websocket::is_wanted(&exchange.headers));
    let frames = Frames {
        resource,
        format,
        bare: upgrade.is_some(),
    };
    let body = match opened {
        Opened::Refused(status) => Body::from(frames.error(&status)),
        Opened::Stream(_) if matches!(format.transform, Transform::PartialList(_)) => Body::Empty,
        Opened::Stream(subscription) => {
            let parts = (resource, format, include, frames.bare);
            stream(state, selected, *subscription, parts)
        }
    };
    if let Some(upgrade) = upgrade {
        return Ok(match Handshake::judge(&exchange.headers) {
            Ok(handshake) => {
                let frames = body.into_data_stream();
                handshake.accept(state, upgrade, frames, format.media)
            }
            Err(code) => empty(code),
        });
    }
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(format.media.stream_content_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

fn empty(code: StatusCode) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = code;
    response
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
    (resource, format, include, bare): (&Arc<Resource>, Format, IncludeObject, bool),
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
        (format, table, bare),
        (bookmarks, now + lifetime),
    );
    Body::stream(watch)
}

/// Longest a watch may ask to live, so that clocks do not overflow. 10 years.
const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
