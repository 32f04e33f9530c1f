use http::HeaderMap;
use serde::Deserialize;

use super::*;

/// What a kube-apiserver 1.36 answered to one Accept header.
#[derive(Deserialize)]
struct Recorded {
    accept: Vec<String>,
    custom: bool,
    action: String,
    query: String,
    status: u16,
    content_type: String,
    body: String,
    indented: bool,
    body_base64: String,
}

impl Recorded {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in &self.accept {
            headers.append(header::ACCEPT, line.trim().parse().unwrap());
        }
        headers
    }

    fn endpoint(&self) -> Endpoint {
        let action = match self.action.as_str() {
            "get" => Action::Get,
            "list" => Action::List,
            "watch" => Action::Watch,
            other => panic!("unknown action {other}"),
        };
        Endpoint {
            action,
            custom: self.custom,
        }
    }
}

#[test]
fn recorded_accept_headers_choose_as_the_apiserver_did() {
    let recorded: Vec<Recorded> =
        serde_json::from_str(include_str!("../../tests/data/accept.json")).unwrap();
    assert!(recorded.len() > 100);
    for case in recorded {
        let context = format!("{:?} {} custom={}", case.accept, case.action, case.custom);
        let query = Query::parse(&case.query);
        let headers = case.headers();
        match negotiate(&headers, &query, case.endpoint()) {
            Ok(chosen) => {
                assert_eq!(case.status, 200, "{context}");
                let bare = case.content_type.split(';').next().unwrap();
                assert_eq!(chosen.media.content_type(), bare, "{context}");
                if let Media::Json { pretty } = chosen.media {
                    assert_eq!(pretty, case.indented, "{context}");
                }
            }
            Err(error) => {
                assert_eq!(case.status, 406, "{context}");
                let format = ErrorFormat::negotiate(&headers, &query);
                let response = error.status().unwrap().into_response(&format);
                assert_eq!(response.headers()[header::CONTENT_TYPE], *case.content_type);
                let want = if case.body.is_empty() {
                    base64(&case.body_base64)
                } else {
                    case.body.into_bytes()
                };
                assert_eq!(response.body(), &want, "{context}");
            }
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                header::HeaderValue::from_static(value),
            )
        })
        .collect()
}

const LIST: Endpoint = Endpoint {
    action: Action::List,
    custom: false,
};

#[test]
fn transforms_are_understood_and_keep_their_version() {
    let pom = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let table = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
    let protobuf_table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    let choose = |accept| negotiate(&headers(&[("accept", accept)]), &Query::default(), LIST);
    assert_eq!(
        choose(pom),
        Ok(Negotiated {
            media: Media::Protobuf,
            transform: Transform::PartialObjectMetadataList(MetaVersion::V1),
        })
    );
    assert_eq!(
        choose(table),
        Ok(Negotiated {
            media: Media::Json { pretty: false },
            transform: Transform::Table(MetaVersion::V1Beta1),
        })
    );
    assert_eq!(choose(protobuf_table), Err(NotAcceptable::Handler));
    assert_eq!(choose("application/json;v=v1"), Err(NotAcceptable::Handler));
}

#[test]
fn more_clauses_than_go_sorts_by_insertion_are_left_to_the_apiserver() {
    let accept = ["*/*"; CLAUSES_MAX + 1].join(",");
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, accept.parse().unwrap());
    let refused = negotiate(&headers, &Query::default(), LIST).unwrap_err();
    assert_eq!(refused, NotAcceptable::Unclear);
    assert_eq!(refused.status(), None);
}

#[test]
fn pretty_follows_the_parameter_then_the_clause_then_the_agent() {
    let table = [
        ("", "curl/8", "*/*", true),
        ("", "Wget/1", "*/*", true),
        ("", "Mozilla/5.0 (X11)", "*/*", true),
        ("", "kubectl/1", "*/*", false),
        ("pretty=", "curl/8", "*/*", true),
        ("pretty=false", "curl/8", "*/*", false),
        ("pretty=nonsense", "curl/8", "*/*", false),
        ("pretty=T", "kubectl/1", "*/*", true),
        (
            "pretty=false",
            "kubectl/1",
            "application/json;pretty=1",
            true,
        ),
    ];
    for (query, agent, accept, want) in table {
        let headers = headers(&[("user-agent", agent), ("accept", accept)]);
        let query = Query::parse(query);
        let chosen = negotiate(&headers, &query, LIST).unwrap();
        assert_eq!(
            chosen.media,
            Media::Json { pretty: want },
            "{query:?} {agent} {accept}"
        );
        let watch = Endpoint {
            action: Action::Watch,
            custom: false,
        };
        let chosen = negotiate(&headers, &query, watch).unwrap();
        assert_eq!(
            chosen.media,
            Media::Json { pretty: false },
            "watches are compact"
        );
    }
}

#[test]
fn errors_know_no_transforms_and_no_server_versions() {
    let table = [
        (
            "application/json;as=Table;g=meta.k8s.io;v=v1",
            Media::Json { pretty: true },
        ),
        ("application/json;sv=v1", Media::Json { pretty: true }),
        ("text/html", Media::Json { pretty: true }),
        ("application/*", Media::Json { pretty: false }),
        ("application/yaml", Media::Yaml),
        ("application/vnd.kubernetes.protobuf", Media::Protobuf),
        ("", Media::Json { pretty: false }),
    ];
    for (accept, want) in table {
        let headers = headers(&[("accept", accept)]);
        assert_eq!(
            ErrorFormat::negotiate(&headers, &Query::default()),
            ErrorFormat(want)
        );
    }
}

#[test]
fn gzip_is_taken_only_from_a_bare_token_of_the_first_line() {
    let table: [(&[&'static str], bool); 8] = [
        (&[], false),
        (&[""], false),
        (&["gzip"], true),
        (&["br, gzip"], true),
        (&["deflate,\tgzip ,br"], true),
        (&["gzip;q=1.0"], false),
        (&["GZIP"], false),
        (&["br", "gzip"], false),
    ];
    for (lines, want) in table {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                header::ACCEPT_ENCODING,
                header::HeaderValue::from_static(line),
            );
        }
        assert_eq!(accepts_gzip(&headers), want, "{lines:?}");
    }
}
