use std::time::Duration;

use base64::Engine as _;
use http::{Method, Uri};
use serde::Deserialize;

use super::*;
use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::request::{Query, RequestInfo};

const COMPACT: ErrorFormat = ErrorFormat(Media::Json { pretty: false });

fn base64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn compact(status: Status) -> String {
    String::from_utf8(status.into_response(&COMPACT).body().to_vec()).unwrap()
}

fn yaml(status: &Status) -> String {
    String::from_utf8(status.yaml()).unwrap()
}

/// A 403 of a kube-apiserver 1.36.
#[derive(Deserialize)]
struct Recorded {
    user: String,
    method: String,
    target: String,
    accept: String,
    reason: String,
    body: String,
    body_base64: String,
}

#[test]
fn recorded_refusals_are_reproduced_byte_for_byte() {
    let recorded: Vec<Recorded> =
        serde_json::from_str(include_str!("../../tests/data/forbidden.json")).unwrap();
    let mut checked = 0;
    for case in &recorded {
        // The URI parser of our HTTP stack refuses raw angle brackets before we see them.
        let Ok(uri) = case.target.parse::<Uri>() else {
            continue;
        };
        let query = Query::parse(uri.query().unwrap_or_default());
        let method: Method = case.method.parse().unwrap();
        let info = RequestInfo::parse(&method, &uri, &query).unwrap();
        let user = UserInfo {
            name: case.user.clone(),
            ..UserInfo::default()
        };
        let attributes = Attributes::new(user.into(), &info);
        let status = Status::forbidden(&case.user, attributes.refused(), &case.reason);
        let (format, want) = match case.accept.as_str() {
            "application/json" => (
                Media::Json { pretty: false },
                case.body.clone().into_bytes(),
            ),
            "text/html" => (Media::Json { pretty: true }, case.body.clone().into_bytes()),
            "application/yaml" => (Media::Yaml, case.body.clone().into_bytes()),
            _ => (Media::Protobuf, base64(&case.body_base64)),
        };
        let response = status.into_response(&ErrorFormat(format));
        let got = String::from_utf8_lossy(response.body());
        assert_eq!(
            response.body(),
            &want,
            "{} {}: {got}",
            case.user,
            case.target
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        checked += 1;
    }
    assert!(checked > 100, "only {checked} of {}", recorded.len());
}

#[test]
fn an_expired_watch_has_the_bytes_of_the_apiserver() {
    let status = Status::expired_watch(5, 1000);
    assert_eq!(
        String::from_utf8(status.json()).unwrap(),
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 5 (1000)","reason":"Expired","code":410}"#
    );
    let want = hex(
        "6b387300 0a0c0a02763112065374617475731241 0a06 0a0012001a00 1207 4661696c757265 1a22 \
         746f6f206f6c64207265736f757263652076657273696f6e3a2035202831303030 29 2207 \
         45787069726564 309a03 1a00 2200",
    );
    assert_eq!(status.protobuf(), want);
}

#[test]
fn the_catalogue_has_the_bodies_of_the_apiserver() {
    let table = [
        (
            Status::unauthorized(),
            r#""message":"Unauthorized","reason":"Unauthorized","code":401}"#,
        ),
        (
            Status::not_found("apps", "deployments", "x"),
            r#""message":"deployments.apps \"x\" not found","reason":"NotFound","details":{"name":"x","group":"apps","kind":"deployments"},"code":404}"#,
        ),
        (
            Status::initializing(Duration::ZERO),
            r#""message":"storage is (re)initializing","reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}"#,
        ),
        (
            Status::unclassified("yaml: control characters are not allowed"),
            r#""message":"yaml: control characters are not allowed","code":500}"#,
        ),
        (
            Status::unavailable(
                "the request has been made before all known HTTP paths have been installed, \
                 please try again",
                5,
            ),
            r#""message":"the request has been made before all known HTTP paths have been installed, please try again","reason":"ServiceUnavailable","details":{"retryAfterSeconds":5},"code":503}"#,
        ),
        (
            Status::resource_version_too_large(99_999_999, 12345),
            r#""message":"Timeout: Too large resource version: 99999999, current: 12345","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}"#,
        ),
    ];
    for (status, tail) in table {
        let head = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#;
        assert_eq!(compact(status), format!("{head}{tail}\n"));
    }
}

#[test]
fn texts_are_never_negotiated() {
    let table = [
        (
            Status::internal_server_error("/apis/apps/v1/watch?a=<b>&c", "no <kind>"),
            500,
            "Internal Server Error: \"/apis/apps/v1/watch?a=&lt;b&gt;&amp;c\": no &lt;kind&gt;\n",
            true,
        ),
        (
            Status::request_timeout(),
            504,
            "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete \
             within the allotted timeout\",\"reason\":\"Timeout\",\"details\":{},\"code\":504}\n",
            false,
        ),
    ];
    for (status, code, body, nosniff) in table {
        let response = status.into_response(&ErrorFormat(Media::Protobuf));
        assert_eq!(response.status(), code);
        assert_eq!(std::str::from_utf8(response.body()), Ok(body));
        assert_eq!(
            response.headers()["content-type"],
            "text/plain; charset=utf-8"
        );
        assert_eq!(
            response.headers().contains_key("x-content-type-options"),
            nosniff
        );
    }
}

#[test]
fn retry_after_is_sent_where_the_client_may_retry() {
    let table = [
        (Status::initializing(Duration::ZERO), Some("1")),
        (Status::initializing(Duration::from_secs(11)), Some("1")),
        (Status::initializing(Duration::from_secs(12)), Some("2")),
        (Status::initializing(Duration::from_secs(56)), Some("28")),
        (Status::initializing(Duration::from_secs(600)), Some("30")),
        (Status::resource_version_too_large(2, 1), Some("1")),
        (Status::unauthorized(), None),
    ];
    for (status, want) in table {
        let message = status.message().to_owned();
        let response = status.into_response(&COMPACT);
        let got = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap());
        assert_eq!(got, want, "{message}");
        assert_eq!(response.headers()["cache-control"], "no-cache, private");
    }
}

#[test]
fn yaml_folds_and_quotes_as_go_yaml() {
    let table = [
        (
            Status::not_found("", "configmaps", "nope"),
            "apiVersion: v1\ncode: 404\ndetails:\n  kind: configmaps\n  name: nope\nkind: Status\n\
             message: configmaps \"nope\" not found\nmetadata: {}\nreason: NotFound\n\
             status: Failure\n",
        ),
        (
            Status::bad_request("strconv.ParseInt: parsing \"abc\": invalid syntax"),
            "apiVersion: v1\ncode: 400\nkind: Status\n\
             message: 'strconv.ParseInt: parsing \"abc\": invalid syntax'\nmetadata: {}\n\
             reason: BadRequest\nstatus: Failure\n",
        ),
        (
            Status::not_acceptable(
                "only the following media types are accepted: application/json;stream=watch, \
                 application/vnd.kubernetes.protobuf;stream=watch",
            ),
            "apiVersion: v1\ncode: 406\nkind: Status\n\
             message: 'only the following media types are accepted: application/json;stream=watch,\n  \
             application/vnd.kubernetes.protobuf;stream=watch'\nmetadata: {}\n\
             reason: NotAcceptable\nstatus: Failure\n",
        ),
        (
            // The break stands in column 81, the first one that is too far.
            Status::unclassified(
                "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": \
                 invalid syntax",
            ),
            "apiVersion: v1\ncode: 500\nkind: Status\n\
             message: 'resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\":\n  \
             invalid syntax'\nmetadata: {}\nstatus: Failure\n",
        ),
        (
            Status::not_acceptable_by_router("406: Not Acceptable\n\nAvailable: none"),
            "apiVersion: v1\ncode: 406\ndetails: {}\nkind: Status\nmessage: |-\n  \
             406: Not Acceptable\n\n  Available: none\nmetadata: {}\nreason: NotAcceptable\n\
             status: Failure\n",
        ),
    ];
    for (status, want) in table {
        assert_eq!(yaml(&status), want);
    }
}

#[test]
fn yaml_strings_that_read_as_something_else_are_quoted() {
    for name in ["5", "true", "1e3", "0x1f", "2001-01-01", "null", "1:30"] {
        let text = yaml(&Status::not_found("", "configmaps", name));
        assert!(text.contains(&format!("  name: \"{name}\"\n")), "{text}");
    }
    for name in ["a5", "x.y", "1.2.3", "-a", "10-0-0-1", "v1.30"] {
        let text = yaml(&Status::not_found("", "configmaps", name));
        assert!(text.contains(&format!("  name: {name}\n")), "{text}");
    }
}
