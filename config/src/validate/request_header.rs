//! The rules for `authentication.requestHeader`: who may speak for others, and by which headers.

use std::path::Path;

use http::HeaderName;

use super::Check;
use crate::{FileContent, RequestHeader, file};

const KEY: &str = "authentication.requestHeader";

impl Check<'_> {
    /// The outer `None` is a mistake.
    #[expect(
        clippy::option_option,
        reason = "absent and wrong are different answers"
    )]
    pub(super) fn request_header(
        &mut self,
        file: &file::RequestHeader,
        client_ca_file: Option<&Path>,
    ) -> Option<Option<RequestHeader>> {
        if !self.tree.has(KEY) {
            return Some(None);
        }
        let path = self.required_file(
            &format!("{KEY}.clientCAFile"),
            file.client_ca_file.clone(),
            FileContent::CertificateAuthorities,
        );
        let names = self.allowed_names(&file.allowed_names);
        if path.is_some() && path.as_deref() == client_ca_file && file.allowed_names.is_empty() {
            self.note(
                &format!("{KEY}.clientCAFile"),
                "this bundle signs all clients, so each of them could be anybody; use another one, \
                 or name the front proxies in `allowedNames`"
                    .into(),
            );
        }
        let username_headers = self.header_names("usernameHeaders", &file.username_headers);
        if file.username_headers.is_empty() {
            self.note(
                &format!("{KEY}.usernameHeaders"),
                "without a header for the name nobody could be named; add `X-Remote-User`".into(),
            );
        }
        let group_headers = self.header_names("groupHeaders", &file.group_headers);
        let uid_headers = self.header_names("uidHeaders", &file.uid_headers);
        let prefixes = self.header_names("extraHeaderPrefixes", &file.extra_header_prefixes);
        Some(Some(RequestHeader {
            client_ca_file: path?,
            allowed_names: names?,
            username_headers: username_headers?,
            group_headers: group_headers?,
            uid_headers: uid_headers?,
            extra_header_prefixes: prefixes?,
        }))
    }

    fn allowed_names(&mut self, names: &[String]) -> Option<Vec<String>> {
        let empty = names.iter().position(String::is_empty);
        if let Some(index) = empty {
            let key = format!("{KEY}.allowedNames[{index}]");
            return self.refuse(&key, "a common name is never empty here; remove it");
        }
        Some(names.to_vec())
    }

    /// The names in lower case.
    fn header_names(&mut self, list: &str, names: &[String]) -> Option<Vec<String>> {
        let mut valid = Some(Vec::new());
        for (index, name) in names.iter().enumerate() {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => {
                    if let Some(valid) = &mut valid {
                        valid.push(name.as_str().to_owned());
                    }
                }
                Err(_) => {
                    let message = format!("`{name}` is not the name of a header");
                    self.note(&format!("{KEY}.{list}[{index}]"), message);
                    valid = None;
                }
            }
        }
        valid
    }
}
