//! The PROXY protocol header, and why bytes are none.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use thiserror::Error;

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedHeader {
    /// Bytes of it, all of them there: what follows is the client's.
    pub length: usize,
    /// What it says of the connection.
    pub addresses: Addresses,
}

/// The addresses of the proxied connection, according to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// A client's connection that the peer passes on.
    Proxied(Ends),
    /// The same, over a unix socket, whose paths say nothing outside of their host.
    Unix,
    /// Those of the connection itself: the peer speaks for itself (LOCAL), or does not know (UNKNOWN, UNSPEC).
    Local,
}

/// Both ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// Why bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// They do not start like one at all: the peer sends none.
    #[error("sends no PROXY header")]
    Absent,
    /// Version 1: another protocol than these.
    #[error("sends a malformed PROXY header: after \"PROXY \" comes neither TCP4, TCP6 nor UNKNOWN")]
    Protocol,
    /// Version 1: a line feed or carriage return of its own.
    #[error("sends a malformed PROXY header: its line does not end with CR LF")]
    LineEnd,
    /// Version 1: no end of line where the longest would have it.
    #[error("sends a malformed PROXY header: its line is longer than 107 bytes")]
    LongLine,
    /// Version 1: not two addresses and two ports with one space between each.
    #[error("sends a malformed PROXY header: its line does not have two addresses and two ports")]
    Fields,
    /// Version 1: an address that is not one of the family.
    #[error("sends a malformed PROXY header: an address is none of its family")]
    Address,
    /// Version 1: a port that is none.
    #[error("sends a malformed PROXY header: a port is no number of 0 to 65535")]
    Port,
    /// Version 2: what follows the signature is of another version.
    #[error("sends a PROXY header of version {0}; 1 and 2 are understood")]
    HeaderVersion(u8),
    /// Version 2: neither LOCAL nor PROXY.
    #[error("sends a malformed PROXY header: command {0} is neither LOCAL nor PROXY")]
    Command(u8),
    /// Version 2: an address family or transport that does not exist.
    #[error("sends a malformed PROXY header: family and transport 0x{0:02x} do not exist")]
    Family(u8),
    /// Version 2: its length is less than that of its addresses.
    #[error("sends a malformed PROXY header: {length} bytes are too few for its addresses, which have {needed}")]
    ShortAddresses {
        /// What the header says.
        length: usize,
        /// What its addresses need.
        needed: usize,
    },
    /// Version 2: a TLV ends beyond the header.
    #[error("sends a malformed PROXY header: TLV 0x{0:02x} is longer than the header")]
    Tlv(u8),
    /// Version 2: a checksum that has not four bytes, or is there twice.
    #[error("sends a malformed PROXY header: its CRC32C is none, or one of several")]
    ChecksumForm,
    /// Version 2: the checksum is that of other bytes.
    #[error("sends a damaged PROXY header: its CRC32C is not that of its bytes")]
    Checksum,
}
