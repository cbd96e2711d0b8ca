//! Targets that pass are those that http's `Uri` takes: hyper answers others by itself, with neither a body nor a line in the
//! access log.

use hyper::Uri;
use proptest::prelude::*;

use super::*;

fn passes(target: &[u8]) -> bool {
    let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    RequestGate::new(1 << 20).take(&head).is_ok()
}

#[test]
fn each_byte_passes_in_paths_and_queries_only_if_a_uri_takes_it() {
    for byte in 0x21..=0xff {
        for target in [&[b'/', byte][..], &[b'/', b'?', byte], &[byte], &[byte, b'a'], b"http://a", &[b'a', byte]] {
            assert!(!passes(target) || Uri::try_from(target).is_ok(), "{:?}", String::from_utf8_lossy(target));
        }
        // And nothing of ASCII is refused that it takes, in paths and queries, but a fragment.
        for target in [&[b'/', byte][..], &[b'/', b'?', byte]] {
            let takes = byte.is_ascii() && byte != b'#' && Uri::try_from(target).is_ok();
            assert_eq!(passes(target), takes, "{:?}", String::from_utf8_lossy(target));
        }
    }
}

#[test]
fn targets_of_every_form_pass() {
    for target in
        ["*", "/", "/a?b=c?d", "a:80", "a", "[::1]:80", "http://a", "HTTPS://a:80/", "http://[::1]:80?a", "ftp://a/"]
    {
        assert!(passes(target.as_bytes()) && target.parse::<Uri>().is_ok(), "{target}");
    }
    for target in [
        "**",
        "*a",
        "http:/a",
        "http:///a",
        "http://",
        "a:80/",
        "a/b",
        "a?b",
        "[::1",
        "http://u@a/",
        "http://a%41/",
        ":80",
        "?a",
        "//\u{7f}",
    ] {
        assert!(!passes(target.as_bytes()), "{target}");
    }
}

#[test]
fn longest_target_is_one_that_a_uri_holds() {
    let path = |length: usize| [b"/", &*vec![b'a'; length - 1]].concat();
    let longest = MAX_TARGET as usize - "GET ".len() - " ".len();
    assert!(passes(&path(longest)) && Uri::try_from(&*path(MAX_TARGET as usize)).is_ok());
    let head = [b"GET ", &*path(longest + 1), b" HTTP/1.1\r\n"].concat();
    let refused = RequestGate::new(1 << 20).take(&head).unwrap_err();
    assert_eq!((refused.why, refused.why.status()), (Violation::UriTooLong, 414));
}

#[test]
fn longest_field_name_is_one_that_a_header_map_holds() {
    let head = |length: usize| [b"GET / HTTP/1.1\r\n", &*vec![b'a'; length], b": 1\r\n"].concat();
    let longest = usize::from(u16::MAX);
    assert!(hyper::header::HeaderName::from_bytes(&vec![b'a'; longest]).is_ok());
    assert_eq!(RequestGate::new(1 << 20).take(&head(longest)), Ok(()));
    let refused = RequestGate::new(1 << 20).take(&head(longest + 1)).unwrap_err();
    assert_eq!((refused.why, refused.why.status()), (Violation::HeadTooLong, 431));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn target_that_passes_is_a_uri(target in "(http://|https?:/?/?|ftp:|[a-z:/@]{0,4})[-a-f0-9.:/?#%@*_~\\[\\]<>^`{}|\"\\\\]{0,12}") {
        prop_assert!(!passes(target.as_bytes()) || target.parse::<Uri>().is_ok(), "{}", target);
    }
}
