//! First datagrams of clients without a session, until there is time to open one.

use std::collections::VecDeque;

use super::flows::FlowKey;

/// Datagrams of unknown clients, in the order in which they came.
///
/// Opening a session costs several system calls. Datagrams of sessions go first, so that a flood of new addresses costs
/// established sessions nothing but the read of each datagram.
#[derive(Debug)]
pub struct FirstDatagrams {
    waiting: VecDeque<(FlowKey, Box<[u8]>)>,
    bytes: usize,
    max_datagrams: usize,
    max_bytes: usize,
}

impl FirstDatagrams {
    /// One that holds at most so much.
    pub fn new(max_datagrams: usize, max_bytes: usize) -> FirstDatagrams {
        FirstDatagrams { waiting: VecDeque::new(), bytes: 0, max_datagrams, max_bytes }
    }

    /// Adds a datagram. False if there is no room: it is to be dropped.
    pub fn push(&mut self, key: FlowKey, datagram: &[u8]) -> bool {
        if self.waiting.len() >= self.max_datagrams || self.bytes + datagram.len() > self.max_bytes {
            return false;
        }
        self.bytes += datagram.len();
        self.waiting.push_back((key, datagram.into()));
        true
    }

    /// The client that has waited for longest, and its datagrams: none of them may come after one that is still to be read.
    pub fn pop(&mut self) -> Option<(FlowKey, Vec<Box<[u8]>>)> {
        let (key, first) = self.waiting.pop_front()?;
        let mut datagrams = vec![first];
        if self.waiting.iter().any(|(other, _)| *other == key) {
            for (other, datagram) in std::mem::take(&mut self.waiting) {
                match other == key {
                    true => datagrams.push(datagram),
                    false => self.waiting.push_back((other, datagram)),
                }
            }
        }
        self.bytes -= datagrams.iter().map(|datagram| datagram.len()).sum::<usize>();
        Some((key, datagrams))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
