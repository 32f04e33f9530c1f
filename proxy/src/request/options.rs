//! The options of GET, LIST and WATCH: decoding, defaulting and validation.

use std::borrow::Cow;

use watershed_cache::selector::{FieldSelector, LabelSelector, SelectorError};
use watershed_quote::quote;

use super::Query;
use super::scalar::{flag, lenient_flag, parse_int};
use crate::status::{Cause, Status};

/// `resourceVersionMatch` for a state at exactly the resource version.
pub(crate) const MATCH_EXACT: &str = "Exact";
/// `resourceVersionMatch` for a state at least as new as the resource version.
pub(crate) const MATCH_NOT_OLDER_THAN: &str = "NotOlderThan";

const MATCH: &str = "resourceVersionMatch";
const INITIAL_EVENTS: &str = "sendInitialEvents";

/// `ListOptions` of LIST and WATCH. Strings are empty when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListOptions {
    /// Which labels.
    pub(crate) label_selector: LabelSelector,
    /// Which fields.
    pub(crate) field_selector: FieldSelector,
    /// Whether the query asks for a watch; false on the `/watch/` path without `watch=`.
    pub(crate) watch: bool,
    /// Whether a watch may carry bookmarks.
    pub(crate) allow_watch_bookmarks: bool,
    /// As sent; "" and "0" have meanings of their own.
    pub(crate) resource_version: String,
    /// As sent, or as defaulted.
    pub(crate) resource_version_match: String,
    /// How long a watch may last, in seconds.
    pub(crate) timeout_seconds: Option<i64>,
    /// Objects per page; no limit when 0 or less.
    pub(crate) limit: i64,
    /// Where the next page starts.
    pub(crate) continue_token: String,
    /// Whether a watch starts with the present state.
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Decodes the options in the apiserver's order: integers first, then the label selector, then
    /// the field selector.
    ///
    /// # Errors
    /// 400 with the text of the first failure.
    pub(crate) fn decode(query: &Query) -> Result<Self, Status> {
        let integer = |name| query.first(name).map(parse_int).transpose();
        let set = |name| query.first(name).is_some_and(flag);
        let text = |name| query.first(name).unwrap_or_default();
        let timeout_seconds = integer("timeoutSeconds").map_err(Status::bad_request)?;
        let limit = integer("limit").map_err(Status::bad_request)?.unwrap_or(0);
        let bad_selector = |error: SelectorError| Status::bad_request(error.to_string());
        let label_selector = LabelSelector::parse(text("labelSelector")).map_err(bad_selector)?;
        let field_selector = FieldSelector::parse(text("fieldSelector")).map_err(bad_selector)?;
        Ok(Self {
            label_selector,
            field_selector,
            watch: set("watch"),
            allow_watch_bookmarks: set("allowWatchBookmarks"),
            resource_version: text("resourceVersion").to_owned(),
            resource_version_match: text(MATCH).to_owned(),
            timeout_seconds,
            limit,
            continue_token: text("continue").to_owned(),
            send_initial_events: query.first(INITIAL_EVENTS).map(flag),
        })
    }

    /// Whether a query that does not decode asks for a watch, which authorization must know.
    pub(super) fn lenient_watch(query: &Query) -> bool {
        query.first("watch").is_some_and(lenient_flag)
    }

    /// The object the field selector requires by name, if the name could stand in a path.
    pub(super) fn required_name(&self) -> Option<&str> {
        self.field_selector
            .required_value("metadata.name")
            .filter(|name| !matches!(*name, "." | "..") && !name.contains(['/', '%']))
    }

    /// What the apiserver adds to a watch without options: the present state first, and a
    /// consistent one if no resource version is given. `watch_list_enabled` is its WatchList gate.
    pub(crate) fn default_watch(&mut self, watch_list_enabled: bool) {
        let unset = self.send_initial_events.is_none() && self.resource_version_match.is_empty();
        let legacy = matches!(self.resource_version.as_str(), "" | "0");
        if watch_list_enabled && self.watch && unset && legacy {
            self.send_initial_events = Some(true);
            MATCH_NOT_OLDER_THAN.clone_into(&mut self.resource_version_match);
        }
    }

    /// Checks which options go together. A watch by path is checked as a LIST, because `watch` is
    /// false there. Defaulting comes first.
    ///
    /// # Errors
    /// 422 with every cause in the apiserver's order.
    pub(crate) fn validate(&self, watch_list_enabled: bool) -> Result<(), Status> {
        let causes = if self.watch {
            self.watch_causes(watch_list_enabled)
        } else {
            self.list_causes()
        };
        if causes.is_empty() {
            return Ok(());
        }
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes))
    }

    /// Narrows the field selector to the object the request names, if it names one (in the path or
    /// by the selector itself).
    ///
    /// # Errors
    /// 400 when the selector requires another name, or none.
    pub(crate) fn bind_name(&mut self, name: &str) -> Result<(), Status> {
        if name.is_empty() {
            return Ok(());
        }
        if self.field_selector.is_empty() {
            let value = name
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('=', "\\=");
            self.field_selector = FieldSelector::parse(&format!("metadata.name={value}"))
                .map_err(|error| Status::bad_request(error.to_string()))?;
            return Ok(());
        }
        if self.field_selector.required_value("metadata.name") == Some(name) {
            return Ok(());
        }
        Err(Status::bad_request(
            "fieldSelector metadata.name doesn't match requested name",
        ))
    }

    fn list_causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        let wanted = self.resource_version_match.as_str();
        if !wanted.is_empty() {
            if self.resource_version.is_empty() {
                causes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            self.continue_cause(&mut causes);
            if !matches!(wanted, MATCH_EXACT | MATCH_NOT_OLDER_THAN) {
                causes.push(unsupported(wanted, r#""Exact", "NotOlderThan", """#));
            }
            if wanted == MATCH_EXACT && self.resource_version == "0" {
                causes.push(forbidden(
                    MATCH,
                    r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#,
                ));
            }
        }
        if self.send_initial_events.is_some() {
            causes.push(forbidden(
                INITIAL_EVENTS,
                "sendInitialEvents is forbidden for list",
            ));
        }
        causes
    }

    fn watch_causes(&self, watch_list_enabled: bool) -> Vec<Cause> {
        let mut causes = Vec::new();
        let wanted = self.resource_version_match.as_str();
        if self.send_initial_events.is_some() {
            if wanted != MATCH_NOT_OLDER_THAN {
                causes.push(forbidden(
                    MATCH,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            if !watch_list_enabled {
                causes.push(forbidden(
                    INITIAL_EVENTS,
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate \
                     is enabled",
                ));
            }
        }
        if !wanted.is_empty() {
            if self.send_initial_events.is_none() {
                causes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                     provided",
                ));
            }
            if wanted != MATCH_NOT_OLDER_THAN {
                causes.push(unsupported(wanted, r#""NotOlderThan""#));
            }
            self.continue_cause(&mut causes);
        }
        causes
    }

    fn continue_cause(&self, causes: &mut Vec<Cause>) {
        if !self.continue_token.is_empty() {
            let text = "resourceVersionMatch is forbidden when continue is provided";
            causes.push(forbidden(MATCH, text));
        }
    }
}

fn forbidden(field: &'static str, detail: &str) -> Cause {
    Cause {
        reason: Cow::Borrowed("FieldValueForbidden"),
        message: format!("Forbidden: {detail}"),
        field: Cow::Borrowed(field),
    }
}

fn unsupported(value: &str, supported: &str) -> Cause {
    Cause {
        reason: Cow::Borrowed("FieldValueNotSupported"),
        message: format!(
            "Unsupported value: {}: supported values: {supported}",
            quote(value)
        ),
        field: Cow::Borrowed(MATCH),
    }
}

/// `GetOptions`: the resource version, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GetOptions {
    /// As sent; "" and "0" have meanings of their own.
    pub(crate) resource_version: String,
}

impl GetOptions {
    /// Decodes the options of a GET by name.
    ///
    /// # Errors
    /// 400 when the export parameter of old is set.
    pub(crate) fn decode(query: &Query) -> Result<Self, Status> {
        if query.first("export").is_some_and(flag) {
            return Err(Status::bad_request(
                "the export parameter, deprecated since v1.14, is no longer supported",
            ));
        }
        let resource_version = query
            .first("resourceVersion")
            .unwrap_or_default()
            .to_owned();
        Ok(Self { resource_version })
    }
}
