//! YAML as sigs.k8s.io/yaml prints it: keys sorted, block style, two blanks, sequences not indented
//! under their key.
//!
//! Owns rendering of a JSON value to YAML. Refuses to parse. Reading YAML bodies belongs to the
//! writer. Invariant: what it prints, a YAML 1.1 reader turns back into the same value; strings
//! that would read as something else are quoted. Control characters cannot be printed and are an
//! error, as in the apiserver.

use serde_json::Value;

/// Why a value has no YAML form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("yaml: control characters are not allowed")]
pub struct ControlCharacter;

/// The YAML text of a value, with a trailing newline.
pub fn render(value: &Value) -> Result<String, ControlCharacter> {
    let mut out = String::new();
    node(value, 0, &mut out)?;
    if !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(out)
}

fn node(value: &Value, depth: usize, out: &mut String) -> Result<(), ControlCharacter> {
    match value {
        Value::Object(members) if members.is_empty() => out.push_str("{}\n"),
        Value::Array(items) if items.is_empty() => out.push_str("[]\n"),
        Value::Object(members) => {
            for (index, (key, item)) in members.iter().enumerate() {
                if index > 0 {
                    blanks(depth, out);
                }
                scalar(key, depth, out)?;
                out.push(':');
                member(item, depth, out)?;
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    blanks(depth, out);
                }
                out.push_str("- ");
                node(item, depth + 1, out)?;
            }
        }
        Value::String(text) => {
            scalar(text, depth, out)?;
            out.push('\n');
        }
        Value::Number(number) => {
            out.push_str(&go_number(number));
            out.push('\n');
        }
        Value::Null | Value::Bool(_) => {
            out.push_str(&value.to_string());
            out.push('\n');
        }
    }
    Ok(())
}

fn member(item: &Value, depth: usize, out: &mut String) -> Result<(), ControlCharacter> {
    match item {
        Value::Object(members) if !members.is_empty() => {
            out.push('\n');
            blanks(depth + 1, out);
            node(item, depth + 1, out)
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            blanks(depth, out);
            node(item, depth, out)
        }
        Value::Object(_)
        | Value::Array(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_) => {
            out.push(' ');
            node(item, depth, out)
        }
    }
}

/// A number as `strconv.FormatFloat(f, 'g', -1, 64)` prints it: an exponent below -4 and from 6,
/// two digits at least.
fn go_number(number: &serde_json::Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if float == 0.0 || (-4..6).contains(&exponent) {
        return format!("{float}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn blanks(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn scalar(text: &str, depth: usize, out: &mut String) -> Result<(), ControlCharacter> {
    let bad = |c: char| (c < ' ' && !matches!(c, '\n' | '\t' | '\r')) || c == '\u{7f}';
    if text.chars().any(bad) {
        return Err(ControlCharacter);
    }
    if text.contains('\n') {
        literal(text, depth, out);
    } else if text.is_empty() || reads_as_something_else(text) {
        quoted(text, out);
    } else if needs_single_quotes(text) {
        out.push('\'');
        folded(&text.replace('\'', "''"), depth, out);
        out.push('\'');
    } else {
        folded(text, depth, out);
    }
    Ok(())
}

/// Writes text on several lines: past column 80 the next single blank becomes a line break, and
/// Unicode's own breaks are followed by the indentation.
fn folded(text: &str, depth: usize, out: &mut String) {
    let start = out.rfind('\n').map_or(0, |at| at + 1);
    let mut column = out[start..].chars().count();
    let mut previous = '\0';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let single = c == ' ' && previous != ' ' && chars.peek().is_some_and(|next| *next != ' ');
        if is_unicode_break(previous) && !is_unicode_break(c) {
            blanks(depth + 1, out);
            column = 2 * (depth + 1);
        }
        if single && previous != '\0' && column > LINE_COLUMNS {
            out.push('\n');
            blanks(depth + 1, out);
            column = 2 * (depth + 1);
        } else {
            out.push(c);
            column += 1;
        }
        previous = c;
    }
}

fn is_unicode_break(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Columns after which a long scalar is folded.
const LINE_COLUMNS: usize = 80;

fn literal(text: &str, depth: usize, out: &mut String) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text.ends_with("\n\n") {
        out.push('+');
    }
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            blanks(depth + 1, out);
            out.push_str(line);
        }
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn reads_as_something_else(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let word = matches!(
        lower.as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "~" | "<<"
    ) || matches!(lower.as_str(), ".nan" | ".inf" | "-.inf" | "+.inf");
    word || looks_numeric(&lower) || looks_like_time(text) || text.contains(['\t', '\r'])
}

fn looks_numeric(text: &str) -> bool {
    let digits = text
        .strip_prefix(['-', '+'])
        .unwrap_or(text)
        .replace('_', "");
    let radix = |prefix: &str, radix: u32| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    radix("0x", 16)
        || radix("0b", 2)
        || radix("0o", 8)
        || {
            let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            starts && digits.parse::<f64>().is_ok()
        }
        || looks_sexagesimal(&digits)
}

fn looks_sexagesimal(text: &str) -> bool {
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or("");
    let rest: Vec<&str> = parts.collect();
    let number = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_digit());
    number(first) && !rest.is_empty() && rest.iter().all(|p| p.len() <= 2 && number(p))
}

fn looks_like_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    bytes.len() >= 8
        && (0..4).all(digit)
        && bytes[4] == b'-'
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || "-:TtZz.+ ".contains(c))
}

fn needs_single_quotes(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let special = "!&*|>'\"%@`{}[],#".contains(first)
        || (matches!(first, '-' | '?' | ':') && (text.len() == 1 || text[1..].starts_with(' ')));
    special
        || text.contains(is_unicode_break)
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.ends_with(':')
        || text.contains(": ")
        || text.contains(" #")
        || text.starts_with("---")
        || text.starts_with("...")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_that_read_as_other_types_are_quoted() {
        let text = render(&json!({"a": "true", "b": "20508", "c": "x: y", "d": "", "e": "1e3"}));
        assert_eq!(
            text.as_deref(),
            Ok("a: \"true\"\nb: \"20508\"\nc: 'x: y'\nd: \"\"\ne: \"1e3\"\n")
        );
    }

    #[test]
    fn sequences_sit_at_the_depth_of_their_key() {
        let text = render(&json!({"items": [{"a": 1, "b": [2]}], "m": {}}));
        assert_eq!(text.as_deref(), Ok("items:\n- a: 1\n  b:\n  - 2\nm: {}\n"));
    }

    #[test]
    fn floats_are_printed_as_in_go() {
        let text = render(&json!([1.5, -1e-6, 1e21, 1234567.5, 0.0001]));
        assert_eq!(
            text.as_deref(),
            Ok("- 1.5\n- -1e-06\n- 1e+21\n- 1.2345675e+06\n- 0.0001\n")
        );
    }

    #[test]
    fn control_characters_have_no_yaml_form() {
        assert_eq!(render(&json!({"a": "\u{1}"})), Err(ControlCharacter));
    }
}
