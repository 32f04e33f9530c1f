//! Who the proxy is to the apiservers, out of a kubeconfig, a pod's service account or files.
//!
//! Owns: reading each kind into one shape, and the rustls configurations made of it.
//! Refuses: exec plugins and auth providers, which run programs of others; passwords; disabled
//! verification; tunnelling proxies. Each refusal says what to use instead.
//! Invariant: what is in force was read in one pass. Connections made with another certificate or
//! CA are told apart by [`Tls::fingerprint`] and get no new request.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::HeaderValue;
use kube_client::config::{AuthInfo, Cluster};
use rustls::ClientConfig;
use secrecy::ExposeSecret;

use crate::{
    files::{Zeroed, kubeconfig},
    tls::{self, ALPN_H2, ALPN_HTTP1, Secret, TlsError, reload::Source},
};

use super::{AssertedIdentity, CredentialSource, Pool, UpstreamOptions};

/// The CA bundle of a pod's service account.
const IN_CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// The token of a pod's service account.
const IN_CLUSTER_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What the upstream settings refer to; read again when it changes.
#[derive(Debug)]
pub(super) struct Credentials {
    source: CredentialSource,
    ca_file: Option<PathBuf>,
    front_proxy: Option<(PathBuf, PathBuf)>,
    /// Some server is spoken to over TLS.
    tls: bool,
}

/// The bytes of it all.
#[derive(Default, Hash)]
pub(super) struct Material {
    ca: Option<Pem>,
    own: Option<(Pem, Pem)>,
    front_proxy: Option<(Pem, Pem)>,
    token: Option<Zeroed>,
    /// Files with secrets that others may read, and what to do about each.
    exposures: Vec<(PathBuf, String)>,
}

/// PEM text and where it came from.
#[derive(Hash)]
struct Pem(PathBuf, Zeroed);

/// The proxy's identities, ready to connect with.
#[derive(Debug)]
pub(super) struct Identities {
    own: Tls,
    asserted: Option<Tls>,
    bare: Tls,
    token: Option<HeaderValue>,
}

/// How to connect with one identity.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    /// Offers HTTP/2 and HTTP/1.1; `None` when every server is plain HTTP.
    pub(super) any: Option<Arc<ClientConfig>>,
    /// Offers HTTP/1.1 alone.
    pub(super) http1: Option<Arc<ClientConfig>>,
    /// Of certificate, key and CA.
    pub(super) fingerprint: u64,
}

impl Identities {
    /// How to connect for `pool`.
    pub(super) fn tls(&self, pool: Pool) -> &Tls {
        match pool {
            Pool::Own => &self.own,
            Pool::Asserted => self.asserted.as_ref().unwrap_or(&self.own),
            Pool::Bare => &self.bare,
        }
    }

    /// The proxy's bearer token, where requests of `pool` carry it.
    pub(super) fn token(&self, pool: Pool) -> Option<&HeaderValue> {
        match pool {
            Pool::Own => self.token.as_ref(),
            Pool::Asserted if self.asserted.is_none() => self.token.as_ref(),
            Pool::Asserted | Pool::Bare => None,
        }
    }
}

impl Credentials {
    pub(super) fn new(options: &UpstreamOptions, tls: bool) -> Self {
        Self {
            source: options.credentials.clone(),
            ca_file: options.ca_file.clone(),
            front_proxy: match &options.asserted {
                AssertedIdentity::RequestHeader { certificate, key } => {
                    Some((certificate.clone(), key.clone()))
                }
                AssertedIdentity::Impersonate => None,
            },
            tls,
        }
    }

    fn read_own(&self, material: &mut Material) -> Result<(), TlsError> {
        match &self.source {
            CredentialSource::Kubeconfig(path) => read_kubeconfig(path, material),
            CredentialSource::InCluster => {
                material.ca = Some(pem("the service account's CA", Path::new(IN_CLUSTER_CA))?);
                material.token = Some(material.token(Path::new(IN_CLUSTER_TOKEN))?);
                Ok(())
            }
            CredentialSource::Files {
                certificate,
                token: file,
            } => {
                if let Some((certificate, key)) = certificate {
                    material.own = Some((
                        pem("the client certificate", certificate)?,
                        material.secret("the client key", key)?,
                    ));
                }
                material.token = file.as_deref().map(|it| material.token(it)).transpose()?;
                Ok(())
            }
        }
    }
}

impl Source for Credentials {
    type Material = Material;
    type Output = Identities;

    fn read(&self) -> Result<Material, TlsError> {
        let mut material = Material::default();
        self.read_own(&mut material)?;
        if let Some(path) = &self.ca_file {
            material.ca = Some(pem("the upstream CA", path)?);
        }
        if let Some((certificate, key)) = &self.front_proxy {
            material.front_proxy = Some((
                pem("the front proxy's certificate", certificate)?,
                material.secret("the front proxy's key", key)?,
            ));
        }
        Ok(material)
    }

    fn build(&self, material: &Material) -> Result<Identities, TlsError> {
        for (path, exposure) in &material.exposures {
            tls::warn_exposed(path, exposure);
        }
        let token = material.token.as_ref().map(|it| bearer(it)).transpose()?;
        if !self.tls {
            let plain = Tls {
                any: None,
                http1: None,
                fingerprint: 0,
            };
            let asserted = self.front_proxy.is_some().then(|| plain.clone());
            return Ok(Identities {
                own: plain.clone(),
                asserted,
                bare: plain,
                token,
            });
        }
        let Some(ca) = &material.ca else {
            return Err(unusable(
                "the credentials bring no CA bundle; set upstream.caFile",
            ));
        };
        let front_proxy = material.front_proxy.as_ref();
        Ok(Identities {
            own: Tls::new(ca, material.own.as_ref())?,
            asserted: front_proxy.map(|it| Tls::new(ca, Some(it))).transpose()?,
            bare: Tls::new(ca, None)?,
            token,
        })
    }
}

impl Material {
    /// The bytes of a file that nobody else should read.
    fn secret(&mut self, what: &'static str, path: &Path) -> Result<Pem, TlsError> {
        let Secret { bytes, exposure } = Secret::read(what, path)?;
        let exposed = exposure.map(|it| (path.to_owned(), it));
        self.exposures.extend(exposed);
        Ok(Pem(path.to_owned(), bytes))
    }

    /// The token in a file.
    fn token(&mut self, path: &Path) -> Result<Zeroed, TlsError> {
        let Pem(_, bytes) = self.secret("the token", path)?;
        match bytes.trim_ascii() {
            b"" => Err(file(path, "it holds no token")),
            token => Ok(token.to_vec().into()),
        }
    }
}

impl Tls {
    fn new(ca: &Pem, identity: Option<&(Pem, Pem)>) -> Result<Self, TlsError> {
        let roots = tls::roots("the upstream CA", &ca.0, &ca.1)?;
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let mut any = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain =
                    tls::certificates("the client certificate", &certificate.0, &certificate.1)?;
                let key = tls::private_key("the client key", &key.0, &key.1)?;
                let identity = tls::identity(chain, key).map_err(unusable)?;
                builder.with_client_cert_resolver(identity)
            }
        };
        any.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        let mut http1 = any.clone();
        http1.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        let mut hasher = DefaultHasher::new();
        (ca, identity).hash(&mut hasher);
        Ok(Self {
            any: Some(Arc::new(any)),
            http1: Some(Arc::new(http1)),
            fingerprint: hasher.finish(),
        })
    }
}

/// The server the credentials name, with the name its certificate must have when that is another.
pub(super) fn server(source: &CredentialSource) -> Result<(String, Option<String>), TlsError> {
    match source {
        CredentialSource::Kubeconfig(path) => {
            let (cluster, _) = current_context(path)?;
            match cluster.server {
                Some(server) => Ok((server, cluster.tls_server_name)),
                None => Err(file(path, "its cluster has no server")),
            }
        }
        CredentialSource::InCluster => match kube_client::Config::incluster_env() {
            Ok(config) => Ok((config.cluster_url.to_string(), None)),
            Err(error) => Err(unusable(format!("not running in a pod: {error}"))),
        },
        CredentialSource::Files { .. } => Err(unusable(
            "upstream.servers is empty and the credentials name no server",
        )),
    }
}

fn read_kubeconfig(path: &Path, material: &mut Material) -> Result<(), TlsError> {
    material.secret("credentials", path)?;
    let (cluster, user) = current_context(path)?;
    let ca = inline_or_file(
        path,
        "certificate-authority-data",
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
    )?;
    let certificate = inline_or_file(
        path,
        "client-certificate-data",
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
    )?;
    let inline = user.client_key_data.as_ref();
    let inline = inline.map(ExposeSecret::expose_secret);
    let key = match (inline, &user.client_key) {
        (None | Some(""), Some(path)) if !path.is_empty() => {
            Some(material.secret("client-key", Path::new(path))?)
        }
        (inline, _) => inline_or_file(path, "client-key-data", inline, None)?,
    };
    material.ca = ca;
    material.own = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (_, _) => {
            return Err(file(
                path,
                "it has a client certificate or a key without the other",
            ));
        }
    };
    material.token = match (&user.token_file, &user.token) {
        (Some(path), _) => Some(material.token(Path::new(path))?),
        (None, inline) => inline
            .as_ref()
            .map(|it| it.expose_secret().as_bytes().to_vec().into()),
    };
    Ok(())
}

/// The cluster and the user of the current context, once it is known that they can be used.
fn current_context(path: &Path) -> Result<(Cluster, AuthInfo), TlsError> {
    let config = kubeconfig(path).map_err(|error| file(path, error))?;
    let Some(name) = &config.current_context else {
        return Err(file(path, "it has no current-context"));
    };
    let context = config.contexts.iter().find(|it| it.name == *name);
    let Some(context) = context.and_then(|it| it.context.as_ref()) else {
        return Err(file(
            path,
            format!("its current-context {name:?} does not exist"),
        ));
    };
    let cluster = config.clusters.iter().find(|it| it.name == context.cluster);
    let Some(cluster) = cluster.and_then(|it| it.cluster.clone()) else {
        return Err(file(
            path,
            format!("its cluster {:?} does not exist", context.cluster),
        ));
    };
    let user = config
        .auth_infos
        .iter()
        .find(|it| Some(&it.name) == context.user.as_ref());
    let user = user.and_then(|it| it.auth_info.clone()).unwrap_or_default();
    match unsupported(&cluster, &user) {
        Some(reason) => Err(file(path, reason)),
        None => Ok((cluster, user)),
    }
}

fn unsupported(cluster: &Cluster, user: &AuthInfo) -> Option<&'static str> {
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Some(
            "exec plugins and auth providers are not supported; use a client certificate, \
             tokenFile, or credentials: {inCluster: true}",
        );
    }
    if user.username.is_some() || user.password.is_some() {
        return Some("apiservers know no passwords; use a client certificate or a token");
    }
    if user.impersonate.is_some() {
        return Some(
            "the proxy's own identity cannot be an impersonated one; name the user itself",
        );
    }
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Some("insecure-skip-tls-verify is not supported; set certificate-authority-data");
    }
    if cluster.proxy_url.is_some() {
        return Some("proxy-url is not supported; the proxy must reach the apiserver itself");
    }
    None
}

fn inline_or_file(
    kubeconfig: &Path,
    what: &'static str,
    inline: Option<&str>,
    path: Option<&str>,
) -> Result<Option<Pem>, TlsError> {
    match (
        inline.filter(|it| !it.is_empty()),
        path.filter(|it| !it.is_empty()),
    ) {
        (Some(text), _) => {
            let bytes = BASE64_STANDARD
                .decode(text.trim())
                .map_err(|error| file(kubeconfig, format!("its {what} is no base64: {error}")))?;
            Ok(Some(Pem(kubeconfig.to_owned(), bytes.into())))
        }
        (None, Some(path)) => Ok(Some(pem(what, Path::new(path))?)),
        (None, None) => Ok(None),
    }
}

fn pem(what: &'static str, path: &Path) -> Result<Pem, TlsError> {
    Ok(Pem(path.to_owned(), tls::read(what, path)?))
}

/// The header with the token, which is zeroed when nobody uses the header any more.
fn bearer(token: &[u8]) -> Result<HeaderValue, TlsError> {
    let text = Zeroed::from([b"Bearer ", token].concat());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))
        .map_err(|_| unusable("the token has bytes that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn file(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File {
        what: "credentials",
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn unusable(reason: impl ToString) -> TlsError {
    TlsError::Unusable {
        what: "upstream credentials",
        reason: reason.to_string(),
    }
}
