//! Dialogues with prepared answers.

use proptest::prelude::*;

use super::client::{CheckAccount, DatabaseClient, DialogueStep};
use crate::health::failure::{self, ProbeFailure};

/// An account with a password.
pub(super) fn account(section: &'static str) -> CheckAccount {
    CheckAccount {
        section,
        user: Some("check".to_owned()),
        password: Some(b"pencil".to_vec()),
        file: Some("/etc/pw".to_owned()),
    }
}

/// A dialogue with prepared answers: what the client sends, and what came of it.
pub(super) fn dialogue(
    client: &mut dyn DatabaseClient,
    answers: &[&[u8]],
) -> (Vec<Vec<u8>>, Result<DialogueStep, String>) {
    let mut sent = vec![client.begin()];
    for answer in answers {
        let mut reply = Vec::new();
        let progress = client.take(answer, &mut reply);
        sent.push(reply);
        match progress {
            Ok(DialogueStep::More) => {}
            done => return (sent, done.map_err(reason)),
        }
    }
    (sent, Ok(DialogueStep::More))
}

/// The reason, with what it counts as.
pub(super) fn reason(failure: ProbeFailure) -> String {
    let kind = match failure {
        ProbeFailure::Backend(_) => "",
        ProbeFailure::WrongRole(_) => "role: ",
        ProbeFailure::Unfit(_) => "unfit: ",
        ProbeFailure::Full(_) => "full: ",
        ProbeFailure::Local(_) => "local: ",
    };
    format!("{kind}{}", failure::reason(failure))
}

/// Bytes in arbitrary pieces, never more than the limit of all answers and a piece.
pub(super) fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)
}

/// A client takes whatever comes, in any pieces, until it has an outcome.
pub(super) fn survive(client: &mut dyn DatabaseClient, pieces: &[Vec<u8>]) {
    client.begin();
    let mut answer = Vec::new();
    for piece in pieces {
        match client.take(piece, &mut answer) {
            Ok(DialogueStep::More | DialogueStep::StartTls) => {}
            Ok(DialogueStep::Done(_)) | Err(_) => break,
        }
        assert!(answer.len() < 64 * 1024, "an answer of {} bytes", answer.len());
    }
}
