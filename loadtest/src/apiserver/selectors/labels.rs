//! Label selectors: Go's lexer and recursive-descent parser with its error texts.

use serde_json::Value;

use super::SelectorError;

mod parser;
mod validation;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// `=`, `==`, `in`: the key is present and its value among those named.
    In,
    /// `!=`, `notin`: absent, or another value.
    NotIn,
    /// `key`.
    Exists,
    /// `!key`.
    DoesNotExist,
    /// `>`: an integer above.
    GreaterThan,
    /// `<`: an integer below.
    LessThan,
}

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: LabelOperator,
    /// Values, sorted, without duplicates.
    pub values: Vec<String>,
}

/// Terms that all must hold, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
}

impl LabelSelector {
    /// Parses a selector; empty selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parser::parse(text).map_err(SelectorError)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// The terms.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether `metadata.labels` passes.
    pub fn matches(&self, labels: &Value) -> bool {
        self.requirements.iter().all(|requirement| {
            requirement.matches(labels.get(&requirement.key).and_then(Value::as_str))
        })
    }
}

impl LabelRequirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|known| known == v);
        let number = |v: &str| v.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match (self.operator, value) {
            (LabelOperator::In, value) => value.is_some_and(listed),
            (LabelOperator::NotIn, value) => !value.is_some_and(listed),
            (LabelOperator::Exists, value) => value.is_some(),
            (LabelOperator::DoesNotExist, value) => value.is_none(),
            (LabelOperator::GreaterThan | LabelOperator::LessThan, None) => false,
            (LabelOperator::GreaterThan, Some(v)) => {
                number(v).zip(bound()).is_some_and(|(v, b)| v > b)
            }
            (LabelOperator::LessThan, Some(v)) => {
                number(v).zip(bound()).is_some_and(|(v, b)| v < b)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn syntax_errors_read_as_in_go() {
        let cases = [
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a,", "found '', expected: identifier after ','"),
            (
                ",a",
                "found ',', expected: !, identifier, or 'end of string'",
            ),
            ("a=b c!", "found 'c', expected: ',' or 'end of string'"),
            ("!k=v", "found '=', expected: ',' or 'end of string'"),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (x",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "!!a",
                "unable to parse requirement: found '!', expected: identifier",
            ),
            (
                "a(b)",
                "unable to parse requirement: found '(', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(
                LabelSelector::parse(text).map_err(|e| e.0),
                Err(message.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn absent_labels_pass_only_negative_terms() {
        let cases = [
            ("a=x", false),
            ("a!=x", true),
            ("a notin (x)", true),
            ("!a", true),
            ("a", false),
            ("a>1", false),
            ("in", false),
            ("", true),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&json!(null)), expected, "{text}");
        }
    }

    #[test]
    fn an_empty_set_means_the_empty_value() {
        let selector = LabelSelector::parse("a in ()").unwrap();
        assert!(selector.matches(&json!({"a": ""})));
        assert!(!selector.matches(&json!({"a": "x"})));
        let selector = LabelSelector::parse("notin in (in,)").unwrap();
        assert!(selector.matches(&json!({"notin": "in"})));
        assert!(selector.matches(&json!({"notin": ""})));
    }
}
