//! Whole answers, byte for byte.
//!
//! Owns the bytes of a Status in JSON, written down from `metav1.Status` and not shared with the
//! apiserver that is judged.

use anyhow::ensure;

use crate::client::{Answer, JSON};

/// The media type of what the apiserver says outside its API.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Checks status, media type and body of an answer.
///
/// # Errors
/// When one differs.
pub(super) fn expect(
    answer: &Answer,
    status: u16,
    content_type: &str,
    body: &str,
) -> anyhow::Result<()> {
    let own = (answer.status, answer.header("content-type"), answer.text());
    ensure!(
        own == (status, content_type, body.to_owned()),
        "expected ({status}, {content_type:?}, {body:?})\nanswered {own:?}"
    );
    Ok(())
}

/// Checks that an answer is this Status in JSON. `details` is JSON, or empty when there are none;
/// so is `reason`.
///
/// # Errors
/// When it is not.
pub(super) fn expect_status(
    answer: &Answer,
    code: u16,
    reason: &str,
    message: &str,
    details: &str,
) -> anyhow::Result<()> {
    expect(answer, code, JSON, &status(code, reason, message, details))
}

/// Checks that an answer refuses a request in these words.
///
/// # Errors
/// When it does not.
pub(super) fn expect_forbidden(
    answer: &Answer,
    message: &str,
    details: &str,
) -> anyhow::Result<()> {
    expect_status(answer, 403, "Forbidden", message, details)?;
    let sniffing = answer.header("x-content-type-options");
    ensure!(sniffing == "nosniff", "X-Content-Type-Options: {sniffing}");
    Ok(())
}

/// A failed `metav1.Status` in compact JSON.
pub(super) fn status(code: u16, reason: &str, message: &str, details: &str) -> String {
    let mut body = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":{}"#,
        go_string(message)
    );
    if !reason.is_empty() {
        body += &format!(r#","reason":"{reason}""#);
    }
    if !details.is_empty() {
        body += &format!(r#","details":{details}"#);
    }
    body + &format!(",\"code\":{code}}}\n")
}

/// A string as Go writes it in JSON.
pub(super) fn go_string(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let escapes = [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")];
    escapes
        .iter()
        .fold(quoted, |text, (from, to)| text.replace(from, to))
}

/// The refusal of a request for a namespace's ConfigMaps, whose details are `{"kind":"configmaps"}`.
pub(super) fn no_config_maps(user: &str, verb: &str, namespace: &str) -> String {
    format!(
        "configmaps is forbidden: User \"{user}\" cannot {verb} resource \"configmaps\" in API \
         group \"\" in the namespace \"{namespace}\""
    )
}
