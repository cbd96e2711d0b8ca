//! Why a login cannot go on.

use thiserror::Error;

use crate::mysql::packet::MAX_PACKET;

/// Packets of the server in one login. The longest, of several factors with questions, has about ten.
pub(super) const MAX_SERVER_PACKETS: u8 = 64;

/// One of the two who log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    Client,
    Server,
}

/// Why a login cannot go on. With the side at fault in front, the text is a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginFault {
    #[error("asks for no TLS, on a listener that requires it (tls.plaintext: refuse)")]
    NoTls,
    #[error("asks for TLS, which was not offered to it")]
    TlsNotOffered,
    #[error("speaks the protocol of MySQL 4.0, or another one than MySQL's")]
    OldProtocol,
    #[error("sends a malformed login")]
    MalformedLogin,
    #[error(
        "sends a packet longer than {MAX_PACKET} bytes before the end of its login, or speaks another protocol than MySQL's"
    )]
    ClientPacketTooLong,
    #[error("sends packet {sequence} of its login where {expected} comes next")]
    OutOfOrder {
        /// The number of the packet.
        sequence: u8,
        /// The one that comes next.
        expected: u8,
    },
    #[error("answers before it is asked in its login")]
    EarlyAnswer,
    #[error(
        "sends its password by sha256_password over TLS, which does not go on to the database server: set pools[].tls with starttls: mysql"
    )]
    Sha256ToPlainServer,
    #[error("uses sha256_password without TLS, and the database server has TLS: the client must connect with TLS")]
    Sha256OfPlainClient,
    #[error(
        "needs the full authentication of caching_sha2_password without TLS, and the database server has TLS: the client must connect with TLS"
    )]
    PlainPassword,
    #[error("sends a packet longer than {MAX_PACKET} bytes before the end of a login")]
    ServerPacketTooLong,
    #[error("sends more than {MAX_SERVER_PACKETS} packets before the end of a login")]
    TooManyPackets,
    #[error("sends plain text where its TLS begins")]
    PlainServerBytes,
    #[error("sends a second packet before the client's login")]
    EarlyServerPacket,
    #[error("sends a malformed change of the authentication method")]
    MalformedSwitch,
    #[error("sends no public key (caching_sha2_password)")]
    NoPublicKey,
    #[error("sends a public key by which the client's password cannot be encrypted (caching_sha2_password)")]
    BadPublicKey,
}

impl LoginFault {
    /// Whose it is.
    pub fn of(self) -> Speaker {
        match self {
            LoginFault::NoTls
            | LoginFault::TlsNotOffered
            | LoginFault::OldProtocol
            | LoginFault::MalformedLogin
            | LoginFault::ClientPacketTooLong
            | LoginFault::OutOfOrder { .. }
            | LoginFault::EarlyAnswer
            | LoginFault::Sha256ToPlainServer
            | LoginFault::Sha256OfPlainClient
            | LoginFault::PlainPassword => Speaker::Client,
            LoginFault::ServerPacketTooLong
            | LoginFault::TooManyPackets
            | LoginFault::PlainServerBytes
            | LoginFault::EarlyServerPacket
            | LoginFault::MalformedSwitch
            | LoginFault::NoPublicKey
            | LoginFault::BadPublicKey => Speaker::Server,
        }
    }

    /// Number, SQLSTATE and message of the error for the client, of MySQL's "Server Error Message Reference":
    /// ER_SECURE_TRANSPORT_REQUIRED, ER_NOT_SUPPORTED_AUTH_MODE, ER_HANDSHAKE_ERROR, ER_NET_PACKETS_OUT_OF_ORDER. `None` for what
    /// speaks another protocol.
    pub(super) fn answer(self) -> Option<(u16, &'static [u8; 5], String)> {
        let (code, state, message) = match self {
            LoginFault::NoTls => (
                3159,
                b"HY000",
                "Connections without TLS are prohibited by the load balancer: connect with TLS (--ssl)",
            ),
            LoginFault::Sha256ToPlainServer => (
                1251,
                b"08004",
                "sha256_password needs TLS between the load balancer and the database server (pools[].tls, starttls: mysql)",
            ),
            LoginFault::Sha256OfPlainClient => {
                (1251, b"08004", "sha256_password needs TLS to the load balancer: connect with TLS (--ssl)")
            }
            LoginFault::PlainPassword => (
                1251,
                b"08004",
                "caching_sha2_password needs TLS to the load balancer for a first login: connect with TLS (--ssl)",
            ),
            LoginFault::OutOfOrder { .. } | LoginFault::EarlyAnswer => (1156, b"08S01", "Got packets out of order"),
            LoginFault::OldProtocol | LoginFault::ClientPacketTooLong => return None,
            LoginFault::TlsNotOffered | LoginFault::MalformedLogin => (1043, b"08S01", "Bad handshake"),
            _ => (1105, b"HY000", "The load balancer does not understand the database server's answer to the login"),
        };
        Some((code, state, message.to_owned()))
    }
}
