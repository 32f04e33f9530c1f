//! Times as Go and Kubernetes write them: `90s`, `1h30m`, `1.5h`, `300ms`, `0`.
//!
//! The grammar is that of Go's `time.ParseDuration`, parsed by the crate `go-duration`. Two things
//! are ours: the plain `0` Go accepts and the crate does not, and refusing negative times, which no
//! setting can be. Two other crates were tried and left: `go-parse-duration` slices inside UTF-8
//! characters and `kube-core`'s type overflows with a panic, and both can be reached from a file.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use go_duration::GoDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time of zero or more, at most 292 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) Duration);

impl Time {
    /// A number of seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Reads a time, or says what it should look like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let parsed: GoDuration = text.parse().map_err(|_| {
            match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
                true => format!("`{text}` has no unit; write for example `{text}s`"),
                false => {
                    format!("`{text}` is not a time; write for example `90s`, `5m` or `1h30m`")
                }
            }
        })?;
        u64::try_from(parsed.nanoseconds())
            .map(|nanoseconds| Self(Duration::from_nanos(nanoseconds)))
            .map_err(|_| format!("`{text}` is negative; a time here is zero or more"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX);
        let mut text = GoDuration(nanoseconds).to_string();
        if text.ends_with("m0s") {
            text.truncate(text.len() - "0s".len());
        }
        if text.ends_with("h0m") {
            text.truncate(text.len() - "0m".len());
        }
        formatter.write_str(&text)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimeVisitor;
        impl Visitor<'_> for TimeVisitor {
            type Value = Time;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time such as `90s`, `5m` or `1h30m`")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Time, E> {
                Time::parse(&number.to_string()).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                Time::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(TimeVisitor)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time as Go writes it: `90s`, `1h30m`, `300ms`.",
            "type": ["string", "integer"],
            "maximum": 0,
            "minimum": 0,
            "pattern": r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("1h30m", 5_400_000),
            ("90s", 90_000),
            (".5s", 500),
            ("1m0.5s", 60_500),
            ("2000us", 2),
            ("2000µs", 2),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(
                Time::parse(text),
                Ok(Time(Duration::from_millis(milliseconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "", "10", "-1s", "1d", "1 s", "s", "1s ", "1h-1m", "9999999h", "1µ", "é", "1.s.s",
        ] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            Time::parse("10"),
            Err("`10` has no unit; write for example `10s`".to_owned())
        );
    }

    #[test]
    fn display_is_short_and_read_back() {
        for text in [
            "5m", "1h", "1h30m", "90ms", "1m30s", "10s", "0s", "1h0m1s", "20m", "10h",
        ] {
            assert_eq!(Time::parse(text).unwrap().to_string(), text);
        }
    }
}
