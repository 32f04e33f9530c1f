//! The files a configuration names: whether they can be used, and whether others can.
//!
//! Owns: the reading of certificates, keys, tokens and kubeconfigs, the judgement of their modes, and
//! what `watershed check` says about each.
//! Refuses: files that anybody may write to, whatever is in them: whoever writes a CA bundle chooses
//! who is let in. To judge whether files fit together; that shows when the proxy starts.
//! Invariant: what was read is zeroed when it is dropped, and its mode is that of the same open file,
//! behind all symbolic links, as a mounted Secret has them.
//!
//! A secret that others may read is a warning and no refusal: a Secret is mounted with mode 0644
//! unless its volume says otherwise.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Deref,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use watershed_config::{Config, FileContent, Place};
use zeroize::Zeroize as _;

/// The right of everybody to write.
const ANYBODY_WRITES: u32 = 0o002;
/// What a secret's mode must not allow: anything to everybody, writing to the group. The group may
/// read, as with `fsGroup`.
const EXPOSED: u32 = 0o027;

/// The bytes of a file.
pub(crate) struct Contents {
    /// What is in it.
    pub(crate) bytes: Zeroed,
    mode: u32,
}

/// Bytes that are zeroed when they are dropped.
#[derive(Default, Hash)]
pub(crate) struct Zeroed(Vec<u8>);

impl From<Vec<u8>> for Zeroed {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Zeroed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Zeroed {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Contents {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or anybody may write to it.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_file() && mode & ANYBODY_WRITES != 0 {
            return Err(io::Error::other(format!(
                "anybody may write to it (mode {mode:04o}); run `chmod o-w {}`",
                path.display()
            )));
        }
        // Room for all of it, so that growing leaves no copy of a secret behind.
        let room = usize::try_from(metadata.len()).unwrap_or_default() + 1;
        let mut bytes = Zeroed(Vec::with_capacity(room));
        file.read_to_end(&mut bytes.0)?;
        Ok(Self { bytes, mode })
    }

    /// To whom else it is open, and what to do about it, if it is a secret.
    pub(crate) fn exposure(&self, path: &Path) -> Option<String> {
        let (mode, path) = (self.mode, path.display());
        let advice = "where a Secret is mounted, give its volume `defaultMode: 0440`";
        (mode & EXPOSED != 0).then(|| {
            format!("mode {mode:04o} opens it to others; run `chmod 0600 {path}`, or, {advice}")
        })
    }
}

/// The files that cannot be used, in the order of the configuration: the place that names each, and
/// what is wrong with it.
pub fn unusable_files(config: &Config) -> Vec<(Place, String)> {
    about_files(config, |path, content| match Contents::read(path) {
        Ok(contents) => problem(path, &contents.bytes, content),
        Err(error) => Some(format!("cannot be read: {error}")),
    })
}

/// The secrets that others may read or write, in the order of the configuration: the place that names
/// each, and what to do.
pub fn exposed_files(config: &Config) -> Vec<(Place, String)> {
    about_files(config, |path, content| match content {
        FileContent::Certificates | FileContent::CertificateAuthorities => None,
        FileContent::PrivateKey | FileContent::Kubeconfig | FileContent::Token => {
            Contents::read(path).ok()?.exposure(path)
        }
    })
}

fn about_files(
    config: &Config,
    say: impl Fn(&Path, FileContent) -> Option<String>,
) -> Vec<(Place, String)> {
    let said = |file: &watershed_config::ReferencedFile| {
        let words = say(&file.path, file.content)?;
        let words = format!("{}: {words}", file.path.display());
        Some((file.place.clone(), words))
    };
    config.files().iter().filter_map(said).collect()
}

fn problem(path: &Path, text: &[u8], content: FileContent) -> Option<String> {
    match content {
        FileContent::Certificates | FileContent::CertificateAuthorities => {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            match certificates {
                Ok(found) if !found.is_empty() => None,
                Ok(_) => Some("holds no PEM certificate".to_owned()),
                Err(error) => Some(format!("is no PEM file of certificates: {error}")),
            }
        }
        FileContent::PrivateKey => match PrivateKeyDer::from_pem_slice(text) {
            Ok(mut key) => {
                key.zeroize();
                None
            }
            Err(error) => Some(format!("holds no usable PEM private key: {error}")),
        },
        FileContent::Kubeconfig => kubeconfig(path).err().map(|why| format!("is {why}")),
        FileContent::Token => {
            let is_empty = text.iter().all(u8::is_ascii_whitespace);
            is_empty.then(|| "holds no token".to_owned())
        }
    }
}

/// A kubeconfig, or what it is instead. The parser's own words would quote lines of it, which may hold
/// a key or a token.
///
/// # Errors
/// See above.
pub(crate) fn kubeconfig(path: &Path) -> Result<kube_client::config::Kubeconfig, String> {
    use kube_client::config::{Kubeconfig, KubeconfigError};
    Kubeconfig::read_from(path).map_err(|error| match error {
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => {
                let (line, column) = (at.line(), at.column());
                format!("no kubeconfig: line {line}, column {column} cannot be understood")
            }
            None => "no kubeconfig: it cannot be understood".to_owned(),
        },
        other => format!("no kubeconfig: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    #[test]
    fn who_may_read_and_write_a_secret_is_judged_by_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        fs::write(&path, "secret").expect("written");
        // As a mounted Secret: a link to a folder that is a link itself.
        symlink(folder.path(), folder.path().join("..data")).expect("a link");
        let link = folder.path().join("link");
        symlink(folder.path().join("..data/key"), &link).expect("a link");
        for (mode, is_read, is_exposed) in [
            (0o400, true, false),
            (0o440, true, false),
            (0o600, true, false),
            (0o640, true, false),
            (0o644, true, true),
            (0o660, true, true),
            (0o604, true, true),
            (0o666, false, false),
            (0o602, false, false),
        ] {
            set_mode(&path, mode);
            for path in [&path, &link] {
                match Contents::read(path) {
                    Ok(contents) => {
                        assert!(is_read, "{mode:04o} is read");
                        assert_eq!(&*contents.bytes, b"secret");
                        let exposure = contents.exposure(path);
                        assert_eq!(exposure.is_some(), is_exposed, "{mode:04o}");
                        let words = format!("mode {mode:04o} opens it to others; run `chmod 0600");
                        assert!(exposure.is_none_or(|it| it.starts_with(&words)));
                    }
                    Err(error) => {
                        assert!(!is_read, "{mode:04o}: {error}");
                        let advice = format!("`chmod o-w {}`", path.display());
                        assert!(error.to_string().ends_with(&advice), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_kubeconfig_that_cannot_be_parsed_is_not_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kubeconfig");
        for text in [
            "users:\n- name: a\n  user: {token: [s3cr3t-token]}\n",
            "users:\n- name: a\n  user:\n    token: s3cr3t-token\n   x: [\n",
            "s3cr3t-token",
            "users: s3cr3t-token",
        ] {
            fs::write(&path, text).expect("written");
            let why = kubeconfig(&path).expect_err(text);
            assert!(!why.contains("s3cr3t"), "{why}");
            assert!(why.starts_with("no kubeconfig: "), "{why}");
        }
    }
}
