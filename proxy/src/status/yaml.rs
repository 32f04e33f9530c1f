//! YAML as the apiserver writes it: keys sorted, block style, go-yaml's choice of quotes, lines
//! folded after column 80.
//!
//! Covers what a Status can hold: mappings, sequences of mappings, strings and integers. Strings
//! follow libyaml's scalar analysis; the writers take text with spaces and line breaks.

use std::fmt::Write as _;

use serde_json::Value;

/// A space beyond this column is where a long scalar is folded.
const WIDTH: usize = 80;

/// A mapping as a document, with a final newline.
pub(super) fn document(value: &Value) -> String {
    let mut emitter = Emitter { out: String::new() };
    emitter.mapping(value, 0);
    emitter.out
}

struct Emitter {
    out: String,
}

impl Emitter {
    /// The entries of a mapping, each on lines of its own; the first continues the present line.
    fn mapping(&mut self, value: &Value, indent: usize) {
        let Value::Object(entries) = value else {
            unreachable!("only mappings get here");
        };
        // serde_json's map is sorted by key.
        for (index, (key, value)) in entries.iter().enumerate() {
            if index > 0 {
                self.indent(indent);
            }
            self.out.push_str(key);
            self.out.push(':');
            self.value(value, indent);
        }
    }

    fn value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(entries) if entries.is_empty() => self.out.push_str(" {}\n"),
            Value::Object(_) => {
                self.out.push('\n');
                self.indent(indent + 2);
                self.mapping(value, indent + 2);
            }
            Value::Array(items) if items.is_empty() => self.out.push_str(" []\n"),
            Value::Array(items) => {
                self.out.push('\n');
                for item in items {
                    self.indent(indent);
                    self.out.push_str("- ");
                    self.mapping(item, indent + 2);
                }
            }
            Value::String(text) => self.string(text, indent + 2),
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                writeln!(self.out, " {value}").expect("writing to a String cannot fail");
            }
        }
    }

    /// A scalar after a key; `indent` is that of its continuation lines.
    fn string(&mut self, text: &str, indent: usize) {
        let analysis = Analysis::of(text);
        self.out.push(' ');
        if text.contains('\n') {
            if analysis.block {
                return self.literal(text, indent);
            }
            self.double_quoted(text, indent);
        } else if !is_text(text) {
            self.double_quoted(text, indent);
        } else if analysis.plain {
            self.folded(text, indent, false);
        } else if analysis.single_quoted {
            self.out.push('\'');
            self.folded(text, indent, true);
            self.out.push('\'');
        } else {
            self.double_quoted(text, indent);
        }
        self.out.push('\n');
    }

    /// `|` and the lines; the hint says what the text ends with.
    fn literal(&mut self, text: &str, indent: usize) {
        self.out.push('|');
        if text.starts_with([' ', '\n']) {
            self.out.push('2');
        }
        let body = match text.strip_suffix('\n') {
            None => {
                self.out.push('-');
                text
            }
            Some(body) if body.is_empty() || body.ends_with('\n') => {
                self.out.push('+');
                body
            }
            Some(body) => body,
        };
        self.out.push('\n');
        for line in body.split('\n') {
            if !line.is_empty() {
                self.indent(indent);
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
    }

    /// Plain text, or the inside of single quotes.
    fn folded(&mut self, text: &str, indent: usize, quoted: bool) {
        let mut after_space = false;
        let mut rest = text.chars().peekable();
        let mut first = true;
        while let Some(c) = rest.next() {
            if c == ' ' {
                let next_is_text = rest.peek().is_some_and(|next| *next != ' ');
                if !after_space && !first && self.column() > WIDTH && next_is_text {
                    self.break_line(indent);
                } else {
                    self.out.push(' ');
                }
                after_space = true;
            } else {
                if quoted && c == '\'' {
                    self.out.push('\'');
                }
                self.out.push(c);
                after_space = false;
            }
            first = false;
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize) {
        self.out.push('"');
        let mut after_space = false;
        let mut first = true;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == ' ' {
                if !after_space && !first && rest.peek().is_some() && self.column() > WIDTH {
                    self.break_line(indent);
                    if rest.peek() == Some(&' ') {
                        self.out.push('\\');
                    }
                } else {
                    self.out.push(' ');
                }
                after_space = true;
            } else {
                self.escaped(c);
                after_space = false;
            }
            first = false;
        }
        self.out.push('"');
    }

    fn escaped(&mut self, c: char) {
        let short = match c {
            '\0' => '0',
            '\x07' => 'a',
            '\x08' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\x0b' => 'v',
            '\x0c' => 'f',
            '\r' => 'r',
            '\x1b' => 'e',
            '"' => '"',
            '\\' => '\\',
            '\u{85}' => 'N',
            '\u{a0}' => '_',
            '\u{2028}' => 'L',
            '\u{2029}' => 'P',
            c if is_printable(c) => return self.out.push(c),
            c => {
                let code = u32::from(c);
                let written = match code {
                    0..=0xff => write!(self.out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(self.out, "\\u{code:04X}"),
                    _ => write!(self.out, "\\U{code:08X}"),
                };
                return written.expect("writing to a String cannot fail");
            }
        };
        self.out.push('\\');
        self.out.push(short);
    }

    fn break_line(&mut self, indent: usize) {
        self.out.push('\n');
        self.indent(indent);
    }

    fn indent(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    /// Characters on the present line.
    fn column(&self) -> usize {
        let line = self.out.rfind('\n').map_or(0, |end| end + 1);
        self.out[line..].chars().count()
    }
}

/// Which styles can hold a scalar in block context.
struct Analysis {
    plain: bool,
    single_quoted: bool,
    block: bool,
}

impl Analysis {
    fn of(text: &str) -> Self {
        let mut found = Self {
            plain: !text.is_empty(),
            single_quoted: true,
            block: true,
        };
        if text.starts_with("---") || text.starts_with("...") {
            found.plain = false;
        }
        let mut before = None;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let then_blank = rest
                .peek()
                .is_none_or(|next| matches!(next, ' ' | '\t' | '\n'));
            let indicator = match (before, c) {
                (None, '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>') => true,
                (None, '\'' | '"' | '%' | '@' | '`') => true,
                (None, '-' | '?' | ':') | (Some(_), ':') => then_blank,
                (Some(before), '#') => matches!(before, ' ' | '\t' | '\n'),
                (None | Some(_), _) => false,
            };
            found.plain &= !indicator && c != '\n';
            match (before, c) {
                (Some('\n'), ' ') => (found.plain, found.single_quoted) = (false, false),
                (Some(' '), '\n') => {
                    found = Self {
                        plain: false,
                        single_quoted: false,
                        block: false,
                    }
                }
                _ => {}
            }
            if c != '\n' && !is_printable(c) {
                found = Self {
                    plain: false,
                    single_quoted: false,
                    block: false,
                };
            }
            before = Some(c);
        }
        found.plain &= !text.starts_with(' ') && !text.ends_with(' ');
        found.block &= !text.ends_with(' ');
        found
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && c != '\u{feff}'
        && !matches!(c, '\u{2028}' | '\u{2029}')
}

/// Whether YAML 1.1 would read the plain scalar as a string rather than something else.
fn is_text(text: &str) -> bool {
    const WORDS: [&str; 11] = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n",
    ];
    let lower = text.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str()) || matches!(text, "<<" | "=") {
        return false;
    }
    !looks_like_number(&lower) && !looks_like_date(text)
}

/// Integers in any base, floats, and base-60 numbers; a little generous, as a quote harms nobody.
fn looks_like_number(lower: &str) -> bool {
    let digits = lower.trim_start_matches(['+', '-']).replace('_', "");
    if [".inf", ".nan"].contains(&digits.as_str()) {
        return true;
    }
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            return !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix));
        }
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let sexagesimal = digits.contains(':')
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, ':' | '.'));
    sexagesimal || digits.parse::<f64>().is_ok()
}

/// `2006-01-02`, alone or with a time after it.
fn looks_like_date(text: &str) -> bool {
    let year = text.bytes().take_while(u8::is_ascii_digit).count();
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, at_most: usize| {
        part.is_some_and(|it| {
            (1..=at_most).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_digit())
        })
    };
    year == 4
        && digits(parts.next(), 4)
        && digits(parts.next(), 2)
        && parts.next().is_some_and(|day| {
            let end = day.find(|c: char| !c.is_ascii_digit()).unwrap_or(day.len());
            (1..=2).contains(&end)
                && day[end..]
                    .chars()
                    .next()
                    .is_none_or(|c| "tT \t".contains(c))
        })
}
