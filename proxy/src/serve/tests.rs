//! The truth table of what is read from the cache, and what happens to the rest.

use std::sync::Arc;

use http::{Method, Uri};
use watershed_cache::FieldSet;

use super::*;

fn resource(group: &str, name: &str, kind: &str, namespaced: bool) -> Resource {
    Resource {
        group: group.into(),
        version: "v1".into(),
        resource: name.into(),
        kind: kind.into(),
        namespaced,
        custom: false,
        fields: FieldSet::builtin(group, "v1", name).expect("a resource of Kubernetes"),
    }
}

/// One line for what a request means: `get any default/a`, `watch after 5`, `forward paging`, `refuse 422`.
fn meaning(target: &str, resource: &Resource, watch_list: bool) -> String {
    let uri: Uri = target.parse().expect("a request target");
    let query = Query::parse(uri.query().unwrap_or_default());
    let info = RequestInfo::parse(&Method::GET, &uri, &query).expect("a path of the API");
    match Read::classify(&info, &query, resource, watch_list) {
        Ok(read) => describe(&read),
        Err(Instead::Forward(reason)) => format!("forward {}", reason.as_str()),
        Err(Instead::Refuse(status)) => format!("refuse {}", status.code()),
    }
}

fn describe(read: &Read) -> String {
    match read {
        Read::Get {
            freshness,
            namespace,
            name,
        } => {
            format!("get {} {namespace}/{name}", fresh(*freshness))
        }
        Read::List {
            freshness,
            selection,
            page,
        } => {
            let limit = page
                .limit
                .map_or(String::new(), |limit| format!(" limit {limit}"));
            let start = if page.start.is_empty() {
                ""
            } else {
                " from a key"
            };
            format!(
                "list {}{}{start}{limit}",
                fresh(*freshness),
                scope(selection)
            )
        }
        Read::Watch {
            start,
            selection,
            bookmarks,
            ..
        } => {
            let start = match start {
                Start::Initial {
                    freshness,
                    end_bookmark,
                } => {
                    let end = if *end_bookmark { " marked" } else { "" };
                    format!("initial {}{end}", fresh(*freshness))
                }
                Start::Now(freshness) => format!("now {}", fresh(*freshness)),
                Start::After(version) => format!("after {version}"),
            };
            let bookmarks = if *bookmarks { " bookmarks" } else { "" };
            format!("watch {start}{bookmarks}{}", scope(selection))
        }
    }
}

fn fresh(freshness: Freshness) -> String {
    match freshness {
        Freshness::Any => "any".to_owned(),
        Freshness::AtLeast(version) => format!("at least {version}"),
        Freshness::Consistent => "consistent".to_owned(),
        Freshness::Exactly(version) => format!("exactly {version}"),
        Freshness::Stored(version) => format!("stored {version}"),
    }
}

fn scope(selection: &Selection) -> String {
    let part = |label: &str, value: &Option<Box<str>>| {
        value
            .as_deref()
            .map_or(String::new(), |value| format!(" {label}={value}"))
    };
    format!(
        "{}{}",
        part("ns", &selection.namespace),
        part("name", &selection.name)
    )
}

fn check(table: &[(&Resource, &str, &str)]) {
    for (resource, target, want) in table {
        assert_eq!(meaning(target, resource, true), *want, "{target}");
    }
}

#[test]
fn a_get_means_what_the_apiserver_means_by_it() {
    let pods = resource("", "pods", "Pod", true);
    let nodes = resource("", "nodes", "Node", false);
    let namespaces = resource("", "namespaces", "Namespace", false);
    check(&[
        (&pods, "/api/v1/namespaces/a/pods/x", "get consistent a/x"),
        (
            &pods,
            "/api/v1/namespaces/a/pods/x?resourceVersion=0",
            "get any a/x",
        ),
        (
            &pods,
            "/api/v1/namespaces/a/pods/x?resourceVersion=7",
            "get at least 7 a/x",
        ),
        (
            &pods,
            "/api/v1/namespaces/a/pods/x?watch=1",
            "get consistent a/x",
        ),
        (
            &pods,
            "/api/v1/namespaces/a/pods/x?resourceVersion=abc",
            "refuse 500",
        ),
        (&pods, "/api/v1/namespaces/a/pods/x?export=1", "refuse 400"),
        (&pods, "/api/v1/pods/x", "forward invalid"),
        (&nodes, "/api/v1/nodes/n", "get consistent /n"),
        (&nodes, "/api/v1/namespaces/a/nodes", "forward invalid"),
        (&namespaces, "/api/v1/namespaces/a", "get consistent /a"),
    ]);
}

#[test]
fn a_list_means_what_the_apiserver_means_by_it() {
    let pods = resource("", "pods", "Pod", true);
    check(&[
        (&pods, "/api/v1/pods", "list consistent"),
        (&pods, "/api/v1/namespaces/a/pods", "list consistent ns=a"),
        (&pods, "/api/v1/pods?resourceVersion=9", "list at least 9"),
        (&pods, "/api/v1/pods?resourceVersion=007", "list at least 7"),
        (&pods, "/api/v1/pods?resourceVersion=00", "forward invalid"),
        (
            &pods,
            "/api/v1/pods?resourceVersion=9&resourceVersionMatch=Exact",
            "list exactly 9",
        ),
        (
            &pods,
            "/api/v1/namespaces/a/pods?resourceVersion=9&resourceVersionMatch=Exact\
             &fieldSelector=metadata.name%3Dx",
            "list exactly 9 ns=a name=x",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersion=0&resourceVersionMatch=Exact",
            "refuse 422",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersion=0&resourceVersionMatch=NotOlderThan",
            "list any",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersionMatch=Exact",
            "refuse 422",
        ),
        (&pods, "/api/v1/pods?sendInitialEvents=true", "refuse 422"),
        (&pods, "/api/v1/pods?resourceVersion=abc", "refuse 400"),
        (&pods, "/api/v1/pods?limit=abc", "refuse 400"),
        (&pods, "/api/v1/pods?labelSelector=a%20b", "refuse 400"),
        (
            &pods,
            "/api/v1/pods?fieldSelector=metadata.name%3Dx",
            "list consistent name=x",
        ),
        (
            &pods,
            "/api/v1/pods?fieldSelector=metadata.name%3Dx,metadata.namespace%3Da",
            "list consistent ns=a name=x",
        ),
        (
            &pods,
            "/api/v1/pods?fieldSelector=spec.unknown%3Dx",
            "forward selector",
        ),
    ]);
}

#[test]
fn a_page_means_what_the_apiserver_means_by_it() {
    let pods = resource("", "pods", "Pod", true);
    check(&[
        (&pods, "/api/v1/pods?resourceVersion=0&limit=5", "list any"),
        (&pods, "/api/v1/pods?limit=5", "list consistent limit 5"),
        (&pods, "/api/v1/pods?limit=-5", "list consistent"),
        (
            &pods,
            "/api/v1/pods?resourceVersion=9&limit=5",
            "list exactly 9 limit 5",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersion=9&resourceVersionMatch=NotOlderThan&limit=5",
            "list at least 9 limit 5",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersion=9&resourceVersionMatch=Exact&limit=5",
            "list exactly 9 limit 5",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersion=9&resourceVersionMatch=Exact&limit=-5",
            "list exactly 9",
        ),
        (
            &pods,
            "/api/v1/pods?limit=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYS9hXHUwMDAwIn0",
            "list consistent from a key limit 5",
        ),
        (&pods, "/api/v1/pods?continue=abc", "forward paging"),
        (
            &pods,
            "/api/v1/pods?limit=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Mjk4Mywic3RhcnQiOiJkZWZhdWx0L2FcdTAwMDAifQ",
            "list exactly 2983 from a key limit 5",
        ),
        (
            &pods,
            "/api/v1/pods?limit=5&resourceVersion=0&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Mjk4Mywic3RhcnQiOiJkZWZhdWx0L2FcdTAwMDAifQ",
            "list exactly 2983 from a key",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersion=5&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Mjk4Mywic3RhcnQiOiJkZWZhdWx0L2FcdTAwMDAifQ",
            "forward invalid",
        ),
        (
            &pods,
            "/api/v1/pods?resourceVersion=9&limit=1&fieldSelector=metadata.name%3Dx",
            "list exactly 9 name=x limit 1",
        ),
        (
            &pods,
            "/api/v1/namespaces/a/pods?resourceVersion=9&limit=1&fieldSelector=metadata.name%3Dx",
            "list stored 9 ns=a name=x",
        ),
        (
            &pods,
            "/api/v1/namespaces/a/pods?resourceVersion=9&limit=1&fieldSelector=metadata.name%3Dx\
             &resourceVersionMatch=NotOlderThan",
            "list at least 9 ns=a name=x",
        ),
        (
            &pods,
            "/api/v1/namespaces/a/pods?limit=1&fieldSelector=metadata.name%3Dx",
            "list consistent ns=a name=x",
        ),
    ]);
}

#[test]
fn a_watch_means_what_the_apiserver_means_by_it() {
    let pods = resource("", "pods", "Pod", true);
    check(&[
        (&pods, "/api/v1/pods?watch=1", "watch initial consistent"),
        (
            &pods,
            "/api/v1/pods?watch=1&allowWatchBookmarks=1",
            "watch initial consistent marked bookmarks",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&resourceVersion=0",
            "watch initial any",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&resourceVersion=5",
            "watch after 5",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&resourceVersion=abc",
            "refuse 500",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&resourceVersion=5&sendInitialEvents=1\
             &resourceVersionMatch=NotOlderThan",
            "watch initial at least 5",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&sendInitialEvents=0&resourceVersionMatch=NotOlderThan",
            "watch now consistent",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&sendInitialEvents=0&resourceVersionMatch=NotOlderThan\
             &resourceVersion=0",
            "watch now any",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&sendInitialEvents=1",
            "forward invalid",
        ),
        (
            &pods,
            "/api/v1/pods?watch=1&timeoutSeconds=-1",
            "forward invalid",
        ),
        (&pods, "/api/v1/watch/pods", "watch initial any"),
        (
            &pods,
            "/api/v1/watch/pods?resourceVersion=5",
            "watch after 5",
        ),
        (
            &pods,
            "/api/v1/watch/namespaces/a/pods/x",
            "watch initial any ns=a name=x",
        ),
        (
            &pods,
            "/api/v1/watch/namespaces/a/pods/x?fieldSelector=metadata.name%3Dy",
            "refuse 400",
        ),
    ]);
}

#[test]
fn without_the_watch_list_feature_initial_events_have_no_mark_and_cannot_be_asked_for() {
    let pods = resource("", "pods", "Pod", true);
    let table = [
        (
            "/api/v1/pods?watch=1&allowWatchBookmarks=1",
            "watch initial any bookmarks",
        ),
        ("/api/v1/pods?watch=1&resourceVersion=5", "watch after 5"),
        (
            "/api/v1/pods?watch=1&sendInitialEvents=1&resourceVersionMatch=NotOlderThan",
            "forward invalid",
        ),
    ];
    for (target, want) in table {
        assert_eq!(meaning(target, &pods, false), want, "{target}");
    }
}

#[test]
fn a_watch_ends_when_asked_or_between_half_an_hour_and_an_hour() {
    let pods = Arc::new(resource("", "pods", "Pod", true));
    let timeout = |target: &str| {
        let uri: Uri = target.parse().expect("a request target");
        let query = Query::parse(uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&Method::GET, &uri, &query).expect("a path of the API");
        match Read::classify(&info, &query, &pods, true) {
            Ok(Read::Watch { timeout, .. }) => timeout,
            other => panic!("{target}: {other:?}"),
        }
    };
    assert_eq!(
        timeout("/api/v1/pods?watch=1&timeoutSeconds=7"),
        Duration::from_secs(7)
    );
    for target in [
        "/api/v1/pods?watch=1",
        "/api/v1/pods?watch=1&timeoutSeconds=0",
    ] {
        let open_end = timeout(target);
        assert!(
            (1800..3600).contains(&open_end.as_secs()),
            "{target}: {open_end:?}"
        );
    }
}

#[test]
fn while_a_cache_is_filled_only_what_an_apiserver_reads_from_its_storage_is_forwarded() {
    let pods = resource("", "pods", "Pod", true);
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Mjk4Mywic3RhcnQiOiJkZWZhdWx0L2FcdTAwMDAifQ";
    let next_page = format!("/api/v1/pods?continue={token}");
    let table = [
        ("/api/v1/namespaces/a/pods/x", true),
        ("/api/v1/namespaces/a/pods/x?resourceVersion=0", true),
        ("/api/v1/pods", false),
        ("/api/v1/pods?resourceVersion=0", false),
        ("/api/v1/pods?limit=5", true),
        ("/api/v1/namespaces/a/pods?limit=5", true),
        ("/api/v1/pods?limit=5&resourceVersion=0", true),
        ("/api/v1/pods?limit=-5", false),
        ("/api/v1/pods?limit=5&labelSelector=a", false),
        (
            "/api/v1/pods?limit=5&fieldSelector=spec.nodeName%3Dn",
            false,
        ),
        (
            "/api/v1/pods?limit=5&fieldSelector=metadata.name%3Dn",
            false,
        ),
        ("/api/v1/pods?limit=5&resourceVersion=9", true),
        (
            "/api/v1/pods?resourceVersion=9&resourceVersionMatch=Exact",
            true,
        ),
        (&*next_page, true),
        ("/api/v1/pods?watch=1", false),
        ("/api/v1/pods?watch=1&resourceVersion=5&limit=5", false),
    ];
    for (target, want) in table {
        let uri: Uri = target.parse().expect("a request target");
        let query = Query::parse(uri.query().unwrap_or_default());
        let info = RequestInfo::parse(&Method::GET, &uri, &query).expect("a path of the API");
        let read = Read::classify(&info, &query, &pods, true).expect("a read of the cache");
        assert_eq!(read.is_forwarded_unready(&info), want, "{target}");
    }
}
