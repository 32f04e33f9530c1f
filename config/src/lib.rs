//! One typed file in, one validated value out.
//!
//! This crate owns the configuration file of Watershed: its exact shape, its defaults, and the
//! rules every value must meet. It reads that one file and does nothing else: it opens no
//! certificate, resolves no name and binds no port. The files a configuration refers to are listed
//! by [`Config::files`] for those who may open them.
//!
//! The invariant: whoever holds a [`Config`] holds values that satisfy every rule, so no other
//! crate checks a setting again. A mistake is never reported alone when there are several: one run
//! names all of them, each with line, column and key.
//!
//! A configuration has two parts by type. [`Startup`] is read once; a change needs a restart.
//! [`Live`] may be replaced while the proxy runs, and only it travels through the channel of a
//! [`Reloader`]. The alternative, one tree with a note at each key, was rejected: the compiler
//! cannot check a note.

use std::fmt;
use std::path::{Path, PathBuf};

mod decode;
mod duration;
mod file;
mod live;
mod quantity;
mod reload;
mod startup;
mod tree;
mod validate;

pub use live::{
    Authentication, Authorization, CacheSettings, CachedResource, Drain, Encoding, GroupResource,
    Limits, Live, ResourceSettings, TokenReview,
};
pub use reload::{RELOAD_INTERVAL, Reloader};
pub use startup::{
    Admin, Authorizers, Coalesce, Credentials, FeatureGates, Heartbeats, Listen, Peers, Replicas,
    RequestHeader, Startup, Subjects, Upstream, UpstreamIdentity,
};

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is read once; a change needs a restart.
    pub startup: Startup,
    /// What may be replaced while the proxy runs.
    pub live: Live,
    files: Vec<ReferencedFile>,
}

impl Config {
    /// Reads and validates the file at `path`. Relative paths inside it are taken from its folder.
    ///
    /// # Errors
    /// [`LoadError::Read`] when the file cannot be read, [`LoadError::Invalid`] with every mistake
    /// in it otherwise.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read {
            path: path.to_owned(),
            source,
        };
        let text = reload::read(path).map_err(read)?;
        Self::parse(&text, path)
    }

    /// Validates `text` as if it had been read from `origin`, which names it in errors and whose
    /// folder is the base of relative paths.
    ///
    /// # Errors
    /// [`LoadError::Invalid`] with every mistake in it.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, LoadError> {
        let folder = origin.parent().unwrap_or_else(|| Path::new(""));
        validate::config(text, folder).map_err(|mistakes| LoadError::Invalid {
            origin: origin.to_owned(),
            mistakes,
        })
    }

    /// The files this configuration refers to, in the order of the file, each with the place that
    /// names it. Nothing has checked that they exist.
    pub fn files(&self) -> &[ReferencedFile] {
        &self.files
    }
}

/// The JSON schema of the configuration file, indented, with a newline at its end.
pub fn schema() -> String {
    let schema = file::schema();
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

/// A file the configuration refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencedFile {
    /// Where it is; absolute, or relative to the working directory of the process.
    pub path: PathBuf,
    /// What it must hold.
    pub content: FileContent,
    /// The place that names it.
    pub place: Place,
}

/// What a referenced file must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// A PEM certificate chain, leaf first.
    Certificates,
    /// A PEM private key.
    PrivateKey,
    /// A PEM bundle of certificate authorities.
    CertificateAuthorities,
    /// A kubeconfig.
    Kubeconfig,
    /// A bearer token.
    Token,
}

/// A place in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// The key, as `cache.resources[2].history.age`; empty for the document itself.
    pub key: String,
}

/// Why a configuration could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read and is wrong. Displays one line for each mistake, in the file's order:
    /// `FILE:LINE:COLUMN: key: what is wrong; what to do`.
    #[error("{}", lines(origin, mistakes))]
    Invalid {
        /// The file's name as given.
        origin: PathBuf,
        /// Every mistake; never empty.
        mistakes: Vec<Mistake>,
    },
}

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is.
    pub place: Place,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, key } = &self.place;
        write!(formatter, "{line}:{column}: ")?;
        if !key.is_empty() {
            write!(formatter, "{key}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

fn lines(origin: &Path, mistakes: &[Mistake]) -> String {
    let line = |mistake: &Mistake| format!("{}:{mistake}", origin.display());
    mistakes.iter().map(line).collect::<Vec<_>>().join("\n")
}
