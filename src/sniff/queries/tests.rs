use proptest::prelude::*;

use super::testing::{Dialogue, WatchedDialogue, cuts, noise, seen_in_pieces, seen_whole};
use super::*;

/// Parts of the protocols, right ones and such that have lengths that are none.
const PARTS: &[&[u8]] = &[
    b"\0\0\0\x16\0\x03\0\0user\0a\0database\0b\0\0",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"N",
    b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I",
    b"Q\0\0\0\x0dSELECT 1\0",
    b"P\0\0\0\x10\0select 1\0\0\0\0",
    b"B\0\0\0\x0c\0\0\0\0\0\0\0\0",
    b"E\0\0\0\x09\0\0\0\0\0",
    b"S\0\0\0\x04",
    b"C\0\0\0\x0dSELECT 1\0",
    b"E\0\0\0\x10SERROR\0C42601\0\0",
    b"G\0\0\0\x07\0\0\0c\0\0\0\x04",
    b"\x0a\0\0\x01\x03select 1",
    b"\x07\0\0\x01\0\0\0\x02\0\0\0",
    b"\x01\0\0\x01\x01",
    b"\x05\0\0\x05\xfe\0\0\x02\0",
    b"\x09\0\0\x01\xff\x28\x04#42000",
    b"\x05\0\0\0\x17\x01\0\0\0",
    b"\xff\xff\xff\x00",
    b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    b"PING\r\n",
    b"+OK\r\n",
    b"-ERR no\r\n",
    b"$3\r\nabc\r\n",
    b"*3\r\n:1\r\n*1\r\n$-1\r\n%1\r\n+a\r\n#t\r\n",
    b">2\r\n+invalidate\r\n_\r\n",
    b"*9223372036854775807\r\n*9223372036854775807\r\n*9223372036854775807\r\n",
    b"$9999999999999999999\r\n",
];

fn protocol() -> impl Strategy<Value = QueryProtocol> {
    proptest::sample::select(&QueryProtocol::ALL[..])
}

/// Bytes that a watcher holds beside itself: names and outstanding queries, at most.
fn feed(watched: &mut WatchedDialogue, dialogue: &Dialogue) {
    for (from, bytes) in dialogue {
        match from {
            Side::Client => watched.client(bytes),
            Side::Backend => watched.server(bytes),
        };
    }
}

proptest! {
    #[test]
    fn noise_is_seen_the_same_in_any_pieces(
        protocol in protocol(), dialogue in noise(PARTS), cuts in cuts(), skips: bool,
    ) {
        let whole = seen_whole(protocol, &dialogue);
        prop_assert_eq!(seen_in_pieces(protocol, &dialogue, &cuts, skips), whole);
    }

    /// Each query ends once, and what is opaque stays it.
    #[test]
    fn what_turned_opaque_says_nothing_more(protocol in protocol(), dialogue in noise(PARTS)) {
        let mut watched = WatchedDialogue::new(protocol);
        feed(&mut watched, &dialogue);
        watched.end().seen.clear();
        prop_assert_eq!(watched.watcher.skippable(Side::Client), u64::MAX);
        feed(&mut watched, &dialogue);
        watched.end().saw(&[]);
    }
}

/// The largest part of what a watched connection takes in addition.
#[test]
fn watcher_takes_at_most_480_bytes() {
    assert!(size_of::<QueryWatcher>() <= 480, "{} bytes", size_of::<QueryWatcher>());
}
