//! Version 2: binary, with a length and TLVs (section 2.2).

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::crc32c::crc32c;
use super::header::{Addresses, Ends, HeaderError, ParsedHeader};
use crate::sniff::Recognition;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of what every header has: signature, version and command, family and transport, length of the rest.
pub(super) const FIXED: usize = 16;

/// Bytes of both addresses of a unix socket.
const UNIX: usize = 2 * 108;

/// The type of the checksum's TLV.
pub(super) const CRC32C: u8 = 0x03;

/// Bytes that start with the signature.
pub(super) fn recognise(bytes: &[u8]) -> Recognition<ParsedHeader, HeaderError> {
    let mut after = bytes.iter().skip(SIGNATURE.len());
    let Some(version_command) = after.next() else { return Recognition::one_more(bytes.len()) };
    let is_local = match (version_command >> 4, version_command & 0xf) {
        (2, 0) => true,
        (2, 1) => false,
        (2, command) => return Recognition::No(HeaderError::Command(command)),
        (version, _) => return Recognition::No(HeaderError::HeaderVersion(version)),
    };
    let Some(&family) = after.next() else { return Recognition::one_more(bytes.len()) };
    // The family that comes with LOCAL is ignored, whatever it is.
    if !is_local && (family >> 4 > 3 || family & 0xf > 2) {
        return Recognition::No(HeaderError::Family(family));
    }
    let (Some(&high), Some(&low)) = (after.next(), after.next()) else { return Recognition::one_more(bytes.len()) };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));

    let Some(header) = bytes.get(..length) else { return Recognition::more(bytes.len(), length) };
    let addresses = if is_local { Ok(Addresses::Local) } else { addresses(header, family) };
    match addresses {
        Ok(addresses) => Recognition::Yes(ParsedHeader { length, addresses }),
        Err(fault) => Recognition::No(fault),
    }
}

/// What a header with the command PROXY says.
///
/// Datagrams (UDP) are taken like streams: the specification has a receiver that knows nothing of them accept the header,
/// and without these addresses the client would be unknown. Where family or transport are unspecified, it is
/// not said where TLVs begin: nothing is read, and the connection's own addresses hold.
fn addresses(header: &[u8], family: u8) -> Result<Addresses, HeaderError> {
    let block = header.get(FIXED..).unwrap_or_default();
    let Some(needed) = length_of_addresses(family) else { return Ok(Addresses::Local) };
    let addresses = match family >> 4 {
        1 => inet(block),
        2 => inet6(block),
        _ => (block.len() >= UNIX).then_some(Addresses::Unix),
    };
    let addresses = addresses.ok_or(HeaderError::ShortAddresses { length: block.len(), needed })?;
    verify(header, FIXED + needed)?;
    Ok(addresses)
}

/// Bytes of both addresses. `None` where family or transport are unspecified.
fn length_of_addresses(family: u8) -> Option<usize> {
    match family {
        0x11 | 0x12 => Some(2 * (4 + 2)),
        0x21 | 0x22 => Some(2 * (16 + 2)),
        0x31 | 0x32 => Some(UNIX),
        _ => None,
    }
}

/// The TLVs of a header that was recognised; none of one with the command LOCAL.
pub(super) fn tlvs(header: &[u8]) -> &[u8] {
    let Some(&[command, family]) = header.get(SIGNATURE.len()..).and_then(<[u8]>::first_chunk) else { return &[] };
    let start = length_of_addresses(family).filter(|_| command == 0x21).map(|length| FIXED + length);
    start.and_then(|start| header.get(start..)).unwrap_or_default()
}

fn inet(block: &[u8]) -> Option<Addresses> {
    let (&source, rest) = block.split_first_chunk::<4>()?;
    let (&destination, ports) = rest.split_first_chunk::<4>()?;
    proxied(Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into(), ports)
}

fn inet6(block: &[u8]) -> Option<Addresses> {
    let (&source, rest) = block.split_first_chunk::<16>()?;
    let (&destination, ports) = rest.split_first_chunk::<16>()?;
    proxied(Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into(), ports)
}

fn proxied(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<Addresses> {
    let &[a, b, c, d] = ports.first_chunk()?;
    Some(Addresses::Proxied(Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }))
}

/// Checks that the TLVs, from `start`, fill the header, and the checksum if there is one. What else they say is skipped.
fn verify(header: &[u8], start: usize) -> Result<(), HeaderError> {
    let mut checksum = None;
    let mut at = start;
    while let Some(&[kind, ref rest @ ..]) = header.get(at..)
        && at < header.len()
    {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(HeaderError::Tlv(kind))?;
        let value = rest.get(..u16::from_be_bytes(*length).into()).ok_or(HeaderError::Tlv(kind))?;
        if kind == CRC32C {
            let value: [u8; 4] = value.try_into().map_err(|_| HeaderError::ChecksumForm)?;
            if checksum.replace((at + 3, u32::from_be_bytes(value))).is_some() {
                return Err(HeaderError::ChecksumForm);
            }
        }
        at += 3 + value.len();
    }
    let Some((place, wanted)) = checksum else { return Ok(()) };
    // The sum is that of the header with zeros in its place.
    let (before, from) = header.split_at_checked(place).unwrap_or((header, &[]));
    let after = from.get(4..).unwrap_or_default();
    let sum = crc32c(before.iter().chain(&[0; 4]).chain(after));
    if sum == wanted { Ok(()) } else { Err(HeaderError::Checksum) }
}
