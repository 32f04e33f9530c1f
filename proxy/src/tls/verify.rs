//! The judgement of client certificates.
//!
//! Owns: what a connection's certificate chain proves, by which CA bundle, until when.
//! Refuses: names and groups; reading a subject is authentication's.
//! Invariant: [`ClientCertificate::Valid`] means: the client holds the key (the handshake checked
//! that), and the chain leads to the bundle in force, allows client authentication, and is within
//! its dates now.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;

/// A chain as the client sent it, leaf first; not empty.
type Chain = Arc<[CertificateDer<'static>]>;

/// The certificate of a client, as DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf(Chain);

impl Leaf {
    /// A chain of one certificate.
    #[cfg(test)]
    pub(crate) fn of(certificate: CertificateDer<'static>) -> Self {
        Self([certificate].into())
    }

    /// Whether both are what one connection presented, and not only equal to it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::ops::Deref for Leaf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.first().map_or(&[], |it| it.as_ref())
    }
}

/// What a client proved with its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// The client gave none.
    None,
    /// It leads to the client CA, is valid now and fit for client authentication.
    Valid(Leaf),
    /// A certificate that must not be believed, and why. As kube-apiserver, answer 401; never
    /// anonymous.
    Invalid(Arc<str>),
}

/// A connection's certificate, with the last verdict about it.
#[derive(Debug, Default)]
pub(crate) struct Credential {
    presented: Option<Presented>,
}

#[derive(Debug)]
struct Presented {
    chain: Chain,
    last: Mutex<Option<Verdict>>,
}

#[derive(Clone, Debug)]
struct Verdict {
    generation: u64,
    until: UnixTime,
    certificate: ClientCertificate,
}

/// The longest a verdict is believed: the bundle's own certificates expire too.
const VERDICT_AGE: Duration = Duration::from_secs(3600);

impl Credential {
    /// What the handshake showed.
    pub(crate) fn new(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let presented = chain
            .filter(|chain| !chain.is_empty())
            .map(|chain| Presented {
                chain: chain.iter().map(|it| it.clone().into_owned()).collect(),
                last: Mutex::new(None),
            });
        Self { presented }
    }

    /// The verdict by `ca`.
    pub(super) fn judge(&self, ca: Option<&ClientCa>) -> ClientCertificate {
        let (Some(presented), Some(ca)) = (&self.presented, ca) else {
            return ClientCertificate::None;
        };
        let now = UnixTime::now();
        let mut last = presented.last.lock();
        match &*last {
            Some(verdict) if verdict.generation == ca.generation && now < verdict.until => {
                verdict.certificate.clone()
            }
            Some(_) | None => {
                let verdict = ca.verify(&presented.chain, now);
                let certificate = verdict.certificate.clone();
                *last = Some(verdict);
                certificate
            }
        }
    }
}

/// A client CA bundle.
#[derive(Debug)]
pub(crate) struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
    generation: u64,
}

impl ClientCa {
    pub(super) fn new(
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::Unusable {
                    what: "client CA",
                    reason: error.to_string(),
                })?;
        Ok(Self {
            verifier,
            generation: next_generation(),
        })
    }

    fn verify(&self, chain: &Chain, now: UnixTime) -> Verdict {
        let end = UnixTime::since_unix_epoch(
            Duration::from_secs(now.as_secs()).saturating_add(VERDICT_AGE),
        );
        let judged = match chain.split_first() {
            Some((leaf, rest)) => self.verifier.verify_client_cert(leaf, rest, now),
            None => Err(rustls::Error::NoCertificatesPresented),
        };
        let (certificate, until) = match judged {
            Ok(_) => (
                ClientCertificate::Valid(Leaf(Arc::clone(chain))),
                end.min(not_after(chain)),
            ),
            Err(error) => (ClientCertificate::Invalid(error.to_string().into()), end),
        };
        let until = match certificate {
            // A certificate that is not valid yet becomes so: do not hold its refusal for long.
            ClientCertificate::Invalid(_) => {
                UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 10))
            }
            ClientCertificate::Valid(_) | ClientCertificate::None => until,
        };
        Verdict {
            generation: self.generation,
            until,
            certificate,
        }
    }
}

/// The earliest end of the chain's certificates; the past when one cannot be read.
fn not_after(chain: &Chain) -> UnixTime {
    let seconds = chain
        .iter()
        .map(|it| match X509Certificate::from_der(it) {
            Ok((_, certificate)) => certificate.validity().not_after.timestamp(),
            Err(_) => 0,
        })
        .min()
        .and_then(|it| u64::try_from(it).ok())
        .unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// Tells bundles apart, so that a verdict by one is not taken for that of another.
fn next_generation() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// Asks for a certificate in the handshake, takes any, and checks that the client holds its key.
#[derive(Debug)]
pub(super) struct RequestedOnly {
    signatures: Arc<dyn ClientCertVerifier>,
}

impl RequestedOnly {
    pub(super) fn new(ca: &ClientCa) -> Self {
        Self {
            signatures: Arc::clone(&ca.verifier),
        }
    }
}

impl ClientCertVerifier for RequestedOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// The bundle's subjects, as kube-apiserver sends them: Go clients choose their certificate by
    /// it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signatures.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}
