mod properties;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use super::*;

fn proxied(source: &str, destination: &str) -> Addresses {
    Addresses::Proxied(ends(source, destination))
}

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [v2::SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

/// TLVs after 12 bytes of addresses, the last of them the header's right checksum.
fn with_checksum(tlvs: &[u8]) -> Vec<u8> {
    let mut header = v2(1, 0x11, &[&[0; 12], tlvs, &tlv(3, &[0; 4])].concat());
    let sum = crc32c::crc32c(header.iter()).to_be_bytes();
    let place = header.len() - 4;
    header[place..].copy_from_slice(&sum);
    header
}

/// Every cut of the header wants more, and all of it, alone and with others behind, gives these addresses.
#[track_caller]
fn is_header(header: &[u8], addresses: Addresses) {
    for cut in 0..header.len() {
        let Recognition::More(more) = recognise(&header[..cut]) else {
            panic!("{cut} of {} bytes: {:?}", header.len(), recognise(&header[..cut]));
        };
        assert!(more.get() > cut && more.get() <= header.len(), "{cut} bytes: {more}");
    }
    let wanted = Recognition::Yes(ParsedHeader { length: header.len(), addresses });
    assert_eq!(recognise(header), wanted);
    assert_eq!(recognise(&[header, header].concat()), wanted);
    assert_eq!(recognise(&[header, b"\r\n\0\xff"].concat()), wanted);
}

#[track_caller]
fn is_fault(bytes: &[u8], fault: HeaderError) {
    assert_eq!(recognise(bytes), Recognition::No(fault), "{}", String::from_utf8_lossy(bytes));
    assert_eq!(recognise(&[bytes, b" and more"].concat()), Recognition::No(fault));
}

#[test]
fn lines_of_version_1_are_read() {
    is_header(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", proxied("192.0.2.1:56324", "198.51.100.2:443"));
    is_header(b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", proxied("255.255.255.255:65535", "0.0.0.0:0"));
    is_header(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", proxied("[2001:db8::1]:1", "[::1]:2"));
    let full = "FFFF:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    assert_eq!(line.len(), 104);
    is_header(line.as_bytes(), proxied(&format!("[{full}]:65535"), &format!("[{full}]:65535")));
    is_header(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", proxied("[::ffff:192.0.2.1]:1", "[::1]:2"));
}

#[test]
fn what_follows_unknown_is_ignored_up_to_its_end() {
    is_header(b"PROXY UNKNOWN\r\n", Addresses::Local);
    is_header(b"PROXY UNKNOWN \r\n", Addresses::Local);
    is_header(b"PROXY UNKNOWN \n\r\r\0 TCP4\r\n", Addresses::Local);
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
    assert_eq!(line.len(), v1::SIGNATURE.len() + 102);
    is_header(line.as_bytes(), Addresses::Local);
}

#[test]
fn malformed_lines_are_told_apart() {
    for line in ["PROXYTCP4", "PROXY  TCP4", "PROXY TCP5", "PROXY\tTCP4", "PROXY UNKNOWNS", "PROXY \r\n", "PROXY UDP4 "]
    {
        is_fault(line.as_bytes(), HeaderError::Protocol);
    }
    for line in ["PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "PROXY TCP4 1.2.3.4\rx", "PROXY TCP6 ::1 ::1 1 2\r\r\n"] {
        is_fault(line.as_bytes(), HeaderError::LineEnd);
    }
    for fields in ["", " ", "1.2.3.4 1.2.3.4 1", "1.2.3.4 1.2.3.4 1 2 ", "1.2.3.4 1.2.3.4 1 2 3", "\u{e4} 1.2.3.4"] {
        is_fault(format!("PROXY TCP4 {fields}\r\n").as_bytes(), HeaderError::Fields);
    }
    is_fault(b"PROXY TCP4 \xff 1.2.3.4 1 2\r\n", HeaderError::Fields);
    for address in ["::1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4/8", "", "0x1.2.3.4", "localhost"] {
        is_fault(format!("PROXY TCP4 {address} 1.2.3.4 1 2\r\n").as_bytes(), HeaderError::Address);
        is_fault(format!("PROXY TCP4 1.2.3.4 {address} 1 2\r\n").as_bytes(), HeaderError::Address);
    }
    for address in ["1.2.3.4", "1::2::3", "1:2:3:4:5:6:7", "::12345", "[::1]", "fe80::1%eth0", ":", "1:2:3:4:5:6:7:8:9"]
    {
        is_fault(format!("PROXY TCP6 {address} ::1 1 2\r\n").as_bytes(), HeaderError::Address);
    }
    for port in ["65536", "-1", "+1", "01", "00", "0x1", "", "1.0", "99999999999999999999"] {
        is_fault(format!("PROXY TCP4 1.2.3.4 1.2.3.4 {port} 2\r\n").as_bytes(), HeaderError::Port);
        is_fault(format!("PROXY TCP4 1.2.3.4 1.2.3.4 1 {port}\r\n").as_bytes(), HeaderError::Port);
    }
}

#[test]
fn a_line_has_107_bytes_at_most() {
    for start in ["PROXY UNKNOWN ", "PROXY TCP4 "] {
        let line = format!("{start:x<108}");
        for cut in start.len()..107 {
            assert!(matches!(recognise(&line.as_bytes()[..cut]), Recognition::More(_)), "{cut}");
        }
        is_fault(&line.as_bytes()[..107], HeaderError::LongLine);
        is_fault(format!("{start:x<106}\r\n").as_bytes(), HeaderError::LongLine);
    }
    is_header(format!("{:x<105}\r\n", "PROXY UNKNOWN ").as_bytes(), Addresses::Local);
}

/// A malformed header is one all the same, and no byte beyond the signature is wanted.
#[test]
fn a_signature_is_known_by_its_own_bytes() {
    for (signature, version) in [(v1::SIGNATURE, HeaderVersion::V1), (v2::SIGNATURE, HeaderVersion::V2)] {
        for cut in 0..signature.len() {
            assert_eq!(recognise_signature(&signature[..cut]), Recognition::one_more(cut));
        }
        assert!(signature.len() <= SIGNATURE_LIMIT);
        for rest in [&b""[..], b" TCP4 ", b"\x21\x11\xff\xff", b"nonsense"] {
            assert_eq!(recognise_signature(&[signature, rest].concat()), Recognition::Yes(version));
        }
    }
    for other in [&b"proxy"[..], b"PROXIMITY", b"\r\n\r\n\0\r\nQUIT\r", b"\x16"] {
        assert_eq!(recognise_signature(other), Recognition::No(HeaderError::Absent));
    }
}

#[test]
fn what_starts_like_no_header_has_none() {
    for bytes in [
        "\u{16}\u{3}\u{1}",
        "GET / HTTP/1.1",
        "PRI * HTTP/2.0",
        "proxy TCP4",
        "\r\n\r\n\r\n",
        "\r\n\r\nGET",
        "\0\0\0\u{8}",
    ] {
        is_fault(bytes.as_bytes(), HeaderError::Absent);
    }
    // Already when the first byte is another.
    for byte in (0..=255).filter(|byte| !b"P\r".contains(byte)) {
        is_fault(&[byte], HeaderError::Absent);
    }
}

#[test]
fn headers_of_version_2_are_read() {
    let inet = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];
    for family in [0x11, 0x12] {
        is_header(&v2(1, family, &inet), proxied("192.0.2.1:56324", "198.51.100.2:443"));
    }
    let (from, to) = ("2001:db8::1".parse::<Ipv6Addr>().unwrap(), Ipv6Addr::LOCALHOST);
    let inet6 = [&from.octets()[..], &to.octets(), &[0, 1, 0, 2]].concat();
    for family in [0x21, 0x22] {
        is_header(&v2(1, family, &inet6), proxied("[2001:db8::1]:1", "[::1]:2"));
    }
    for family in [0x31, 0x32] {
        is_header(&v2(1, family, &[7; 216]), Addresses::Unix);
    }
    for tlvs in [tlv(4, b""), tlv(0xea, &[1; 300]), [tlv(1, b"h2"), tlv(0x20, b"whatever")].concat()] {
        is_header(&v2(1, 0x11, &[&inet[..], &tlvs].concat()), proxied("192.0.2.1:56324", "198.51.100.2:443"));
    }
}

#[test]
fn who_speaks_for_itself_may_add_anything() {
    for rest in [&b""[..], b"\xff", &[0; 65_535]] {
        for family in [0x00, 0x11, 0x21, 0x31, 0x77, 0xff] {
            let header = v2(0, family, rest);
            let wanted = Recognition::Yes(ParsedHeader { length: 16 + rest.len(), addresses: Addresses::Local });
            assert_eq!(recognise(&header), wanted);
        }
        for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
            let wanted = Recognition::Yes(ParsedHeader { length: 16 + rest.len(), addresses: Addresses::Local });
            assert_eq!(recognise(&v2(1, family, rest)), wanted);
        }
    }
    is_header(&v2(0, 0, b""), Addresses::Local);
    is_header(&v2(0, 0x11, b"rest"), Addresses::Local);
}

#[test]
fn the_longest_header_is_read() {
    let header = v2(1, 0x11, &[&[0; 12][..], &tlv(4, &vec![0; 65_535 - 12 - 3])].concat());
    assert_eq!(header.len(), MAX_HEADER);
    let wanted = Recognition::Yes(ParsedHeader { length: MAX_HEADER, addresses: proxied("0.0.0.0:0", "0.0.0.0:0") });
    assert_eq!(recognise(&header), wanted);
    assert_eq!(recognise(&[&header[..], &header].concat()), wanted);
    // What lacks is known from its length on, so that nobody has to ask for every byte.
    for cut in [16, 17, MAX_HEADER - 1] {
        assert_eq!(recognise(&header[..cut]), Recognition::more(cut, MAX_HEADER));
    }
}

#[test]
fn malformed_headers_of_version_2_are_told_apart() {
    let version_command = |byte: u8| [v2::SIGNATURE, &[byte]].concat();
    is_fault(&version_command(0x11), HeaderError::HeaderVersion(1));
    is_fault(&version_command(0x31), HeaderError::HeaderVersion(3));
    is_fault(&version_command(0x22), HeaderError::Command(2));
    for family in [0x41, 0x13, 0xff, 0x03, 0x40] {
        is_fault(&[v2::SIGNATURE, &[0x21, family]].concat(), HeaderError::Family(family));
    }
    for (family, needed) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x31, 216)] {
        for length in [0, needed - 1] {
            is_fault(&v2(1, family, &vec![0; length]), HeaderError::ShortAddresses { length, needed });
        }
    }
}

#[test]
fn tlvs_must_fill_the_header() {
    for wrong in [&[7][..], &[7, 0], &[7, 0, 1], &[7, 0xff, 0xff, 0], &[4, 0, 0, 7], &[4, 0, 1, 0, 7, 0]] {
        is_fault(&v2(1, 0x11, &[&[0; 12], wrong].concat()), HeaderError::Tlv(7));
        is_fault(&v2(1, 0x31, &[&[0; 216], wrong].concat()), HeaderError::Tlv(7));
    }
}

#[test]
fn a_checksum_is_verified() {
    let header = with_checksum(&tlv(1, b"h2"));
    is_header(&header, proxied("0.0.0.0:0", "0.0.0.0:0"));
    // But for the byte that says that it is a checksum.
    for at in (16..header.len()).filter(|at| *at != header.len() - 7) {
        let mut damaged = header.clone();
        damaged[at] ^= 0x10;
        assert!(matches!(recognise(&damaged), Recognition::No(_)), "byte {at}");
    }
    let mut damaged = header.clone();
    damaged[20] ^= 1;
    is_fault(&damaged, HeaderError::Checksum);

    is_fault(&v2(1, 0x11, &[&[0; 12][..], &tlv(3, &[0; 3])].concat()), HeaderError::ChecksumForm);
    is_fault(&with_checksum(&tlv(3, &[0; 4])), HeaderError::ChecksumForm);
}

#[test]
fn a_client_is_written_in_both_versions() {
    let written = |source: &str, destination: &str| {
        let outgoing = Outgoing { client: Some(ends(source, destination)), ..Outgoing::default() };
        (String::from_utf8(outgoing.v1()).unwrap(), recognise(&outgoing.v2()))
    };
    let header = |length, source: &str, destination: &str| {
        Recognition::Yes(ParsedHeader { length, addresses: proxied(source, destination) })
    };
    let cases = [
        ("192.0.2.1:1", "192.0.2.2:65535", "TCP4 192.0.2.1 192.0.2.2 1 65535", 28, "192.0.2.1:1", "192.0.2.2:65535"),
        ("[2001:db8::1]:1", "[::1]:2", "TCP6 2001:db8::1 ::1 1 2", 52, "[2001:db8::1]:1", "[::1]:2"),
        // A dual-stack socket's addresses.
        (
            "[::ffff:192.0.2.1]:1",
            "[::ffff:192.0.2.2]:2",
            "TCP4 192.0.2.1 192.0.2.2 1 2",
            28,
            "192.0.2.1:1",
            "192.0.2.2:2",
        ),
        ("[::ffff:192.0.2.1]:1", "192.0.2.2:2", "TCP4 192.0.2.1 192.0.2.2 1 2", 28, "192.0.2.1:1", "192.0.2.2:2"),
        // A header from another proxy may have told of one end only what this socket tells of the other.
        ("192.0.2.1:1", "[::1]:2", "TCP6 ::ffff:c000:201 ::1 1 2", 52, "[::ffff:192.0.2.1]:1", "[::1]:2"),
        ("[::1]:1", "[::ffff:192.0.2.2]:2", "TCP6 ::1 ::ffff:c000:202 1 2", 52, "[::1]:1", "[::ffff:192.0.2.2]:2"),
    ];
    for (source, destination, line, length, read_source, read_destination) in cases {
        let (v1, v2) = written(source, destination);
        assert_eq!(v1, format!("PROXY {line}\r\n"));
        assert_eq!(v2, header(length, read_source, read_destination), "{source} {destination}");
        is_header(v1.as_bytes(), proxied(read_source, read_destination));
    }
}

#[test]
fn without_a_client_it_is_a_connection_of_its_own() {
    let outgoing = Outgoing { unique_id: Some(b"x"), ..Outgoing::default() };
    assert_eq!(outgoing.v1(), b"PROXY UNKNOWN\r\n");
    assert_eq!(outgoing.v2(), v2(0, 0, &tlv(5, b"x")));
}

#[test]
fn the_facts_of_tls_are_read_back_by_another_reader() {
    let certificates = [
        (ClientCertificate::None, [false, false], 1, None),
        (ClientCertificate::Shown { common_name: Some("alice") }, [true, true], 0, Some("alice")),
        (ClientCertificate::Resumed { common_name: Some("bob") }, [false, true], 0, Some("bob")),
        (ClientCertificate::Shown { common_name: None }, [true, true], 0, None),
    ];
    for (certificate, [connection, session], verify, common_name) in certificates {
        let tls = TlsFacts { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", certificate, verified: true };
        let outgoing = Outgoing {
            client: Some(ends("192.0.2.1:1", "192.0.2.2:2")),
            authority: Some("db.example.com"),
            alpn: Some(b"postgresql"),
            unique_id: Some(b"0123456789"),
            tls: Some(tls),
            datagrams: false,
            received: None,
        };
        let bytes = outgoing.v2();
        let (header, length) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
        assert_eq!(length, bytes.len());
        assert_eq!(header.authority(), Some("db.example.com"));
        assert_eq!(header.alpn(), Some(&b"postgresql"[..]));
        assert_eq!(header.unique_id(), Some(&b"0123456789"[..]));
        let ssl = header.ssl().unwrap();
        assert!(ssl.client_ssl());
        assert_eq!([ssl.client_cert_conn(), ssl.client_cert_sess()], [connection, session]);
        assert_eq!((ssl.verify(), ssl.cn()), (verify, common_name));
        assert_eq!((ssl.version(), ssl.cipher()), (Some("TLSv1.3"), Some("TLS_AES_128_GCM_SHA256")));
        assert_eq!((header.tlvs().count(), ssl.tlvs().count()), (4, 2 + usize::from(common_name.is_some())));
    }
}

#[test]
fn values_that_are_too_long_are_left_out_and_not_cut() {
    let long = "x".repeat(70_000);
    let certificate = ClientCertificate::Shown { common_name: Some(&long) };
    let outgoing = Outgoing {
        client: None,
        authority: Some(&long),
        alpn: Some(long.as_bytes()),
        unique_id: Some(&[b'x'; 129]),
        tls: Some(TlsFacts { version: &long, cipher: &long, certificate, verified: true }),
        datagrams: false,
        received: None,
    };
    assert_eq!(outgoing.v2(), v2(0, 0, &tlv(0x20, &[7, 0, 0, 0, 0])));
    let id = Outgoing { unique_id: Some(&[b'x'; 128]), ..Outgoing::default() };
    assert_eq!(id.v2().len(), 16 + 3 + 128);
}

#[test]
fn what_a_trusted_peer_said_goes_on_unless_it_is_known_better() {
    let ends = ends("192.0.2.1:1", "192.0.2.2:2");
    let tlvs =
        [tlv(0x02, b"first.example"), tlv(0x01, b"h2"), tlv(0x04, b"padding"), tlv(0xea, b"\x01vpce-1")].concat();
    let mut rest = vec![192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2];
    rest.extend_from_slice(&tlvs);
    let received = ReceivedTlvs::of(&v2(1, 0x11, &rest)).unwrap();
    let outgoing = Outgoing { client: Some(ends), received: Some(&received), ..Outgoing::default() };
    let bytes = outgoing.v2();
    let (header, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
    assert_eq!((header.authority(), header.alpn()), (Some("first.example"), Some(&b"h2"[..])));
    assert_eq!(header.tlvs().count(), 3, "padding is of that hop");
    assert!(bytes.ends_with(&tlv(0xea, b"\x01vpce-1")));
    let bytes = Outgoing { authority: Some("second.example"), ..outgoing }.v2();
    let (header, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
    assert_eq!((header.authority(), header.tlvs().count()), (Some("second.example"), 3));
    assert_eq!(ReceivedTlvs::of(&v2(0, 0x11, &rest)), None, "LOCAL says nothing");
    assert_eq!(ReceivedTlvs::of(b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"), None);
}

#[test]
fn certificate_that_nobody_verified_is_said_to_be_so() {
    let certificate = ClientCertificate::Shown { common_name: Some("mallory") };
    let tls = TlsFacts { version: "TLSv1.3", cipher: "x", certificate, verified: false };
    let bytes =
        Outgoing { client: Some(ends("192.0.2.1:1", "192.0.2.2:2")), tls: Some(tls), ..Outgoing::default() }.v2();
    let (header, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
    let ssl = header.ssl().unwrap();
    assert_eq!((ssl.client_cert_conn(), ssl.verify(), ssl.cn()), (true, 1, Some("mallory")));
}
