//! What a case was told directly and through the proxy, brought to a form that can be compared.
//!
//! Owns what may differ between two runs of one case: names, versions, times, identifiers, tokens,
//! and how often something was asked until it came true. Everything else is compared.

use std::collections::{BTreeMap, BTreeSet};

use watershed_loadtest::client::Exchange;

/// Headers whose values are a run's own; that they are there is compared.
const VARYING: &[&str] = &["audit-id", "date", "content-length", "location"];
/// Headers only an apiserver that answers itself sends (priority and fairness).
const APISERVER_ONLY: &str = "x-kubernetes-pf-";
/// Forms that differ from run to run: `d` is a decimal digit, `h` a hexadecimal one.
const FORMS: [(&str, &str); 5] = [
    (
        "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh",
        "DIGEST",
    ),
    ("dddd-dd-ddTdd:dd:ddZ", "TIME"),
    ("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "UID"),
    ("thhhhhhhh-", "NAME-"),
    ("role-hhhh", "role-NAME"),
];
/// How a continue token begins.
const TOKEN: &str = "eyJ2Ijoi";
/// Digits that may be a version; shorter numbers are limits, codes and ports.
const VERSION_DIGITS_MIN: usize = 2;

/// How a body in protobuf begins.
const PROTOBUF: &[u8] = b"k8s\0";
/// Fewer letters in a row may be tags and lengths of protobuf. In bytes.
const WORD_MIN: usize = 3;

/// Answers to one request, as often as they differ.
type Answers = BTreeSet<String>;

/// The first lines of what `through` was told otherwise than `direct`.
pub(super) fn differences(direct: &[Exchange], through: &[Exchange]) -> Vec<String> {
    let (direct, through) = (answers(direct), answers(through));
    let mut found = Vec::new();
    for (request, wanted) in &direct {
        let Some(got) = through.get(request) else {
            continue; // asked only of an apiserver, or polled away
        };
        // Polling shows states on the way; what both were told at least once is agreement.
        if wanted.is_disjoint(got) {
            found.push(format!(
                "{request}\n  direct:  {wanted:?}\n  through: {got:?}"
            ));
        }
    }
    found
}

fn answers(exchanges: &[Exchange]) -> BTreeMap<String, Answers> {
    let mut answers = BTreeMap::<_, Answers>::new();
    for exchange in exchanges {
        let request = shape(&format!(
            "{} {} {:?}",
            exchange.method, exchange.target, exchange.sent
        ));
        answers.entry(request).or_default().insert(answer(exchange));
    }
    answers
}

fn answer(exchange: &Exchange) -> String {
    let mut headers = BTreeMap::new();
    for (name, value) in &exchange.headers {
        let name = name.as_str();
        if name.starts_with(APISERVER_ONLY) {
            continue;
        }
        let varies = VARYING.contains(&name);
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if varies { "…".into() } else { shape(&value) };
        headers.insert(name, value);
    }
    // A watch is read as far as the case needs, so its frames are the case's to judge.
    let is_whole = !headers.contains_key("transfer-encoding");
    let body = if is_whole {
        shape(&readable(&exchange.body))
    } else {
        String::new()
    };
    headers.remove("transfer-encoding");
    format!("{} {headers:?} {body}", exchange.status)
}

/// The words of a body in protobuf, whose lengths go with its versions; any other as it is.
fn readable(body: &[u8]) -> String {
    if !body.starts_with(PROTOBUF) {
        return String::from_utf8_lossy(body).into_owned();
    }
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let words = body.split(|byte| !is_text(byte));
    let words = words.filter(|word| word.len() >= WORD_MIN);
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    words.join("|")
}

/// A text without what is its run's own.
fn shape(text: &str) -> String {
    let mut shaped = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, stand_in) = varying(rest);
        if length > 0 {
            shaped.push_str(stand_in);
            rest = &rest[length..];
        } else {
            shaped.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    shaped
}

/// How many bytes at the beginning are a run's own, and what stands for them.
fn varying(text: &str) -> (usize, &'static str) {
    for (form, stand_in) in FORMS {
        if text.len() >= form.len() && form.bytes().zip(text.bytes()).all(fits) {
            return (form.len(), stand_in);
        }
    }
    if text.starts_with(TOKEN) {
        let end = text
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != '-');
        return (end.unwrap_or(text.len()), "TOKEN");
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits >= VERSION_DIGITS_MIN {
        return (digits, "#");
    }
    (0, "")
}

fn fits((form, byte): (u8, u8)) -> bool {
    match form {
        b'd' => byte.is_ascii_digit(),
        b'h' => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
        literal => literal == byte,
    }
}

#[test]
fn what_is_a_runs_own_is_not_compared() {
    let text = |name: &str, version: &str| {
        format!(
            "/api/v1/namespaces/{name}-a/pods?resourceVersion={version}&limit=5&continue=eyJ2Ijoi{version}"
        )
    };
    assert_eq!(
        shape(&text("t0123abcd", "20017")),
        shape(&text("tfedc9876", "314"))
    );
    assert_ne!(shape("code 404"), shape("code 4"));
    let list = |version: &[u8], name: &[u8]| {
        let length = [u8::try_from(version.len()).unwrap()];
        shape(&readable(
            &[b"k8s\0\n\x01", &length[..], version, b"\x0a", name].concat(),
        ))
    };
    assert_eq!(list(b"314", b"name"), list(b"20017", b"name"));
    assert_ne!(list(b"314", b"name"), list(b"314", b"other"));
    assert_eq!(shape("2026-11-21T22:09:49Z"), "TIME");
    assert_eq!(shape("0b5c7c5e-62a6-4a3e-8a2f-0123456789ab"), "UID");
}
