//! Text against recorded text, with holes; and what the symbols are bound to so far.
//!
//! Owns the rules of each symbol kind. Invariant: a value once bound never changes, two UIDs are
//! never bound to one value, and bound resource versions compare as the recorded ones do.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::model::{Hole, Symbol, SymbolKind};

/// Why something live is not what was recorded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{why}")]
pub struct Mismatch {
    /// What differs, and where.
    pub why: String,
    /// The symbol of the write that a list does not show yet, if that is what differs.
    pub(super) behind: Option<String>,
}

impl Mismatch {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            behind: None,
        }
    }

    pub(super) fn at(self, place: &str) -> Self {
        Self {
            why: format!("{place}: {}", self.why),
            ..self
        }
    }
}

/// The live values of a scenario's symbols.
#[derive(Clone, Debug)]
pub struct Bindings<'a> {
    symbols: &'a HashMap<String, Symbol>,
    bound: HashMap<&'a str, String>,
}

/// The content of a continue token.
#[derive(Debug, Eq, PartialEq)]
struct Token {
    resource_version: i64,
    start: String,
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        Some(Self {
            resource_version: json["rv"].as_i64().unwrap_or_default(),
            start: json["start"].as_str()?.to_owned(),
        })
    }
}

impl<'a> Bindings<'a> {
    /// Nothing bound yet.
    pub fn new(symbols: &'a HashMap<String, Symbol>) -> Self {
        Self {
            symbols,
            bound: HashMap::new(),
        }
    }

    /// The live value of a symbol; a token made by the test is made here.
    pub fn value(&self, name: &str) -> Option<String> {
        if let Some(value) = self.bound.get(name) {
            return Some(value.clone());
        }
        let symbol = self.symbols.get(name).filter(|symbol| symbol.minted)?;
        let resource_version = self.token_version(symbol)?;
        let quote = |text: &str| {
            let mut out = Vec::new();
            crate::apiserver::schema::write_json_string(&mut out, text);
            String::from_utf8(out).expect("escaped text is UTF-8")
        };
        let version = quote(symbol.v.as_deref().unwrap_or_default());
        let start = quote(symbol.start.as_deref().unwrap_or_default());
        let json = format!("{{\"v\":{version},\"rv\":{resource_version},\"start\":{start}}}");
        Some(URL_SAFE_NO_PAD.encode(json))
    }

    fn token_version(&self, symbol: &Symbol) -> Option<i64> {
        match (&symbol.rv, symbol.rv_literal) {
            (Some(name), _) => self.bound.get(name.as_str())?.parse().ok(),
            (None, literal) => literal,
        }
    }

    /// Puts live values into a request: `${name}`, `${name+5}`, `${name-1}`.
    ///
    /// # Errors
    /// When a symbol has no live value yet.
    pub fn expand(&self, template: &str) -> Result<String, Mismatch> {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("${") {
            let (inside, after) = after
                .split_once('}')
                .ok_or_else(|| Mismatch::new("unclosed ${ in a template"))?;
            out.push_str(before);
            let sign = inside.find(['+', '-']).unwrap_or(inside.len());
            let (name, offset) = inside.split_at(sign);
            let value = self
                .value(name)
                .ok_or_else(|| Mismatch::new(format!("{name} has no live value yet")))?;
            if offset.is_empty() {
                out.push_str(&value);
            } else {
                let number: i64 = value.parse().unwrap_or_default();
                out.push_str(&(number + offset.parse::<i64>().unwrap_or_default()).to_string());
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Takes `live` for what the recording calls `name`.
    ///
    /// # Errors
    /// When the kind does not allow it, or it contradicts what is bound.
    pub fn bind(&mut self, name: &str, live: &str) -> Result<(), Mismatch> {
        let Some((name, symbol)) = self.symbols.get_key_value(name) else {
            return Err(Mismatch::new(format!("the recording has no symbol {name}")));
        };
        if let Some(bound) = self.bound.get(name.as_str()) {
            let same = match symbol.kind {
                SymbolKind::Tok => Token::parse(bound) == Token::parse(live),
                SymbolKind::Rv | SymbolKind::Lrv | SymbolKind::Uid | SymbolKind::Jwt => {
                    bound == live
                }
            };
            return if same {
                Ok(())
            } else {
                Err(Mismatch::new(format!("{name} is {bound} but here {live}")))
            };
        }
        match symbol.kind {
            SymbolKind::Rv => self.check_order(name, symbol, live)?,
            SymbolKind::Lrv => self.check_minimum(name, symbol, live)?,
            SymbolKind::Uid => self.check_unique(name, live)?,
            SymbolKind::Tok => self.check_token(name, symbol, live)?,
            SymbolKind::Jwt => {}
        }
        self.bound.insert(name, live.to_owned());
        Ok(())
    }

    fn check_order(&self, name: &str, symbol: &Symbol, live: &str) -> Result<(), Mismatch> {
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        for (other, bound) in &self.bound {
            let other_symbol = &self.symbols[*other];
            let recorded = number(&symbol.value).cmp(&number(&other_symbol.value));
            if other_symbol.kind == SymbolKind::Rv && number(live).cmp(&number(bound)) != recorded {
                return Err(Mismatch::new(format!(
                    "{name}={live} and {other}={bound} are not in the recorded order ({} and {})",
                    symbol.value, other_symbol.value
                )));
            }
        }
        Ok(())
    }

    fn check_minimum(&self, name: &str, symbol: &Symbol, live: &str) -> Result<(), Mismatch> {
        let Some(minimum) = symbol.min.as_deref() else {
            return Ok(());
        };
        let Some(bound) = self.bound.get(minimum) else {
            return Ok(());
        };
        if live.parse::<u64>().ok() < bound.parse().ok() {
            let why = format!("{name}={live} is below {minimum}={bound}");
            return Err(Mismatch {
                behind: Some(minimum.to_owned()),
                ..Mismatch::new(why)
            });
        }
        Ok(())
    }

    fn check_unique(&self, name: &str, live: &str) -> Result<(), Mismatch> {
        match self.bound.iter().find(|(_, bound)| *bound == live) {
            Some((other, _)) => Err(Mismatch::new(format!("{name}={live} is {other} already"))),
            None => Ok(()),
        }
    }

    fn check_token(&self, name: &str, symbol: &Symbol, live: &str) -> Result<(), Mismatch> {
        let token = Token::parse(live)
            .ok_or_else(|| Mismatch::new(format!("{name}={live} is no token")))?;
        let expected = Token {
            resource_version: self.token_version(symbol).unwrap_or(token.resource_version),
            start: symbol.start.clone().unwrap_or_default(),
        };
        if token != expected {
            return Err(Mismatch::new(format!(
                "{name} says {token:?}, not {expected:?}"
            )));
        }
        Ok(())
    }

    /// The symbols recorded with this value.
    pub(super) fn recorded_as(&self, value: &str) -> impl Iterator<Item = (&'a str, SymbolKind)> {
        self.symbols
            .iter()
            .filter(move |(_, symbol)| symbol.value == value)
            .map(|(name, symbol)| (name.as_str(), symbol.kind))
    }

    /// Whether two numbers in a message are both no older than the first write: resource versions
    /// that no symbol names, such as the current one in an error.
    pub(super) fn may_be_version(&self, recorded: &str, live: &str) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        let versions = self.bound.iter().filter_map(|(name, bound)| {
            let symbol = &self.symbols[*name];
            let is_version = symbol.kind == SymbolKind::Rv;
            is_version.then_some((number(&symbol.value)?, number(bound)?))
        });
        versions.min().is_some_and(|(oldest, bound)| {
            number(recorded) >= Some(oldest) && number(live) >= Some(bound)
        })
    }

    /// Compares a text with the recorded one and binds what its holes hold.
    ///
    /// # Errors
    /// At the first difference, with its place. Bindings made before it stay.
    pub fn match_text(
        &mut self,
        recorded: &str,
        holes: &[Hole],
        live: &str,
    ) -> Result<(), Mismatch> {
        let (mut position, mut live_position) = (0, 0);
        for Hole(offset, length, name) in holes {
            let literal = &recorded.as_bytes()[position..*offset];
            live_position = match_literal(literal, live.as_bytes(), live_position)?;
            let kind = HoleKind::of(name, self.symbols);
            let value = kind.run(&live[live_position..]);
            let sample = &recorded[*offset..offset + length];
            if !kind.accepts(value, sample) {
                return Err(Mismatch::new(format!(
                    "byte {live_position}: {value:?} is no {name}"
                )));
            }
            if let HoleKind::Symbol(_) = kind {
                self.bind(name, value).map_err(|mismatch| {
                    mismatch.at(&format!("byte {live_position} (recorded {sample})"))
                })?;
            }
            position = offset + length;
            live_position += value.len();
        }
        let rest = &recorded.as_bytes()[position..];
        let end = match_literal(rest, live.as_bytes(), live_position)?;
        if end < live.len() {
            let more = snippet(live.as_bytes(), end);
            return Err(Mismatch::new(format!(
                "byte {end}: more than recorded: {more}"
            )));
        }
        Ok(())
    }
}

/// Compares literal bytes; the position after them.
fn match_literal(literal: &[u8], live: &[u8], position: usize) -> Result<usize, Mismatch> {
    let rest = &live[position..];
    if rest.starts_with(literal) {
        return Ok(position + literal.len());
    }
    let same = literal
        .iter()
        .zip(rest)
        .take_while(|(left, right)| left == right)
        .count();
    Err(Mismatch::new(format!(
        "byte {}: recorded {}, live {}",
        position + same,
        snippet(literal, same),
        snippet(rest, same)
    )))
}

/// The bytes around a difference, printable.
pub(super) fn snippet(bytes: &[u8], position: usize) -> String {
    let start = position.saturating_sub(30).min(bytes.len());
    let end = (position + 50).min(bytes.len());
    format!("{:?}", String::from_utf8_lossy(&bytes[start..end]))
}

/// What a hole may hold.
#[derive(Clone, Copy, Debug)]
enum HoleKind {
    Symbol(SymbolKind),
    Time,
    Age,
    Hex,
    Address,
    Digits,
}

impl HoleKind {
    fn of(name: &str, symbols: &HashMap<String, Symbol>) -> Self {
        match (name, symbols.get(name)) {
            (_, Some(symbol)) => Self::Symbol(symbol.kind),
            ("ts", None) => Self::Time,
            ("age", None) => Self::Age,
            ("hex", None) => Self::Hex,
            ("addr", None) => Self::Address,
            (_, None) => Self::Digits,
        }
    }

    /// The longest beginning of `text` the kind allows.
    fn run(self, text: &str) -> &str {
        let allowed = |byte: u8| match self {
            Self::Symbol(SymbolKind::Rv | SymbolKind::Lrv) | Self::Digits => byte.is_ascii_digit(),
            Self::Symbol(SymbolKind::Uid) => byte.is_ascii_hexdigit() || byte == b'-',
            Self::Symbol(SymbolKind::Tok) => byte.is_ascii_alphanumeric() || b"_-".contains(&byte),
            Self::Symbol(SymbolKind::Jwt) => byte.is_ascii_alphanumeric() || b"_-.".contains(&byte),
            Self::Time => byte.is_ascii_digit() || b"-+:.TZ".contains(&byte),
            Self::Age => byte.is_ascii_alphanumeric(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Address => byte.is_ascii_digit() || b".:".contains(&byte),
        };
        let end = text
            .bytes()
            .position(|byte| !allowed(byte))
            .unwrap_or(text.len());
        match self {
            // Times are UTC; Go's layout, which appears in an error text, goes on.
            Self::Time => text[..end]
                .find('Z')
                .map_or(&text[..end], |zone| &text[..=zone]),
            Self::Symbol(_) | Self::Age | Self::Hex | Self::Address | Self::Digits => &text[..end],
        }
    }

    fn accepts(self, value: &str, recorded: &str) -> bool {
        match self {
            Self::Symbol(SymbolKind::Uid) => {
                let dashes = value.bytes().enumerate().filter(|(_, byte)| *byte == b'-');
                value.len() == 36 && dashes.map(|(index, _)| index).eq([8, 13, 18, 23])
            }
            Self::Symbol(_) | Self::Digits => !value.is_empty(),
            // The precision belongs to the field.
            Self::Time => value.len() == recorded.len() && value.parse::<jiff::Timestamp>().is_ok(),
            Self::Age => value.ends_with(['s', 'm', 'h', 'd']),
            Self::Hex => value.len() == recorded.len(),
            Self::Address => value.parse::<std::net::SocketAddr>().is_ok(),
        }
    }
}
