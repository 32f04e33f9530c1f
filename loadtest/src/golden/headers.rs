//! Response headers against recorded ones.
//!
//! Values that were recorded must be equal, names that were must be there, and no other header may
//! appear. How a body is delimited depends on its size and timing and is not compared.

use http::HeaderMap;

use super::matcher::Mismatch;
use super::model::Response;

/// Headers that say how the body is delimited.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// `may_lack` names headers the target may leave out.
pub(super) fn match_headers(
    recorded: &Response,
    live: &HeaderMap,
    may_lack: &[&str],
) -> Result<(), Mismatch> {
    let values = |name: &str| -> Vec<String> {
        let values = live.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    for (name, value) in &recorded.headers {
        let found = values(name).join(" || ");
        if found != *value && !FRAMING.contains(&name.as_str()) {
            return Err(Mismatch::new(format!(
                "header {name}: {value:?} recorded, {found:?} live"
            )));
        }
    }
    for name in &recorded.present {
        let optional = FRAMING.contains(&name.as_str()) || may_lack.contains(&name.as_str());
        if !live.contains_key(name) && !optional {
            return Err(Mismatch::new(format!("header {name} is missing")));
        }
    }
    for name in live.keys() {
        let known = recorded.headers.contains_key(name.as_str())
            || recorded
                .present
                .iter()
                .any(|present| present == name.as_str())
            || FRAMING.contains(&name.as_str());
        if !known {
            let value = values(name.as_str()).join(" || ");
            return Err(Mismatch::new(format!(
                "header {name}: {value:?} was not recorded"
            )));
        }
    }
    Ok(())
}
