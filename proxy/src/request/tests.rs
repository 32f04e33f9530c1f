use std::time::Duration;

use base64::Engine as _;
use http::{Method, Uri};
use serde::Deserialize;

use super::info::RequestInfoError;
use super::options::MATCH_EXACT;
use super::*;
use crate::negotiate::Media;
use crate::status::{ErrorFormat, Status};

fn parse(target: &str) -> Result<RequestInfo, RequestInfoError> {
    parse_method(&Method::GET, target)
}

fn parse_method(method: &Method, target: &str) -> Result<RequestInfo, RequestInfoError> {
    let uri: Uri = target.parse().unwrap();
    RequestInfo::parse(method, &uri, &query(target))
}

fn query(target: &str) -> Query {
    Query::parse(target.split_once('?').map_or("", |(_, query)| query))
}

/// target, verb, version, namespace, resource, name, subresource; `-` is empty.
const PATHS: &str = "
/api/v1/pods                                      list    v1       -  pods         -  -
/api/v1/pods/                                     list    v1       -  pods         -  -
/api/v1/pods?watch                                watch   v1       -  pods         -  -
/api/v1/pods?watch=                               watch   v1       -  pods         -  -
/api/v1/pods?watch=no                             watch   v1       -  pods         -  -
/api/v1/pods?watch=False                          list    v1       -  pods         -  -
/api/v1/pods?watch=0                              list    v1       -  pods         -  -
/api/v1/pods?watch=1&watch=0                      watch   v1       -  pods         -  -
/api/v1/pods?watch=0&watch=1                      list    v1       -  pods         -  -
/api/v1/namespaces/a/pods/x                       get     v1       a  pods         x  -
/api/v1/namespaces/a/pods/x?watch=1               get     v1       a  pods         x  -
/api/v1/namespaces                                list    v1       -  namespaces   -  -
/api/v1/namespaces/a                              get     v1       a  namespaces   a  -
/api/v1/namespaces/a/status                       get     v1       a  namespaces   a  status
/api/v1/namespaces/a/finalize                     get     v1       a  namespaces   a  finalize
/api/v1/pods?fieldSelector=metadata.name%3Dx      list    v1       -  pods         x  -
/api/v1/pods/x                                    get     v1       -  pods         x  -
/api/v1/namespaces/a/nodes                        list    v1       a  nodes        -  -
/api/v1/watch/pods                                watch   v1       -  pods         -  -
/api/v1/watch/namespaces/a/pods/x                 watch   v1       a  pods         x  -
/api/v1/watch/namespaces/a                        watch   v1       a  namespaces   a  -
/api/v1/proxy/nodes/n/x/y                         proxy   v1       -  nodes        n  -
/api/v1/namespaces//configmaps                    list    v1       -  configmaps   -  -
//api/v1/pods                                     list    v1       -  pods         -  -
/api/v1//pods                                     get     v1       -  -            pods  -
/api/v1/namespaces/a/../a/configmaps              get     v1       a  ..           a  configmaps
/api/v1/namespaces/a/./configmaps                 get     v1       a  .            configmaps  -
/apis/apps/v1/deployments                         list    apps/v1  -  deployments  -  -
/apis/apps/v1/namespaces/a/deployments/d/scale    get     apps/v1  a  deployments  d  scale
/api/v1/namespaces/a/configmaps/a/b/c             get     v1       a  configmaps   a  b
/api/v1/namespaces/a/pods%2Fx                     get     v1       a  pods         x  -
/api/v1/pods?limit=abc                            list    v1       -  pods         -  -
/api/v1/pods?limit=abc&watch                      watch   v1       -  pods         -  -
/api/v1/pods?limit=abc&watch=FALSE                list    v1       -  pods         -  -
/api/v1/pods?fieldSelector=metadata.name=x&limit= list    v1       -  pods         -  -
";

#[test]
fn paths_read_as_the_apiserver_reads_them() {
    for row in PATHS.lines().skip(1) {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let info = parse(cells[0]).unwrap();
        assert!(info.is_resource, "{row}");
        let version = if info.group.is_empty() {
            info.version.clone()
        } else {
            format!("{}/{}", info.group, info.version)
        };
        let parts = [
            info.verb.as_str(),
            &version,
            &info.namespace,
            &info.resource,
            &info.name,
            &info.subresource,
        ];
        let got = parts.map(|part| if part.is_empty() { "-" } else { part });
        assert_eq!(got.as_slice(), &cells[1..], "{row}");
    }
}

#[test]
fn impersonation_and_upgrades_are_left_to_the_apiserver() {
    let doubt = |name: &'static str| {
        Doubt::of_headers(
            &[(http::HeaderName::from_static(name), "x".parse().unwrap())]
                .into_iter()
                .collect(),
        )
    };
    assert_eq!(doubt("impersonate-user"), Some(Doubt::Impersonation));
    assert_eq!(doubt("impersonate-extra-a"), Some(Doubt::Impersonation));
    assert_eq!(doubt("upgrade"), Some(Doubt::Upgrade));
    assert_eq!(doubt("x-remote-user"), None);
}

#[test]
fn a_list_takes_its_name_from_the_field_selector() {
    let table = [
        ("metadata.name%3Dx", "x"),
        ("metadata.name%3D%3Dx", "x"),
        ("metadata.name!%3Dx", ""),
        ("metadata.name%3Dx,spec.nodeName%3Dn", "x"),
        ("metadata.name%3Da/b", ""),
        ("metadata.name%3Da%2525b", ""),
        ("metadata.name%3D..", ""),
        ("metadata.name%3Dy,metadata.name%3Dx", "x"),
    ];
    for (selector, name) in table {
        let info = parse(&format!("/api/v1/pods?fieldSelector={selector}")).unwrap();
        assert_eq!(
            (info.verb.as_str(), info.name.as_str()),
            ("list", name),
            "{selector}"
        );
    }
    let first = "/api/v1/pods?fieldSelector=metadata.name=x&fieldSelector=metadata.name=y";
    assert_eq!(parse(first).unwrap().name, "x");
}

#[test]
fn other_paths_are_no_resources() {
    for target in [
        "/apis/apps/v1",
        "/api/v1",
        "/version",
        "/",
        "/nope",
        "/a/b/c/d",
    ] {
        let info = parse(target).unwrap();
        assert!(!info.is_resource, "{target}");
        assert_eq!(info.verb.as_str(), "get");
        assert_eq!(info.doubt(), Some(Doubt::NonResource), "{target}");
    }
    let info = parse_method(&Method::POST, "/a%3Cb%3E%26c").unwrap();
    assert_eq!(
        (info.verb.as_str(), info.path.as_str()),
        ("post", "/a<b>&c")
    );
}

#[test]
fn methods_have_the_verbs_of_the_apiserver() {
    let one = "/api/v1/namespaces/a/pods/x";
    let all = "/api/v1/namespaces/a/pods";
    let table = [
        ("HEAD", one, "get"),
        ("HEAD", all, "list"),
        ("POST", all, "create"),
        ("PUT", one, "update"),
        ("PATCH", one, "patch"),
        ("DELETE", one, "delete"),
        ("DELETE", all, "deletecollection"),
        ("OPTIONS", all, ""),
        ("FOO", one, ""),
    ];
    for (method, target, verb) in table {
        let info = parse_method(&method.parse().unwrap(), target).unwrap();
        assert_eq!(info.verb.as_str(), verb, "{method} {target}");
        assert_eq!(info.doubt(), Some(Doubt::Method));
    }
}

#[test]
fn a_prefix_verb_with_nothing_after_it_is_a_text_500() {
    for target in [
        "/api/v1/watch",
        "/api/v1/watch/",
        "/api/v1/proxy",
        "/apis/apps/v1/watch?a=b",
    ] {
        let status = parse(target).unwrap_err().status();
        assert_eq!(status.code(), 500);
        assert_eq!(
            status.message(),
            format!(
                "Internal Server Error: \"{target}\": failed to create RequestInfo: unable to \
                 determine kind and namespace from url, {target}\n"
            )
        );
    }
    assert_eq!(parse("/api/v1/a%zz"), Err(RequestInfoError::Malformed));
}

#[test]
fn what_is_unusual_is_left_to_the_apiserver() {
    let table = [
        ("/api/v1/pods", None),
        ("/api/v1/pods/", None),
        ("/api/v1/namespaces/a/pods/x", None),
        ("/api/v1/watch/namespaces/a/pods/x", None),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
            None,
        ),
        (
            "/api/v1/pods?watch=1&labelSelector=a%3Db&timeoutSeconds=5&timeout=1s&pretty=1",
            None,
        ),
        ("/api/v1/pods//", Some(Doubt::Path)),
        ("//api/v1/pods", Some(Doubt::Path)),
        ("/api/v1//pods", Some(Doubt::Path)),
        ("/api/v1/namespaces//pods", Some(Doubt::Path)),
        ("/api/v1/namespaces/a/../a/pods", Some(Doubt::Path)),
        ("/api/v1/namespaces/./pods", Some(Doubt::Path)),
        ("/api/v1/namespaces/a%2Fpods", Some(Doubt::Path)),
        ("/api/v1/namespaces/a%2fpods", Some(Doubt::Path)),
        ("/api/v1/p%6Fds", Some(Doubt::Path)),
        ("/api/v1/pods;x=y", Some(Doubt::Path)),
        ("/api/v1/namespaces/a/pods/x%00", Some(Doubt::Path)),
        ("/api/v1/namespaces/a/pods/%FF", Some(Doubt::Path)),
        ("/api/v1/namespaces/a/pods/x/log", Some(Doubt::Subresource)),
        ("/api/v1/namespaces/a/status", Some(Doubt::Subresource)),
        ("/api/v1/proxy/nodes/n", Some(Doubt::Proxy)),
        ("/api/v1/pods?shardSelector=x", Some(Doubt::Parameter)),
        ("/api/v1/pods?includeObject=None", Some(Doubt::Parameter)),
        ("/api/v1/pods?foo=bar", Some(Doubt::Parameter)),
        ("/api/v1/pods?LabelSelector=a", Some(Doubt::Parameter)),
        ("/api/v1/pods?labelSelector=a;b", Some(Doubt::Query)),
        ("/api/v1/pods?labelSelector=%zz", Some(Doubt::Query)),
        ("/api/v1/pods?labelSelector=%ff", Some(Doubt::Query)),
    ];
    for (target, want) in table {
        assert_eq!(parse(target).unwrap().doubt(), want, "{target}");
    }
    let many = "limit=1&".repeat(300);
    assert_eq!(
        parse(&format!("/api/v1/pods?{many}")).unwrap().doubt(),
        Some(Doubt::Query)
    );
}

#[test]
fn query_strings_are_parsed_as_in_go() {
    let table = [
        ("a=1&a=2", "a", Some("1")),
        ("a=x;b=y", "a", None),
        ("a=x;b=y", "b", None),
        ("a=x&b=y;z&c=w", "c", Some("w")),
        ("a=%zz", "a", None),
        ("a=%z", "a", None),
        ("%zz=1&a=2", "a", Some("2")),
        ("a=%4", "a", None),
        ("a=l+in+(x,y)", "a", Some("l in (x,y)")),
        ("a=%2B", "a", Some("+")),
        ("a%62=1", "ab", Some("1")),
        ("A=1", "a", None),
        ("&&a=1&&", "a", Some("1")),
        ("a", "a", Some("")),
        ("a=", "a", Some("")),
        ("=1", "", Some("1")),
        ("?a=1", "a", None),
        ("?a=1", "?a", Some("1")),
        ("a=b=c", "a", Some("b=c")),
        ("", "a", None),
    ];
    for (text, name, want) in table {
        assert_eq!(Query::parse(text).first(name), want, "{text}");
    }
}

/// What a kube-apiserver 1.36 answered to options.
#[derive(Deserialize)]
struct Recorded {
    source: String,
    target: String,
    accept: String,
    status: u16,
    body: String,
    body_base64: String,
}

/// The checks of a LIST or WATCH before storage, in their order.
/// The default of `limits.requestTimeout`.
const MINUTE: Duration = Duration::from_secs(60);

fn check(target: &str) -> Result<(), Status> {
    let query = query(target);
    let uri: Uri = target.parse().unwrap();
    let info = RequestInfo::parse(&Method::GET, &uri, &query).unwrap();
    timeout(&info, &query, MINUTE)?;
    let mut options = info.options.unwrap()?;
    options.bind_name(&info.name)?;
    options.default_watch(true);
    options.validate(true)
}

#[test]
fn recorded_options_are_judged_as_the_apiserver_did() {
    let recorded: Vec<Recorded> =
        serde_json::from_str(include_str!("../../tests/data/options.json")).unwrap();
    let mut checked = 0;
    for case in recorded {
        if case.target.parse::<Uri>().is_err() {
            continue;
        }
        let context = format!("{}: {}", case.source, case.target);
        checked += 1;
        let Err(status) = check(&case.target) else {
            assert_eq!(case.status, 200, "{context}");
            continue;
        };
        let (media, want) = match case.accept.as_str() {
            "application/vnd.kubernetes.protobuf" => {
                let engine = base64::engine::general_purpose::STANDARD;
                (Media::Protobuf, engine.decode(&case.body_base64).unwrap())
            }
            "application/yaml" => (Media::Yaml, case.body.into_bytes()),
            _ => (Media::Json { pretty: false }, case.body.into_bytes()),
        };
        let response = status.into_response(&ErrorFormat(media));
        assert_eq!(
            String::from_utf8_lossy(response.body()),
            String::from_utf8_lossy(&want),
            "{context}"
        );
        assert_eq!(response.status(), case.status, "{context}");
    }
    assert!(checked > 90, "only {checked}");
}

#[test]
fn watches_without_options_start_with_the_present_state() {
    // query, gate, sendInitialEvents, resourceVersionMatch
    let table = [
        ("watch=1", true, Some(true), MATCH_NOT_OLDER_THAN),
        (
            "watch=1&resourceVersion=0",
            true,
            Some(true),
            MATCH_NOT_OLDER_THAN,
        ),
        ("watch=1&resourceVersion=00", true, None, ""),
        ("watch=1&resourceVersion=5", true, None, ""),
        ("watch=1", false, None, ""),
        ("watch=0", true, None, ""),
        ("", true, None, ""),
        ("watch=1&sendInitialEvents=false", true, Some(false), ""),
        (
            "watch=1&resourceVersionMatch=Exact",
            true,
            None,
            MATCH_EXACT,
        ),
    ];
    for (query, gate, events, wanted) in table {
        let mut options = ListOptions::decode(&Query::parse(query)).unwrap();
        options.default_watch(gate);
        let got = (
            options.send_initial_events,
            options.resource_version_match.as_str(),
        );
        assert_eq!(got, (events, wanted), "{query}");
    }
}

#[test]
fn initial_events_are_refused_without_the_gate() {
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let options = ListOptions::decode(&Query::parse(query)).unwrap();
    assert_eq!(options.validate(true), Ok(()));
    assert_eq!(
        options.validate(false).unwrap_err().message(),
        "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents \
         is forbidden for watch unless the WatchList feature gate is enabled"
    );
}

#[test]
fn a_named_watch_accepts_only_its_own_name() {
    let path = "/api/v1/watch/namespaces/a/pods/x";
    assert_eq!(check(path), Ok(()));
    assert_eq!(
        check(&format!(
            "{path}?fieldSelector=metadata.name=x,spec.nodeName=n"
        )),
        Ok(())
    );
    let other = check(&format!("{path}?fieldSelector=metadata.name=y")).unwrap_err();
    let none = check(&format!("{path}?fieldSelector=spec.nodeName=n")).unwrap_err();
    for status in [other, none] {
        assert_eq!(status.code(), 400);
        assert_eq!(
            status.message(),
            "fieldSelector metadata.name doesn't match requested name"
        );
    }
    let info = parse(path).unwrap();
    let mut options = info.options.clone().unwrap().unwrap();
    options.bind_name(&info.name).unwrap();
    assert_eq!(
        options.field_selector.required_value("metadata.name"),
        Some("x")
    );
}

#[test]
fn paths_and_broken_queries_keep_their_selectors_for_authorization() {
    let target = "/api/v1/pods?labelSelector=a&fieldSelector=b%3Dc&limit=x";
    let info = parse(target).unwrap();
    assert_eq!(info.label_selector.as_deref(), Some("a"));
    assert_eq!(info.field_selector.as_deref(), Some("b=c"));
    let via_path = parse("/api/v1/watch/pods?labelSelector=a").unwrap();
    assert_eq!(via_path.label_selector, None);
    let get = parse("/api/v1/namespaces/a/pods/x?labelSelector=a").unwrap();
    assert_eq!(get.label_selector, None);
}

#[test]
fn export_is_refused_unless_false() {
    let get = |query| GetOptions::decode(&Query::parse(query));
    for query in ["export", "export=1", "export=true", "export=x"] {
        assert_eq!(get(query).unwrap_err().code(), 400, "{query}");
    }
    for query in ["export=false", "export=0", "resourceVersionMatch=Exact", ""] {
        assert_eq!(get(query), Ok(GetOptions::default()), "{query}");
    }
    assert_eq!(get("resourceVersion=7").unwrap().resource_version, "7");
}

#[test]
fn durations_are_those_of_go() {
    let table = [
        ("0", Ok(0)),
        ("1s", Ok(1_000_000_000)),
        ("1.5h", Ok(5_400_000_000_000)),
        ("-1.5h", Ok(-5_400_000_000_000)),
        ("1h2m3.5s", Ok(3_723_500_000_000)),
        (".5s", Ok(500_000_000)),
        ("5.s", Ok(5_000_000_000)),
        ("1us2\u{b5}s3\u{3bc}s", Ok(6_000)),
        ("+5ns", Ok(5)),
        ("-9223372036854775808ns", Ok(i64::MIN)),
        ("", Err(r#"time: invalid duration """#)),
        ("abc", Err(r#"time: invalid duration "abc""#)),
        ("-", Err(r#"time: invalid duration "-""#)),
        (".s", Err(r#"time: invalid duration ".s""#)),
        (
            "9223372036854775808ns",
            Err(r#"time: invalid duration "9223372036854775808ns""#),
        ),
        ("3000000h", Err(r#"time: invalid duration "3000000h""#)),
        ("5", Err(r#"time: missing unit in duration "5""#)),
        ("1h5", Err(r#"time: missing unit in duration "1h5""#)),
        ("5x", Err(r#"time: unknown unit "x" in duration "5x""#)),
        ("1 s", Err(r#"time: unknown unit " s" in duration "1 s""#)),
    ];
    for (text, want) in table {
        assert_eq!(
            scalar::parse_duration(text),
            want.map_err(str::to_owned),
            "{text}"
        );
    }
}

#[test]
fn the_timeout_is_bounded_and_not_for_long_requests() {
    let seconds = |n| Ok(Some(Duration::from_secs(n)));
    let table = [
        ("/api/v1/pods", seconds(60)),
        ("/api/v1/pods?timeout=", seconds(60)),
        ("/api/v1/pods?timeout=0", seconds(60)),
        ("/api/v1/pods?timeout=-5s", seconds(60)),
        ("/api/v1/pods?timeout=2m", seconds(60)),
        ("/api/v1/pods?timeout=10s", seconds(10)),
        ("/api/v1/pods?watch=1&timeout=abc", Ok(None)),
        ("/api/v1/watch/pods?timeout=abc", Ok(None)),
        ("/api/v1/namespaces/a/pods/x/log?timeout=abc", Ok(None)),
        ("/debug/pprof/profile?timeout=abc", Ok(None)),
    ];
    for (target, want) in table {
        let info = parse(target).unwrap();
        assert_eq!(timeout(&info, &query(target), MINUTE), want, "{target}");
    }
}

#[test]
fn integers_are_those_of_go() {
    let error =
        |text: &str, problem: &str| Err(format!("strconv.ParseInt: parsing \"{text}\": {problem}"));
    assert_eq!(scalar::parse_int("+5"), Ok(5));
    assert_eq!(scalar::parse_int("-9223372036854775808"), Ok(i64::MIN));
    for text in ["", "abc", "1.5", "0x10", " 5", "1_000", "+", "-"] {
        assert_eq!(scalar::parse_int(text), error(text, "invalid syntax"));
    }
    let long = "99999999999999999999";
    assert_eq!(scalar::parse_int(long), error(long, "value out of range"));
}
