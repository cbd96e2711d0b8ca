//! Why a handshake failed, in sentences.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertRevocationListError, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::report::date;

/// A failure of TLS as it is shown to people: what is so, from this side's view of its peer.
pub fn explain(error: &Error) -> String {
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
        Error::InvalidMessage(why) => format!("the peer sent a broken message ({why:?})"),
        Error::InappropriateMessage { got_type, .. } => format!("the peer sent {got_type:?} out of turn"),
        Error::InappropriateHandshakeMessage { got_type, .. } => format!("the peer sent {got_type:?} out of turn"),
        Error::DecryptError => {
            "a record could not be decrypted: it was changed on its way, or the peer is faulty".to_owned()
        }
        Error::PeerMisbehaved(why) => format!("the peer broke the protocol ({why:?})"),
        Error::PeerSentOversizedRecord => "the peer sent a record that is too large".to_owned(),
        Error::InvalidCertRevocationList(CertRevocationListError::ParseError) => {
            "the revocation list cannot be parsed".to_owned()
        }
        other => other.to_string(),
    }
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
        CertificateError::BadSignature => "the certificate's signature is wrong".to_owned(),
        CertificateError::BadEncoding => "the certificate cannot be parsed".to_owned(),
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
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed by an algorithm that is not supported".to_owned()
        }
        CertificateError::Other(other) => match other.to_string() {
            text if text.contains("CaUsedAsEndEntity") => {
                "the certificate is an authority's, used as if it were a server's or client's".to_owned()
            }
            text if text.contains("UnsupportedCertVersion") => {
                "the certificate is not of version 3 of X.509".to_owned()
            }
            text => format!("the certificate was refused ({text})"),
        },
        other => format!("the certificate was refused ({other})"),
    }
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
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "nothing in common that is secure enough (handshake_failure)"
        }
        AlertDescription::ProtocolVersion => "no version of TLS in common (protocol_version)",
        AlertDescription::UnknownCA => "it does not know the authority that issued our certificate (unknown_ca)",
        AlertDescription::CertificateExpired => "our certificate has expired (certificate_expired)",
        AlertDescription::CertificateRevoked => "our certificate was revoked (certificate_revoked)",
        AlertDescription::BadCertificate => "our certificate is not good (bad_certificate)",
        AlertDescription::CertificateUnknown => "it does not accept our certificate (certificate_unknown)",
        AlertDescription::UnsupportedCertificate => "it cannot use our kind of certificate (unsupported_certificate)",
        AlertDescription::CertificateRequired => "it wants a certificate of us (certificate_required)",
        AlertDescription::AccessDenied => "our certificate is good, but not allowed here (access_denied)",
        AlertDescription::UnrecognisedName => "it does not know the name that was asked for (unrecognized_name)",
        AlertDescription::NoApplicationProtocol => "no application protocol (ALPN) in common (no_application_protocol)",
        AlertDescription::DecryptError => "a signature or a key of ours does not verify (decrypt_error)",
        other => return format!("{other:?}"),
    };
    sentence.to_owned()
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
        other => format!("the peer lacks what is needed ({other:?})"),
    }
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
}
