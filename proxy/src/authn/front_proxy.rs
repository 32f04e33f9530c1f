//! The user a front proxy names, as the apiserver's `request/headerrequest` (1.36).
//!
//! Owns: whose word is taken, and the reading of the headers that hold it.
//! Refuses: text that is not UTF-8, where Go goes on with the bytes: it could not be asserted
//! upstream as it came.
//! Invariant: a header names nobody unless the certificate of its connection leads to the
//! authorities of front proxies, and has an allowed name where names are configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use watershed_config::RequestHeader;

use super::certificate::{Named, Subject};
use super::{AuthnError, UserInfo};
use crate::request::percent_decode;
use crate::tls::ClientCertificate;

/// Front proxies, and the headers by which they name users.
#[derive(Debug)]
pub(crate) struct FrontProxies {
    /// Common names; all where there are none.
    allowed_names: Vec<String>,
    user: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    extra_prefixes: Vec<String>,
}

impl FrontProxies {
    /// The configured ones.
    pub(crate) fn new(settings: &RequestHeader) -> Self {
        let names = |names: &[String]| {
            let names = names.iter().map(|it| HeaderName::from_bytes(it.as_bytes()));
            let names: Result<_, _> = names.collect();
            names.expect("the configuration holds names of headers")
        };
        Self {
            allowed_names: settings.allowed_names.clone(),
            user: names(&settings.username_headers),
            groups: names(&settings.group_headers),
            uid: names(&settings.uid_headers),
            extra_prefixes: settings.extra_header_prefixes.clone(),
        }
    }

    /// The user that the holder of `certificate` names; `None` when it names nobody.
    ///
    /// # Errors
    /// When the certificate is not that of a front proxy, or its words cannot be read.
    pub(super) fn user(
        &self,
        headers: &HeaderMap,
        (certificate, subject): (&ClientCertificate, &Subject),
    ) -> Named {
        match certificate {
            ClientCertificate::None => return Ok(None),
            // The case of every ordinary client: it must cost nothing.
            ClientCertificate::Invalid(reason) => {
                return Err(AuthnError::Rejected(Arc::clone(reason)));
            }
            ClientCertificate::Valid(_) if self.allowed_names.is_empty() => {}
            ClientCertificate::Valid(_) => {
                let holder = subject.user(certificate)?;
                let name = holder.as_ref().map_or("", |it| &it.name);
                if !self.allowed_names.iter().any(|it| it == name) {
                    let reason = format!("{name:?} is not the name of a front proxy");
                    return Err(AuthnError::Rejected(reason.into()));
                }
            }
        }
        let Some(name) = first(headers, &self.user)? else {
            return Ok(None);
        };
        let user = UserInfo {
            name,
            uid: first(headers, &self.uid)?.unwrap_or_default(),
            groups: self.groups(headers)?,
            extra: self.extra(headers)?,
        };
        Ok(Some(Arc::new(user.authenticated())))
    }

    /// Every line is one group: a comma is a part of its name.
    fn groups(&self, headers: &HeaderMap) -> Result<Vec<String>, AuthnError> {
        let lines = self.groups.iter().flat_map(|it| headers.get_all(it));
        lines.filter(|it| !it.is_empty()).map(text).collect()
    }

    fn extra(&self, headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, AuthnError> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for prefix in &self.extra_prefixes {
            for (name, value) in headers {
                if let Some(rest) = name.as_str().strip_prefix(prefix.as_str()) {
                    extra.entry(key(rest)?).or_default().push(text(value)?);
                }
            }
        }
        Ok(extra)
    }

    /// Removes every header that names a user, also where it is spelled with `_`.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        let names = [&self.user, &self.groups, &self.uid];
        let is_name = |spelled: &str| names.into_iter().flatten().any(|it| it.as_str() == spelled);
        let is_extra = |spelled: &str| self.extra_prefixes.iter().any(|it| spelled.starts_with(it));
        let unwanted: Vec<HeaderName> = headers
            .keys()
            .filter(|it| {
                let dashed = it.as_str().replace('_', "-");
                [it.as_str(), &dashed]
                    .into_iter()
                    .any(|it| is_name(it) || is_extra(it))
            })
            .cloned()
            .collect();
        for name in unwanted {
            headers.remove(name);
        }
    }
}

/// Of the names whose first line is not empty, the first one's first line.
fn first(headers: &HeaderMap, names: &[HeaderName]) -> Result<Option<String>, AuthnError> {
    let lines = names.iter().filter_map(|name| headers.get(name));
    let mut lines = lines.filter(|it| !it.is_empty());
    lines.next().map(text).transpose()
}

/// The key of an extra: percent escapes are decoded, all of them or, if one is bad, none.
fn key(rest: &str) -> Result<String, AuthnError> {
    match percent_decode(rest.as_bytes()) {
        None => Ok(rest.to_owned()),
        Some(decoded) => String::from_utf8(decoded).map_err(|_| not_text()),
    }
}

fn text(value: &HeaderValue) -> Result<String, AuthnError> {
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| not_text())?;
    Ok(text.to_owned())
}

fn not_text() -> AuthnError {
    AuthnError::Rejected("what the front proxy says of the user is no UTF-8".into())
}

#[cfg(test)]
mod tests;
