//! Protobuf against recorded protobuf.
//!
//! Owns the walk over both messages, field by field, without a schema: equal bytes match, a field
//! recorded with a symbol's value unifies with the live one, and what looks like a time may be
//! another time. Refuses to guess further: anything else that differs is a mismatch.

use super::matcher::{Bindings, Mismatch, snippet};
use super::model::SymbolKind;

/// What varints of this size are: seconds since 1970.
const TIMES: std::ops::Range<u64> = 1_600_000_000..2_200_000_000;

/// How deep messages are followed.
const DEPTH_MAX: usize = 64;

/// Compares a body or a watch frame (with its length prefix) with the recorded one.
///
/// `version_symbol` names the symbol of the list's or bookmark's resource version, which several
/// symbols may share the recorded value of.
pub(super) fn match_message(
    bindings: &mut Bindings<'_>,
    recorded: &[u8],
    live: &[u8],
    version_symbol: Option<&str>,
) -> Result<(), Mismatch> {
    let mut walk = Walk {
        bindings,
        version_symbol,
        depth: 0,
    };
    match (frame(recorded), frame(live)) {
        (Some(recorded), Some(live)) => walk.message(recorded, live),
        (None, None) => walk.value(recorded, live),
        _ => Err(Mismatch::new("only one of the two is a watch frame")),
    }
}

/// The event inside a frame; none when this is no frame.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, event) = bytes.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == event.len()).then_some(event)
}

struct Walk<'w, 'a> {
    bindings: &'w mut Bindings<'a>,
    version_symbol: Option<&'w str>,
    depth: usize,
}

#[derive(Debug, PartialEq)]
enum Content<'a> {
    Varint(u64),
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

impl Walk<'_, '_> {
    fn message(&mut self, recorded: &[u8], live: &[u8]) -> Result<(), Mismatch> {
        let fields = |bytes| fields(bytes).ok_or_else(|| Mismatch::new("not a protobuf message"));
        let (recorded, live) = (fields(recorded)?, fields(live)?);
        let numbers = |fields: &[(u64, Content<'_>)]| -> Vec<u64> {
            fields.iter().map(|(number, _)| *number).collect()
        };
        if numbers(&recorded) != numbers(&live) {
            return Err(Mismatch::new(format!(
                "fields {:?} recorded, {:?} live",
                numbers(&recorded),
                numbers(&live)
            )));
        }
        for ((number, recorded), (_, live)) in recorded.iter().zip(&live) {
            self.content(recorded, live)
                .map_err(|mismatch| mismatch.at(&number.to_string()))?;
        }
        Ok(())
    }

    fn content(&mut self, recorded: &Content<'_>, live: &Content<'_>) -> Result<(), Mismatch> {
        match (recorded, live) {
            (Content::Varint(left), Content::Varint(right)) => {
                let times = TIMES.contains(left) && TIMES.contains(right);
                if left == right || times {
                    return Ok(());
                }
                Err(Mismatch::new(format!("{left} recorded, {right} live")))
            }
            (Content::Bytes(left), Content::Bytes(right)) => self.value(left, right),
            (left, right) if left == right => Ok(()),
            (left, right) => Err(Mismatch::new(format!(
                "{left:02x?} recorded, {right:02x?} live"
            ))),
        }
    }

    fn value(&mut self, recorded: &[u8], live: &[u8]) -> Result<(), Mismatch> {
        let texts = (std::str::from_utf8(recorded), std::str::from_utf8(live));
        if let (Ok(recorded), Ok(live)) = texts
            && let Some(result) = self.symbol(recorded, live)
        {
            return result;
        }
        // Symbols are bound also inside what happens to be equal.
        let (left, right) = match (recorded.strip_prefix(b"k8s\0"), live.strip_prefix(b"k8s\0")) {
            (Some(left), Some(right)) => (left, right),
            _ => (recorded, live),
        };
        let nested = fields(left).is_some() && fields(right).is_some();
        if nested && !left.is_empty() && self.depth < DEPTH_MAX {
            self.depth += 1;
            let result = self.message(left, right);
            self.depth -= 1;
            if result.is_ok() || left.len() > 12 {
                return result;
            }
        }
        if recorded == live {
            return Ok(());
        }
        if let (Ok(recorded), Ok(live)) = texts {
            return self.text(recorded, live);
        }
        let (left, right) = (snippet(recorded, 30), snippet(live, 30));
        Err(Mismatch::new(format!("{left} recorded, {right} live")))
    }

    /// Unifies a whole field recorded as a symbol's value; none when it is not.
    fn symbol(&mut self, recorded: &str, live: &str) -> Option<Result<(), Mismatch>> {
        let candidates: Vec<_> = self.bindings.recorded_as(recorded).collect();
        let exact = |kind| {
            candidates
                .iter()
                .find(|(_, own)| *own == kind)
                .map(|(name, _)| *name)
        };
        let listed = self.version_symbol.filter(|name| {
            candidates
                .iter()
                .any(|(candidate, kind)| candidate == name && *kind == SymbolKind::Lrv)
        });
        // The first such field is the list's or the bookmark's; what follows is the items'.
        let name = match listed {
            Some(name) => {
                self.version_symbol = None;
                name
            }
            None => exact(SymbolKind::Rv).or_else(|| candidates.first().map(|(name, _)| *name))?,
        };
        Some(self.bindings.bind(name, live))
    }

    /// Text that contains symbols' values, such as a message about resource versions.
    fn text(&mut self, recorded: &str, live: &str) -> Result<(), Mismatch> {
        let words = |text: &str| -> Vec<String> {
            text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c))
                .map(str::to_owned)
                .collect()
        };
        let (left, right) = (words(recorded), words(live));
        let differs = || {
            Mismatch::new(format!(
                "{} recorded, {} live",
                snippet(recorded.as_bytes(), 30),
                snippet(live.as_bytes(), 30)
            ))
        };
        if left.len() != right.len() {
            return Err(differs());
        }
        for (left, right) in left.iter().zip(&right) {
            let end = |word: &str| {
                word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
                    .len()
            };
            let (left_word, left_end) = left.split_at(end(left));
            let (right_word, right_end) = right.split_at(end(right));
            let Some((name, _)) = self.bindings.recorded_as(left_word).next() else {
                let versions = self.bindings.may_be_version(left_word, right_word);
                if left != right && !(versions && left_end == right_end) {
                    return Err(differs());
                }
                continue;
            };
            if left_end != right_end {
                return Err(differs());
            }
            self.bindings.bind(name, right_word)?;
        }
        Ok(())
    }
}

/// All fields of a message; none when the bytes are no message.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Content<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let content = match key & 7 {
            0 => Content::Varint(varint(&mut bytes)?),
            1 => Content::Fixed(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Content::Bytes(take(&mut bytes, length)?)
            }
            5 => Content::Fixed(take(&mut bytes, 4)?),
            _ => return None,
        };
        if key >> 3 == 0 {
            return None;
        }
        all.push((key >> 3, content));
    }
    Some(all)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}
