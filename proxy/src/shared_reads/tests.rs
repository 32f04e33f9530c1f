//! Who is answered by which read, against an apiserver played by the test.

use std::pin::Pin;

use http::Method;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::{
    authn::{Reviewer, UserInfo, scripted::Scripted},
    authz::{Attributes, Authorizer, Local},
    request::{Query, RequestInfo},
    upstream::tests::{PATIENCE, Seen, Setting, Speech, TestServer},
};

const PODS: &str = "/api/v1/pods";
const BOUNDS: Bounds = Bounds {
    bytes: 1 << 20,
    time: PATIENCE,
};

type Reading = tokio::task::JoinHandle<Shared>;

/// A read that reached the apiserver, and the way of its answer.
type Asked = (
    Request<hyper::body::Incoming>,
    oneshot::Sender<Response<Body>>,
);

struct Subject {
    reads: SharedReads,
    held: Gauge,
    asked: mpsc::Receiver<Asked>,
    server: TestServer,
    _setting: Setting,
}

impl Subject {
    async fn start() -> Self {
        let setting = Setting::new();
        let (questions, asked) = mpsc::channel(64);
        let answer = move |seen: Seen| {
            let questions = questions.clone();
            let answering = async move {
                let (answer, answered) = oneshot::channel();
                let question = (seen.request, answer);
                questions.send(question).await.expect("the test listens");
                answered.await.expect("the test answers")
            };
            Box::pin(answering) as Pin<Box<dyn Future<Output = Response<Body>> + Send>>
        };
        let server =
            TestServer::start(&setting.ca, &setting.clients, Speech::default(), answer).await;
        let upstream = setting.upstream(vec![server.url()]);
        let held = Gauge::default();
        let budget = Arc::new(ListBudget::new(held.clone(), Family::default()));
        Self {
            reads: SharedReads::new(upstream, setting.drain.clone(), Arc::clone(&budget)),
            held,
            asked,
            server,
            _setting: setting,
        }
    }

    /// A caller that waits for a read of `target`, not older than `lowest`.
    async fn caller(&self, target: &str, lowest: u64, bounds: Bounds) -> Reading {
        let request = Request::get(target)
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, "Bearer the-callers-own")
            .header("x-remote-user", "root")
            .body(())
            .expect("a request");
        let key = SharedKey::new(&request, Encoding::Json, true);
        let (reads, permit) = (self.reads.clone(), permit(target).await);
        let lowest = ResourceVersion::new(lowest);
        let reading = tokio::spawn(async move { reads.read(permit, (key, lowest), bounds).await });
        tokio::task::yield_now().await;
        reading
    }

    /// Callers that wait, before any of them could be asked for.
    fn waiting(&self) -> usize {
        self.reads.inner.waiting.lock().values().map(Vec::len).sum()
    }

    async fn asked(&mut self) -> Asked {
        let asked = tokio::time::timeout(PATIENCE, self.asked.recv()).await;
        asked.expect("a read in time").expect("the server runs")
    }
}

async fn permit(target: &str) -> Permit {
    let uri = target.parse().expect("a target");
    let info = RequestInfo::parse(&Method::GET, &uri, &Query::parse("")).expect("a path");
    let user = UserInfo {
        name: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..UserInfo::default()
    };
    let reviewer = Arc::new(Reviewer::new(Scripted::new([])));
    let authorizer = Authorizer::new(Local::undeclared(), reviewer, Default::default());
    let settings = watershed_config::Authorization {
        revalidate_watches: Duration::ZERO,
        allow_ttl: Duration::ZERO,
        deny_ttl: Duration::ZERO,
    };
    let attributes = Attributes::new(user.into(), &info);
    let permit = authorizer.authorize(&attributes, &settings).await;
    permit.expect("masters may")
}

fn list(version: u64) -> Response<Body> {
    let body = json!({"metadata": {"resourceVersion": version.to_string()}, "items": []});
    Response::builder()
        .header("content-type", "application/json")
        .header("audit-id", "of-the-read")
        .header("x-kubernetes-pf-flowschema-uid", "of-the-proxy")
        .header("warning", "299 - \"old\"")
        .body(Body::full(body.to_string()))
        .expect("a response")
}

fn refusal(code: u16) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("code {code}")));
    *response.status_mut() = StatusCode::from_u16(code).expect("a code");
    response
}

/// What a caller was told, in a line.
async fn told(reading: Reading) -> String {
    match reading.await.expect("the caller lives") {
        Shared::Answer(response) => {
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            format!("{} {text}", head.status.as_u16())
        }
        Shared::Alone => "alone".to_owned(),
        Shared::Refused(status) => format!("refused {}", status.code()),
    }
}

const AT_7: &str = r#"200 {"items":[],"metadata":{"resourceVersion":"7"}}"#;
const AT_9: &str = r#"200 {"items":[],"metadata":{"resourceVersion":"9"}}"#;

#[tokio::test]
async fn one_read_answers_all_who_came_before_it_and_nobody_later() {
    let mut subject = Subject::start().await;
    let first = subject.caller(PODS, 0, BOUNDS).await;
    let (_, answer) = subject.asked().await;
    let mut late = Vec::new();
    for _ in 0..50 {
        late.push(subject.caller(PODS, 0, BOUNDS).await);
    }
    assert_eq!(subject.waiting(), 50);
    answer.send(list(7)).expect("it waits");
    assert_eq!(told(first).await, AT_7);
    let (_, answer) = subject.asked().await;
    assert!(late.iter().all(|it| !it.is_finished()), "7 was not theirs");
    answer.send(list(9)).expect("it waits");
    for caller in late {
        assert_eq!(told(caller).await, AT_9);
    }
    while !subject.reads.inner.waiting.lock().is_empty() {
        tokio::task::yield_now().await; // the task sees that nobody waits
    }
    assert!(subject.asked.try_recv().is_err(), "two reads in all");
}

#[tokio::test]
async fn only_what_decides_the_bytes_is_sent_and_it_is_sent_as_the_proxy() {
    let mut subject = Subject::start().await;
    let target = "/api/v1/pods?labelSelector=a%3Db&limit=5";
    let caller = subject.caller(target, 0, BOUNDS).await;
    let (request, answer) = subject.asked().await;
    assert_eq!(request.uri().path_and_query().unwrap(), target);
    let headers = request.headers();
    assert_eq!(headers["accept"], "application/json");
    assert_eq!(headers["authorization"], "Bearer own-token");
    assert!(!headers.contains_key("x-remote-user"), "{headers:?}");
    answer.send(list(7)).expect("it waits");
    let Shared::Answer(response) = caller.await.unwrap() else {
        panic!("no answer");
    };
    let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["content-type", "warning"]);
}

#[tokio::test]
async fn different_bytes_are_different_reads() {
    let mut subject = Subject::start().await;
    let one = subject.caller(PODS, 0, BOUNDS).await;
    let other = subject.caller("/api/v1/pods?limit=1", 0, BOUNDS).await;
    for _ in 0..2 {
        let (request, answer) = subject.asked().await;
        let version = if request.uri().query().is_some() {
            9
        } else {
            7
        };
        answer.send(list(version)).expect("it waits");
    }
    assert_eq!(told(one).await, AT_7);
    assert_eq!(told(other).await, AT_9);
    let request = |name, value| Request::get(PODS).header(name, value).body(()).unwrap();
    let key = |name, value| SharedKey::new(&request(name, value), Encoding::Json, true);
    assert_ne!(key("accept", "a/b"), key("accept", "a/c"));
    assert_ne!(key("user-agent", "curl"), key("user-agent", "kubectl"));
    assert_eq!(key("x-other", "1"), key("x-other", "2"));
}

#[tokio::test]
async fn what_depends_on_who_asks_or_is_trouble_is_not_shared_and_not_multiplied() {
    let mut subject = Subject::start().await;
    let tight = Bounds {
        bytes: 10,
        ..BOUNDS
    };
    let nonsense = || Response::new(Body::full("<html>"));
    let unshareable = [
        (refusal(401), BOUNDS),
        (refusal(403), BOUNDS),
        (refusal(400), BOUNDS),
        (refusal(429), BOUNDS),
        (refusal(500), BOUNDS),
        (refusal(302), BOUNDS),
        (list(7), tight),
        (nonsense(), BOUNDS),
    ];
    for (response, bounds) in unshareable {
        let hold = subject.caller(PODS, 0, bounds).await;
        let (_, held) = subject.asked().await;
        let callers = [
            subject.caller(PODS, 0, bounds).await,
            subject.caller(PODS, 0, bounds).await,
            subject.caller(PODS, 0, bounds).await,
        ];
        held.send(refusal(404)).expect("it waits");
        assert_eq!(told(hold).await, "404 code 404");
        subject.asked().await.1.send(response).expect("it waits");
        let mut all = Vec::new();
        for caller in callers {
            all.push(told(caller).await);
        }
        assert_eq!(all, ["alone", "refused 429", "refused 429"]);
        while !subject.reads.inner.waiting.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(subject.held.get(), 0);
    }
}

#[tokio::test]
async fn refusals_that_are_the_same_for_everybody_are_shared() {
    let mut subject = Subject::start().await;
    for code in [404, 410, 504] {
        let callers = [
            subject.caller(PODS, 9, BOUNDS).await,
            subject.caller(PODS, 9, BOUNDS).await,
        ];
        let answered = async {
            loop {
                let (_, answer) = subject.asked().await;
                answer.send(refusal(code)).expect("it waits");
            }
        };
        let all = async {
            for caller in callers {
                assert_eq!(told(caller).await, format!("{code} code {code}"));
            }
        };
        tokio::select! {
            () = answered => {}
            () = all => {}
        }
    }
    subject.server.stop().await;
    let caller = subject.caller(PODS, 0, BOUNDS).await;
    assert_eq!(told(caller).await, "refused 503");
}

#[tokio::test]
async fn an_answer_older_than_what_was_served_reaches_nobody() {
    let mut subject = Subject::start().await;
    let caller = subject.caller(PODS, 9, BOUNDS).await;
    subject.asked().await.1.send(list(7)).expect("it waits");
    subject.asked().await.1.send(list(9)).expect("it waits");
    assert_eq!(told(caller).await, AT_9, "another one was asked");
    let caller = subject.caller(PODS, 9, BOUNDS).await;
    for _ in 0..ATTEMPTS {
        subject.asked().await.1.send(list(7)).expect("it waits");
    }
    assert_eq!(told(caller).await, "refused 504");
}

#[tokio::test]
async fn bytes_count_until_the_last_caller_has_sent_them() {
    let mut subject = Subject::start().await;
    let caller = subject.caller(PODS, 0, BOUNDS).await;
    subject.asked().await.1.send(list(7)).expect("it waits");
    let answer = caller.await.unwrap();
    let counted = || subject.held.get();
    assert!(counted() > 0);
    drop(answer);
    while counted() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_read_nobody_waits_for_any_more_is_not_begun() {
    let mut subject = Subject::start().await;
    let first = subject.caller(PODS, 0, BOUNDS).await;
    let (_, answer) = subject.asked().await;
    let gone = subject.caller(PODS, 0, BOUNDS).await;
    gone.abort();
    while !gone.is_finished() {
        tokio::task::yield_now().await;
    }
    answer.send(list(7)).expect("it waits");
    assert_eq!(told(first).await, AT_7);
    while !subject.reads.inner.waiting.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(subject.asked.try_recv().is_err());
}
