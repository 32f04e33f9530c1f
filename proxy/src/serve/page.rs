//! Pages of a list: where one begins, where it ends, and the token of the next.
//!
//! Owns: continue tokens, in the format kube-apiserver's cache mints and both it and its store
//! accept (as `storage/continue.go`, 1.36), so that a client may carry them between the proxy and an
//! apiserver; and the rules of `continue` and `remainingItemCount`.
//! Refuses: to judge bad tokens. One it cannot read is passed through, and the apiserver says what is
//! wrong with it.
//! Invariant: the pages of one list are cut from one resource version, the first page's.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use watershed_cache::{ResourceVersion, Selection, Snapshot};

/// The only version of tokens there is.
const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Which part of a collection is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Page {
    /// Namespace of the path, empty for all: what tokens and counts are relative to, whatever else a
    /// selector narrows.
    pub(crate) namespace: String,
    /// Key it begins at; empty for the beginning.
    pub(crate) start: String,
    /// At most so many objects.
    pub(crate) limit: Option<usize>,
}

/// Where one page of a collection ends.
#[derive(Debug)]
pub(super) struct Cut {
    /// It holds the first so many of the selected objects from its start on; all, if `None`.
    pub(super) objects: Option<usize>,
    /// `continue`, if the collection goes on, be it with objects that are not selected.
    pub(super) continue_token: Option<String>,
    /// `remainingItemCount`, if it can be told.
    pub(super) remaining: Option<i64>,
}

impl Page {
    /// Where the page of `snapshot` ends.
    pub(super) fn cut(&self, snapshot: &Snapshot, selection: &Selection) -> Cut {
        let last = self.limit.and_then(|limit| {
            let mut selected = snapshot.iter_from(selection, &self.start);
            selected.nth(limit - 1).map(|last| (limit, last))
        });
        let Some((limit, last)) = last else {
            return Cut::WHOLE;
        };
        let namespace = Some(self.namespace.as_str()).filter(|it| !it.is_empty());
        let after = format!("{}\0", last.key());
        if snapshot.range(namespace, &after).next().is_none() {
            return Cut::WHOLE;
        }
        let relative = match namespace {
            Some(namespace) => &last.key()[namespace.len() + 1..],
            None => last.key(),
        };
        let is_unfiltered = selection.labels.is_empty() && selection.fields.is_empty();
        let remaining = is_unfiltered.then(|| {
            let from_here = snapshot.range(namespace, &self.start).count();
            i64::try_from(from_here - limit).unwrap_or(i64::MAX)
        });
        Cut {
            continue_token: Some(Token::encode(snapshot.resource_version(), relative)),
            remaining,
            objects: Some(limit),
        }
    }
}

impl Cut {
    /// Everything from the start on.
    const WHOLE: Self = Self {
        objects: None,
        continue_token: None,
        remaining: None,
    };
}

/// What a continue token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The version all pages are of; `None` for "whatever is current", which the apiserver hands out
    /// when the first page's version is gone.
    pub(crate) resource_version: Option<ResourceVersion>,
    /// Key the page begins at, relative to the collection that is listed.
    pub(crate) start: String,
}

// Go matches names in any case and takes the last: what is not spelt as here is left to it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    v: &'a str,
    #[serde(default)]
    rv: i64,
    start: std::borrow::Cow<'a, str>,
}

impl Token {
    /// `None` for one the apiserver refuses, or might.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let Form { v, rv, start } = serde_json::from_slice(&bytes).ok()?;
        if v != TOKEN_VERSION || rv == 0 || start.is_empty() {
            return None;
        }
        let start = start.strip_prefix('/').unwrap_or(&start);
        let is_plain = start.is_empty()
            || start
                .split('/')
                .all(|segment| !matches!(segment, "" | "." | ".."));
        is_plain.then(|| Self {
            resource_version: u64::try_from(rv).ok().map(ResourceVersion::new),
            start: start.to_owned(),
        })
    }

    /// The token of the page after `last`, a key relative to the collection.
    pub(crate) fn encode(resource_version: ResourceVersion, last: &str) -> String {
        let form = Form {
            v: TOKEN_VERSION,
            rv: i64::try_from(resource_version.get()).unwrap_or(i64::MAX),
            start: format!("/{last}\0").into(),
        };
        let json = serde_json::to_string(&form).expect("a token is plain JSON");
        // Go escapes these; the others it escapes cannot stand in a name.
        let json = json
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026");
        URL_SAFE_NO_PAD.encode(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn a_token_is_the_apiservers_own_but_for_its_leading_slash() {
        let token = Token::encode(ResourceVersion::new(2983), "default/a");
        let json = r#"{"v":"meta.k8s.io/v1","rv":2983,"start":"/default/a\u0000"}"#;
        assert_eq!(token, minted(json));
        let stored =
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Mjk4Mywic3RhcnQiOiJkZWZhdWx0L2FcdTAwMDAifQ";
        assert_eq!(Token::decode(&token), Token::decode(stored));
        assert_eq!(
            Token::decode(stored),
            Some(Token {
                resource_version: Some(ResourceVersion::new(2983)),
                start: "default/a\0".to_owned(),
            })
        );
    }

    #[test]
    fn a_negative_version_means_the_current_one() {
        let token = minted(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a\u0000"}"#);
        assert_eq!(
            Token::decode(&token).map(|it| it.resource_version),
            Some(None)
        );
    }

    #[test]
    fn tokens_the_apiserver_refuses_are_left_to_it() {
        let refused = [
            "not base64!",
            &minted("no json"),
            &minted(r#"{"v":"meta.k8s.io/v2","rv":5,"start":"a"}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","start":"a"}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","rv":5,"start":""}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"../../x"}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"//a"}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"a//b"}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"./a"}"#),
            &minted(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"a/"}"#),
        ];
        for token in refused {
            assert_eq!(Token::decode(token), None, "{token}");
        }
    }
}
