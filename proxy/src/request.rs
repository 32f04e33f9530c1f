//! What a client asks for, read exactly as the apiserver reads it.
//!
//! Owns the path ([`RequestInfo`]), the query string ([`Query`]) and the options of reads
//! ([`ListOptions`], [`GetOptions`], [`timeout`]), each parsed once; authorization, serving and
//! pass-through all use that one result. It does no I/O and knows no resource.
//!
//! Refuses to guess. Whatever has a form that is legal but unusual, or that only the apiserver can
//! judge, carries a [`Doubt`]: it can still be authorized and forwarded, but not answered here.
//!
//! Invariant: for a request without doubt, verb, namespace, name, selectors and options are those
//! kube-apiserver 1.36 would see (`endpoints/request/requestinfo.go`, Go `net/url`,
//! `apis/meta/internalversion`).

mod info;
mod options;
mod query;
mod scalar;

use http::{HeaderMap, HeaderName, header};

pub(crate) use self::info::{RequestInfo, RequestInfoError, Verb};
pub(crate) use self::options::{GetOptions, ListOptions, MATCH_NOT_OLDER_THAN};
pub(crate) use self::query::{Query, percent_decode};
#[cfg(feature = "door")]
pub(crate) use self::scalar::{flag, parse_duration, parse_int};
pub(crate) use self::scalar::{parse_bool, timeout};

/// Why a request may not be answered by the proxy itself. A metric label: few values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doubt {
    /// Not a path of an API resource.
    NonResource,
    /// A method other than GET.
    Method,
    /// The `/proxy/` prefix.
    Proxy,
    /// A subresource.
    Subresource,
    /// A path with empty or dot segments, escapes or unusual characters.
    Path,
    /// A query string with pairs that Go drops, bytes that are not UTF-8, or too many pairs.
    Query,
    /// A parameter this version of the proxy does not know, or whose meaning depends on a gate.
    Parameter,
    /// An `Impersonate-*` header.
    Impersonation,
    /// A request for another protocol, such as a watch over a WebSocket.
    Upgrade,
}

impl Doubt {
    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NonResource => "non-resource",
            Self::Method => "method",
            Self::Proxy => "proxy",
            Self::Subresource => "subresource",
            Self::Path => "path",
            Self::Query => "query",
            Self::Parameter => "parameter",
            Self::Impersonation => "impersonation",
            Self::Upgrade => "upgrade",
        }
    }

    /// What in the headers only the apiserver can judge.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let impersonates = |name: &HeaderName| name.as_str().starts_with("impersonate-");
        if headers.keys().any(impersonates) {
            return Some(Self::Impersonation);
        }
        headers
            .contains_key(header::UPGRADE)
            .then_some(Self::Upgrade)
    }
}

#[cfg(test)]
mod tests;
