//! A switch of protocols (WebSocket): after the 101, bytes are relayed.

use super::super::transport::BackendConn;
use crate::pool::Lease;

/// A backend that has switched protocols.
pub(in crate::server) struct Tunnel {
    pub(in crate::server) backend: BackendConn,
    /// What it has sent after the 101.
    pub(in crate::server) ahead: Vec<u8>,
    pub(in crate::server) lease: Lease,
}
