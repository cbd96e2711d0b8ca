//! The rooms that are fuzzed, out of the sources of tidegate, without the rest of it.

/// Without what encrypts a password.
#[path = "../../src/mysql"]
pub mod mysql {
    pub mod login;
    pub mod method;
    pub mod packet;
}

/// Without what needs hyper.
#[path = "../../src/http"]
pub mod http {
    pub mod gate;
}

#[path = "../../src/sniff/mod.rs"]
pub mod sniff;

#[path = "../../src/udp/mod.rs"]
pub mod udp;

/// What src/sniff uses of the others.
#[allow(dead_code, reason = "counters use more of it than what is fuzzed")]
#[path = "../../src/stats"]
pub mod stats {
    pub mod http;
    pub mod queries;
    pub mod termination;
}

/// As above.
#[path = "../../src/net"]
pub mod net {
    pub mod name;
    pub mod protocol;
}
