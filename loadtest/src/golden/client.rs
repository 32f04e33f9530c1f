//! The clients of one replay, one per recorded user.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::Context as _;

use super::Target;
use crate::client::{Answer, Client, Open, Protocol, Request};

/// What the recorded client called itself; it becomes a field manager.
const USER_AGENT: &str = "golden/1.0";

/// A request and whom it is from.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) user: String,
    pub(super) request: Request,
}

/// Clients of a target, made when a user first speaks.
pub(super) struct Clients<'a> {
    target: &'a Target,
    by_user: HashMap<String, Client>,
}

impl<'a> Clients<'a> {
    pub(super) fn new(target: &'a Target) -> Self {
        Self {
            target,
            by_user: HashMap::new(),
        }
    }

    /// Uses new connections from now on.
    pub(super) fn reconnect(&mut self) {
        self.by_user.clear();
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn whole(&mut self, outgoing: &Outgoing) -> anyhow::Result<Answer> {
        let client = self.of(&outgoing.user)?;
        client.whole(outgoing.request.clone()).await
    }

    /// Sends a request and reads the head of the answer.
    pub(super) async fn open(&mut self, outgoing: &Outgoing) -> anyhow::Result<Open> {
        let client = self.of(&outgoing.user)?;
        client.send(outgoing.request.clone()).await
    }

    fn of(&mut self, user: &str) -> anyhow::Result<&Client> {
        let vacant = match self.by_user.entry(user.to_owned()) {
            Entry::Occupied(own) => return Ok(own.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let tls = self.target.users.get(user);
        let tls = tls.with_context(|| format!("no certificate for user {user}"))?;
        let client = Client::new(self.target.address, tls.clone(), Protocol::Http1);
        Ok(vacant.insert(client.with_default("user-agent", USER_AGENT)))
    }
}
