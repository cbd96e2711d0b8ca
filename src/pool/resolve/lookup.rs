//! One lookup by the system's resolver, in a thread of its own.
//!
//! The thread is detached. The runtime's threads for blocking calls would not do: a runtime waits for them when it ends, and
//! getaddrinfo(3) may hang for as long as resolv.conf allows.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use tokio::sync::mpsc;

/// What came of the lookup of the name with this number.
pub(super) type Answer = (usize, io::Result<Vec<SocketAddr>>);

/// A name to look up. Dropped without an answer, it counts as failed: no place may stay taken.
pub(super) struct Question {
    pub(super) number: usize,
    pub(super) host: String,
    pub(super) port: u16,
    /// Has room for the answers of all lookups that may be under way.
    answers: Option<mpsc::Sender<Answer>>,
}

impl Question {
    pub(super) fn new(number: usize, host: &str, port: u16, answers: &mpsc::Sender<Answer>) -> Question {
        Question { number, host: host.to_owned(), port, answers: Some(answers.clone()) }
    }

    pub(super) fn answer(mut self, answer: io::Result<Vec<SocketAddr>>) {
        self.send(answer);
    }

    fn send(&mut self, answer: io::Result<Vec<SocketAddr>>) {
        if let Some(answers) = self.answers.take() {
            // Without a receiver the process is about to end.
            let _ = answers.try_send((self.number, answer));
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.send(Err(io::Error::other("no thread for the lookup")));
    }
}

/// Asks the system's resolver: hosts file, DNS, whatever is configured.
pub(super) fn in_thread(question: Question) {
    let lookup = move || {
        let found = (question.host.as_str(), question.port).to_socket_addrs().map(Iterator::collect);
        question.answer(found);
    };
    // When no thread can be made, the question is dropped.
    let _ = thread::Builder::new().name("lookup".to_owned()).spawn(lookup);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_that_is_lost_counts_as_failed() {
        let (answers, mut receiver) = mpsc::channel(1);
        drop(Question::new(7, "a", 1, &answers));
        let (number, answer) = receiver.recv().await.unwrap();
        assert_eq!((number, answer.unwrap_err().to_string().as_str()), (7, "no thread for the lookup"));
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let (answers, mut receiver) = mpsc::channel(1);
        in_thread(Question::new(3, "localhost", 80, &answers));
        let (number, answer) = receiver.recv().await.unwrap();
        assert_eq!(number, 3);
        assert!(answer.unwrap().iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }
}
