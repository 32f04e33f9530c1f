//! What a request means before anyone looks at its content: `RequestInfo`, Go's query rules, the
//! options of reads.
//!
//! Owns the parsing order of kube-apiserver 1.36 (`requestinfo.go`, `conversion.go`,
//! `validation.go`) with its exact error texts. Refuses to serve: whether a parsed path has a route
//! is decided in `server`. Pure functions, no I/O. Invariant: authorization, routing and serving
//! all use the one result of this module, so that what was authorised is what is served.

use http::Method;
use percent_encoding::percent_decode_str;

use super::selectors::{FieldSelector, LabelSelector};
use super::status::{Cause, Status};

mod query;

pub use query::Query;

/// What the path and the method say (Go's `RequestInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether this is about an API resource; else only `path` and `verb` mean anything.
    pub is_resource: bool,
    /// The decoded path as sent.
    pub path: String,
    /// API verb (`get`, `list`, `watch`, `create`, …), or the lower-case method of a non-resource
    /// request.
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty for cluster scope.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, empty for none.
    pub subresource: String,
    /// Object name; for reads of collections the name a field selector requires.
    pub name: String,
    /// The segments from the resource on.
    pub parts: Vec<String>,
    /// The verb came from the legacy `/watch/` or `/proxy/` prefix.
    pub via_path: bool,
    /// Raw field selector for authorization.
    pub field_selector: String,
    /// Raw label selector for authorization.
    pub label_selector: String,
}

/// A path that names no resource although it should; the text goes into a 500.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to create RequestInfo: unable to determine kind and namespace from url, {0}")]
pub struct RequestInfoError(String);

impl RequestInfo {
    /// Reads method, raw path and query as `RequestInfoFactory.NewRequestInfo` does.
    pub fn parse(method: &Method, raw_path: &str, query: &Query) -> Result<Self, RequestInfoError> {
        let path = percent_decode_str(raw_path)
            .decode_utf8_lossy()
            .into_owned();
        let mut info = Self {
            verb: method.as_str().to_lowercase(),
            path: path.clone(),
            ..Self::default()
        };
        let trimmed = path.trim_matches('/');
        let mut parts: Vec<&str> = if trimmed.is_empty() {
            Vec::new()
        } else {
            trimmed.split('/').collect()
        };
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return Ok(info);
        }
        info.prefix = parts.remove(0).to_owned();
        if info.prefix == "apis" {
            if parts.len() < 3 {
                info.prefix.clear();
                return Ok(info);
            }
            info.group = parts.remove(0).to_owned();
        }
        info.is_resource = true;
        info.version = parts.remove(0).to_owned();
        if matches!(parts[0], "watch" | "proxy") {
            if parts.len() < 2 {
                return Err(RequestInfoError(path));
            }
            info.verb = parts.remove(0).to_owned();
            info.via_path = true;
        } else {
            info.verb = verb_of(method).to_owned();
        }
        info.take_parts(&parts);
        info.read_query(query);
        Ok(info)
    }

    fn take_parts(&mut self, parts: &[&str]) {
        let mut parts = parts;
        if parts[0] == "namespaces" && parts.len() > 1 {
            parts[1].clone_into(&mut self.namespace);
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts = &parts[2..];
            }
        }
        self.parts = parts.iter().map(|&part| part.to_owned()).collect();
        let part = |index: usize| parts.get(index).copied().unwrap_or("").to_owned();
        self.resource = part(0);
        self.name = part(1);
        if self.verb != "proxy" {
            self.subresource = part(2);
        }
    }

    fn read_query(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            match ListOptions::decode(query).and_then(|o| o.selectors().map(|s| (o, s))) {
                Ok((options, (_, fields))) => {
                    self.verb = if options.watch { "watch" } else { "list" }.to_owned();
                    if let Some(name) = fields.required("metadata.name")
                        && is_path_segment(name)
                    {
                        name.clone_into(&mut self.name);
                    }
                }
                Err(_) => {
                    // Compared in lower case here, without folding.
                    let watch = query
                        .first("watch")
                        .is_some_and(|value| value != "0" && value.to_lowercase() != "false");
                    self.verb = if watch { "watch" } else { "list" }.to_owned();
                }
            }
        }
        if self.name.is_empty() && self.verb == "delete" {
            "deletecollection".clone_into(&mut self.verb);
        }
        if !self.via_path && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = query.first("fieldSelector").unwrap_or("").to_owned();
            self.label_selector = query.first("labelSelector").unwrap_or("").to_owned();
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

/// Options of LIST, WATCH and DELETECOLLECTION (metav1 `ListOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Unparsed label selector.
    pub label_selector: String,
    /// Unparsed field selector.
    pub field_selector: String,
    /// `watch=` in the query.
    pub watch: bool,
    /// `allowWatchBookmarks`.
    pub allow_watch_bookmarks: bool,
    /// `resourceVersion`, unparsed.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `timeoutSeconds`.
    pub timeout_seconds: Option<i64>,
    /// `limit`; 0 and below mean none.
    pub limit: i64,
    /// `continue`.
    pub continue_token: String,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Decodes the query; the first bad scalar in Go's order is a 400. Selectors are parsed by
    /// `selectors`.
    pub fn decode(query: &Query) -> Result<Self, Status> {
        let text = |name: &str| query.first(name).unwrap_or("").to_owned();
        let number = |name: &str| query.first(name).map(go_int64).transpose();
        let watch = query.first("watch").is_some_and(go_bool);
        let allow_watch_bookmarks = query.first("allowWatchBookmarks").is_some_and(go_bool);
        Ok(Self {
            label_selector: text("labelSelector"),
            field_selector: text("fieldSelector"),
            watch,
            allow_watch_bookmarks,
            resource_version: text("resourceVersion"),
            resource_version_match: text("resourceVersionMatch"),
            timeout_seconds: number("timeoutSeconds")?,
            limit: number("limit")?.unwrap_or(0),
            continue_token: text("continue"),
            send_initial_events: query.first("sendInitialEvents").map(go_bool),
        })
    }

    /// Parses both selectors, labels first.
    pub fn selectors(&self) -> Result<(LabelSelector, FieldSelector), Status> {
        let labels =
            LabelSelector::parse(&self.label_selector).map_err(|e| Status::bad_request(e.0))?;
        let fields =
            FieldSelector::parse(&self.field_selector).map_err(|e| Status::bad_request(e.0))?;
        Ok((labels, fields))
    }

    /// Turns a watch without a resource version into one with initial events, where WatchList is
    /// on.
    pub fn default_watch(&mut self, watch_list: bool) {
        let unversioned = matches!(self.resource_version.as_str(), "" | "0");
        let open = self.send_initial_events.is_none() && self.resource_version_match.is_empty();
        if watch_list && self.watch && open && unversioned {
            self.send_initial_events = Some(true);
            "NotOlderThan".clone_into(&mut self.resource_version_match);
        }
    }

    /// 422 with every cause at once. The legacy watch path is validated as a list, as `watch` is
    /// false there.
    pub fn validate(&self, watch_list: bool) -> Result<(), Status> {
        let causes = if self.watch {
            self.watch_causes(watch_list)
        } else {
            self.list_causes()
        };
        if causes.is_empty() {
            return Ok(());
        }
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes))
    }

    fn list_causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        let version_match = self.resource_version_match.as_str();
        if !version_match.is_empty() {
            if self.resource_version.is_empty() {
                causes.push(forbidden(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    VERSION_MATCH,
                ));
            }
            if !self.continue_token.is_empty() {
                causes.push(forbidden(CONTINUE_FORBIDDEN, VERSION_MATCH));
            }
            if !matches!(version_match, "Exact" | "NotOlderThan") {
                let text = format!(
                    "Unsupported value: {}: supported values: \"Exact\", \"NotOlderThan\", \"\"",
                    go_quote(version_match)
                );
                causes.push(Cause::field("FieldValueNotSupported", text, VERSION_MATCH));
            }
            if version_match == "Exact" && self.resource_version == "0" {
                causes.push(forbidden(
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    VERSION_MATCH,
                ));
            }
        }
        if self.send_initial_events.is_some() {
            let text = "sendInitialEvents is forbidden for list";
            causes.push(forbidden(text, "sendInitialEvents"));
        }
        causes
    }

    fn watch_causes(&self, watch_list: bool) -> Vec<Cause> {
        let mut causes = Vec::new();
        let version_match = self.resource_version_match.as_str();
        if self.send_initial_events.is_some() {
            if version_match != "NotOlderThan" {
                causes.push(forbidden(
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                    VERSION_MATCH,
                ));
            }
            if !watch_list {
                causes.push(forbidden(
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                    "sendInitialEvents",
                ));
            }
        }
        if !version_match.is_empty() {
            if self.send_initial_events.is_none() {
                causes.push(forbidden(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    VERSION_MATCH,
                ));
            }
            if version_match != "NotOlderThan" {
                let text = format!(
                    "Unsupported value: {}: supported values: \"NotOlderThan\"",
                    go_quote(version_match)
                );
                causes.push(Cause::field("FieldValueNotSupported", text, VERSION_MATCH));
            }
            if !self.continue_token.is_empty() {
                causes.push(forbidden(CONTINUE_FORBIDDEN, VERSION_MATCH));
            }
        }
        causes
    }
}

const VERSION_MATCH: &str = "resourceVersionMatch";
const CONTINUE_FORBIDDEN: &str = "resourceVersionMatch is forbidden when continue is provided";

fn forbidden(text: &str, field: &str) -> Cause {
    Cause::field("FieldValueForbidden", format!("Forbidden: {text}"), field)
}

/// Go's conversion of a query value to bool: only `0` and `false` are false, in any case and with
/// a long s, as `strings.EqualFold` compares.
pub fn go_bool(value: &str) -> bool {
    let folded = |c: char| {
        if c == 'ſ' {
            's'
        } else {
            c.to_ascii_lowercase()
        }
    };
    value != "0" && !value.chars().map(folded).eq("false".chars())
}

/// Go's `strconv.ParseBool`; anything else is `None`.
pub fn go_parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn go_int64(text: &str) -> Result<i64, Status> {
    let error = |what: &str| {
        Status::bad_request(format!(
            "strconv.ParseInt: parsing {}: {what}",
            go_quote(text)
        ))
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let magnitude = go_digits(digits).map_err(error)?;
    let number = if text.starts_with('-') {
        -i128::from(magnitude)
    } else {
        i128::from(magnitude)
    };
    i64::try_from(number).map_err(|_| error("value out of range"))
}

/// Decimal digits; whichever trouble comes first from the left is the error.
fn go_digits(text: &str) -> Result<u64, &'static str> {
    if text.is_empty() {
        return Err("invalid syntax");
    }
    let mut number = 0_u64;
    for c in text.chars() {
        let digit = c.to_digit(10).ok_or("invalid syntax")?;
        number = number
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit)))
            .ok_or("value out of range")?;
    }
    Ok(number)
}

/// Go's `strconv.ParseUint(s, 10, 64)` with its error text.
pub fn go_uint64(text: &str) -> Result<u64, String> {
    go_digits(text).map_err(|what| format!("strconv.ParseUint: parsing {}: {what}", go_quote(text)))
}

/// Reads a resource version: empty is 0; the error is the text of a GET or WATCH.
pub fn parse_resource_version(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    go_uint64(text).map_err(|e| format!("resourceVersion: Invalid value: {}: {e}", go_quote(text)))
}

/// Go's `%q` of a string.
pub fn go_quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                write!(out, "\\x{:02x}", c as u32).expect("writing to a String never fails");
            }
            c if c.is_ascii() || is_printable(c) => out.push(c),
            c if (c as u32) < 0x1_0000 => {
                write!(out, "\\u{:04x}", c as u32).expect("writing to a String never fails");
            }
            c => write!(out, "\\U{:08x}", c as u32).expect("writing to a String never fails"),
        }
    }
    out.push('"');
    out
}

/// What Rust too leaves as it is, behind another character: alone it escapes combining marks.
fn is_printable(c: char) -> bool {
    format!("x{c}").escape_debug().nth(1) == Some(c)
}

#[cfg(test)]
mod tests;
