//! JSON as Go reads it: what is no Unicode becomes U+FFFD instead of an error.

use std::borrow::Cow;

use serde_json::Value;

/// Parses JSON. Bytes that are no UTF-8 and surrogates without their other half are replaced, as
/// Go's decoder does; serde_json alone refuses both.
///
/// # Errors
/// When the text is no JSON even so.
pub fn parse_json(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(text).or_else(|error| {
        let unicode = String::from_utf8_lossy(text);
        let repaired = replace_lone_surrogates(&unicode);
        match (&unicode, &repaired) {
            (Cow::Borrowed(_), Cow::Borrowed(_)) => Err(error),
            _ => serde_json::from_str(&repaired),
        }
    })
}

fn replace_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        let pair = (escaped_unit(escape), escape.get(6..).and_then(escaped_unit));
        let (length, is_lone) = match pair {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, false),
            (Some(0xd800..0xe000), _) => (6, true),
            (Some(_), _) => (6, false),
            // The character after the backslash belongs to it, even another backslash.
            (None, _) => (escape.chars().take(2).map(char::len_utf8).sum(), false),
        };
        out.push_str(&rest[..at]);
        out.push_str(if is_lone {
            "\\ufffd"
        } else {
            &escape[..length]
        });
        rest = &escape[length..];
    }
    if out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The UTF-16 unit of a `\uXXXX` escape at the beginning of `text`.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_unicode_is_replaced() {
        for (given, expected) in [
            (b"\"\xff\xfe\"".as_slice(), "\u{fffd}\u{fffd}"),
            (br#""\ud800 \udc00""#, "\u{fffd} \u{fffd}"),
            (br#""\ud83d\ude80 \ud800""#, "\u{1f680} \u{fffd}"),
            (br#""\\ud800 \ud800""#, "\\ud800 \u{fffd}"),
            (br#""\n\ud800""#, "\n\u{fffd}"),
        ] {
            assert_eq!(parse_json(given).expect("JSON"), expected);
        }
        assert!(parse_json(b"{").is_err());
        assert!(parse_json(br#""\ud800"#).is_err());
        assert!(parse_json(br#""\x""#).is_err());
    }
}
