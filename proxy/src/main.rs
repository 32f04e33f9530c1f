//! The command line. Everything it does is in the library; here are flags, exit codes and logs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::LevelFilter;
use watershed::diagnostics::{Format, Openness, keep_secrets, start_logging};
use watershed_config::{Config, Heartbeats, Place};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Watershed sheds watches off the kube-apiserver.
///
/// A proxy that kubelets and other clients use in place of the apiserver. It keeps one upstream watch
/// per resource, answers GET, LIST and WATCH from its own cache, and passes everything else through.
///
/// To see it work without any set-up: watershed demo
#[derive(Parser)]
#[command(name = "watershed", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How much to log.
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
    /// How to print a log record.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM or Ctrl-C, then drain and exit.
    Serve {
        /// The configuration file. `watershed schema` describes it.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Allow core dumps, whole panic messages and the log records of libraries. All of them can
        /// hold tokens, keys and objects; without this flag there are none.
        #[arg(long)]
        unsafe_diagnostics: bool,
    },
    /// Report every mistake in a configuration file, each with its line and key; exit 1 if there is one.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the JSON schema of the configuration file.
    Schema,
    /// Run an apiserver, the proxy and hollow kubelets in one process and show what the tier saves.
    #[cfg(feature = "demo")]
    Demo(watershed::demo::Arguments),
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            report(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve {
            config,
            unsafe_diagnostics,
        } => {
            let openness = if unsafe_diagnostics {
                Openness::Everything
            } else {
                Openness::Discreet
            };
            let (level, format) = (arguments.log_level, arguments.log_format);
            start_logging(level.into(), format.into(), openness);
            keep_secrets(openness);
            let loaded = Config::load(&config)?;
            if report_unusable_files(&config, &loaded) {
                return Ok(ExitCode::FAILURE);
            }
            runtime()?.block_on(watershed::serve(loaded, &config))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { config } => Ok(check(&config)),
        Command::Schema => {
            print(&watershed_config::schema());
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "demo")]
        Command::Demo(demo) => {
            let format = arguments.log_format.into();
            start_logging(LevelFilter::WARN, format, Openness::Discreet);
            runtime()?.block_on(watershed::demo::run(demo))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints one line for each mistake in the file, then one for each file it names that cannot be used.
fn check(path: &std::path::Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            report(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    if report_unusable_files(path, &config) {
        return ExitCode::FAILURE;
    }
    for (place, why) in watershed::exposed_files(&config) {
        report(&format!("{}: warning: {why}", at(path, &place)));
    }
    if let Heartbeats::Coalesce(it) = &config.startup.heartbeats {
        print(&format!("heartbeats: {}\n", it.bounds.in_words()));
    }
    print(&format!("{}: no mistakes\n", path.display()));
    ExitCode::SUCCESS
}

/// Names each file of the configuration that cannot be used; true when there is one.
fn report_unusable_files(path: &std::path::Path, config: &Config) -> bool {
    let unusable = watershed::unusable_files(config);
    for (place, why) in &unusable {
        report(&format!("{}: {why}", at(path, place)));
    }
    !unusable.is_empty()
}

/// A place in the configuration file, as editors understand it, and its key.
fn at(path: &std::path::Path, place: &Place) -> String {
    let (line, column, key) = (place.line, place.column, &place.key);
    format!("{}:{line}:{column}: {key}", path.display())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

#[expect(clippy::print_stdout, reason = "the output a command was asked for")]
fn print(text: &str) {
    print!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "errors of a command go to standard error"
)]
fn report(text: &str) {
    eprintln!("{text}");
}
