//! Connections: accepted, given a backend, relayed, and what they leave behind.
//!
//! [`DataPlane`] is the data plane as the control thread sees it: workers and what they share.
//! [`session`] is the life of one connection, top-down.

mod accept;
mod admission;
mod cancel;
mod data_plane;
mod dial;
mod http_tap;
mod lingering_close;
mod listener;
mod peek;
mod preamble;
mod reject;
mod route;
mod samples;
mod screened;
mod session;
mod transport;
mod upstream;
mod worker_state;

pub use data_plane::{DataPlane, Members, Threads};
pub use listener::{Listener, ListenerParts, Refusal};
pub use route::RouteKey;
pub use samples::{Measurements, Samples, samples};
pub use upstream::Upstream;
