//! Numbers, booleans, durations, and how strings stand in error texts.

use watershed::door;
use watershed_cache::ResourceVersion;
use watershed_loadtest::apiserver::request;
use watershed_quote::quote;

use super::{Answer, Differences, rows};

fn go_scalar(table: &str, check: impl Fn(&mut Differences, &str, Result<String, String>)) {
    let mut differences = Differences::default();
    for (input, answer) in rows::<Answer<String>>(table) {
        let input = input.utf8().expect("these inputs are text");
        check(&mut differences, input, answer.result());
    }
}

#[test]
fn integers_are_those_of_go() {
    go_scalar(
        include_str!("../../tables/int.json"),
        |differences, input, go| {
            let got = door::parse_int(input).map(|number| number.to_string());
            differences.check(&input, "proxy", &got, &go);
            let query = request::Query::parse(&format!("limit={}", escaped(input)));
            let judge = request::ListOptions::decode(&query)
                .map(|options| options.limit.to_string())
                .map_err(|status| status.message);
            differences.check(&input, "embedded", &judge, &go);
        },
    );
}

#[test]
fn resource_versions_are_those_of_go() {
    go_scalar(
        include_str!("../../tables/uint.json"),
        |differences, input, go| {
            let got = ResourceVersion::parse_strict(input)
                .map(|number| number.to_string())
                .map_err(|error| error.to_string());
            let go = go.map_err(|error| {
                format!("resourceVersion: Invalid value: {}: {error}", quote(input))
            });
            differences.check(&input, "cache", &got, &go);
            if !input.is_empty() {
                let judge = request::parse_resource_version(input).map(|number| number.to_string());
                differences.check(&input, "embedded", &judge, &go);
            }
        },
    );
}

#[test]
fn durations_are_those_of_go() {
    go_scalar(
        include_str!("../../tables/duration.json"),
        |differences, input, go| {
            let got = door::parse_duration(input).map(|nanos| nanos.to_string());
            differences.check(&input, "proxy", &got, &go);
        },
    );
}

#[test]
fn booleans_are_those_of_go() {
    let mut differences = Differences::default();
    for (input, go) in rows::<Option<bool>>(include_str!("../../tables/bool.json")) {
        let input = input.lossy();
        differences.check(&input, "proxy", &door::parse_bool(&input), &go);
        differences.check(&input, "embedded", &request::go_parse_bool(&input), &go);
    }
    for (input, go) in rows::<bool>(include_str!("../../tables/flag.json")) {
        let input = input.lossy();
        differences.check(&input, "proxy", &door::flag(&input), &go);
        differences.check(&input, "embedded", &request::go_bool(&input), &go);
    }
}

#[test]
fn quotes_are_those_of_go() {
    let mut differences = Differences::default();
    for (input, go) in rows::<String>(include_str!("../../tables/quote.json")) {
        let input = input.lossy();
        differences.check(&input, "quote", &quote(&input), &go);
        differences.check(&input, "embedded", &request::go_quote(&input), &go);
    }
}

#[test]
fn the_characters_that_print_are_those_of_go() {
    let ranges: Vec<(u32, u32)> =
        serde_json::from_str(include_str!("../../tables/printable.json")).unwrap();
    // Both sides of every border, and some of the rest.
    let borders = ranges
        .iter()
        .flat_map(|&(from, to)| [from - 1, from, to, to + 1]);
    let mut differences = Differences::default();
    for c in borders
        .chain((0..0x11_0000).step_by(101))
        .filter_map(char::from_u32)
    {
        if matches!(c, '"' | '\\') {
            continue;
        }
        let after = ranges.partition_point(|&(_, to)| to < u32::from(c));
        let go = ranges
            .get(after)
            .is_some_and(|&(from, _)| from <= u32::from(c));
        let unescaped = |quoted: String| quoted.chars().nth(1) == Some(c);
        let text = c.to_string();
        differences.check(&c, "quote", &unescaped(quote(&text)), &go);
        differences.check(&c, "embedded", &unescaped(request::go_quote(&text)), &go);
    }
}

#[test]
fn error_texts_are_escaped_as_in_go() {
    let mut differences = Differences::default();
    for (input, go) in rows::<String>(include_str!("../../tables/json.json")) {
        let input = input.lossy();
        let status = String::from_utf8(door::json_text(&input)).unwrap();
        let got = status
            .split_once(r#""message":"#)
            .and_then(|(_, rest)| rest.split_once(r#","reason":"#))
            .map(|(message, _)| message.to_owned());
        let go = if input.is_empty() { None } else { Some(go) };
        differences.check(&input, "proxy", &got, &go);
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
