//! File → Config: every rule a value must meet, and all breaches of one run.
//!
//! Each section of the file has a function that returns the section or nothing; nothing means that
//! a mistake was noted, and the other sections are looked at all the same. A breach below or above
//! something the decoder already refused is not noted: it would be an echo.
//!
//! Refuses to touch the world: it reads no certificate and asks no resolver.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::decode::{Decoded, decode};
use crate::duration::Time;
use crate::file::{self, File};
use crate::quantity::{KI, MI};
use crate::tree::{Node, Value};
use crate::{
    Admin, Authentication, Authorization, Authorizers, Config, Drain, FeatureGates, FileContent,
    Limits, Listen, Live, Mistake, ReferencedFile, Startup, TokenReview,
};

mod cache;
mod heartbeats;
mod peers;
mod request_header;
mod upstream;
mod value;

const API_VERSION: &str = "watershed.dev/v1alpha1";
const KIND: &str = "ProxyConfiguration";

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Makes a [`Config`] of the text of a file in `folder`, or names every mistake in its order.
pub(crate) fn config(text: &str, folder: &Path) -> Result<Config, Vec<Mistake>> {
    let mut tree = Node::parse(text).map_err(|mistake| vec![mistake])?;
    if matches!(tree.value, Value::Null) {
        let message = format!("the file is empty; it starts with `apiVersion: {API_VERSION}`");
        return Err(vec![Mistake {
            place: tree.place(""),
            message,
        }]);
    }
    let mut mistakes = tree.without_repetitions();
    let Decoded {
        shape,
        tree,
        mistakes: refusals,
    } = decode::<File>(tree, file::tombstone);
    mistakes.extend(refusals);
    let refused = mistakes.len();
    let mut check = Check {
        tree,
        folder,
        mistakes,
        refused,
        files: Vec::new(),
    };
    let config = check.document(shape);
    let Check {
        mut mistakes,
        mut files,
        ..
    } = check;
    match config {
        Some((startup, live)) if mistakes.is_empty() => {
            files.sort_by_key(|file: &ReferencedFile| (file.place.line, file.place.column));
            Ok(Config {
                startup,
                live,
                files,
            })
        }
        _ => {
            assert!(
                !mistakes.is_empty(),
                "a section is missing only after a mistake was noted"
            );
            mistakes.sort_by_key(|mistake| (mistake.place.line, mistake.place.column));
            Err(mistakes)
        }
    }
}

/// One run over one file.
struct Check<'a> {
    tree: Node,
    folder: &'a Path,
    mistakes: Vec<Mistake>,
    /// How many of the mistakes are the decoder's.
    refused: usize,
    files: Vec<ReferencedFile>,
}

impl Check<'_> {
    fn document(&mut self, mut file: File) -> Option<(Startup, Live)> {
        self.header("apiVersion", file.api_version.as_deref(), API_VERSION);
        self.header("kind", file.kind.as_deref(), KIND);
        let region = self.region(file.region);
        let address = self.listen_address(&file.listen);
        let listen = self.listen(file.listen, address);
        let admin = self.address("admin.address", &file.admin.address);
        self.distinct_addresses(address, admin);
        let upstream = self.upstream(file.upstream, address);
        let cache = self.cache(file.cache);
        let suppressed = self.suppressed(std::mem::take(&mut file.heartbeats.suppress_node_events));
        let heartbeats = self.heartbeats(file.heartbeats, cache.as_ref(), [address, admin]);
        let request_header = self.request_header(
            &file.authentication.request_header,
            listen.as_ref().and_then(|it| it.client_ca_file.as_deref()),
        );
        let authentication = self.authentication(file.authentication);
        let authorizers = self.authorizers(&file.authorization);
        let authorization = self.authorization(&file.authorization);
        let limits = self.limits(&file.limits);
        let grace_period = self.time(
            "drain.gracePeriod",
            file.drain.grace_period,
            Duration::ZERO..=HOUR,
        );
        let startup = Startup {
            region: region?,
            listen: listen?,
            request_header: request_header?,
            admin: Admin { address: admin? },
            upstream: upstream?,
            authorizers: authorizers?,
            heartbeats: heartbeats?,
            suppress_node_events: suppressed?,
        };
        let live = Live {
            cache: cache?,
            authentication: authentication?,
            authorization: authorization?,
            limits: limits?,
            drain: Drain {
                grace_period: grace_period?,
            },
        };
        Some((startup, live))
    }

    fn header(&mut self, key: &str, found: Option<&str>, expected: &str) {
        match found {
            Some(found) if found == expected => {}
            Some(found) => {
                self.note(
                    key,
                    format!("`{found}` is not understood; write `{expected}`"),
                );
            }
            None => self.note(
                key,
                format!("this key is missing; write `{key}: {expected}`"),
            ),
        }
    }

    fn region(&mut self, region: String) -> Option<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if region.len() <= 63 && region.chars().all(fits) {
            return Some(region);
        }
        self.refuse(
            "region",
            "not a name; use at most 63 letters, digits, `-`, `_` and `.`, so that it can be a label",
        )
    }

    fn listen_address(&mut self, listen: &file::Listen) -> Option<SocketAddr> {
        let address = self.required(
            "listen.address",
            listen.address.as_deref(),
            "as `0.0.0.0:6443`",
        )?;
        self.address("listen.address", address)
    }

    fn listen(&mut self, listen: file::Listen, address: Option<SocketAddr>) -> Option<Listen> {
        let cert_file = self.required_file(
            "listen.certFile",
            listen.cert_file,
            FileContent::Certificates,
        );
        let key_file =
            self.required_file("listen.keyFile", listen.key_file, FileContent::PrivateKey);
        let client_ca_file = self.file(
            "listen.clientCAFile",
            listen.client_ca_file,
            FileContent::CertificateAuthorities,
        );
        Some(Listen {
            address: address?,
            cert_file: cert_file?,
            key_file: key_file?,
            client_ca_file: client_ca_file?,
        })
    }

    fn distinct_addresses(&mut self, listen: Option<SocketAddr>, admin: Option<SocketAddr>) {
        let (Some(listen), Some(admin)) = (listen, admin) else {
            return;
        };
        let same_ip = listen.ip() == admin.ip()
            || listen.ip().is_unspecified()
            || admin.ip().is_unspecified();
        if listen.port() != 0 && listen.port() == admin.port() && same_ip {
            self.note(
                "admin.address",
                format!("{admin} is taken by `listen.address` ({listen}); choose another port"),
            );
        }
    }

    fn authentication(&mut self, file: file::Authentication) -> Option<Authentication> {
        let key = "authentication.clientCertificate";
        let authorities = self.tree.has("listen.clientCAFile");
        if file.client_certificate && self.tree.has(key) && !authorities {
            self.note(
                key,
                "client certificates need `listen.clientCAFile`; add it or write `false`".into(),
            );
        }
        let ttl = self.ttl(
            "authentication.tokenReview.cacheTTL",
            file.token_review.cache_ttl,
        );
        let audiences = file.token_review.audiences;
        for (index, audience) in audiences.iter().enumerate() {
            if audience.is_empty() {
                let key = format!("authentication.tokenReview.audiences[{index}]");
                self.note(&key, "an audience is never empty; remove it".into());
            }
        }
        Some(Authentication {
            client_certificate: file.client_certificate,
            token_review: TokenReview {
                cache_ttl: ttl?,
                audiences,
            },
            anonymous: file.anonymous,
        })
    }

    fn authorizers(&mut self, file: &file::Authorization) -> Option<Authorizers> {
        if file.rbac && !file.node {
            return self.refuse(
                "authorization.rbac",
                "it says that the apiservers authorize with Node and RBAC; write `node: true` too, or `rbac: false`",
            );
        }
        let gates = &file.feature_gates;
        Some(Authorizers {
            node: file.node,
            rbac: file.rbac,
            feature_gates: FeatureGates {
                kubelet_service_account_token_for_credential_providers: gates
                    .kubelet_service_account_token_for_credential_providers,
                pod_certificate_request: gates.pod_certificate_request,
                cluster_trust_bundle: gates.cluster_trust_bundle,
            },
        })
    }

    fn authorization(&mut self, file: &file::Authorization) -> Option<Authorization> {
        let reviews = &file.subject_access_review;
        let revalidate = self.time_or_zero(
            "authorization.revalidateWatches",
            file.revalidate_watches,
            10 * SECOND..=HOUR,
        );
        let allow = self.ttl(
            "authorization.subjectAccessReview.allowTTL",
            reviews.allow_ttl,
        );
        let deny = self.ttl(
            "authorization.subjectAccessReview.denyTTL",
            reviews.deny_ttl,
        );
        Some(Authorization {
            revalidate_watches: revalidate?,
            allow_ttl: allow?,
            deny_ttl: deny?,
        })
    }

    fn limits(&mut self, file: &file::Limits) -> Option<Limits> {
        let connections = self.positive("limits.connections", file.connections);
        let watches = self.positive("limits.watchesPerConnection", file.watches_per_connection);
        let initial_list_bytes = self.bytes(
            "limits.initialListBytes",
            file.initial_list_bytes,
            MI..=u64::MAX,
        );
        let authorization_bytes = self.bytes(
            "limits.authorizationBytes",
            file.authorization_bytes,
            MI..=u64::MAX,
        );
        let header_bytes = self.bytes("limits.headerBytes", file.header_bytes, 8 * KI..=MI);
        let handshake = self.time(
            "limits.handshakeTimeout",
            file.handshake_timeout,
            SECOND..=MINUTE,
        );
        let header = self.time(
            "limits.headerTimeout",
            file.header_timeout,
            SECOND..=5 * MINUTE,
        );
        let interval = self.time(
            "limits.keepAliveInterval",
            file.keep_alive_interval,
            SECOND..=10 * MINUTE,
        );
        let ping = self.time(
            "limits.keepAliveTimeout",
            file.keep_alive_timeout,
            SECOND..=5 * MINUTE,
        );
        let connect = self.time(
            "limits.connectTimeout",
            file.connect_timeout,
            SECOND / 10..=MINUTE,
        );
        let (request, consistent) = self.times_of_requests(file).unzip();
        Some(Limits {
            connections: connections?,
            watches_per_connection: watches?,
            watches_per_agent: file.watches_per_agent,
            requests_per_agent: file.requests_per_agent,
            watches_per_user: file.watches_per_user,
            requests_per_user: file.requests_per_user,
            initial_list_bytes: initial_list_bytes?,
            authorization_bytes: authorization_bytes?,
            compressed_lists: file.compressed_lists.0,
            handshake_timeout: handshake?,
            header_timeout: header?,
            header_bytes: header_bytes?,
            keep_alive_interval: interval?,
            keep_alive_timeout: ping?,
            consistent_read_timeout: consistent?,
            connect_timeout: connect?,
            request_timeout: request?,
        })
    }

    /// The time for a request, and how much of it may go into waiting for a proof.
    fn times_of_requests(&mut self, file: &file::Limits) -> Option<(Duration, Duration)> {
        let request = self.time("limits.requestTimeout", file.request_timeout, SECOND..=HOUR);
        let consistent = self.time(
            "limits.consistentReadTimeout",
            file.consistent_read_timeout,
            SECOND / 10..=HOUR,
        );
        let (request, consistent) = (request?, consistent?);
        if consistent >= request {
            self.note(
                "limits.consistentReadTimeout",
                format!(
                    "{} leaves no time to forward the request; choose less than \
                     `limits.requestTimeout` ({})",
                    Time(consistent),
                    Time(request)
                ),
            );
        }
        Some((request, consistent))
    }
}
