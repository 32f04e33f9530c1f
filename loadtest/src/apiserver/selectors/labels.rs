//! Label selectors: Go's lexer and recursive-descent parser with its error texts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::SelectorError;
use crate::apiserver::request::go_quote;

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
        let mut parser = Parser {
            tokens: lex(text),
            position: 0,
        };
        let mut requirements = parser.requirements().map_err(SelectorError)?;
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Identifier,
    Symbol,
    Keyword,
    End,
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    text: String,
}

const SYMBOLS: [&str; 9] = [")", ",", "!", "==", "=", ">", "<", "!=", "("];

fn lex(text: &str) -> Vec<Token> {
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if blank(c) {
            at += 1;
        } else if special(c) {
            let mut run = String::new();
            let mut longest = 0;
            let mut end = at;
            // The longest run of special characters that is a symbol; the rest is lexed again.
            while end < chars.len() && special(chars[end]) {
                run.push(chars[end]);
                if SYMBOLS.contains(&run.as_str()) {
                    longest = run.len();
                } else if longest > 0 {
                    break;
                }
                end += 1;
            }
            let symbol: String = run.chars().take(longest.max(1)).collect();
            at += symbol.len();
            tokens.push(Token {
                kind: Kind::Symbol,
                text: symbol,
            });
        } else {
            let start = at;
            while at < chars.len() && !special(chars[at]) && !blank(chars[at]) {
                at += 1;
            }
            let word: String = chars[start..at].iter().collect();
            let keyword = matches!(word.as_str(), "in" | "notin");
            let kind = if keyword {
                Kind::Keyword
            } else {
                Kind::Identifier
            };
            tokens.push(Token { kind, text: word });
        }
    }
    tokens.push(Token {
        kind: Kind::End,
        text: String::new(),
    });
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    /// The next token; where a value is expected keywords are plain words.
    fn look(&self, values: bool) -> Token {
        let last = self.tokens.len() - 1;
        let mut token = self.tokens[self.position.min(last)].clone();
        if values && token.kind == Kind::Keyword {
            token.kind = Kind::Identifier;
        }
        token
    }

    fn take(&mut self, values: bool) -> Token {
        let token = self.look(values);
        self.position += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<LabelRequirement>, String> {
        let mut requirements = Vec::new();
        loop {
            let token = self.look(true);
            let starts = token.kind == Kind::Identifier || token.text == "!";
            if token.kind == Kind::End {
                return Ok(requirements);
            }
            if !starts {
                let text = &token.text;
                return Err(format!(
                    "found '{text}', expected: !, identifier, or 'end of string'"
                ));
            }
            let requirement = self
                .requirement()
                .map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            let token = self.take(true);
            if token.kind == Kind::End {
                return Ok(requirements);
            }
            if token.text != "," {
                return Err(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    token.text
                ));
            }
            let next = self.look(true);
            if next.kind != Kind::Identifier && next.text != "!" {
                return Err(format!(
                    "found '{}', expected: identifier after ','",
                    next.text
                ));
            }
        }
    }

    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        let mut operator = None;
        if self.look(true).text == "!" {
            self.take(true);
            operator = Some(LabelOperator::DoesNotExist);
        }
        let token = self.take(true);
        if token.kind != Kind::Identifier {
            return Err(format!("found '{}', expected: identifier", token.text));
        }
        let key = token.text;
        validate_key(&key)?;
        let next = self.look(true);
        if operator.is_none() && (next.kind == Kind::End || next.text == ",") {
            operator = Some(LabelOperator::Exists);
        }
        if let Some(operator) = operator {
            return Ok(LabelRequirement {
                key,
                operator,
                values: Vec::new(),
            });
        }
        let (operator, set) = self.operator()?;
        let values = if set {
            self.values()?
        } else {
            self.exact_value()?
        };
        validate_values(&key, operator, &values)?;
        Ok(LabelRequirement {
            key,
            operator,
            values: values.into_iter().collect(),
        })
    }

    fn operator(&mut self) -> Result<(LabelOperator, bool), String> {
        let token = self.take(false);
        match (token.kind, token.text.as_str()) {
            (Kind::Keyword, "in") => Ok((LabelOperator::In, true)),
            (Kind::Keyword, "notin") => Ok((LabelOperator::NotIn, true)),
            (Kind::Symbol, "=" | "==") => Ok((LabelOperator::In, false)),
            (Kind::Symbol, "!=") => Ok((LabelOperator::NotIn, false)),
            (Kind::Symbol, ">") => Ok((LabelOperator::GreaterThan, false)),
            (Kind::Symbol, "<") => Ok((LabelOperator::LessThan, false)),
            (_, text) => Err(format!(
                "found '{text}', expected: in, notin, =, ==, !=, gt, lt"
            )),
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        let next = self.look(true);
        if next.kind == Kind::End || next.text == "," {
            return Ok(BTreeSet::from([String::new()]));
        }
        let token = self.take(true);
        if token.kind == Kind::Identifier {
            return Ok(BTreeSet::from([token.text]));
        }
        Err(format!("found '{}', expected: identifier", token.text))
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let token = self.take(true);
        if token.text != "(" {
            return Err(format!("found '{}' expected: '('", token.text));
        }
        let token = self.look(true);
        if token.kind == Kind::Identifier || token.text == "," {
            let values = self.identifiers()?;
            let token = self.take(true);
            if token.text != ")" {
                return Err(format!("found '{}', expected: ')'", token.text));
            }
            return Ok(values);
        }
        self.take(true);
        if token.text == ")" {
            return Ok(BTreeSet::from([String::new()]));
        }
        Err(format!(
            "found '{}', expected: ',', ')' or identifier",
            token.text
        ))
    }

    fn identifiers(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            let token = self.take(true);
            if token.kind == Kind::Identifier {
                values.insert(token.text);
                let next = self.look(true);
                match next.text.as_str() {
                    "," if next.kind == Kind::Symbol => {}
                    ")" if next.kind == Kind::Symbol => return Ok(values),
                    text => return Err(format!("found '{text}', expected: ',' or ')'")),
                }
            } else if token.text == "," {
                if values.is_empty() {
                    values.insert(String::new());
                }
                let next = self.look(true);
                if next.text == ")" {
                    values.insert(String::new());
                    return Ok(values);
                }
                if next.text == "," {
                    self.take(true);
                    values.insert(String::new());
                }
            } else {
                return Err(format!(
                    "found '{}', expected: ',', or identifier",
                    token.text
                ));
            }
        }
    }
}

const NAME_FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

fn is_label_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    bytes.iter().all(|&b| inner(b))
        && ends.is_some_and(|(a, b)| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(|part| {
        let bytes = part.as_bytes();
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        bytes.iter().all(|&b| alphanumeric(b) || b == b'-')
            && bytes
                .first()
                .zip(bytes.last())
                .is_some_and(|(&a, &b)| alphanumeric(a) && alphanumeric(b))
    })
}

fn validate_key(key: &str) -> Result<(), String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                if prefix.len() > 253 {
                    errors.push("prefix part must be no more than 253 bytes".to_owned());
                }
                if !is_subdomain(prefix) {
                    errors.push("prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_owned());
                }
            }
            *name
        }
        _ => {
            let text = format!(
                "a valid label key {NAME_FORM} (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            );
            return Err(format!("<nil>: Invalid value: {}: {text}", go_quote(key)));
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_label_name(name) {
        errors.push(format!("name part {NAME_FORM} (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(format!(
        "<nil>: Invalid value: {}: {}",
        go_quote(key),
        errors.join("; ")
    ))
}

fn validate_values(
    key: &str,
    operator: LabelOperator,
    values: &BTreeSet<String>,
) -> Result<(), String> {
    for (index, value) in values.iter().enumerate() {
        if matches!(
            operator,
            LabelOperator::GreaterThan | LabelOperator::LessThan
        ) && value.parse::<i64>().is_err()
        {
            return Err(format!(
                "values[{index}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                go_quote(value)
            ));
        }
    }
    let mut errors = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let mut wrong = Vec::new();
        if value.len() > 63 {
            wrong.push("must be no more than 63 bytes".to_owned());
        }
        if !value.is_empty() && !is_label_name(value) {
            wrong.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".to_owned());
        }
        if !wrong.is_empty() {
            errors.push(format!(
                "values[{index}][{key}]: Invalid value: {}: {}",
                go_quote(value),
                wrong.join("; ")
            ));
        }
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
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
