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
//! `tests/wire/real.rs` of the proxy at a real control plane. A case that cannot hold for a server says
//! so with [`does_not_apply`], which is reported and no pass.
//!
//! Refuses: state from the side, sleeps where an event can be waited for, assertions that depend
//! on what other cases do. Invariant: every number of [`numbers`] is claimed by a case or by
//! [`UNCLAIMED`] with a reason.
//!
//! Who may read what does not depend on who says so: a proxy can ask the apiserver or decide by
//! itself, and `for_each_case_of_access` lists what has to be run both ways.

mod cluster;
mod environment;
mod expect;
mod machine;
mod scene;
mod suite;
mod transitions;

pub mod authorization;
pub mod bookmarks;
pub mod changes;
pub mod contents;
pub mod encodings;
pub mod exact;
pub mod fields;
pub mod gets;
pub mod headers;
pub mod identity;
pub mod initial_events;
pub mod lists;
pub mod metadata;
pub mod node_agents;
pub mod node_graph;
pub mod node_rules;
pub mod nodes;
pub mod pages;
pub mod parsing;
pub mod paths;
pub mod renewals;
pub mod representations;
pub mod selectors;
pub mod streams;
pub mod trouble;
pub mod watch_options;
pub mod watches;

use futures_util::future::LocalBoxFuture;

pub use self::cluster::Cluster;
pub use self::environment::{
    ControlPlane, Environment, Identity, Proxied, Running, Setup, Started, Subject, start_embedded,
};
pub use self::suite::{Suite, Verdict};

/// Added to the numbers of the list about the traffic of nodes.
pub const NODE: u16 = 1000;

/// The numbers of the cases in the lists of laws: of reads and watches, and of what nodes may.
pub fn numbers() -> impl Iterator<Item = u16> {
    (1..=144).chain(NODE + 55..=NODE + 74)
}

/// Numbers that no case claims, and why.
pub const UNCLAIMED: &[(u16, &str)] = &[(
    NODE + 70,
    "random objects and requests are compared by `tests/wire/parity.rs` of the proxy, and decisions \
     alone by `tests/laws` of the authorizer",
)];

/// A case, its name, and the numbers of the laws it checks.
#[derive(Clone, Copy)]
pub struct Case {
    /// `section::law`.
    pub name: &'static str,
    /// What it checks.
    pub numbers: &'static [u16],
    /// Checks it. Its future stays on the thread it is polled on: cases use async closures freely.
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
        $crate::for_each_case_of_access! { $each
            // First, because one of them takes more than a minute.
            bookmarks {
                an_idle_watch_is_told_each_minute_how_far_it_is: [103, 104],
                a_bookmark_comes_before_the_end_of_a_watch: [104, 105, 108],
                a_watch_lives_as_long_as_it_asked_for: [106],
                a_watch_goes_on_from_a_bookmark_where_it_stood: [107],
                a_bookmark_in_protobuf_is_an_empty_object: [109],
                an_error_in_protobuf_is_a_status: [109],
            }

            parsing {
                every_value_of_watch_but_zero_and_false_is_true: [1, 2],
                the_first_value_of_watch_counts: [3],
                an_integer_is_read_as_go_reads_it: [5, 6, 7, 8],
                a_bad_timeout_is_refused_before_anyone_asks_who_it_is: [9],
                a_watch_has_no_timeout_parameter: [10],
                a_bad_label_selector_is_refused_in_the_words_of_its_parser: [11],
                what_is_forbidden_is_not_looked_at: [12],
                a_pair_with_a_semicolon_or_a_bad_escape_is_dropped: [13],
                the_first_field_selector_filters_and_is_authorised: [14],
                an_unknown_parameter_changes_nothing: [15],
                export_is_no_longer_supported: [22],
                a_get_knows_no_resource_version_match: [23],
            }

            paths {
                a_get_of_a_name_is_no_watch: [4],
                a_trailing_slash_is_nothing_and_an_empty_segment_is_a_segment: [16],
                a_path_that_cannot_be_read_is_an_internal_error: [17],
                a_collection_is_only_read_and_created_in: [18],
                what_is_not_served_is_not_found: [19],
                a_namespace_that_does_not_exist_is_empty: [20],
                a_name_that_cannot_be_is_refused: [21],
            }

            lists {
                a_list_without_a_version_shows_every_write_before_it: [24],
                a_list_without_a_version_is_not_stale_when_the_stream_lags: [24],
                version_zero_is_answered_at_once_and_never_goes_back: [25],
                version_zero_knows_no_limit: [26, 34],
                a_list_at_a_version_is_not_older: [27],
                a_version_that_never_comes_is_waited_for_three_seconds: [28],
                an_exact_version_that_never_comes_is_waited_for: [28],
                options_of_a_list_that_do_not_go_together_are_refused: [33, 36, 37, 39],
                a_version_of_a_list_is_an_unsigned_number: [38],
            }

            exact {
                a_limit_makes_a_version_exact: [29],
                one_object_by_name_is_never_exact_by_a_limit: [30],
                an_exact_list_shows_the_past: [31],
                an_exact_list_of_what_was_compacted_is_expired: [32],
            }

            contents {
                the_order_of_a_list_is_that_of_the_keys_bytes: [49],
                an_empty_collection_has_a_version: [50],
                names_and_namespaces_are_selected_by_field: [51, 52, 53],
                a_cache_that_is_being_filled_is_waited_for: [55],
                a_page_of_everything_needs_no_cache: [55],
                a_virtual_resource_cannot_be_watched: [56],
            }

            pages {
                a_page_that_is_not_older_goes_on_at_its_own_version: [35],
                pages_are_of_one_version_and_say_what_remains: [40],
                a_selected_page_does_not_say_what_remains: [41],
                the_last_match_of_a_full_page_is_followed_by_an_empty_one: [42],
                a_limit_that_leaves_nothing_ends_the_list: [43, 54],
                later_pages_are_of_the_first_pages_version: [44],
                a_token_goes_with_no_other_version: [45],
                a_bad_token_is_refused_with_the_reason: [46],
                an_expired_token_is_replaced_by_one_that_goes_on_with_the_present: [47],
                a_token_is_good_wherever_it_is_from: [48],
            }

            gets {
                an_object_at_zero_is_there_or_not_found: [57],
                an_object_at_a_version_that_never_comes_is_waited_for: [58],
                a_version_of_an_object_that_is_no_number_is_a_bare_500: [59],
                a_get_without_a_version_shows_every_write_before_it: [60],
                a_get_without_a_version_is_not_stale_when_the_stream_lags: [60],
            }

            watches {
                a_watch_from_the_newest_version_begins_with_what_comes_next: [61],
                history_is_replayed_from_just_after_the_version: [62, 63],
                a_deletion_is_replayed_below_its_own_version_only: [64],
                the_version_before_history_is_the_last_to_be_accepted: [65, 67],
                a_cache_that_listed_anew_knows_nothing_from_before: [66],
                a_watch_from_the_future_is_silent_until_then: [68],
            }

            watch_options {
                a_version_that_is_no_number_is_refused_before_the_stream: [69],
                options_that_do_not_go_together_are_refused: [76],
                a_watch_by_path_has_the_options_of_a_list: [79, 80, 82],
            }

            initial_events {
                version_zero_begins_with_all_objects_in_key_order: [70],
                no_version_begins_with_everything_written_before: [71],
                without_bookmarks_the_end_of_initial_events_is_not_marked: [72],
                a_watch_list_marks_the_end_of_its_initial_events: [73],
                a_watch_of_nothing_begins_with_the_mark: [74, 81],
                a_watch_list_from_the_future_is_told_so_in_the_stream: [75],
                without_initial_events_a_watch_begins_with_what_comes_next: [77, 78],
                without_watch_list_initial_events_are_not_marked: [83],
            }

            selectors {
                an_object_enters_and_leaves_a_label_selector: [84, 85, 86, 87, 88],
                an_object_enters_and_leaves_a_field_selector: [84, 85, 87, 88],
                an_object_enters_and_leaves_a_custom_field_selector: [84, 85, 87, 88],
                an_unknown_field_is_refused_in_the_words_of_its_resource: [94],
                an_absent_label_is_in_no_set_and_outside_of_all: [95],
                a_name_and_a_namespace_are_selectors: [88],
            }

            fields {
                a_pod_enters_the_selector_of_its_node_when_it_is_bound: [89, 90, 91, 92],
                the_alias_of_a_field_is_authorised_by_its_own_name: [91],
                a_headless_service_never_gets_an_address: [93],
            }

            changes {
                a_name_that_is_used_again_is_another_object: [96],
                a_deleted_namespace_takes_its_objects_along: [97],
                the_last_finalizer_goes_with_its_object: [98],
                an_update_that_changes_nothing_is_no_event: [99],
                every_watch_sees_concurrent_writes_in_the_order_of_versions: [100],
                events_that_expire_together_share_a_version: [101],
                an_event_holds_the_bytes_of_a_get: [102],
            }

            renewals {
                a_renewal_is_of_the_lease_that_was_read: [],
                a_renewal_from_before_an_edit_is_a_conflict: [],
                a_lease_that_is_gone_is_a_conflict_for_its_holder: [],
                a_lease_is_renewed_by_its_own_node_only: [],
            }

            streams {
                a_bookmark_never_comes_ahead_of_an_event: [],
            }

            trouble {
                a_client_that_does_not_read_is_let_go_and_delays_nobody: [110],
                a_server_that_leaves_ends_watches_one_by_one_and_refuses_requests: [111],
                a_lost_upstream_stream_is_not_noticed: [112],
                a_relist_ends_watches_and_forgets_what_was_before: [113],
                an_apiserver_that_is_behind_moves_nothing_back: [114],
            }

            encodings {
                the_first_media_type_that_is_served_is_sent: [115],
                a_custom_resource_has_no_protobuf_but_its_refusal_has: [116],
                a_media_type_nobody_serves_is_refused_in_indented_json: [117],
                a_half_wildcard_is_understood_behind_the_router_only: [118],
                a_weight_of_zero_excludes_nothing: [119],
                yaml_does_not_stream: [120],
                an_error_is_not_transformed: [121],
                only_a_protobuf_stream_is_called_a_stream: [124],
            }

            metadata {
                metadata_alone_is_listed_as_it_stands_in_the_object: [122],
                metadata_alone_is_watched_by_the_law_of_selectors: [122],
                a_list_is_not_the_metadata_of_one_object: [123],
            }

            representations {
                a_person_gets_indented_json: [125],
                a_list_is_compressed_beyond_128_kibibytes: [126],
                what_html_could_misread_is_escaped: [127],
                a_list_has_the_bytes_of_its_objects: [128],
                an_empty_list_has_these_bytes: [129],
            }

            headers {
                an_answer_carries_the_audit_id_of_its_request: [130],
                a_conditional_request_is_answered_as_any_other: [131],
                a_deprecated_resource_warns_in_every_answer: [132],
                a_websocket_carries_an_event_a_message: [133],
                a_websocket_needs_an_origin_and_at_most_one_protocol: [133],
            }
        }
    };
}

/// Hands the cases about who is who and who may what to a macro, after others that are given.
#[macro_export]
macro_rules! for_each_case_of_access {
    ($each:ident $($others:tt)*) => {
        $each! {
            $($others)*

            identity {
                a_stranger_is_refused_by_name_and_a_bad_token_altogether: [134],
                a_stranger_keeps_no_http2_connection: [134],
                headers_of_front_proxies_give_nobody_another_name: [138],
                who_impersonates_gets_what_the_apiserver_gives: [139],
                nobody_gets_what_another_may_see: [142],
            }

            nodes {
                a_node_sees_no_pods_of_others: [135],
                a_node_sees_the_pods_bound_to_it: [135],
                a_node_reads_by_name_what_its_pods_mount: [136],
                a_node_reads_nothing_its_pods_do_not_mount: [136],
            }

            authorization {
                a_role_for_a_name_grants_lists_of_that_name: [137],
                a_revoked_right_ends_new_requests_and_no_running_watch: [140],
                without_a_decision_there_is_no_answer: [141],
                a_namespace_is_read_with_rights_in_it: [143],
                a_refusal_names_user_verb_resource_and_scope: [144],
            }

            node_rules {
                only_prefix_and_group_together_make_a_node: [NODE + 55],
                a_node_reads_its_own_node_by_name: [NODE + 56],
                a_node_lists_pods_by_its_own_name: [NODE + 57],
                slices_are_read_by_the_node_they_are_of: [NODE + 64],
                the_status_of_a_claim_is_written_and_not_read: [NODE + 66],
                a_node_has_its_own_lease_only: [NODE + 67],
                a_node_without_pods_reads_what_all_nodes_share: [NODE + 68],
                a_selector_that_cannot_be_read_widens_nothing: [NODE + 74],
            }

            node_graph {
                a_secret_is_read_wherever_the_pod_mentions_it: [NODE + 58],
                a_config_map_is_read_wherever_the_pod_mentions_it: [NODE + 58],
                a_secret_is_reached_through_volume_and_claim: [NODE + 59],
                a_mirror_pod_grants_nothing_but_itself: [NODE + 60],
                a_pod_grants_until_it_is_deleted: [NODE + 61],
                a_volume_grants_while_it_is_claimed: [NODE + 62],
                a_claim_made_for_a_pod_is_reached_by_its_name: [NODE + 63],
                a_node_reads_the_accounts_its_pods_run_as: [NODE + 65],
            }

            node_agents {
                a_role_grants_nodes_what_the_graph_does_not: [NODE + 69],
                a_node_told_of_its_pod_reads_what_it_mounts: [NODE + 71],
                a_refusal_is_as_fresh_as_the_apiservers: [NODE + 72],
                kube_proxy_reads_by_its_role: [NODE + 73],
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

macro_rules! sections {
    ($($section:ident { $($laws:tt)* })*) => {
        /// The sections of `for_each_case_of_access`.
        pub const SECTIONS_OF_ACCESS: &[&str] = &[$(stringify!($section),)*];
    };
}
for_each_case_of_access! { sections }

/// Makes a test of every case, which the static `SUITE` beside it runs.
#[macro_export]
macro_rules! test_each_case {
    ($($section:ident { $($law:ident: $numbers:expr,)* })*) => {
        $(mod $section { $(
            #[test]
            fn $law() {
                super::SUITE.test(concat!(stringify!($section), "::", stringify!($law)));
            }
        )* })*
    };
}
