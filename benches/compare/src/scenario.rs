//! What is measured: the list of scenarios, known by name to the load, the rounds and the report.

use crate::http;

/// How clients behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// Connect, ask, be answered, see the end, close; at once the next one.
    Short,
    /// Ask again as soon as the answer is complete.
    Closed,
    /// Ask at fixed points in time, answered or not.
    Paced,
    /// Nothing but streams from the backends.
    Bulk,
    /// One exchange each, then nothing.
    Idle,
    /// New connections beside busy ones.
    Newcomers,
}

/// Newcomers that come together.
pub(crate) const AT_ONCE: usize = 200;
/// Newcomers that come one after the other.
pub(crate) const ONE_BY_ONE: usize = 40;

/// TLS 1.3 between clients and balancer, and how its sessions begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tls {
    /// With a full handshake: the balancer signs.
    Full,
    /// With a ticket of an earlier session, and a new key exchange.
    Resumed,
}

/// HTTP between clients, balancer and backends, which it always speaks HTTP/1.1 to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Http {
    /// Clients speak HTTP/1.1.
    Version1,
    /// Clients speak HTTP/2 by prior knowledge.
    Version2,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// As written on the command line and in the results.
    pub(crate) name: &'static str,
    /// How clients behave.
    pub(crate) shape: Shape,
    /// Connections at the same time.
    pub(crate) connections: usize,
    /// Bytes of a request.
    pub(crate) request: usize,
    /// Bytes of an answer; of HTTP, of its body.
    pub(crate) answer: usize,
    /// Requests per second, of all connections together. 0 = as fast as it goes.
    pub(crate) rate: u64,
    /// Bulk streams that run at the same time.
    pub(crate) beside: usize,
    /// Clients speak TLS to the balancer; it speaks plain TCP to the backends.
    pub(crate) tls: Option<Tls>,
    /// The balancer is one of HTTP.
    pub(crate) http: Option<Http>,
    /// Clients send datagrams.
    pub(crate) udp: bool,
    /// ClientHellos that are sent at once to a listener with TLS, beside the plain one of the clients.
    pub(crate) hellos: usize,
    /// What the report says of it.
    pub(crate) about: &'static str,
}

const ROUND_TRIPS: Scenario = Scenario {
    name: "rr64",
    shape: Shape::Closed,
    connections: 64,
    request: 64,
    answer: 64,
    rate: 0,
    beside: 0,
    tls: None,
    http: None,
    udp: false,
    hellos: 0,
    about: "64 B asked, 64 B answered, on 64 connections",
};

const REQUESTS: Scenario = Scenario {
    name: "http64",
    connections: 32,
    request: http::REQUEST.len(),
    http: Some(Http::Version1),
    about: "GET and a response with a body of 64 B, eight fields each, on 32 connections",
    ..ROUND_TRIPS
};

/// All of them, in the order in which they are run and shown.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "crr",
        shape: Shape::Short,
        connections: 32,
        about: "connect, 64 B each way, close; 32 at a time",
        ..ROUND_TRIPS
    },
    ROUND_TRIPS,
    Scenario { name: "rr64-16", connections: 16, about: "the same on 16 connections", ..ROUND_TRIPS },
    Scenario { name: "rr64-1000", connections: 1_000, about: "the same on 1,000 connections", ..ROUND_TRIPS },
    Scenario { name: "rr4k", answer: 4 << 10, about: "64 B asked, 4 KiB answered, on 64 connections", ..ROUND_TRIPS },
    Scenario { name: "rr4k-16", answer: 4 << 10, connections: 16, about: "the same on 16 connections", ..ROUND_TRIPS },
    Scenario {
        name: "rr64k",
        request: 128,
        answer: 64 << 10,
        about: "128 B asked, 64 KiB answered, on 64 connections",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "rr64k-16",
        request: 128,
        answer: 64 << 10,
        connections: 16,
        about: "the same on 16 connections",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "bulk-1",
        shape: Shape::Bulk,
        connections: 1,
        about: "one stream from a backend, as fast as it goes",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "bulk-16",
        shape: Shape::Bulk,
        connections: 16,
        about: "16 streams from the backends, as fast as they go",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "latency",
        shape: Shape::Paced,
        rate: 5_000,
        about: "64 B round trips at 5,000 a second over 64 connections, counted from when each was due",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "latency-beside-4",
        shape: Shape::Paced,
        rate: 5_000,
        beside: 4,
        about: "the same beside 4 bulk streams",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "newcomers",
        shape: Shape::Newcomers,
        connections: 1_000,
        about: "200 new connections at once, then 40 one by one, beside 1,000 busy ones: each asks 64 B and waits for 64 B",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "newcomers-hellos",
        shape: Shape::Newcomers,
        connections: 1,
        hellos: 2_000,
        about: "the same beside 2,000 ClientHellos that came at once",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "idle",
        shape: Shape::Idle,
        connections: 4_000,
        about: "4,000 connections, one 64 B exchange on each, then held",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "tls-full",
        shape: Shape::Short,
        connections: 16,
        tls: Some(Tls::Full),
        about: "connect, full TLS 1.3 handshake (ECDSA P-256), 64 B each way, close; 16 at a time",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "tls-resumed",
        shape: Shape::Short,
        connections: 16,
        tls: Some(Tls::Resumed),
        about: "the same with the session resumed by a ticket and a key exchange",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "tls-rr64",
        tls: Some(Tls::Full),
        about: "rr64 over TLS: 64 B asked, 64 B answered, on 64 connections",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "tls-bulk",
        shape: Shape::Bulk,
        connections: 1,
        tls: Some(Tls::Full),
        about: "one stream from a backend, encrypted by the balancer",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "tls-bulk-16",
        shape: Shape::Bulk,
        connections: 16,
        tls: Some(Tls::Full),
        about: "16 streams from the backends, encrypted by the balancer",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "tls-idle",
        shape: Shape::Idle,
        connections: 1_000,
        tls: Some(Tls::Full),
        about: "1,000 connections, a handshake and one 64 B exchange on each, then held",
        ..ROUND_TRIPS
    },
    REQUESTS,
    Scenario { name: "http16k", answer: 16 << 10, about: "the same with bodies of 16 KiB", ..REQUESTS },
    Scenario {
        name: "http2",
        http: Some(Http::Version2),
        about: "the same with bodies of 64 B by h2load over HTTP/2: 4 connections with 8 streams each; HTTP/1.1 to backends",
        ..REQUESTS
    },
    Scenario {
        name: "udp64-1",
        connections: 1,
        udp: true,
        about: "datagrams of 64 B, each answered with 64 B, in one session with 16 under way",
        ..ROUND_TRIPS
    },
    Scenario {
        name: "udp64-1000",
        connections: 1_000,
        udp: true,
        about: "the same in 1,000 sessions in turn, with 64 under way",
        ..ROUND_TRIPS
    },
];

/// Twenty long connections, and where they went. Only run with two workers.
pub(crate) const SPREAD: Scenario = Scenario {
    name: "spread-20",
    shape: Shape::Idle,
    connections: 20,
    about: "20 long connections: how many sit on each worker",
    ..ROUND_TRIPS
};

/// What is run with two workers as well.
pub(crate) const TWO_WORKERS: &[&str] = &["crr", "rr64", "rr64k", "bulk-16"];

/// The one with this name.
pub(crate) fn find(name: &str) -> Option<Scenario> {
    ALL.iter().chain([&SPREAD]).find(|scenario| scenario.name == name).copied()
}

impl Scenario {
    /// Whether its cost is counted per byte, not per operation.
    pub(crate) fn per_byte(&self) -> bool {
        self.shape == Shape::Bulk
    }

    /// New connections, beside those that are there from the start.
    pub(crate) fn newcomers(&self) -> usize {
        if self.shape == Shape::Newcomers { AT_ONCE + ONE_BY_ONE } else { 0 }
    }
}
