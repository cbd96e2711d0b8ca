//! Against another reader of PROXY headers.

use proptest::prelude::*;

use super::*;

/// What the other reader makes of the bytes.
fn other(bytes: &[u8]) -> Recognition<ParsedHeader, ()> {
    match ProxyHeader::parse(bytes, ParseConfig::default()) {
        Ok((header, length)) => {
            let addresses =
                header.proxied_address().map_or(Addresses::Local, |&ProxiedAddress { source, destination, .. }| {
                    Addresses::Proxied(Ends { source, destination })
                });
            Recognition::Yes(ParsedHeader { length, addresses })
        }
        Err(proxy_header::Error::BufferTooShort) => Recognition::one_more(bytes.len()),
        Err(_) => Recognition::No(()),
    }
}

/// Where we differ from the other reader, and why the specification is with us; anything else is a defect.
fn may_differ(
    bytes: &[u8],
    ours: &Recognition<ParsedHeader, HeaderError>,
    theirs: &Recognition<ParsedHeader, ()>,
) -> bool {
    match (ours, theirs) {
        (Recognition::Yes(a), Recognition::Yes(b)) if a == b => true,
        (Recognition::No(_), Recognition::No(())) | (Recognition::More(_), Recognition::More(_)) => true,
        // Unix addresses are another kind there.
        (Recognition::Yes(ParsedHeader { addresses: Addresses::Unix, length }), Recognition::Yes(b)) => {
            *length == b.length && b.addresses == Addresses::Local
        }
        // We say no as early as it is known (section 2.1: "as soon as possible").
        (Recognition::No(_), Recognition::More(_)) => true,
        // It has TLVs and checksums looked at by its caller.
        (
            Recognition::No(HeaderError::Tlv(_) | HeaderError::Checksum | HeaderError::ChecksumForm),
            Recognition::Yes(_),
        ) => true,
        // It takes "PROXY?TCP4" and "UNKNOWNS" ("exactly one space"), "+1" and "01" as ports ("heading zeroes are
        // not permitted"), and lines of more than 107 bytes if they come in one piece.
        (Recognition::No(HeaderError::Protocol | HeaderError::Port | HeaderError::LongLine), Recognition::Yes(_)) => {
            bytes.starts_with(b"PROXY")
        }
        // It ends UNKNOWN at the first CR, and refuses if that is not the end ("ignore anything presented before the CRLF").
        (Recognition::Yes(_) | Recognition::More(_), Recognition::No(())) if bytes.starts_with(b"PROXY UNKNOWN ") => {
            true
        }
        // It looks at the addresses before the line has ended ("must wait for the CRLF sequence").
        (Recognition::More(_), Recognition::No(())) if bytes.starts_with(b"PROXY TCP") => true,
        // It refuses LOCAL headers for their family or what stands in for addresses ("the family which is ignored"), and
        // families or transports of which one half is UNSPEC ("free to accept the connection anyway").
        (Recognition::Yes(ParsedHeader { addresses: Addresses::Local, .. }), Recognition::No(())) => {
            let is_unspecified = |family: &u8| family >> 4 == 0 || family & 0xf == 0;
            bytes.get(12) == Some(&0x20) || bytes.get(13).is_some_and(is_unspecified)
        }
        // It waits for the addresses of a LOCAL header's family even where the header ends before them (the same).
        (Recognition::Yes(ParsedHeader { addresses: Addresses::Local, length }), Recognition::More(_)) => {
            let &[.., 0x20, family, high, low] = &bytes[..16] else { return false };
            let declared = usize::from(u16::from_be_bytes([high, low]));
            let addresses = [0, 12, 36, 216].get(usize::from(family >> 4));
            *length == 16 + declared && addresses.is_some_and(|&addresses| declared < addresses)
        }
        _ => false,
    }
}

fn addresses() -> impl Strategy<Value = Option<ProxiedAddress>> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let special = Just((IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()));
    (prop_oneof![v4, v6, special], any::<(u16, u16, bool)>()).prop_map(|((from, to), (from_port, to_port, stream))| {
        let protocol = if stream { Protocol::Stream } else { Protocol::Datagram };
        let (source, destination) = (SocketAddr::new(from, from_port), SocketAddr::new(to, to_port));
        Some(ProxiedAddress { protocol, source, destination })
    })
}

fn tlvs() -> impl Strategy<Value = Vec<Tlv<'static>>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop::collection::vec(
        prop_oneof![
            bytes().prop_map(|value| Tlv::Alpn(value.into())),
            bytes().prop_map(|value| Tlv::UniqueId(value.into())),
            "[a-z.]{0,40}".prop_map(|value| Tlv::Authority(value.into())),
            (0..40_usize).prop_map(Tlv::Noop),
            (0xe0..0xef_u8, bytes()).prop_map(|(kind, value)| Tlv::Custom(kind, value.into())),
            any::<(bool, u32)>().prop_map(|(shown, verify)| Tlv::Ssl(SslInfo::new(true, shown, shown, verify))),
        ],
        0..6,
    )
}

/// A valid header of either version, written by the other crate.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![4 => addresses(), 1 => Just(None)];
    (address, tlvs(), any::<bool>()).prop_map(|(address, tlvs, text)| {
        let mut bytes = Vec::new();
        if text {
            let address = address.map(|address| ProxiedAddress { protocol: Protocol::Stream, ..address });
            ProxyHeader::with_tlvs(address, []).encode_v1(&mut bytes).unwrap();
        } else {
            ProxyHeader::with_tlvs(address, tlvs).encode_v2(&mut bytes).unwrap();
        }
        bytes
    })
}

/// One thing done to bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<Mutation>> {
    // What has a meaning somewhere, more often than chance would have it.
    let byte = || {
        prop_oneof![
            any::<u8>(),
            prop::sample::select(&b"\r\n 0123456789.:+PROXYTCPUNKNOWN\x00\x03\x20\x21\x11\x31"[..])
        ]
    };
    let index = any::<prop::sample::Index>;
    let change = prop_oneof![
        4 => (index(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => index().prop_map(Mutation::Remove),
        1 => (index(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        1 => index().prop_map(Mutation::Cut),
    ];
    prop::collection::vec(change, 1..4)
}

fn apply(bytes: &mut Vec<u8>, changes: &[Mutation]) {
    // Most of what is decided is decided by the first bytes.
    let at = |bytes: &[u8], index: &prop::sample::Index| index.index(bytes.len().min(64));
    for change in changes {
        if bytes.is_empty() {
            return;
        }
        match change {
            Mutation::Set(index, byte) => {
                let at = at(bytes, index);
                bytes[at] = *byte;
            }
            Mutation::Remove(index) => {
                bytes.remove(at(bytes, index));
            }
            Mutation::Insert(index, byte) => bytes.insert(at(bytes, index), *byte),
            Mutation::Cut(index) => bytes.truncate(index.index(bytes.len())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn valid_headers_are_read_as_another_reader_does(header in header(), payload: Vec<u8>) {
        let bytes = [&header[..], &payload].concat();
        let (ours, theirs) = (recognise(&bytes), other(&bytes));
        let (Recognition::Yes(ours), Recognition::Yes(theirs)) = (&ours, &theirs) else {
            panic!("{ours:?} and {theirs:?} of {bytes:?}");
        };
        prop_assert_eq!(ours, theirs);
        prop_assert_eq!(ours.length, header.len());
    }

    #[test]
    fn damaged_headers_are_read_as_another_reader_does_or_by_the_specification(
        mut bytes in header(), changes in changes(),
    ) {
        apply(&mut bytes, &changes);
        let (ours, theirs) = (recognise(&bytes), other(&bytes));
        prop_assert!(may_differ(&bytes, &ours, &theirs), "{ours:?} and {theirs:?}\nof {:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn what_is_written_is_read_back(address in addresses(), authority in "[a-z.]{0,300}", id: [u8; 16]) {
        let client = address.map(|ProxiedAddress { source, destination, .. }| Ends { source, destination });
        let outgoing = Outgoing { client, authority: Some(&authority), unique_id: Some(&id), ..Outgoing::default() };
        for bytes in [outgoing.v1(), outgoing.v2()] {
            let ours = recognise(&bytes);
            prop_assert_eq!(&ours, &match other(&bytes) {
                Recognition::Yes(header) => Recognition::Yes(header),
                different => panic!("{different:?}"),
            });
            let Recognition::Yes(ParsedHeader { length, addresses: Addresses::Proxied(ends) }) = ours else {
                panic!("{ours:?}");
            };
            prop_assert_eq!(length, bytes.len());
            let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
            let client = client.unwrap();
            prop_assert_eq!(canonical(ends.source), canonical(client.source));
            prop_assert_eq!(canonical(ends.destination), canonical(client.destination));
        }
    }
}
