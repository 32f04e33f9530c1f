//! Go's `%q`, in which apiservers name what they speak of and what they refuse.
//!
//! Owns one function, which escapes as `strconv.Quote` does: the usual short escapes, `\x7f` for
//! control characters of one byte, `\u00a0` and `\U000e0001` for what does not print. Which
//! characters print is taken from Rust's own table, which is built from the same Unicode categories
//! as Go's.

use std::fmt::{self, Write as _};

/// `text` between double quotes, escaped as Go does.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    write!(quoted, "{}", Quoted(text)).expect("writing to a String succeeds");
    quoted
}

/// Displays a text as [`quote`] writes it.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\u{7}' => out.write_str("\\a")?,
                '\u{8}' => out.write_str("\\b")?,
                '\u{c}' => out.write_str("\\f")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '\u{b}' => out.write_str("\\v")?,
                printable if prints(printable) => out.write_char(printable)?,
                other => match u32::from(other) {
                    code @ 0..0x80 => write!(out, "\\x{code:02x}")?,
                    code @ 0x80..0x1_0000 => write!(out, "\\u{code:04x}")?,
                    code => write!(out, "\\U{code:08x}")?,
                },
            }
        }
        out.write_char('"')
    }
}

/// Rust escapes combining marks only at the start of a text, hence the letter in front.
fn prints(character: char) -> bool {
    if character.is_ascii() {
        return character == ' ' || character.is_ascii_graphic();
    }
    let text: String = ['a', character].iter().collect();
    text.escape_debug().nth(2).is_none()
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_as_go_does() {
        let table = [
            ("", r#""""#),
            ("system:node", r#""system:node""#),
            ("a b", r#""a b""#),
            ("a\"b\\c", r#""a\"b\\c""#),
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
