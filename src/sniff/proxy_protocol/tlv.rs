//! What a header of version 2 says beyond addresses (section 2.2), as it came from a trusted peer.

#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::v2::{self, CRC32C};

pub(super) const ALPN: u8 = 0x01;
pub(super) const AUTHORITY: u8 = 0x02;
const NOOP: u8 = 0x04;
pub(super) const UNIQUE_ID: u8 = 0x05;
pub(super) const SSL: u8 = 0x20;
const NETNS: u8 = 0x30;
/// Amazon's: https://docs.aws.amazon.com/elasticloadbalancing/latest/network/edit-target-group-attributes.html
const AWS: u8 = 0xea;
const AWS_VPC_ENDPOINT: u8 = 0x01;
/// Google's: https://cloud.google.com/vpc/docs/about-vpc-hosted-services
const GCP_PSC_CONNECTION: u8 = 0xe0;
/// Microsoft's: https://learn.microsoft.com/azure/private-link/private-link-service-overview
const AZURE: u8 = 0xee;
const AZURE_LINK_ID: u8 = 0x01;

/// Bytes that are kept of a connection's TLVs, types and lengths included. What does not fit is left out, each as a whole.
const MAX_KEPT: usize = 4096;

/// TLVs of a trusted peer's header that go on to backends: all but those that are of that hop alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedTlvs(Box<[u8]>);

impl ReceivedTlvs {
    /// Those of a header that was recognised. `None` if nothing is to go on.
    pub fn of(header: &[u8]) -> Option<ReceivedTlvs> {
        match header.starts_with(v2::SIGNATURE) {
            true => ReceivedTlvs::from_tlvs(v2::tlvs(header)),
            false => None,
        }
    }

    fn from_tlvs(bytes: &[u8]) -> Option<ReceivedTlvs> {
        let mut kept = Vec::new();
        for (kind, value) in tlvs(bytes) {
            let is_of_hop = matches!(kind, CRC32C | NOOP | NETNS);
            if !is_of_hop && kept.len() + 3 + value.len() <= MAX_KEPT {
                push(&mut kept, kind, value);
            }
        }
        (!kept.is_empty()).then(|| ReceivedTlvs(kept.into()))
    }

    /// Types and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        tlvs(&self.0)
    }

    /// Names and values for a log.
    pub fn described(&self) -> Vec<(Cow<'static, str>, String)> {
        self.iter().map(|(kind, value)| described(kind, value)).collect()
    }
}

/// The TLVs in `bytes`, up to the first that is cut.
fn tlvs(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&kind, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        bytes = rest;
        Some((kind, value))
    })
}

/// Adds a TLV, whose value is at most 65,535 bytes long.
pub(super) fn push(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    to.push(kind);
    to.extend_from_slice(&(value.len() as u16).to_be_bytes());
    to.extend_from_slice(value);
}

fn described(kind: u8, value: &[u8]) -> (Cow<'static, str>, String) {
    match (kind, value) {
        (ALPN, _) => ("alpn".into(), text(value)),
        (AUTHORITY, _) => ("authority".into(), text(value)),
        (UNIQUE_ID, _) => ("unique_id".into(), text(value)),
        (SSL, _) => ("ssl".into(), hex(value)),
        (AWS, [AWS_VPC_ENDPOINT, name @ ..]) => ("aws_vpc_endpoint_id".into(), text(name)),
        (GCP_PSC_CONNECTION, &[a, b, c, d, e, f, g, h]) => {
            ("gcp_psc_connection_id".into(), u64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string())
        }
        (AZURE, &[AZURE_LINK_ID, a, b, c, d]) => ("azure_link_id".into(), u32::from_le_bytes([a, b, c, d]).to_string()),
        _ => (format!("0x{kind:02x}").into(), text(value)),
    }
}

/// As it is where it is printable, in hexadecimal otherwise.
fn text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => hex(value),
    }
}

fn hex(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(all: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        all.iter().for_each(|(kind, value)| push(&mut bytes, *kind, value));
        bytes
    }

    #[test]
    fn those_of_the_hop_are_left_out() {
        let came =
            bytes(&[(CRC32C, &[0; 4]), (AUTHORITY, b"a.example"), (NOOP, &[0; 9]), (NETNS, b"ns"), (0xe4, b"x")]);
        let received = ReceivedTlvs::from_tlvs(&came).unwrap();
        assert_eq!(received.iter().collect::<Vec<_>>(), [(AUTHORITY, &b"a.example"[..]), (0xe4, b"x")]);
        assert_eq!(ReceivedTlvs::from_tlvs(&bytes(&[(NOOP, &[])])), None);
    }

    #[test]
    fn each_is_described() {
        let came = bytes(&[
            (ALPN, b"h2"),
            (AWS, b"\x01vpce-0abc"),
            (GCP_PSC_CONNECTION, &258_u64.to_be_bytes()),
            (AZURE, &[1, 2, 1, 0, 0]),
            (SSL, &[1, 0]),
            (0xf0, b"\x00\xff"),
        ]);
        let described: Vec<(String, String)> = ReceivedTlvs::from_tlvs(&came)
            .unwrap()
            .described()
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .collect();
        let expected = [
            ("alpn", "h2"),
            ("aws_vpc_endpoint_id", "vpce-0abc"),
            ("gcp_psc_connection_id", "258"),
            ("azure_link_id", "258"),
            ("ssl", "0100"),
            ("0xf0", "00ff"),
        ];
        assert_eq!(described, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            if let Some(received) = ReceivedTlvs::from_tlvs(&bytes) {
                prop_assert!(received.0.len() <= MAX_KEPT);
                let again = ReceivedTlvs::from_tlvs(&received.0);
                prop_assert_eq!(again.as_ref(), Some(&received));
                received.described();
            }
        }
    }
}
