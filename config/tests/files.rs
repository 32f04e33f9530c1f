//! Each bad file stands next to the lines it must produce; good files load.
//!
//! With `WATERSHED_BLESS=1` in the environment the expected lines, the schema and the reference
//! are written instead of compared: read the difference before committing it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use watershed_config::{Config, Credentials, Encoding, FileContent, LoadError, schema};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Compares `found` with a committed file, or writes it when asked to.
fn committed(path: &Path, found: &str) {
    if std::env::var_os("WATERSHED_BLESS").is_some() {
        std::fs::write(path, found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        found,
        expected,
        "{} is not what the code says; see the top of tests/files.rs",
        path.display()
    );
}

fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn every_bad_file_gets_its_messages() {
    for path in files("bad") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = Path::new(path.file_name().unwrap());
        let error = Config::parse(&text, name).expect_err(&path.display().to_string());
        committed(&path.with_extension("txt"), &format!("{error}\n"));
        assert_consistent(&error);
    }
}

/// Every value of the complete example is replaced by things that are wrong in some way, and the
/// text is cut at every line: whatever happens, it is a configuration or a list of mistakes.
#[test]
fn any_text_is_a_configuration_or_a_list_of_mistakes() {
    let text = std::fs::read_to_string(manifest("tests/files/good/every-key.yaml")).unwrap();
    let origin = Path::new("any.yaml");
    let mut refused = 0;
    let mut verdict = |text: &str| {
        if let Err(error) = Config::parse(text, origin) {
            assert_consistent(&error);
            refused += 1;
        }
    };
    let junk = [
        "",
        "~",
        "[]",
        "{}",
        "5",
        "-1",
        "1e400",
        "x",
        "''",
        "[[x]]",
        "{x: {y: z}}",
        "'",
        "*a",
    ];
    let values: Vec<_> = text.match_indices(": ").map(|(at, _)| at + 2).collect();
    for at in &values {
        let end = at + text[*at..].find([',', '}', '\n']).unwrap();
        for junk in junk {
            verdict(&format!("{}{junk}{}", &text[..*at], &text[end..]));
        }
    }
    for (at, _) in text.match_indices('\n') {
        verdict(&text[..at]);
    }
    assert!(
        refused > values.len() * 8,
        "only {refused} of the texts were refused"
    );
}

/// A message names a place, each mistake once, and the lines come in the order of the file.
fn assert_consistent(error: &LoadError) {
    let LoadError::Invalid { mistakes, .. } = error else {
        panic!("{error}")
    };
    let places: Vec<_> = mistakes
        .iter()
        .map(|m| (m.place.line, m.place.column))
        .collect();
    assert!(places.is_sorted(), "{error}");
    assert!(
        places.iter().all(|(line, column)| *line > 0 && *column > 0),
        "{error}"
    );
    let keys: BTreeSet<_> = mistakes
        .iter()
        .map(|m| (&m.place.key, &m.message))
        .collect();
    assert_eq!(keys.len(), mistakes.len(), "{error}");
}

#[test]
fn every_good_file_loads() {
    for path in files("good") {
        if let Err(error) = Config::load(&path) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_file_of_the_chart_loads() {
    let path = manifest("../deploy/chart/watershed.yaml");
    if let Err(error) = Config::load(&path) {
        panic!("{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/watershed.yaml")).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }));
    assert!(
        error.to_string().contains("/nowhere/watershed.yaml"),
        "{error}"
    );
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let smallest = Config::load(&manifest("tests/files/good/smallest.yaml")).unwrap();
    let every = Config::load(&manifest("tests/files/good/every-key.yaml")).unwrap();
    assert_eq!(smallest.live.limits, every.live.limits);
    assert_eq!(smallest.live.cache.defaults, every.live.cache.defaults);
    assert_eq!(smallest.live.authorization, every.live.authorization);
    assert_eq!(smallest.live.drain, every.live.drain);
    assert_eq!(smallest.startup.admin, every.startup.admin);
    assert!(smallest.live.authentication.client_certificate);
    assert!(!smallest.live.authentication.anonymous);
    assert_eq!(smallest.startup.request_header, None);
    assert_eq!(
        smallest.startup.upstream.credentials,
        Credentials::InCluster
    );
    assert_eq!(smallest.startup.upstream.ca_file, None);
}

#[test]
fn an_entry_takes_what_it_leaves_out_from_the_defaults() {
    let config = Config::load(&manifest("tests/files/good/loopback.yaml")).unwrap();
    let cache = &config.live.cache;
    let pods = cache.settings("", "v1", "pods").unwrap();
    assert_eq!(pods.history_bytes, 1_000_000_000);
    assert_eq!(pods.history_age.as_secs(), 5400);
    assert_eq!(pods.objects, 512 << 20);
    assert_eq!(pods.encodings, [Encoding::Protobuf, Encoding::Json]);
    assert_eq!(
        cache.settings("apps", "v1", "replicasets").unwrap().objects,
        1 << 20
    );
    assert_eq!(
        cache.settings("apps", "v2", "replicasets").unwrap().objects,
        512 << 20
    );
    assert_eq!(cache.settings("", "v1", "secrets"), Some(&cache.defaults));
    let config = Config::load(&manifest("tests/files/good/front-proxy.yaml")).unwrap();
    assert_eq!(config.live.cache.settings("", "v1", "events"), None);
    assert!(
        config
            .live
            .cache
            .settings("events.k8s.io", "v1", "events")
            .is_some()
    );
}

#[test]
fn referenced_files_are_listed_with_their_places() {
    let path = manifest("tests/files/good/front-proxy.yaml");
    let config = Config::load(&path).unwrap();
    let listed: Vec<_> = config
        .files()
        .iter()
        .map(|file| {
            let name = file.path.strip_prefix(path.parent().unwrap()).unwrap();
            (
                name.to_str().unwrap(),
                file.content,
                file.place.line,
                file.place.key.as_str(),
            )
        })
        .collect();
    assert_eq!(
        listed,
        [
            ("tls.crt", FileContent::Certificates, 5, "listen.certFile"),
            ("tls.key", FileContent::PrivateKey, 5, "listen.keyFile"),
            (
                "ca.crt",
                FileContent::CertificateAuthorities,
                5,
                "listen.clientCAFile"
            ),
            (
                "ca.crt",
                FileContent::CertificateAuthorities,
                9,
                "upstream.caFile"
            ),
            (
                "watershed.kubeconfig",
                FileContent::Kubeconfig,
                10,
                "upstream.credentials.kubeconfig"
            ),
            (
                "front-proxy.crt",
                FileContent::Certificates,
                11,
                "upstream.identity.certFile"
            ),
            (
                "front-proxy.key",
                FileContent::PrivateKey,
                11,
                "upstream.identity.keyFile"
            ),
        ]
    );
}

#[test]
fn the_committed_schema_is_the_one_of_the_code() {
    committed(&manifest("schema.json"), &schema());
}

#[test]
fn the_committed_reference_is_the_one_of_the_code() {
    committed(&manifest("REFERENCE.md"), &reference());
}

const REFERENCE_HEAD: &str = "# Keys of the configuration file

Made from `schema.json` by a test; edit the comments in `src/file.rs` and run
`WATERSHED_BLESS=1 cargo test -p watershed-config --test files`.

Unknown keys are refused. Byte counts are Kubernetes quantities (`4Gi`, `500M`, `1048576`), times
are Go durations (`90s`, `1h30m`, `300ms`), relative paths start at the folder of the file.
`watershed check --config FILE` names every mistake with its line. A **live** key takes effect a few
seconds after the file has changed; a **restart** key is reported then and waits for a restart. The
contents of certificates and bundles are read again when they change, whatever the key.

| key | default | change | meaning |
|---|---|---|---|
";

/// The schema as a table, one row for each key that holds a value.
fn reference() -> String {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let mut table = REFERENCE_HEAD.to_owned();
    rows(&schema, &schema, "", &schema["default"], &mut table);
    table
}

fn rows(root: &Value, object: &Value, prefix: &str, defaults: &Value, table: &mut String) {
    let required = object["required"].as_array();
    for (name, property) in object["properties"].as_object().unwrap() {
        let key = format!("{prefix}{name}");
        let default = match &property["default"] {
            Value::Null => &defaults[name],
            default => default,
        };
        let element = resolve(root, &property["items"]);
        let inner = resolve(root, property);
        if element["properties"].is_object() {
            row(&key, "none", property, table);
            rows(root, element, &format!("{key}[]."), &Value::Null, table);
        } else if inner["properties"].is_object() {
            rows(root, inner, &format!("{key}."), default, table);
        } else {
            let is_required = required.is_some_and(|names| names.iter().any(|n| n == name));
            let default = match default {
                Value::Null if is_required => "required".to_owned(),
                Value::Null => "none".to_owned(),
                Value::String(text) if text.is_empty() => "none".to_owned(),
                Value::Array(items) if items.is_empty() => "none".to_owned(),
                Value::String(text) => format!("`{text}`"),
                other => format!("`{}`", other.to_string().replace('"', "")),
            };
            row(&key, &default, property, table);
        }
    }
}

/// The schema a property stands for: itself, or the definition it refers to.
fn resolve<'a>(root: &'a Value, property: &'a Value) -> &'a Value {
    let reference = property["$ref"].as_str();
    reference.map_or(property, |path| {
        root.pointer(path.trim_start_matches('#')).unwrap()
    })
}

fn row(key: &str, default: &str, property: &Value, table: &mut String) {
    let top = key.split(['.', '[']).next().unwrap();
    let of_apiservers = ["node", "rbac", "featureGates"].map(|key| format!("authorization.{key}"));
    let change = match top {
        _ if key.starts_with("authentication.requestHeader.") => "restart",
        "authorization" if of_apiservers.iter().any(|it| key.starts_with(it)) => "restart",
        "cache" | "authentication" | "authorization" | "limits" | "drain" => "live",
        "apiVersion" | "kind" => "",
        "region" | "listen" | "admin" | "upstream" | "heartbeats" => "restart",
        other => panic!("say here whether `{other}` can change live"),
    };
    let meaning = property["description"].as_str();
    let meaning = meaning
        .unwrap_or_else(|| panic!("{key} has no description"))
        .replace('\n', " ");
    table.push_str(&format!("| `{key}` | {default} | {change} | {meaning} |\n"));
}

#[test]
fn every_key_of_the_schema_is_in_the_complete_example() {
    let text = std::fs::read_to_string(manifest("tests/files/good/every-key.yaml")).unwrap();
    for line in reference().lines().filter(|line| line.starts_with("| `")) {
        let key = line.split('`').nth(1).unwrap();
        let name = key.trim_end_matches("[]").rsplit('.').next().unwrap();
        let alternative = ["upstream.credentials.", "heartbeats.peers.servers"]
            .iter()
            .any(|kind| key.starts_with(kind));
        assert!(alternative || text.contains(&format!("{name}:")), "{key}");
    }
}
