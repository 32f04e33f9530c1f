//! What the apiserver lets a label's key and value look like, and how it says no (as
//! `content/kube.go`, 1.36).
//!
//! Owns the wording of these errors. The regular expressions in the texts are quoted, not run: each
//! is a few comparisons.

use watershed_quote::quote;

const NAME_MAX: usize = 63;
const PREFIX_MAX: usize = 253;

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character \
    (e.g. 'MyName',  or 'my.name',  or '123-abc', \
    regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const PREFIX_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character \
    (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character \
    (e.g. 'MyValue',  or 'my_value',  or '12345', \
    regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// # Errors
/// What is wrong with this key.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    let mut problems = Vec::new();
    let mut parts = key.split('/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let name = second.unwrap_or(first);
    if third.is_some() {
        problems.push(format!(
            "a valid label key {NAME_RULE} with an optional DNS subdomain prefix and '/' \
             (e.g. 'example.com/MyName')"
        ));
    } else {
        if second.is_some() {
            check_prefix(first, &mut problems);
        }
        check_name(name, &mut problems);
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(invalid("<nil>", key, &problems.join("; ")))
    }
}

fn check_prefix(prefix: &str, problems: &mut Vec<String>) {
    if prefix.is_empty() {
        return problems.push("prefix part must be non-empty".to_owned());
    }
    if prefix.len() > PREFIX_MAX {
        problems.push(format!(
            "prefix part must be no more than {PREFIX_MAX} bytes"
        ));
    }
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !prefix
        .split('.')
        .all(|part| is_framed(part, lower, |byte| byte == b'-'))
    {
        problems.push(format!("prefix part {PREFIX_RULE}"));
    }
}

fn check_name(name: &str, problems: &mut Vec<String>) {
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > NAME_MAX {
        problems.push(format!("name part must be no more than {NAME_MAX} bytes"));
    }
    if !is_name(name) {
        problems.push(format!("name part {NAME_RULE}"));
    }
}

/// # Errors
/// What is wrong with this value of `key`, the `index`th in its requirement.
pub(super) fn check_value(key: &str, index: usize, value: &str) -> Result<(), String> {
    let mut problems = Vec::new();
    if value.len() > NAME_MAX {
        problems.push(format!("must be no more than {NAME_MAX} bytes"));
    }
    if !value.is_empty() && !is_name(value) {
        problems.push(VALUE_RULE.to_owned());
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(invalid(
        &format!("values[{index}][{key}]"),
        value,
        &problems.join("; "),
    ))
}

/// An error of the apiserver's field validation.
pub(super) fn invalid(path: &str, value: &str, detail: &str) -> String {
    format!("{path}: Invalid value: {}: {detail}", quote(value))
}

fn is_name(name: &str) -> bool {
    is_framed(
        name,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| matches!(byte, b'-' | b'_' | b'.'),
    )
}

/// Whether the text has `outer` bytes at both ends, and these or `inner` ones between.
fn is_framed(text: &str, outer: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            outer(first) && outer(last) && bytes.iter().all(|&byte| outer(byte) || inner(byte))
        }
        _ => false,
    }
}
