//! JSON as it stands in bytes: where a value ends, and what the members of an object are.
//!
//! Owns the search for the end of a value. Refuses to check values that nobody reads beyond their
//! brackets and quotes, to look deeper than [`DEPTH`], and to undo escapes: text with one in it is
//! not understood.

use crate::Unread;

/// Deeper values are not looked into.
const DEPTH: usize = 64;

/// The characters of a string, if each stands for itself.
pub(crate) fn text(value: &[u8]) -> Option<&[u8]> {
    let [b'"', text @ .., b'"'] = value else {
        return None;
    };
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
    text.iter().all(plain).then_some(text)
}

/// Visits the members of an object with their keys as they stand between the quotes.
pub(crate) fn each_member<'a>(
    object: &'a [u8],
    mut visit: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Unread>,
) -> Result<(), Unread> {
    Scanner::new(object).object(|scanner, key| visit(key, scanner.value()?))
}

/// Visits the elements of an array.
pub(crate) fn each_element<'a>(
    array: &'a [u8],
    mut visit: impl FnMut(&'a [u8]) -> Result<(), Unread>,
) -> Result<(), Unread> {
    let mut scanner = Scanner::new(array);
    scanner.expect(b'[')?;
    if scanner.takes(b']') {
        return Ok(());
    }
    loop {
        visit(scanner.value()?)?;
        if !scanner.takes(b',') {
            return scanner.expect(b']');
        }
    }
}

pub(crate) struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Unread> {
        self.skip_space();
        self.rest.is_empty().then_some(()).ok_or(Unread::Form)
    }

    /// Visits the members of an object; the visitor takes the value off the scanner.
    pub(crate) fn object(
        &mut self,
        mut visit: impl FnMut(&mut Self, &'a [u8]) -> Result<(), Unread>,
    ) -> Result<(), Unread> {
        self.expect(b'{')?;
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            let [b'"', key @ .., b'"'] = self.string()? else {
                return Err(Unread::Form);
            };
            self.expect(b':')?;
            visit(self, key)?;
            if !self.takes(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn takes(&mut self, wanted: u8) -> bool {
        self.skip_space();
        match self.rest.split_first() {
            Some((&first, rest)) if first == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Unread> {
        self.takes(wanted).then_some(()).ok_or(Unread::Form)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unread> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unread::Form)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A string with its quotes.
    fn string(&mut self) -> Result<&'a [u8], Unread> {
        self.skip_space();
        let length = string_length(self.rest).ok_or(Unread::Form)?;
        self.take(length)
    }

    /// Any value, by where it must end.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], Unread> {
        self.skip_space();
        let length = match self.rest.first().ok_or(Unread::Form)? {
            b'"' => string_length(self.rest).ok_or(Unread::Form)?,
            b'{' | b'[' => nested_length(self.rest).ok_or(Unread::Form)?,
            _ => {
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                self.rest.iter().take_while(|byte| plain(byte)).count()
            }
        };
        if length == 0 {
            return Err(Unread::Form);
        }
        self.take(length)
    }
}

/// The length of the string that these bytes begin with.
fn string_length(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// The length of the object or array that these bytes begin with.
fn nested_length(bytes: &[u8]) -> Option<usize> {
    let mut closers = [0; DEPTH];
    let (mut depth, mut at) = (0, 0);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += string_length(&bytes[at..])?;
                continue;
            }
            open @ (b'{' | b'[') => {
                // The bracket that closes is two after the one that opens.
                *closers.get_mut(depth)? = open + 2;
                depth += 1;
            }
            close @ (b'}' | b']') => {
                depth -= 1;
                if closers[depth] != *close {
                    return None;
                }
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}
