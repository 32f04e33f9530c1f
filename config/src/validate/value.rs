//! The rules for single values, whatever section they stand in, and the way a breach is noted.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{Check, MINUTE};
use crate::duration::Time;
use crate::quantity::Quantity;
use crate::{FileContent, Mistake, ReferencedFile};

impl Check<'_> {
    /// Notes a mistake, unless the decoder refused something at, above or below the key.
    pub(super) fn note(&mut self, key: &str, message: String) {
        let place = self.tree.place(key);
        let inside = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let echo = self.mistakes[..self.refused].iter().any(|refusal| {
            let refused = refusal.place.key.as_str();
            refused.is_empty() || inside(refused, &place.key) || inside(&place.key, refused)
        });
        if !echo {
            self.mistakes.push(Mistake { place, message });
        }
    }

    /// Notes a mistake and gives nothing, for a section that cannot be had.
    pub(super) fn refuse<T>(&mut self, key: &str, message: &str) -> Option<T> {
        self.note(key, message.to_owned());
        None
    }

    pub(super) fn required<T>(&mut self, key: &str, value: Option<T>, example: &str) -> Option<T> {
        if value.is_none() {
            self.note(key, format!("this key is missing; add it, {example}"));
        }
        value
    }

    pub(super) fn address(&mut self, key: &str, address: &str) -> Option<SocketAddr> {
        match address.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!(
                    "`{address}` is not an IP address with a port; write for example \
                     `0.0.0.0:6443` or `[::]:6443`"
                );
                self.refuse(key, &message)
            }
        }
    }

    /// A file that may be left out. The outer `None` is a mistake.
    #[expect(
        clippy::option_option,
        reason = "absent and wrong are different answers"
    )]
    pub(super) fn file(
        &mut self,
        key: &str,
        path: Option<String>,
        content: FileContent,
    ) -> Option<Option<PathBuf>> {
        let Some(path) = path else { return Some(None) };
        if path.is_empty() {
            return self.refuse(
                key,
                "an empty path names no file; give one or remove the key",
            );
        }
        if path.contains('\n') || path.starts_with("-----BEGIN") {
            return self.refuse(
                key,
                "this is what is in a file; give the path of one, since this file is no secret",
            );
        }
        if path.starts_with("~/") {
            return self.refuse(key, "`~` is not expanded here; write the whole path");
        }
        let path = self.folder.join(path);
        let place = self.tree.place(key);
        self.files.push(ReferencedFile {
            path: path.clone(),
            content,
            place,
        });
        Some(Some(path))
    }

    pub(super) fn required_file(
        &mut self,
        key: &str,
        path: Option<String>,
        content: FileContent,
    ) -> Option<PathBuf> {
        let path = self.required(key, path, "with the path of a file");
        self.file(key, path, content).flatten()
    }

    pub(super) fn positive(&mut self, key: &str, number: u32) -> Option<u32> {
        if number == 0 {
            return self.refuse(key, "0 would let nobody in; give at least 1");
        }
        Some(number)
    }

    pub(super) fn time(
        &mut self,
        key: &str,
        time: Time,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if range.contains(&time.0) {
            return Some(time.0);
        }
        let (least, most) = (Time(*range.start()), Time(*range.end()));
        self.refuse(
            key,
            &format!("{time} is out of range; choose from {least} to {most}"),
        )
    }

    /// A time that may be switched off.
    pub(super) fn time_or_zero(
        &mut self,
        key: &str,
        time: Time,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if time.0.is_zero() || range.contains(&time.0) {
            return Some(time.0);
        }
        let (least, most) = (Time(*range.start()), Time(*range.end()));
        self.refuse(
            key,
            &format!("{time} is out of range; choose from {least} to {most}, or 0s for never"),
        )
    }

    pub(super) fn ttl(&mut self, key: &str, time: Time) -> Option<Duration> {
        if time.0 <= 5 * MINUTE {
            return Some(time.0);
        }
        let message =
            format!("{time} is too long: a revoked right would work that long; choose at most 5m");
        self.refuse(key, &message)
    }

    pub(super) fn bytes(
        &mut self,
        key: &str,
        quantity: Quantity,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        if range.contains(&quantity.0) {
            return Some(quantity.0);
        }
        let (least, most) = (Quantity(*range.start()), Quantity(*range.end()));
        let advice = match *range.end() {
            u64::MAX => format!("choose at least {least}"),
            _ => format!("choose from {least} to {most}"),
        };
        self.refuse(key, &format!("{quantity} is out of range; {advice}"))
    }
}
