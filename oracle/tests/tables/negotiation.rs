//! `Accept`, `Accept-Encoding`, and who counts as a person.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use watershed::door;
use watershed_loadtest::apiserver::{negotiate, request};

use super::{Differences, rows};

#[test]
fn accept_headers_are_those_of_go() {
    type Go = (bool, Option<String>, Option<String>, Option<String>, usize);
    let mut differences = Differences::default();
    for (input, go) in rows::<Go>(include_str!("../../tables/accept.json")) {
        let input = input.lossy();
        let (routed, builtin, custom, error, clauses) = go;
        let judged = [
            door::negotiated(&input, false),
            door::negotiated(&input, true),
        ];
        let forwarded = judged
            .iter()
            .all(|it| it.is_none() || *it == Some(Err("router")));
        if clauses > 12 || !input.is_ascii() || (oddly_weighted(&input) && forwarded) {
            // Go's sort is another one there, or its numbers are; neither is reproduced.
            if routed {
                differences.check(&input, "proxy", &door::negotiated(&input, false), &None);
            }
            differences.check(&input, "proxy", &door::negotiated(&input, true), &None);
            continue;
        }
        let builtin = if routed {
            builtin.ok_or("handler")
        } else {
            Err("router")
        };
        differences.check(
            &input,
            "proxy built-in",
            &door::negotiated(&input, false),
            &Some(builtin.clone()),
        );
        differences.check(
            &input,
            "proxy custom",
            &door::negotiated(&input, true),
            &Some(custom.clone().ok_or("handler")),
        );
        let error = error.unwrap_or_else(|| "json pretty".to_owned());
        differences.check(
            &input,
            "proxy error",
            &door::negotiated_error(&input),
            &Some(error),
        );
        compare_judge(&mut differences, &input, (routed, custom));
    }
}

fn compare_judge(
    differences: &mut Differences,
    input: &str,
    (routed, custom): (bool, Option<String>),
) {
    let headers = headers(header::ACCEPT, input);
    let form = |format: negotiate::Format| {
        let subtype = match format.media {
            negotiate::Media::Json => "json",
            negotiate::Media::Yaml => "yaml",
            negotiate::Media::Protobuf => "protobuf",
        };
        let version = |v1| if v1 { "v1" } else { "v1beta1" };
        let transform = match format.transform {
            negotiate::Transform::None => String::new(),
            negotiate::Transform::Table(v1) => format!(" Table.{}", version(v1)),
            negotiate::Transform::Partial(v1) => format!(" PartialObjectMetadata.{}", version(v1)),
            negotiate::Transform::PartialList(v1) => {
                format!(" PartialObjectMetadataList.{}", version(v1))
            }
        };
        format!(
            "{subtype}{transform}{}",
            if format.pretty { " pretty" } else { "" }
        )
    };
    let endpoint = negotiate::Endpoint {
        custom: true,
        transforms: true,
    };
    let judge = negotiate::negotiate(&headers, &request::Query::parse(""), endpoint);
    differences.check(&input, "embedded custom", &judge.ok().map(form), &custom);
    let judge = negotiate::route(&headers, true).is_ok();
    differences.check(&input, "embedded router", &judge, &routed);
}

fn headers(name: HeaderName, value: &str) -> HeaderMap {
    let value = HeaderValue::from_bytes(value.as_bytes()).expect("no control characters");
    [(name, value)].into_iter().collect()
}

#[test]
fn compression_is_asked_for_as_in_go() {
    let mut differences = Differences::default();
    for (input, go) in rows::<bool>(include_str!("../../tables/gzip.json")) {
        let input = input.lossy();
        // The HTTP library lets no other control character pass.
        if input.contains(|c: char| c.is_ascii_control() && c != '\t') {
            continue;
        }
        let headers = headers(header::ACCEPT_ENCODING, &input);
        differences.check(
            &input,
            "embedded",
            &negotiate::compresses(&headers, 1 << 20),
            &go,
        );
    }
}

/// A hexadecimal `q`, or one with underscores.
fn oddly_weighted(accept: &str) -> bool {
    let odd = |q: &str| {
        q.contains('_')
            || q.trim_start_matches(['+', '-'])
                .to_lowercase()
                .starts_with("0x")
    };
    accept.split([',', ';']).any(|part| {
        part.split_once('=')
            .is_some_and(|(name, q)| name.trim() == "q" && odd(q))
    })
}

#[test]
fn people_are_recognised_as_in_go() {
    let mut differences = Differences::default();
    for (input, go) in rows::<bool>(include_str!("../../tables/pretty.json")) {
        let input = input.lossy();
        let (query, agent) = input.split_once('\n').unwrap();
        differences.check(&input, "proxy", &door::pretty(query, agent), &Some(go));
    }
}
