//! The rules for `upstream`: servers, the proxy's own credentials, the identity it asserts.

use std::net::{IpAddr, SocketAddr};

use http::Uri;

use super::Check;
use crate::file;
use crate::{Credentials, FileContent, Upstream, UpstreamIdentity};

impl Check<'_> {
    pub(super) fn upstream(
        &mut self,
        file: file::Upstream,
        listen: Option<SocketAddr>,
    ) -> Option<Upstream> {
        let nameless = file.servers.is_empty();
        let tls = file
            .servers
            .iter()
            .any(|server| server.starts_with("https:"));
        let servers = self.servers(&file.servers, listen);
        let ca_file = self.file(
            "upstream.caFile",
            file.ca_file,
            FileContent::CertificateAuthorities,
        );
        let credentials = self.credentials(file.credentials);
        let identity = self.identity(file.identity);
        let bare = credentials
            .as_ref()
            .is_some_and(|credentials| match credentials {
                Credentials::Kubeconfig(_) | Credentials::InCluster => false,
                Credentials::ClientCertificate { .. } | Credentials::TokenFile(_) => true,
            });
        if bare && nameless {
            self.note(
                "upstream.servers",
                "no server is named; add one, as `https://10.0.0.1:6443`".into(),
            );
        }
        if bare && tls && ca_file == Some(None) {
            self.note(
                "upstream.caFile",
                "this key is missing; add the bundle that signs the servers' certificates".into(),
            );
        }
        let (servers, ca_file, credentials) = (servers?, ca_file?, credentials?);
        Some(Upstream {
            servers,
            ca_file,
            credentials,
            identity: identity?,
        })
    }

    fn servers(&mut self, servers: &[String], listen: Option<SocketAddr>) -> Option<Vec<String>> {
        let before = self.mistakes.len();
        let mut valid: Vec<String> = Vec::new();
        for (index, server) in servers.iter().enumerate() {
            let key = format!("upstream.servers[{index}]");
            match base_url(server) {
                // A URL with credentials in it is not repeated: messages end in logs.
                Err(message) if server.contains('@') => {
                    self.note(&key, format!("this URL {message}"));
                }
                Err(message) => self.note(&key, format!("`{server}` {message}")),
                Ok(url) if valid.contains(&url) => {
                    self.note(&key, format!("`{url}` is named twice; remove one"));
                }
                Ok(url) => {
                    if listen.is_some_and(|listen| calls(&url, listen)) {
                        self.note(
                            &key,
                            "this is the proxy's own `listen.address`; name an apiserver".into(),
                        );
                    }
                    valid.push(url);
                }
            }
        }
        (self.mistakes.len() == before).then_some(valid)
    }

    fn credentials(&mut self, file: file::Credentials) -> Option<Credentials> {
        let key = "upstream.credentials";
        let certificate = file.cert_file.is_some() || file.key_file.is_some();
        let kinds = usize::from(file.kubeconfig.is_some())
            + usize::from(file.in_cluster.is_some())
            + usize::from(certificate)
            + usize::from(file.token_file.is_some());
        if kinds != 1 {
            let found = if kinds == 0 {
                "no kind is named"
            } else {
                "several kinds are named"
            };
            let message = format!(
                "{found}; give exactly one of `kubeconfig`, `inCluster: true`, `tokenFile`, or \
                 `certFile` with `keyFile`"
            );
            return self.refuse(key, &message);
        }
        if let Some(in_cluster) = file.in_cluster {
            if in_cluster {
                return Some(Credentials::InCluster);
            }
            return self.refuse(
                "upstream.credentials.inCluster",
                "`false` names no credentials; write `true` or choose another kind",
            );
        }
        let kubeconfig = "upstream.credentials.kubeconfig";
        if file.kubeconfig.is_some() {
            let path = self.file(kubeconfig, file.kubeconfig, FileContent::Kubeconfig)?;
            return path.map(Credentials::Kubeconfig);
        }
        if file.token_file.is_some() {
            let token = "upstream.credentials.tokenFile";
            let path = self.file(token, file.token_file, FileContent::Token)?;
            return path.map(Credentials::TokenFile);
        }
        let cert_file = self.required_file(
            "upstream.credentials.certFile",
            file.cert_file,
            FileContent::Certificates,
        );
        let key_file = self.required_file(
            "upstream.credentials.keyFile",
            file.key_file,
            FileContent::PrivateKey,
        );
        Some(Credentials::ClientCertificate {
            cert_file: cert_file?,
            key_file: key_file?,
        })
    }

    fn identity(&mut self, file: file::Identity) -> Option<UpstreamIdentity> {
        let mode = self.required(
            "upstream.identity.mode",
            file.mode,
            "`RequestHeader` where you hold a front proxy certificate, else `Impersonate`",
        );
        let (cert, key) = ("upstream.identity.certFile", "upstream.identity.keyFile");
        match mode? {
            file::IdentityMode::RequestHeader => {
                let cert_file = self.required_file(cert, file.cert_file, FileContent::Certificates);
                let key_file = self.required_file(key, file.key_file, FileContent::PrivateKey);
                Some(UpstreamIdentity::RequestHeader {
                    cert_file: cert_file?,
                    key_file: key_file?,
                })
            }
            file::IdentityMode::Impersonate => {
                for (key, path) in [(cert, &file.cert_file), (key, &file.key_file)] {
                    if path.is_some() {
                        self.note(
                            key,
                            "has no use with `mode: Impersonate`; remove it, or write `mode: \
                             RequestHeader`"
                                .into(),
                        );
                    }
                }
                Some(UpstreamIdentity::Impersonate)
            }
        }
    }
}

/// `https://host:port`, the port always written; or what is wrong with the URL.
fn base_url(server: &str) -> Result<String, &'static str> {
    let uri: Uri = server
        .parse()
        .map_err(|_| "is not a URL; write for example `https://10.0.0.1:6443`")?;
    let scheme = uri.scheme_str().unwrap_or_default();
    if scheme != "https" && scheme != "http" {
        return Err("has no scheme; write for example `https://10.0.0.1:6443`");
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return Err("names no host; write for example `https://10.0.0.1:6443`");
    }
    if authority.contains('@') {
        return Err("contains credentials; they belong into `upstream.credentials`");
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err("has a path; name only scheme, host and port");
    }
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = address
        .parse()
        .map_or(host == "localhost", |ip: IpAddr| ip.is_loopback());
    if scheme == "http" && !loopback {
        return Err("would send credentials unencrypted; use `https`");
    }
    let port = match (uri.port_u16(), scheme) {
        (Some(0), _) => return Err("has port 0; name the port of the apiserver"),
        (Some(port), _) => port,
        (None, "https") => 443,
        (None, _) => 80,
    };
    if uri.port_u16().is_none() && authority.len() != host.len() {
        return Err("has a port that is no number from 1 to 65535");
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

/// Whether a server is surely the proxy itself.
fn calls(url: &str, listen: SocketAddr) -> bool {
    let Some((_, authority)) = url.split_once("://") else {
        return false;
    };
    authority.parse() == Ok(listen)
}

#[cfg(test)]
mod tests {
    use super::base_url;

    #[test]
    fn a_server_is_scheme_host_and_port() {
        for (server, url) in [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
            ("https://api.example.org", "https://api.example.org:443"),
            ("https://api.example.org/", "https://api.example.org:443"),
            ("https://[::1]:6443", "https://[::1]:6443"),
            ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
            ("http://localhost:8001", "http://localhost:8001"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(base_url(server).as_deref(), Ok(url));
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for server in [
            "",
            "10.0.0.1:6443",
            "api",
            "ftp://10.0.0.1",
            "https://",
            "https://10.0.0.1:6443/api",
            "https://10.0.0.1:6443?x=1",
            "https://me:secret@10.0.0.1:6443",
            "http://10.0.0.1:8080",
            "http://127.0.0.1.example.org",
            "https://10.0.0.1:0",
            "https://10.0.0.1:99999",
            "https://10.0.0.1:",
            "https://a b",
        ] {
            assert!(base_url(server).is_err(), "{server}");
        }
    }
}
