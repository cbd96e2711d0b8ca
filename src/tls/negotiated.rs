//! What a handshake has agreed on.

use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use super::certificate::common_name;

/// What a handshake has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// As OpenSSL names it: `TLSv1.3`.
    pub version: &'static str,
    /// As IANA names it: `TLS_AES_128_GCM_SHA256`.
    pub cipher_suite: String,
    /// The application protocol (ALPN).
    pub alpn: Option<Vec<u8>>,
    /// Whether a session was resumed.
    pub is_resumed: bool,
    /// The peer's certificate (mTLS), shown now or in the session that was resumed.
    pub peer_certificate: Option<PeerCertificate>,
}

/// The certificate of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The common name of its subject, with control characters escaped.
    pub common_name: Option<String>,
}

impl Negotiated {
    pub(super) fn of(common: &CommonState) -> Negotiated {
        let version = match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        // rustls names the suites of TLS 1.3 TLS13_…, IANA and the backends TLS_….
        let cipher_suite = common.negotiated_cipher_suite();
        let cipher_suite = cipher_suite.map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
        let shown = common.peer_certificates().and_then(<[_]>::first);
        Negotiated {
            version,
            cipher_suite: cipher_suite.unwrap_or_default(),
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            is_resumed: is_resumed(common),
            peer_certificate: shown.map(|certificate| PeerCertificate { common_name: common_name(certificate) }),
        }
    }
}

pub(super) fn is_resumed(common: &CommonState) -> bool {
    common.handshake_kind() == Some(HandshakeKind::Resumed)
}
