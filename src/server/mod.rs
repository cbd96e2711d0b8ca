//! Connections: accepted, given a backend, relayed, and what they leave behind.
//!
//! [`DataPlane`] is the data plane as the control thread sees it: workers and what they share.
//! [`session`] is the life of one connection, top-down.

mod accept;
mod accepting;
mod admission;
mod cancel;
mod connection;
mod connections;
mod crew;
mod data_plane;
mod database_session;
mod deadline;
mod dial;
mod http;
mod http_tap;
mod lingering_close;
mod listener;
mod login;
mod peek;
mod plane_state;
mod preamble;
mod query_tap;
mod record;
mod reject;
mod route;
mod samples;
mod screened;
mod session;
mod sniff_tap;
mod transport;
mod udp;
mod upstream;
mod worker_state;

pub use connection::ConnectionId;
pub use connections::{ConnectionFilter, ConnectionInfo, ConnectionList};
pub use data_plane::{DataPlane, PreparedCrew, WorkerSocket};
pub use listener::{Listener, ListenerParts, RejectionEvent};
pub use plane_state::{Members, PlaneState};
pub use route::{RequestView, RouteClient, RouteKey, RouteMatch};
pub use samples::{Measurements, Samples, samples};
pub use udp::HandedSession;
