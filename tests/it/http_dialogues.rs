//! Odd HTTP (tests/http): what the watcher of `sniff: http` tells of it, in whatever pieces it comes.

use std::fs;
use std::path::Path;
use std::time::Instant;

use tidegate::sniff::http::{Event, Watcher};

/// What a side does.
enum Step {
    Client(Vec<u8>),
    Backend(Vec<u8>),
    BackendFinishes,
}

/// A connection of a file.
struct Dialogue {
    name: String,
    steps: Vec<Step>,
    wanted: Vec<String>,
}

#[test]
fn odd_but_legal_http_is_never_misframed() {
    let dialogues = read("legal.txt");
    assert!(dialogues.len() >= 25, "{}", dialogues.len());
    for dialogue in dialogues {
        assert!(!dialogue.wanted.iter().any(|event| event.contains("opaque")), "{}", dialogue.name);
        holds(&dialogue);
    }
}

#[test]
fn what_cannot_be_followed_turns_opaque_with_its_reason() {
    let dialogues = read("opaque.txt");
    assert!(dialogues.len() >= 25, "{}", dialogues.len());
    for dialogue in dialogues {
        assert!(dialogue.wanted.iter().any(|event| event.contains("opaque")), "{}", dialogue.name);
        holds(&dialogue);
    }
}

/// In any pieces, and whether what need not be seen is seen or not.
#[track_caller]
fn holds(dialogue: &Dialogue) {
    for portion in [usize::MAX, 1, 2, 3, 7, 64] {
        for pass in [false, true] {
            assert_eq!(watch(dialogue, portion, pass), dialogue.wanted, "{}, in {portion}, {pass}", dialogue.name);
        }
    }
}

fn watch(dialogue: &Dialogue, portion: usize, pass: bool) -> Vec<String> {
    let mut watcher = Watcher::default();
    let now = Instant::now();
    let mut events = Vec::new();
    let out = &mut |event| events.push(shown(event));
    for step in &dialogue.steps {
        let (of_client, mut bytes) = match step {
            Step::Client(bytes) => (true, bytes.as_slice()),
            Step::Backend(bytes) => (false, bytes.as_slice()),
            Step::BackendFinishes => {
                watcher.backend_finished(now, out);
                continue;
            }
        };
        while !bytes.is_empty() {
            let unseen = if of_client { watcher.unseen_from_client() } else { watcher.unseen_from_backend() };
            let (piece, rest) = bytes.split_at(portion.min(bytes.len()));
            match (of_client, (piece.len() as u64).min(unseen)) {
                (true, passed @ 1..) if pass => {
                    watcher.passed_from_client(passed);
                    bytes = &bytes[passed as usize..];
                    continue;
                }
                (false, passed @ 1..) if pass => {
                    watcher.passed_from_backend(passed, now, out);
                    bytes = &bytes[passed as usize..];
                    continue;
                }
                (true, _) => watcher.client_sent(piece, now, out),
                (false, _) => watcher.backend_sent(piece, now, out),
            }
            bytes = rest;
        }
    }
    watcher.ended(out);
    events
}

fn shown(event: Event) -> String {
    match event {
        Event::Responded { method, class, .. } => format!("{} {}", method.name(), class.name()),
        Event::Unanswered => "unanswered".to_owned(),
        Event::Opaque(why) => format!("opaque: {why}"),
    }
}

fn read(file: &str) -> Vec<Dialogue> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http")).join(file);
    let mut dialogues: Vec<Dialogue> = Vec::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        if let Some(name) = line.strip_prefix("# ") {
            dialogues.push(Dialogue { name: name.to_owned(), steps: Vec::new(), wanted: Vec::new() });
            continue;
        }
        let Some(dialogue) = dialogues.last_mut() else { panic!("before the first dialogue: {line}") };
        match line.split_at_checked(2) {
            None if line.is_empty() => {}
            Some(("> ", text)) => dialogue.steps.push(Step::Client(bytes(text))),
            Some(("< ", text)) => dialogue.steps.push(Step::Backend(bytes(text))),
            Some(("<.", "")) => dialogue.steps.push(Step::BackendFinishes),
            Some(("= ", event)) => match event.split_once(" *") {
                Some((event, count)) => {
                    dialogue.wanted.extend(std::iter::repeat_n(event.to_owned(), count.parse().unwrap()));
                }
                None => dialogue.wanted.push(event.to_owned()),
            },
            _ => panic!("what is {line:?}?"),
        }
    }
    dialogues
}

/// The bytes that a line stands for.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(repeated) = rest.strip_prefix('{') {
            let (repeated, behind) = repeated.split_once('}').expect("a closing brace");
            let (part, count) = repeated.rsplit_once('*').expect("a count");
            bytes.extend(self::bytes(part).repeat(count.parse().unwrap()));
            rest = behind;
            continue;
        }
        let (byte, length) = match rest.as_bytes() {
            [b'\\', b'r', ..] => (b'\r', 2),
            [b'\\', b'n', ..] => (b'\n', 2),
            [b'\\', b't', ..] => (b'\t', 2),
            [b'\\', b'x', ..] => (u8::from_str_radix(&rest[2..4], 16).unwrap(), 4),
            [byte, ..] => (*byte, 1),
            [] => break,
        };
        assert!(first.is_ascii(), "{text}");
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}
