//! How long a watch that was permitted may go on.
//!
//! Owns: what a running watch needs in order to be asked about again, which is little, since its
//! question is read off the watch itself; and when it is: at once when something was lost that it
//! may rest on, and whenever the turn of its connection comes (`revocations.rs`).
//! Refuses: to hold the token of a caller, to decide, and to wake anybody.
//! Invariant: once a loss is announced that may concern a watch, it delivers nothing until it was
//! permitted again. What was given to the connection before stays sent.
//!
//! Only a refusal ends a watch. While nobody can say whether it may, it goes on, until the next turn
//! at most: the apiserver would not have ended it at all, and an apiserver that is away for a moment
//! must not cost a cluster all of its watches. At a turn events go on while the answer is waited
//! for; an answer that was asked for because of a loss holds them up, for as long as a review takes.
//!
//! With the caller's rights the caller is looked at again, whenever the turn comes: whether its
//! certificate is still good and still names it, or is still that of a front proxy. Of a bearer
//! token nothing is kept to ask about, so a watch that was opened with one ends after
//! [`BEARER_TURNS`] turns, as at its timeout, and the client shows its token again.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::sync::watch;
use watershed_authorizer::User;
use watershed_config::Live;

use super::{
    Attributes, Authorizer, AuthzError, Permit,
    revocations::{Basis, Marks, Member, Revocations},
};
use crate::{
    authn::{Credential, Reviews, UserInfo},
    metrics::ReasonLabels,
};

/// Turns of its connection that a watch of a bearer token sees: an hour of five minutes each, which
/// is the life of a service account's token, and the longest that an apiserver gives to a watch
/// whose client does not ask for more.
const BEARER_TURNS: u8 = 12;

/// What all watches are asked about again by.
pub(crate) struct Tenures {
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) judge: Arc<dyn Judge>,
    pub(crate) live: watch::Receiver<Arc<Live>>,
    /// Watches that were ended, by what was not good any more: `authentication`, `authorization`.
    pub(crate) revoked: Family<ReasonLabels, Counter>,
}

/// Who permits.
pub(crate) trait Judge: Send + Sync {
    /// Whether a request with these attributes is still permitted.
    fn judge(self: Arc<Self>, attributes: Attributes, live: Arc<Live>) -> Judging;
}

/// A judgement that is being made.
pub(crate) type Judging = Pin<Box<dyn Future<Output = Ruling> + Send>>;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It is permitted, for this reason.
    Permitted(Basis),
    /// It is not.
    Refused,
    /// Nobody can say.
    Unknown,
}

impl<R: Reviews> Judge for Authorizer<R> {
    fn judge(self: Arc<Self>, attributes: Attributes, live: Arc<Live>) -> Judging {
        Box::pin(async move {
            match self.authorize(&attributes, &live.authorization).await {
                Ok(permit) => Ruling::Permitted(permit.basis()),
                Err(AuthzError::Denied { .. }) => Ruling::Refused,
                Err(AuthzError::Evaluation(_) | AuthzError::Review(_)) => Ruling::Unknown,
            }
        })
    }
}

/// What a tenure looks at besides itself.
pub(crate) trait Holding {
    /// The place of the watch's connection.
    fn member(&self) -> &Member;

    /// Whether the connection's certificate is good now and names this user.
    fn names(&self, user: &UserInfo) -> bool;

    /// Whether the connection's certificate is good now for a front proxy.
    fn is_front_proxy(&self) -> bool;

    /// What the watch asked for, as far as it can be read off it.
    fn attributes(&self, user: &Arc<UserInfo>) -> Attributes;
}

/// The right of one watch to go on.
pub(crate) struct Tenure {
    tenures: Arc<Tenures>,
    user: Arc<UserInfo>,
    /// What was permitted, where it cannot be read off the watch.
    exact: Option<Box<Attributes>>,
    asking: Option<Box<Asking>>,
    /// What of the marks was looked at.
    lost: u32,
    turns: u8,
    basis: Basis,
    credential: Credential,
    /// What is left of [`BEARER_TURNS`].
    bearer_turns: u8,
}

/// A question that is under way.
struct Asking {
    marks: Marks,
    judging: Judging,
}

/// Why a watch was ended.
#[derive(Clone, Copy, Debug)]
enum Over {
    Unknown,
    Refused,
}

impl Tenures {
    /// What was lost so far, to be taken before a permit is asked for.
    pub(crate) fn marks(&self) -> Marks {
        self.revocations.marks()
    }
}

impl Tenure {
    /// The tenure of a watch that was permitted by `permit`, which was asked for after `before`.
    pub(crate) fn new(
        tenures: &Arc<Tenures>,
        permit: &Permit,
        (credential, before): (Credential, Marks),
        holding: &impl Holding,
    ) -> Self {
        let (attributes, basis) = (&permit.attributes, permit.basis());
        let member = holding.member();
        let user = member.share(&attributes.user);
        member.rest_on(basis);
        let identity = User {
            name: &user.name,
            groups: &user.groups,
        };
        if let Some(node) = watershed_authorizer::identity(&identity) {
            member.use_node(node);
        }
        let marks = member.marks();
        let is_current = member.is_current(before, basis);
        let exact = (holding.attributes(&user) != *attributes).then(|| attributes.clone().into());
        Self {
            tenures: Arc::clone(tenures),
            user,
            exact,
            asking: None,
            lost: marks.lost(basis).wrapping_sub(u32::from(!is_current)),
            turns: marks.turns(),
            basis,
            credential,
            bearer_turns: BEARER_TURNS,
        }
    }

    /// Whether the watch may deliver now: false is its end, pending that it is being asked about.
    pub(crate) fn poll_stands(
        &mut self,
        context: &mut Context<'_>,
        holding: &impl Holding,
    ) -> Poll<bool> {
        loop {
            let marks = holding.member().marks();
            let is_held = marks.lost(self.basis) != self.lost;
            if self.asking.is_none() {
                if !is_held && marks.turns() == self.turns {
                    return Poll::Ready(true);
                }
                match self.begin(marks, holding) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Ready(true),
                    Err(over) => return self.end(over),
                }
            }
            let Some(asking) = &mut self.asking else {
                continue;
            };
            let Poll::Ready(ruling) = asking.judging.as_mut().poll(context) else {
                return if is_held {
                    Poll::Pending
                } else {
                    Poll::Ready(true)
                };
            };
            let marks = asking.marks;
            self.asking = None;
            match ruling {
                Ruling::Permitted(basis) => {
                    self.basis = basis;
                    holding.member().rest_on(basis);
                }
                Ruling::Unknown => {}
                Ruling::Refused => return self.end(Over::Refused),
            }
            self.lost = marks.lost(self.basis);
        }
    }

    /// Begins to ask, unless that is switched off.
    fn begin(&mut self, marks: Marks, holding: &impl Holding) -> Result<bool, Over> {
        let live = Arc::clone(&self.tenures.live.borrow());
        let turns = marks.turns().wrapping_sub(self.turns);
        self.turns = marks.turns();
        if live.authorization.revalidate_watches.is_zero() {
            self.lost = marks.lost(self.basis);
            return Ok(false);
        }
        if turns > 0 && !self.is_known(turns, &live, holding) {
            return Err(Over::Unknown);
        }
        let attributes = match &self.exact {
            Some(exact) => Attributes::clone(exact),
            None => holding.attributes(&self.user),
        };
        let judge = Arc::clone(&self.tenures.judge);
        let judging = judge.judge(attributes, live);
        self.asking = Some(Box::new(Asking { marks, judging }));
        Ok(true)
    }

    /// Whether the caller would be let in as the same one.
    fn is_known(&mut self, turns: u8, live: &Live, holding: &impl Holding) -> bool {
        match self.credential {
            Credential::FrontProxy => holding.is_front_proxy(),
            Credential::Certificate => {
                live.authentication.client_certificate && holding.names(&self.user)
            }
            Credential::Bearer => {
                self.bearer_turns = self.bearer_turns.saturating_sub(turns);
                self.bearer_turns > 0
            }
            Credential::Anonymous => live.authentication.anonymous,
        }
    }

    fn end(&self, over: Over) -> Poll<bool> {
        let reason = match over {
            Over::Unknown => "authentication",
            Over::Refused => "authorization",
        };
        tracing::debug!(user.name = %self.user.name, reason, "watch revoked");
        let labels = ReasonLabels { reason };
        self.tenures.revoked.get_or_create(&labels).inc();
        Poll::Ready(false)
    }
}

#[cfg(test)]
mod tests;
