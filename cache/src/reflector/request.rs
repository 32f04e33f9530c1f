//! What is asked of the apiserver, and how it is written in a query string.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::resource_version::ResourceVersion;

/// Parameters of an upstream LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// `limit`; no limit when `None`.
    pub limit: Option<usize>,
    /// `continue` of the page before.
    pub continue_token: Option<String>,
    /// `resourceVersion`, sent with `resourceVersionMatch=NotOlderThan`; `None` asks for a
    /// consistent list.
    pub not_older_than: Option<ResourceVersion>,
    /// `resourceVersion`, sent with `resourceVersionMatch=Exact`; goes before `not_older_than`.
    pub exactly: Option<ResourceVersion>,
}

impl ListRequest {
    /// The query string.
    pub fn query(&self) -> String {
        let mut query = String::new();
        if let Some(limit) = self.limit {
            let _ = write!(query, "limit={limit}&");
        }
        if let Some(token) = &self.continue_token {
            let _ = write!(query, "continue={}&", Escaped(token));
        }
        let wanted = match (self.exactly, self.not_older_than) {
            (Some(version), _) => Some((version, "Exact")),
            (None, Some(version)) => Some((version, "NotOlderThan")),
            (None, None) => None,
        };
        if let Some((version, how)) = wanted {
            let _ = write!(
                query,
                "resourceVersion={version}&resourceVersionMatch={how}&"
            );
        }
        query.pop();
        query
    }
}

/// Parameters of an upstream WATCH. Bookmarks are always allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// `resourceVersion`; `None` is the empty one.
    pub resource_version: Option<ResourceVersion>,
    /// `sendInitialEvents=true` with `resourceVersionMatch=NotOlderThan`.
    pub send_initial_events: bool,
    /// `timeoutSeconds`, whole seconds.
    pub timeout: Duration,
}

impl WatchRequest {
    /// The query string.
    pub fn query(&self) -> String {
        let mut query = String::from("watch=true&allowWatchBookmarks=true");
        if self.send_initial_events {
            query.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        }
        query.push_str("&resourceVersion=");
        if let Some(version) = self.resource_version {
            let _ = write!(query, "{version}");
        }
        let _ = write!(query, "&timeoutSeconds={}", self.timeout.as_secs());
        query
    }
}

/// Text as a query value: everything but letters, digits and `-._~` as percent codes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_the_ones_client_go_sends() {
        let version = ResourceVersion::new(7);
        let first = ListRequest {
            limit: Some(500),
            ..ListRequest::default()
        };
        assert_eq!(first.query(), "limit=500");
        let next = ListRequest {
            continue_token: Some("a+/=".into()),
            ..first
        };
        assert_eq!(next.query(), "limit=500&continue=a%2B%2F%3D");
        let relist = ListRequest {
            not_older_than: Some(version),
            ..ListRequest::default()
        };
        assert_eq!(
            relist.query(),
            "resourceVersion=7&resourceVersionMatch=NotOlderThan"
        );
        let past = ListRequest {
            limit: Some(1),
            exactly: Some(version),
            ..ListRequest::default()
        };
        assert_eq!(
            past.query(),
            "limit=1&resourceVersion=7&resourceVersionMatch=Exact"
        );
        let mut watch = WatchRequest {
            resource_version: Some(version),
            send_initial_events: false,
            timeout: Duration::from_secs(300),
        };
        assert_eq!(
            watch.query(),
            "watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=300"
        );
        watch.resource_version = None;
        watch.send_initial_events = true;
        assert_eq!(
            watch.query(),
            "watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
             &resourceVersionMatch=NotOlderThan&resourceVersion=&timeoutSeconds=300"
        );
    }
}
