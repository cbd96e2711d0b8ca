//! The rooms that are fuzzed, out of the sources of tidegate, without the rest of it.

#[path = "../../src/sniff/mod.rs"]
pub mod sniff;

/// What src/sniff uses of it.
#[path = "../../src/net"]
pub mod net {
    pub mod name;
}
