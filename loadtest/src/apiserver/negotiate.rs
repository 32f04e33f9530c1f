//! Which encoding an answer has: Accept in two steps, pretty printing, compression.
//!
//! Owns the router's crude test of Accept, the handler's real negotiation (goautoneg's order,
//! transforms, restrictions), and the rules of pretty printing and gzip, all as kube-apiserver
//! 1.36. Refuses to encode. Pure functions. Invariant: only the first line of a header counts, as
//! Go's `Header.Get` reads it.

use http::HeaderMap;

use super::request::{Query, go_parse_bool};
use super::status::Status;

/// An encoding of bodies, in the server's order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What the client wants instead of the objects themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transform {
    /// The objects.
    None,
    /// A Table of group meta.k8s.io; `true` is v1, `false` v1beta1.
    Table(bool),
    /// `PartialObjectMetadata` of one object.
    Partial(bool),
    /// `PartialObjectMetadataList` of a list.
    PartialList(bool),
}

/// The outcome of negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Encoding.
    pub media: Media,
    /// Indented JSON.
    pub pretty: bool,
    /// Transform.
    pub transform: Transform,
}

/// What an endpoint can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// No protobuf without a transform.
    pub custom: bool,
    /// Tables and partial metadata are possible.
    pub transforms: bool,
}

const ALL: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];
const ACCEPTED: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
const ACCEPTED_STREAMS: &str = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

impl Media {
    /// The media type of a whole body.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch stream.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Yaml => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    fn subtype(self) -> &'static str {
        &self.content_type()["application/".len()..]
    }
}

impl Format {
    /// Compact JSON of the objects themselves.
    pub const JSON: Self = Self {
        media: Media::Json,
        pretty: false,
        transform: Transform::None,
    };
}

/// The router's test (built-in resources only); `watchable` routes also list the stream types.
pub fn route(headers: &HeaderMap, watchable: bool) -> Result<(), Status> {
    let accept = first(headers, "accept")
        .filter(|text| !text.is_empty())
        .unwrap_or("*/*");
    let streams = [
        "application/json;stream=watch",
        "application/vnd.kubernetes.protobuf;stream=watch",
    ];
    let known =
        |media: &str| media == "*/*" || ALL.iter().any(|known| known.content_type() == media);
    let acceptable = accept
        .split(',')
        .any(|clause| known(clause.split(';').next().unwrap_or("").trim_matches(' ')));
    if acceptable {
        return Ok(());
    }
    let mut available: Vec<&str> = ALL.iter().map(|media| media.content_type()).collect();
    if watchable {
        available.extend(streams);
    }
    let mut status = Status::not_acceptable(format!(
        "406: Not Acceptable\n\nAvailable representations: {}",
        available.join(", ")
    ));
    status.details = Some(Box::default());
    Err(status)
}

/// The handler's negotiation of a whole body.
pub fn negotiate(headers: &HeaderMap, query: &Query, endpoint: Endpoint) -> Result<Format, Status> {
    let accept = first(headers, "accept").unwrap_or("");
    let (media, parameter_pretty, transform) =
        choose(accept, endpoint).ok_or_else(|| Status::not_acceptable(ACCEPTED))?;
    let pretty = media == Media::Json && (parameter_pretty || wants_pretty(headers, query));
    Ok(Format {
        media,
        pretty,
        transform,
    })
}

/// The same for a watch: YAML cannot be streamed.
pub fn negotiate_stream(headers: &HeaderMap, endpoint: Endpoint) -> Result<Format, Status> {
    let accept = first(headers, "accept").unwrap_or("");
    match choose(accept, endpoint) {
        Some((media @ (Media::Json | Media::Protobuf), _, transform)) => Ok(Format {
            media,
            pretty: false,
            transform,
        }),
        Some((Media::Yaml, _, _)) | None => Err(Status::not_acceptable(ACCEPTED_STREAMS)),
    }
}

/// The encoding of an error; `None` means indented JSON, because nothing could be negotiated.
pub fn negotiate_error(headers: &HeaderMap, query: &Query) -> Option<Format> {
    negotiate(
        headers,
        query,
        Endpoint {
            custom: false,
            transforms: false,
        },
    )
    .ok()
}

/// Whether a body of this length is compressed.
pub fn compresses(headers: &HeaderMap, length: usize) -> bool {
    const THRESHOLD: usize = 128 * 1024;
    let accepts = headers
        .get("accept-encoding")
        .and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
        .unwrap_or("");
    length > THRESHOLD && accepts.split(',').any(|token| token.trim() == "gzip")
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.first("pretty").filter(|text| !text.is_empty()) {
        Some(text) => go_parse_bool(text).unwrap_or(false),
        None => {
            let agent = first(headers, "user-agent").unwrap_or("");
            ["curl", "Wget", "Mozilla/5.0"]
                .iter()
                .any(|known| agent.starts_with(known))
        }
    }
}

fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

fn choose(accept: &str, endpoint: Endpoint) -> Option<(Media, bool, Transform)> {
    if accept.is_empty() {
        return Some((Media::Json, false, Transform::None));
    }
    for clause in sorted(clauses(accept)) {
        for media in ALL {
            let matches = match (clause.kind, clause.subtype) {
                ("*" | "application", "*") => true,
                ("application", subtype) => subtype == media.subtype(),
                _ => false,
            };
            if matches && let Some((pretty, transform)) = allowed(&clause, media, endpoint) {
                return Some((media, pretty, transform));
            }
        }
    }
    None
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let blank = |text: &'_ str| -> (usize, usize) {
        let trimmed = text.trim_matches(' ');
        let start = text.find(trimmed).unwrap_or(0);
        (start, start + trimmed.len())
    };
    let trim = |text| {
        let (start, end) = blank(text);
        &text[start..end]
    };
    let clause = |part| {
        let mut pieces = trim(part).split(';');
        let range: Vec<&str> = pieces.next().unwrap_or("").split('/').collect();
        let (kind, subtype) = match range.as_slice() {
            [one] | [one, ""] if trim(one) == "*" => ("*", "*"),
            [_, ""] => return None,
            // One slash too many at the end is not seen.
            [kind, subtype] | [kind, subtype, ""] => (trim(kind), trim(subtype)),
            _ => return None,
        };
        let (mut quality, mut parameters) = (1.0, Vec::new());
        for (name, rest) in pieces.filter_map(|piece| piece.split_once('=')) {
            // Nothing behind the sign, or a second sign with something behind it: skipped.
            let (value, more) = rest.split_once('=').unwrap_or((rest, ""));
            if rest.is_empty() || !more.is_empty() {
                continue;
            }
            match trim(name) {
                // Go's NaN has no sign.
                "q" if value.contains(['n', 'N']) && value.starts_with(['+', '-']) => {
                    quality = value
                        .parse()
                        .ok()
                        .filter(|q: &f32| !q.is_nan())
                        .unwrap_or(0.0);
                }
                "q" => quality = value.parse().unwrap_or(0.0),
                name => parameters.push((name, trim(value))),
            }
        }
        Some(Clause {
            kind,
            subtype,
            quality,
            parameters,
        })
    };
    accept.split(',').filter_map(clause).collect()
}

/// Go's insertion sort with goautoneg's comparison, which is no order: the result depends on the
/// algorithm.
fn sorted(mut clauses: Vec<Clause<'_>>) -> Vec<Clause<'_>> {
    let less = |a: &Clause<'_>, b: &Clause<'_>| {
        a.quality > b.quality
            || (a.kind != "*" && b.kind == "*")
            || (a.subtype != "*" && b.subtype == "*")
    };
    for end in 1..clauses.len() {
        let mut at = end;
        while at > 0 && less(&clauses[at], &clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}

fn allowed(clause: &Clause<'_>, media: Media, endpoint: Endpoint) -> Option<(bool, Transform)> {
    let parameter = |name: &str| {
        clause
            .parameters
            .iter()
            .rev()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    };
    if let Some(stream) = parameter("stream")
        && !stream.is_empty()
        && (stream != "watch" || media == Media::Yaml)
    {
        return None;
    }
    if parameter("sv")
        .is_some_and(|version| !version.is_empty() && (version != "v1" || !endpoint.transforms))
    {
        return None;
    }
    let any = ["as", "g", "v"]
        .iter()
        .any(|name| parameter(name).is_some());
    let transform = match parameter("as").unwrap_or("") {
        _ if !any => Transform::None,
        _ if !endpoint.transforms => return None,
        kind => {
            if parameter("g") != Some("meta.k8s.io") {
                return None;
            }
            let v1 = match parameter("v") {
                Some("v1") => true,
                Some("v1beta1") => false,
                Some(_) | None => return None,
            };
            match kind {
                "Table" if media != Media::Protobuf => Transform::Table(v1),
                "PartialObjectMetadata" => Transform::Partial(v1),
                "PartialObjectMetadataList" => Transform::PartialList(v1),
                _ => return None,
            }
        }
    };
    if endpoint.custom && media == Media::Protobuf && transform == Transform::None {
        return None;
    }
    Some((parameter("pretty") == Some("1"), transform))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn format(accept: &str, custom: bool) -> Option<(Media, Transform)> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_str(accept).unwrap());
        let endpoint = Endpoint {
            custom,
            transforms: true,
        };
        let format = negotiate(&headers, &Query::default(), endpoint).ok()?;
        Some((format.media, format.transform))
    }

    #[test]
    fn accept_is_read_as_goautoneg_reads_it() {
        let (json, yaml, protobuf) = (Media::Json, Media::Yaml, Media::Protobuf);
        let cases = [
            (
                "application/vnd.kubernetes.protobuf,application/json",
                protobuf,
            ),
            ("application/json;q=0", json),
            ("*/*;q=0.1, application/yaml;q=0.9", yaml),
            ("*", json),
            ("application/json;stream=watch", json),
            ("text/html, application/yaml", yaml),
        ];
        for (accept, media) in cases {
            assert_eq!(
                format(accept, false),
                Some((media, Transform::None)),
                "{accept}"
            );
        }
        assert_eq!(format("text/html", false), None);
        assert_eq!(
            format("application/json;as=Nope;g=meta.k8s.io;v=v1", false),
            None
        );
    }

    #[test]
    fn custom_resources_have_protobuf_only_for_metadata() {
        assert_eq!(format("application/vnd.kubernetes.protobuf", true), None);
        let accept =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let expected = Some((Media::Protobuf, Transform::Partial(true)));
        assert_eq!(format(accept, true), expected);
    }

    #[test]
    fn only_an_exact_token_asks_for_compression() {
        let mut headers = HeaderMap::new();
        for (value, expected) in [("gzip", true), ("br, gzip", true), ("gzip;q=1.0", false)] {
            headers.insert("accept-encoding", HeaderValue::from_static(value));
            assert_eq!(compresses(&headers, 131_073), expected);
            assert!(!compresses(&headers, 131_072));
        }
    }
}
