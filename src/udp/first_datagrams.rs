//! First datagrams of clients without a session, until there is time to open one.

use std::collections::{HashMap, VecDeque};

use super::flows::FlowKey;

/// Datagrams of unknown clients, who have their turns in the order in which they came.
///
/// Opening a session costs several system calls. Datagrams of sessions go first, so that a flood of new addresses costs
/// established sessions nothing but the read of each datagram.
#[derive(Debug)]
pub struct FirstDatagrams {
    turns: VecDeque<FlowKey>,
    waiting: HashMap<FlowKey, Vec<Box<[u8]>>>,
    datagrams: usize,
    bytes: usize,
    max_datagrams: usize,
    max_bytes: usize,
}

impl FirstDatagrams {
    /// One that holds at most so much.
    pub fn new(max_datagrams: usize, max_bytes: usize) -> FirstDatagrams {
        let (turns, waiting) = (VecDeque::new(), HashMap::new());
        FirstDatagrams { turns, waiting, datagrams: 0, bytes: 0, max_datagrams, max_bytes }
    }

    /// Adds a datagram. False if there is no room: it is to be dropped.
    pub fn push(&mut self, key: FlowKey, datagram: &[u8]) -> bool {
        if self.datagrams >= self.max_datagrams || self.bytes + datagram.len() > self.max_bytes {
            return false;
        }
        self.datagrams += 1;
        self.bytes += datagram.len();
        let of_client = self.waiting.entry(key).or_default();
        if of_client.is_empty() {
            self.turns.push_back(key);
        }
        of_client.push(datagram.into());
        true
    }

    /// The client that has waited for longest, and its datagrams: none of them may come after one that is still to be read.
    pub fn pop(&mut self) -> Option<(FlowKey, Vec<Box<[u8]>>)> {
        let key = self.turns.pop_front()?;
        let datagrams = self.waiting.remove(&key)?;
        self.datagrams -= datagrams.len();
        self.bytes -= datagrams.iter().map(|datagram| datagram.len()).sum::<usize>();
        Some((key, datagrams))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}
