//! Request targets: the query string, `RequestInfo` and `ListOptions`.

use serde::Deserialize;
use watershed::door::{self, Info, Options, QueryDoor, Target};
use watershed_cache::selector::LabelSelector;
use watershed_loadtest::apiserver::request;

use super::{Answer, Differences, Text, rows};

#[test]
fn query_strings_are_read_as_go_reads_them() {
    let mut differences = Differences::default();
    #[derive(Deserialize)]
    struct Go {
        values: Vec<(Text, Vec<Text>)>,
        #[serde(default)]
        dropped: bool,
    }
    for (input, go) in rows::<Go>(include_str!("../../tables/query.json")) {
        let input = input.lossy();
        let query = QueryDoor::parse(&input);
        let judge = request::Query::parse(&input);
        let is_text = |text: &Text| text.utf8().is_some();
        let text = go
            .values
            .iter()
            .all(|(name, values)| is_text(name) && values.iter().all(is_text));
        if go.dropped || !text {
            differences.check(&input, "doubt", &query.doubt(), &Some("query"));
        }
        for (name, values) in &go.values {
            let name = name.lossy();
            let first = values[0].lossy();
            differences.check(
                &input,
                "proxy",
                &query.first(&name).map(str::to_owned),
                &Some(first.clone()),
            );
            let all: Vec<String> = values.iter().map(Text::lossy).collect();
            if text {
                differences.check(
                    &input,
                    "embedded",
                    &judge.all(&name).map(str::to_owned).collect(),
                    &all,
                );
            }
        }
        let names: Vec<String> = go.values.iter().map(|(name, _)| name.lossy()).collect();
        for name in [
            "watch",
            "limit",
            "fieldSelector",
            "labelSelector",
            "a",
            "b",
            "c",
            "d",
            "",
        ] {
            if !names.iter().any(|known| known == name) {
                differences.check(&input, "proxy", &query.first(name), &None);
                differences.check(&input, "embedded", &judge.first(name), &None);
            }
        }
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GoOptions {
    label_selector: String,
    field_selector: String,
    watch: bool,
    allow_watch_bookmarks: bool,
    resource_version: String,
    resource_version_match: String,
    timeout_seconds: Option<i64>,
    limit: i64,
    #[serde(rename = "continue")]
    continue_token: String,
    send_initial_events: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GoInfo {
    path: Text,
    verb: String,
    #[serde(default)]
    resource_request: bool,
    group: Option<Text>,
    version: Option<Text>,
    namespace: Option<Text>,
    resource: Option<Text>,
    subresource: Option<Text>,
    name: Option<Text>,
    field_selector: Option<Text>,
    label_selector: Option<Text>,
    options: Option<Answer<GoOptions>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum GoTarget {
    Refused {
        #[serde(rename = "refused")]
        _always: bool,
    },
    Error {
        error: Text,
    },
    Info(Box<GoInfo>),
}

#[test]
fn request_targets_are_read_as_go_reads_them() {
    let mut differences = Differences::default();
    let mut compared = 0;
    for (input, go) in rows::<GoTarget>(include_str!("../../tables/target.json")) {
        let input = input.lossy();
        let (method, target) = input.split_once(' ').unwrap();
        let got = door::target(method, target);
        match (got, go) {
            // What the HTTP library refuses the client is told by it: 400.
            (Target::NoUri, _) => {}
            (Target::Refused(400, _), GoTarget::Refused { .. }) => compared += 1,
            (Target::Refused(500, text), GoTarget::Error { error }) => {
                let error = error
                    .lossy()
                    .replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace('>', "&gt;")
                    + "\n";
                differences.check(&input, "500", &text, &error);
            }
            (Target::Info(info), GoTarget::Info(go)) => {
                compared += 1;
                compare_judge(&mut differences, &input, &go);
                compare_info(&mut differences, &input, &info, *go);
            }
            (got, go) => differences.check(&input, "kind", &format!("{got:?}"), &format!("{go:?}")),
        }
    }
    assert!(compared > 400, "{compared} compared");
}

/// The embedded apiserver, which keeps no text that is not UTF-8.
fn compare_judge(differences: &mut Differences, input: &str, go: &GoInfo) {
    let (method, target) = input.split_once(' ').expect("a method and a target");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = request::Query::parse(query);
    let info = request::RequestInfo::parse(&method.parse().expect("a method"), path, &query)
        .expect("Go found no error");
    let text = |text: &Option<Text>| text.as_ref().map(Text::lossy).unwrap_or_default();
    differences.check(&input, "embedded", &info.is_resource, &go.resource_request);
    let pairs = [
        (&info.path, go.path.lossy()),
        (&info.verb, go.verb.clone()),
        (&info.group, text(&go.group)),
        (&info.version, text(&go.version)),
        (&info.namespace, text(&go.namespace)),
        (&info.resource, text(&go.resource)),
        (&info.subresource, text(&go.subresource)),
        (&info.name, text(&go.name)),
        (&info.field_selector, text(&go.field_selector)),
        (&info.label_selector, text(&go.label_selector)),
    ];
    for (got, go) in pairs {
        differences.check(&input, "embedded", got, &go);
    }
}

fn compare_info(differences: &mut Differences, input: &str, info: &Info, go: GoInfo) {
    let text = |text: Option<Text>| text.map(|it| it.lossy()).unwrap_or_default();
    differences.check(
        &input,
        "resource request",
        &info.is_resource,
        &go.resource_request,
    );
    let pairs = [
        ("path", &info.path, Some(go.path)),
        ("verb", &info.verb, Some(Text::Utf8(go.verb))),
        ("group", &info.group, go.group),
        ("version", &info.version, go.version),
        ("namespace", &info.namespace, go.namespace),
        ("resource", &info.resource, go.resource),
        ("subresource", &info.subresource, go.subresource),
        ("name", &info.name, go.name),
        ("fieldSelector", &info.field_selector, go.field_selector),
        ("labelSelector", &info.label_selector, go.label_selector),
    ];
    for (what, got, go) in pairs {
        differences.check(&input, what, got, &text(go));
    }
    // With such a query the request is forwarded before anyone looks at its options.
    let query = input.split_once('?').map_or("", |(_, query)| query);
    let is_text = QueryDoor::parse(query).doubt() != Some("query");
    if let Some(got) = info.options.as_ref().filter(|_| is_text) {
        let go = go
            .options
            .expect("of every resource request")
            .result()
            .map(|go| Options {
                // Go keeps how a term was spelt.
                label_selector: LabelSelector::parse(&go.label_selector)
                    .expect("Go printed it")
                    .to_string(),
                field_selector: go.field_selector,
                watch: go.watch,
                allow_watch_bookmarks: go.allow_watch_bookmarks,
                resource_version: go.resource_version,
                resource_version_match: go.resource_version_match,
                timeout_seconds: go.timeout_seconds,
                limit: go.limit,
                continue_token: go.continue_token,
                send_initial_events: go.send_initial_events,
            });
        differences.check(&input, "options", got, &go);
    }
}
