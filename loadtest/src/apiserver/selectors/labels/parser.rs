//! Go's lexer and recursive-descent parser of label selectors, with its error texts.

use std::collections::BTreeSet;

use super::validation::{validate_key, validate_values};
use super::{LabelOperator, LabelRequirement};

/// The terms in the order they are written; the error is the text of a 400.
pub(super) fn parse(text: &str) -> Result<Vec<LabelRequirement>, String> {
    let mut parser = Parser {
        tokens: lex(text),
        position: 0,
    };
    parser.requirements()
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
        } else if c == '\0' {
            // To Go's lexer it is the end of the text, unless it ends a token: then it is lost.
            break;
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
            at += usize::from(chars.get(at) == Some(&'\0'));
            tokens.push(Token {
                kind: Kind::Symbol,
                text: symbol,
            });
        } else {
            let start = at;
            while at < chars.len() && !special(chars[at]) && !blank(chars[at]) && chars[at] != '\0'
            {
                at += 1;
            }
            let word: String = chars[start..at].iter().collect();
            at += usize::from(chars.get(at) == Some(&'\0'));
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
