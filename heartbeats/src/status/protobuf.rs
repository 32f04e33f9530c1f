//! The conditions of a Node in protobuf.

use super::Found;
use crate::Unread;
use crate::protobuf::{MAGIC, Reader, VARINT, number, put_varint};

pub(super) fn read<'a>(bytes: &'a [u8], found: &mut Found<'a>) -> Result<(), Unread> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Unread::Form)?;
    let node = only(envelope, 2)?.ok_or(Unread::Incomplete)?;
    let metadata = only(node, 1)?.ok_or(Unread::Incomplete)?;
    found.is_being_deleted = only(metadata, 9)?.is_some();
    let status = only(node, 3)?.ok_or(Unread::Incomplete)?;
    each_field(status, |field, value| match field {
        4 => condition(bytes, value?, found),
        _ => Ok(()),
    })
}

fn condition<'a>(whole: &'a [u8], message: &'a [u8], found: &mut Found<'a>) -> Result<(), Unread> {
    let (mut kind, mut status, mut time) = (None, None, None);
    each_field(message, |field, value| {
        let place = match field {
            1 => &mut kind,
            2 => &mut status,
            3 => &mut time,
            _ => return Ok(()),
        };
        place
            .replace(value?)
            .map_or(Ok(()), |_twice| Err(Unread::Doubled))
    })?;
    let time = time.and_then(|message| Some((seconds(message)?, message)));
    found.condition(whole, kind.ok_or(Unread::Form)?, status, time)
}

/// The payload of a field that is there at most once.
fn only(message: &[u8], wanted: u64) -> Result<Option<&[u8]>, Unread> {
    let mut only = None;
    each_field(message, |field, value| {
        let twice = field == wanted && only.replace(value?).is_some();
        if twice { Err(Unread::Doubled) } else { Ok(()) }
    })?;
    Ok(only)
}

/// Visits the fields of a message by number, each with its payload if it has one.
fn each_field<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u64, Result<&'a [u8], Unread>) -> Result<(), Unread>,
) -> Result<(), Unread> {
    let mut reader = Reader { rest: message };
    while !reader.rest.is_empty() {
        let field = reader.field()?;
        visit(field.number, field.message())?;
    }
    Ok(())
}

/// What a `Time` says, if it is written as [`time`] writes it.
fn seconds(message: &[u8]) -> Option<i64> {
    let mut reader = Reader { rest: message };
    let field = reader.field().ok()?;
    (field.number == 1 && field.wire == VARINT).then_some(())?;
    let seconds = i64::try_from(number(field.value)?).ok()?;
    (time(seconds)? == message).then_some(seconds)
}

/// A `Time` as apiservers write it: seconds, and no nanoseconds.
pub(super) fn time(seconds: i64) -> Option<Vec<u8>> {
    let mut message = vec![1 << 3];
    put_varint(&mut message, u64::try_from(seconds).ok()?);
    message.extend_from_slice(&[2 << 3, 0]);
    Some(message)
}
