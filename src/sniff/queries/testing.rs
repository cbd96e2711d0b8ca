//! Dialogues, and what a watcher sees of them.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{QueryWatcher, WatchEvent};
use crate::stats::queries::QueryProtocol;
use crate::stats::termination::Side;

/// What passes between two calls.
const STEP: Duration = Duration::from_millis(1);

/// What both sides send, in turns.
pub(super) type Dialogue = Vec<(Side, Vec<u8>)>;

/// A watcher, and what it has seen as words.
pub(super) struct WatchedDialogue {
    pub(super) watcher: QueryWatcher,
    protocol: QueryProtocol,
    now: Instant,
    pub(super) seen: Vec<String>,
    /// With the times of answers, in steps.
    pub(super) timed: bool,
}

impl WatchedDialogue {
    pub(super) fn new(protocol: QueryProtocol) -> WatchedDialogue {
        let now = Instant::now();
        WatchedDialogue { watcher: QueryWatcher::new(protocol, now), protocol, now, seen: Vec::new(), timed: false }
    }

    pub(super) fn client(&mut self, bytes: impl AsRef<[u8]>) -> &mut WatchedDialogue {
        self.sent(Side::Client, bytes.as_ref())
    }

    pub(super) fn server(&mut self, bytes: impl AsRef<[u8]>) -> &mut WatchedDialogue {
        self.sent(Side::Backend, bytes.as_ref())
    }

    fn sent(&mut self, from: Side, bytes: &[u8]) -> &mut WatchedDialogue {
        self.now += STEP;
        let (protocol, timed, seen) = (self.protocol, self.timed, &mut self.seen);
        self.watcher.read(from, bytes, self.now, &mut |event| seen.push(words(protocol, timed, event)));
        self
    }

    fn skip(&mut self, from: Side, count: u64) {
        self.now += STEP;
        let (protocol, timed, seen) = (self.protocol, self.timed, &mut self.seen);
        self.watcher.skip(from, count, self.now, &mut |event| seen.push(words(protocol, timed, event)));
    }

    pub(super) fn end(&mut self) -> &mut WatchedDialogue {
        let (protocol, timed, seen) = (self.protocol, self.timed, &mut self.seen);
        self.watcher.ended(&mut |event| seen.push(words(protocol, timed, event)));
        self
    }

    /// Takes what was seen.
    #[track_caller]
    pub(super) fn saw(&mut self, expected: &[&str]) -> &mut WatchedDialogue {
        assert_eq!(self.seen, expected);
        self.seen.clear();
        self
    }
}

fn words(protocol: QueryProtocol, timed: bool, event: WatchEvent<'_>) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match event {
        WatchEvent::Answered { statement, failed, pipelined, first_byte, took } => {
            let mut words = protocol.statement_name(statement).to_owned();
            words.push_str(if failed { " failed" } else { "" });
            words.push_str(if pipelined { " pipelined" } else { "" });
            assert!(first_byte <= took);
            if timed {
                words.push_str(&format!(" {}/{}", first_byte.as_millis(), took.as_millis()));
            }
            words
        }
        WatchEvent::Failed(class) => format!("error {}", protocol.class_name(class)),
        WatchEvent::Unanswered => "unanswered".to_owned(),
        WatchEvent::User(name) => format!("user {}", text(name)),
        WatchEvent::Database(name) => format!("database {}", text(name)),
        WatchEvent::Opaque(reason) => format!("opaque: {}", reason.name()),
    }
}

/// What is seen of a dialogue in one piece for each turn.
pub(super) fn seen_whole(protocol: QueryProtocol, dialogue: &Dialogue) -> Vec<String> {
    let mut watched = WatchedDialogue::new(protocol);
    dialogue.iter().for_each(|(from, bytes)| _ = watched.sent(*from, bytes));
    watched.end();
    watched.seen
}

/// The same in pieces of these lengths, and where `skips` says so without those bytes that need not be seen.
pub(super) fn seen_in_pieces(protocol: QueryProtocol, dialogue: &Dialogue, cuts: &[usize], skips: bool) -> Vec<String> {
    let mut cuts = cuts.iter().copied().cycle();
    let mut watched = WatchedDialogue::new(protocol);
    for (from, bytes) in dialogue {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = cuts.next().unwrap_or(1).clamp(1, rest.len());
            let skippable = watched.watcher.skippable(*from);
            if skips && skippable > 0 {
                let length = length.min(usize::try_from(skippable).unwrap_or(usize::MAX));
                watched.skip(*from, length as u64);
                rest = &rest[length..];
                continue;
            }
            watched.sent(*from, &rest[..length]);
            rest = &rest[length..];
        }
    }
    watched.end();
    watched.seen
}

/// Lengths of pieces.
pub(super) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![vec(1..4_usize, 1..20), vec(1..60_usize, 1..20)]
}

/// Bytes of no protocol, and parts of one.
pub(super) fn noise(parts: &'static [&'static [u8]]) -> impl Strategy<Value = Dialogue> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Backend)];
    let bytes = prop_oneof![vec(any::<u8>(), 0..40), proptest::sample::select(parts).prop_map(<[u8]>::to_vec)];
    vec((side, bytes), 0..40)
}
