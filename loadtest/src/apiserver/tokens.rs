//! Service account tokens: issued by the `token` subresource, recognised as bearer tokens.
//!
//! A token is a JWT in shape, signed with a key that lives as long as the process; nothing is
//! remembered per token, so issuing any number of them costs no memory. Refuses bound objects and
//! audiences beyond naming them: the judge only needs tokens that authenticate and expire.
//!
//! Invariant: a token authenticates only if this process signed exactly its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use serde_json::{Value, json};

use super::authn::UserInfo;

/// Issues and checks service account tokens.
pub struct ServiceAccountTokens {
    key: KeyPair,
    provider: Arc<CryptoProvider>,
}

/// A fresh token and the moment it stops working.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The bearer token.
    pub token: String,
    /// When it expires.
    pub expires: Timestamp,
}

impl ServiceAccountTokens {
    /// An issuer with a key of its own.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a token key")?;
        Ok(Self {
            key,
            provider: Arc::new(aws_lc_rs::default_provider()),
        })
    }

    /// A token for an account, good for `seconds`.
    #[must_use]
    pub fn issue(&self, namespace: &str, name: &str, uid: &str, seconds: i64) -> IssuedToken {
        let now = Timestamp::now().as_second();
        let expires = now.saturating_add(seconds.clamp(1, SECONDS_MAX));
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "iat": now,
            "exp": expires,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
        });
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "typ": "JWT"}).to_string());
        let body = URL_SAFE_NO_PAD.encode(claims.to_string());
        let signed = format!("{head}.{body}");
        let signature = self
            .key
            .sign(signed.as_bytes())
            .expect("a P-256 key signs any message");
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let expires = Timestamp::from_second(expires).expect("clamped to a century");
        IssuedToken { token, expires }
    }

    /// The account a valid token belongs to.
    #[must_use]
    pub fn user(&self, token: &str) -> Option<UserInfo> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.verify(signed.as_bytes(), &signature)?;
        let (_, body) = signed.split_once('.')?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        if claims["exp"].as_i64()? <= Timestamp::now().as_second() {
            return None;
        }
        let bound = &claims["kubernetes.io"];
        let namespace = bound["namespace"].as_str()?;
        Some(UserInfo {
            name: claims["sub"].as_str()?.to_owned(),
            uid: bound["serviceaccount"]["uid"].as_str()?.to_owned(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ],
            extra: BTreeMap::new(),
        })
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Option<()> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let public = self.key.public_key_raw();
        algorithms
            .iter()
            .any(|algorithm| {
                algorithm
                    .verify_signature(public, message, signature)
                    .is_ok()
            })
            .then_some(())
    }
}

const ISSUER: &str = "https://kubernetes.default.svc";
/// A century: longer makes the expiry leave the range of times.
const SECONDS_MAX: i64 = 100 * 366 * 24 * 3600;
