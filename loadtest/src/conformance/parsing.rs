//! How queries and the numbers in them are read.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cluster::config_maps;
use super::expect::{expect, expect_forbidden, expect_status};
use super::{Cluster, Identity};
use crate::client::{Answer, JSON, Request};

/// A namespace with ConfigMaps of these names, each labelled `l` with its name.
pub(super) async fn labelled(cluster: &Cluster, names: &[&str]) -> anyhow::Result<String> {
    let namespace = cluster.namespace("a").await?;
    for name in names {
        let metadata = json!({"name": name, "labels": {"l": name}});
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        cluster.create(&config_maps(&namespace), &body).await?;
    }
    Ok(namespace)
}

/// The names in the list at a target, as the administrator.
pub(super) async fn names(cluster: &Cluster, target: &str) -> anyhow::Result<Vec<String>> {
    let list = cluster.admin().get(target).await?.ok();
    let list = list.with_context(|| target.to_owned())?;
    let items = list["items"].as_array().context("a list has items")?;
    let name = |item: &Value| item["metadata"]["name"].as_str().map(str::to_owned);
    Ok(items.iter().filter_map(name).collect())
}

/// Whether a GET of this target is a watch: its first bytes are an event, those of a list a list.
async fn is_watch(cluster: &Cluster, target: &str) -> anyhow::Result<bool> {
    let mut open = cluster.admin().send(Request::get(target)).await?;
    ensure!(open.status() == 200, "{target}: {}", open.status());
    let first = open.chunk().await?.unwrap_or_default();
    let is_watch = first.starts_with(b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"ConfigMap\",");
    let is_list = first.starts_with(b"{\"kind\":\"ConfigMapList\",");
    ensure!(is_watch != is_list, "{target}: {}", first.escape_ascii());
    Ok(is_watch)
}

pub(super) fn bad_request(answer: &Answer, message: &str) -> anyhow::Result<()> {
    expect_status(answer, 400, "BadRequest", message, "")
}

/// 1, 2: every value of `watch` is true but `0` and `false`, the empty one too.
pub async fn every_value_of_watch_but_zero_and_false_is_true(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let truths = [
        ("watch", true),
        ("watch=", true),
        ("watch=no", true),
        ("watch=1", true),
        ("watch=TRUE", true),
        ("watch=%20false", true),
        ("watch=00", true),
        ("watch=0", false),
        ("watch=false", false),
        ("watch=False", false),
        ("watch=fALSE", false),
        ("Watch=1", false),
    ];
    for (query, expected) in truths {
        let target = format!("{}?{query}", config_maps(&namespace));
        ensure!(is_watch(cluster, &target).await? == expected, "{target}");
    }
    Ok(())
}

/// 3: of a repeated parameter the first value counts.
pub async fn the_first_value_of_watch_counts(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    for (query, expected) in [("watch=1&watch=0", true), ("watch=0&watch=1", false)] {
        let target = format!("{}?{query}", config_maps(&namespace));
        ensure!(is_watch(cluster, &target).await? == expected, "{target}");
    }
    Ok(())
}

/// 5 to 8: `strconv.ParseInt` reads integers, and its words refuse what is none.
pub async fn an_integer_is_read_as_go_reads_it(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let collection = config_maps(&namespace);
    let refused = [
        ("limit=abc", "abc", "invalid syntax"),
        ("limit=", "", "invalid syntax"),
        ("limit", "", "invalid syntax"),
        ("limit=1e3", "1e3", "invalid syntax"),
        ("limit=0x10", "0x10", "invalid syntax"),
        ("limit=1_000", "1_000", "invalid syntax"),
        ("limit=%205", " 5", "invalid syntax"),
        ("limit=%C3%A9", "é", "invalid syntax"),
        (
            "limit=99999999999999999999",
            "99999999999999999999",
            "value out of range",
        ),
        (
            "limit=9223372036854775808",
            "9223372036854775808",
            "value out of range",
        ),
        (
            "limit=-9223372036854775809",
            "-9223372036854775809",
            "value out of range",
        ),
        ("timeoutSeconds=1.5&watch=1", "1.5", "invalid syntax"),
        ("timeoutSeconds=", "", "invalid syntax"),
        // The first of two in the order they are decoded in, and before any selector is parsed.
        ("limit=y&timeoutSeconds=x", "x", "invalid syntax"),
        ("labelSelector=a%20b&limit=abc", "abc", "invalid syntax"),
        ("watch=1&limit=abc", "abc", "invalid syntax"),
    ];
    for (query, value, why) in refused {
        let answer = cluster
            .admin()
            .get(&format!("{collection}?{query}"))
            .await?;
        let message = format!("strconv.ParseInt: parsing \"{value}\": {why}");
        bad_request(&answer, &message).with_context(|| query)?;
    }
    for query in [
        "limit=%2B5",
        "limit=-5",
        "limit=-0",
        "limit=0005",
        "timeoutSeconds=-1",
    ] {
        let target = format!("{collection}?{query}");
        ensure!(names(cluster, &target).await? == ["x"], "{target}");
    }
    Ok(())
}

/// 9: `timeout` is read before credentials, and refused in the words of `time.ParseDuration`.
pub async fn a_bad_timeout_is_refused_before_anyone_asks_who_it_is(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let collection = config_maps(&namespace);
    let anonymous = Identity::anonymous();
    let stranger = crate::apiserver::certs::Pki::ephemeral()?.issue("stranger", None)?;
    for identity in [
        anonymous.clone(),
        anonymous.with_token("bad"),
        Identity::of(stranger),
        cluster.user("admin", Some("system:masters"))?,
    ] {
        let client = cluster.client(&identity)?;
        for (value, why) in [
            ("abc", r#"invalid duration "abc""#),
            ("5", r#"missing unit in duration "5""#),
            ("1d", r#"unknown unit "d" in duration "1d""#),
            (".s", r#"invalid duration ".s""#),
        ] {
            let answer = client.get(&format!("{collection}?timeout={value}")).await?;
            let message = format!("invalid timeout specified in the request URL - time: {why}");
            bad_request(&answer, &message)?;
        }
    }
    for value in ["", "0", "10s", "100m", "1h2m3.5s", "%2B5s"] {
        let target = format!("{collection}?timeout={value}");
        ensure!(names(cluster, &target).await? == ["x"], "{target}");
    }
    Ok(())
}

/// 10: of a watch `timeout` is not read.
pub async fn a_watch_has_no_timeout_parameter(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let target = format!("{}?timeout=abc&watch=1", config_maps(&namespace));
    ensure!(is_watch(cluster, &target).await?);
    Ok(())
}

/// 11: what a label selector's parser says is the message, for lists and watches.
pub async fn a_bad_label_selector_is_refused_in_the_words_of_its_parser(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let operators = "in, notin, =, ==, !=, gt, lt";
    let name_part = "name part must consist of alphanumeric characters, '-', '_' or '.', and must \
        start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
        '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let refused = [
        (
            "a%20b",
            format!("unable to parse requirement: found 'b', expected: {operators}"),
        ),
        (
            "a(b)",
            format!("unable to parse requirement: found '(', expected: {operators}"),
        ),
        ("a,", "found '', expected: identifier after ','".to_owned()),
        (
            ",",
            "found ',', expected: !, identifier, or 'end of string'".to_owned(),
        ),
        (
            "!k=v",
            "found '=', expected: ',' or 'end of string'".to_owned(),
        ),
        (
            "!!a",
            "unable to parse requirement: found '!', expected: identifier".to_owned(),
        ),
        (
            "a%20in%20b",
            "unable to parse requirement: found 'b' expected: '('".to_owned(),
        ),
        (
            "a%20in%20(x",
            "unable to parse requirement: found '', expected: ',' or ')'".to_owned(),
        ),
        (
            "a%3Ex",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' \
             operators, the value must be an integer"
                .to_owned(),
        ),
        (
            "-a=b",
            format!("unable to parse requirement: <nil>: Invalid value: \"-a\": {name_part}"),
        ),
    ];
    for (selector, message) in refused {
        for watch in ["", "&watch=1"] {
            let query = format!("labelSelector={selector}{watch}");
            let target = format!("{}?{query}", config_maps(&namespace));
            let answer = cluster.admin().get(&target).await?;
            bad_request(&answer, &message).context(query)?;
        }
    }
    Ok(())
}

/// 12: who may not is told so, whatever else is wrong; only `timeout` comes before.
pub async fn what_is_forbidden_is_not_looked_at(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let user = cluster.name("alice");
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let collection = config_maps(&namespace);
    for (query, verb) in [
        ("labelSelector=a%20b", "list"),
        ("fieldSelector=foo", "list"),
        ("fieldSelector=data.x%3D1", "list"),
        ("limit=abc", "list"),
        ("resourceVersion=abc", "list"),
        ("resourceVersionMatch=foo", "list"),
        ("continue=garbage", "list"),
        ("sendInitialEvents=true", "list"),
        ("watch=1&limit=abc", "watch"),
        ("watch=1&resourceVersion=abc", "watch"),
        ("watch=1&labelSelector=a%20b", "watch"),
        // What cannot be decoded names nothing.
        ("fieldSelector=metadata.name%3Dx&limit=abc", "list"),
    ] {
        let answer = alice.get(&format!("{collection}?{query}")).await?;
        let message = format!(
            "configmaps is forbidden: User \"{user}\" cannot {verb} resource \"configmaps\" in \
             API group \"\" in the namespace \"{namespace}\""
        );
        expect_forbidden(&answer, &message, r#"{"kind":"configmaps"}"#).with_context(|| query)?;
    }
    let answer = alice.get(&format!("{collection}?timeout=abc")).await?;
    bad_request(
        &answer,
        "invalid timeout specified in the request URL - time: invalid duration \"abc\"",
    )
}

/// 13: a pair with a `;` or a bad escape is dropped, for filtering and for authorization alike.
pub async fn a_pair_with_a_semicolon_or_a_bad_escape_is_dropped(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x", "y", "z"]).await?;
    let collection = config_maps(&namespace);
    let filtered: [(&str, &[&str]); 10] = [
        (
            "fieldSelector=metadata.name=x;labelSelector=y",
            &["x", "y", "z"],
        ),
        ("fieldSelector=metadata.name%3Dx;", &["x", "y", "z"]),
        (
            "fieldSelector=metadata.name%3Dx;a=b&labelSelector=l%3Dy",
            &["y"],
        ),
        ("labelSelector=l%3Dx;&labelSelector=l%3Dy", &["y"]),
        ("labelSelector=l%3Dx%zz", &["x", "y", "z"]),
        ("labelSelector=l%3Dx&limit=%zz", &["x"]),
        ("labelSelector=l%3Dx%", &["x", "y", "z"]),
        ("labelSelector=l+in+(x,y)", &["x", "y"]),
        ("label%53elector=l%3Dx", &["x"]),
        ("?labelSelector=l%3Dx", &["x", "y", "z"]),
    ];
    for (query, expected) in filtered {
        let target = format!("{collection}?{query}");
        let names = names(cluster, &target).await?;
        ensure!(names == expected, "{target}: {names:?}");
    }
    let user = cluster.name("alice");
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["x"],
        "verbs": ["list"]});
    cluster.allow(&user, &namespace, &rule).await?;
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let named = format!("{collection}?fieldSelector=metadata.name%3Dx");
    alice.get(&named).await?.ok()?;
    for query in [";", ";a=b", "%zz", "%"] {
        let answer = alice.get(&format!("{named}{query}")).await?;
        let message = format!(
            "configmaps is forbidden: User \"{user}\" cannot list resource \"configmaps\" in API \
             group \"\" in the namespace \"{namespace}\""
        );
        expect_forbidden(&answer, &message, r#"{"kind":"configmaps"}"#).with_context(|| query)?;
    }
    Ok(())
}

/// 14: of two field selectors the first filters, and names what is authorised.
pub async fn the_first_field_selector_filters_and_is_authorised(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x", "y"]).await?;
    let collection = config_maps(&namespace);
    let both = |first: &str, second: &str| {
        format!(
            "{collection}?fieldSelector=metadata.name%3D{first}&fieldSelector=metadata.name%3D\
             {second}"
        )
    };
    ensure!(names(cluster, &both("x", "y")).await? == ["x"]);
    ensure!(names(cluster, &both("y", "x")).await? == ["y"]);

    let user = cluster.name("alice");
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["x"],
        "verbs": ["list"]});
    cluster.allow(&user, &namespace, &rule).await?;
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let list = alice.get(&both("x", "y")).await?.ok()?;
    ensure!(list["items"][0]["metadata"]["name"] == "x" && list["items"][1].is_null());
    expect_forbidden(
        &alice.get(&both("y", "x")).await?,
        &format!(
            "configmaps \"y\" is forbidden: User \"{user}\" cannot list resource \"configmaps\" \
             in API group \"\" in the namespace \"{namespace}\""
        ),
        r#"{"name":"y","kind":"configmaps"}"#,
    )
}

/// 15: a parameter nobody knows changes nothing, nor does one in other letters.
pub async fn an_unknown_parameter_changes_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x", "y"]).await?;
    let collection = config_maps(&namespace);
    for query in [
        "foo=bar",
        "LabelSelector=l%3Dx",
        "labelselector=l%3Dx",
        "includeUninitialized=true",
        "=",
        "&&&",
        "",
    ] {
        let target = format!("{collection}?{query}");
        ensure!(names(cluster, &target).await? == ["x", "y"], "{target}");
    }
    Ok(())
}

/// 22: `export` is refused unless it is false.
pub async fn export_is_no_longer_supported(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let object = format!("{}/x", config_maps(&namespace));
    let plain = cluster.direct().get(&object).await?.text();
    for query in ["export=1", "export=true", "export=", "export"] {
        let answer = cluster.admin().get(&format!("{object}?{query}")).await?;
        let message = "the export parameter, deprecated since v1.14, is no longer supported";
        bad_request(&answer, message).with_context(|| query)?;
    }
    for query in ["export=false", "export=0", "export=False"] {
        let answer = cluster.admin().get(&format!("{object}?{query}")).await?;
        expect(&answer, 200, JSON, &plain).with_context(|| query)?;
    }
    Ok(())
}

/// 23: of the options of lists a GET knows `resourceVersion` only.
pub async fn a_get_knows_no_resource_version_match(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let object = format!("{}/x", config_maps(&namespace));
    let plain = cluster.direct().get(&object).await?.text();
    for query in [
        "resourceVersionMatch=Exact",
        "resourceVersionMatch=foo",
        "resourceVersion=0&resourceVersionMatch=Exact",
        "limit=abc",
        "labelSelector=a%20b",
        "fieldSelector=metadata.name%3Dy",
        "continue=garbage",
        "sendInitialEvents=true",
    ] {
        let answer = cluster.admin().get(&format!("{object}?{query}")).await?;
        expect(&answer, 200, JSON, &plain).with_context(|| query)?;
    }
    Ok(())
}
