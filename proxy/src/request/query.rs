//! The query string, as Go's `url.ParseQuery`.

use watershed_cache::selector::{MAX_SELECTOR_BYTES, MAX_SELECTOR_TERMS};

use super::Doubt;

/// Pairs beyond which a query string is not ours to judge.
const PAIRS_MAX: usize = 256;

/// Pairs beyond which Go reads none of them.
const GO_PAIRS_MAX: usize = 10_000;

/// Parameters of reads that mean to us what they mean to the apiserver. Sorted.
const KNOWN: [&str; 13] = [
    "allowWatchBookmarks",
    "continue",
    "export",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeout",
    "timeoutSeconds",
    "watch",
];

/// A decoded query string. Names are case-sensitive, and only the first value of a name counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    irregular: bool,
    spells_pretty: bool,
}

impl Query {
    /// Parses what stands after the `?`. A pair with a `;` or a bad percent escape is dropped, as
    /// Go does, but remembered as a [`Doubt`].
    pub(crate) fn parse(text: &str) -> Self {
        if text.matches('&').count() >= GO_PAIRS_MAX {
            return Self {
                irregular: true,
                ..Self::default()
            };
        }
        let mut query = Self {
            spells_pretty: text.contains("pretty"),
            ..Self::default()
        };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if query.pairs.len() == PAIRS_MAX {
                query.irregular = true;
                break;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (pair.contains(';'), unescape(name), unescape(value)) {
                (false, Some(name), Some(value)) => {
                    let pair = (query.text(name), query.text(value));
                    query.pairs.push(pair);
                }
                (true, _, _) | (_, None, _) | (_, _, None) => query.irregular = true,
            }
        }
        query
    }

    /// The first value of `name`; present without a value is `Some("")`.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The `pretty` parameter. The apiserver looks for it only where its name stands in the query
    /// without escapes.
    pub(crate) fn pretty(&self) -> Option<&str> {
        self.first("pretty").filter(|_| self.spells_pretty)
    }

    /// Whether there is nothing here but, maybe, `name`.
    pub(crate) fn has_only(&self, name: &str) -> bool {
        !self.irregular && self.pairs.iter().all(|(found, _)| found == name)
    }

    /// Whether there is anything here that must be left to the apiserver.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        if self.irregular
            || ["fieldSelector", "labelSelector"]
                .iter()
                .any(|it| self.is_long(it))
        {
            return Some(Doubt::Query);
        }
        let unknown = |name: &str| KNOWN.binary_search(&name).is_err();
        self.pairs
            .iter()
            .any(|(name, _)| unknown(name))
            .then_some(Doubt::Parameter)
    }

    /// Whether a selector might be longer than is parsed here. Commas are at least its terms less
    /// one.
    fn is_long(&self, name: &str) -> bool {
        self.first(name).is_some_and(|selector| {
            selector.len() > MAX_SELECTOR_BYTES
                || selector.matches(',').count() >= MAX_SELECTOR_TERMS
        })
    }

    fn text(&mut self, bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap_or_else(|error| {
            self.irregular = true;
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    }
}

/// Go's `QueryUnescape`: `+` is a space; `None` on a bad escape.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let spaced: Vec<u8> = text
        .bytes()
        .map(|byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    percent_decode(&spaced)
}

/// Decodes percent escapes; `None` if one is not followed by two hex digits.
pub(crate) fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return None;
        };
        out.push(hex(*high)? << 4 | hex(*low)?);
        rest = tail;
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_parameter_is_found_in_the_sorted_table() {
        for name in KNOWN {
            assert_eq!(Query::parse(name).doubt(), None, "{name}");
        }
    }

    #[test]
    fn selectors_too_long_to_be_parsed_here_are_left_to_the_apiserver() {
        let terms = |count: usize| vec!["a"; count].join(",");
        let doubt = |selector: &str| Query::parse(&format!("labelSelector={selector}")).doubt();
        assert_eq!(doubt(&terms(MAX_SELECTOR_TERMS)), None);
        assert_eq!(doubt(&terms(MAX_SELECTOR_TERMS + 1)), Some(Doubt::Query));
        assert_eq!(
            doubt(&"a".repeat(MAX_SELECTOR_BYTES + 1)),
            Some(Doubt::Query)
        );
    }

    #[test]
    fn of_too_many_pairs_go_reads_none() {
        let query = Query::parse(&format!("watch=1{}", "&".repeat(GO_PAIRS_MAX)));
        assert_eq!(
            (query.first("watch"), query.doubt()),
            (None, Some(Doubt::Query))
        );
    }
}
