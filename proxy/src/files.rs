//! Whether the files a configuration names can be used, for `watershed check`.
//!
//! Owns: opening each of them once and reading it as what it must hold.
//! Refuses: to judge whether they fit together or to an apiserver; that shows when the proxy starts.

use std::path::Path;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use watershed_config::{Config, FileContent, Place};

/// The files that cannot be used, in the order of the configuration: the place that names each, and
/// what is wrong with it.
pub fn unusable_files(config: &Config) -> Vec<(Place, String)> {
    let unusable = |file: &watershed_config::ReferencedFile| {
        let problem = problem(&file.path, file.content)?;
        Some((
            file.place.clone(),
            format!("{}: {problem}", file.path.display()),
        ))
    };
    config.files().iter().filter_map(unusable).collect()
}

fn problem(path: &Path, content: FileContent) -> Option<String> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    match content {
        FileContent::Certificates | FileContent::CertificateAuthorities => {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            match certificates {
                Ok(found) if !found.is_empty() => None,
                Ok(_) => Some("holds no PEM certificate".to_owned()),
                Err(error) => Some(format!("is no PEM file of certificates: {error}")),
            }
        }
        FileContent::PrivateKey => PrivateKeyDer::from_pem_slice(&text)
            .err()
            .map(|error| format!("holds no usable PEM private key: {error}")),
        FileContent::Kubeconfig => kube_client::config::Kubeconfig::read_from(path)
            .err()
            .map(|error| format!("is no kubeconfig: {error}")),
        FileContent::Token => {
            let is_empty = text.iter().all(u8::is_ascii_whitespace);
            is_empty.then(|| "holds no token".to_owned())
        }
    }
}
