//! Go's `%q`, in which the apiserver quotes what it refuses.
//!
//! Owns one function. It escapes as `strconv.Quote` does: the usual short escapes, `\x7f` for
//! control characters of one byte, `\u00a0` and `\U000e0001` for what does not print. Which
//! characters print is taken from Rust's own table, which is built from the same Unicode categories
//! as Go's.

use std::fmt::Write as _;

/// `text` between double quotes, escaped as Go does.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        push_escaped(&mut quoted, character);
    }
    quoted.push('"');
    quoted
}

fn push_escaped(quoted: &mut String, character: char) {
    let short = match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        printable if prints(printable) => return quoted.push(printable),
        other => {
            let code = u32::from(other);
            let written = match code {
                0..0x80 => write!(quoted, "\\x{code:02x}"),
                0x80..0x1_0000 => write!(quoted, "\\u{code:04x}"),
                _ => write!(quoted, "\\U{code:08x}"),
            };
            return written.expect("writing to a String succeeds");
        }
    };
    quoted.push_str(short);
}

/// Rust escapes combining marks only at the start of a text, hence the letter in front.
fn prints(character: char) -> bool {
    if character.is_ascii() {
        return character == ' ' || character.is_ascii_graphic();
    }
    let mut text = String::from("a");
    text.push(character);
    text.escape_debug().nth(2).is_none()
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_as_go_does() {
        let table = [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("\"\\", r#""\"\\""#),
            (
                "\u{0}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1b}\u{7f}",
                r#""\x00\a\b\t\n\v\f\r\x1b\x7f""#,
            ),
            ("é\u{301}日", "\"é\u{301}日\""),
            (
                "\u{a0}\u{2028}\u{feff}\u{e0001}",
                r#""\u00a0\u2028\ufeff\U000e0001""#,
            ),
        ];
        for (text, quoted) in table {
            assert_eq!(quote(text), quoted);
        }
    }
}
