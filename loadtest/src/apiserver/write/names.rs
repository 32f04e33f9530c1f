//! Names of objects: which are valid, and how one is generated.
//!
//! Owns the DNS-1123 rules and their texts, and the suffix of `generateName`. Refuses uniqueness:
//! the store decides that.
//!
//! Invariant: a generated name is valid wherever its prefix is.

use crate::apiserver::status::Cause;

/// Characters of generated suffixes: no vowels, no look-alikes, as apimachinery `rand`.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;
const GENERATED_PREFIX_LEN_MAX: usize = 63 - SUFFIX_LEN;

/// A name from a `generateName` prefix.
pub(super) fn generate(prefix: &str) -> String {
    let mut name: String = prefix.chars().take(GENERATED_PREFIX_LEN_MAX).collect();
    for _ in 0..SUFFIX_LEN {
        name.push(char::from(ALPHABET[fastrand::usize(..ALPHABET.len())]));
    }
    name
}

/// What is wrong with the name of an object of `resource`, if anything.
pub(super) fn check(resource: &str, name: &str) -> Option<Cause> {
    let problem = match resource {
        "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings" => path_segment(name),
        "namespaces" | "services" => label(name),
        _ => subdomain(name),
    }?;
    let message = format!("Invalid value: \"{name}\": {problem}");
    Some(Cause::field("FieldValueInvalid", message, "metadata.name"))
}

/// The problem with a name that becomes one path segment.
pub(super) fn path_segment(name: &str) -> Option<String> {
    match name {
        "." | ".." => Some(format!("may not be '{name}'")),
        _ if name.contains('/') => Some("may not contain '/'".to_owned()),
        _ if name.contains('%') => Some("may not contain '%'".to_owned()),
        _ => None,
    }
}

fn subdomain(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some("must be no more than 253 bytes".to_owned());
    }
    (!name.split('.').all(is_label)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
         '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex \
         used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .to_owned()
    })
}

fn label(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 bytes".to_owned());
    }
    (!is_label(name)).then(|| {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
         must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex \
         used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            .to_owned()
    })
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_their_resource() {
        for (resource, name, valid) in [
            ("pods", "a.b-c", true),
            ("pods", "A", false),
            ("pods", "a..b", false),
            ("pods", "-a", false),
            ("namespaces", "a.b", false),
            ("clusterroles", "system:node", true),
            ("clusterroles", "a/b", false),
        ] {
            assert_eq!(check(resource, name).is_none(), valid, "{resource} {name}");
        }
    }

    #[test]
    fn a_generated_name_is_valid_and_short_enough() {
        let name = generate(&"x".repeat(100));
        assert_eq!(name.len(), 63);
        assert!(check("pods", &name).is_none());
    }
}
