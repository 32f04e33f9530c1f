//! A door into the parsers, for the package that compares them with Go's answers and fuzzes them.
//!
//! Owns nothing: each function calls one parser and hands its result out as plain values. It exists
//! only with the feature `door`, so that the parsers stay private to the crate. No stability
//! whatsoever is promised.

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use watershed_cache::{ResourceVersion, encoding::MetaVersion};

use crate::negotiate::{Action, Endpoint, Negotiated, NotAcceptable, Transform};
use crate::negotiate::{Media, negotiate};
use crate::request::{self, ListOptions, Query, RequestInfo};
use crate::serve::Token;
use crate::status::{ErrorFormat, Status};

/// The query string as parsed.
#[derive(Debug)]
pub struct QueryDoor(Query);

impl QueryDoor {
    /// Parses it.
    pub fn parse(text: &str) -> Self {
        Self(Query::parse(text))
    }

    /// The first value of a parameter.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.first(name)
    }

    /// Why it is left to the apiserver: the label of the doubt.
    pub fn doubt(&self) -> Option<&'static str> {
        self.0.doubt().map(request::Doubt::as_str)
    }

    /// The options of a LIST or WATCH, or the message of the 400.
    pub fn options(&self) -> Result<Options, String> {
        options(ListOptions::decode(&self.0))
    }
}

/// `ListOptions`, selectors as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the parameters of the same names")]
pub struct Options {
    pub label_selector: String,
    pub field_selector: String,
    pub watch: bool,
    pub allow_watch_bookmarks: bool,
    pub resource_version: String,
    pub resource_version_match: String,
    pub timeout_seconds: Option<i64>,
    pub limit: i64,
    pub continue_token: String,
    pub send_initial_events: Option<bool>,
}

fn options(decoded: Result<ListOptions, Status>) -> Result<Options, String> {
    let options = decoded.map_err(|status| status.message().to_owned())?;
    Ok(Options {
        label_selector: options.label_selector.to_string(),
        field_selector: options.field_selector.to_string(),
        watch: options.watch,
        allow_watch_bookmarks: options.allow_watch_bookmarks,
        resource_version: options.resource_version,
        resource_version_match: options.resource_version_match,
        timeout_seconds: options.timeout_seconds,
        limit: options.limit,
        continue_token: options.continue_token,
        send_initial_events: options.send_initial_events,
    })
}

/// `RequestInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of the same names")]
pub struct Info {
    pub is_resource: bool,
    pub path: String,
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
    pub options: Option<Result<Options, String>>,
    pub doubt: Option<&'static str>,
}

/// What a request target means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Never reaches the parser: no URI to the HTTP library.
    NoUri,
    /// Answered at once, with this code and text.
    Refused(u16, String),
    /// A request.
    Info(Box<Info>),
}

/// Reads the target of a request.
pub fn target(method: &str, target: &str) -> Target {
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else {
        return Target::NoUri;
    };
    let query = Query::parse(uri.query().unwrap_or_default());
    let info = match RequestInfo::parse(&method, &uri, &query) {
        Ok(info) => info,
        Err(error) => {
            let status = error.status();
            return Target::Refused(status.code(), status.message().to_owned());
        }
    };
    Target::Info(Box::new(Info {
        is_resource: info.is_resource,
        doubt: info.doubt().map(request::Doubt::as_str),
        path: info.path,
        verb: info.verb.as_str().to_owned(),
        group: info.group,
        version: info.version,
        namespace: info.namespace,
        resource: info.resource,
        subresource: info.subresource,
        name: info.name,
        field_selector: info.field_selector.unwrap_or_default(),
        label_selector: info.label_selector.unwrap_or_default(),
        options: info.options.map(options),
    }))
}

/// Negotiates a LIST: the subtype, then the transform and its version, then `pretty`. `None` where
/// the apiserver is asked.
///
/// # Errors
/// Who refused: `router` or `handler`.
pub fn negotiated(accept: &str, custom: bool) -> Option<Result<String, &'static str>> {
    let headers = headers(header::ACCEPT, accept)?;
    let endpoint = Endpoint {
        action: Action::List,
        custom,
    };
    match negotiate(&headers, &Query::default(), endpoint) {
        Ok(form) => Some(Ok(form_text(form))),
        Err(NotAcceptable::Router { .. }) => Some(Err("router")),
        Err(NotAcceptable::Handler) => Some(Err("handler")),
        Err(NotAcceptable::Stream) => Some(Err("stream")),
        Err(NotAcceptable::Unclear) => None,
    }
}

/// Negotiates an error.
pub fn negotiated_error(accept: &str) -> Option<String> {
    let headers = headers(header::ACCEPT, accept)?;
    let ErrorFormat(media) = ErrorFormat::negotiate(&headers, &Query::default());
    Some(form_text(Negotiated {
        media,
        transform: Transform::None,
    }))
}

/// Whether JSON is indented for this query and User-Agent.
pub fn pretty(query: &str, agent: &str) -> Option<bool> {
    let headers = headers(header::USER_AGENT, agent)?;
    let ErrorFormat(media) = ErrorFormat::negotiate(&headers, &Query::parse(query));
    Some(media == Media::Json { pretty: true })
}

fn headers(name: header::HeaderName, value: &str) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    Some([(name, value)].into_iter().collect())
}

fn form_text(form: Negotiated) -> String {
    let (subtype, pretty) = match form.media {
        Media::Json { pretty } => ("json", pretty),
        Media::Yaml => ("yaml", false),
        Media::Protobuf => ("protobuf", false),
    };
    let version = |version| match version {
        MetaVersion::V1 => "v1",
        MetaVersion::V1Beta1 => "v1beta1",
    };
    let transform = match form.transform {
        Transform::None => String::new(),
        Transform::Table(of) => format!(" Table.{}", version(of)),
        Transform::PartialObjectMetadata(of) => format!(" PartialObjectMetadata.{}", version(of)),
        Transform::PartialObjectMetadataList(of) => {
            format!(" PartialObjectMetadataList.{}", version(of))
        }
    };
    format!(
        "{subtype}{transform}{}",
        if pretty { " pretty" } else { "" }
    )
}

/// A boolean option.
pub fn flag(text: &str) -> bool {
    request::flag(text)
}

/// Go's `ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    request::parse_bool(text)
}

/// Go's `ParseInt`.
pub fn parse_int(text: &str) -> Result<i64, String> {
    request::parse_int(text)
}

/// Go's `ParseDuration`, in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    request::parse_duration(text)
}

/// What a continue token says: resource version, `None` for the current one, and the key.
pub fn token(text: &str) -> Option<(Option<u64>, String)> {
    let token = Token::decode(text)?;
    Some((
        token.resource_version.map(ResourceVersion::get),
        token.start,
    ))
}

/// The token of the page after the object of this key.
pub fn mint(resource_version: u64, last: &str) -> String {
    Token::encode(ResourceVersion::new(resource_version), last)
}

/// The message of an error as JSON.
pub fn json_text(text: &str) -> Vec<u8> {
    Status::bad_request(text).json()
}
