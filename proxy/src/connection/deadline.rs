//! The end of a body that its client does not take.
//!
//! Owns: how a body, while it is polled, tells what polls it when it must be over ([`expect`],
//! [`over`]), and the timer that then drops the whole stream. A body that waits for its client is
//! not polled, so it cannot look at a clock itself.
//! Refuses: to end a stream in order. What is cut is reset on the wire, never completed.
//! Invariant: what a poll left behind belongs to the stream that was polled: it is forgotten before
//! every poll and looked at after it, on the same thread.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

thread_local! {
    static SAID: Cell<Said> = const { Cell::new(Said::Nothing) };
}

/// What the body that was polled last says of its end.
#[derive(Clone, Copy, Default)]
enum Said {
    #[default]
    Nothing,
    Until(Instant),
    Over,
}

/// The body that is being polled must be taken until then.
pub(crate) fn expect(deadline: Instant) {
    SAID.set(Said::Until(deadline));
}

/// The body that is being polled, or was until now, has no such end any more.
pub(crate) fn over() {
    SAID.set(Said::Over);
}

/// The deadline of what is polled by [`Deadline::poll`].
#[derive(Debug, Default)]
pub(crate) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Polls by `poll`; `None` once the deadline is over that a body set meanwhile or before.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        SAID.set(Said::Nothing);
        let polled = poll(context);
        match SAID.take() {
            Said::Nothing => {}
            Said::Over => self.0 = None,
            Said::Until(deadline) => match &mut self.0 {
                Some(timer) if timer.deadline() == deadline => {}
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.0 = Some(Box::pin(sleep_until(deadline))),
            },
        }
        match (polled, &mut self.0) {
            (Poll::Ready(value), _) => Poll::Ready(Some(value)),
            (Poll::Pending, Some(timer)) => timer.as_mut().poll(context).map(|()| None),
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}

/// A stream of a connection, which ends when its deadline is over.
pub(super) struct Stream {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    deadline: Deadline,
}

impl Stream {
    pub(super) fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            future: Box::pin(future),
            deadline: Deadline::default(),
        }
    }
}

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { future, deadline } = &mut *self;
        let polled = deadline.poll(context, |context| future.as_mut().poll(context));
        polled.map(|_over_or_cut| ())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A body that says `said` when it is polled first, and then waits for ever.
    fn waiting(said: impl Fn() + Send + 'static) -> Stream {
        let mut first = true;
        Stream::new(std::future::poll_fn(move |_| {
            if std::mem::take(&mut first) {
                said();
            }
            Poll::Pending
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_body_is_not_taken_is_dropped_in_time() {
        let begun = Instant::now();
        waiting(move || expect(begun + SECOND)).await;
        assert_eq!(begun.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_stream_says_does_not_concern_another() {
        let begun = Instant::now();
        let short = waiting(move || expect(begun + SECOND));
        let unlimited = waiting(|| {});
        tokio::select! {
            biased;
            () = short => {}
            () = unlimited => panic!("it was cut"),
        }
        expect(begun); // outside of any stream
        let longer = tokio::time::timeout(10 * SECOND, waiting(|| {}));
        assert!(longer.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_body_that_was_taken_is_not_cut() {
        let begun = Instant::now();
        let mut polls = 0;
        let stream = Stream::new(std::future::poll_fn(move |context| {
            polls += 1;
            match polls {
                1 => {
                    expect(begun + SECOND);
                    context.waker().wake_by_ref();
                }
                2 => over(),
                _ => {}
            }
            Poll::Pending
        }));
        assert!(tokio::time::timeout(10 * SECOND, stream).await.is_err());
    }
}
