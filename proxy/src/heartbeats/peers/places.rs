//! Where replicas may be.
//!
//! Owns: the list of places, asked for again and again. Refuses: to know who is there; that shows
//! when somebody answers ([`super::link`]).
//! Invariant: while the name cannot be resolved, the last answer counts.

use std::{io, time::Duration};

use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};
use watershed_config::Replicas;

/// How often a name is resolved. A replica that came is told of no debts before.
const RESOLVING: Duration = Duration::from_secs(5);
/// How long a resolver may take.
const RESOLVED: Duration = Duration::from_secs(3);
/// Places beyond these are left alone.
const PLACES_MAX: usize = 1_024;

/// Says where replicas are.
#[derive(Clone, Debug)]
pub(super) enum Places {
    /// As the operator stated.
    Stated(Replicas),
    /// As a test says.
    #[cfg(test)]
    Scripted(tokio::sync::watch::Receiver<Vec<String>>),
}

impl Places {
    /// The places now, as `host:port`, sorted and each once.
    ///
    /// # Errors
    /// When a name cannot be resolved.
    pub(super) async fn find(&self) -> io::Result<Vec<String>> {
        let mut places = match self {
            Self::Stated(Replicas::Servers(servers)) => servers.clone(),
            Self::Stated(Replicas::Service { name, port }) => {
                let resolving = lookup_host((name.as_str(), *port));
                let found = timeout(RESOLVED, resolving).await;
                let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                found.map(|address| address.to_string()).collect()
            }
            #[cfg(test)]
            Self::Scripted(places) => places.borrow().clone(),
        };
        places.sort_unstable();
        places.dedup();
        places.truncate(PLACES_MAX);
        Ok(places)
    }

    /// When to look again.
    pub(super) async fn next(&mut self) {
        match self {
            Self::Stated(_) => sleep(RESOLVING).await,
            #[cfg(test)]
            Self::Scripted(places) => drop(places.changed().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_of_a_name_is_a_place() {
        let service = |name: &str| {
            Places::Stated(Replicas::Service {
                name: name.to_owned(),
                port: 6444,
            })
        };
        let found = service("localhost").find().await.unwrap();
        let loopback = ["127.0.0.1:6444", "[::1]:6444"];
        assert!(!found.is_empty() && found.iter().all(|it| loopback.contains(&it.as_str())));
        assert!(service("no.such.name.invalid").find().await.is_err());
    }

    #[tokio::test]
    async fn a_place_is_named_once() {
        let stated = ["b:1", "a:1", "b:1"].map(str::to_owned);
        let places = Places::Stated(Replicas::Servers(stated.into()));
        assert_eq!(places.find().await.unwrap(), ["a:1", "b:1"]);
    }
}
