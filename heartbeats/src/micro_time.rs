//! `renewTime` as the API has it: microseconds since 1970.
//!
//! Owns both forms on the wire: 27 characters in JSON, seconds and nanoseconds in protobuf.
//! Refuses every form that an apiserver would rewrite (offsets, other precision), so that what is
//! read here is written back to the byte. Times are values of clients: nothing here asks a clock.

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400;
/// The last second of year 9999, the last that JSON can express.
const LAST: i64 = 253_402_300_799;

/// A time said by a client, with the precision of `MicroTime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroTime(i64);

impl MicroTime {
    /// Earlier than all times a lease can carry.
    pub const MIN: Self = Self(i64::MIN);

    /// From microseconds since 1970; `None` beyond years 1970 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (0..=LAST * SECOND + SECOND - 1)
            .contains(&micros)
            .then_some(Self(micros))
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Reads `2006-01-02T15:04:05.000000Z` and nothing else.
    pub(crate) fn from_json(text: &[u8]) -> Option<Self> {
        let (whole, fraction) = text.split_at_checked(19)?;
        let [b'.', digits @ .., b'Z'] = fraction else {
            return None;
        };
        let micros = (digits.len() == 6).then(|| number(digits)).flatten()?;
        Self::from_micros(seconds(whole)? * SECOND + micros)
    }

    /// As in JSON, without quotes: `2026-01-01T00:00:00.000000Z`.
    pub fn to_json(self) -> String {
        let (seconds, micros) = (self.0.div_euclid(SECOND), self.0.rem_euclid(SECOND));
        let mut text = time_text(seconds);
        text.truncate(text.len() - 1);
        text + &format!(".{micros:06}Z")
    }

    /// From the two numbers of a protobuf `Timestamp`.
    pub(crate) fn from_parts(seconds: u64, nanos: u64) -> Option<Self> {
        let seconds = i64::try_from(seconds).ok().filter(|at| *at <= LAST)?;
        let nanos = i64::try_from(nanos)
            .ok()
            .filter(|at| *at < 1_000 * SECOND)?;
        (nanos % 1_000 == 0).then_some(())?;
        Self::from_micros(seconds * SECOND + nanos / 1_000)
    }

    /// As [`Self::from_parts`] reads it.
    pub(crate) fn parts(self) -> (u64, u64) {
        let nanos = self.0.rem_euclid(SECOND) * 1_000;
        (
            self.0.div_euclid(SECOND).unsigned_abs(),
            nanos.unsigned_abs(),
        )
    }
}

/// Whether this is a `Time` as apiservers write it: `2006-01-02T15:04:05Z`.
pub(crate) fn is_json_time(text: &[u8]) -> bool {
    time_seconds(text).is_some()
}

/// Reads a `Time` as apiservers write it, in seconds since 1970.
pub(crate) fn time_seconds(text: &[u8]) -> Option<i64> {
    match text.split_last() {
        Some((b'Z', whole)) => seconds(whole),
        _ => None,
    }
}

/// As [`time_seconds`] reads it.
pub(crate) fn time_text(seconds: i64) -> String {
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads `2006-01-02T15:04:05`, in seconds since 1970.
fn seconds(text: &[u8]) -> Option<i64> {
    let [
        y @ ..,
        b'-',
        m1,
        m2,
        b'-',
        d1,
        d2,
        b'T',
        h1,
        h2,
        b':',
        n1,
        n2,
        b':',
        s1,
        s2,
    ] = text
    else {
        return None;
    };
    let year = (y.len() == 4).then(|| number(y)).flatten()?;
    let (month, day) = (number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let (hour, minute) = (number(&[*h1, *h2])?, number(&[*n1, *n2])?);
    let second = number(&[*s1, *s2])?;
    (hour < 24 && minute < 60 && second < 60).then_some(())?;
    let days = days(year, month, day);
    // A day that no month has comes back as another one.
    (date(days) == (year, month, day)).then_some(days * DAY + hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        Some(number * 10 + digit)
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted = (month + 9).rem_euclid(12);
    let year = year - i64::from(month <= 2);
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * shifted + 2) / 5 + day - 1 - 719_468
}

/// The date that is so many days from 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let century = days.div_euclid(146_097);
    let of_century = days.rem_euclid(146_097);
    let year = (of_century - of_century / 1_460 + of_century / 36_524 - of_century / 146_096) / 365;
    let of_year = of_century - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year + century * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unsaved;

    #[test]
    fn known_times_are_read_as_what_they_are() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2000-02-29T12:00:00.000000Z", 951_825_600),
            ("2024-05-06T07:00:00.000000Z", 1_714_978_800),
            ("9999-12-31T23:59:59.000000Z", LAST),
        ] {
            let time = MicroTime::from_json(text.as_bytes()).unwrap();
            assert_eq!(time.micros(), seconds * SECOND, "{text}");
        }
    }

    #[test]
    fn forms_that_an_apiserver_would_rewrite_are_not_read() {
        for text in [
            "2024-05-06T07:00:00Z",
            "2024-05-06T07:00:00.000Z",
            "2024-05-06T07:00:00.000000+00:00",
            "2024-05-06T07:00:00.0000000Z",
            "2024-02-30T07:00:00.000000Z",
            "2023-02-29T07:00:00.000000Z",
            "2024-13-01T07:00:00.000000Z",
            "2024-05-06T24:00:00.000000Z",
            "2024-05-06T07:00:60.000000Z",
            "2024-05-06t07:00:00.000000Z",
            "12024-05-06T07:00:00.000000Z",
            "",
        ] {
            assert_eq!(MicroTime::from_json(text.as_bytes()), None, "{text}");
        }
        assert_eq!(MicroTime::from_parts(1, 999), None);
        assert_eq!(MicroTime::from_parts(1, 1_000_000_000), None);
        assert_eq!(MicroTime::from_parts(u64::MAX, 0), None);
    }

    proptest! {
        #![proptest_config(unsaved())]

        #[test]
        fn what_is_written_is_read_back(micros in 0..=LAST * SECOND + SECOND - 1) {
            let time = MicroTime::from_micros(micros).unwrap();
            prop_assert_eq!(MicroTime::from_json(time.to_json().as_bytes()), Some(time));
            let (seconds, nanos) = time.parts();
            prop_assert_eq!(MicroTime::from_parts(seconds, nanos), Some(time));
        }
    }
}
