//! The gate before HTTP's parser, held against httparse and a reading of bodies of its own.

use tidegate::http::gate::{MAX_EMPTY_LINES, RequestGate, Violation};

const MAX_HEAD: u32 = 512;

/// The verdict is the same in any portions, and what passes has the bounds that httparse sees.
pub(crate) fn http_gate(bytes: &[u8]) {
    let (passed, why, _) = screened(bytes, usize::MAX);
    assert!(why.is_some() || passed == bytes.len());
    for portion in [1, 3, 64, usize::MAX] {
        let (count, found, gate) = screened(bytes, portion);
        assert_eq!(found, why, "in portions of {portion}");
        assert!(count >= passed, "in portions of {portion}");
        let (all, none, again) = screened(&bytes[..count], usize::MAX);
        assert_eq!((all, none, again.heads()), (count, None, gate.heads()), "in portions of {portion}");
        let place = Place::after(&bytes[..count], gate.heads());
        assert_eq!(place == Place::Between, again.is_between_requests(), "{place:?}");
        assert_eq!(place == Place::Head, again.is_in_head(), "{place:?}");
        if portion == usize::MAX && why.is_some() {
            assert_eq!(place, Place::Between, "bytes of a refused request have passed");
        }
    }
}

/// How many bytes pass, why no more, and the gate behind them.
fn screened(bytes: &[u8], portion: usize) -> (usize, Option<Violation>, RequestGate) {
    let (mut gate, mut passed) = (RequestGate::new(MAX_HEAD), 0);
    for part in bytes.chunks(portion) {
        match gate.take(part) {
            Ok(()) => passed += part.len(),
            Err(refused) => return (passed + refused.passes, Some(refused.why), gate),
        }
    }
    (passed, None, gate)
}

/// Where bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    Head,
    Body,
}

impl Place {
    /// Where these bytes end, after this number of heads. Panics where httparse refuses them.
    fn after(mut bytes: &[u8], heads: u64) -> Place {
        let mut seen = 0;
        let place = loop {
            for _ in 0..MAX_EMPTY_LINES {
                bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
            }
            if matches!(bytes, b"" | b"\r") {
                break Place::Between;
            }
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut head = httparse::Request::new(&mut fields);
            let httparse::Status::Complete(length) = head.parse(bytes).expect("a head") else { break Place::Head };
            seen += 1;
            let values = |name: &str| -> Vec<&[u8]> {
                head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|f| f.value).collect()
            };
            let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
            bytes = &bytes[length..];
            let rest = match (&lengths[..], &codings[..]) {
                ([], []) => Some(bytes),
                ([length], []) => behind_length(bytes, length),
                ([], [coding]) => {
                    assert!(coding.eq_ignore_ascii_case(b"chunked") && head.version == Some(1));
                    behind_chunks(bytes)
                }
                both => panic!("{both:?}"),
            };
            match rest {
                Some(rest) => bytes = rest,
                None => break Place::Body,
            }
        };
        assert_eq!(seen, heads);
        place
    }
}

/// What follows a body; `None` if it is incomplete.
fn behind_length<'b>(bytes: &'b [u8], length: &[u8]) -> Option<&'b [u8]> {
    assert!(length.iter().all(u8::is_ascii_digit));
    let length: u64 = std::str::from_utf8(length).expect("digits").parse().expect("a number of 64 bits");
    bytes.get(usize::try_from(length).ok()?..)
}

fn behind_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(bytes).expect("a chunk") else {
            return None;
        };
        bytes = &bytes[start..];
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            return match httparse::parse_headers(bytes, &mut fields).expect("trailers") {
                httparse::Status::Complete((length, _)) => Some(&bytes[length..]),
                httparse::Status::Partial => None,
            };
        }
        let end = bytes.get(usize::try_from(size).ok()?..)?;
        let line_end = end.get(..2)?;
        assert_eq!(line_end, b"\r\n");
        bytes = &end[2..];
    }
}
