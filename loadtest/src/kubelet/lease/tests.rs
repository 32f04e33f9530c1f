//! The order of calls, against servers that answer by script.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::*;

/// Answers in turn; then nothing but lost connections.
struct Script {
    answers: RefCell<VecDeque<u16>>,
    calls: RefCell<Vec<String>>,
}

impl Script {
    fn new(answers: &[u16]) -> Self {
        Self {
            answers: RefCell::new(answers.iter().copied().collect()),
            calls: RefCell::default(),
        }
    }

    fn calls(&self) -> String {
        self.calls
            .borrow_mut()
            .drain(..)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Sender for Script {
    async fn call(&self, call: &Call, limit: Duration) -> Result<Answer, CallError> {
        let word = match (call.method().as_str(), call.target()) {
            ("GET", target) if target.contains("/nodes/") => "node",
            ("GET", _) => "get",
            ("POST", _) => "post",
            _ => "put",
        };
        self.calls.borrow_mut().push(word.to_owned());
        let next = self.answers.borrow_mut().pop_front();
        let status = next.ok_or(CallError::Timeout(limit))?;
        Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body: encode::lease("n", "uid", 40, Timestamp::UNIX_EPOCH),
        })
    }

    fn renews(&self, _renew_time: Timestamp) {}

    fn renewed(&self) {}

    fn unexpected(&self, _what: &str, _answer: &Answer) {}
}

async fn held() -> Renewer {
    let mut renewer = Renewer::new("n");
    renewer.sync(&Script::new(&[200, 200])).await;
    assert!(renewer.is_held());
    renewer
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_there_is_created_with_its_owner() {
    let (mut renewer, script) = (Renewer::new("n"), Script::new(&[404, 200, 201, 200]));
    renewer.sync(&script).await;
    assert_eq!(script.calls(), "get node post");
    renewer.sync(&script).await;
    assert_eq!(script.calls(), "put");
}

#[tokio::test(start_paused = true)]
async fn without_its_owner_a_lease_is_not_created_in_this_period() {
    let (mut renewer, script) = (Renewer::new("n"), Script::new(&[404, 404]));
    renewer.sync(&script).await;
    assert_eq!(
        (script.calls().as_str(), renewer.is_held()),
        ("get node", false)
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_costs_one_attempt_and_brings_a_new_base() {
    let (mut renewer, script) = (held().await, Script::new(&[409, 200, 200]));
    renewer.sync(&script).await;
    assert_eq!(
        (script.calls().as_str(), renewer.is_held()),
        ("put get put", true)
    );
}

#[tokio::test(start_paused = true)]
async fn after_five_failures_the_lease_is_read_again_for_as_long_as_it_takes() {
    let answers = [500, 500, 500, 500, 500, 503, 503, 200, 200];
    let (mut renewer, script) = (held().await, Script::new(&answers));
    let started = tokio::time::Instant::now();
    renewer.sync(&script).await;
    assert_eq!(script.calls(), "put put put put put get get get put");
    assert_eq!(started.elapsed(), Duration::from_millis(600));
}

#[test]
fn a_lease_is_renewed_four_times_in_its_duration() {
    let renewer = Renewer::new("n");
    for _ in 0..100 {
        let pause = renewer.pause().as_secs_f64();
        assert!((10.0..10.4).contains(&pause), "{pause}");
    }
}
