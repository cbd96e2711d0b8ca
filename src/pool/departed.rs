//! What the backends that have left a pool have counted, so that sums over a pool never go back.

use super::backend::Backend;

/// Sums over the backends that have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departed {
    pub connections: u64,
    pub connect_failures: u64,
    pub retries: u64,
    pub failures: u64,
    pub client_aborts: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
}

impl Departed {
    pub(super) fn add(&mut self, backend: &Backend) {
        let (counters, traffic) = (backend.counters(), backend.traffic());
        self.connections += counters.connections();
        self.connect_failures += counters.connect_failures();
        self.retries += counters.retries();
        self.failures += counters.failures();
        self.client_aborts += counters.client_aborts();
        self.bytes_in += traffic.bytes_in();
        self.bytes_out += traffic.bytes_out();
        self.handshakes_full += counters.handshakes().full();
        self.handshakes_resumed += counters.handshakes().resumed();
    }
}
