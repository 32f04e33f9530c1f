//! Go's ways of writing strings that end up in error texts: the HTML sanitizer of the apiserver's
//! text errors, and the escapes of `encoding/json`. `%q` is [`watershed_cache::quote`].

/// The apiserver's sanitizer for texts a browser might render.
pub(super) fn sanitize(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Adds the escapes Go's `encoding/json` makes and serde_json does not. `json` must be JSON: the
/// characters concerned can then stand inside strings only.
pub(super) fn escape_html(json: Vec<u8>) -> Vec<u8> {
    let json = String::from_utf8(json).expect("serde_json writes UTF-8");
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json.into_bytes();
    }
    let mut out = String::with_capacity(json.len() + 32);
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out.into_bytes()
}
