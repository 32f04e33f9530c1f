//! Go's complaints about malformed JSON and times, word for word.
//!
//! Owns a scanner that finds the first mistake `encoding/json` would report, and the layouts of
//! `Time` and `MicroTime`. Refuses to build values: `serde_json` does that for valid input.
//!
//! Invariant: input that serde_json accepts has no mistake here, so the two never disagree on
//! whether, only on how to say it.

/// The text of Go's error for JSON that does not parse.
pub(super) fn syntax_error(text: &[u8]) -> String {
    let mut scanner = Scanner { text, at: 0 };
    match scanner
        .value("looking for beginning of value")
        .and_then(|()| scanner.end())
    {
        Ok(()) => "invalid character".to_owned(),
        Err(error) => error,
    }
}

/// JSON with what Go replaces replaced: invalid UTF-8, byte by byte, and lone surrogates.
pub(super) fn sanitize(text: &[u8]) -> Vec<u8> {
    let mut valid = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        valid.push_str(chunk.valid());
        valid.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    let mut out = String::with_capacity(valid.len());
    let mut rest = valid.as_str();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let unit = surrogate(escape);
        let next = escape.get(6..).and_then(surrogate);
        let len = match (unit, next) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12, // a pair
            (Some(_), _) => {
                out.push(char::REPLACEMENT_CHARACTER);
                rest = &escape[6..];
                continue;
            }
            (None, _) => escape
                .char_indices()
                .nth(2)
                .map_or(escape.len(), |(index, _)| index),
        };
        out.push_str(&escape[..len]);
        rest = &escape[len..];
    }
    out.push_str(rest);
    out.into_bytes()
}

/// The surrogate a text starting with `\uXXXX` begins with.
fn surrogate(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let unit = u32::from_str_radix(digits, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

type Scan = Result<(), String>;

impl Scanner<'_> {
    fn peek(&mut self) -> Result<u8, String> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text
            .get(self.at)
            .copied()
            .ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn complain<T>(&self, context: &str) -> Result<T, String> {
        let Some(byte) = self.text.get(self.at) else {
            return Err("unexpected end of JSON input".to_owned());
        };
        let character = match byte {
            b'\'' => "'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            b'\n' => "'\\n'".to_owned(),
            b'\t' => "'\\t'".to_owned(),
            byte if byte.is_ascii_graphic() || *byte == b' ' => {
                format!("'{}'", char::from(*byte))
            }
            byte if byte.is_ascii() => format!("'\\x{byte:02x}'"),
            byte => format!("'{}'", char::from(*byte)),
        };
        Err(format!("invalid character {character} {context}"))
    }

    fn value(&mut self, context: &str) -> Scan {
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => {
                self.number();
                Ok(())
            }
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.complain(context),
        }
    }

    fn object(&mut self) -> Scan {
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return self.complain("looking for beginning of object key string");
            }
            self.string()?;
            if self.peek()? != b':' {
                return self.complain("after object key");
            }
            self.at += 1;
            self.value("looking for beginning of value")?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.complain("after object key:value pair"),
            }
        }
    }

    fn array(&mut self) -> Scan {
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value("looking for beginning of value")?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.complain("after array element"),
            }
        }
    }

    fn string(&mut self) -> Scan {
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                None => return Err("unexpected end of JSON input".to_owned()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.text.get(self.at) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u') => {}
                        _ => return self.complain("in string escape code"),
                    }
                }
                Some(byte) if *byte < 0x20 => return self.complain("in string literal"),
                Some(_) => {}
            }
            self.at += 1;
        }
    }

    fn number(&mut self) {
        let numeric = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
        while self.text.get(self.at).is_some_and(numeric) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Scan {
        for (index, expected) in word.bytes().enumerate() {
            if self.text.get(self.at) != Some(&expected) {
                let expected = char::from(expected);
                let _ = index;
                return self.complain(&format!("in literal {word} (expecting '{expected}')"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn end(&mut self) -> Scan {
        match self.peek() {
            Ok(_) => self.complain("after top-level value"),
            Err(_) => Ok(()),
        }
    }
}

/// The two layouts of times in objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeLayout {
    /// `metav1.Time`: seconds; a fraction is read and dropped.
    Seconds,
    /// `metav1.MicroTime`: exactly six digits of fraction.
    Micros,
}

/// The text of Go's `time.Parse` error, or nothing when the time is well formed.
pub(super) fn time_error(layout: TimeLayout, text: &str) -> Option<String> {
    let (name, pieces): (_, &[&str]) = match layout {
        TimeLayout::Seconds => (
            "2006-01-02T15:04:05Z07:00",
            &[
                "2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05", "Z07:00",
            ],
        ),
        TimeLayout::Micros => (
            "2006-01-02T15:04:05.000000Z07:00",
            &[
                "2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05", ".000000", "Z07:00",
            ],
        ),
    };
    let mut rest = text;
    for piece in pieces {
        match piece_len(piece, rest) {
            Some(len) => rest = &rest[len..],
            None => {
                return Some(format!(
                    "parsing time \"{text}\" as \"{name}\": cannot parse \"{rest}\" as \"{piece}\""
                ));
            }
        }
        if layout == TimeLayout::Seconds
            && *piece == "05"
            && let Some(fraction) = rest.strip_prefix('.')
        {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            rest = &fraction[digits..];
        }
    }
    (!rest.is_empty()).then(|| format!("parsing time \"{text}\": extra text: \"{rest}\""))
}

/// How many bytes of `text` a piece of a layout consumes.
fn piece_len(piece: &str, text: &str) -> Option<usize> {
    let digits = |from: usize, len: usize| {
        let part = text.get(from..from + len)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then_some(())
    };
    match piece {
        "Z07:00" if text.starts_with('Z') => Some(1),
        "Z07:00" => {
            let signed = text.starts_with(['+', '-']) && text.get(3..4) == Some(":");
            digits(1, 2)
                .and_then(|()| digits(4, 2))
                .filter(|()| signed)
                .map(|()| 6)
        }
        ".000000" => digits(1, 6).filter(|()| text.starts_with('.')).map(|()| 7),
        piece if piece.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits(0, piece.len()).map(|()| piece.len())
        }
        literal => text.starts_with(literal).then_some(literal.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_read_as_gos() {
        for (text, error) in [
            (
                "{bad",
                "invalid character 'b' looking for beginning of object key string",
            ),
            ("", "unexpected end of JSON input"),
            (
                "hello",
                "invalid character 'h' looking for beginning of value",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 2}",
                "invalid character '2' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            (
                "nul!",
                "invalid character '!' in literal null (expecting 'l')",
            ),
        ] {
            assert_eq!(syntax_error(text.as_bytes()), error, "{text}");
        }
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        let sanitized = |text: &[u8]| String::from_utf8(sanitize(text)).unwrap();
        assert_eq!(sanitized(b"\"\xff\xfe\""), "\"\u{fffd}\u{fffd}\"");
        assert_eq!(sanitized(b"\"\\ud800 \\udc00\""), "\"\u{fffd} \u{fffd}\"");
        let kept = "\"\\ud83d\\ude00 \\n \\\\ud800 \u{e9}\"";
        assert_eq!(sanitized(kept.as_bytes()), kept);
    }

    #[test]
    fn time_errors_read_as_gos() {
        let layout = "2006-01-02T15:04:05.000000Z07:00";
        let error = |text| time_error(TimeLayout::Micros, text);
        assert_eq!(error("2024-05-06T07:00:00.123456Z"), None);
        assert_eq!(
            error("not-a-time").as_deref(),
            Some(&*format!(
                "parsing time \"not-a-time\" as \"{layout}\": cannot parse \"not-a-time\" as \"2006\""
            ))
        );
        assert_eq!(
            error("2024-05-06T07:00:05.5Z").as_deref(),
            Some(&*format!(
                "parsing time \"2024-05-06T07:00:05.5Z\" as \"{layout}\": cannot parse \".5Z\" as \
                 \".000000\""
            ))
        );
        assert_eq!(
            time_error(TimeLayout::Seconds, "2024-05-06T07:00:05.5+01:00"),
            None
        );
    }
}
