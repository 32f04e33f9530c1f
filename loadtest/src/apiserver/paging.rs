//! Continue tokens.
//!
//! Owns their two spellings (`etcd` without, the watch cache with a leading slash), their decoding
//! with the apiserver's texts, and the guard against paths that climb. Refuses to decide what a
//! token's revision means. Invariant: a token minted here is accepted by a kube-apiserver and the
//! other way round.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

const VERSION: &str = "meta.k8s.io/v1";

/// Where a page starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continue {
    /// Revision of the first page; below 0: current.
    pub revision: i64,
    /// Key relative to the request's prefix, the page starts at or after it.
    pub start: String,
}

impl Continue {
    /// The token's text.
    pub fn encode(&self, leading_slash: bool) -> String {
        let slash = if leading_slash { "/" } else { "" };
        let start = super::status::go_string(&format!("{slash}{}", self.start));
        let json = format!(
            "{{\"v\":\"{VERSION}\",\"rv\":{},\"start\":{start}}}",
            self.revision
        );
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads a token; the error is the text of a 400 after `invalid continue token: `.
    pub fn decode(text: &str) -> Result<Self, String> {
        let invalid = |what: String| format!("continue key is not valid: {what}");
        let bytes = decode_base64(text).map_err(invalid)?;
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|_| invalid(json_error(&bytes)))?;
        let version = member(&value, "v", "v", "string").map_err(invalid)?;
        let version = version.and_then(Value::as_str).unwrap_or("");
        let revision = member(&value, "rv", "rv", "int64").map_err(invalid)?;
        let revision = revision.and_then(Value::as_i64).unwrap_or(0);
        let start = member(&value, "start", "start", "string").map_err(invalid)?;
        let start = start.and_then(Value::as_str).unwrap_or("");
        if version != VERSION {
            return Err(invalid(format!(
                "server does not recognize this encoded version {version}"
            )));
        }
        if revision == 0 {
            return Err(invalid(format!(
                "incorrect encoded start resourceVersion (version {VERSION})"
            )));
        }
        if start.is_empty() {
            return Err(invalid(format!(
                "encoded start key empty (version {VERSION})"
            )));
        }
        let rooted = if start.starts_with('/') {
            start.to_owned()
        } else {
            format!("/{start}")
        };
        if !is_clean(&rooted) {
            return Err(invalid(start.to_owned()));
        }
        Ok(Self {
            revision,
            start: rooted[1..].to_owned(),
        })
    }
}

/// A member of the wanted Go type; another type is the error of Go's decoder.
fn member<'a>(
    value: &'a Value,
    key: &str,
    field: &str,
    wanted: &str,
) -> Result<Option<&'a Value>, String> {
    let found = match value.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(found) => found,
    };
    let kind = match found {
        Value::String(_) if wanted == "string" => return Ok(Some(found)),
        Value::Number(_) if wanted == "int64" => return Ok(Some(found)),
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Null => "null",
    };
    Err(format!(
        "json: cannot unmarshal {kind} into Go struct field continueToken.{field} of type {wanted}"
    ))
}

/// Whether Go's `path.Clean` would leave a rooted path as it is.
fn is_clean(path: &str) -> bool {
    path == "/"
        || path[1..]
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."))
}

fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if let Some(at) = text.bytes().position(|b| !alphabet(b)) {
        return Err(format!("illegal base64 data at input byte {at}"));
    }
    if text.len() % 4 == 1 {
        return Err(format!(
            "illegal base64 data at input byte {}",
            text.len() - 1
        ));
    }
    let lenient = base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true);
    base64::engine::GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient)
        .decode(text)
        .map_err(|_| format!("illegal base64 data at input byte {}", text.len()))
}

/// Go's text for the commonest broken JSON: the first byte, or a literal that is not one.
fn json_error(bytes: &[u8]) -> String {
    let quote = |b: u8| match b {
        b'\'' => "'\\''".to_owned(),
        b if b.is_ascii_graphic() || b == b' ' => format!("'{}'", b as char),
        b if b < 0x80 => format!("'\\x{b:02x}'"),
        b if b < 0xa0 => format!("'\\u{:04x}'", u32::from(b)),
        b => format!("'{}'", char::from(b)),
    };
    let Some((&first, rest)) = bytes.split_first() else {
        return "unexpected end of JSON input".to_owned();
    };
    let literals: [(&str, &str); 3] = [("n", "null"), ("t", "true"), ("f", "false")];
    for (start, word) in literals {
        if first == start.as_bytes()[0] {
            for (index, expected) in word.bytes().enumerate().skip(1) {
                match rest.get(index - 1) {
                    None => return "unexpected end of JSON input".to_owned(),
                    Some(&found) if found != expected => {
                        return format!(
                            "invalid character {} in literal {word} (expecting {})",
                            quote(found),
                            quote(expected)
                        );
                    }
                    Some(_) => {}
                }
            }
        }
    }
    if matches!(first, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9') {
        return "unexpected end of JSON input".to_owned();
    }
    format!(
        "invalid character {} looking for beginning of value",
        quote(first)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_one_of_the_apiserver() {
        let token = Continue {
            revision: 2983,
            start: "default/a\0".to_owned(),
        };
        assert_eq!(
            token.encode(false),
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Mjk4Mywic3RhcnQiOiJkZWZhdWx0L2FcdTAwMDAifQ"
        );
        assert_eq!(Continue::decode(&token.encode(false)), Ok(token.clone()));
        assert_eq!(Continue::decode(&token.encode(true)), Ok(token));
    }

    #[test]
    fn paths_that_climb_are_refused() {
        for start in ["../../x", "a//b", "a/", "./a", "/../x"] {
            let token = Continue {
                revision: 5,
                start: start.to_owned(),
            }
            .encode(false);
            let expected = Err(format!("continue key is not valid: {start}"));
            assert_eq!(Continue::decode(&token), expected);
        }
    }

    #[test]
    fn broken_tokens_are_refused_in_the_words_of_go() {
        let cases = [
            (
                "garbage",
                "invalid character '\\u0081' looking for beginning of value",
            ),
            ("!!!", "illegal base64 data at input byte 0"),
            (
                "bm90IGpzb24",
                "invalid character 'o' in literal null (expecting 'u')",
            ),
            ("e30", "server does not recognize this encoded version "),
        ];
        for (token, text) in cases {
            let expected = Err(format!("continue key is not valid: {text}"));
            assert_eq!(Continue::decode(token), expected);
        }
    }
}
