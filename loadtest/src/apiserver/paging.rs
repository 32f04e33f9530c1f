//! Continue tokens.
//!
//! Owns their two spellings (`etcd` without, the watch cache with a leading slash), their decoding
//! with the apiserver's texts, and the guard against paths that climb. Refuses to decide what a
//! token's revision means. Invariant: a token minted here is accepted by a kube-apiserver and the
//! other way round.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

mod go_json;

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
        let Token {
            version,
            revision,
            start,
        } = go_json::decode(&bytes).map_err(invalid)?;
        let start = start.as_str();
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

/// What the JSON of a token says.
#[derive(Debug, Default)]
struct Token {
    version: String,
    revision: i64,
    start: String,
}

/// Whether Go's `path.Clean` would leave a rooted path as it is.
fn is_clean(path: &str) -> bool {
    path == "/"
        || path[1..]
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."))
}

fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    // Go skips the ends of lines.
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'\r' | b'\n');
    if let Some(at) = text.bytes().position(|b| !alphabet(b)) {
        return Err(format!("illegal base64 data at input byte {at}"));
    }
    let joined = text.replace(['\r', '\n'], "");
    if joined.len() % 4 == 1 {
        return Err(format!(
            "illegal base64 data at input byte {}",
            text.len() - 1
        ));
    }
    let lenient = base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true);
    base64::engine::GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient)
        .decode(joined)
        .map_err(|_| format!("illegal base64 data at input byte {}", text.len()))
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
