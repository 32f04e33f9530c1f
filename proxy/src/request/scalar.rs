//! Scalars in query strings: Go's parsers with Go's error texts.

use std::num::IntErrorKind;
use std::time::Duration;

use super::{Query, RequestInfo};
use crate::status::{Status, quote};

/// How long the request may take, `longest` at most; `None` for long-running ones. Runs before
/// authentication.
///
/// # Errors
/// 400 when the `timeout` parameter is no Go duration.
pub(crate) fn timeout(
    info: &RequestInfo,
    query: &Query,
    longest: Duration,
) -> Result<Option<Duration>, Status> {
    if info.is_long_running() {
        return Ok(None);
    }
    let asked = match query.first("timeout") {
        None | Some("") => return Ok(Some(longest)),
        Some(text) => parse_duration(text).map_err(|error| {
            Status::bad_request(format!(
                "invalid timeout specified in the request URL - {error}"
            ))
        })?,
    };
    let asked = u64::try_from(asked).map_or(Duration::ZERO, Duration::from_nanos);
    let served = !asked.is_zero() && asked < longest;
    Ok(Some(if served { asked } else { longest }))
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A boolean option: false only for `0` and `false` in any case, so true when empty.
pub(super) fn flag(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

/// Go's `strconv.ParseInt(text, 10, 64)`; the error is its text.
pub(super) fn parse_int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        let problem = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {}: {problem}", quote(text))
    })
}

/// Go's `time.ParseDuration`, in nanoseconds; the error is its text.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number = Number::take(&mut rest).ok_or_else(invalid)?;
        let end = rest
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (unit, tail) = rest.split_at(end);
        rest = tail;
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let nanos = unit_nanos(unit).ok_or_else(|| {
            format!(
                "time: unknown unit {} in duration {}",
                quote(unit),
                quote(text)
            )
        })?;
        total = number
            .nanos(nanos)
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= 1 << 63)
            .ok_or_else(invalid)?;
    }
    if negative {
        return Ok((total as i64).wrapping_neg());
    }
    i64::try_from(total).map_err(|_| invalid())
}

fn unit_nanos(unit: &str) -> Option<u64> {
    match unit {
        "ns" => Some(1),
        "us" | "\u{b5}s" | "\u{3bc}s" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    }
}

/// Digits, a point, digits; at least one digit on either side.
struct Number {
    whole: u64,
    fraction: u64,
    scale: f64,
}

impl Number {
    /// Takes a number off the front of `rest`; `None` if there is none or it is too large.
    fn take(rest: &mut &str) -> Option<Self> {
        let digits = take_digits(rest);
        let whole = digits.bytes().try_fold(0, append_digit)?;
        let mut number = Self {
            whole,
            fraction: 0,
            scale: 1.0,
        };
        let mut seen = !digits.is_empty();
        if let Some(tail) = rest.strip_prefix('.') {
            *rest = tail;
            let digits = take_digits(rest);
            seen |= !digits.is_empty();
            for digit in digits.bytes() {
                // Go too ignores the digits that no longer fit.
                let Some(fraction) = append_digit(number.fraction, digit) else {
                    break;
                };
                number.fraction = fraction;
                number.scale *= 10.0;
            }
        }
        seen.then_some(number)
    }

    fn nanos(&self, unit: u64) -> Option<u64> {
        let whole = self.whole.checked_mul(unit)?;
        whole.checked_add((self.fraction as f64 * (unit as f64 / self.scale)) as u64)
    }
}

fn append_digit(value: u64, digit: u8) -> Option<u64> {
    let value = value
        .checked_mul(10)?
        .checked_add(u64::from(digit - b'0'))?;
    (value <= 1 << 63).then_some(value)
}

fn take_digits<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    digits
}
