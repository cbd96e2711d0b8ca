//! Pools whose health checks log in to a database, and what the API shows of their backends.

use super::stats::ADMIN;
use super::tidegate::Tidegate;
use super::{DEADLINE, eventually};

const FAST: &str = "interval: 50ms, timeout: 5s, rise: 1, fall: 1";

/// One pool `p` of one backend `b`, checked by a check of this kind with these keys. `pool` is more keys of the pool,
/// each with a comma behind.
pub(crate) fn checking(kind: &str, port: u16, keys: &str, pool: &str) -> Tidegate {
    Tidegate::start(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"127.0.0.1:{port}\" }}], {pool}\n\
         \x20   health: {{ {kind}: {{ {keys} }}, {FAST} }} }}]\n"
    ))
}

/// The pools `write` and `read` of the same backends, `one` and `two`, each with its check.
pub(crate) fn write_and_read([one, two]: [u16; 2], write: &str, read: &str) -> Tidegate {
    let backends = format!(
        "backends: [{{ name: one, address: \"127.0.0.1:{one}\" }}, {{ name: two, address: \"127.0.0.1:{two}\" }}]"
    );
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners:\n\
         - {{ name: write, bind: \"127.0.0.1:0\", pool: write }}\n\
         - {{ name: read, bind: \"127.0.0.1:0\", pool: read }}\n\
         pools:\n\
         - {{ name: write, {backends}, health: {{ {write}, {FAST} }} }}\n\
         - {{ name: read, {backends}, health: {{ {read}, {FAST} }} }}\n"
    ));
    let up = |pool: &str| ["one", "two"].map(|name| is_up(&tidegate, pool, name));
    eventually(DEADLINE, "the roles", || up("write") == [true, false] && up("read") == [false, true]);
    assert_eq!(reason(&tidegate, "read", "one"), "is a primary, role: replica is wanted");
    tidegate
}

pub(crate) fn is_up(tidegate: &Tidegate, pool: &str, name: &str) -> bool {
    tidegate.resource(&format!("/api/pools/{pool}/backends/{name}"))["health"]["up"].as_bool().expect("a boolean")
}

/// Why it is down.
pub(crate) fn reason(tidegate: &Tidegate, pool: &str, name: &str) -> String {
    let shown = tidegate.resource(&format!("/api/pools/{pool}/backends/{name}"));
    shown["health"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the backend `b` is down for a reason that begins so.
pub(crate) fn down_for(tidegate: &Tidegate, expected: &str) {
    eventually(DEADLINE, expected, || reason(tidegate, "p", "b").starts_with(expected));
}
