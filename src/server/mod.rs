//! Connections: accepted, given a backend, relayed, and what they leave behind.
//!
//! [`DataPlane`] is the data plane as the control thread sees it: workers and what they share.
//! [`session`] is the life of one connection, top-down.

mod accept;
mod ahead;
mod cancel;
mod data_plane;
mod dial;
mod farewell;
mod gate;
mod last_words;
mod listener;
mod opening;
mod peer;
mod samples;
mod screened;
mod session;
mod upstream;
mod wanted;
mod watched;
mod worker_state;

pub use data_plane::{DataPlane, Members, Threads};
pub use listener::{Listener, ListenerParts, Refusal};
pub use samples::{Measurements, Samples, samples};
pub use upstream::Upstream;
pub use wanted::Wanted;
