//! Why a handshake failed, in sentences. What the library calls its errors reaches no log: what has no sentence here is
//! spelt out in words.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    AlertDescription, CertRevocationListError, CertificateError, Error, InvalidMessage, PeerIncompatible,
    PeerMisbehaved,
};

use super::dates::date;
use super::unfit::Unfit;

/// Why TLS failed. Displayed in words, as this side sees its peer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", explain(.0))]
pub struct TlsError(Error);

impl From<Error> for TlsError {
    fn from(error: Error) -> TlsError {
        TlsError(error)
    }
}

impl TlsError {
    /// What to change in the configuration of the side that refused, if that mends it; `ca` names the key of its file of
    /// authorities.
    pub fn remedy(&self, ca: &str) -> Option<String> {
        remedy(&self.0, ca)
    }
}

/// A failure of TLS in words, as this side sees its peer.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => certificate(why),
        Error::AlertReceived(alert) => format!("the peer refused: {}", received(*alert)),
        Error::PeerIncompatible(why) => incompatible(why),
        Error::NoApplicationProtocol => "no application protocol (ALPN) in common".to_owned(),
        Error::NoCertificatesPresented => "the peer sent no certificate".to_owned(),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge,
        ) => "the peer does not speak TLS".to_owned(),
        Error::InvalidMessage(
            InvalidMessage::MissingData(_)
            | InvalidMessage::TrailingData(_)
            | InvalidMessage::UnexpectedMessage(_)
            | InvalidMessage::IllegalEmptyList(_),
        ) => "the peer sent a malformed message".to_owned(),
        Error::InvalidMessage(InvalidMessage::DuplicateExtension(number)) => {
            format!("the peer sent a malformed message: extension {number} twice")
        }
        Error::InvalidMessage(why) => format!("the peer sent a malformed message: {}", spelt(why)),
        Error::InappropriateMessage { got_type, .. } => {
            format!("the peer sent a record out of turn: {}", spelt(got_type))
        }
        Error::InappropriateHandshakeMessage { got_type, .. } => {
            format!("the peer sent a handshake message out of turn: {}", spelt(got_type))
        }
        Error::DecryptError => {
            "a record could not be decrypted: it was changed on its way, or the peer is faulty".to_owned()
        }
        Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
            "the peer chose an application protocol (ALPN) that was not offered".to_owned()
        }
        Error::PeerMisbehaved(why) => format!("the peer broke the protocol: {}", spelt(why)),
        Error::PeerSentOversizedRecord => "the peer sent a record that is too large".to_owned(),
        Error::InvalidCertRevocationList(why) => format!("the revocation list cannot be used: {}", unusable_list(why)),
        Error::UnsupportedNameType => "no certificate could be for such a name".to_owned(),
        Error::EncryptError => "a message is too long for a record".to_owned(),
        Error::InvalidEncryptedClientHello(why) => format!("encrypted ClientHello: {}", spelt(why)),
        Error::FailedToGetCurrentTime => "the system's clock cannot be read".to_owned(),
        Error::FailedToGetRandomBytes => "the system gives no random numbers".to_owned(),
        Error::HandshakeNotComplete => "the handshake is not complete".to_owned(),
        Error::BadMaxFragmentSize => "records of such a size are not allowed".to_owned(),
        Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        // Of this program's own making, or of the cryptography's.
        Error::General(why) => why.clone(),
        Error::Other(why) => why.to_string(),
        other => spelt(other),
    }
}

fn remedy(error: &Error, ca: &str) -> Option<String> {
    let Error::InvalidCertificate(why) = error else { return None };
    Some(match why {
        CertificateError::UnknownIssuer => {
            format!("add its authority's certificate, or this one itself, to the file of {ca}")
        }
        CertificateError::UnknownRevocationStatus => {
            "add the list of each authority in its chain: openssl ca -gencrl -out LIST.pem".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "set server_name to a name that it is for, or issue it with -addext subjectAltName=DNS:NAME".to_owned()
        }
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            format!(
                "add this certificate itself to the file of {ca}, or issue it with -addext \
                 basicConstraints=critical,CA:FALSE"
            )
        }
        _ => return None,
    })
}

fn certificate(why: &CertificateError) -> String {
    let day = |at: &UnixTime| date(SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs()));
    match why {
        CertificateError::Expired => "the certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate has expired on {}", day(not_after))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid before {}", day(not_before))
        }
        CertificateError::Revoked => "the certificate was revoked".to_owned(),
        CertificateError::UnknownIssuer => "the certificate was issued by an unknown authority".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "no revocation list is of an authority in the certificate's chain".to_owned()
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list should have been replaced".to_owned()
        }
        CertificateError::BadSignature => "the certificate's signature is wrong".to_owned(),
        CertificateError::BadEncoding => "the certificate cannot be parsed".to_owned(),
        CertificateError::UnhandledCriticalExtension => {
            "the certificate has a critical extension that is not supported".to_owned()
        }
        CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = match expected {
                ServerName::IpAddress(ip) => IpAddr::from(*ip).to_string(),
                name => name.to_str().into_owned(),
            };
            format!("the certificate is not for {expected}, but for {}", names(presented))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is for another purpose (extendedKeyUsage)".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            Unfit::algorithm(signature_algorithm_id).to_string()
        }
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { signature_algorithm_id, .. } => {
            Unfit::algorithm(signature_algorithm_id).to_string()
        }
        CertificateError::InvalidOcspResponse => "the certificate's OCSP response cannot be used".to_owned(),
        CertificateError::Other(other) => match other.0.downcast_ref::<Unfit>() {
            Some(unfit) => unfit.to_string(),
            None => by_its_name(&other.to_string()),
        },
        other => format!("the certificate was refused: {}", spelt(other)),
    }
}

/// What the library only has a name for.
fn by_its_name(name: &str) -> String {
    let sentence = match name {
        "CaUsedAsEndEntity" => "the certificate is an authority's, used as if it were a server's or client's",
        "EndEntityUsedAsCa" => {
            "a certificate in the chain is no authority's, used as if it were one (basicConstraints)"
        }
        "UnsupportedCertVersion" => "a certificate in the chain is of version 1 of X.509, and is not in `ca` itself",
        "NameConstraintViolation" => "the certificate is for names that its authority may not issue (nameConstraints)",
        "PathLenConstraintViolated" => "there are more authorities between than allowed (pathlen)",
        "UnsupportedCriticalExtension" => "the certificate has a critical extension that is not supported",
        "SignatureAlgorithmMismatch" => "the certificate names two different algorithms for its signature",
        "MaximumPathBuildCallsExceeded"
        | "MaximumPathDepthExceeded"
        | "MaximumSignatureChecksExceeded"
        | "MaximumNameConstraintComparisonsExceeded" => "the certificate's chain is too long",
        other => return format!("the certificate was refused: {}", in_words(other, " ")),
    };
    sentence.to_owned()
}

/// Why a revocation list cannot be used.
pub(super) fn unusable_list(why: &CertRevocationListError) -> String {
    let sentence = match why {
        CertRevocationListError::ParseError => "it cannot be parsed",
        CertRevocationListError::UnsupportedCrlVersion => "it is of version 1",
        CertRevocationListError::UnsupportedDeltaCrl => "it has only the changes since another list (a delta)",
        CertRevocationListError::UnsupportedIndirectCrl => "it has certificates of other issuers on it",
        CertRevocationListError::IssuerInvalidForCrl => "its issuer may not sign lists (keyUsage without cRLSign)",
        CertRevocationListError::BadSignature => "its signature is wrong",
        CertRevocationListError::UnsupportedSignatureAlgorithmContext { .. }
        | CertRevocationListError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed with an algorithm that is not accepted"
        }
        CertRevocationListError::Other(other) => return in_words(&other.to_string(), " "),
        other => return spelt(other),
    };
    sentence.to_owned()
}

/// `DnsName("a")` and `IpAddress(b)`, as webpki writes them, without what is around the name. The peer chose
/// these names.
fn names(presented: &[String]) -> String {
    let bare = |text: &String| {
        let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(text);
        inner.trim_matches('"').escape_debug().take(100).collect::<String>()
    };
    let names: Vec<String> = presented.iter().take(4).map(bare).collect();
    match presented.len() {
        0 => "no name at all".to_owned(),
        count @ 5.. => format!("{} and {} more", names.join(", "), count - 4),
        _ => names.join(", "),
    }
}

fn received(alert: AlertDescription) -> String {
    let sentence = match alert {
        AlertDescription::HandshakeFailure => "nothing in common that is secure enough",
        AlertDescription::InsufficientSecurity => "what is offered is not secure enough for it",
        AlertDescription::ProtocolVersion => "no version of TLS in common",
        AlertDescription::UnknownCA => "it does not know the authority that issued our certificate",
        AlertDescription::CertificateExpired => "our certificate has expired",
        AlertDescription::CertificateRevoked => "our certificate was revoked",
        AlertDescription::BadCertificate => "our certificate is not good",
        AlertDescription::CertificateUnknown => "it does not accept our certificate",
        AlertDescription::UnsupportedCertificate => "it cannot use our kind of certificate",
        AlertDescription::CertificateRequired => "it wants a certificate of us",
        AlertDescription::AccessDenied => "our certificate is good, but not allowed here",
        AlertDescription::UnrecognisedName => "it does not know the name that was asked for",
        AlertDescription::NoApplicationProtocol => "no application protocol (ALPN) in common",
        AlertDescription::DecryptError => "a signature or a key of ours does not verify",
        AlertDescription::InternalError => "it has a fault of its own",
        AlertDescription::Unknown(number) => return format!("alert number {number}"),
        other => return alert_name(other),
    };
    format!("{sentence} ({})", alert_name(alert))
}

/// As in the IANA registry.
fn alert_name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "unknown_ca".to_owned(),
        AlertDescription::UnrecognisedName => "unrecognized_name".to_owned(),
        AlertDescription::UnknownPSKIdentity => "unknown_psk_identity".to_owned(),
        AlertDescription::EncryptedClientHelloRequired => "ech_required".to_owned(),
        other => in_words(&format!("{other:?}"), "_"),
    }
}

fn incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common".to_owned(),
        PeerIncompatible::NoKxGroupsInCommon => "no key exchange group in common".to_owned(),
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "the peer cannot verify our kind of key: no signature scheme in common".to_owned()
        }
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "no version of TLS in common".to_owned(),
        other => format!("the peer lacks what is needed: {}", spelt(other)),
    }
}

/// The name of an error, which is all that the library says of it, in words.
fn spelt(name: &impl Debug) -> String {
    in_words(&format!("{name:?}"), " ")
}

/// `NoKxGroup` as `no key exchange group`, up to what is in brackets.
fn in_words(name: &str, between: &str) -> String {
    let end = name.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(name.len());
    let letters = &name.as_bytes()[..end];
    let mut words: Vec<String> = Vec::new();
    for (place, letter) in letters.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| letters.get(before));
        let is_next_lower = letters.get(place + 1).is_some_and(u8::is_ascii_lowercase);
        let begins =
            letter.is_ascii_uppercase() && before.is_none_or(|before| !before.is_ascii_uppercase() || is_next_lower);
        if begins || words.is_empty() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(char::from(letter.to_ascii_lowercase()));
        }
    }
    let whole = |word: String| match word.as_str() {
        _ if between != " " => word,
        "kx" => "key exchange".to_owned(),
        "cert" => "certificate".to_owned(),
        "sig" => "signature".to_owned(),
        "ems" => "extended master secret".to_owned(),
        "ccs" => "ChangeCipherSpec".to_owned(),
        "tls12" => "TLS 1.2".to_owned(),
        "tls13" => "TLS 1.3".to_owned(),
        "ech" | "psk" | "sct" | "dh" | "ec" | "crl" | "ocsp" | "der" | "eku" | "quic" => word.to_ascii_uppercase(),
        _ => word,
    };
    words.into_iter().map(whole).collect::<Vec<String>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_names_are_few_short_and_on_one_line() {
        let dns = |name: &str| format!("DnsName(\"{name}\")");
        assert_eq!(names(&[dns("a.org"), "IpAddress(10.0.0.1)".to_owned()]), "a.org, 10.0.0.1");
        assert_eq!(names(&[]), "no name at all");
        assert_eq!(names(&["a", "b", "c", "d", "e", "f"].map(dns)), "a, b, c, d and 2 more");
        assert_eq!(names(&[dns("a\nb")]), "a\\nb");
        assert_eq!(names(&[dns(&"a".repeat(1000))]).len(), 100);
    }

    /// Every variant there is, those with something inside by one value.
    #[test]
    fn no_name_of_the_library_is_shown() {
        let mut said: Vec<String> = vec![
            explain(&Error::InvalidMessage(InvalidMessage::MissingData("ServerHelloPayload"))),
            explain(&Error::InvalidMessage(InvalidMessage::UnsupportedCurveType)),
            explain(&Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests)),
            explain(&Error::PeerMisbehaved(PeerMisbehaved::IllegalHelloRetryRequestWithWrongSessionId)),
            explain(&Error::PeerIncompatible(PeerIncompatible::KeyShareExtensionRequired)),
            explain(&Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(None))),
            explain(&Error::InappropriateMessage {
                expect_types: vec![],
                got_type: rustls::ContentType::ApplicationData,
            }),
            explain(&Error::InappropriateHandshakeMessage {
                expect_types: vec![],
                got_type: rustls::HandshakeType::ServerHelloDone,
            }),
            explain(&Error::InappropriateHandshakeMessage {
                expect_types: vec![],
                got_type: rustls::HandshakeType::Unknown(99),
            }),
            explain(&CertificateError::ApplicationVerificationFailure.into()),
            explain(&CertificateError::InvalidOcspResponse.into()),
            explain(&Error::InvalidCertRevocationList(CertRevocationListError::InvalidCrlNumber)),
            by_its_name("UnsupportedNameType"),
            by_its_name("TrailingData(SomeTypeId)"),
        ];
        said.extend((0..=255).map(|number| explain(&Error::AlertReceived(number.into()))));
        let allowed = ["TLS", "ALPN", "OCSP", "CRL", "X.509", "(", "ChangeCipherSpec", "ClientHello", "QUIC"];
        for said in said {
            let bare = allowed.iter().fold(said.clone(), |text, word| text.replace(word, ""));
            let has_capital = |word: &str| word.chars().any(|letter| letter.is_ascii_uppercase());
            assert!(!bare.split_whitespace().any(has_capital), "{said}");
            assert!(!said.contains("{") && !said.contains("\""), "{said}");
        }
        assert_eq!(spelt(&PeerMisbehaved::TooManyKeyUpdateRequests), "too many key update requests");
        assert_eq!(spelt(&PeerMisbehaved::WrongGroupForKeyShare), "wrong group for key share");
        assert_eq!(alert_name(AlertDescription::BadRecordMac), "bad_record_mac");
        assert_eq!(alert_name(AlertDescription::BadCertificateStatusResponse), "bad_certificate_status_response");
    }
}
