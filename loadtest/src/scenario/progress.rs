//! Progress of anything that takes longer than two seconds.
//!
//! Owns the choice between a bar and lines. Refuses to draw where nobody looks: without a terminal
//! there is a line every few seconds.
//! Invariant: progress goes to stderr, results to stdout.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// Between two lines when there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(2);

/// A bar on a terminal, lines elsewhere.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    length: u64,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl Progress {
    /// Progress of `what` up to `length`.
    #[must_use]
    pub fn new(what: &'static str, length: usize) -> Self {
        let length = length as u64;
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{msg:24} {bar:40.cyan/238} {pos}/{len}  {elapsed}")
                    .expect("the template is valid");
            ProgressBar::new(length)
                .with_style(style)
                .with_message(what)
        });
        Self {
            what,
            length,
            bar,
            next_line: Instant::now() + LINE_PERIOD,
        }
    }

    /// So far.
    pub fn at(&mut self, position: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(position as u64);
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_PERIOD;
            self.line(position as u64);
        }
    }

    /// Clears the bar; says on a line that it is over.
    pub fn done(self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => self.line(self.length),
        }
    }

    #[expect(clippy::print_stderr, reason = "progress of a command")]
    fn line(&self, position: u64) {
        eprintln!("{}: {position} of {}", self.what, self.length);
    }
}
