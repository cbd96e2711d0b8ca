//! Datagrams of `protocol: udp`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::per_worker::{PerWorker, add};

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramDrop {
    /// The receive buffer of a listening socket was full.
    SocketBuffer,
    /// Clients without a session sent faster than sessions can be opened.
    NewSessions,
    /// There were `udp.max_sessions` sessions, or as many as the limit of open files allows, and none that makes room.
    MaxSessions,
    /// `access` or a route does not let the client in.
    Access,
    /// The client, or all together, would exceed `limits`.
    Limits,
    /// The listener is paused or drains, and the client has no session.
    NotAccepting,
    /// No backend could take the session.
    NoBackend,
    /// A reply beyond `udp.amplification`.
    Amplification,
    /// It could not be sent to the backend.
    ToBackend,
    /// It could not be sent to the client.
    ToClient,
}

impl DatagramDrop {
    /// All of them.
    pub const ALL: [DatagramDrop; 10] = [
        DatagramDrop::SocketBuffer,
        DatagramDrop::NewSessions,
        DatagramDrop::MaxSessions,
        DatagramDrop::Access,
        DatagramDrop::Limits,
        DatagramDrop::NotAccepting,
        DatagramDrop::NoBackend,
        DatagramDrop::Amplification,
        DatagramDrop::ToBackend,
        DatagramDrop::ToClient,
    ];

    /// As in every format.
    pub fn name(self) -> &'static str {
        match self {
            DatagramDrop::SocketBuffer => "socket_buffer",
            DatagramDrop::NewSessions => "new_sessions",
            DatagramDrop::MaxSessions => "max_sessions",
            DatagramDrop::Access => "access",
            DatagramDrop::Limits => "limits",
            DatagramDrop::NotAccepting => "not_accepting",
            DatagramDrop::NoBackend => "no_backend",
            DatagramDrop::Amplification => "amplification",
            DatagramDrop::ToBackend => "to_backend",
            DatagramDrop::ToClient => "to_client",
        }
    }
}

/// Datagrams of a listener.
#[derive(Debug)]
pub struct DatagramCounters {
    forwarded: PerWorker<WorkerDatagrams>,
    drops: [AtomicU64; DatagramDrop::ALL.len()],
    /// Sessions that went on with another backend.
    moved: AtomicU64,
}

#[derive(Debug, Default)]
struct WorkerDatagrams {
    from_clients: AtomicU64,
    from_backends: AtomicU64,
}

impl DatagramCounters {
    /// Each of `workers` counts what it forwards for itself.
    pub fn new(workers: usize) -> DatagramCounters {
        DatagramCounters { forwarded: PerWorker::new(workers), drops: Default::default(), moved: AtomicU64::new(0) }
    }

    /// Datagrams were forwarded by this worker.
    pub fn add(&self, worker: usize, from_clients: u64, from_backends: u64) {
        let forwarded = self.forwarded.of(worker);
        add(&forwarded.from_clients, from_clients);
        add(&forwarded.from_backends, from_backends);
    }

    /// Datagrams were dropped.
    pub fn dropped(&self, why: DatagramDrop, count: u64) {
        self.drops[why as usize].fetch_add(count, Relaxed);
    }

    /// A session goes on with another backend.
    pub fn moved(&self) {
        self.moved.fetch_add(1, Relaxed);
    }

    /// Datagrams from clients that backends got.
    pub fn datagrams_in(&self) -> u64 {
        self.forwarded.sum(|it| it.from_clients.load(Relaxed))
    }

    /// Datagrams from backends that clients got.
    pub fn datagrams_out(&self) -> u64 {
        self.forwarded.sum(|it| it.from_backends.load(Relaxed))
    }

    /// Datagrams that were dropped for this reason.
    pub fn drops(&self, why: DatagramDrop) -> u64 {
        self.drops[why as usize].load(Relaxed)
    }

    /// Sessions that went on with another backend.
    pub fn moves(&self) -> u64 {
        self.moved.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_counter() {
        let counters = DatagramCounters::new(1);
        for (place, why) in DatagramDrop::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
            counters.dropped(why, place as u64 + 1);
        }
        let counted = DatagramDrop::ALL.map(|why| counters.drops(why));
        assert!(counted.into_iter().eq(1..=DatagramDrop::ALL.len() as u64));
    }
}
