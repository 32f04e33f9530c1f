//! Byte counts as Kubernetes writes them: `4Gi`, `64Mi`, `500M`, `1e9`, `1048576`.
//!
//! The grammar is that of `resource.Quantity`: a decimal number, then a binary suffix (`Ki` to
//! `Ei`), a decimal one (`k` to `E`) or an exponent. As there, a fraction of a byte is rounded up,
//! so `0.5Ki` is 512 and `1.1` is 2. The suffixes below one (`n`, `u`, `m`) and negative numbers
//! are refused: no byte count is either. The arithmetic is exact, in integers.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(pub(crate) u64);

pub(crate) const KI: u64 = 1 << 10;
pub(crate) const MI: u64 = 1 << 20;
pub(crate) const GI: u64 = 1 << 30;

const EXPECTED: &str = "a byte count such as `64Mi`, `500M` or `1048576`";

impl Quantity {
    /// Reads a quantity, or says what it should look like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a byte count; write for example `64Mi` or `4Gi`");
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let multiplier = multiplier(suffix).ok_or_else(|| match suffix {
            "KB" | "MB" | "GB" | "TB" | "KiB" | "MiB" | "GiB" | "TiB" | "B" => {
                format!("`{text}` has a unit Kubernetes does not know; leave out the `B`")
            }
            _ => refused(),
        })?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(refused());
        }
        let fraction = fraction.trim_end_matches('0');
        let too_large = || format!("`{text}` is more than any memory; the largest value is `15Ei`");
        let digits = format!("0{whole}{fraction}");
        let digits: u128 = digits.parse().map_err(|_| too_large())?;
        let scale = u32::try_from(fraction.len())
            .ok()
            .and_then(|places| 10_u128.checked_pow(places))
            .ok_or_else(refused)?;
        let bytes = digits
            .checked_mul(multiplier)
            .ok_or_else(too_large)?
            .div_ceil(scale);
        u64::try_from(bytes).map(Self).map_err(|_| too_large())
    }
}

fn multiplier(suffix: &str) -> Option<u128> {
    let binary = |power: u32| Some(1_u128 << (10 * power));
    let decimal = |power: u32| 10_u128.checked_pow(power);
    match suffix {
        "" => Some(1),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let digits = digits.strip_prefix('+').unwrap_or(digits);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain
                .then(|| digits.parse().ok())
                .flatten()
                .and_then(decimal)
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (unit, name) in [(GI, "Gi"), (MI, "Mi"), (KI, "Ki")] {
            if bytes > 0 && bytes.is_multiple_of(unit) {
                return write!(formatter, "{}{name}", bytes / unit);
            }
        }
        write!(formatter, "{bytes}")
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct QuantityVisitor;
        impl Visitor<'_> for QuantityVisitor {
            type Value = Quantity;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(EXPECTED)
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<Quantity, E> {
                Ok(Quantity(bytes))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Quantity, E> {
                Quantity::parse(&number.to_string()).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(QuantityVisitor)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A byte count as a Kubernetes quantity: `64Mi`, `500M`, `1048576`.",
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[kMGTPE]|[eE]\+?[0-9]+)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_count_as_kubernetes_counts() {
        let cases: [(&str, u64); 17] = [
            ("0", 0),
            ("1048576", MI),
            ("4Gi", 4 * GI),
            ("64Mi", 64 * MI),
            ("1Ki", 1024),
            ("500M", 500_000_000),
            ("2k", 2000),
            ("1.5Gi", 3 * GI / 2),
            ("0.5Ki", 512),
            (".5Ki", 512),
            ("1.", 1),
            ("1.1", 2),
            ("0.0001Ki", 1),
            ("1e9", 1_000_000_000),
            ("1.5E3", 1500),
            ("15Ei", 15 << 60),
            ("1E", 1_000_000_000_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(Quantity::parse(text), Ok(Quantity(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_byte_count_is_refused() {
        for text in [
            "",
            "Gi",
            "4gi",
            "4 Gi",
            "-1",
            "+1",
            "1m",
            "4GB",
            "4GiB",
            "1.2.3",
            "0x10",
            "16Ei",
            "1e40",
            "1e",
            "1e-3",
            "99999999999999999999999999999999999999999",
            "∞",
            "1.0000000000000000000000000000000000000000001",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn display_is_read_back() {
        for bytes in [0, 1, 1000, 1024, 1536, MI, 5 * GI, u64::MAX] {
            assert_eq!(
                Quantity::parse(&Quantity(bytes).to_string()),
                Ok(Quantity(bytes))
            );
        }
    }
}
