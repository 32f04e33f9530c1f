use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use watershed_authorizer::Revoked;
use watershed_config::Authorization;

use super::*;
use crate::{
    authn::{Reviewer, scripted::Scripted},
    authz::{
        Local, Source,
        revocations::tests::{INTERVAL, Running, pass},
        tests::live,
    },
};

/// Answers as it is told to, and counts.
#[derive(Default)]
struct Told {
    ruling: Mutex<Option<Ruling>>,
    asked: Mutex<Vec<Attributes>>,
    /// Whether the answer is still to come.
    is_silent: AtomicBool,
}

impl Judge for Told {
    fn judge(self: Arc<Self>, attributes: Attributes, _: Arc<Live>) -> Judging {
        self.asked.lock().push(attributes);
        Box::pin(std::future::poll_fn(move |_| {
            if self.is_silent.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
            Poll::Ready(self.ruling.lock().expect("nobody else is asked"))
        }))
    }
}

impl Told {
    fn says(&self, ruling: Ruling) {
        *self.ruling.lock() = Some(ruling);
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock()).len()
    }
}

/// A connection with a certificate, as a watch sees it.
struct Connection {
    member: Member,
    is_good: Cell<bool>,
    attributes: Attributes,
}

impl Holding for Connection {
    fn member(&self) -> &Member {
        &self.member
    }

    fn names(&self, _: &UserInfo) -> bool {
        self.is_good.get()
    }

    fn is_front_proxy(&self) -> bool {
        self.is_good.get()
    }

    fn attributes(&self, user: &Arc<UserInfo>) -> Attributes {
        Attributes {
            user: Arc::clone(user),
            ..self.attributes.clone()
        }
    }
}

/// What decides about watches, while time is driven by hand.
struct Court {
    running: Running,
    told: Arc<Told>,
    tenures: Arc<Tenures>,
}

const WATCH: &str = "/api/v1/namespaces/a/secrets?watch=1&fieldSelector=metadata.name%3Dx";

impl Court {
    fn every(interval: Duration) -> Self {
        let told = Arc::<Told>::default();
        let judge = Arc::clone(&told) as _;
        Self::of(Running::every(interval), told, judge)
    }

    fn of(running: Running, told: Arc<Told>, judge: Arc<dyn Judge>) -> Self {
        let tenures = Arc::new(Tenures {
            revocations: Arc::clone(&running.own),
            judge,
            live: running.live.subscribe(),
            revoked: Family::default(),
        });
        Self {
            running,
            told,
            tenures,
        }
    }

    /// A watch of this user, permitted by a review.
    fn watch(&self, user: UserInfo, credential: Credential) -> (Connection, Tenure) {
        let before = self.tenures.marks();
        self.watch_since(
            before,
            super::super::tests::attributes(user, WATCH),
            credential,
        )
    }

    fn watch_since(
        &self,
        before: Marks,
        attributes: Attributes,
        credential: Credential,
    ) -> (Connection, Tenure) {
        let connection = Connection {
            member: self.running.own.join(Waker::noop().clone()),
            is_good: Cell::new(true),
            attributes: attributes.clone(),
        };
        let permit = Permit {
            attributes,
            source: Source::Review,
        };
        let tenure = Tenure::new(&self.tenures, &permit, (credential, before), &connection);
        (connection, tenure)
    }

    fn revoked(&self, reason: &'static str) -> u64 {
        let labels = ReasonLabels { reason };
        self.tenures.revoked.get_or_create(&labels).get()
    }
}

const ON: Poll<bool> = Poll::Ready(true);
const ENDED: Poll<bool> = Poll::Ready(false);

fn poll((connection, tenure): &mut (Connection, Tenure)) -> Poll<bool> {
    tenure.poll_stands(&mut Context::from_waker(Waker::noop()), connection)
}

fn node(name: &str) -> UserInfo {
    super::super::tests::user(&format!("system:node:{name}"), &["system:nodes"])
}

fn alice() -> UserInfo {
    super::super::tests::user("alice", &["dev"])
}

#[tokio::test(start_paused = true)]
async fn a_loss_holds_a_watch_until_it_is_permitted_again() {
    let court = Court::every(INTERVAL);
    let mut watch = court.watch(node("n1"), Credential::Certificate);
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(court.told.asked(), 0, "nothing was lost");
    court.told.is_silent.store(true, Ordering::SeqCst);
    court.running.own.revoked(Revoked::Node("n1".into()));
    assert_eq!(poll(&mut watch), Poll::Pending);
    assert_eq!(poll(&mut watch), Poll::Pending);
    assert_eq!(court.told.asked(), 1, "it is asked about once");
    court.told.is_silent.store(false, Ordering::SeqCst);
    court.told.says(Ruling::Permitted(Basis::Graph));
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(court.told.asked(), 0);
    court.running.own.revoked(Revoked::AnyUser);
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(court.told.asked(), 0, "it rests on its pods now");
}

#[tokio::test(start_paused = true)]
async fn a_refused_watch_ends_and_those_that_lost_nothing_are_not_asked_about() {
    let court = Court::every(INTERVAL);
    court.told.says(Ruling::Refused);
    let mut lost = court.watch(node("n1"), Credential::Certificate);
    let mut others = [
        court.watch(node("n2"), Credential::Certificate),
        court.watch(alice(), Credential::Bearer),
        // Its name alone makes nobody a node.
        court.watch(
            super::super::tests::user("system:node:n1", &["dev"]),
            Credential::Bearer,
        ),
    ];
    court.running.own.revoked(Revoked::Node("n1".into()));
    assert_eq!(poll(&mut lost), ENDED);
    let [asked] = std::mem::take(&mut *court.told.asked.lock())
        .try_into()
        .expect("one is asked about");
    assert_eq!(asked, lost.0.attributes);
    for other in &mut others {
        assert_eq!(poll(other), ON);
    }
    assert_eq!(court.told.asked(), 0);
    court.running.own.revoked(Revoked::AnyNode);
    assert_eq!(
        others.each_mut().map(poll),
        [ENDED, ON, ON],
        "those are no nodes"
    );
    court.running.own.revoked(Revoked::AnyUser);
    assert_eq!([poll(&mut others[1]), poll(&mut others[2])], [ENDED; 2]);
    assert_eq!(court.told.asked(), 3);
    assert_eq!(court.revoked("authorization"), 4);
    assert_eq!(court.revoked("authentication"), 0);
}

#[tokio::test(start_paused = true)]
async fn at_its_turn_a_watch_goes_on_while_it_is_asked_about() {
    let court = Court::every(INTERVAL);
    let mut watch = court.watch(alice(), Credential::Certificate);
    court.told.is_silent.store(true, Ordering::SeqCst);
    court.told.says(Ruling::Permitted(Basis::Roles));
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(court.told.asked(), 0);
    pass(INTERVAL).await;
    pass(INTERVAL / 100).await;
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(court.told.asked(), 1);
    // A loss meanwhile holds it, and the answer that was asked for before does not count.
    court.running.own.revoked(Revoked::AnyUser);
    assert_eq!(poll(&mut watch), Poll::Pending);
    court.told.is_silent.store(false, Ordering::SeqCst);
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(court.told.asked(), 1, "once more");

    court.told.says(Ruling::Refused);
    pass(INTERVAL).await;
    pass(INTERVAL / 100).await;
    assert_eq!(poll(&mut watch), ENDED);
    assert_eq!(court.revoked("authorization"), 1);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_say_a_watch_goes_on_and_is_asked_about_again_at_its_next_turn() {
    let court = Court::every(INTERVAL);
    court.told.says(Ruling::Unknown);
    let mut watch = court.watch(alice(), Credential::Certificate);
    court.running.own.revoked(Revoked::AnyUser);
    assert_eq!([poll(&mut watch), poll(&mut watch)], [ON; 2]);
    assert_eq!(court.told.asked(), 1);
    court.told.says(Ruling::Refused);
    assert_eq!(poll(&mut watch), ON);
    pass(INTERVAL + INTERVAL / 100).await;
    assert_eq!(poll(&mut watch), ENDED);
}

#[tokio::test(start_paused = true)]
async fn switched_off_nothing_is_asked_and_switched_on_it_holds_again() {
    let court = Court::every(Duration::ZERO);
    court.told.says(Ruling::Refused);
    let mut watch = court.watch(alice(), Credential::Certificate);
    watch.0.is_good.set(false);
    for revoked in [Revoked::AnyUser, Revoked::AnyNode] {
        court.running.own.revoked(revoked);
        assert_eq!(poll(&mut watch), ON);
        pass(INTERVAL).await;
        assert_eq!(poll(&mut watch), ON);
    }
    assert_eq!(court.told.asked(), 0);
    court.running.live.send_replace(live(INTERVAL));
    assert_eq!(poll(&mut watch), ON, "what was lost before is not known");
    court.running.own.revoked(Revoked::AnyUser);
    assert_eq!(poll(&mut watch), ENDED);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_would_not_be_let_in_any_more_is_not_asked_about() {
    let court = Court::every(INTERVAL);
    court.told.says(Ruling::Permitted(Basis::Roles));
    let mut expired = court.watch(alice(), Credential::Certificate);
    let mut anonymous = court.watch(alice(), Credential::Anonymous);
    let mut behind = court.watch(alice(), Credential::FrontProxy);
    let mut good = court.watch(alice(), Credential::Certificate);
    let mut good_behind = court.watch(alice(), Credential::FrontProxy);
    expired.0.is_good.set(false);
    behind.0.is_good.set(false);
    court.running.own.revoked(Revoked::AnyUser);
    assert_eq!(poll(&mut expired), ON, "who it is, is looked at in turn");
    assert_eq!(court.told.asked(), 1);
    pass(INTERVAL + INTERVAL / 50).await;
    assert_eq!(
        [&mut expired, &mut anonymous, &mut behind].map(poll),
        [ENDED; 3]
    );
    assert_eq!([&mut good, &mut good_behind].map(poll), [ON; 2]);
    assert_eq!(court.told.asked(), 2);
    assert_eq!(court.revoked("authentication"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_bearer_token_sees_so_many_turns() {
    let court = Court::every(INTERVAL);
    court.told.says(Ruling::Permitted(Basis::Roles));
    let mut watch = court.watch(alice(), Credential::Bearer);
    pass(INTERVAL / 100).await;
    for turn in 1..BEARER_TURNS {
        pass(INTERVAL).await;
        assert_eq!(poll(&mut watch), ON, "{turn}");
        assert_eq!(court.told.asked(), 1, "{turn}");
    }
    pass(INTERVAL).await;
    assert_eq!(poll(&mut watch), ENDED);
    assert_eq!(court.revoked("authentication"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_while_a_permit_was_asked_for_is_asked_about_first() {
    let court = Court::every(INTERVAL);
    court.told.says(Ruling::Refused);
    let attributes = super::super::tests::attributes(node("n1"), WATCH);
    let before = court.tenures.marks();
    court.running.own.revoked(Revoked::Node("n1".into()));
    let mut watch = court.watch_since(before, attributes, Credential::Certificate);
    assert_eq!(poll(&mut watch), ENDED);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_off_a_watch_is_kept() {
    let court = Court::every(INTERVAL);
    court.told.says(Ruling::Permitted(Basis::Roles));
    let mut watch = court.watch(alice(), Credential::Certificate);
    assert!(watch.1.exact.is_none());
    let target = "/api/v1/watch/namespaces/a/secrets?fieldSelector=metadata.name%3Dx";
    let attributes = super::super::tests::attributes(alice(), target);
    let permit = Permit {
        attributes: attributes.clone(),
        source: Source::Review,
    };
    let since = (Credential::Certificate, court.tenures.marks());
    watch.1 = Tenure::new(&court.tenures, &permit, since, &watch.0);
    court.running.own.revoked(Revoked::AnyUser);
    assert_eq!(poll(&mut watch), ON);
    assert_eq!(*court.told.asked.lock(), [attributes]);
}

#[tokio::test(start_paused = true)]
async fn many_watches_of_one_question_are_one_review_and_equal_users_are_kept_once() {
    let allowed = Ok(serde_json::json!({"status": {"allowed": true}}));
    let script = Scripted::new([allowed]);
    let reviewer = Arc::new(Reviewer::new(script.clone()));
    let authorizer = Arc::new(Authorizer::new(
        Local::undeclared(),
        reviewer,
        Family::default(),
    ));
    let court = Court::of(Running::every(INTERVAL), Arc::default(), authorizer);
    let (connection, tenure) = court.watch(alice(), Credential::Bearer);
    let attributes = super::super::tests::attributes(alice(), WATCH);
    let permit = Permit {
        attributes,
        source: Source::Review,
    };
    let since = || (Credential::Bearer, court.tenures.marks());
    let more = (0..20).map(|_| Tenure::new(&court.tenures, &permit, since(), &connection));
    let mut tenures: Vec<_> = std::iter::once(tenure).chain(more).collect();
    let all_alike = |tenure: &Tenure| Arc::ptr_eq(&tenure.user, &tenures[0].user);
    assert!(tenures.iter().all(all_alike));
    court.running.own.revoked(Revoked::AnyUser);
    for tenure in &mut tenures {
        std::future::poll_fn(|context| tenure.poll_stands(context, &connection)).await;
    }
    assert_eq!(script.asked().len(), 1);
    let settings: &Authorization = &live(INTERVAL).authorization;
    assert!(settings.allow_ttl > Duration::ZERO, "it is remembered");
}
