//! Single values that JSON and protobuf write differently, and their canonical text.
//!
//! Owns times (RFC 3339, seconds or microseconds, always UTC), durations as Go prints them,
//! quantities in Kubernetes' canonical form, and integers.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use super::SchemaError;
use super::json::wrong;

/// A string value.
pub(super) fn text(value: &Value) -> Result<&str, SchemaError> {
    value.as_str().ok_or_else(|| wrong("a string"))
}

/// A whole number; Go accepts `3.0` for an integer field, too.
pub(super) fn integer(value: &Value) -> Result<i64, SchemaError> {
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
    value
        .as_i64()
        .or_else(|| value.as_f64().and_then(whole))
        .ok_or_else(|| wrong("an integer"))
}

/// A `Time`: seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) i64);

impl Seconds {
    pub(super) fn parse(value: &Value) -> Result<Self, SchemaError> {
        timestamp(value).map(|time| Self(time.as_second()))
    }

    pub(super) fn text(self) -> String {
        let time = Timestamp::from_second(self.0).unwrap_or_default();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// A `MicroTime`: seconds and nanoseconds, the latter in whole microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Micros {
    pub(super) seconds: i64,
    pub(super) nanos: i32,
}

impl Micros {
    pub(super) fn parse(value: &Value) -> Result<Self, SchemaError> {
        let time = timestamp(value)?;
        let nanos = time.as_nanosecond().rem_euclid(1_000_000_000) as i32;
        let seconds = time.as_nanosecond().div_euclid(1_000_000_000) as i64;
        Ok(Self {
            seconds,
            nanos: nanos / 1000 * 1000,
        })
    }

    pub(super) fn text(self) -> String {
        let seconds = Seconds(self.seconds).text();
        format!(
            "{}.{:06}Z",
            seconds.trim_end_matches('Z'),
            self.nanos / 1000
        )
    }
}

fn timestamp(value: &Value) -> Result<Timestamp, SchemaError> {
    text(value)?.parse().map_err(|_| wrong("an RFC 3339 time"))
}

/// The canonical text of a `Duration`.
pub(super) fn duration_text(value: &Value) -> Result<String, SchemaError> {
    duration_nanos(value).map(go_duration)
}

/// A `Duration` in nanoseconds, from a sum such as `1h30m` or `1.5s`.
pub(super) fn duration_nanos(value: &Value) -> Result<i64, SchemaError> {
    parse_duration(text(value)?).ok_or_else(|| wrong("a duration"))
}

fn parse_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ];
    let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(end);
        let (name, nanos) = UNITS.iter().find(|(name, _)| unit.starts_with(name))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = if whole.is_empty() {
            0
        } else {
            whole.parse::<i64>().ok()?
        };
        total = total.checked_add(whole.checked_mul(*nanos)?)?;
        if !fraction.is_empty() {
            total += (format!("0.{fraction}").parse::<f64>().ok()? * *nanos as f64) as i64;
        }
        rest = &unit[name.len()..];
    }
    (!text.is_empty()).then_some(sign * total)
}

/// Nanoseconds as Go's `time.Duration` prints them.
pub(super) fn go_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(magnitude, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(magnitude, 1_000_000)),
        _ => {
            let (hours, rest) = (magnitude / 3_600_000_000_000, magnitude % 3_600_000_000_000);
            let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// The canonical text of a `Quantity`, which may also be a plain number. Text that is no quantity,
/// or beyond 10^30 in its smallest unit, stays as it is: validation is not ours.
pub(super) fn quantity_text(value: &Value) -> Result<Cow<'_, str>, SchemaError> {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            Ok(Cow::Owned(canonical_quantity(&text).unwrap_or(text)))
        }
        other => {
            let text = text(other)?;
            Ok(canonical_quantity(text).map_or(Cow::Borrowed(text), Cow::Owned))
        }
    }
}

/// As apimachinery `quantity.go`: no fraction, the largest suffix that keeps the number whole.
fn canonical_quantity(text: &str) -> Option<String> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
    if number.is_empty() || mantissa > 10i128.pow(30) {
        return None;
    }
    let mut exponent = -i32::try_from(fraction.len()).ok()?;
    let format = Suffix::parse(suffix)?;
    match format {
        Suffix::Binary(power) => mantissa = mantissa.checked_mul(1i128 << (10 * power))?,
        Suffix::Decimal(power) | Suffix::Exponent(power) => exponent += power,
    }
    if mantissa == 0 {
        return Some("0".to_owned());
    }
    while mantissa % 10 == 0 {
        mantissa /= 10;
        exponent += 1;
    }
    while exponent < -9 {
        mantissa = mantissa / 10 + i128::from(mantissa % 10 != 0);
        exponent += 1;
    }
    let sign = if negative { "-" } else { "" };
    let binary = matches!(format, Suffix::Binary(_)) && exponent >= 0;
    let value = 10i128.checked_pow(u32::try_from(exponent.max(0)).ok()?);
    if let Some(value) = value.and_then(|scale| mantissa.checked_mul(scale))
        && binary
        && value >= 1024
    {
        return Some(format!("{sign}{}", binary_text(value)));
    }
    let decimal = decimal_text(mantissa, exponent, matches!(format, Suffix::Exponent(_)))?;
    Some(format!("{sign}{decimal}"))
}

fn binary_text(mut value: i128) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while value % 1024 == 0 && power + 1 < SUFFIXES.len() {
        value /= 1024;
        power += 1;
    }
    format!("{value}{}", SUFFIXES[power])
}

fn decimal_text(mut mantissa: i128, mut exponent: i32, scientific: bool) -> Option<String> {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    while mantissa % 10 == 0 {
        mantissa /= 10;
        exponent += 1;
    }
    while exponent % 3 != 0 || (!scientific && exponent > 18) {
        mantissa = mantissa.checked_mul(10)?;
        exponent -= 1;
    }
    if scientific {
        let suffix = if exponent == 0 {
            String::new()
        } else {
            format!("e{exponent}")
        };
        return Some(format!("{mantissa}{suffix}"));
    }
    let suffix = SUFFIXES.get(usize::try_from(exponent / 3 + 3).ok()?)?;
    Some(format!("{mantissa}{suffix}"))
}

/// The unit of a quantity as written.
#[derive(Clone, Copy)]
enum Suffix {
    /// Powers of 1024.
    Binary(u32),
    /// Powers of ten.
    Decimal(i32),
    /// Powers of ten written as an exponent.
    Exponent(i32),
}

impl Suffix {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => Self::Decimal(0),
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(1),
            "Mi" => Self::Binary(2),
            "Gi" => Self::Binary(3),
            "Ti" => Self::Binary(4),
            "Pi" => Self::Binary(5),
            "Ei" => Self::Binary(6),
            _ => {
                let exponent = text.strip_prefix(['e', 'E'])?.parse().ok()?;
                Self::Exponent(Some(exponent).filter(|power: &i32| power.abs() <= 60)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_take_their_canonical_form() {
        for (given, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("128974848", "128974848"),
            ("1000000", "1M"),
            ("16Gi", "16Gi"),
            ("100Ki", "100Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.1Mi", "104857600m"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("-1500m", "-1500m"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("7933768Ki", "7933768Ki"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(
                quantity_text(&Value::from(given)).expect("text"),
                canonical,
                "{given}"
            );
        }
        assert_eq!(quantity_text(&Value::from(2)).expect("number"), "2");
    }

    #[test]
    fn durations_print_as_in_go() {
        for (given, printed) in [
            ("0", "0s"),
            ("60s", "1m0s"),
            ("1h", "1h0m0s"),
            ("1.5s", "1.5s"),
            ("90m", "1h30m0s"),
            ("100ms", "100ms"),
            ("1500us", "1.5ms"),
            ("-2s", "-2s"),
        ] {
            assert_eq!(
                duration_text(&Value::from(given)).expect("duration"),
                printed
            );
        }
        assert!(duration_text(&Value::from("10")).is_err());
        assert!(duration_text(&Value::from("")).is_err());
    }

    #[test]
    fn times_are_utc_and_of_their_precision() {
        let value = Value::from("2024-01-02T03:04:05.1234567+01:00");
        assert_eq!(
            Seconds::parse(&value).expect("time").text(),
            "2024-01-02T02:04:05Z"
        );
        assert_eq!(
            Micros::parse(&value).expect("time").text(),
            "2024-01-02T02:04:05.123456Z"
        );
    }
}
