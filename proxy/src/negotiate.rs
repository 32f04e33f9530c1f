//! Content negotiation: `Accept`, `Accept-Encoding`, `pretty` and the User-Agent rule.
//!
//! Owns the two steps an apiserver takes: the router of built-in resources, which compares bare
//! media types (as go-restful `jsr311`), then the handler, which sorts clauses and reads their
//! parameters (as `endpoints/handlers/negotiation`, 1.36). Errors are negotiated a second time with
//! neither step's transforms; when that fails they are indented JSON.
//!
//! Refuses CBOR, which is alpha and off by default, and headers that are not ASCII, have more than
//! [`CLAUSES_MAX`] clauses (Go sorts those with another algorithm, and the comparator is no order),
//! or a `q` in hexadecimal or with underscores.
//!
//! Invariant: a result other than [`NotAcceptable::Unclear`] is what the apiserver would
//! have chosen for the same headers.

mod accept;

use http::{HeaderMap, header};
use watershed_cache::encoding::MetaVersion;

use self::accept::{Clause, clauses};
use crate::request::{Query, parse_bool};
use crate::status::{ErrorFormat, Status};

/// Clauses beyond which the order of Go's sort is not reproduced; callers forward the request.
const CLAUSES_MAX: usize = 12;

/// A header nobody can serve.
const UNKNOWN: &str = "?/?";

/// The encoding of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Media {
    /// `application/json`; pretty is two-space indentation and no final newline.
    Json {
        /// Whether a person reads it.
        pretty: bool,
    },
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Media {
    /// The Content-Type of a response that is no stream.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json { .. } => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// Another kind the client wants the answer as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transform {
    /// The resource's own kind.
    None,
    /// `as=Table`.
    Table(MetaVersion),
    /// `as=PartialObjectMetadata`.
    PartialObjectMetadata(MetaVersion),
    /// `as=PartialObjectMetadataList`.
    PartialObjectMetadataList(MetaVersion),
}

/// The form of the answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Negotiated {
    /// Its encoding. On a watch `pretty` is always false.
    pub(crate) media: Media,
    /// Its kind.
    pub(crate) transform: Transform,
}

/// What is being negotiated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// What the handler does.
    pub(crate) action: Action,
    /// Whether the resource is a custom one: no router step, no protobuf without a transform.
    pub(crate) custom: bool,
}

/// The read handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// One object.
    Get,
    /// A collection.
    List,
    /// A stream.
    Watch,
}

/// Why no form suits both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAcceptable {
    /// The router of built-in resources refused.
    #[error("no bare media type of the Accept header is served")]
    Router {
        /// The route also offers streams: LIST and WATCH.
        streams: bool,
    },
    /// The handler refused.
    #[error("no clause of the Accept header is served")]
    Handler,
    /// The handler chose YAML, which does not stream.
    #[error("the media type chosen does not stream")]
    Stream,
    /// Not for us to decide: forward the request.
    #[error("the Accept header is not ASCII, longer than {CLAUSES_MAX} clauses, or oddly weighted")]
    Unclear,
}

impl NotAcceptable {
    /// The apiserver's 406; `None` when only the apiserver can tell.
    pub(crate) fn status(self) -> Option<Status> {
        match self {
            Self::Router { streams: true } => Some(Status::not_acceptable_by_router(concat!(
                "406: Not Acceptable\n\nAvailable representations: application/json, ",
                "application/yaml, application/vnd.kubernetes.protobuf, ",
                "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ))),
            Self::Router { streams: false } => Some(Status::not_acceptable_by_router(concat!(
                "406: Not Acceptable\n\nAvailable representations: application/json, ",
                "application/yaml, application/vnd.kubernetes.protobuf",
            ))),
            Self::Handler => Some(Status::not_acceptable(concat!(
                "only the following media types are accepted: application/json, ",
                "application/yaml, application/vnd.kubernetes.protobuf",
            ))),
            Self::Stream => Some(Status::not_acceptable(concat!(
                "only the following media types are accepted: application/json;stream=watch, ",
                "application/vnd.kubernetes.protobuf;stream=watch",
            ))),
            Self::Unclear => None,
        }
    }
}

/// Chooses the form of the answer.
///
/// # Errors
/// See [`NotAcceptable`].
pub(crate) fn negotiate(
    headers: &HeaderMap,
    query: &Query,
    endpoint: Endpoint,
) -> Result<Negotiated, NotAcceptable> {
    let accept = first(headers, header::ACCEPT).ok_or(NotAcceptable::Unclear)?;
    if !endpoint.custom && !routed(accept) {
        let streams = endpoint.action != Action::Get;
        return Err(NotAcceptable::Router { streams });
    }
    let (mut media, transform) = choose(accept, |clause, media| match clause.transform {
        accept::Wanted::Own => {
            (!endpoint.custom || media != Media::Protobuf).then_some(Transform::None)
        }
        accept::Wanted::Kind(transform) => {
            let table = matches!(transform, Transform::Table(_));
            (!table || media != Media::Protobuf).then_some(transform)
        }
        accept::Wanted::Unknown => None,
    })?
    .ok_or(NotAcceptable::Handler)?;
    if endpoint.action == Action::Watch {
        match &mut media {
            Media::Yaml => return Err(NotAcceptable::Stream),
            Media::Json { pretty } => *pretty = false,
            Media::Protobuf => {}
        }
    } else if let Media::Json { pretty } = &mut media {
        *pretty |= prefers_pretty(headers, query);
    }
    Ok(Negotiated { media, transform })
}

/// Whether a long body may be compressed: the first line names exactly `gzip`, which a quality
/// spoils (as `responsewriters/writers.go`, 1.36).
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    first(headers, header::ACCEPT_ENCODING)
        .unwrap_or_default()
        .split(',')
        .any(|token| token.trim() == "gzip")
}

/// What the form of an error is chosen by. Most requests end without one, so it is not chosen
/// before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorsOf<'a> {
    /// The request's.
    pub(crate) headers: &'a HeaderMap,
    /// The request's.
    pub(crate) query: &'a Query,
}

impl ErrorsOf<'_> {
    /// The form.
    pub(crate) fn format(self) -> ErrorFormat {
        ErrorFormat::negotiate(self.headers, self.query)
    }
}

impl ErrorFormat {
    /// Chooses the form of an error: as the handler does, but without transforms and server
    /// versions, and indented JSON when nothing fits.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Self {
        let accept = first(headers, header::ACCEPT).unwrap_or(UNKNOWN);
        let chosen = choose(accept, |clause, _| {
            (matches!(clause.transform, accept::Wanted::Own) && clause.server_version.is_none())
                .then_some(Transform::None)
        });
        Self(match chosen {
            Ok(Some((Media::Json { pretty }, _))) => Media::Json {
                pretty: pretty || prefers_pretty(headers, query),
            },
            Ok(Some((media, _))) => media,
            Ok(None) | Err(_) => Media::Json { pretty: true },
        })
    }
}

/// The router's test: some element, cut at its first `;`, is `*/*` or exactly a type served.
fn routed(accept: &str) -> bool {
    accept.is_empty()
        || accept.split(',').any(|element| {
            let bare = element
                .split(';')
                .next()
                .unwrap_or_default()
                .trim_matches(' ');
            bare == "*/*" || SERVED.iter().any(|media| media.content_type() == bare)
        })
}

/// In the server's order of preference.
const SERVED: [Media; 3] = [Media::Json { pretty: false }, Media::Yaml, Media::Protobuf];

/// The first clause, in order, with the first type served that it covers and `allow` takes.
fn choose(
    accept: &str,
    allow: impl Fn(&Clause<'_>, Media) -> Option<Transform>,
) -> Result<Option<(Media, Transform)>, NotAcceptable> {
    if accept.is_empty() {
        return Ok(Some((SERVED[0], Transform::None)));
    }
    let clauses = clauses(accept);
    if clauses.len() > CLAUSES_MAX || !clauses.iter().all(Clause::is_clear) {
        return Err(NotAcceptable::Unclear);
    }
    for clause in &clauses {
        for media in SERVED {
            if !clause.covers(media) || !clause.streamable(media) || !clause.known_version() {
                continue;
            }
            if let Some(transform) = allow(clause, media) {
                let media = match media {
                    Media::Json { .. } => Media::Json {
                        pretty: clause.pretty,
                    },
                    Media::Yaml | Media::Protobuf => media,
                };
                return Ok(Some((media, transform)));
            }
        }
    }
    Ok(None)
}

/// `pretty` if it has a value, else what the User-Agent suggests.
fn prefers_pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.pretty() {
        Some(value) if !value.is_empty() => parse_bool(value).unwrap_or(false),
        Some(_) | None => {
            let agent = first(headers, header::USER_AGENT).unwrap_or_default();
            ["curl", "Wget", "Mozilla/5.0"]
                .iter()
                .any(|prefix| agent.starts_with(prefix))
        }
    }
}

/// The first line of a header, empty if there is none; `None` if it is not ASCII.
fn first(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers
        .get(name)
        .map_or(Some(""), |value| value.to_str().ok())
}

#[cfg(test)]
mod tests;
