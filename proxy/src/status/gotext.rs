//! Go's ways of writing strings that end up in error texts: `%q`, the HTML sanitizer of the
//! apiserver's text errors, and the escapes of `encoding/json`.

use std::fmt::Write as _;

/// Go's `strconv.Quote`, as `%q` prints it.
///
/// Whether a non-ASCII character is printable is Rust's table, which differs from Go's for
/// combining marks only.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            '\0'..='\x1f' | '\x7f' => append(&mut out, format_args!("\\x{:02x}", u32::from(c))),
            c if c.escape_debug().count() == 1 => out.push(c),
            c if u32::from(c) < 0x1_0000 => {
                append(&mut out, format_args!("\\u{:04x}", u32::from(c)));
            }
            c => append(&mut out, format_args!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

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

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_those_of_go() {
        let table = [
            ("a", r#""a""#),
            ("", r#""""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("\n\t\u{7}\u{1}\u{7f}", r#""\n\t\a\x01\x7f""#),
            ("é漢", "\"é漢\""),
            ("\u{a0}", r#""\u00a0""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ];
        for (text, want) in table {
            assert_eq!(quote(text), want);
        }
    }
}
