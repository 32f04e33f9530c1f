//! One apiserver: where it is, and whether it answers.
//!
//! Owns: the address, and the back-off after failures.
//! Refuses: health checks of its own. What requests and connection attempts show is what is known;
//! a server that is backed off is tried again by one connection in the background, while others
//! serve.
//! Invariant: at most one such attempt per back-off step.

use std::{net::IpAddr, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::{
    Uri,
    uri::{Authority, Scheme},
};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::UpstreamConfigError;

/// The first pause after a failure; doubled by each further one, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where a server is.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) host: String,
    pub(super) port: u16,
    /// The name its certificate must have.
    pub(super) name: ServerName<'static>,
}

impl Address {
    /// Parses `https://host[:port]`.
    pub(super) fn parse(
        server: &str,
        certificate_name: Option<&str>,
    ) -> Result<Self, UpstreamConfigError> {
        let wrong = |reason: &str| UpstreamConfigError::Server {
            server: server.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = server.parse().map_err(|_| wrong("it is no URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(wrong("it must look like https://host:port"));
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it must have no path"));
        }
        if authority.as_str().contains('@') {
            return Err(wrong("it must have no user"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let (tls, default_port) = match scheme.as_str() {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return Err(wrong("it must start with https://")),
        };
        if !tls && !is_loopback(&host) {
            return Err(wrong("plain http is allowed for loopback addresses only"));
        }
        let name = certificate_name.unwrap_or(&host).to_owned();
        let name = ServerName::try_from(name).map_err(|_| wrong("its host is no name"))?;
        Ok(Self {
            scheme: scheme.clone(),
            authority: authority.clone(),
            host,
            port: authority.port_u16().unwrap_or(default_port),
            name,
        })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// Whether a server answers.
#[derive(Debug, Default)]
pub(super) struct Availability(Mutex<Option<Down>>);

#[derive(Debug)]
struct Down {
    pauses: ExponentialBackoff,
    until: Instant,
}

/// What may be done with a server now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It answers.
    Up,
    /// Its pause is over; whoever was told so is the one that tries it.
    Due,
    /// It failed and is in its pause.
    Down,
}

impl Availability {
    pub(super) fn worked(&self) {
        let mut down = self.0.lock();
        *down = None;
    }

    pub(super) fn failed(&self) {
        let mut down = self.0.lock();
        let now = Instant::now();
        match &mut *down {
            Some(down) if now < down.until => {} // the same failure, seen by many
            Some(down) => down.until = now + down.pauses.next().unwrap_or(LONGEST_PAUSE),
            None => {
                let mut pauses = ExponentialBuilder::default()
                    .with_min_delay(FIRST_PAUSE)
                    .with_max_delay(LONGEST_PAUSE)
                    .without_max_times()
                    .with_jitter()
                    .build();
                let until = now + pauses.next().unwrap_or(LONGEST_PAUSE);
                *down = Some(Down { pauses, until });
            }
        }
    }

    /// Only looks.
    pub(super) fn is_up(&self) -> bool {
        self.0.lock().is_none()
    }

    /// Claims the attempt when one is due.
    pub(super) fn standing(&self) -> Standing {
        match &mut *self.0.lock() {
            None => Standing::Up,
            Some(down) if Instant::now() < down.until => Standing::Down,
            Some(down) => {
                down.until = Instant::now() + down.pauses.next().unwrap_or(LONGEST_PAUSE);
                Standing::Due
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_loopback_servers_without_path_are_taken() {
        for (server, reason) in [
            ("10.0.0.1:6443", "it must look like https://host:port"),
            (
                "http://10.0.0.1:8080",
                "plain http is allowed for loopback addresses only",
            ),
            ("ftp://10.0.0.1", "it must start with https://"),
            ("https://10.0.0.1/k8s", "it must have no path"),
            ("https://a@10.0.0.1", "it must have no user"),
            ("https://", "it is no URL"),
        ] {
            let error = Address::parse(server, None).expect_err(server).to_string();
            assert!(error.ends_with(reason), "{server}: {error}");
        }
        for (server, host, port) in [
            ("https://10.0.0.1:6443", "10.0.0.1", 6443),
            ("https://[2001:db8::1]:6443/", "2001:db8::1", 6443),
            (
                "https://kubernetes.default.svc",
                "kubernetes.default.svc",
                443,
            ),
            ("http://127.0.0.1:8080", "127.0.0.1", 8080),
        ] {
            let address = Address::parse(server, None).expect(server);
            assert_eq!((address.host.as_str(), address.port), (host, port));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_server_is_tried_by_one_after_growing_pauses_and_is_up_once_it_worked() {
        let server = Availability::default();
        assert_eq!(server.standing(), Standing::Up);
        server.failed();
        assert_eq!(server.standing(), Standing::Down);
        server.failed();
        tokio::time::advance(FIRST_PAUSE * 2).await;
        assert_eq!(server.standing(), Standing::Due);
        assert_eq!(server.standing(), Standing::Down);
        assert!(!server.is_up());
        tokio::time::advance(LONGEST_PAUSE * 2).await;
        assert_eq!(server.standing(), Standing::Due);
        server.worked();
        assert_eq!(server.standing(), Standing::Up);
    }
}
