//! A JSON scanner: one pass over bytes, no tree.
//!
//! Owns the grammar: it accepts exactly RFC 8259 in UTF-8, with nothing after the value, and
//! reports where values stand. Objects are walked along a
//! [`Shape`](crate::fields::shape::Shape); what the shape does not name
//! is skipped, but still checked. It refuses to build values: text is only unescaped when somebody
//! asks for it. Of duplicate keys the last one wins, as in Go's decoder; a lone surrogate escape
//! reads as U+FFFD, as there. Nesting is limited to what Go allows, and no depth uses the stack.
//!
//! Strings are most of a text, and most of them are short: they are looked through eight bytes at a
//! time, in plain arithmetic.
//!
//! Rejected: serde_json (a third of the speed, since it must visit every value), SIMD scanners (as
//! fast as this only through `unsafe` interfaces that trust their input).

use std::ops::Range;

use super::DecodeError;

mod escape;
mod object;
mod walk;

pub(super) use escape::unescape;
pub(super) use object::{
    check_kind, has_type_meta, lift, lift_scanned, metadata, replace_resource_version, scan_object,
    without_type_meta,
};

/// Deepest nesting accepted, as Go `encoding/json`.
const MAX_DEPTH: usize = 10_000;

/// A position in a JSON text.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Open containers while skipping, true for an object; kept to reuse its memory.
    open: Vec<bool>,
}

impl<'a> Scanner<'a> {
    /// # Errors
    /// Bytes that are not UTF-8.
    pub(super) fn new(input: &'a [u8]) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(input).map_err(|error| DecodeError::Malformed {
            what: "UTF-8",
            at: error.valid_up_to(),
        })?;
        Ok(Self {
            text,
            at: 0,
            open: Vec::new(),
        })
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Walks an object, calling `member` with the scanner at each value and the key; `member` must
    /// consume the value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.expect(b'{', "JSON object")?;
        if self.token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let (key, is_plain) = self.key()?;
            let text = self.text;
            if is_plain {
                member(self, &text[key.start + 1..key.end - 1])?;
            } else {
                member(self, &unescape(&text[key]))?;
            }
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => break self.at += 1,
                _ => return Err(self.malformed("JSON object")),
            }
        }
        Ok(())
    }

    /// The value of the first member of this name in the object the scanner stands at. What follows
    /// it is neither read nor checked.
    pub(super) fn member(&mut self, name: &str) -> Result<Option<Range<usize>>, DecodeError> {
        self.expect(b'{', "JSON object")?;
        if self.token() == Some(b'}') {
            return Ok(None);
        }
        loop {
            let (key, _) = self.key()?;
            let is_it = unescape(&self.text[key]) == name;
            let value = self.skip()?;
            if is_it {
                return Ok(Some(value));
            }
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => return Ok(None),
                _ => return Err(self.malformed("JSON object")),
            }
        }
    }

    /// Walks an array, calling `element` with the scanner at each value; `element` must consume the
    /// value.
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.expect(b'[', "JSON array")?;
        if self.token() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            element(self)?;
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b']') => break self.at += 1,
                _ => return Err(self.malformed("JSON array")),
            }
        }
        Ok(())
    }

    /// Reads a key and its colon; returns what [`Self::string`] does of the key.
    fn key(&mut self) -> Result<(Range<usize>, bool), DecodeError> {
        let key = self.string()?;
        self.expect(b':', "JSON object")?;
        Ok(key)
    }

    /// Skips any one value, checking it, and returns where it stands.
    pub(super) fn skip(&mut self) -> Result<Range<usize>, DecodeError> {
        let token = self.token();
        let start = self.at;
        match token {
            Some(b'{' | b'[') => self.skip_container()?,
            _ => self.scalar()?,
        }
        Ok(start..self.at)
    }

    fn skip_container(&mut self) -> Result<(), DecodeError> {
        self.open.clear();
        loop {
            match self.token() {
                Some(b'{') => {
                    self.at += 1;
                    if self.token() == Some(b'}') {
                        self.at += 1;
                    } else {
                        self.enter(true)?;
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if self.token() == Some(b']') {
                        self.at += 1;
                    } else {
                        self.enter(false)?;
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            if !self.leave()? {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, object: bool) -> Result<(), DecodeError> {
        if self.open.len() == MAX_DEPTH {
            return Err(self.malformed("JSON nested too deep"));
        }
        self.open.push(object);
        Ok(())
    }

    /// After a value: closes what ends here, and says whether another value follows.
    fn leave(&mut self) -> Result<bool, DecodeError> {
        while let Some(&object) = self.open.last() {
            match (self.token(), object) {
                (Some(b','), true) => {
                    self.at += 1;
                    self.key()?;
                    return Ok(true);
                }
                (Some(b','), false) => {
                    self.at += 1;
                    return Ok(true);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    self.open.pop();
                }
                _ => return Err(self.malformed("JSON value")),
            }
        }
        Ok(false)
    }

    fn scalar(&mut self) -> Result<(), DecodeError> {
        match self.token() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.malformed("JSON value")),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), DecodeError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.malformed("JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), DecodeError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            Err(self.malformed("JSON number"))
        } else {
            Ok(())
        }
    }

    /// Reads a string; returns where it stands, quotes included, and whether nothing in it is
    /// escaped.
    fn string(&mut self) -> Result<(Range<usize>, bool), DecodeError> {
        self.expect(b'"', "JSON string")?;
        let start = self.at - 1;
        let bytes = self.text.as_bytes();
        let (mut at, mut is_plain) = (self.at, true);
        loop {
            at += plain_len(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at += self.escape(at)?,
                Some(_) | None => {
                    return Err(DecodeError::Malformed {
                        what: "JSON string",
                        at,
                    });
                }
            }
            is_plain = false;
        }
        self.at = at + 1;
        Ok((start..self.at, is_plain))
    }

    /// Length of the escape at `at`.
    fn escape(&self, at: usize) -> Result<usize, DecodeError> {
        let bytes = self.text.as_bytes();
        match bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u')
                if bytes
                    .get(at + 2..at + 6)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                Ok(6)
            }
            _ => Err(DecodeError::Malformed {
                what: "JSON string",
                at,
            }),
        }
    }

    /// # Errors
    /// Anything but whitespace after the value.
    pub(super) fn end(&mut self) -> Result<(), DecodeError> {
        match self.token() {
            None => Ok(()),
            Some(_) => Err(self.malformed("end of JSON")),
        }
    }

    /// The next byte that is not whitespace; the scanner stands at it.
    pub(super) fn token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeError> {
        if self.token() != Some(byte) {
            return Err(self.malformed(what));
        }
        self.at += 1;
        Ok(())
    }

    fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { what, at: self.at }
    }
}

/// How many bytes stand before the first that means something in a string: a quote, a backslash, or
/// a control character, which must not be there.
fn plain_len(bytes: &[u8]) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    // A zero byte borrows from its high bit. So may the bytes behind it, hence only the first counts.
    let below = |word: u64, least: u8| word.wrapping_sub(u64::from(least) * EACH) & !word;
    let is = |word: u64, byte: u8| below(word ^ (u64::from(byte) * EACH), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = (is(word, b'"') | is(word, b'\\') | below(word, 0x20)) & HIGH;
        if found != 0 {
            return 8 * at + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
    bytes.len() - rest.len() + rest.iter().take_while(plain).count()
}

#[cfg(test)]
mod tests;
