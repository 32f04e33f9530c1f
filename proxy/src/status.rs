//! `Status`: every error the proxy answers itself, in the apiserver's own words.
//!
//! Owns the model (`metav1.Status`), one constructor per entry of the apiserver's error catalogue,
//! and the four renderings: compact JSON, indented JSON, protobuf and YAML. A few errors of the
//! apiserver are no Status object but plain text, or a Status without kind that is never
//! negotiated; those are constructors too, so that a handler has one error type to return.
//!
//! Refuses to decide anything: which error it is comes from the caller, which media type from
//! `negotiate`. It never sees request bodies, tokens or certificates.
//!
//! Invariant: for equal inputs the bytes equal those of kube-apiserver 1.36, including Go's JSON
//! escaping, `%q` quoting and the order of checks that wrote the text.

mod catalogue;
mod gotext;
mod protobuf;
mod yaml;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

pub(crate) use self::catalogue::Refused;
use crate::negotiate::Media;

/// Seconds after which who found no room should come back, both included: spread, so that those who
/// came together do not come together again.
pub(crate) const RETRY_AFTER: std::ops::RangeInclusive<u32> = 1..=8;

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    code: u16,
    reason: Cow<'static, str>,
    message: String,
    /// Boxed, as most have none and results carry a Status.
    details: Option<Box<Details>>,
    /// `metadata.continue`: the replacement token of an expired one.
    continue_token: Option<Box<str>>,
    form: Form,
    /// `X-Content-Type-Options: nosniff`.
    nosniff: bool,
    /// The `Retry-After` header in seconds where the body does not carry it.
    retry_after: Option<u32>,
    /// `Connection: close`.
    close: bool,
}

/// `metav1.StatusDetails`; `uid` is never set by the errors here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<Cause>,
    /// Seconds; 0 is "not set".
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retry_after_seconds: u32,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) reason: Cow<'static, str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) field: Cow<'static, str>,
}

/// What kind of body the error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A Status object in the negotiated media type.
    Negotiated,
    /// `message` as `text/plain`, whatever the client accepts.
    Text,
    /// JSON without kind and apiVersion, sent as sniffed `text/plain`: the request timeout.
    Untyped,
}

/// How the client wants its errors: the result of negotiating a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorFormat(pub(crate) Media);

impl Status {
    /// A Status with nothing but code, reason and message.
    pub(crate) fn new(
        code: u16,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            continue_token: None,
            form: Form::Negotiated,
            nosniff: false,
            retry_after: None,
            close: false,
        }
    }

    /// The HTTP status code.
    #[cfg(any(test, feature = "door"))]
    pub(crate) const fn code(&self) -> u16 {
        self.code
    }

    /// The message for humans.
    #[cfg(any(test, feature = "door"))]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The object as compact JSON without a newline, as the `object` of an ERROR watch event.
    pub(crate) fn json(&self) -> Vec<u8> {
        let plain = serde_json::to_vec(&self.document()).expect("a Status has only string keys");
        gotext::escape_html(plain)
    }

    /// The object as indented JSON without a final newline.
    pub(crate) fn json_indented(&self) -> Vec<u8> {
        let plain =
            serde_json::to_vec_pretty(&self.document()).expect("a Status has only string keys");
        gotext::escape_html(plain)
    }

    /// The object in the protobuf envelope (`k8s\0`), as the `object` of an ERROR watch event.
    pub(crate) fn protobuf(&self) -> Vec<u8> {
        protobuf::encode(self)
    }

    /// The object as YAML with sorted keys and a final newline.
    pub(crate) fn yaml(&self) -> Vec<u8> {
        let value = serde_json::to_value(self.document()).expect("a Status has only string keys");
        yaml::document(&value).into_bytes()
    }

    /// The whole response: code, headers and body. `Audit-Id` is the handler's.
    pub(crate) fn into_response(self, format: &ErrorFormat) -> Response<Bytes> {
        let (content_type, body) = self.body(format.0);
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, private"),
        );
        if self.nosniff {
            headers.insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
        }
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// What the client is told to wait, in seconds, if anything.
    pub(crate) fn retry_after_seconds(&self) -> Option<u32> {
        let carried = self
            .details
            .as_ref()
            .map_or(0, |details| details.retry_after_seconds);
        self.retry_after
            .or_else(|| (carried > 0).then_some(carried))
    }

    fn body(&self, media: Media) -> (&'static str, Vec<u8>) {
        match self.form {
            Form::Text => (TEXT, self.message.clone().into_bytes()),
            Form::Untyped => (TEXT, with_newline(self.json())),
            Form::Negotiated => {
                let body = match media {
                    Media::Json { pretty: false } => with_newline(self.json()),
                    Media::Json { pretty: true } => self.json_indented(),
                    Media::Protobuf => self.protobuf(),
                    Media::Yaml => self.yaml(),
                };
                (media.content_type(), body)
            }
        }
    }

    fn document(&self) -> Document<'_> {
        let typed = self.form != Form::Untyped;
        Document {
            kind: typed.then_some("Status"),
            api_version: typed.then_some("v1"),
            metadata: ListMeta {
                continue_token: self.continue_token.as_deref(),
            },
            status: "Failure",
            message: &self.message,
            reason: &self.reason,
            details: self.details.as_deref(),
            code: self.code,
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The wire form of a Status; the fields stand in the order Go's struct has them.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(rename = "apiVersion", skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    metadata: ListMeta<'a>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    code: u16,
}

#[derive(Serialize)]
struct ListMeta<'a> {
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    continue_token: Option<&'a str>,
}

fn with_newline(mut body: Vec<u8>) -> Vec<u8> {
    body.push(b'\n');
    body
}

// serde hands skip_serializing_if a reference.
fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

#[cfg(test)]
mod tests;
