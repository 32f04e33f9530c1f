//! TLS of both sides: who we are, whom we believe, and both re-read when their files change.
use std::{path::PathBuf, sync::Arc};

use rustls::pki_types::CertificateDer;

/// What a client proved in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// The client gave none.
    None,
    /// A chain to the client CA, valid now, usable for client authentication. The leaf.
    Valid(CertificateDer<'static>),
    /// A certificate that must not be believed, and why. As kube-apiserver, answer 401: never anonymous.
    Invalid(Arc<str>),
}

/// Where the listener's certificates are.
#[derive(Clone, Debug)]
pub(crate) struct ServerFiles {
    /// PEM chain, leaf first.
    pub(crate) certificate: PathBuf,
    /// PEM key.
    pub(crate) key: PathBuf,
    /// PEM bundle that client certificates must chain to; without one no client certificate is asked for.
    pub(crate) client_ca: Option<PathBuf>,
}

/// Why TLS material could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file could not be read or holds no PEM of the kind expected.
    #[error("cannot load {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The listener's TLS, swapped whole when a file changes.
#[derive(Debug)]
pub(crate) struct ServerTls {}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub(crate) fn load(_files: ServerFiles) -> Result<Arc<Self>, TlsError> {
        todo!()
    }

    /// Polls the files for changes until dropped; a broken new file is reported once, the old stays.
    pub(crate) async fn watch_files(self: Arc<Self>, _metrics: crate::metrics::Metrics) {
        todo!()
    }
}
