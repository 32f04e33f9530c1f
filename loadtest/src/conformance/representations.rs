//! The bytes of lists, and how they are indented and compressed.

use std::io::Read as _;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Cluster;
use super::cluster::config_maps;
use super::expect::expect;
use super::scene::{Custom, begin, version, watching};
use crate::client::{Answer, JSON, PROTOBUF, Request};

/// An answer in this form, which must be given.
///
/// # Errors
/// When it is not.
pub(super) async fn ask(cluster: &Cluster, target: &str, accept: &str) -> anyhow::Result<Answer> {
    let request = Request::get(target).header("accept", accept);
    let answer = cluster.admin().whole(request).await?;
    ensure!(
        answer.status == 200,
        "{target}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(answer)
}

/// A ConfigMap that has more than metadata.
pub(super) fn filled(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": app}}, "data": {"k": "v"}})
}

/// Compact JSON as a person reads it: two spaces a level, empty arrays and objects on one line, no
/// newline at the end.
fn pretty(compact: &str) -> String {
    let (mut out, mut depth, mut text) = (String::new(), 0_usize, false);
    let mut characters = compact.trim_end().chars().peekable();
    while let Some(character) = characters.next() {
        let opens = !text && matches!(character, '{' | '[');
        if text && character == '\\' {
            out.push(character);
            out.extend(characters.next());
            continue;
        }
        text ^= character == '"';
        if !text && matches!(character, '}' | ']') {
            depth -= 1;
            if !out.ends_with(['{', '[']) {
                out.push('\n');
                out.extend(std::iter::repeat_n("  ", depth));
            }
        }
        out.push(character);
        depth += usize::from(opens);
        let is_empty = matches!(characters.peek(), Some('}' | ']'));
        if (opens && !is_empty) || (!text && character == ',') {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        } else if !text && character == ':' {
            out.push(' ');
        }
    }
    out
}

/// 125: who looks like a person gets indented JSON, without a newline at the end, unless `pretty`
/// says otherwise; a stream never is indented.
pub async fn a_person_gets_indented_json(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let mut body = filled("x", "a");
    body["metadata"]["annotations"] = json!({"note": "a \"quoted\", {braced}: [text] \\"});
    cluster.create(&collection, &body).await?;
    let newest = begin(cluster, &collection).await?;
    for target in [
        format!("{collection}?resourceVersion={newest}"),
        format!("{collection}/x?resourceVersion={newest}"),
        format!("{collection}/nope?resourceVersion={newest}"),
    ] {
        let compact = cluster.admin().get(&target).await?;
        ensure!(compact.text().ends_with("}\n"));
        let is_list = compact.json()?["items"].is_array();
        let listed = compact.json()?["metadata"]["resourceVersion"].to_string();
        for (agent, query, is_indented) in [
            ("curl/8.1", "", true),
            ("Wget/1.2", "", true),
            ("Mozilla/5.0 (X11)", "", true),
            ("curl/8.1", "&pretty=", true),
            ("curl/8.1", "&pretty=false", false),
            ("curl/8.1", "&pretty=nonsense", false),
            ("conformance/1.0", "&pretty=true", true),
            ("conformance/1.0", "&pretty=1", true),
            ("xcurl", "", false),
        ] {
            let request = Request::get(format!("{target}{query}")).header("user-agent", agent);
            let answer = cluster.admin().whole(request).await?;
            let mut expected = compact.text();
            if is_list {
                // Others write in between; its version comes first.
                let own = answer.json()?["metadata"]["resourceVersion"].to_string();
                expected = expected.replacen(&listed, &own, 1);
            }
            if is_indented {
                expected = pretty(&expected);
            }
            expect(&answer, compact.status, JSON, &expected)
                .with_context(|| format!("{agent} {target}{query}"))?;
        }
        let request = Request::get(&target).header("accept", "application/json;pretty=1");
        let text = cluster.admin().whole(request).await?.text();
        ensure!(
            text.starts_with("{\n  \"kind\": ") && text.ends_with("\n}"),
            "{text}"
        );
    }
    let request = watching(&collection, "pretty=1", JSON).header("user-agent", "curl/8.1");
    let event = cluster.admin().watch(request).await?.event_now().await?;
    ensure!(
        event
            .raw
            .starts_with(b"{\"type\":\"ADDED\",\"object\":{\"kind\":"),
        "{event:?}"
    );
    Ok(())
}

/// Bodies up to this length are never compressed.
const IDENTITY_MAX: usize = 128 << 10;

/// 126: a list of more than 128 KiB is compressed for whoever says `gzip` and nothing more than
/// that in one of the elements of `Accept-Encoding`.
pub async fn a_list_is_compressed_beyond_128_kibibytes(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"},
        "data": {"pad": "x"}});
    cluster.create(&collection, &body).await?;
    for length in [IDENTITY_MAX, IDENTITY_MAX + 1] {
        let target = padded(cluster, &collection, length).await?;
        let plain = cluster.admin().get(&target).await?;
        let own = (plain.body.len(), plain.headers.get("vary"));
        ensure!(
            own == (length, None),
            "expected {length} bytes, got {own:?}"
        );
        for (accept, is_asked) in [
            ("gzip", true),
            ("br, gzip", true),
            ("gzip;q=1.0", false),
            ("GZIP", false),
            ("*", false),
            ("br", false),
        ] {
            let request = Request::get(&target).header("accept-encoding", accept);
            let answer = cluster.admin().whole(request).await?;
            let headers = (answer.header("content-encoding"), answer.header("vary"));
            let body = if is_asked && length > IDENTITY_MAX {
                ensure!(
                    headers == ("gzip", "Accept-Encoding"),
                    "{accept}: {headers:?}"
                );
                let mut body = Vec::new();
                flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut body)?;
                Bytes::from(body)
            } else {
                ensure!(headers == ("", ""), "{accept} at {length}: {headers:?}");
                answer.body
            };
            // Others write in between, so its version may be another.
            let own: Value = serde_json::from_slice(&body)?;
            let same = body.len() == length && own["items"] == plain.json()?["items"];
            ensure!(same, "{accept}: another list");
        }
    }
    Ok(())
}

/// Fills the only ConfigMap until its list is exactly as long as wanted; the list, by version.
async fn padded(cluster: &Cluster, collection: &str, length: usize) -> anyhow::Result<String> {
    let mut pad: usize = 1;
    for _ in 0..10 {
        let body = json!({"data": {"pad": "x".repeat(pad)}});
        let changed = cluster
            .change("PATCH", &format!("{collection}/x"), &body)
            .await?;
        // Lists at this version or a newer one of the same length: versions grow slowly.
        let target = format!("{collection}?resourceVersion={}", version(&changed)?);
        let own = cluster.admin().get(&target).await?.body.len();
        if own == length {
            return Ok(target);
        }
        pad = (pad + length).saturating_sub(own);
    }
    anyhow::bail!("no list of {length} bytes")
}

/// 127: what could end a script, and what JavaScript takes for line ends, is escaped in JSON.
pub async fn what_html_could_misread_is_escaped(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let from = begin(cluster, &collection).await?;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x",
        "annotations": {"note": "<&>\u{2028}\u{2029}\u{8}\u{c}\u{1}\u{7f}\u{e9}"}}});
    cluster.create(&collection, &body).await?;
    let escaped =
        r#"{"note":"\u003c\u0026\u003e\u2028\u2029\b\f\u0001"#.to_owned() + "\u{7f}\u{e9}\"}";
    for target in [collection.clone(), format!("{collection}/x")] {
        let text = cluster.admin().get(&target).await?.text();
        ensure!(text.contains(&escaped), "{text}");
    }
    let query = format!("resourceVersion={from}");
    let mut watch = cluster
        .admin()
        .watch(watching(&collection, &query, JSON))
        .await?;
    let event = String::from_utf8(watch.event_now().await?.raw.to_vec())?;
    ensure!(event.contains(&escaped), "{event}");
    Ok(())
}

/// 128: items of built-in lists have no type of their own, those of custom resources do; the
/// members of a custom list are sorted, and it always says `continue`.
pub async fn a_list_has_the_bytes_of_its_objects(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let custom = Custom::define(cluster).await?;
    let (widgets, config_maps) = (custom.collection(&namespace), config_maps(&namespace));
    for name in ["x", "y"] {
        cluster
            .create(&widgets, &custom.widget(name, "red"))
            .await?;
        cluster.create(&config_maps, &filled(name, "a")).await?;
    }
    let one = async |target: String| -> anyhow::Result<String> {
        let text = cluster.direct().get(&target).await?.text();
        Ok(text.trim_end().to_owned())
    };
    let (x, y) = (
        one(format!("{config_maps}/x")).await?,
        one(format!("{config_maps}/y")).await?,
    );
    let type_meta = r#""kind":"ConfigMap","apiVersion":"v1","#;
    let [x, y] = [x, y].map(|own| own.replacen(type_meta, "", 1));
    let answer = cluster.admin().get(&config_maps).await?;
    let newest = version(&answer.json()?)?;
    let head = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":""#;
    expect(
        &answer,
        200,
        JSON,
        &format!("{head}{newest}\"}},\"items\":[{x},{y}]}}\n"),
    )?;

    let (x, y) = (
        one(format!("{widgets}/x")).await?,
        one(format!("{widgets}/y")).await?,
    );
    let group = &custom.group;
    ensure!(x.starts_with(&format!(
        "{{\"apiVersion\":\"{group}/v1\",\"kind\":\"Widget\",\"metadata\":{{\"creationTimestamp\":"
    )));
    let answer = cluster.admin().get(&widgets).await?;
    let newest = version(&answer.json()?)?;
    let body = format!(
        "{{\"apiVersion\":\"{group}/v1\",\"items\":[{x},{y}],\"kind\":\"WidgetList\",\
         \"metadata\":{{\"continue\":\"\",\"resourceVersion\":\"{newest}\"}}}}\n"
    );
    expect(&answer, 200, JSON, &body)
}

/// 129: an empty list in protobuf, to the last byte.
pub async fn an_empty_list_has_these_bytes(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let answer = ask(cluster, &config_maps(&namespace), PROTOBUF).await?;
    let list = crate::kubelet::decode::List::decode(&answer.body)?;
    let version = list.resource_version.to_string();
    let length = u8::try_from(version.len())?;
    let mut expected = b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dConfigMapList\x12".to_vec();
    expected.extend([length + 8, 0x0a, length + 6, 0x0a, 0, 0x12, length]);
    expected.extend(version.as_bytes());
    expected.extend(b"\x1a\0\x1a\0\x22\0");
    ensure!(
        answer.body == expected,
        "{:?} is not {expected:?}",
        answer.body
    );
    ensure!(answer.header("content-type") == PROTOBUF);
    Ok(())
}
