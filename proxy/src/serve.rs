//! From the cache or passed through: one pure decision, and the answers from the cache.
//!
//! Owns: which reads the cache may answer and what each of them means ([`Read`]), by the tables of
//! kube-apiserver's own cache delegation (as `cacher/delegator`, 1.36).
//! Refuses: to answer anything it does not understand whole. An option, a selector or a form it is
//! not sure about is passed through; so is an error whose words may depend on the apiserver.
//! Invariant: [`Read::classify`] does no I/O and holds no state, so the same request always means
//! the same; a read without a resource version is only ever [`Freshness::Consistent`].
//!
//! ```text
//!            resourceVersion   ""           "0"      N
//!   GET                        Consistent   Any      AtLeast(N)
//!   LIST                       Consistent   Any      AtLeast(N) without limit or with NotOlderThan,
//!                                                    else Exactly(N); further pages Exactly(token)
//!   LIST of one name, limit                          Stored(N), unless NotOlderThan or Exact
//!   WATCH initial events       Consistent   Any      AtLeast(N)
//!   WATCH without              Consistent   Any      after N, from history
//! ```

use std::time::Duration;

use http::HeaderMap;
use watershed_cache::{Resource, ResourceVersion, Selection};

use crate::{
    caches::Uncached,
    request::{Doubt, GetOptions, ListOptions, MATCH_NOT_OLDER_THAN, Query, RequestInfo, Verb},
    status::Status,
};

pub(crate) mod answer;
mod compress;
mod content;
mod fresh;
mod indent;
mod list;
mod page;
mod representation;
mod sending;
mod unready;
mod watch;

pub(crate) use compress::Compressor;
use content::Content;
pub(crate) use page::Page;
pub(crate) use page::Token;
pub(crate) use representation::Representation;
pub(crate) use sending::Sending;
pub(crate) use watch::WatchBody;

/// The limits of `timeoutSeconds` when a client names none: as apiserver `--min-request-timeout`
/// 1800 s, times one to two.
const WATCH_TIMEOUT_MIN: Duration = Duration::from_secs(1800);

/// Why a request is passed through. A metric label: few values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It is not a read in a form the proxy knows.
    Doubt(Doubt),
    /// The resource has no ready cache.
    Uncached(Uncached),
    /// Tables, YAML, metadata of a list as that of an object, or an `Accept` the apiserver will refuse.
    Representation,
    /// Options the apiserver will refuse, or a path its router will.
    Invalid,
    /// A page whose token only the apiserver can judge.
    Paging,
    /// The state at a resource version that the history does not hold, or the apiserver has lost.
    Exact,
    /// A field label the cache cannot evaluate.
    Selector,
    /// Freshness could not be proven.
    NotFresh,
}

impl Reason {
    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Doubt(doubt) => doubt.as_str(),
            Self::Uncached(why) => why.as_str(),
            Self::Representation => "representation",
            Self::Invalid => "invalid",
            Self::Paging => "paging",
            Self::Exact => "exact",
            Self::Selector => "selector",
            Self::NotFresh => "not-fresh",
        }
    }
}

/// How new the state must be that a read is answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// What the cache has.
    Any,
    /// This version or a newer one.
    AtLeast(ResourceVersion),
    /// Everything written before the request arrived.
    Consistent,
    /// The state at this version, neither older nor newer, while the apiserver still has it.
    Exactly(ResourceVersion),
    /// What the storage has now, if it has reached this version: how an apiserver reads a single
    /// key with a limit past its cache.
    Stored(ResourceVersion),
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the whole state.
    Initial {
        /// How new it must be.
        freshness: Freshness,
        /// Whether a bookmark marks its end.
        end_bookmark: bool,
    },
    /// After the version this freshness is met at, without initial events.
    Now(Freshness),
    /// After this version.
    After(ResourceVersion),
}

/// What the cache is asked.
#[derive(Clone, Debug)]
pub(crate) enum Read {
    /// One object.
    Get {
        /// How new it must be.
        freshness: Freshness,
        /// Empty for cluster-scoped resources.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A collection.
    List {
        /// How new it must be.
        freshness: Freshness,
        /// Which objects.
        selection: Selection,
        /// Which part of them.
        page: Page,
    },
    /// A stream.
    Watch {
        /// Where it begins.
        start: Start,
        /// Which objects.
        selection: Selection,
        /// `allowWatchBookmarks`
        bookmarks: bool,
        /// When it ends.
        timeout: Duration,
    },
}

/// What happens to a read that the cache does not answer.
#[derive(Debug)]
pub(crate) enum Instead {
    /// It is passed through.
    Forward(Reason),
    /// The apiserver would certainly refuse it in these words; they come after authorization.
    Refuse(Box<Status>),
}

impl From<Reason> for Instead {
    fn from(reason: Reason) -> Self {
        Self::Forward(reason)
    }
}

impl From<Status> for Instead {
    fn from(status: Status) -> Self {
        Self::Refuse(Box::new(status))
    }
}

/// What can be told from the request alone, before anybody is asked who sent it.
pub(crate) fn screen(headers: &HeaderMap, info: &RequestInfo) -> Result<(), Reason> {
    match info.doubt().or_else(|| Doubt::of_headers(headers)) {
        Some(doubt) => Err(Reason::Doubt(doubt)),
        None => Ok(()),
    }
}

impl Read {
    /// What a read of `resource` means, or why it is passed through. `watch_list` is whether the
    /// apiserver has the WatchList feature: without it some watches mean less, and some are refused.
    pub(crate) fn classify(
        info: &RequestInfo,
        query: &Query,
        resource: &Resource,
        watch_list: bool,
    ) -> Result<Self, Instead> {
        let namespace = scope(info, resource)?;
        match (&info.verb, &info.options) {
            (Verb::Get, None) => Self::get(info, query, namespace, resource),
            (Verb::List, Some(Ok(options))) => Self::list(info, options, namespace, resource),
            (Verb::Watch, Some(Ok(options))) => {
                Self::watch(info, options, (namespace, resource), watch_list)
            }
            (_, Some(Err(status))) => Err(status.clone().into()),
            _ => Err(Reason::Invalid.into()),
        }
    }

    fn get(
        info: &RequestInfo,
        query: &Query,
        namespace: &str,
        resource: &Resource,
    ) -> Result<Self, Instead> {
        if resource.namespaced == namespace.is_empty() {
            return Err(Reason::Invalid.into());
        }
        let options = GetOptions::decode(query)?;
        Ok(Self::Get {
            freshness: freshness(&options.resource_version, Status::unclassified)?,
            namespace: namespace.to_owned(),
            name: info.name.clone(),
        })
    }

    fn list(
        info: &RequestInfo,
        options: &ListOptions,
        namespace: &str,
        resource: &Resource,
    ) -> Result<Self, Instead> {
        options.validate(true)?;
        let selection = selection(info, options, namespace, resource)?;
        if !options.continue_token.is_empty() {
            return Self::further_page(options, namespace, selection);
        }
        let refusal = |text: String| Status::invalid_list_resource_version(&text);
        let mut freshness = freshness(&options.resource_version, refusal)?;
        let limit = limit(options);
        // A read of a single key knows no pages.
        let names_one_object =
            selection.name.is_some() && (selection.namespace.is_some() || !resource.namespaced);
        if let Freshness::AtLeast(version) = freshness {
            let version_match = options.resource_version_match.as_str();
            freshness = match (version_match, limit) {
                (MATCH_NOT_OLDER_THAN, _) | ("", None) => freshness,
                ("", Some(_)) if names_one_object => Freshness::Stored(version),
                _ => Freshness::Exactly(version),
            };
        }
        Ok(Self::List {
            freshness,
            selection,
            page: Page {
                namespace: namespace.to_owned(),
                start: String::new(),
                limit: limit.filter(|_| !names_one_object),
            },
        })
    }

    /// A page of the version that its token names.
    fn further_page(
        options: &ListOptions,
        namespace: &str,
        selection: Selection,
    ) -> Result<Self, Instead> {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(Reason::Invalid.into());
        }
        let token = Token::decode(&options.continue_token).ok_or(Reason::Paging)?;
        let start = if namespace.is_empty() {
            token.start
        } else {
            format!("{namespace}/{}", token.start)
        };
        let version = token.resource_version;
        Ok(Self::List {
            freshness: version.map_or(Freshness::Consistent, Freshness::Exactly),
            selection,
            page: Page {
                namespace: namespace.to_owned(),
                start,
                limit: limit(options),
            },
        })
    }

    fn watch(
        info: &RequestInfo,
        options: &ListOptions,
        (namespace, resource): (&str, &Resource),
        watch_list: bool,
    ) -> Result<Self, Instead> {
        let mut options = options.clone();
        options.default_watch(watch_list);
        // What exactly is refused depends on the feature, so the apiserver says it.
        options.validate(watch_list).map_err(|_| Reason::Invalid)?;
        let selection = selection(info, &options, namespace, resource)?;
        let timeout = match options.timeout_seconds {
            None | Some(0) => WATCH_TIMEOUT_MIN.mul_f64(1.0 + fastrand::f64()),
            Some(seconds) => {
                Duration::from_secs(u64::try_from(seconds).map_err(|_| Reason::Invalid)?)
            }
        };
        let freshness = freshness(&options.resource_version, Status::unclassified)?;
        let start = match (options.send_initial_events, freshness) {
            (Some(true), _) => Start::Initial {
                freshness,
                end_bookmark: options.allow_watch_bookmarks,
            },
            // The deprecated path, and apiservers without WatchList: the state the cache has.
            (None, Freshness::Any | Freshness::Consistent) => Start::Initial {
                freshness: Freshness::Any,
                end_bookmark: false,
            },
            (Some(false), Freshness::Any | Freshness::Consistent) => Start::Now(freshness),
            (
                Some(false) | None,
                Freshness::AtLeast(version)
                | Freshness::Exactly(version)
                | Freshness::Stored(version),
            ) => Start::After(version),
        };
        Ok(Self::Watch {
            start,
            selection,
            bookmarks: options.allow_watch_bookmarks,
            timeout,
        })
    }
}

/// With version "0" the limit is ignored, whatever else is asked.
fn limit(options: &ListOptions) -> Option<usize> {
    let limit = usize::try_from(options.limit).ok();
    limit.filter(|limit| *limit > 0 && options.resource_version != "0")
}

/// The namespace that was asked for, empty for all of them; or a path the router will refuse.
fn scope<'a>(info: &'a RequestInfo, resource: &Resource) -> Result<&'a str, Instead> {
    if resource.namespaced {
        return Ok(&info.namespace);
    }
    // The path of one namespace names it twice.
    let is_namespace = resource.group.is_empty() && &*resource.resource == "namespaces";
    let fits = info.namespace.is_empty() || (is_namespace && info.namespace == info.name);
    if fits {
        Ok("")
    } else {
        Err(Reason::Invalid.into())
    }
}

/// An unparsable version is refused in the apiserver's words, which `refusal` completes.
fn freshness(
    resource_version: &str,
    refusal: impl Fn(String) -> Status,
) -> Result<Freshness, Instead> {
    match resource_version {
        "" => Ok(Freshness::Consistent),
        "0" => Ok(Freshness::Any),
        text => match ResourceVersion::parse_strict(text) {
            // "00" is zero too, but the apiserver compares with "0" as a string.
            Ok(version) if version == ResourceVersion::default() => Err(Reason::Invalid.into()),
            Ok(version) => Ok(Freshness::AtLeast(version)),
            Err(error) => Err(refusal(error.to_string()).into()),
        },
    }
}

fn selection(
    info: &RequestInfo,
    options: &ListOptions,
    namespace: &str,
    resource: &Resource,
) -> Result<Selection, Instead> {
    let mut options = options.clone();
    options.bind_name(&info.name)?;
    let fields = options
        .field_selector
        .bind(&resource.fields)
        .map_err(|_| Reason::Selector)?;
    let selected = options
        .field_selector
        .required_value("metadata.namespace")
        .unwrap_or_default();
    let namespace = if namespace.is_empty() {
        selected
    } else {
        namespace
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.into());
    Ok(Selection {
        namespace: if resource.namespaced {
            some(namespace)
        } else {
            None
        },
        name: some(&info.name),
        labels: options.label_selector,
        fields,
    })
}

#[cfg(test)]
mod tests;
