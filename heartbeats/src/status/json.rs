//! The conditions of a Node in JSON.

use super::Found;
use crate::Unread;
use crate::json::{Scanner, each_element, each_member, text};
use crate::micro_time::time_seconds;

pub(super) fn read<'a>(bytes: &'a [u8], found: &mut Found<'a>) -> Result<(), Unread> {
    let mut conditions = None;
    let mut scanner = Scanner::new(bytes);
    scanner.object(|scanner, key| match key {
        b"metadata" => scanner.object(|scanner, key| {
            found.is_being_deleted |= key == b"deletionTimestamp";
            scanner.value().map(drop)
        }),
        b"status" => scanner.object(|scanner, key| {
            let value = scanner.value()?;
            let twice = key == b"conditions" && conditions.replace(value).is_some();
            if twice { Err(Unread::Doubled) } else { Ok(()) }
        }),
        _ => scanner.value().map(drop),
    })?;
    scanner.end()?;
    each_element(conditions.ok_or(Unread::Incomplete)?, |condition| {
        let (mut kind, mut status, mut time) = (None, None, None);
        each_member(condition, |key, value| {
            let place = match key {
                b"type" => &mut kind,
                b"status" => &mut status,
                b"lastHeartbeatTime" => &mut time,
                _ => return Ok(()),
            };
            place
                .replace(value)
                .map_or(Ok(()), |_twice| Err(Unread::Doubled))
        })?;
        let time = time
            .and_then(text)
            .and_then(|text| Some((time_seconds(text)?, text)));
        let kind = kind.and_then(text).ok_or(Unread::Form)?;
        found.condition(bytes, kind, status.and_then(text), time)
    })
}
