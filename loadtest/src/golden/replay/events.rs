//! The events of a watch against the recorded ones.
//!
//! Owns patience: an event may come later than recorded, silence is listened to for a while. Every
//! event must match in number and order, except plain bookmarks, which depend on timing: they are
//! required where timing is the subject or a later request uses one, and otherwise only looked at.

use std::time::Duration;

use tokio::time::Instant;

use super::super::matcher::{Bindings, Mismatch};
use super::super::message::match_message;
use super::super::model::{Event, Step, WatchEvents};
use super::super::stream::{Next, WatchStream, is_plain_bookmark};
use super::difference::Difference;
use super::{LATE_MAX, Replay, decode};

/// How long silence is listened to where the recording saw silence.
const QUIET_MAX: Duration = Duration::from_millis(200);

impl<'a> Replay<'a> {
    pub(super) async fn watch_events(
        &mut self,
        recorded: &'a WatchEvents,
        stream: &mut WatchStream,
    ) -> Result<(), Difference> {
        let mut required: Vec<&Event> = recorded
            .events
            .iter()
            .filter(|event| self.is_required(event))
            .collect();
        // A bookmark just before the deadline may come once or twice.
        required.dedup_by(|next, event| is_plain_event(event) && next.rv == event.rv);
        let mut required = required.into_iter().peekable();
        let late = stream.started() + Duration::from_millis(recorded.elapsed_ms);
        let late = late.max(Instant::now()) + LATE_MAX;
        let quiet = Duration::from_millis(recorded.quiet_ms.unwrap_or_default());
        let quiet = if self.scenario.is_tagged("slow") {
            quiet
        } else {
            quiet.min(QUIET_MAX)
        };
        loop {
            let is_complete = required.peek().is_none() && recorded.ended.is_none();
            let deadline = if is_complete {
                Instant::now() + quiet
            } else {
                late
            };
            match (stream.next(deadline).await, required.peek()) {
                (Next::Frame(frame), expected) => {
                    let is_plain = is_plain_bookmark(&frame);
                    let expected = expected.filter(|event| is_plain == is_plain_event(event));
                    match expected {
                        Some(event) => {
                            self.event(event, &frame, stream)?;
                            required.next();
                        }
                        None if is_plain => self.plain_bookmark(&recorded.id, &frame, stream)?,
                        None => {
                            let missing = required.next().map(event_bytes).transpose()?;
                            let why = Mismatch::new("an event that was not recorded here");
                            let missing = missing.unwrap_or_default();
                            return Err(Difference::with(why, &missing, &frame));
                        }
                    }
                }
                (Next::Ended, None) if recorded.ended.is_some() => {
                    return check_end(recorded, stream);
                }
                (Next::Quiet, None) if recorded.ended.is_none() => return Ok(()),
                (Next::Ended | Next::Quiet, Some(event)) => {
                    let why = Mismatch::new("an event is missing");
                    return Err(Difference::with(why, &event_bytes(event)?, stream.rest()));
                }
                (Next::Ended, None) => return Err(Difference::new("the watch ended")),
                (Next::Quiet, None) => return Err(Difference::new("the watch did not end")),
            }
        }
    }

    fn event(
        &mut self,
        event: &Event,
        frame: &[u8],
        stream: &mut WatchStream,
    ) -> Result<(), Difference> {
        let expected = event_bytes(event)?;
        let matched = if event.raw_base64.is_some() {
            match_message(
                &mut self.bindings,
                &expected,
                frame,
                event.rv_sym.as_deref(),
            )
        } else {
            match_text_frame(&mut self.bindings, event, frame)
        };
        matched.map_err(|mismatch| Difference::with(mismatch, &expected, frame))?;
        let version = event
            .rv_sym
            .as_deref()
            .and_then(|symbol| self.bindings.value(symbol));
        let version = version
            .and_then(|version| version.parse().ok())
            .unwrap_or_default();
        stream.newest = stream.newest.max(version);
        Ok(())
    }

    /// A bookmark that was not recorded at this place: its shape and lower bound.
    fn plain_bookmark(
        &self,
        id: &str,
        frame: &[u8],
        stream: &WatchStream,
    ) -> Result<(), Difference> {
        let events = self
            .scenario
            .steps
            .iter()
            .filter(|step| step.watch() == Some(id));
        let mut events = events.flat_map(Step::events);
        let Some(sample) = events.find(|event| is_plain_event(event)) else {
            return Ok(());
        };
        let mut shape = Bindings::new(&self.scenario.symbols);
        let expected = event_bytes(sample)?;
        let matched = if sample.raw_base64.is_some() {
            match_message(&mut shape, &expected, frame, sample.rv_sym.as_deref())
        } else {
            match_text_frame(&mut shape, sample, frame)
        };
        matched.map_err(|mismatch| Difference::with(mismatch, &expected, frame))?;
        let version = sample
            .rv_sym
            .as_deref()
            .and_then(|symbol| shape.value(symbol));
        if version
            .is_some_and(|version| version.parse::<u64>().is_ok_and(|own| own < stream.newest))
        {
            return Err(Difference::new(
                "a bookmark is older than an event before it",
            ));
        }
        Ok(())
    }

    /// Plain bookmarks are required where timing is the subject, or where a later request uses one.
    fn is_required(&self, event: &Event) -> bool {
        if !is_plain_event(event) {
            return true;
        }
        let used = |symbol: &str| {
            let name = format!("${{{symbol}");
            let exchanges = self.scenario.steps.iter().filter_map(Step::exchange);
            exchanges
                .filter_map(|own| own.path_t.as_deref())
                .any(|path| path.contains(&name))
        };
        self.scenario.is_tagged("slow") || event.rv_sym.as_deref().is_some_and(used)
    }
}

/// A watch that ended by its own timeout may not have ended before it.
fn check_end(recorded: &WatchEvents, stream: &WatchStream) -> Result<(), Difference> {
    let recorded = Duration::from_millis(recorded.elapsed_ms + 500);
    let early = stream
        .timeout
        .filter(|timeout| recorded > *timeout)
        .is_some_and(|timeout| stream.elapsed() + Duration::from_millis(300) < timeout);
    if early {
        return Err(Difference::new(format!(
            "the watch ended after {:?}",
            stream.elapsed()
        )));
    }
    if !stream.rest().is_empty() {
        return Err(Difference::new("the watch ended inside a frame"));
    }
    Ok(())
}

fn match_text_frame(
    bindings: &mut Bindings<'_>,
    event: &Event,
    frame: &[u8],
) -> Result<(), Mismatch> {
    let live = std::str::from_utf8(frame).map_err(|_| Mismatch::new("the frame is no text"))?;
    bindings.match_text(
        event.raw_text.as_deref().unwrap_or_default(),
        &event.holes,
        live,
    )
}

fn is_plain_event(event: &Event) -> bool {
    event.r#type == "BOOKMARK" && event_bytes(event).is_ok_and(|frame| is_plain_bookmark(&frame))
}

fn event_bytes(event: &Event) -> Result<Vec<u8>, Difference> {
    match (&event.raw_text, &event.raw_base64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(encoded)) => decode(encoded),
        (None, None) => Err(Difference::new("an event without a frame")),
    }
}
