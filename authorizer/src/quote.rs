//! Go's `%q`, in which RBAC names what it speaks of.
//!
//! Owns one function, which escapes as `strconv.Quote` does. Which characters print is taken from
//! Rust's own table, which is built from the same Unicode categories as Go's.

use std::fmt::{self, Write as _};

/// Displays a text between double quotes, escaped as Go does.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

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
                other if other.is_ascii() => write!(out, "\\x{:02x}", u32::from(other))?,
                other if u32::from(other) < 0x1_0000 => {
                    write!(out, "\\u{:04x}", u32::from(other))?;
                }
                other => write!(out, "\\U{:08x}", u32::from(other))?,
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
    use super::Quoted;

    #[test]
    fn quotes_as_go_does() {
        let table = [
            ("", r#""""#),
            ("system:node", r#""system:node""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            (
                "\u{0}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{7f}",
                r#""\x00\a\b\t\n\v\f\r\x7f""#,
            ),
            ("é\u{301}日", "\"é\u{301}日\""),
            ("\u{a0}\u{e0001}", r#""\u00a0\U000e0001""#),
        ];
        for (text, quoted) in table {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
    }
}
