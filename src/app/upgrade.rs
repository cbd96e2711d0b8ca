//! Upgrades of the program: another process takes over the listening sockets, while this one keeps its connections.
//!
//! The running process starts the new one with one end of a channel of packets ([`passing`](crate::net::passing)), named by
//! [`VARIABLE`]. Then:
//!
//! | new process ([`predecessor`]) | old process ([`successor`]) |
//! |---|---|
//! | reads its configuration, then `hello` with its version | |
//! | | `sockets` in portions, then `state`: verdicts of health checks, changes made at run time |
//! | starts with them, accepts; `ready` | |
//! | | its admin interface accepts no more; `go` |
//! | its admin interface accepts; `serving` | |
//! | | leaves the files of unix sockets, tells systemd the new main process |
//! | | `predecessors`: channels of those that it had replaced itself ([`chain`]); `draining` every second |
//! | `call`: lists or ends connections of the old process, or says which backends are in service | `answer` |
//!
//! The old process serves as before until `serving` has come: whatever fails, it kills the new one and goes on. Sockets that both
//! have are the very same, with one queue: no connection is refused or lost on the way.
//!
//! `hello` and `state` say the version of what comes after `serving`, of which the lower one is spoken: an older process is waited
//! for as a whole, and not asked.

mod chain;
mod channel;
pub mod inheritance;
pub mod launcher;
pub mod predecessor;
pub mod successor;

pub use chain::PredecessorChain;

/// Names the old process's id and the descriptor of the channel: `PID:NUMBER`; with a [`launcher`] between, `PID:NUMBER:LAUNCHER`.
/// If another process is the parent, it is not meant for this one.
pub const VARIABLE: &str = "TIDEGATE_UPGRADE";
