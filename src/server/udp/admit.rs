//! Whether a client may have a session, its route, and the limits of its session.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::admission::Admission;
use super::super::connection::Preamble;
use super::super::crew::WorkerSlot;
use super::super::listener::Listener;
use super::super::route::RouteKey;
use super::super::session::Permits;
use crate::net::addr::ClientAddr;
use crate::stats::termination::Termination;
use crate::stats::udp::DatagramDrop;
use crate::udp::FlowRules;

/// A client that may have a session, and the room for it.
pub(super) struct AdmittedClient {
    pub(super) preamble: Preamble,
    pub(super) permits: Permits,
    pub(super) slot: WorkerSlot,
}

/// Counts one more session of the client against the limits.
///
/// # Errors
/// Why its datagram is dropped.
pub(super) fn admit(listener: &Listener, client: SocketAddr) -> Result<Preamble, DatagramDrop> {
    let client = ClientAddr::Tcp(client);
    let address_slot = match listener.admit(client) {
        Ok(Admission::Admitted(slot)) => slot,
        Ok(Admission::Rejected(_)) => return Err(DatagramDrop::Limits),
        Err(Termination::AccessDenied) => return Err(DatagramDrop::Access),
        Err(_) => return Err(DatagramDrop::Limits),
    };
    let key = RouteKey { client: listener.route_client(client.ip(), 0), ..RouteKey::default() };
    let route = listener.route(&key);
    if let Some(found) = route.filter(|found| listener.refuses(*found)) {
        let number = found.route;
        listener.log_refusal(client, &format_args!("matches routes[{number}], which refuses it"));
        return Err(DatagramDrop::Access);
    }
    Ok(Preamble { route, address_slot, ..Preamble::default() })
}

/// As configured now.
pub(super) fn rules(listener: &Listener) -> FlowRules {
    let Some(udp) = &listener.config().udp else {
        return FlowRules { idle: Duration::ZERO, max_sessions: 0, responses: None, amplification: None };
    };
    FlowRules {
        idle: udp.idle,
        max_sessions: udp.max_sessions.get() as usize,
        responses: udp.responses,
        amplification: udp.amplification,
    }
}
