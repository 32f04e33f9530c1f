//! TLS: who we are, whom we believe, and both re-read when their files change.
//!
//! Owns: the listener's rustls configuration, the judgement of client certificates, the loading of
//! PEM files for both sides, the stream of a connection (`tls/stream.rs`), and the polling that
//! notices new files (`tls/reload.rs`).
//! Refuses: to fail a handshake because of a client certificate. As kube-apiserver does, a
//! certificate is only requested; whether it counts is decided per request, so that a caller with a
//! bad one gets a 401 that says so. What the handshake does prove is that the client holds the
//! certificate's key.
//! Invariant: certificate, key and CA bundles are swapped together or not at all, and a verdict
//! about a client is never older than the CA bundle in force. A resolver that swaps only the
//! certificate was rejected: key and CA would change at different moments. Sessions are never
//! resumed, since resumption would keep an identity alive that the CA bundle no longer vouches for.

pub(crate) mod reload;
mod stream;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, sign::any_supported_type},
    },
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroize as _;

use crate::{
    files::{Contents, Zeroed},
    metrics::Metrics,
};

use self::{
    reload::{Reloaded, Source},
    verify::{Authorities, RequestedOnly},
};

pub(crate) use self::{
    stream::TlsStream,
    verify::{ClientCertificate, Credential, Leaf, Proof},
};

/// Where the listener's certificates are.
#[derive(Clone, Debug)]
pub(crate) struct ServerFiles {
    /// PEM chain, leaf first.
    pub(crate) certificate: PathBuf,
    /// PEM key.
    pub(crate) key: PathBuf,
    /// PEM bundle that client certificates must chain to.
    pub(crate) client_ca: Option<PathBuf>,
    /// Who is believed to be a front proxy. Without either bundle no certificate is asked for.
    pub(crate) front_proxies: Option<FrontProxyFile>,
}

/// Where the authorities of front proxies are.
#[derive(Clone, Debug)]
pub(crate) struct FrontProxyFile {
    /// PEM bundle that certificates of front proxies must chain to.
    pub(crate) ca: PathBuf,
    /// Whether every certificate of it is one of a front proxy, whatever its name.
    pub(crate) any_name: bool,
}

/// Why TLS material could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file could not be read, or holds no PEM of the kind expected.
    #[error("cannot load {what} from {}: {reason}", path.display())]
    File {
        /// What it was read for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The parts do not make a whole, as a key of another certificate.
    #[error("cannot use the {what}: {reason}")]
    Unusable {
        /// What was put together.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// The listener's TLS, swapped whole when a file changes. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct ServerTls {
    current: Arc<Reloaded<ServerFiles>>,
}

/// One state of the files, ready to use.
#[derive(Debug)]
pub(crate) struct Loaded {
    config: Arc<ServerConfig>,
    authorities: Authorities,
}

/// The bytes of the files.
#[derive(Hash)]
pub(crate) struct ServerMaterial {
    certificate: Zeroed,
    key: Secret,
    client_ca: Option<Zeroed>,
    front_proxy_ca: Option<Zeroed>,
}

/// The bytes of a file that nobody else should read.
#[derive(Hash)]
pub(crate) struct Secret {
    /// What is in it.
    pub(crate) bytes: Zeroed,
    /// To whom it is open, and what to do about it.
    pub(crate) exposure: Option<String>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub(crate) fn load(files: ServerFiles) -> Result<Self, TlsError> {
        Ok(Self {
            current: Arc::new(Reloaded::load(files)?),
        })
    }

    /// Looks at the files every `interval`, for ever. A broken new file is reported once and the old
    /// stay in force; open connections are not touched.
    pub(crate) async fn watch_files(self, interval: Duration, metrics: Metrics) {
        self.current
            .watch("the listener's certificates", interval, &metrics)
            .await;
    }

    /// Looks at the files once, now.
    #[cfg(test)]
    pub(crate) fn poll_files(&self) -> reload::Outcome {
        self.current.poll()
    }

    /// The handshake of a new connection, with what is in force now.
    ///
    /// # Errors
    /// When the socket fails or ends, or the client's TLS is not acceptable; it is told why.
    pub(crate) async fn accept<S>(&self, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsStream::accept(socket, self.config()).await
    }

    /// What rustls is configured with now.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load_current().config)
    }

    /// What `credential` proves against the CA bundles in force now. Cheap when nothing changed
    /// since the last call for the same credential.
    pub(crate) fn judge(&self, credential: &Credential) -> Proof {
        credential.judge(&self.current.load_current().authorities)
    }
}

impl Source for ServerFiles {
    type Material = ServerMaterial;
    type Output = Loaded;

    fn read(&self) -> Result<ServerMaterial, TlsError> {
        let bundle = |what, path: Option<&Path>| path.map(|it| read(what, it)).transpose();
        let front_proxies = self.front_proxies.as_ref().map(|it| it.ca.as_path());
        Ok(ServerMaterial {
            client_ca: bundle(CLIENT_CA, self.client_ca.as_deref())?,
            front_proxy_ca: bundle(FRONT_PROXY_CA, front_proxies)?,
            certificate: read("the certificate", &self.certificate)?,
            key: Secret::read("the key", &self.key)?,
        })
    }

    fn build(&self, material: &ServerMaterial) -> Result<Loaded, TlsError> {
        let provider = provider();
        let authorities = self.authorities(material, &provider)?;
        let chain = certificates("the certificate", &self.certificate, &material.certificate)?;
        material.key.warn(&self.key);
        let key = private_key("the key", &self.key, &material.key.bytes)?;
        let unusable = |error: rustls::Error| TlsError::Unusable {
            what: "listener's certificate and key",
            reason: error.to_string(),
        };
        let versions = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let verified = match RequestedOnly::new(&authorities) {
            Some(requested) => versions.with_client_cert_verifier(Arc::new(requested)),
            None => versions.with_no_client_auth(),
        };
        let identity = identity(chain, key).map_err(unusable)?;
        let mut config = verified.with_cert_resolver(identity);
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Loaded {
            config: Arc::new(config),
            authorities,
        })
    }
}

impl ServerFiles {
    fn authorities(
        &self,
        material: &ServerMaterial,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Authorities, TlsError> {
        let clients = match (&self.client_ca, &material.client_ca) {
            (Some(path), Some(pem)) => Some(roots(CLIENT_CA, path, pem)?),
            (_, _) => None,
        };
        let front_proxies = match (&self.front_proxies, &material.front_proxy_ca) {
            (Some(file), Some(pem)) => {
                let own = roots(FRONT_PROXY_CA, &file.ca, pem)?;
                let anchors = clients.iter().flat_map(|it| &it.roots);
                let is_shared = anchors.into_iter().any(|it| own.roots.contains(it));
                if is_shared && file.any_name {
                    let reason = "it signs clients too, so each of them could be anybody; use \
                                  another one, or name the front proxies";
                    return Err(file_error(FRONT_PROXY_CA, &file.ca, reason));
                }
                Some(own)
            }
            (_, _) => None,
        };
        Authorities::new(clients, front_proxies, provider)
    }
}

const CLIENT_CA: &str = "the client CA";
const FRONT_PROXY_CA: &str = "the front proxy CA";

/// ALPN name of HTTP/2.
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = TLS13_AES_128_GCM_SHA256
        .tls13()
        .expect("the suite is one of TLS 1.3");
    let digest = suite.common.hash_provider.hash(bytes);
    let digest = digest.as_ref().try_into();
    digest.expect("SHA-256 has 32 bytes")
}

/// The one provider of cryptography, named rather than taken from the process default, which
/// another crate could set.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The bytes of a file.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(what: &'static str, path: &Path) -> Result<Zeroed, TlsError> {
    let contents = Contents::read(path).map_err(|error| file_error(what, path, error))?;
    Ok(contents.bytes)
}

impl Secret {
    /// The bytes of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(what: &'static str, path: &Path) -> Result<Self, TlsError> {
        let contents = Contents::read(path).map_err(|error| file_error(what, path, error))?;
        Ok(Self {
            exposure: contents.exposure(path),
            bytes: contents.bytes,
        })
    }

    /// Says so in the log if others may read it. Called when the file is put to use, so once for each
    /// change.
    pub(crate) fn warn(&self, path: &Path) {
        if let Some(exposure) = &self.exposure {
            warn_exposed(path, exposure);
        }
    }
}

/// Says in the log that others may read a file.
pub(crate) fn warn_exposed(path: &Path, exposure: &str) {
    tracing::warn!(file = %path.display(), "{exposure}");
}

/// A certificate and its key as rustls uses them. What the key was made from is zeroed.
///
/// # Errors
/// When the key is of an unknown kind or of another certificate.
pub(crate) fn identity(
    chain: Vec<CertificateDer<'static>>,
    mut key: PrivateKeyDer<'static>,
) -> Result<Arc<SingleCertAndKey>, rustls::Error> {
    let signing = any_supported_type(&key);
    key.zeroize();
    let certified = CertifiedKey::new(chain, signing?);
    match certified.keys_match() {
        // Some kinds of keys cannot tell.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Arc::new(certified.into()))
        }
        Err(error) => Err(error),
    }
}

/// The certificates in `pem`, of which there must be one.
///
/// # Errors
/// When there is none or one is malformed.
pub(crate) fn certificates(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| file_error(what, path, error))?;
    if found.is_empty() {
        return Err(file_error(
            what,
            path,
            "it holds no PEM block of type CERTIFICATE",
        ));
    }
    Ok(found)
}

/// The first private key in `pem`.
///
/// # Errors
/// When there is none.
pub(crate) fn private_key(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| file_error(what, path, error))
}

/// The certificates in `pem` as trust anchors; each must be usable as one.
///
/// # Errors
/// When there is none or one is malformed.
pub(crate) fn roots(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(what, path, pem)? {
        store
            .add(certificate)
            .map_err(|error| file_error(what, path, error))?;
    }
    Ok(store)
}

fn file_error(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
