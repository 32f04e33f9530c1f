//! The path of a request: which resource, which object, which verb.

use http::{Method, Uri};

use super::query::percent_decode;
use super::{Doubt, ListOptions, Query};
use crate::status::Status;

/// What is asked of a resource, or the method of a request for something else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    /// One object.
    Get,
    /// A collection.
    List,
    /// A stream of changes.
    Watch,
    /// `create`.
    Create,
    /// `update`.
    Update,
    /// `patch`.
    Patch,
    /// One object.
    Delete,
    /// A collection.
    DeleteCollection,
    /// The `/proxy/` prefix.
    Proxy,
    /// A method without a verb, such as OPTIONS: the empty string.
    None,
    /// The lower-case method of a request that is for no resource.
    Method(Box<str>),
}

impl Verb {
    /// As authorization sees it.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Proxy => "proxy",
            Self::None => "",
            Self::Method(method) => method,
        }
    }

    fn of_resource(method: &Method) -> Self {
        match method.as_str() {
            "GET" | "HEAD" => Self::Get,
            "POST" => Self::Create,
            "PUT" => Self::Update,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => Self::None,
        }
    }
}

/// A request, taken apart. Empty strings stand for what it does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// Whether it is for an API resource; otherwise only `path` and `verb` say anything.
    pub(crate) is_resource: bool,
    /// The decoded path.
    pub(crate) path: String,
    /// The verb.
    pub(crate) verb: Verb,
    /// API group, empty for the core group.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Resource in the plural.
    pub(crate) resource: String,
    /// Subresource.
    pub(crate) subresource: String,
    /// Object: from the path, or of a LIST or WATCH whose field selector requires a name.
    pub(crate) name: String,
    /// Whether the verb came from the path: the deprecated `/watch/` prefix.
    pub(crate) via_path: bool,
    /// The raw selector, where authorization may look at it.
    pub(crate) field_selector: Option<String>,
    /// The raw selector, where authorization may look at it.
    pub(crate) label_selector: Option<String>,
    /// The options of a LIST or WATCH by GET or HEAD, or the 400 that authorization comes before.
    pub(crate) options: Option<Result<ListOptions, Status>>,
    doubt: Option<Doubt>,
}

/// A path that names no request at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestInfoError {
    /// A prefix verb with nothing after it.
    #[error("failed to create RequestInfo: unable to determine kind and namespace from url, {uri}")]
    NoKind {
        /// The target as sent.
        uri: String,
    },
    /// A percent sign without two hex digits, no path, or two hosts; Go's HTTP server refuses each.
    #[error("the target is no path, has a bad percent escape, or two hosts")]
    Malformed,
}

impl RequestInfoError {
    /// The apiserver's answer.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NoKind { uri } => Status::internal_server_error(uri, &self.to_string()),
            Self::Malformed => Status::malformed_request_uri(),
        }
    }
}

impl RequestInfo {
    /// Takes a request apart. `query` is the URI's, parsed.
    ///
    /// # Errors
    /// See [`RequestInfoError`].
    pub(crate) fn parse(
        method: &Method,
        uri: &Uri,
        query: &Query,
    ) -> Result<Self, RequestInfoError> {
        let raw = uri.path();
        let decoded = percent_decode(raw.as_bytes())
            .filter(|path| !path.is_empty() || *method == Method::CONNECT)
            .ok_or(RequestInfoError::Malformed)?;
        let path = String::from_utf8_lossy(&decoded).into_owned();
        let mut info = Self::non_resource(method, path.clone());
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return Ok(info),
        };
        info.is_resource = true;
        let rest = info
            .take_verb(method, rest)
            .ok_or_else(|| RequestInfoError::NoKind {
                uri: uri
                    .path_and_query()
                    .map_or(raw, |target| target.as_str())
                    .to_owned(),
            })?;
        info.take_object(rest);
        info.take_query(query);
        info.doubt = info.path_doubt(method, raw).or_else(|| query.doubt());
        Ok(info)
    }

    /// Why the request must be left to the apiserver, if it must. Without a doubt it is a GET, LIST
    /// or WATCH in a form the proxy fully understands; whether the resource exists, is namespaced
    /// or is cached is not decided here.
    pub(crate) const fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Whether the apiserver puts no overall timeout on it.
    pub(crate) fn is_long_running(&self) -> bool {
        if !self.is_resource {
            return self.path.starts_with("/debug/pprof/");
        }
        matches!(self.verb, Verb::Watch | Verb::Proxy)
            || matches!(
                self.subresource.as_str(),
                "attach" | "exec" | "proxy" | "log" | "portforward"
            )
    }

    fn non_resource(method: &Method, path: String) -> Self {
        Self {
            is_resource: false,
            path,
            verb: Verb::Method(method.as_str().to_ascii_lowercase().into()),
            group: String::new(),
            version: String::new(),
            namespace: String::new(),
            resource: String::new(),
            subresource: String::new(),
            name: String::new(),
            via_path: false,
            field_selector: None,
            label_selector: None,
            options: None,
            doubt: Some(Doubt::NonResource),
        }
    }

    /// The verb, from the prefix if there is one; `None` if nothing follows the prefix.
    fn take_verb<'a, 'b>(&mut self, method: &Method, rest: &'a [&'b str]) -> Option<&'a [&'b str]> {
        let [first, tail @ ..] = rest else {
            return None;
        };
        self.verb = match *first {
            "watch" => Verb::Watch,
            "proxy" => Verb::Proxy,
            _ => {
                self.verb = Verb::of_resource(method);
                return Some(rest);
            }
        };
        self.via_path = true;
        (!tail.is_empty()).then_some(tail)
    }

    fn take_object(&mut self, mut rest: &[&str]) {
        if let ["namespaces", namespace, tail @ ..] = rest {
            self.namespace = (*namespace).to_owned();
            if let [next, ..] = tail
                && !matches!(*next, "status" | "finalize")
            {
                rest = tail;
            }
        }
        let part = |index: usize| rest.get(index).map_or("", |part| part).to_owned();
        self.resource = part(0);
        self.name = part(1);
        if self.verb != Verb::Proxy {
            self.subresource = part(2);
        }
    }

    fn take_query(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == Verb::Delete {
            self.verb = Verb::DeleteCollection;
        }
        if self.name.is_empty() && self.verb == Verb::Get {
            let options = ListOptions::decode(query);
            let (watch, name) = match &options {
                Ok(options) => (options.watch, options.required_name().map(str::to_owned)),
                Err(_) => (ListOptions::lenient_watch(query), None),
            };
            self.verb = if watch { Verb::Watch } else { Verb::List };
            self.name = name.unwrap_or_default();
            self.options = Some(options);
        } else if self.via_path && self.verb == Verb::Watch {
            self.options = Some(ListOptions::decode(query));
        }
        let collection = matches!(self.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        if collection && !self.via_path {
            self.field_selector = query.first("fieldSelector").map(str::to_owned);
            self.label_selector = query.first("labelSelector").map(str::to_owned);
        }
    }

    fn path_doubt(&self, method: &Method, raw: &str) -> Option<Doubt> {
        if *method != Method::GET {
            return Some(Doubt::Method);
        }
        if self.verb == Verb::Proxy {
            return Some(Doubt::Proxy);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
        for segment in raw.strip_suffix('/').unwrap_or(raw).split('/').skip(1) {
            if matches!(segment, "" | "." | "..") || !segment.bytes().all(plain) {
                return Some(Doubt::Path);
            }
        }
        (!self.subresource.is_empty()).then_some(Doubt::Subresource)
    }
}
