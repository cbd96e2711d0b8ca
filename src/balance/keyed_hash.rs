//! What places clients and backends: a hash that is the same everywhere, for ever.

use siphasher::sip::SipHasher13;

/// The identity of a backend of this name: the same in every process, on every machine.
pub fn identity(name: &str) -> u64 {
    hash(name.as_bytes())
}

/// SipHash-1-3 with a key that never changes, so that instances that never talked to each other
/// place the same client on the same backend. The price is that a client that chooses its own
/// addresses freely can aim at one backend; with real TCP peers this is no more than they can do anyway.
pub fn hash(bytes: &[u8]) -> u64 {
    SipHasher13::new_with_keys(0x7469_6465_6761_7465, 0x706c_6163_656d_656e).hash(bytes)
}
