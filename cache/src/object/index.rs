//! Where the lifted values of an object stand, and the text that stands nowhere else.
//!
//! Owns one block: a table of spans, of two or four bytes a number as the object's size asks for,
//! and behind it text, which starts with the object's key. A span counts through the object's bytes
//! and on through that text. It refuses to know what the values mean. Invariant: a span says the
//! text it was pushed with; a place that was only believed to hold it is checked first.

use std::cell::Cell;
use std::ops::Range;

thread_local! {
    /// Where drafts are written, so that each index is allocated once and in its own size.
    static BLOCK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the module text.
#[derive(Clone, Debug)]
pub(super) struct Index {
    block: Box<[u8]>,
    /// Where the text starts.
    table: u32,
    wide: bool,
}

/// An index while it is written.
pub(super) struct Draft<'a> {
    bytes: &'a [u8],
    block: Vec<u8>,
    table: usize,
    wide: bool,
    /// Where the next span goes.
    next: usize,
}

impl Index {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.table as usize / width(self.wide)
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.block[self.table as usize..]
    }

    /// Bytes of the block.
    pub(super) fn memory(&self) -> usize {
        self.block.len()
    }

    /// The value at `place`, of an object with these bytes.
    pub(super) fn read<'a>(&'a self, bytes: &'a [u8], place: usize) -> &'a [u8] {
        let span = self.span(place);
        match span.start.checked_sub(bytes.len()) {
            None => &bytes[span],
            Some(start) => &self.text()[start..start + span.len()],
        }
    }

    /// Through the object's bytes and on through the text.
    pub(super) fn span(&self, place: usize) -> Range<usize> {
        let width = width(self.wide);
        let table = &self.block[..self.table as usize];
        let entry = &table[place * width..][..width];
        let (start, end) = entry.split_at(width / 2);
        number(start)..number(end)
    }
}

impl<'a> Draft<'a> {
    /// An index of `parts` values into `bytes`; all text together is `text_len` bytes long, what
    /// stands in the bytes included.
    pub(super) fn new(bytes: &'a [u8], (parts, text_len): (usize, usize)) -> Self {
        let wide = bytes.len() + text_len > usize::from(u16::MAX);
        let table = parts * width(wide);
        let mut block = BLOCK.take();
        block.clear();
        block.resize(table, 0);
        Self {
            bytes,
            block,
            table,
            wide,
            next: 0,
        }
    }

    /// Appends text that spans are pointed to later.
    pub(super) fn write(&mut self, text: &str) {
        self.block.extend_from_slice(text.as_bytes());
    }

    /// The next value is in the text, here.
    pub(super) fn point(&mut self, in_text: Range<usize>) {
        let start = self.bytes.len();
        self.span(start + in_text.start..start + in_text.end);
    }

    /// The next value is `text`, which may stand in the bytes at one of these places.
    pub(super) fn push(&mut self, text: &str, places: impl IntoIterator<Item = Option<usize>>) {
        let stands = |&place: &usize| {
            let there = self.bytes.get(place..).unwrap_or_default();
            there.starts_with(text.as_bytes())
        };
        let found = places.into_iter().flatten().find(stands);
        let start = found.unwrap_or_else(|| {
            let behind = self.block.len() - self.table;
            self.write(text);
            self.bytes.len() + behind
        });
        self.span(start..start + text.len());
    }

    pub(super) fn finish(self) -> Index {
        assert_eq!(self.next, self.table, "as many values as were announced");
        let index = Index {
            block: self.block[..].into(),
            table: u32::try_from(self.table).expect("a table of spans into 4 GiB at most"),
            wide: self.wide,
        };
        if self.block.capacity() <= BLOCK_MAX {
            BLOCK.set(self.block);
        }
        index
    }

    fn span(&mut self, span: Range<usize>) {
        let width = width(self.wide);
        let entry = &mut self.block[..self.table][self.next..][..width];
        let (start, end) = entry.split_at_mut(width / 2);
        for (place, number) in [(start, span.start), (end, span.end)] {
            place.copy_from_slice(&number.to_le_bytes()[..width / 2]);
        }
        self.next += width;
    }
}

/// Bytes a thread keeps to write drafts in; a longer one is rare.
const BLOCK_MAX: usize = 4 << 10;

/// Bytes of a span.
const fn width(wide: bool) -> usize {
    if wide { 8 } else { 4 }
}

fn number(bytes: &[u8]) -> usize {
    let mut number = [0; size_of::<usize>()];
    number[..bytes.len()].copy_from_slice(bytes);
    usize::from_le_bytes(number)
}
