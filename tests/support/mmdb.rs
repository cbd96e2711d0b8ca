//! A writer of MMDB files, after the public specification (MaxMind DB File Format, version 2.0).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a record of the search tree has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Empty,
    Node(usize),
    /// The number of a value.
    Value(usize),
}

/// A database that is being written.
pub(crate) struct Mmdb {
    nodes: Vec<[Slot; 2]>,
    values: Vec<Vec<u8>>,
    is_v6: bool,
    record_size: usize,
    kind: String,
}

impl Mmdb {
    /// An empty one, of IPv6 or of IPv4 alone.
    pub(crate) fn new(is_v6: bool) -> Mmdb {
        Mmdb {
            nodes: vec![[Slot::Empty; 2]],
            values: Vec::new(),
            is_v6,
            record_size: 24,
            kind: "Test-Country".to_owned(),
        }
    }

    /// With records of 24, 28 or 32 bits.
    pub(crate) fn record_size(mut self, bits: usize) -> Mmdb {
        self.record_size = bits;
        self
    }

    /// A network of a country, as MaxMind writes it.
    pub(crate) fn country(self, network: &str, code: &str) -> Mmdb {
        let country = map(&[("geoname_id", unsigned(6, 7)), ("iso_code", text(code))]);
        let continent = map(&[("code", text("EU"))]);
        self.value(network, map(&[("continent", continent), ("country", country)]))
    }

    /// A network with any value.
    pub(crate) fn value(mut self, network: &str, value: Vec<u8>) -> Mmdb {
        let number = self.values.len();
        self.values.push(value);
        let (bits, length) = self.key(network);
        let mut node = 0;
        for depth in 0..length - 1 {
            let side = (bits >> (127 - depth) & 1) as usize;
            node = match self.nodes[node][side] {
                Slot::Node(next) => next,
                // A network within a network: its neighbours keep the value.
                slot => {
                    self.nodes.push([slot; 2]);
                    let next = self.nodes.len() - 1;
                    self.nodes[node][side] = Slot::Node(next);
                    next
                }
            };
        }
        self.nodes[node][(bits >> (128 - length) & 1) as usize] = Slot::Value(number);
        self
    }

    /// An address's bits from the first one on, and how many of them count.
    fn key(&self, network: &str) -> (u128, usize) {
        let (address, length) = network.split_once('/').unwrap();
        let length: usize = length.parse().unwrap();
        match (address.parse().unwrap(), self.is_v6) {
            (IpAddr::V4(address), true) => (Ipv4Addr::to_bits(address).into(), 96 + length),
            (IpAddr::V4(address), false) => (u128::from(Ipv4Addr::to_bits(address)) << 96, length),
            (IpAddr::V6(address), _) => (Ipv6Addr::to_bits(address), length),
        }
    }

    /// The file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut data: Vec<u8> = Vec::new();
        let mut offsets = Vec::new();
        for value in &self.values {
            offsets.push(data.len());
            data.extend(value);
        }
        let count = self.nodes.len();
        let record = |slot: &Slot| match slot {
            Slot::Empty => count,
            Slot::Node(node) => *node,
            Slot::Value(value) => count + 16 + offsets[*value],
        };
        let mut file = Vec::new();
        for [left, right] in &self.nodes {
            let (left, right) = (record(left) as u32, record(right) as u32);
            match self.record_size {
                24 => {
                    file.extend(&left.to_be_bytes()[1..]);
                    file.extend(&right.to_be_bytes()[1..]);
                }
                28 => {
                    file.extend(&left.to_be_bytes()[1..]);
                    file.push(((left >> 24) << 4 | right >> 24) as u8);
                    file.extend(&right.to_be_bytes()[1..]);
                }
                _ => {
                    file.extend(left.to_be_bytes());
                    file.extend(right.to_be_bytes());
                }
            }
        }
        file.extend([0; 16]);
        file.extend(data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        file.extend(map(&[
            ("binary_format_major_version", unsigned(5, 2)),
            ("binary_format_minor_version", unsigned(5, 0)),
            ("build_epoch", unsigned(9, 1_700_000_000)),
            ("database_type", text(&self.kind)),
            ("description", map(&[("en", text("A test"))])),
            ("ip_version", unsigned(5, if self.is_v6 { 6 } else { 4 })),
            ("languages", vec![0, 4]),
            ("node_count", unsigned(6, count as u64)),
            ("record_size", unsigned(5, self.record_size as u64)),
        ]));
        file
    }
}

/// A value's control byte: types above 7 take a second one.
fn head(kind: u8, size: usize) -> Vec<u8> {
    assert!(size < 29, "longer ones are not written here");
    match kind {
        0..=7 => vec![kind << 5 | size as u8],
        _ => vec![size as u8, kind - 7],
    }
}

/// A map (type 7).
pub(crate) fn map(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = head(7, members.len());
    for (key, value) in members {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

/// A string (type 2).
pub(crate) fn text(text: &str) -> Vec<u8> {
    [head(2, text.len()), text.as_bytes().to_vec()].concat()
}

/// An unsigned number: of 16 bits (type 5), 32 (type 6) or 64 (type 9).
pub(crate) fn unsigned(kind: u8, number: u64) -> Vec<u8> {
    let bytes: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    [head(kind, bytes.len()), bytes].concat()
}
