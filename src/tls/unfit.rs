//! Reasons to refuse a certificate that rustls has no word for.

use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::certificate::KeyKind;

/// The least bits of an RSA key whose signatures are verified.
const LEAST_RSA: usize = 2048;

/// Why a certificate is refused, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the certificate is signed with {0}, which is not accepted: sign it again, with -sha256 of openssl x509")]
    Algorithm(String),
    #[error(
        "the RSA key that has signed has {0} bits, fewer than 2048: make a new one, by openssl genrsa -out NEW.key 3072"
    )]
    ShortKey(usize),
    #[error("the certificate says that it is of version 1 of X.509, and has extensions as only version 3 may")]
    OldWithExtensions,
    #[error(
        "the certificate is of version 1 of X.509, and its authority is restricted (nameConstraints, or a critical \
         extension that is not supported): issue it with version 3 and subjectAltName"
    )]
    ConstrainedAuthority,
    #[error("the certificate's issuer is no authority (basicConstraints, keyUsage)")]
    NoAuthority,
    #[error(
        "the certificate has no subjectAltName, and its common name counts only where `ca` names a file: name the \
         authority's file, or issue it with -addext subjectAltName=DNS:NAME"
    )]
    OnlyCommonName,
}

impl Unfit {
    /// For the content of an AlgorithmIdentifier that no verifier knows, or not with this kind of key.
    pub(super) fn algorithm(content: &[u8]) -> Unfit {
        let id = SliceReader::new(content).and_then(|mut reader| ObjectIdentifier::decode(&mut reader));
        let name = match id.map(|id| id.to_string()) {
            Ok(id) => match id.as_str() {
                "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" => "SHA-1".to_owned(),
                "1.2.840.113549.1.1.4" => "MD5".to_owned(),
                _ => format!("algorithm {id}"),
            },
            Err(_) => "an unknown algorithm".to_owned(),
        };
        Unfit::Algorithm(name)
    }

    /// If it is the key's size by which its signatures cannot be verified.
    pub(super) fn short_key(key: &SubjectPublicKeyInfoOwned) -> Option<Unfit> {
        match KeyKind::of(key) {
            KeyKind::Rsa(bits) if bits < LEAST_RSA => Some(Unfit::ShortKey(bits)),
            _ => None,
        }
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Error {
        CertificateError::Other(OtherError(Arc::new(unfit))).into()
    }
}
