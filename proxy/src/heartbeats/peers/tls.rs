//! How replicas know each other.
//!
//! Owns: the TLS of both directions, made of one certificate and read again when its files change.
//! Refuses: every certificate that the authorities did not sign, and of those they did every one
//! that does not carry the name of a replica: an authority signs others too, and who may tell debts
//! has times of nodes written.
//! Invariant: both sides have proven both before the first frame is read.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid, verify_server_name},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::{
    files::Zeroed,
    tls::{self, Secret, TlsError, reload::Source},
};

/// Where a replica's certificate is, and what others carry.
#[derive(Clone, Debug)]
pub(super) struct PeerFiles {
    /// PEM chain, leaf first.
    pub(super) certificate: PathBuf,
    /// PEM key.
    pub(super) key: PathBuf,
    /// PEM bundle that the certificates of replicas must chain to.
    pub(super) ca: PathBuf,
    /// The name that each of them carries.
    pub(super) name: ServerName<'static>,
}

/// The bytes of the files.
#[derive(Hash)]
pub(super) struct Material {
    certificate: Zeroed,
    key: Secret,
    ca: Zeroed,
}

/// One state of the files, ready to use.
#[derive(Debug)]
pub(super) struct PeerTls {
    /// Of connections to others.
    pub(super) client: Arc<ClientConfig>,
    /// Of theirs to here.
    pub(super) server: Arc<ServerConfig>,
}

const CERTIFICATE: &str = "the peer certificate";
const KEY: &str = "the peer key";
const CA: &str = "the peer CA";

impl Source for PeerFiles {
    type Material = Material;
    type Output = PeerTls;

    fn read(&self) -> Result<Material, TlsError> {
        Ok(Material {
            certificate: tls::read(CERTIFICATE, &self.certificate)?,
            key: Secret::read(KEY, &self.key)?,
            ca: tls::read(CA, &self.ca)?,
        })
    }

    fn build(&self, material: &Material) -> Result<PeerTls, TlsError> {
        material.key.warn(&self.key);
        let chain = tls::certificates(CERTIFICATE, &self.certificate, &material.certificate)?;
        let key = tls::private_key(KEY, &self.key, &material.key.bytes)?;
        let roots = Arc::new(tls::roots(CA, &self.ca, &material.ca)?);
        let provider = tls::provider();
        let identity = tls::identity(chain, key).map_err(unusable)?;

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_cert_resolver(Arc::clone(&identity) as _);
        client.resumption = Resumption::disabled();

        let signed = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let verifier = Named {
            signed: signed.build().map_err(unusable)?,
            name: self.name.clone(),
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(identity);
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(PeerTls {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}

fn unusable(error: impl ToString) -> TlsError {
    TlsError::Unusable {
        what: "certificate, key and CA of `heartbeats.peers`",
        reason: error.to_string(),
    }
}

/// Takes certificates that are signed and carry a name.
#[derive(Debug)]
struct Named {
    signed: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.signed.verify_client_cert(leaf, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(leaf)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::{
        reload::Reloaded,
        tests::{Folder, Issued, TestCa, client_config},
    };

    const NAME: &str = "peers.test";

    fn tls(folder: &Folder, ca: &TestCa, own: &Issued) -> Reloaded<PeerFiles> {
        let files = PeerFiles {
            certificate: folder.write("tls.crt", &own.certificate),
            key: folder.write("tls.key", &own.key),
            ca: folder.write("ca.crt", &ca.pem()),
            name: ServerName::try_from(NAME).expect("a name"),
        };
        Reloaded::load(files).expect("they fit together")
    }

    /// What each side has of a connection: the byte that the other says after the handshake.
    async fn meet(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    ) -> (io::Result<u8>, io::Result<u8>) {
        let (here, there) = tokio::io::duplex(16 << 10);
        let name = ServerName::try_from(NAME).expect("a name");
        let calling = async {
            let mut stream = TlsConnector::from(client).connect(name, here).await?;
            stream.write_u8(1).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        let called = async {
            let mut stream = TlsAcceptor::from(server).accept(there).await?;
            stream.write_u8(2).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        tokio::join!(calling, called)
    }

    #[tokio::test]
    async fn replicas_know_each_other_by_authority_and_name() {
        let (ca, other_ca) = (TestCa::new("ca"), TestCa::new("other"));
        let folder = Folder::new();
        let own = tls(&folder, &ca, &ca.replica(NAME));
        let own = own.load_current();
        let (caller, called) = meet(Arc::clone(&own.client), Arc::clone(&own.server)).await;
        assert_eq!((caller.ok(), called.ok()), (Some(2), Some(1)));

        let impostors = [
            ("another name", &ca, ca.replica("other.test")),
            ("no name", &ca, ca.client(NAME)),
            ("a server only", &ca, ca.server(NAME)),
            ("another authority", &other_ca, other_ca.replica(NAME)),
        ];
        for (who, authority, impostor) in impostors {
            let folder = Folder::new();
            let theirs = tls(&folder, authority, &impostor);
            let server = Arc::clone(&theirs.load_current().server);
            let (caller, _) = meet(Arc::clone(&own.client), server).await;
            assert!(caller.is_err(), "connected to {who}");
            // It trusts whomever it calls.
            let client = client_config(&ca, Some(&impostor), &[]);
            let (_, called) = meet(client, Arc::clone(&own.server)).await;
            assert!(called.is_err(), "listened to {who}");
        }
        let nobody = client_config(&ca, None, &[]);
        let (_, called) = meet(nobody, Arc::clone(&own.server)).await;
        assert!(called.is_err(), "listened to nobody");
    }

    #[test]
    fn a_new_certificate_is_put_to_use_and_a_broken_one_is_not() {
        let (ca, folder) = (TestCa::new("ca"), Folder::new());
        let own = tls(&folder, &ca, &ca.replica(NAME));
        let before = Arc::clone(&own.load_current().server);
        folder.write("tls.crt", "broken");
        assert!(matches!(own.poll(), crate::tls::reload::Outcome::Broken(_)));
        assert!(Arc::ptr_eq(&before, &own.load_current().server));
        let renewed = ca.replica(NAME);
        folder.write("tls.crt", &renewed.certificate);
        folder.write("tls.key", &renewed.key);
        assert_eq!(own.poll(), crate::tls::reload::Outcome::Changed);
        assert!(!Arc::ptr_eq(&before, &own.load_current().server));
    }
}
