//! Certificates that no well-behaved authority would sign.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use watershed_loadtest::apiserver::certs::{Credential, Pki};

/// A certificate for clients, of the cluster's authority, with this common name and whatever
/// `change` makes of it.
pub(crate) fn issue(
    pki: &Pki,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> anyhow::Result<Credential> {
    let mut authority = named("watershed-loadtest-ca");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (_, key) = pki.authority_pem();
    let issuer = Issuer::from_params(&authority, KeyPair::from_pem(&key)?);
    let mut params = named(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Credential {
        certificate: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
