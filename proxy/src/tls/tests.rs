//! Certificates made for tests, and the laws of judging them.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::*;

/// A certificate authority of a test.
pub(crate) struct TestCa(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str, usages: &[ExtendedKeyUsagePurpose], hosts: &[&str]) -> Issued {
        let hosts: Vec<String> = hosts.iter().map(|&it| it.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn server(&self, name: &str) -> Issued {
        self.issue(
            name,
            &[ExtendedKeyUsagePurpose::ServerAuth],
            &["localhost", "127.0.0.1"],
        )
    }

    pub(crate) fn client(&self, name: &str) -> Issued {
        self.issue(name, &[ExtendedKeyUsagePurpose::ClientAuth], &[])
    }

    /// For both directions.
    pub(crate) fn replica(&self, host: &str) -> Issued {
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue("replica", &usages, &[host])
    }
}

/// A folder of PEM files.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    pub(crate) fn server_files(&self, server: &Issued, client_ca: &str) -> ServerFiles {
        ServerFiles {
            certificate: self.write("tls.crt", &server.certificate),
            key: self.write("tls.key", &server.key),
            client_ca: Some(self.write("client-ca.crt", client_ca)),
            front_proxies: None,
        }
    }
}

/// What a test's client connects with.
pub(crate) fn client_config(
    ca: &TestCa,
    identity: Option<&Issued>,
    alpn: &[&[u8]],
) -> Arc<rustls::ClientConfig> {
    let path = Path::new("test");
    let roots = roots("the CA", path, ca.pem().as_bytes()).expect("a CA");
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates("the chain", path, identity.certificate.as_bytes());
            let key = private_key("the key", path, identity.key.as_bytes());
            // Sends the certificate whatever authorities the server hints at, as curl does.
            let key = rustls::sign::CertifiedKey::from_der(
                chain.expect("a chain"),
                key.expect("a key"),
                &provider(),
            );
            let key = rustls::sign::SingleCertAndKey::from(key.expect("a key of the certificate"));
            builder.with_client_cert_resolver(Arc::new(key))
        }
    };
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    Arc::new(config)
}

fn credential(issued: &Issued) -> Credential {
    let chain = certificates(
        "the chain",
        Path::new("test"),
        issued.certificate.as_bytes(),
    );
    Credential::new(Some(&chain.expect("a chain")))
}

#[test]
fn a_client_is_judged_by_the_bundle_in_force_now() {
    let (old, new, folder) = (TestCa::new("old"), TestCa::new("new"), Folder::new());
    let tls = ServerTls::load(folder.server_files(&old.server("proxy"), &old.pem()));
    let tls = tls.expect("good files");
    let client = credential(&old.client("system:node:a"));
    assert!(matches!(
        tls.judge(&client).client,
        ClientCertificate::Valid(_)
    ));

    folder.write("client-ca.crt", &(old.pem() + &new.pem()));
    assert_eq!(tls.poll_files(), reload::Outcome::Changed);
    assert!(matches!(
        tls.judge(&client).client,
        ClientCertificate::Valid(_)
    ));

    folder.write("client-ca.crt", &new.pem());
    assert_eq!(tls.poll_files(), reload::Outcome::Changed);
    assert!(matches!(
        tls.judge(&client).client,
        ClientCertificate::Invalid(_)
    ));
    let client = credential(&new.client("system:node:a"));
    assert!(matches!(
        tls.judge(&client).client,
        ClientCertificate::Valid(_)
    ));
}

#[test]
fn a_front_proxy_is_judged_by_its_own_bundle_in_force_now() {
    let (clients, folder) = (TestCa::new("clients"), Folder::new());
    let (old, new) = (TestCa::new("old"), TestCa::new("new"));
    let mut files = folder.server_files(&clients.server("proxy"), &clients.pem());
    files.front_proxies = Some(FrontProxyFile {
        ca: folder.write("front-proxy-ca.crt", &old.pem()),
        any_name: true,
    });
    let tls = ServerTls::load(files).expect("good files");
    let proves = |issued: &Issued| {
        let proof = tls.judge(&credential(issued));
        let is_valid = |it| matches!(it, ClientCertificate::Valid(_));
        (is_valid(proof.client), is_valid(proof.front_proxy))
    };
    let kubelet = clients.client("system:node:a");
    let (former, next) = (old.client("region"), new.client("region"));
    assert_eq!(proves(&kubelet), (true, false));
    assert_eq!(proves(&former), (false, true));
    assert_eq!(proves(&next), (false, false));
    assert_eq!(
        proves(&old.server("region")),
        (false, false),
        "not for clients"
    );

    folder.write("front-proxy-ca.crt", &new.pem());
    assert_eq!(tls.poll_files(), reload::Outcome::Changed);
    assert_eq!(proves(&kubelet), (true, false));
    assert_eq!(proves(&former), (false, false));
    assert_eq!(proves(&next), (false, true));

    // A bundle that signs clients too would make each of them a front proxy.
    folder.write("front-proxy-ca.crt", &(new.pem() + &clients.pem()));
    let reload::Outcome::Broken(error) = tls.poll_files() else {
        panic!("it is refused")
    };
    assert!(
        error.contains("front-proxy-ca.crt") && error.contains("anybody"),
        "{error}"
    );
    assert_eq!(proves(&kubelet), (true, false));
}

#[test]
fn one_bundle_may_sign_clients_and_front_proxies_that_are_named() {
    let (ca, folder) = (TestCa::new("ca"), Folder::new());
    let mut files = folder.server_files(&ca.server("proxy"), &ca.pem());
    let bundle = folder.write("front-proxy-ca.crt", &ca.pem());
    let shared = |any_name| {
        let ca = bundle.clone();
        Some(FrontProxyFile { ca, any_name })
    };
    files.front_proxies = shared(true);
    assert!(ServerTls::load(files.clone()).is_err());
    files.front_proxies = shared(false);
    let tls = ServerTls::load(files).expect("names are looked at");
    let proof = tls.judge(&credential(&ca.client("region")));
    assert!(matches!(proof.client, ClientCertificate::Valid(_)));
    assert!(matches!(proof.front_proxy, ClientCertificate::Valid(_)));
}

#[test]
fn clients_are_told_the_authorities_of_both_bundles() {
    let (clients, proxies) = (TestCa::new("clients"), TestCa::new("proxies"));
    let roots = |ca: &TestCa| {
        let pem = ca.pem();
        Some(roots("the CA", Path::new("test"), pem.as_bytes()).expect("a CA"))
    };
    for (bundles, hints) in [
        ((None, None), None),
        ((roots(&clients), None), Some(1)),
        ((None, roots(&proxies)), Some(1)),
        ((roots(&clients), roots(&proxies)), Some(2)),
    ] {
        let authorities = Authorities::new(bundles.0, bundles.1, &provider());
        let requested = RequestedOnly::new(&authorities.expect("usable"));
        let told = requested
            .map(|it| rustls::server::danger::ClientCertVerifier::root_hint_subjects(&it).len());
        assert_eq!(told, hints);
    }
}

#[test]
fn a_server_certificate_does_not_authenticate_a_client() {
    let (ca, folder) = (TestCa::new("ca"), Folder::new());
    let tls = ServerTls::load(folder.server_files(&ca.server("proxy"), &ca.pem()));
    let verdict = tls
        .expect("good files")
        .judge(&credential(&ca.server("other")))
        .client;
    assert!(
        matches!(verdict, ClientCertificate::Invalid(_)),
        "{verdict:?}"
    );
}

#[test]
fn no_certificate_is_neither_valid_nor_invalid() {
    let (ca, folder) = (TestCa::new("ca"), Folder::new());
    let tls = ServerTls::load(folder.server_files(&ca.server("proxy"), &ca.pem()));
    assert_eq!(
        tls.expect("good files").judge(&Credential::new(None)),
        Proof::default()
    );
}

#[test]
fn a_broken_new_file_is_reported_once_and_the_old_stays_in_force() {
    let (ca, folder) = (TestCa::new("ca"), Folder::new());
    let tls = ServerTls::load(folder.server_files(&ca.server("proxy"), &ca.pem()));
    let tls = tls.expect("good files");
    let client = credential(&ca.client("someone"));
    assert_eq!(tls.poll_files(), reload::Outcome::Unchanged);

    let other = TestCa::new("other");
    folder.write("tls.key", &other.server("proxy").key);
    folder.write("client-ca.crt", &other.pem());
    let reload::Outcome::Broken(error) = tls.poll_files() else {
        panic!("a key of another")
    };
    assert!(error.contains("certificate and key"), "{error}");
    assert_eq!(tls.poll_files(), reload::Outcome::Unchanged);
    assert!(matches!(
        tls.judge(&client).client,
        ClientCertificate::Valid(_)
    ));

    folder.write("client-ca.crt", "not PEM");
    assert!(matches!(tls.poll_files(), reload::Outcome::Broken(_)));
    fs::remove_file(folder.0.path().join("tls.crt")).expect("it was there");
    assert!(matches!(tls.poll_files(), reload::Outcome::Broken(_)));

    folder.server_files(&other.server("proxy"), &other.pem());
    assert_eq!(tls.poll_files(), reload::Outcome::Changed);
    assert!(matches!(
        tls.judge(&client).client,
        ClientCertificate::Invalid(_)
    ));
}

#[test]
fn an_error_names_the_file_and_what_is_wrong() {
    let (ca, folder) = (TestCa::new("ca"), Folder::new());
    let files = folder.server_files(&ca.server("proxy"), "nothing here");
    let error = ServerTls::load(files.clone())
        .expect_err("no PEM")
        .to_string();
    assert!(
        error.contains("client-ca.crt") && error.contains("CERTIFICATE"),
        "{error}"
    );
    let missing = ServerFiles {
        key: PathBuf::from("/does/not/exist"),
        ..files
    };
    let error = ServerTls::load(missing).expect_err("no file").to_string();
    assert!(
        error.starts_with("cannot load the key from /does/not/exist: "),
        "{error}"
    );
}
