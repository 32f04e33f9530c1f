//! The replay of one scenario, step by step.
//!
//! Owns the order of steps and what counts as a difference. Of a write that only prepares state the
//! status counts; its symbols are bound by meaning where its body differs.
//!
//! Requests hyper cannot put on the wire are passed over (see [`Request::is_sendable`]).

mod difference;
mod events;

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use self::difference::{Difference, printable};
use super::client::{Clients, Outgoing};
use super::headers::match_headers;
use super::matcher::{Bindings, Mismatch};
use super::message::match_message;
use super::model::{Exchange, Response, Scenario, Step, SymbolKind};
use super::stream::WatchStream;
use super::{Outcome, Target};
use crate::client::{Answer, Request};

/// Longest step; the longest recorded one waits a minute for a bookmark.
const STEP_MAX: Duration = Duration::from_secs(120);

/// How much later than recorded an event may come before it counts as missing.
const LATE_MAX: Duration = Duration::from_secs(10);

/// Answers recorded as slower than this waited for something; they may not come much sooner.
const WAITED: Duration = Duration::from_millis(2_900);

/// How long an answer that may be behind a write stays behind it at most, and the pause before the
/// same is asked again.
const LAG_MAX: Duration = Duration::from_secs(1);
const LAG_PAUSE: Duration = Duration::from_millis(5);

/// Whether the answer to a read may be from before `write`: the read names a version, and not that
/// one. An apiserver answers it from any state of its watch cache that is not older than that; how
/// far the cache happened to be when it was recorded is no promise.
fn may_lag(read: &Exchange, write: &str) -> bool {
    let target = read.path_t.as_deref().unwrap_or(&read.path);
    let version = target
        .split(['?', '&'])
        .find_map(|pair| pair.strip_prefix("resourceVersion="));
    version
        .is_some_and(|version| !version.is_empty() && !version.ends_with(&format!("${{{write}}}")))
}

/// Replays one scenario on a fresh server, up to the first difference.
pub async fn replay(scenario: &Scenario, target: &Target) -> Outcome {
    let mut replay = Replay {
        scenario,
        target,
        clients: Clients::new(target),
        bindings: Bindings::new(&scenario.symbols),
        watches: HashMap::new(),
    };
    for (index, step) in scenario.steps.iter().enumerate() {
        let result = match timeout(STEP_MAX, replay.step(step)).await {
            Ok(result) => result,
            Err(_) => Err(Difference::new("the step did not end")),
        };
        if let Err(difference) = result {
            let Difference {
                why, expected, got, ..
            } = difference;
            return Outcome::Failed {
                step: index,
                why,
                expected,
                got,
            };
        }
    }
    Outcome::Passed
}

struct Replay<'a> {
    scenario: &'a Scenario,
    target: &'a Target,
    clients: Clients<'a>,
    bindings: Bindings<'a>,
    watches: HashMap<&'a str, WatchStream>,
}

impl<'a> Replay<'a> {
    async fn step(&mut self, step: &'a Step) -> Result<(), Difference> {
        match step {
            Step::Write(exchange) => self.write(exchange).await,
            Step::Read(exchange) => self.read(exchange).await,
            Step::WatchOpen(exchange) => self.watch_open(exchange).await,
            Step::WatchEvents(events) => {
                let id = events.id.as_str();
                let mut stream = self
                    .watches
                    .remove(id)
                    .ok_or_else(|| Difference::new(format!("watch {id} was not opened")))?;
                let result = self.watch_events(events, &mut stream).await;
                self.watches.insert(id, stream);
                result.map_err(|difference| difference.at(&format!("events of {id}")))
            }
            Step::WatchClose { id } => {
                self.watches.remove(id.as_str());
                Ok(())
            }
            Step::Poll200 { path } => self.poll(path).await,
            Step::EtcdCompact { revision_t, .. } => {
                let revision = self
                    .bindings
                    .expand(revision_t)?
                    .parse()
                    .unwrap_or_default();
                self.target.apiserver.compact(revision);
                Ok(())
            }
            Step::ServerRestart { .. } => {
                self.watches.clear();
                self.clients.reconnect();
                self.target.apiserver.restart();
                Ok(())
            }
            Step::Signal(_) => Err(Difference::new("a signal cannot be replayed")),
            Step::Sleep { sleep_ms, .. } => {
                sleep(Duration::from_millis(*sleep_ms)).await;
                Ok(())
            }
        }
    }

    fn outgoing(&self, exchange: &Exchange) -> Result<Outgoing, Difference> {
        let path = match &exchange.path_t {
            Some(template) => self.bindings.expand(template)?,
            None => exchange.path.clone(),
        };
        let body = match (&exchange.body_t, &exchange.body, &exchange.body_base64) {
            (Some(template), _, _) => self.bindings.expand(template)?.into_bytes(),
            (None, Some(text), _) => text.clone().into_bytes(),
            (None, None, Some(encoded)) => decode(encoded)?,
            (None, None, None) => Vec::new(),
        };
        let request = Request::new(&exchange.method, path).body(body);
        let headers = exchange.headers.iter();
        Ok(Outgoing {
            user: exchange.as_user.clone(),
            request: headers.fold(request, |own, (name, value)| own.header(name, value)),
        })
    }

    async fn write(&mut self, exchange: &Exchange) -> Result<(), Difference> {
        let place = format!("{} {}", exchange.method, exchange.path);
        let outgoing = self.outgoing(exchange)?;
        if !outgoing.request.is_sendable() {
            return Ok(());
        }
        let answer = self.clients.whole(&outgoing).await;
        let answer = answer.map_err(|error| Difference::of(&error).at(&place))?;
        let compared = self.compare(&exchange.response, &answer);
        if !exchange.setup || compared.is_ok() {
            return compared.map_err(|difference| difference.at(&place));
        }
        self.prepare(&exchange.response, &answer)
            .map_err(|difference| difference.at(&place))
    }

    /// A write that only prepares state: its status must match, its symbols are bound by meaning.
    fn prepare(&mut self, recorded: &Response, answer: &Answer) -> Result<(), Difference> {
        if recorded.status != answer.status {
            let why = format!(
                "status {} recorded, {} live",
                recorded.status, answer.status
            );
            return Err(Difference {
                got: printable(&answer.body),
                ..Difference::new(why)
            });
        }
        let live: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(object) = &recorded.body_json {
            for name in ["uid", "resourceVersion"] {
                self.bind_recorded(text_of(object, name), text_of(&live, name))?;
            }
        }
        Ok(())
    }

    fn bind_recorded(&mut self, recorded: &str, live: &str) -> Result<(), Mismatch> {
        let names: Vec<_> = self
            .bindings
            .recorded_as(recorded)
            .filter(|(_, kind)| matches!(kind, SymbolKind::Rv | SymbolKind::Uid))
            .collect();
        names
            .into_iter()
            .try_for_each(|(name, _)| self.bindings.bind(name, live))
    }

    async fn read(&mut self, exchange: &Exchange) -> Result<(), Difference> {
        let place = format!(
            "{} {} as {}",
            exchange.method, exchange.path, exchange.as_user
        );
        let outgoing = self.outgoing(exchange)?;
        if !outgoing.request.is_sendable() {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let bindings = self.bindings.clone();
            let answer = self.clients.whole(&outgoing).await;
            let answer = answer.map_err(|error| Difference::of(&error).at(&place))?;
            let compared = self.compare(&exchange.response, &answer);
            match &compared {
                Err(Difference {
                    behind: Some(write),
                    ..
                }) if may_lag(exchange, write) && begun.elapsed() < LAG_MAX => {}
                _ => return compared.map_err(|difference| difference.at(&place)),
            }
            self.bindings = bindings;
            sleep(LAG_PAUSE).await;
        }
    }

    async fn watch_open(&mut self, exchange: &'a Exchange) -> Result<(), Difference> {
        let place = format!("watch {} as {}", exchange.path, exchange.as_user);
        let outgoing = self.outgoing(exchange)?;
        let recorded = &exchange.response;
        if recorded.body_text.is_some() || recorded.body_base64.is_some() {
            return self.read(exchange).await;
        }
        let open = self.clients.open(&outgoing).await;
        let open = open.map_err(|error| Difference::of(&error).at(&place))?;
        if open.status() != recorded.status {
            let why = format!(
                "{place}: status {} recorded, {} live",
                recorded.status,
                open.status()
            );
            return Err(Difference::new(why));
        }
        match_headers(recorded, open.headers(), self.target.may_lack)
            .map_err(|mismatch| mismatch.at(&place))?;
        self.watches.insert(
            &exchange.id,
            WatchStream::new(open, outgoing.request.target()),
        );
        Ok(())
    }

    fn compare(&mut self, recorded: &Response, answer: &Answer) -> Result<(), Difference> {
        let live = &answer.body;
        let expected = match (&recorded.body_text, &recorded.body_base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(encoded)) => decode(encoded)?,
            (None, None) => Vec::new(),
        };
        if recorded.status != answer.status {
            let why = format!(
                "status {} recorded, {} live",
                recorded.status, answer.status
            );
            return Err(Difference::with(Mismatch::new(why), &expected, live));
        }
        match_headers(recorded, &answer.headers, self.target.may_lack)?;
        let matched = if recorded.body_base64.is_some() {
            let symbol = recorded
                .pb
                .as_ref()
                .and_then(|message| message.rv_sym.as_deref());
            match_message(&mut self.bindings, &expected, live, symbol)
        } else {
            let text = recorded.body_text.as_deref().unwrap_or_default();
            match std::str::from_utf8(live) {
                Ok(live) => self.bindings.match_text(text, &recorded.text_holes(), live),
                Err(_) => Err(Mismatch::new("the body is no text")),
            }
        };
        matched.map_err(|mismatch| Difference::with(mismatch, &expected, live))?;
        let waited = recorded
            .elapsed_ms
            .map(Duration::from_millis)
            .filter(|own| *own >= WAITED);
        if waited.is_some_and(|waited| answer.elapsed < waited * 3 / 4) {
            let why = format!("answered after {:?}, recorded {waited:?}", answer.elapsed);
            return Err(Difference::new(why));
        }
        Ok(())
    }

    async fn poll(&mut self, path: &str) -> Result<(), Difference> {
        let outgoing = Outgoing {
            user: "admin".to_owned(),
            request: Request::get(path).header("Accept", "application/json"),
        };
        let deadline = Instant::now() + 3 * LATE_MAX;
        loop {
            let answer = self.clients.whole(&outgoing).await;
            let answer = answer.map_err(|error| Difference::of(&error).at(path))?;
            if answer.status == 200 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Difference::new(format!(
                    "{path} keeps answering {}",
                    answer.status
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn decode(encoded: &str) -> Result<Vec<u8>, Difference> {
    STANDARD
        .decode(encoded)
        .map_err(|_| Difference::new("the recording is no base64"))
}

fn text_of<'v>(object: &'v Value, name: &str) -> &'v str {
    object["metadata"][name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_read_that_names_an_older_version_may_be_behind_a_write() {
        let read = |target: &str| -> Exchange {
            serde_json::from_value(serde_json::json!({
                "method": "GET", "path": "/", "path_t": target, "as_user": "admin",
                "headers": [], "response": {"status": 200, "headers": {}, "present": []},
            }))
            .expect("an exchange")
        };
        for (target, lags) in [
            ("/a", false),
            ("/a?resourceVersion=", false),
            ("/a?limit=1&resourceVersionMatch=NotOlderThan", false),
            ("/a?resourceVersion=${rv4}", false),
            ("/a?limit=1&resourceVersion=000${rv4}", false),
            ("/a?resourceVersion=${rv2}", true),
            ("/a?resourceVersion=0", true),
            (
                "/a?limit=1&resourceVersion=1&resourceVersionMatch=NotOlderThan",
                true,
            ),
        ] {
            assert_eq!(may_lag(&read(target), "rv4"), lags, "{target}");
        }
    }
}
