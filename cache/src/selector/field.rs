//! Field selectors.
//!
//! Owns the grammar of `fields/selector.go` (1.36): terms are sorted as text before they are
//! parsed, so the first error, and the first term for a label, are those of the sorted order. Which
//! labels a resource accepts is a second step, [`FieldSelector::bind`], because a caller may have
//! to forward what this cache cannot judge.

use std::fmt;

use super::{MAX_SELECTOR_BYTES, MAX_SELECTOR_TERMS, SelectorError};
use crate::fields::FieldSet;
use crate::object::Object;

/// A parsed field selector; the default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Box<[FieldRequirement]>,
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// The field label, as written.
    pub key: Box<str>,
    /// How it is compared.
    pub operator: FieldOperator,
    /// The value compared with, unescaped.
    pub value: Box<str>,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldOperator {
    /// `=` and `==`
    Equals,
    /// `!=`
    NotEquals,
}

/// A label the resource does not accept. Answer 400 with [`FieldSet::unsupported_text`] when the
/// set is complete, forward otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field label {label:?} is not selectable")]
pub struct UnsupportedLabel {
    /// The first such label, in sorted order of the terms.
    pub label: Box<str>,
}

impl FieldSelector {
    /// Parses the apiserver's grammar.
    ///
    /// # Errors
    /// The exact text of the apiserver's 400, or [`SelectorError::TooLarge`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError::TooLarge);
        }
        let mut terms = split_terms(text);
        terms.retain(|term| !term.is_empty());
        if terms.len() > MAX_SELECTOR_TERMS {
            return Err(SelectorError::TooLarge);
        }
        terms.sort_unstable();
        let requirements = terms
            .into_iter()
            .map(|term| {
                let (key, operator, value) = split_term(term).ok_or_else(|| {
                    format!("invalid selector: '{text}'; can't understand '{term}'")
                })?;
                Ok(FieldRequirement {
                    key: key.into(),
                    operator,
                    value: unescape(value)?.into(),
                })
            })
            .collect::<Result<Vec<_>, String>>()
            .map_err(SelectorError::Invalid)?;
        // A term without label and value selects everything, be its operator `=` or `!=`.
        let says_something =
            |term: &FieldRequirement| !(term.key.is_empty() && term.value.is_empty());
        let requirements = requirements.into_iter().filter(says_something).collect();
        Ok(Self { requirements })
    }

    /// The requirements, in the apiserver's order.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value of the first `=` term for this label, which is written without an alias.
    pub fn required_value(&self, label: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|term| term.operator == FieldOperator::Equals && *term.key == *label)
            .map(|term| &*term.value)
    }

    /// Resolves the labels against what the resource offers.
    ///
    /// # Errors
    /// The first label the set does not have.
    pub fn bind(&self, fields: &FieldSet) -> Result<BoundFieldSelector, UnsupportedLabel> {
        let terms = self
            .requirements
            .iter()
            .map(|term| match fields.index_of(&term.key) {
                Some(index) => Ok(BoundTerm {
                    index,
                    operator: term.operator,
                    value: term.value.clone(),
                }),
                None => Err(UnsupportedLabel {
                    label: term.key.clone(),
                }),
            })
            .collect::<Result<Box<[_]>, _>>()?;
        let pinned = fields.trigger().and_then(|trigger| {
            terms
                .iter()
                .position(|term| term.index == trigger && term.operator == FieldOperator::Equals)
        });
        Ok(BoundFieldSelector { terms, pinned })
    }
}

/// The text that parses to this selector.
impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            index,
            FieldRequirement {
                key,
                operator,
                value,
            },
        ) in self.requirements.iter().enumerate()
        {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(key)?;
            f.write_str(match operator {
                FieldOperator::Equals => "=",
                FieldOperator::NotEquals => "!=",
            })?;
            for character in value.chars() {
                if let '\\' | ',' | '=' = character {
                    f.write_str("\\")?;
                }
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// A field selector resolved for one resource; the default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BoundFieldSelector {
    terms: Box<[BoundTerm]>,
    /// The term that pins the trigger field.
    pinned: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BoundTerm {
    index: usize,
    operator: FieldOperator,
    value: Box<str>,
}

impl BoundFieldSelector {
    /// Whether every requirement holds. The object must have been decoded with the field set of
    /// [`FieldSelector::bind`].
    pub fn matches(&self, object: &Object) -> bool {
        self.terms.iter().all(|term| {
            let equal = object.field(term.index) == &*term.value;
            match term.operator {
                FieldOperator::Equals => equal,
                FieldOperator::NotEquals => !equal,
            }
        })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The selector it was resolved from, but for aliases of labels. `fields` has to be what it was
    /// resolved against.
    ///
    /// # Panics
    /// With another set of fields.
    pub fn unbound(&self, fields: &FieldSet) -> FieldSelector {
        let labels: Vec<&str> = fields.labels().collect();
        let terms = self.terms.iter().map(|term| FieldRequirement {
            key: labels[term.index].into(),
            operator: term.operator,
            value: term.value.clone(),
        });
        FieldSelector {
            requirements: terms.collect(),
        }
    }

    /// The value the trigger field must have, if the selector pins it with `=`.
    pub fn trigger_value(&self) -> Option<&str> {
        self.pinned.map(|term| &*self.terms[term].value)
    }
}

/// Cuts at every comma without a backslash before it.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Cuts at the first operator.
fn split_term(term: &str) -> Option<(&str, FieldOperator, &str)> {
    let at = term.bytes().enumerate().position(|(at, byte)| {
        byte == b'=' || (byte == b'!' && term.as_bytes().get(at + 1) == Some(&b'='))
    })?;
    let (key, rest) = term.split_at(at);
    let operators = [
        ("!=", FieldOperator::NotEquals),
        ("==", FieldOperator::Equals),
        ("=", FieldOperator::Equals),
    ];
    operators
        .into_iter()
        .find_map(|(symbol, operator)| Some((key, operator, rest.strip_prefix(symbol)?)))
}

/// Takes the backslashes out of a value.
fn unescape(value: &str) -> Result<String, String> {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                Some(other) => {
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    ));
                }
                None => {
                    return Err("invalid field selector: invalid escape sequence: \\".to_owned());
                }
            },
            ',' | '=' => {
                let code = u32::from(character);
                return Err(format!(
                    "invalid field selector: unescaped character in value: {code}"
                ));
            }
            other => text.push(other),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
