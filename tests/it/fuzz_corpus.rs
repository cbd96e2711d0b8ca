//! The inputs of the fuzz targets (tests/fuzz), held to the same properties without a fuzzer.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;

/// Panics if something does not hold of the bytes.
type Property = fn(&[u8]);

const TARGETS: [(&str, Property); 12] = [
    ("client_hello", properties::client_hello),
    ("http", properties::http),
    ("http_dialogue", properties::http_dialogue),
    ("http_gate", properties::http_gate),
    ("mysql_login", properties::mysql_login),
    ("mysql_queries", properties::mysql_queries),
    ("postgres", properties::postgres),
    ("protocol", properties::protocol),
    ("postgres_queries", properties::postgres_queries),
    ("proxy_protocol", properties::proxy_protocol),
    ("redis_queries", properties::redis_queries),
    ("udp_sessions", properties::udp_sessions),
];

#[test]
fn the_properties_hold_for_the_whole_corpus() {
    let corpus = fuzz().join("corpus");
    for (target, property) in TARGETS {
        let mut replayed = 0;
        for entry in fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if let Err(failure) = panic::catch_unwind(|| property(&bytes)) {
                eprintln!("with the input {}", path.display());
                panic::resume_unwind(failure);
            }
            replayed += 1;
        }
        assert!(replayed >= 20, "{target}: only {replayed} inputs");
    }
}

#[test]
fn every_target_has_a_corpus_and_is_replayed() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    let replayed: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names("targets"), replayed);
    assert_eq!(names("corpus"), replayed);
}

/// What HTTP is made of, and what ends a turn.
const SCRAPS: [&[u8]; 27] = [
    b"\xff",
    b"\xff",
    b"\xff",
    b"GET / HTTP/1.1\r\n",
    b"HEAD / HTTP/1.1\r\n",
    b"POST / HTTP/1.0\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 x\r\n",
    b"HTTP/1.1 100 x\r\n\r\n",
    b"HTTP/1.1 101 x\r\n\r\n",
    b"HTTP/1.0 404 x\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 70000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0;x\r\n",
    b"fffffffffffffff\r\n",
    b"hello",
    b"\x16\x03\x01",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Few of them are legal; all are followed the same way in any pieces, and with or without what need not be seen.
    #[test]
    fn dialogues_made_of_scraps_are_followed_the_same_way_in_any_pieces(
        scraps in prop::collection::vec(prop_oneof![
            9 => prop::sample::select(SCRAPS.to_vec()).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..6),
        ], 0..40),
    ) {
        properties::http_dialogue(&scraps.concat());
        properties::http_gate(&scraps.concat());
    }
}

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz"))
}

/// The inputs of every target, with what must hold of them.
fn seeds() -> &'static [(Property, Vec<u8>)] {
    static SEEDS: OnceLock<Vec<(Property, Vec<u8>)>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let mut seeds = Vec::new();
        for (target, property) in TARGETS {
            let mut paths: Vec<_> =
                fs::read_dir(fuzz().join("corpus").join(target)).unwrap().map(|e| e.unwrap().path()).collect();
            paths.sort();
            seeds.extend(paths.into_iter().map(|path| (property, fs::read(path).unwrap())));
        }
        seeds
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes changed, left out and put in.
    #[test]
    fn the_properties_hold_for_inputs_that_are_changed(
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..6),
    ) {
        let (property, seed) = seed.get(seeds());
        let mut bytes = seed.clone();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len() + 1);
            match edit {
                0 => bytes.insert(at, byte),
                _ if at == bytes.len() => {}
                1 => bytes[at] = byte,
                _ => drop(bytes.remove(at)),
            }
        }
        property(&bytes);
    }
}
