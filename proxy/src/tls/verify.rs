//! The judgement of client certificates.
//!
//! Owns: what a connection's certificate chain proves, by which CA bundles, until when.
//! Refuses: names and groups; reading a subject is authentication's.
//! Invariant: [`ClientCertificate::Valid`] means: the client holds the key (the handshake checked
//! that), and the chain leads to the bundle in force, allows client authentication, and is within
//! its dates now. It is judged twice, by the authorities of clients and by those of front proxies,
//! and what it proves by one says nothing about the other.

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// The client gave none, or there is no bundle to judge it by.
    #[default]
    None,
    /// It leads to the bundle, is valid now and fit for client authentication.
    Valid(Leaf),
    /// A certificate that must not be believed, and why. As kube-apiserver, answer 401; never
    /// anonymous.
    Invalid(Arc<str>),
}

/// What a client's certificate proves now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// About its holder, by the authorities of clients.
    pub(crate) client: ClientCertificate,
    /// That its holder may speak for others, by the authorities of front proxies.
    pub(crate) front_proxy: ClientCertificate,
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
    proof: Proof,
}

/// The longest a verdict is believed: the bundle's own certificates expire too.
const VERDICT_AGE: Duration = Duration::from_secs(3600);

/// The longest a refusal is: a certificate that is not valid yet becomes so.
const REFUSAL_AGE: Duration = Duration::from_secs(10);

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

    /// The verdict by `authorities`.
    pub(super) fn judge(&self, authorities: &Authorities) -> Proof {
        let Some(presented) = &self.presented else {
            return Proof::default();
        };
        let now = UnixTime::now();
        let mut last = presented.last.lock();
        match &*last {
            Some(verdict)
                if verdict.generation == authorities.generation && now < verdict.until =>
            {
                verdict.proof.clone()
            }
            Some(_) | None => {
                let verdict = authorities.verify(&presented.chain, now);
                let proof = verdict.proof.clone();
                *last = Some(verdict);
                proof
            }
        }
    }
}

/// The CA bundles in force.
#[derive(Debug)]
pub(crate) struct Authorities {
    clients: Option<Arc<dyn ClientCertVerifier>>,
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
    /// Of either of them.
    any: Option<Arc<dyn ClientCertVerifier>>,
    generation: u64,
}

impl Authorities {
    /// The bundle that signs clients, and the one that signs front proxies.
    pub(super) fn new(
        clients: Option<RootCertStore>,
        front_proxies: Option<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let bundles = [&clients, &front_proxies].into_iter().flatten();
        let anchors: Vec<_> = bundles.flat_map(|it| it.roots.clone()).collect();
        let any = (!anchors.is_empty()).then(|| RootCertStore::from_iter(anchors));
        let verifier = |roots: Option<RootCertStore>, what| {
            roots.map(|it| verifier(it, what, provider)).transpose()
        };
        Ok(Self {
            clients: verifier(clients, "client CA")?,
            front_proxies: verifier(front_proxies, "front proxy CA")?,
            any: verifier(any, "client CA")?,
            generation: next_generation(),
        })
    }

    fn verify(&self, chain: &Chain, now: UnixTime) -> Verdict {
        let judge = |verifier: &Option<Arc<dyn ClientCertVerifier>>| {
            let Some(verifier) = verifier else {
                return ClientCertificate::None;
            };
            let judged = match chain.split_first() {
                Some((leaf, rest)) => verifier.verify_client_cert(leaf, rest, now),
                None => Err(rustls::Error::NoCertificatesPresented),
            };
            match judged {
                Ok(_) => ClientCertificate::Valid(Leaf(Arc::clone(chain))),
                Err(error) => ClientCertificate::Invalid(error.to_string().into()),
            }
        };
        let proof = Proof {
            client: judge(&self.clients),
            front_proxy: judge(&self.front_proxies),
        };
        let in_seconds = |age: Duration| {
            UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()).saturating_add(age))
        };
        let is_valid = |it: &ClientCertificate| matches!(it, ClientCertificate::Valid(_));
        let until = if is_valid(&proof.client) || is_valid(&proof.front_proxy) {
            in_seconds(VERDICT_AGE).min(not_after(chain))
        } else {
            in_seconds(REFUSAL_AGE)
        };
        Verdict {
            generation: self.generation,
            until,
            proof,
        }
    }
}

fn verifier(
    roots: RootCertStore,
    what: &'static str,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Unusable {
            what,
            reason: error.to_string(),
        })
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
    /// `None` where there is nobody to judge a certificate by.
    pub(super) fn new(authorities: &Authorities) -> Option<Self> {
        let signatures = Arc::clone(authorities.any.as_ref()?);
        Some(Self { signatures })
    }
}

impl ClientCertVerifier for RequestedOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// The subjects of both bundles, as kube-apiserver sends them: Go clients choose their
    /// certificate by it.
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
