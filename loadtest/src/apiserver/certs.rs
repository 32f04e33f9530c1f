//! The certificates of an embedded apiserver, and the files a person or a proxy starts from.
//!
//! Owns two authorities: the cluster's (it signs the server, clients and nodes) and the front
//! proxy's (it signs the one client that may assert identities by header). Both live as long as
//! the directory they were written to, so that a restarted server still trusts old kubeconfigs.
//! Refuses to check anything: TLS only asks for a client certificate, [`authn`](super::authn)
//! judges it, because an unknown certificate is a 401 Status and not a failed handshake.
//!
//! Invariant: every key is ECDSA P-256, so issuing one takes well under a millisecond and
//! thousands of hollow kubelets can be equipped while a demo starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// A certificate with its private key, in the forms files and rustls want.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PKCS#8 PEM.
    pub key: String,
}

impl Credential {
    /// The certificate as rustls wants it.
    ///
    /// # Errors
    /// When the PEM text holds no certificate.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .context("read a certificate")
    }

    /// The private key as rustls wants it.
    ///
    /// # Errors
    /// When the PEM text holds no private key.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("read a private key")
    }

    fn write(&self, dir: &Path, stem: &str) -> Result<()> {
        write(&dir.join(format!("{stem}.crt")), &self.certificate)?;
        write_private(&dir.join(format!("{stem}.key")), &self.key)
    }
}

/// A key that many client certificates are made for, where thousands are needed at once.
#[derive(Debug)]
pub struct SharedKey(KeyPair);

impl SharedKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self> {
        generate().map(Self)
    }

    /// The key as rustls wants it.
    ///
    /// # Errors
    /// When rustls cannot use it.
    pub fn signing(&self) -> Result<Arc<dyn rustls::sign::SigningKey>> {
        let key = PrivateKeyDer::Pkcs8(self.0.serialize_der().into());
        Ok(aws_lc_rs::sign::any_supported_type(&key)?)
    }
}

/// Both authorities and the server's own certificate.
#[derive(Debug)]
pub struct Pki {
    cluster: Authority,
    front_proxy: Authority,
    server: Credential,
}

impl Pki {
    /// Reads the authorities from `dir`, or makes new ones there; writes every other file anew.
    ///
    /// # Errors
    /// When a file cannot be read or written, or an existing key is unusable.
    pub fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let cluster = Authority::open(dir, "ca", CLUSTER_AUTHORITY)?;
        let front_proxy = Authority::open(dir, "front-proxy-ca", FRONT_PROXY_AUTHORITY)?;
        let server = cluster.server()?;
        Ok(Self {
            cluster,
            front_proxy,
            server,
        })
    }

    /// Makes authorities that no file outlives.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn ephemeral() -> Result<Self> {
        let cluster = Authority::new(CLUSTER_AUTHORITY, generate()?)?;
        Self::of(cluster)
    }

    /// The cluster authority out of its certificate and key, PEM, as [`Pki::authority_pem`] gives
    /// them; the front proxy's is new.
    ///
    /// # Errors
    /// When the key is unusable.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let cluster = Authority {
            certificate: certificate.to_owned(),
            key: KeyPair::from_pem(key).context("read the key of the authority")?,
            name: CLUSTER_AUTHORITY,
        };
        Self::of(cluster)
    }

    /// Everything that a new front proxy and a server add to the cluster authority.
    fn of(cluster: Authority) -> Result<Self> {
        let front_proxy = Authority::new(FRONT_PROXY_AUTHORITY, generate()?)?;
        let server = cluster.server()?;
        Ok(Self {
            cluster,
            front_proxy,
            server,
        })
    }

    /// Certificate and key of the cluster authority, PEM.
    #[must_use]
    pub fn authority_pem(&self) -> (String, String) {
        (self.ca().to_owned(), self.cluster.key.serialize_pem())
    }

    /// The cluster authority's certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> &str {
        &self.cluster.certificate
    }

    /// The front proxy authority's certificate, PEM.
    #[must_use]
    pub fn front_proxy_ca(&self) -> &str {
        &self.front_proxy.certificate
    }

    /// The server's certificate for `127.0.0.1`, `::1` and `localhost`.
    #[must_use]
    pub fn server(&self) -> &Credential {
        &self.server
    }

    /// A client certificate for a user (CN), in at most one group (O).
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn issue(&self, user: &str, group: Option<&str>) -> Result<Credential> {
        self.cluster.issue(client(user, group))
    }

    /// A kubelet's client certificate, `system:node:NAME` in `system:nodes`.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn issue_node(&self, name: &str) -> Result<Credential> {
        self.issue(&format!("system:node:{name}"), Some("system:nodes"))
    }

    /// A client certificate for a user in at most one group, for a key that others share: a
    /// fraction of the work of [`Pki::issue`].
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn issue_shared(
        &self,
        key: &SharedKey,
        user: &str,
        group: Option<&str>,
    ) -> Result<CertificateDer<'static>> {
        let authority = authority(self.cluster.name);
        let issuer = Issuer::from_params(&authority, &self.cluster.key);
        let certificate = client(user, group).signed_by(&key.0, &issuer)?;
        Ok(certificate.der().clone())
    }

    /// The certificate that may assert identities by header, `front-proxy-client`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn issue_front_proxy(&self) -> Result<Credential> {
        self.front_proxy.issue(client("front-proxy-client", None))
    }

    /// TLS as the apiserver does it: HTTP/2 or HTTP/1.1, any client certificate or none.
    ///
    /// # Errors
    /// When the server's own certificate is unusable.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(AnyClientCertificate {
            provider: Arc::clone(&provider),
        });
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.server.chain()?, self.server.private_key()?)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.send_tls13_tickets = 0; // Go clients keep no tickets, so they are pure cost
        Ok(Arc::new(config))
    }

    /// Writes certificates, keys, `admin.kubeconfig` and an example `watershed.yaml` into `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_files(&self, dir: &Path, address: SocketAddr) -> Result<()> {
        let dir = absolute(dir)?;
        write(&dir.join("ca.crt"), self.ca())?;
        write_private(&dir.join("ca.key"), &self.cluster.key.serialize_pem())?;
        write(&dir.join("front-proxy-ca.crt"), self.front_proxy_ca())?;
        write_private(
            &dir.join("front-proxy-ca.key"),
            &self.front_proxy.key.serialize_pem(),
        )?;
        self.server.write(&dir, "server")?;
        self.cluster.peer()?.write(&dir, "peer")?;
        let admin = self.issue("admin", Some("system:masters"))?;
        admin.write(&dir, "admin")?;
        let watershed = self.issue("watershed", Some("system:masters"))?;
        watershed.write(&dir, "watershed")?;
        self.issue_node("node-0")?.write(&dir, "node-0")?;
        self.issue_front_proxy()?.write(&dir, "front-proxy")?;
        let server = format!("https://{address}");
        for (user, credential) in [("admin", &admin), ("watershed", &watershed)] {
            let text = kubeconfig(&server, self.ca(), user, credential);
            write_private(&dir.join(format!("{user}.kubeconfig")), &text)?;
        }
        let proxy = kubeconfig(
            &format!("https://{PROXY_ADDRESS}"),
            self.ca(),
            "admin",
            &admin,
        );
        write_private(&dir.join("proxy.kubeconfig"), &proxy)?;
        write(
            &dir.join("watershed.yaml"),
            &proxy_configuration(&dir, &server),
        )
    }
}

/// Where the example proxy configuration listens.
const PROXY_ADDRESS: &str = "127.0.0.1:8443";
/// What the certificate of every replica of a proxy carries, and no other.
const PEER_NAME: &str = "watershed-peers";
const CLUSTER_AUTHORITY: &str = "watershed-loadtest-ca";
const FRONT_PROXY_AUTHORITY: &str = "watershed-loadtest-front-proxy-ca";

/// A self-signed certificate and what it signs with.
#[derive(Debug)]
struct Authority {
    certificate: String,
    key: KeyPair,
    name: &'static str,
}

impl Authority {
    fn new(name: &'static str, key: KeyPair) -> Result<Self> {
        let certificate = authority(name).self_signed(&key)?.pem();
        Ok(Self {
            certificate,
            key,
            name,
        })
    }

    fn open(dir: &Path, stem: &str, name: &'static str) -> Result<Self> {
        let (certificate, key) = (
            dir.join(format!("{stem}.crt")),
            dir.join(format!("{stem}.key")),
        );
        if !certificate.exists() || !key.exists() {
            return Self::new(name, generate()?);
        }
        let text = read(&key)?;
        let key = KeyPair::from_pem(&text).with_context(|| format!("read {}", key.display()))?;
        Ok(Self {
            certificate: read(&certificate)?,
            key,
            name,
        })
    }

    fn issue(&self, params: CertificateParams) -> Result<Credential> {
        let key = generate()?;
        // The issuer's certificate is a function of its name and key, so both suffice to sign.
        let authority = authority(self.name);
        let issuer = Issuer::from_params(&authority, &self.key);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Credential {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn server(&self) -> Result<Credential> {
        let names = [
            "127.0.0.1",
            "::1",
            "localhost",
            "kubernetes",
            "kubernetes.default.svc",
        ];
        let mut params = CertificateParams::new(names.map(String::from))?;
        params.distinguished_name = distinguished_name("kube-apiserver", None);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        self.issue(params)
    }

    /// For proxies among each other, on both sides of their connections.
    fn peer(&self) -> Result<Credential> {
        let mut params = CertificateParams::new([PEER_NAME.to_owned()])?;
        params.distinguished_name = distinguished_name(PEER_NAME, None);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        self.issue(params)
    }
}

fn generate() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn client(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(user, group);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// One group at most: `rcgen` keeps a single value per attribute.
fn distinguished_name(common_name: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Accepts every client certificate whose key the client holds; judging it is another's task.
#[derive(Debug)]
struct AnyClientCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[] // no hint: a Go client then offers whatever certificate it has
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
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn kubeconfig(server: &str, ca: &str, user: &str, credential: &Credential) -> String {
    let (ca, certificate, key) = (
        STANDARD.encode(ca),
        STANDARD.encode(&credential.certificate),
        STANDARD.encode(&credential.key),
    );
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: loadtest
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {user}@loadtest
  context: {{cluster: loadtest, user: {user}}}
current-context: {user}@loadtest
"
    )
}

/// What the embedded apiserver's authorizers are, as a proxy is told.
pub(crate) const AUTHORIZERS: &str = "authorization: {node: true, rbac: true}";

fn proxy_configuration(dir: &Path, server: &str) -> String {
    let file = |name: &str| dir.join(name).display().to_string();
    format!(
        "# A Watershed proxy in front of the embedded apiserver at {server}.
apiVersion: watershed.dev/v1alpha1
kind: ProxyConfiguration
region: local
listen:
  address: \"{PROXY_ADDRESS}\"
  certFile: {server_crt}
  keyFile: {server_key}
  clientCAFile: {ca}
admin: {{address: \"127.0.0.1:9443\"}}
upstream:
  servers: [\"{server}\"]
  caFile: {ca}
  credentials: {{kubeconfig: {kubeconfig}}}
  identity:
    mode: RequestHeader
    certFile: {front_crt}
    keyFile: {front_key}
{AUTHORIZERS}
# Coalesce answers most renewals of leases here. One proxy alone may do so from a grace period of
# 69s on, those that are peers, each with a listen address of its own, from 45s.
heartbeats:
  mode: Passthrough
  nodeMonitorGracePeriod: 90s
#  peers:
#    listen: \"127.0.0.1:8444\"
#    servers: [\"127.0.0.1:8444\", \"127.0.0.1:8445\"]
#    serverName: {PEER_NAME}
#    caFile: {ca}
#    certFile: {peer_crt}
#    keyFile: {peer_key}
",
        peer_crt = file("peer.crt"),
        peer_key = file("peer.key"),
        server_crt = file("server.crt"),
        server_key = file("server.key"),
        ca = file("ca.crt"),
        kubeconfig = file("watershed.kubeconfig"),
        front_crt = file("front-proxy.crt"),
        front_key = file("front-proxy.key"),
    )
}

fn absolute(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize()
        .with_context(|| format!("find {}", dir.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}
