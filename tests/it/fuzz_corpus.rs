//! The inputs of the fuzz targets (tests/fuzz), held to the same properties without a fuzzer.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::Path;

/// Panics if something does not hold of the bytes.
type Property = fn(&[u8]);

const TARGETS: [(&str, Property); 5] = [
    ("client_hello", properties::client_hello),
    ("http", properties::http),
    ("http_dialogue", properties::http_dialogue),
    ("postgres", properties::postgres),
    ("proxy_protocol", properties::proxy_protocol),
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

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz"))
}
