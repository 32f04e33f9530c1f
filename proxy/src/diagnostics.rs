//! What the process tells of itself: log records, panics, core dumps.
//!
//! Owns: where logs go and whose records are kept, the one line a panic becomes, and that the
//! memory of the process, with the keys and objects in it, is left nowhere when it dies.
//! Refuses: records of libraries below warnings, and the words of a panic that were put together
//! while it ran: either may quote a header or an object. Our own records are written so that they
//! do not.
//! Invariant: whatever the log level, nothing a client or an apiserver sent in a body or as a
//! credential is logged, unless [`Openness::Everything`] was asked for.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::PanicHookInfo,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How a log record is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much the process may tell of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// Nothing that is a secret: the default.
    Discreet,
    /// Records of every library, whole panic messages and core dumps: all of them may hold tokens,
    /// keys and objects.
    Everything,
}

/// All our crates begin with it; the log's filter compares beginnings.
const OURS: &str = "watershed";

/// Begins to log to standard error; standard output is for what a command was asked to print.
pub fn start_logging(level: LevelFilter, format: Format, openness: Openness) {
    let others = match openness {
        Openness::Discreet => level.min(LevelFilter::WARN),
        Openness::Everything => level,
    };
    let kept = Targets::new().with_default(others).with_target(OURS, level);
    let registry = tracing_subscriber::registry().with(kept);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Text => registry.with(lines).init(),
        Format::Json => registry.with(lines.json()).init(),
    }
}

/// Makes panics one log record without data, and core dumps impossible; call it once, after
/// [`start_logging`]. On Linux the process cannot be traced by others of its user from then on.
pub fn keep_secrets(openness: Openness) {
    std::panic::set_hook(Box::new(move |panic| log_panic(panic, openness)));
    if openness == Openness::Everything {
        tracing::warn!("core dumps, panics and logs may hold secrets: --unsafe-diagnostics is set");
        return;
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
    // The limit alone does not bind a program that the system pipes core dumps to.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::warn!(%error, "core dumps cannot be turned off");
        }
    }
}

/// One record: where and on which thread, and the words if they were there before the program ran.
/// `RUST_BACKTRACE` adds the names of the functions.
fn log_panic(panic: &PanicHookInfo<'_>, openness: Openness) {
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let is_asked_for = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        location = place.unwrap_or_default(),
        thread = thread.name().unwrap_or_default(),
        words = words(panic.payload(), openness),
        backtrace = is_asked_for.then(|| backtrace.to_string()),
        "panicked"
    );
}

/// What may be told of a panic's message.
fn words(payload: &(dyn Any + Send), openness: Openness) -> &str {
    if let Some(literal) = payload.downcast_ref::<&'static str>() {
        return literal;
    }
    match (payload.downcast_ref::<String>(), openness) {
        (Some(text), Openness::Everything) => text,
        (_, _) => "withheld, as it may quote data; --unsafe-diagnostics shows it",
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const ROLE: &str = "WATERSHED_TEST_PANICS";
    const SECRET: &str = "c2VjcmV0-é-of-an-object";

    /// The part of the process that panics; does nothing when it is run as a test.
    #[test]
    fn panicking_process() {
        let openness = match std::env::var(ROLE).as_deref() {
            Ok("discreet") => Openness::Discreet,
            Ok("everything") => Openness::Everything,
            Ok(_) | Err(_) => return,
        };
        start_logging(LevelFilter::TRACE, Format::Json, openness);
        keep_secrets(openness);
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{DumpableBehavior, dumpable_behavior};
            let dumpable = dumpable_behavior().expect("the system tells");
            let is_discreet = openness == Openness::Discreet;
            assert_eq!(dumpable == DumpableBehavior::NotDumpable, is_discreet);
        }
        let at = SECRET.find('é').expect("it is there") + 1;
        let panics: [fn(usize); 4] = [
            |at| assert!(SECRET[at..].is_empty()),
            |at| assert_eq!(SECRET, &"0".repeat(at)),
            |_| panic!("words that were there before"),
            |_| std::panic::panic_any(SECRET.to_owned()),
        ];
        for panic in panics {
            let name = "panicking".to_owned();
            let thread = std::thread::Builder::new().name(name);
            let thread = thread.spawn(move || panic(at)).expect("a thread");
            assert!(thread.join().is_err());
        }
    }

    fn told(role: &str) -> String {
        let name = "diagnostics::tests::panicking_process";
        let output = Command::new(std::env::current_exe().expect("a test"))
            .args(["--exact", name, "--nocapture"])
            .env(ROLE, role)
            .env("RUST_BACKTRACE", "1")
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8(both).expect("text")
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_data() {
        let told = told("discreet");
        assert_eq!(told.matches("\"panicked\"").count(), 4, "{told}");
        assert!(told.matches("diagnostics.rs:").count() >= 4, "{told}");
        assert_eq!(told.matches("\"thread\":\"panicking\"").count(), 4);
        assert!(told.contains("words that were there before"), "{told}");
        assert!(!told.contains(SECRET), "{told}");
        assert!(!told.contains("c2VjcmV0"), "{told}");
    }

    #[test]
    fn a_panic_is_told_whole_to_who_asks_for_it() {
        let told = told("everything");
        assert_eq!(told.matches(SECRET).count(), 3, "{told}");
    }
}
