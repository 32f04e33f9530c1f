//! What a client may rely on, as cases that any server can be held against.
//!
//! A case is an async function named after the law it checks, in a file per part of the API. It
//! meets a [`Cluster`]: the server under test, which is an apiserver or a proxy in front of one,
//! and the apiserver itself, for what "another client" does. Cases make everything they need
//! through the API, under names of their own, so that they share a server and run side by side;
//! what disturbs others happens on a cluster of the case's own ([`Cluster::own`]).
//!
//! ```text
//!  for_each_case! ──► one test per law ──► Suite ──► case(&Cluster) ──► server under test
//!                     (three runners)        │
//!                                            └ Environment: starts apiservers, proxies
//! ```
//!
//! Three runners expand the list: `tests/conformance.rs` of this package aims at the embedded
//! apiserver, `tests/wire/conformance.rs` of the proxy at a proxy in front of it, and
//! `tests/real.rs` of the proxy at a real control plane. A case that cannot hold for a server says
//! so with [`does_not_apply`], which is reported and no pass.
//!
//! Refuses: state from the side, sleeps where an event can be waited for, assertions that depend
//! on what other cases do. Invariant: every number of [`NUMBERS`] is claimed by a case or by
//! [`UNCLAIMED`] with a reason.

mod cluster;
mod suite;

pub mod bookmarks;
pub mod encodings;
pub mod gets;
pub mod identity;
pub mod lists;
pub mod parsing;
pub mod selectors;
pub mod watches;

use futures_util::future::LocalBoxFuture;

pub use self::cluster::{
    Cluster, ControlPlane, Environment, Identity, Proxied, Running, Setup, Started, Subject,
    start_embedded,
};
pub use self::suite::{Suite, Verdict};

/// The numbers of the cases in the list of laws.
pub const NUMBERS: std::ops::RangeInclusive<u16> = 1..=144;

/// Numbers that no case claims, and why.
pub const UNCLAIMED: &[(u16, &str)] = &[];

/// A case, its name, and the numbers of the laws it checks.
#[derive(Clone, Copy)]
pub struct Case {
    /// `section::law`.
    pub name: &'static str,
    /// What it checks.
    pub numbers: &'static [u16],
    /// Checks it.
    pub run: for<'c> fn(&'c Cluster) -> LocalBoxFuture<'c, anyhow::Result<()>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Why a case says nothing about a server.
#[derive(Clone, Debug, thiserror::Error)]
#[error("does not apply: {0}")]
pub struct NotApplicable(String);

/// Ends a case that cannot hold for this server, which is neither a pass nor a failure.
///
/// # Errors
/// Always: the case goes no further.
pub fn does_not_apply<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(NotApplicable(reason.into()).into())
}

/// Hands every case to a macro: `section { law: [numbers], … }`.
#[macro_export]
macro_rules! for_each_case {
    ($each:ident) => {
        $each! {
            parsing {
                an_empty_or_odd_value_of_watch_is_true: [1, 2],
                the_first_value_of_watch_counts: [3],
            }

            lists {
            }

            gets {
            }

            watches {
            }

            selectors {
            }

            bookmarks {
            }

            encodings {
            }

            identity {
                a_stranger_is_refused_by_name_and_a_bad_token_altogether: [134],
            }
        }
    };
}

macro_rules! collect {
    ($($section:ident { $($law:ident: $numbers:expr,)* })*) => {
        /// Every case, in the order of the list.
        pub const CASES: &[Case] = &[$($(Case {
            name: concat!(stringify!($section), "::", stringify!($law)),
            numbers: &$numbers,
            run: |cluster| Box::pin($section::$law(cluster)),
        },)*)*];
    };
}
for_each_case!(collect);
