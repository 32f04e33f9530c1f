//! Request targets: the proxy and the embedded apiserver see the same request.

use watershed::door::{self, Info, Target};
use watershed_loadtest::apiserver::request::{ListOptions, Query, RequestInfo};

const METHODS: [&str; 8] = [
    "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
];

/// The first byte chooses the method, the rest is the target.
pub fn request(input: &[u8]) {
    let Some((&method, target)) = input.split_first() else {
        return;
    };
    let method = METHODS[usize::from(method) % METHODS.len()];
    let Ok(text) = std::str::from_utf8(target) else {
        return;
    };
    // The HTTP library cuts at a `#`, and takes what is no path for the name of a host.
    if text.contains('#') || !text.starts_with('/') {
        return;
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let parsed = Query::parse(query);
    let method_name = method.parse().expect("a method");
    let theirs = RequestInfo::parse(&method_name, path, &parsed);
    match door::target(method, text) {
        Target::NoUri | Target::Refused(400, _) => {}
        Target::Refused(_, text) => {
            theirs.expect_err(&text);
        }
        // Pairs that are dropped or no text are forwarded before anyone looks at the options.
        Target::Info(info) if info.doubt == Some("query") => {}
        Target::Info(info) => {
            compare(&info, &theirs.expect("ours parsed"));
            options(&info, &parsed);
        }
    }
}

fn compare(ours: &Info, theirs: &RequestInfo) {
    assert_eq!(ours.is_resource, theirs.is_resource);
    assert_eq!(ours.path, theirs.path);
    assert_eq!(ours.verb, theirs.verb);
    if !ours.is_resource {
        return;
    }
    assert_eq!(ours.group, theirs.group);
    assert_eq!(ours.version, theirs.version);
    assert_eq!(ours.namespace, theirs.namespace);
    assert_eq!(ours.resource, theirs.resource);
    assert_eq!(ours.subresource, theirs.subresource);
    assert_eq!(ours.name, theirs.name);
    assert_eq!(ours.field_selector, theirs.field_selector);
    assert_eq!(ours.label_selector, theirs.label_selector);
}

fn options(info: &Info, query: &Query) {
    let Some(ours) = &info.options else { return };
    let theirs = ListOptions::decode(query)
        .and_then(|options| options.selectors().map(|_| options))
        .map_err(|status| status.message);
    match (ours, theirs) {
        (Err(ours), theirs) => assert_eq!(Some(ours), theirs.err().as_ref()),
        (Ok(ours), theirs) => {
            let theirs = theirs.expect("ours decoded");
            assert_eq!(ours.watch, theirs.watch);
            assert_eq!(ours.allow_watch_bookmarks, theirs.allow_watch_bookmarks);
            assert_eq!(ours.resource_version, theirs.resource_version);
            assert_eq!(ours.resource_version_match, theirs.resource_version_match);
            assert_eq!(ours.timeout_seconds, theirs.timeout_seconds);
            assert_eq!(ours.limit, theirs.limit);
            assert_eq!(ours.continue_token, theirs.continue_token);
            assert_eq!(ours.send_initial_events, theirs.send_initial_events);
        }
    }
}
