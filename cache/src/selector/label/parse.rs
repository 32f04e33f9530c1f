//! The parser of label selectors: tokens, then requirements.

use super::super::syntax::{check_key, check_value, invalid};
use super::super::{MAX_SELECTOR_TERMS, SelectorError};
use super::{LabelOperator, LabelRequirement};

/// Parses a whole selector, in the order written.
pub(super) fn requirements(text: &str) -> Result<Vec<LabelRequirement>, SelectorError> {
    let mut parser = Parser {
        rest: text,
        peeked: None,
    };
    let mut requirements = Vec::new();
    let (first, literal) = parser.peek();
    if first == Token::End {
        return Ok(requirements);
    }
    if !first.starts_requirement() {
        return fail(format!(
            "found '{literal}', expected: !, identifier, or 'end of string'"
        ));
    }
    loop {
        if requirements.len() == MAX_SELECTOR_TERMS {
            return Err(SelectorError::TooLarge);
        }
        let requirement = parser.requirement().map_err(|problem| {
            SelectorError::Invalid(format!("unable to parse requirement: {problem}"))
        })?;
        requirements.push(requirement);
        let (separator, literal) = parser.next();
        if separator == Token::End {
            return Ok(requirements);
        }
        if separator != Token::Comma {
            return fail(format!(
                "found '{literal}', expected: ',' or 'end of string'"
            ));
        }
        let (token, literal) = parser.peek();
        if !token.starts_requirement() {
            return fail(format!("found '{literal}', expected: identifier after ','"));
        }
    }
}

fn fail<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError::Invalid(message))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    /// `!`
    Not,
    /// A symbol between key and value.
    Operator(Operator),
    /// `in` or `notin`, which are words everywhere but behind a key.
    Keyword(Operator),
    Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    NotEquals,
    GreaterThan,
    LessThan,
    In,
    NotIn,
}

impl Token {
    fn is_word(self) -> bool {
        matches!(self, Self::Word | Self::Keyword(_))
    }

    fn starts_requirement(self) -> bool {
        self.is_word() || self == Self::Not
    }
}

struct Parser<'a> {
    rest: &'a str,
    peeked: Option<(Token, &'a str)>,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        let (mut token, mut key) = self.next();
        let absent = token == Token::Not;
        if absent {
            (token, key) = self.next();
        }
        if !token.is_word() {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(key)?;
        let bare = matches!(self.peek().0, Token::End | Token::Comma);
        if absent || bare {
            let operator = if absent {
                LabelOperator::DoesNotExist
            } else {
                LabelOperator::Exists
            };
            return Ok(LabelRequirement {
                key: key.into(),
                operator,
                values: Box::default(),
            });
        }
        let operator = match self.next() {
            (Token::Operator(operator) | Token::Keyword(operator), _) => operator,
            (_, literal) => {
                return Err(format!(
                    "found '{literal}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.set()?,
            Operator::Equals | Operator::NotEquals | Operator::GreaterThan | Operator::LessThan => {
                vec![self.value()?]
            }
        };
        values.sort_unstable();
        values.dedup();
        build(key, operator, &values)
    }

    /// `( value, … )`; nothing between two commas is the empty value.
    fn set(&mut self) -> Result<Vec<&'a str>, String> {
        let (open, literal) = self.next();
        if open != Token::Open {
            return Err(format!("found '{literal}' expected: '('"));
        }
        let (first, literal) = self.peek();
        if first == Token::Close {
            self.next();
            return Ok(vec![""]);
        }
        if !first.is_word() && first != Token::Comma {
            return Err(format!(
                "found '{literal}', expected: ',', ')' or identifier"
            ));
        }
        let mut values = Vec::new();
        loop {
            let (token, literal) = self.next();
            let (following, next_literal) = self.peek();
            if token.is_word() {
                values.push(literal);
                if !matches!(following, Token::Comma | Token::Close) {
                    return Err(format!("found '{next_literal}', expected: ',' or ')'"));
                }
            } else if token == Token::Comma {
                if values.is_empty() || matches!(following, Token::Comma | Token::Close) {
                    values.push("");
                }
            } else {
                return Err(format!("found '{literal}', expected: ',', or identifier"));
            }
            if following == Token::Close {
                self.next();
                return Ok(values);
            }
        }
    }

    /// One value, which may be left out.
    fn value(&mut self) -> Result<&'a str, String> {
        if let (Token::End | Token::Comma, _) = self.peek() {
            return Ok("");
        }
        let (token, literal) = self.next();
        if token.is_word() {
            Ok(literal)
        } else {
            Err(format!("found '{literal}', expected: identifier"))
        }
    }

    fn peek(&mut self) -> (Token, &'a str) {
        let token = self.next();
        self.peeked = Some(token);
        token
    }

    fn next(&mut self) -> (Token, &'a str) {
        if let Some(token) = self.peeked.take() {
            return token;
        }
        self.rest = self.rest.trim_start_matches(is_space);
        let first = self.rest.as_bytes().first().copied();
        match first {
            // A NUL ends the text, as in Go's lexer; the rest of it is never looked at.
            None | Some(0) => (Token::End, ""),
            Some(byte) if is_symbol(char::from(byte)) => self.symbol(),
            Some(_) => self.word(),
        }
    }

    fn symbol(&mut self) -> (Token, &'a str) {
        let (token, length) = match self.rest.as_bytes() {
            [b'!', b'=', ..] => (Token::Operator(Operator::NotEquals), 2),
            [b'=', b'=', ..] => (Token::Operator(Operator::Equals), 2),
            [b'=', ..] => (Token::Operator(Operator::Equals), 1),
            [b'>', ..] => (Token::Operator(Operator::GreaterThan), 1),
            [b'<', ..] => (Token::Operator(Operator::LessThan), 1),
            [b'!', ..] => (Token::Not, 1),
            [b'(', ..] => (Token::Open, 1),
            [b')', ..] => (Token::Close, 1),
            _ => (Token::Comma, 1),
        };
        (token, self.take(length))
    }

    fn word(&mut self) -> (Token, &'a str) {
        let end = |c: char| is_space(c) || is_symbol(c) || c == '\0';
        let length = self.rest.find(end).unwrap_or(self.rest.len());
        let word = self.take(length);
        let token = match word {
            "in" => Token::Keyword(Operator::In),
            "notin" => Token::Keyword(Operator::NotIn),
            _ => Token::Word,
        };
        (token, word)
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        // Go's lexer swallows a NUL that ends a token.
        self.rest = rest.strip_prefix('\0').unwrap_or(rest);
        taken
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn is_symbol(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

/// Checks the values and makes the requirement; all that is wrong is reported together.
fn build(key: &str, operator: Operator, values: &[&str]) -> Result<LabelRequirement, String> {
    let operator = match operator {
        Operator::Equals | Operator::In => LabelOperator::In,
        Operator::NotEquals | Operator::NotIn => LabelOperator::NotIn,
        Operator::GreaterThan => LabelOperator::GreaterThan,
        Operator::LessThan => LabelOperator::LessThan,
    };
    let mut problems = Vec::new();
    if let (LabelOperator::GreaterThan | LabelOperator::LessThan, [value]) = (operator, values)
        && value.parse::<i64>().is_err()
    {
        let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
        problems.push(invalid("values[0]", value, detail));
    }
    let checks = values.iter().enumerate();
    problems.extend(checks.filter_map(|(index, value)| check_value(key, index, value).err()));
    match problems.len() {
        0 => {
            let values = values.iter().map(|&value| value.into()).collect();
            Ok(LabelRequirement {
                key: key.into(),
                operator,
                values,
            })
        }
        1 => Err(problems.swap_remove(0)),
        _ => Err(format!("[{}]", problems.join(", "))),
    }
}
