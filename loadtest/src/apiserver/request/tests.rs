use super::*;

fn info(method: &str, target: &str) -> RequestInfo {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    RequestInfo::parse(&method, path, &Query::parse(query)).unwrap()
}

/// Request, verb, namespace, resource, name, subresource; `-` is empty.
const PATHS: &str = "\
/api/v1/pods list - pods - -
/api/v1/pods/ list - pods - -
/api/v1/pods?watch watch - pods - -
/api/v1/pods?watch=False list - pods - -
/api/v1/pods?watch=1&watch=0 watch - pods - -
/api/v1/namespaces/a/pods/x?watch=1 get a pods x -
/api/v1/namespaces/a get a namespaces a -
/api/v1/namespaces/a/status get a namespaces a status
/api/v1/pods?fieldSelector=metadata.name%3Dx list - pods x -
/api/v1/pods?fieldSelector=metadata.name%3Dx;y list - pods - -
/api/v1/watch/namespaces/a/pods/x watch a pods x -
/api/v1/namespaces//configmaps list - configmaps - -
/apis/apps/v1/namespaces/a/deployments/d/scale get a deployments d scale
/api/v1/pods?limit=x&watch=1 watch - pods - -
";

#[test]
fn paths_mean_what_the_table_of_requestinfo_says() {
    for line in PATHS.lines() {
        let (target, expected) = line.split_once(' ').unwrap();
        let info = info("GET", target);
        let parts = [
            &info.verb,
            &info.namespace,
            &info.resource,
            &info.name,
            &info.subresource,
        ];
        let seen = parts.map(|part| if part.is_empty() { "-" } else { part.as_str() });
        assert_eq!(seen.join(" "), expected, "{target}");
    }
    assert!(!info("GET", "/apis/apps/v1").is_resource);
    assert_eq!(
        info("DELETE", "/api/v1/namespaces/a/pods").verb,
        "deletecollection"
    );
}

#[test]
fn a_watch_prefix_without_a_resource_is_an_error() {
    let error = RequestInfo::parse(&Method::GET, "/api/v1/watch", &Query::default());
    assert_eq!(
        error.map_err(|e| e.to_string()),
        Err("failed to create RequestInfo: unable to determine kind and namespace from url, /api/v1/watch".to_owned())
    );
}

#[test]
fn pairs_with_semicolons_or_bad_escapes_are_dropped() {
    let query = Query::parse("a=1;b=2&c=%zz&d=x+y%2C&e&d=z");
    assert_eq!(query.first("a"), None);
    assert_eq!(query.first("c"), None);
    assert_eq!(query.first("d"), Some("x y,"));
    assert_eq!(query.first("e"), Some(""));
    assert_eq!(query.all("d").count(), 2);
}

#[test]
fn bad_numbers_are_refused_in_the_words_of_strconv() {
    let message = |q: &str| {
        ListOptions::decode(&Query::parse(q))
            .err()
            .map(|s| s.message)
    };
    let text = |t: &str| Some(format!("strconv.ParseInt: parsing {t}"));
    assert_eq!(message("limit=abc"), text("\"abc\": invalid syntax"));
    assert_eq!(message("limit="), text("\"\": invalid syntax"));
    assert_eq!(
        message("limit=99999999999999999999"),
        text("\"99999999999999999999\": value out of range")
    );
    assert_eq!(message("limit=%2B5"), None);
}

#[test]
fn watches_without_a_version_are_defaulted_and_others_are_validated() {
    let mut options = ListOptions::decode(&Query::parse("watch=1")).unwrap();
    options.default_watch(true);
    assert_eq!(options.send_initial_events, Some(true));
    assert_eq!(options.validate(true), Ok(()));
    let options = ListOptions::decode(&Query::parse("resourceVersionMatch=foo")).unwrap();
    let status = options.validate(true).unwrap_err();
    assert_eq!(status.details.map(|d| d.causes.len()), Some(2));
}

#[test]
fn resource_versions_follow_parse_uint() {
    assert_eq!(parse_resource_version("007"), Ok(7));
    assert_eq!(
        parse_resource_version("+7"),
        Err("resourceVersion: Invalid value: \"+7\": strconv.ParseUint: parsing \"+7\": invalid syntax".to_owned())
    );
}
