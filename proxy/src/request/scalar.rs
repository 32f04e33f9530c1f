//! Scalars in query strings: Go's parsers with Go's error texts.

use std::num::IntErrorKind;
use std::time::Duration;

use watershed_quote::quote;

use super::{Doubt, Query, RequestInfo};
use crate::status::Status;

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
        Some(text) => match parse_duration(text) {
            Ok(asked) => asked,
            // The text is not as it was sent, so the apiserver says it.
            Err(_) if query.doubt() == Some(Doubt::Query) => return Ok(Some(longest)),
            Err(error) => {
                return Err(Status::bad_request(format!(
                    "invalid timeout specified in the request URL - {error}"
                )));
            }
        },
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

/// A boolean option: false only for `0` and `false` in any case, so true when empty. Go's
/// `EqualFold` also folds the long s.
pub(crate) fn flag(text: &str) -> bool {
    lenient_flag(&text.replace('\u{17f}', "s"))
}

/// The same where a query does not decode, and the apiserver compares in lower case instead.
pub(super) fn lenient_flag(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

/// Go's `strconv.ParseInt(text, 10, 64)`; the error is its text.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    integer(text).map_err(|problem| format!("strconv.ParseInt: parsing {}: {problem}", quote(text)))
}

/// The magnitude is read as a `u64` first: what does not fit there is out of range even if letters
/// follow.
fn integer(text: &str) -> Result<i64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    const RANGE: &str = "value out of range";
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.starts_with('+') {
        return Err(SYNTAX);
    }
    let magnitude = digits.parse::<u64>().map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow => RANGE,
        _ => SYNTAX,
    })?;
    let number = i128::from(magnitude);
    i64::try_from(if negative { -number } else { number }).map_err(|_| RANGE)
}

/// Go's `time.ParseDuration`, in nanoseconds; the error is its text.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", time_quote(text));
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
            return Err(format!(
                "time: missing unit in duration {}",
                time_quote(text)
            ));
        }
        let nanos = unit_nanos(unit).ok_or_else(|| {
            format!(
                "time: unknown unit {} in duration {}",
                time_quote(unit),
                time_quote(text)
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

/// How Go's `time` quotes, which is not `%q`: whatever is not printable ASCII stands as bytes.
fn time_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=0x7f => quoted.push(char::from(byte)),
            0..b' ' | 0x80.. => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
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
