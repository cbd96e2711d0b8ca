//! Datagrams that were sent to a backend which has not answered yet.

use std::collections::VecDeque;

use super::flows::FlowId;

/// Copies of a number of datagrams, to be sent to another backend where one refuses them: the oldest make room.
#[derive(Debug)]
pub struct HeldDatagrams {
    held: VecDeque<(FlowId, Box<[u8]>)>,
    max_datagrams: usize,
    max_bytes: usize,
}

impl HeldDatagrams {
    /// So many at most, and none that is longer than `max_bytes`.
    pub fn new(max_datagrams: usize, max_bytes: usize) -> HeldDatagrams {
        HeldDatagrams { held: VecDeque::new(), max_datagrams, max_bytes }
    }

    /// Keeps one of a session.
    pub fn hold(&mut self, id: FlowId, datagram: &[u8]) {
        if datagram.len() > self.max_bytes {
            return;
        }
        if self.held.len() >= self.max_datagrams {
            self.held.pop_front();
        }
        self.held.push_back((id, datagram.into()));
    }

    /// Those of a session, in their order.
    pub fn take(&mut self, id: FlowId) -> Vec<Box<[u8]>> {
        if self.held.iter().all(|(of, _)| *of != id) {
            return Vec::new();
        }
        let (taken, kept): (VecDeque<_>, VecDeque<_>) = self.held.drain(..).partition(|(of, _)| *of == id);
        self.held = kept;
        taken.into_iter().map(|(_, datagram)| datagram).collect()
    }
}
