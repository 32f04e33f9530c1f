//! The patch that says nothing but that the kubelet is alive.
//!
//! Owns its grammar: a status with the order of all conditions, and of the four that a kubelet keeps
//! type and time. Any other member, a member twice, and any escape make it another patch.

use super::{KEPT, StatusHeartbeat, StatusTimes, kept};
use crate::Unread;
use crate::json::{Scanner, each_element, each_member, text};
use crate::micro_time::time_seconds;

/// The member that says in which order the conditions are to stand.
pub(super) const ORDER: &[u8] = b"$setElementOrder/conditions";

pub(super) fn read(body: &[u8]) -> Result<StatusHeartbeat<'_>, Unread> {
    let mut scanner = Scanner::new(body);
    let whole = scanner.value()?;
    scanner.end()?;
    let [status] = members(whole, [b"status"])?;
    let [order, conditions] = members(status, [ORDER, b"conditions"])?;
    Ok(StatusHeartbeat {
        order: types(order)?,
        times: times(conditions)?,
    })
}

/// The types that an order names, each once.
pub(super) fn types(order: &[u8]) -> Result<Vec<&[u8]>, Unread> {
    let mut types = Vec::new();
    each_element(order, |element| {
        let [kind] = members(element, [b"type"])?;
        let kind = text(kind).ok_or(Unread::Form)?;
        if types.contains(&kind) {
            return Err(Unread::Doubled);
        }
        types.push(kind);
        Ok(())
    })?;
    Ok(types)
}

fn times(conditions: &[u8]) -> Result<StatusTimes, Unread> {
    let mut times = [None; KEPT];
    each_element(conditions, |condition| {
        let [kind, time] = members(condition, [b"type", b"lastHeartbeatTime"])?;
        let place = text(kind).and_then(kept).ok_or(Unread::UnknownMember)?;
        let seconds = text(time).and_then(time_seconds).ok_or(Unread::Form)?;
        times[place]
            .replace(seconds)
            .map_or(Ok(()), |_twice| Err(Unread::Doubled))
    })?;
    let [Some(memory), Some(disk), Some(pid), Some(ready)] = times else {
        return Err(Unread::Incomplete);
    };
    Ok(StatusTimes([memory, disk, pid, ready]))
}

/// The values of an object that has these members, each once, and no others.
fn members<'a, const N: usize>(
    object: &'a [u8],
    wanted: [&[u8]; N],
) -> Result<[&'a [u8]; N], Unread> {
    let mut values = [None; N];
    each_member(object, |key, value| {
        let place = wanted.iter().position(|wanted| *wanted == key);
        values[place.ok_or(Unread::UnknownMember)?]
            .replace(value)
            .map_or(Ok(()), |_twice| Err(Unread::Doubled))
    })?;
    if values.contains(&None) {
        return Err(Unread::Incomplete);
    }
    Ok(values.map(Option::unwrap_or_default))
}
