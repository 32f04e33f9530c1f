//! The user a client certificate names, as the apiserver's `request/x509` (1.36).

use std::{
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

use super::{AuthnError, UserInfo};
use crate::tls::{ClientCertificate, Leaf, sha256};

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";
const USER_UID: &str = "1.3.6.1.4.1.57683.2";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Whom a certificate names; `None` with an empty common name.
pub(super) type Named = Result<Option<Arc<UserInfo>>, AuthnError>;

/// Whom the certificate of one connection names, read when it is first asked for. It says nothing
/// about whether the certificate is to be believed: that is judged for every request.
#[derive(Debug, Default)]
pub(crate) struct Subject(OnceLock<(Leaf, Named)>);

impl Subject {
    /// Whether a certificate is to be believed and names this user.
    pub(crate) fn names(&self, user: &UserInfo, certificate: &ClientCertificate) -> bool {
        matches!(self.user(certificate), Ok(Some(named)) if *named == *user)
    }

    /// The user; `None` without a certificate or with an empty common name.
    ///
    /// # Errors
    /// When the certificate must not be believed or cannot be read.
    pub(super) fn user(&self, certificate: &ClientCertificate) -> Named {
        match certificate {
            ClientCertificate::None => Ok(None),
            ClientCertificate::Invalid(reason) => Err(AuthnError::Rejected(Arc::clone(reason))),
            ClientCertificate::Valid(leaf) => {
                let (read, named) = self.0.get_or_init(|| (leaf.clone(), name(leaf)));
                if read.is(leaf) {
                    named.clone()
                } else {
                    name(leaf)
                }
            }
        }
    }
}

/// Whom this certificate names.
pub(super) fn name(leaf: &Leaf) -> Named {
    let user = parse(leaf)?;
    Ok(user.map(|user| Arc::new(user.authenticated())))
}

/// The user a leaf certificate in DER names.
fn parse(der: &[u8]) -> Result<Option<UserInfo>, AuthnError> {
    let reject = |reason: &str| AuthnError::Rejected(reason.into());
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| reject(&format!("cannot read the client certificate: {error}")))?;
    let mut user = UserInfo::default();
    let mut uid = None;
    for attribute in certificate.subject().iter_attributes() {
        match attribute.attr_type().to_id_string().as_str() {
            // Go keeps the last of several.
            COMMON_NAME => user.name = text(attribute)?,
            ORGANIZATION => user.groups.push(text(attribute)?),
            USER_UID if uid.is_some() => return Err(reject("several user UIDs in the subject")),
            USER_UID => uid = Some(text(attribute)?),
            _ => {}
        }
    }
    if user.name.is_empty() {
        return Ok(None);
    }
    if uid.as_deref() == Some("") {
        return Err(reject("the user UID in the subject is empty"));
    }
    user.uid = uid.unwrap_or_default();
    let credential = format!("X509SHA256={}", fingerprint(der));
    user.extra
        .insert(CREDENTIAL_ID.to_owned(), vec![credential]);
    Ok(Some(user))
}

/// A value of one of the string types; others are refused rather than read differently from Go.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, AuthnError> {
    attribute.as_str().map(str::to_owned).map_err(|_| {
        AuthnError::Rejected("the subject has a string type that is not supported".into())
    })
}

fn fingerprint(der: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in sha256(der) {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
    }
    hex
}
