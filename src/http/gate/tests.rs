use hyper::http::request::Parts;
use hyper::{Request, Version};

use super::*;
use crate::http::request::{RequestFault, check_request};
use malformed::MALFORMED;

mod against_hyper;
pub(crate) mod malformed;
mod targets;

const MAX_HEAD: u32 = 4096;

/// What a gate lets pass of the bytes in these portions, the complete heads in that, and the first violation.
fn passed(portions: &[&[u8]]) -> (usize, u64, Option<Violation>) {
    let mut gate = RequestGate::new(MAX_HEAD);
    let mut passed = 0;
    for portion in portions {
        match gate.take(portion) {
            Ok(()) => passed += portion.len(),
            Err(Refused { passes, why, .. }) => {
                assert_eq!(gate.take(b"GET / HTTP/1.1\r\n\r\n"), Err(Refused { passes: 0, why, cuts_body: false }));
                return (passed + passes, gate.heads(), Some(why));
            }
        }
    }
    (passed, gate.heads(), None)
}

/// The verdict for the bytes, which is the same in any portions. `sound` bytes in front are complete requests.
fn verdict(name: &str, bytes: &[u8], sound: usize) -> Option<Violation> {
    let (whole, heads, why) = passed(&[bytes]);
    assert_eq!(whole, if why.is_some() { sound } else { bytes.len() }, "{name}");
    let in_bytes: Vec<&[u8]> = bytes.chunks(1).collect();
    // Every cut, but of the longest inputs.
    let cuts = (0..=bytes.len()).step_by(bytes.len() / 2048 + 1).map(|cut| vec![&bytes[..cut], &bytes[cut..]]);
    for portions in cuts.chain([in_bytes]) {
        let (count, seen, found) = passed(&portions);
        assert_eq!(found, why, "{name}: first portion {}", portions[0].len());
        assert!(count >= sound, "{name}: {count}");
        // What has passed has the heads that were counted, and no violation.
        assert_eq!(passed(&[&bytes[..count]]), (count, seen, None), "{name}: first portion {}", portions[0].len());
        let cuts_body = seen > heads;
        assert!(!cuts_body || why.is_some(), "{name}");
    }
    why
}

/// What hyper makes of a head, as far as the checks look at it. `None` if its target is no URI.
fn parsed(bytes: &[u8]) -> Option<Parts> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut fields);
    assert!(head.parse(bytes).unwrap().is_complete());
    let version = if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request = Request::builder().method(head.method.unwrap()).uri(head.path.unwrap()).version(version);
    for field in head.headers.iter() {
        request = request.header(field.name, field.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

#[test]
fn malformed_requests_are_refused_by_the_rule_that_they_break() {
    for (name, bytes, status) in MALFORMED {
        let (rule, found) = match verdict(name, bytes, 0) {
            Some(why) => (format!("{why:?}"), why.status()),
            None => match parsed(bytes).map(|parts| check_request(&parts)) {
                None => ("Unparsed".to_owned(), 400),
                Some(Err(fault)) => (format!("{fault:?}"), RequestFault::status(fault)),
                Some(Ok(())) => panic!("{name} passes"),
            },
        };
        assert_eq!((name.split(':').next().unwrap(), *status), (rule.as_str(), found), "{name}");
    }
    let names: std::collections::BTreeSet<_> = MALFORMED.iter().map(|row| row.0).collect();
    assert_eq!(names.len(), MALFORMED.len());
}

/// Behind sound requests the verdict is the same, and the sound ones pass.
#[test]
fn sound_requests_in_front_of_malformed_ones_pass() {
    let sound = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nPUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nT: u\r\n\r\n";
    for (name, bytes, _) in MALFORMED {
        let both = [sound, *bytes].concat();
        assert_eq!(verdict(name, &both, sound.len()), passed(&[bytes]).2, "{name}");
    }
}

#[test]
fn sound_requests_pass_and_are_counted() {
    let rows: [(&[u8], u64); 16] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        (b"GET / HTTP/1.0\r\n\r\n", 1),
        (b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        (b"get-x!#$%&'*+.^_`|~09 /?a=b&c={}|\\^`~ HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 1),
        (b"GET http://a:80/ HTTP/1.1\r\nHost: A\r\n\r\n", 1),
        (b"GET / HTTP/1.1\r\nHost:a\r\nX:\r\nY: \t \r\nZ:\tb c\x80\xff\t\r\nx_y: z\r\n\r\n", 1),
        (b"POST / HTTP/1.1\r\nHost: a\r\ncOnTeNt-lEnGtH: \t5 \t\r\n\r\n\r\n\0\n\r", 1),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nGET /GET / HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Lengthy: x\r\nContent-Lengt: y\r\nTransfer-Encodings: z\r\n\r\n", 1),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\t ChunkeD \t\r\n\r\n0000000000000003;a=\"b\";c\r\n\r\n\r\r\n0\r\n\r\n", 1),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\naB\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\nHosts: x\r\n\r\n", 1),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9223372036854775807\r\n\r\nabc", 1),
    ];
    for (bytes, heads) in rows {
        let name = String::from_utf8_lossy(bytes);
        assert_eq!(verdict(&name, bytes, 0), None, "{name}");
        assert_eq!(passed(&[bytes]).1, heads, "{name}");
        if let Some(parts) = parsed(bytes) {
            assert_eq!(check_request(&parts), Ok(()), "{name}");
        }
    }
}

/// One byte more than a limit is refused; the limit itself is not.
#[test]
fn limits_are_exact() {
    let max_head = MAX_HEAD as usize;
    let fill = |frame: &str, length: usize| frame.replace('@', &"a".repeat(length + 1 - frame.len()));
    let fields = |start: &str, count: usize| [start, &"a: b\r\n".repeat(count), "\r\n"].concat();
    let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extension = |length: usize| format!("{chunked}1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(length));
    let extensions = |count: usize, last: usize| {
        let line = format!("1;{}\r\nx\r\n", "a".repeat(250));
        format!("{chunked}{}1;{}\r\nx\r\n0\r\n\r\n", line.repeat(count), "a".repeat(last))
    };
    let trailers = |length: usize| format!("{chunked}0\r\n{}", fill("X: @\r\n\r\n", length));
    let head = "GET / HTTP/1.1\r\nX: @\r\n\r\n";
    let line = "GET /@ HTTP/1.1\r\n\r\n";
    let rows = [
        (fill(head, max_head), fill(head, max_head + 1), Violation::HeadTooLong),
        (fill(line, max_head), fill(line, max_head + 1), Violation::HeadTooLong),
        (fill(line, max_head), fill(line, max_head + 4), Violation::UriTooLong),
        (fill(line, max_head), fill("@ / HTTP/1.1\r\n\r\n", max_head + 4), Violation::UriTooLong),
        (fields("GET / HTTP/1.1\r\n", 100), fields("GET / HTTP/1.1\r\n", 101), Violation::TooManyFields),
        (fields(&format!("{chunked}0\r\n"), 100), fields(&format!("{chunked}0\r\n"), 101), Violation::TooManyFields),
        (extension(256), extension(257), Violation::ChunkExtensionsTooLong),
        (extensions(63, 250), extensions(63, 251), Violation::ChunkExtensionsTooLong),
        (trailers(max_head), trailers(max_head + 1), Violation::TrailersTooLong),
    ];
    for (within, over, why) in rows {
        assert_eq!(verdict("limit", within.as_bytes(), 0), None, "{why}");
        assert_eq!(verdict("over it", over.as_bytes(), 0), Some(why));
    }
    let mut gate = RequestGate::new(u32::MAX);
    let long = trailers(MAX_TRAILERS as usize + 1);
    assert_eq!(gate.take(long.as_bytes()).unwrap_err().why, Violation::TrailersTooLong);
    // A body without end counts as no head.
    let mut gate = RequestGate::new(64);
    gate.take(b"POST / HTTP/1.1\r\nContent-Length: 9000000000000000000\r\n\r\n").unwrap();
    gate.take(&[0; 100_000]).unwrap();
}

#[test]
fn places_on_a_connection_are_told_apart() {
    let mut gate = RequestGate::new(MAX_HEAD);
    let mut seen = Vec::new();
    for byte in b"\r\nP / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab\r\nG / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n" {
        gate.take(&[*byte]).unwrap();
        let place = match (gate.is_between_requests(), gate.is_in_head()) {
            (true, false) => "between",
            (false, true) => "head",
            (false, false) => "body",
            (true, true) => unreachable!(),
        };
        match seen.last_mut() {
            Some((last, count, heads)) if *last == place && *heads == gate.heads() => *count += 1,
            _ => seen.push((place, 1, gate.heads())),
        }
    }
    let head = "G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".len() - 1;
    let body = "\n1\r\na\r\n0\r\nA: b\r\n\r".len();
    let first = "P / HTTP/1.1\r\nContent-Length: 2\r\n\r".len();
    let wanted = [
        ("between", 2, 0),
        ("head", first, 0),
        ("body", 2, 1),
        ("between", 3, 1),
        ("head", head, 1),
        ("body", body, 2),
        ("between", 1, 2),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn a_violation_in_a_body_cuts_it_only_where_its_head_has_passed() {
    let (head, bad) = (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), b"1\r\na\r\nX".as_slice());
    let why = Violation::BadChunk;
    let mut gate = RequestGate::new(MAX_HEAD);
    assert_eq!(gate.take(&[head, bad].concat()), Err(Refused { passes: 0, why, cuts_body: false }));
    assert_eq!(gate.heads(), 0);
    let mut gate = RequestGate::new(MAX_HEAD);
    gate.take(head).unwrap();
    assert_eq!(gate.take(bad), Err(Refused { passes: 0, why, cuts_body: true }));
    assert_eq!(gate.heads(), 1);
    let mut gate = RequestGate::new(MAX_HEAD);
    gate.take(head).unwrap();
    let rest = [b"0\r\n\r\n", head, bad].concat();
    assert_eq!(gate.take(&rest), Err(Refused { passes: 5, why, cuts_body: false }));
    assert_eq!(gate.heads(), 1);
}

#[test]
fn an_open_gate_looks_at_nothing() {
    let mut gate = RequestGate::new(MAX_HEAD);
    gate.take(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    gate.open();
    gate.take(b"\0\n \x81\x85").unwrap();
    assert_eq!((gate.heads(), gate.is_between_requests(), gate.is_in_head()), (1, false, false));
}

#[test]
fn a_gate_is_small() {
    assert!(size_of::<RequestGate>() <= 48);
}
