//! JSON into the three fields of a token, as Go's `encoding/json` reads it and complains about it.
//!
//! Owns the texts of that decoder: the whole input is checked before anything of it is looked at;
//! names match in any case, later ones win, and the first member of a wrong type is the error of
//! an input that is otherwise fine. Refuses any other target than [`Token`]. Invariant: the end of
//! the input reads as one blank and then as nothing, which is why Go calls half a literal a bad
//! character and half a string an unexpected end.

use super::super::request::go_quote;
use super::Token;

/// Deepest nesting Go reads.
const MAX_DEPTH: usize = 10_000;

const END: &str = "unexpected end of JSON input";

/// Reads a token; the error is Go's.
pub(super) fn decode(input: &[u8]) -> Result<Token, String> {
    let mut scanner = Scanner {
        input,
        at: 0,
        open: Vec::new(),
        members: Vec::new(),
    };
    let start = scanner.document()?;
    let mut token = Token::default();
    match start {
        b'{' => {}
        b'n' => return Ok(token),
        other => {
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type storage.continueToken",
                kind(other)
            ));
        }
    }
    let mut wrong = None;
    for (key, value) in &scanner.members {
        let value = &input[value.clone()];
        if value == b"null" {
            continue;
        }
        let name = unquote(&input[key.clone()]).replace('ſ', "s");
        let read = match name.to_ascii_lowercase().as_str() {
            "v" => text(value, "v", &mut token.version),
            "start" => text(value, "start", &mut token.start),
            "rv" => integer(value, &mut token.revision),
            _ => continue,
        };
        wrong = wrong.or_else(|| read.err());
    }
    wrong.map_or(Ok(token), Err)
}

fn text(value: &[u8], field: &str, out: &mut String) -> Result<(), String> {
    if value[0] != b'"' {
        return Err(mistyped(kind(value[0]), field, "string"));
    }
    *out = unquote(value);
    Ok(())
}

fn integer(value: &[u8], out: &mut i64) -> Result<(), String> {
    let number = String::from_utf8_lossy(value);
    if !matches!(value[0], b'-' | b'0'..=b'9') {
        return Err(mistyped(kind(value[0]), "rv", "int64"));
    }
    *out = number
        .parse()
        .map_err(|_| mistyped(&format!("number {number}"), "rv", "int64"))?;
    Ok(())
}

fn mistyped(what: &str, field: &str, wanted: &str) -> String {
    format!(
        "json: cannot unmarshal {what} into Go struct field continueToken.{field} of type {wanted}"
    )
}

/// What Go calls the value that starts so.
fn kind(start: u8) -> &'static str {
    match start {
        b'"' => "string",
        b'{' => "object",
        b'[' => "array",
        b't' | b'f' => "bool",
        _ => "number",
    }
}

type Span = std::ops::Range<usize>;

struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    /// The brackets around `at`.
    open: Vec<u8>,
    /// Keys and values of the outermost object.
    members: Vec<(Span, Span)>,
}

impl Scanner<'_> {
    /// Checks everything; the first byte of the one value.
    fn document(&mut self) -> Result<u8, String> {
        let start = self.token()?;
        let mut key = 0..0;
        loop {
            let from = self.value(&mut key)?;
            if let Some(from) = from
                && !self.closed(from, &mut key)?
            {
                break;
            }
        }
        while self.at < self.input.len() {
            let byte = self.input[self.at];
            if !is_space(byte) {
                return Err(bad(byte, "after top-level value"));
            }
            self.at += 1;
        }
        Ok(start)
    }

    /// A value, or the start of one with something in it; where it began if it is complete.
    fn value(&mut self, key: &mut Span) -> Result<Option<usize>, String> {
        let byte = self.token()?;
        let from = self.at;
        match byte {
            b'{' | b'[' => {
                self.at += 1;
                if self.token()? == byte + 2 {
                    self.at += 1;
                    return Ok(Some(from));
                }
                if self.open.len() == MAX_DEPTH {
                    return Err("exceeded max depth".to_owned());
                }
                self.open.push(byte);
                if byte == b'{' {
                    self.key(key)?;
                }
                return Ok(None);
            }
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return Err(bad(byte, "looking for beginning of value")),
        }
        Ok(Some(from))
    }

    /// What follows a complete value; whether another one does.
    fn closed(&mut self, mut from: usize, key: &mut Span) -> Result<bool, String> {
        while let Some(&open) = self.open.last() {
            if self.open.len() == 1 && open == b'{' {
                self.members.push((key.clone(), from..self.at));
            }
            let byte = self.token()?;
            self.at += 1;
            match (open, byte) {
                (b'{', b',') => {
                    self.token()?;
                    self.key(key)?;
                    return Ok(true);
                }
                (b'[', b',') => return Ok(true),
                (b'{', b'}') | (b'[', b']') => {
                    self.open.pop();
                    // A container of the outermost object: its members start with its bracket.
                    if self.open.len() == 1 {
                        from = key.end;
                        while self.input[from] != b':' {
                            from += 1;
                        }
                        from += 1;
                        while is_space(self.input[from]) {
                            from += 1;
                        }
                    }
                }
                (b'{', _) => return Err(bad(byte, "after object key:value pair")),
                _ => return Err(bad(byte, "after array element")),
            }
        }
        Ok(false)
    }

    fn key(&mut self, key: &mut Span) -> Result<(), String> {
        let byte = self.token()?;
        if byte != b'"' {
            return Err(bad(byte, "looking for beginning of object key string"));
        }
        let from = self.at;
        self.string()?;
        if self.open.len() == 1 {
            *key = from..self.at;
        }
        match self.token()? {
            b':' => self.at += 1,
            byte => return Err(bad(byte, "after object key")),
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            let byte = self.next()?;
            match byte {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.next()?;
                            if !digit.is_ascii_hexdigit() {
                                return Err(bad(digit, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    other => return Err(bad(other, "in string escape code")),
                },
                0..0x20 => return Err(bad(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            other => return Err(bad(other, "in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.one_digit("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.one_digit("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn one_digit(&mut self, place: &str) -> Result<(), String> {
        let byte = self.next()?;
        if !byte.is_ascii_digit() {
            return Err(bad(byte, place));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes() {
            let byte = self.next()?;
            if byte != expected {
                let wanted = char::from(expected);
                return Err(bad(
                    byte,
                    &format!("in literal {word} (expecting '{wanted}')"),
                ));
            }
        }
        Ok(())
    }

    /// The next byte that is no space; the scanner stands at it.
    fn token(&mut self) -> Result<u8, String> {
        loop {
            match self.peek().ok_or(END)? {
                byte if is_space(byte) => self.at += 1,
                byte => return Ok(byte),
            }
        }
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.peek().ok_or(END)?;
        self.at += 1;
        Ok(byte)
    }

    fn peek(&self) -> Option<u8> {
        match self.input.get(self.at) {
            Some(&byte) => Some(byte),
            None => (self.at == self.input.len()).then_some(b' '),
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn bad(byte: u8, place: &str) -> String {
    let quoted = match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        byte => {
            let quoted = go_quote(&char::from(byte).to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    };
    format!("invalid character {quoted} {place}")
}

/// The text of a string that was checked; what is not Unicode becomes U+FFFD.
fn unquote(quoted: &[u8]) -> String {
    let inner = String::from_utf8_lossy(&quoted[1..quoted.len() - 1]);
    let mut units = Vec::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
            continue;
        }
        units.push(match rest.next() {
            Some('b') => 8,
            Some('f') => 12,
            Some('n') => 10,
            Some('r') => 13,
            Some('t') => 9,
            Some('u') => {
                let hex: String = rest.by_ref().take(4).collect();
                u16::from_str_radix(&hex, 16).expect("four digits were checked")
            }
            other => other.map_or(0xfffd, |c| c as u16),
        });
    }
    String::from_utf16_lossy(&units)
}
