//! The `Accept` header as goautoneg reads it.

use watershed_cache::encoding::MetaVersion;

use super::{Media, Transform};

/// One element of the header.
pub(super) struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// `None` for a number written as only Go's parser reads it.
    q: Option<f64>,
    /// `as`, `g` and `v` together.
    pub(super) transform: Wanted,
    /// A non-empty `sv`.
    pub(super) server_version: Option<&'a str>,
    stream: Option<&'a str>,
    /// `pretty=1`.
    pub(super) pretty: bool,
}

/// The kind a clause asks for.
pub(super) enum Wanted {
    /// The resource's own.
    Own,
    /// One the apiserver can transform to.
    Kind(Transform),
    /// One it cannot: the clause is skipped.
    Unknown,
}

/// The clauses, in Go's order of preference.
pub(super) fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).collect();
    // Go's insertion sort. A library sort would do something else: `before` is not an order.
    for i in 1..clauses.len() {
        let mut j = i;
        while j > 0 && clauses[j].before(&clauses[j - 1]) {
            clauses.swap(j, j - 1);
            j -= 1;
        }
    }
    clauses
}

impl<'a> Clause<'a> {
    fn parse(element: &'a str) -> Option<Self> {
        let mut parts = element.trim_matches(' ').split(';');
        let (kind, subtype) = media_range(parts.next().unwrap_or_default())?;
        let mut clause = Self {
            kind,
            subtype,
            q: Some(1.0),
            transform: Wanted::Own,
            server_version: None,
            stream: None,
            pretty: false,
        };
        let mut target = Target::default();
        for part in parts {
            let Some((name, value)) = part.split_once('=') else {
                continue;
            };
            // `a=` and `a=b=c` are skipped; `a=b=` is not.
            let value = match value.split_once('=') {
                _ if value.is_empty() => continue,
                Some((_, rest)) if !rest.is_empty() => continue,
                Some((value, _)) => value,
                None => value,
            };
            let trimmed = value.trim_matches(' ');
            match name.trim_matches(' ') {
                "q" => clause.q = quality(value),
                "as" => target.kind = Some(trimmed),
                "g" => target.group = Some(trimmed),
                "v" => target.version = Some(trimmed),
                "sv" => clause.server_version = (!trimmed.is_empty()).then_some(trimmed),
                "stream" => clause.stream = (!trimmed.is_empty()).then_some(trimmed),
                "pretty" => clause.pretty = trimmed == "1",
                _ => {}
            }
        }
        clause.transform = target.wanted();
        Some(clause)
    }

    /// Whether its place among the others is known.
    pub(super) fn is_clear(&self) -> bool {
        self.q.is_some()
    }

    /// Go's `Less`. Not a strict order: a low-q concrete type may come before a high-q wildcard.
    fn before(&self, other: &Self) -> bool {
        self.q > other.q
            || (self.kind != "*" && other.kind == "*")
            || (self.subtype != "*" && other.subtype == "*")
    }

    /// Whether the media range includes the type.
    pub(super) fn covers(&self, media: Media) -> bool {
        let (kind, subtype) = media
            .content_type()
            .split_once('/')
            .expect("content types have a slash");
        match (self.kind, self.subtype) {
            ("*", "*") => true,
            (wanted, "*") => wanted == kind,
            (wanted, wanted_subtype) => wanted == kind && wanted_subtype == subtype,
        }
    }

    /// Whether the `stream` parameter, if any, can be met. YAML has no stream serializer.
    pub(super) fn streamable(&self, media: Media) -> bool {
        self.stream
            .is_none_or(|stream| stream == "watch" && media != Media::Yaml)
    }

    /// Whether the `sv` parameter, if any, can be met.
    pub(super) fn known_version(&self) -> bool {
        self.server_version.is_none_or(|version| version == "v1")
    }
}

/// `type/subtype`, or `*` for both.
fn media_range(text: &str) -> Option<(&str, &str)> {
    let (kind, subtype) = text.split_once('/').unwrap_or((text, ""));
    let kind = kind.trim_matches(' ');
    if subtype.is_empty() {
        return (kind == "*").then_some(("*", "*"));
    }
    match subtype.split_once('/') {
        Some((_, rest)) if !rest.is_empty() => None,
        Some((subtype, _)) => Some((kind, subtype.trim_matches(' '))),
        None => Some((kind, subtype.trim_matches(' '))),
    }
}

/// Go's `ParseFloat(text, 32)`, 0 for what is no number. `None` for hexadecimal numbers and digits
/// set apart by underscores, which it reads too.
fn quality(text: &str) -> Option<f64> {
    let unsigned = text.trim_start_matches(['+', '-']);
    if text.contains('_') || unsigned.starts_with("0x") || unsigned.starts_with("0X") {
        return None;
    }
    // Rust gives a NaN a sign, Go does not.
    let signed_nan = unsigned.len() < text.len() && unsigned.eq_ignore_ascii_case("nan");
    let number = text.parse::<f32>().ok().filter(|_| !signed_nan);
    Some(number.map_or(0.0, f64::from))
}

#[derive(Default)]
struct Target<'a> {
    kind: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
}

impl Target<'_> {
    fn wanted(&self) -> Wanted {
        if self.kind.is_none() && self.group.is_none() && self.version.is_none() {
            return Wanted::Own;
        }
        let version = match (self.group, self.version) {
            (Some("meta.k8s.io"), Some("v1")) => MetaVersion::V1,
            (Some("meta.k8s.io"), Some("v1beta1")) => MetaVersion::V1Beta1,
            _ => return Wanted::Unknown,
        };
        match self.kind {
            Some("Table") => Wanted::Kind(Transform::Table(version)),
            Some("PartialObjectMetadata") => {
                Wanted::Kind(Transform::PartialObjectMetadata(version))
            }
            Some("PartialObjectMetadataList") => {
                Wanted::Kind(Transform::PartialObjectMetadataList(version))
            }
            Some(_) | None => Wanted::Unknown,
        }
    }
}
