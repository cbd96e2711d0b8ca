//! PROXY protocol headers for backends.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use super::header::Ends;
use super::tlv::{ALPN, AUTHORITY, ReceivedTlvs, SSL, UNIQUE_ID, push as push_whole};
use super::v2;

/// Bytes of the longest value that is sent in a TLV. Real ones are far shorter; what is longer, such as a monstrous
/// common name in a client's certificate, is left out, as cut off it would be another name.
const MAX_VALUE: usize = 1024;

/// Bytes of the longest unique identifier (section 2.2.5).
const MAX_UNIQUE_ID: usize = 128;

const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;

const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

/// The PROXY protocol header for a backend. Version 1 has room for `client` only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The client's connection. `None` for the load balancer's own, such as a health check, and for one that came by a unix
    /// socket: the header would have to name its paths, of which the client has none.
    pub client: Option<Ends>,
    /// The server name that the client asked for (SNI).
    pub authority: Option<&'a str>,
    /// The application protocol that was negotiated, or that the client offered alone.
    pub alpn: Option<&'a [u8]>,
    /// What names the connection in logs: 128 bytes at most.
    pub unique_id: Option<&'a [u8]>,
    /// If TLS ended here.
    pub tls: Option<TlsFacts<'a>>,
    /// It is a session of datagrams.
    pub datagrams: bool,
    /// What a trusted peer's header said beyond that. What is known here wins.
    pub received: Option<&'a ReceivedTlvs>,
}

/// The TLS that was terminated (section 2.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFacts<'a> {
    /// Such as `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite's name, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'a str,
    /// The client's certificate.
    pub certificate: ClientCertificate<'a>,
    /// Whether it was verified: one that does not verify ends the connection, and `client_auth.mode: request` verifies none.
    pub verified: bool,
}

/// A client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate<'a> {
    /// It showed none.
    None,
    /// It showed one on this connection.
    Shown {
        /// The subject's common name, if it has one.
        common_name: Option<&'a str>,
    },
    /// It showed one on the connection that this one resumes.
    Resumed {
        /// The subject's common name, if it has one.
        common_name: Option<&'a str>,
    },
}

impl Outgoing<'_> {
    /// The header as a line of text.
    pub fn v1(&self) -> Vec<u8> {
        let Some((source, destination)) = self.client.map(same_family) else { return b"PROXY UNKNOWN\r\n".to_vec() };
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (text(source.ip()), text(destination.ip()));
        format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
    }

    /// The header in its binary form. Without a client it is that of a LOCAL connection, which every receiver has to
    /// accept.
    pub fn v2(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        let command_family = match self.client.map(same_family) {
            None => [0x20, 0x00],
            Some((source, destination)) => {
                for address in [source, destination] {
                    match address.ip() {
                        IpAddr::V4(ip) => rest.extend_from_slice(&ip.octets()),
                        IpAddr::V6(ip) => rest.extend_from_slice(&ip.octets()),
                    }
                }
                rest.extend_from_slice(&source.port().to_be_bytes());
                rest.extend_from_slice(&destination.port().to_be_bytes());
                [0x21, if source.is_ipv4() { 0x10 } else { 0x20 } | if self.datagrams { 2 } else { 1 }]
            }
        };
        push(&mut rest, ALPN, self.alpn);
        push(&mut rest, AUTHORITY, self.authority.map(str::as_bytes));
        push(&mut rest, UNIQUE_ID, self.unique_id.filter(|id| id.len() <= MAX_UNIQUE_ID));
        if let Some(tls) = &self.tls {
            tls.push(&mut rest);
        }
        let is_known = |kind: u8| match kind {
            ALPN => self.alpn.is_some(),
            AUTHORITY => self.authority.is_some(),
            UNIQUE_ID => self.unique_id.is_some(),
            SSL => self.tls.is_some(),
            _ => false,
        };
        let received = self.received.into_iter().flat_map(ReceivedTlvs::iter);
        received.filter(|(kind, _)| !is_known(*kind)).for_each(|(kind, value)| push_whole(&mut rest, kind, value));

        let mut header = v2::SIGNATURE.to_vec();
        header.extend_from_slice(&command_family);
        // Seven values of MAX_VALUE at most, the addresses, and 4 KiB of what was received.
        header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
        header.extend_from_slice(&rest);
        header
    }
}

impl TlsFacts<'_> {
    fn push(&self, to: &mut Vec<u8>) {
        let (flags, common_name) = match self.certificate {
            ClientCertificate::None => (CLIENT_SSL, None),
            ClientCertificate::Shown { common_name } => (CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS, common_name),
            ClientCertificate::Resumed { common_name } => (CLIENT_SSL | CLIENT_CERT_SESS, common_name),
        };
        // Zero: there is a certificate and it was verified.
        let verify = u32::from(self.certificate == ClientCertificate::None || !self.verified);
        let mut value = vec![flags];
        value.extend_from_slice(&verify.to_be_bytes());
        push(&mut value, SSL_VERSION, Some(self.version.as_bytes()));
        push(&mut value, SSL_COMMON_NAME, common_name.map(str::as_bytes));
        push(&mut value, SSL_CIPHER, Some(self.cipher.as_bytes()));
        push_whole(to, SSL, &value);
    }
}

/// Adds a TLV, if there is a value that can be sent.
fn push(to: &mut Vec<u8>, kind: u8, value: Option<&[u8]>) {
    if let Some(value) = value.filter(|value| value.len() <= MAX_VALUE) {
        push_whole(to, kind, value);
    }
}

/// Source and destination, IPv4 where both are: a dual-stack socket has IPv4 clients as `::ffff:10.0.0.1`. A header has
/// one family, so that of a mixed pair the IPv4 one is written as IPv6.
fn same_family(ends: Ends) -> (SocketAddr, SocketAddr) {
    let (source, destination) = (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
    let (source, destination) = match (source, destination) {
        (IpAddr::V4(v4), IpAddr::V6(_)) => (v4.to_ipv6_mapped().into(), destination),
        (IpAddr::V6(_), IpAddr::V4(v4)) => (source, v4.to_ipv6_mapped().into()),
        same => same,
    };
    (SocketAddr::new(source, ends.source.port()), SocketAddr::new(destination, ends.destination.port()))
}

/// An address in hexadecimal groups throughout, as the specification has it, also if it has IPv4 in it.
fn text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let [.., high, low] = v6.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        ip => ip.to_string(),
    }
}
