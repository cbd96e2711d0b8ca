//! Version 1: a line of text (section 2.1).

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{Addresses, Ends, HeaderError, ParsedHeader};
use crate::sniff::{Recognition, Start};

pub(super) const SIGNATURE: &[u8] = b"PROXY";

/// Bytes in which the line must end, CR LF included.
const MAX_LINE: usize = 107;

const CR_LF: &[u8] = b"\r\n";

enum AddressFamily {
    V4,
    V6,
}

/// Bytes that start with the signature. Addresses are looked at once the line has ended, as the specification demands.
pub(super) fn recognise(bytes: &[u8]) -> Recognition<ParsedHeader, HeaderError> {
    let within = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let more = || {
        if bytes.len() < MAX_LINE { Recognition::one_more(bytes.len()) } else { Recognition::No(HeaderError::LongLine) }
    };
    let starts = |wanted: &[u8]| Start::of(within, wanted);

    let (family, start) = match [b"PROXY TCP4 ", b"PROXY TCP6 "].map(|wanted| starts(wanted)) {
        [Start::Fits, _] => (AddressFamily::V4, b"PROXY TCP4 ".len()),
        [_, Start::Fits] => (AddressFamily::V6, b"PROXY TCP6 ".len()),
        [Start::Differs, Start::Differs] => return unknown(within).unwrap_or_else(more),
        _ => return more(),
    };
    let rest = within.get(start..).unwrap_or_default();
    let Some(end) = rest.iter().position(|byte| CR_LF.contains(byte)) else { return more() };
    let (line, end_of_line) = rest.split_at(end);
    match Start::of(end_of_line, CR_LF) {
        Start::Fits => {}
        Start::FitsSoFar => return more(),
        Start::Differs => return Recognition::No(HeaderError::LineEnd),
    }
    match ends(line, &family) {
        Ok(ends) => {
            Recognition::Yes(ParsedHeader { length: start + end + CR_LF.len(), addresses: Addresses::Proxied(ends) })
        }
        Err(fault) => Recognition::No(fault),
    }
}

/// A line without addresses; whatever else it has up to CR LF is ignored. `None`: it has not ended.
fn unknown(within: &[u8]) -> Option<Recognition<ParsedHeader, HeaderError>> {
    let fits = [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN "].map(|wanted| Start::of(within, wanted));
    if fits == [Start::Differs, Start::Differs] {
        return Some(Recognition::No(HeaderError::Protocol));
    }
    let end = within.windows(CR_LF.len()).position(|pair| pair == CR_LF)?;
    Some(Recognition::Yes(ParsedHeader { length: end + CR_LF.len(), addresses: Addresses::Local }))
}

fn ends(line: &[u8], family: &AddressFamily) -> Result<Ends, HeaderError> {
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Fields)?;
    let mut fields = line.split(' ');
    let mut field = || fields.next().ok_or(HeaderError::Fields);
    let (source, destination, source_port, destination_port) = (field()?, field()?, field()?, field()?);
    if fields.next().is_some() {
        return Err(HeaderError::Fields);
    }
    Ok(Ends {
        source: SocketAddr::new(address(source, family)?, port(source_port)?),
        destination: SocketAddr::new(address(destination, family)?, port(destination_port)?),
    })
}

/// An address as the standard library reads it, which is as strict as the specification, but for IPv6 with dotted
/// decimals at its end (`::ffff:10.0.0.1`): nginx sends these.
fn address(text: &str, family: &AddressFamily) -> Result<IpAddr, HeaderError> {
    let address = match family {
        AddressFamily::V4 => text.parse::<Ipv4Addr>().map(IpAddr::V4),
        AddressFamily::V6 => text.parse::<Ipv6Addr>().map(IpAddr::V6),
    };
    address.map_err(|_| HeaderError::Address)
}

fn port(text: &str) -> Result<u16, HeaderError> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !is_decimal {
        return Err(HeaderError::Port);
    }
    text.parse().map_err(|_| HeaderError::Port)
}
