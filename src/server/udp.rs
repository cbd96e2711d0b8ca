//! `protocol: udp`: sessions of datagrams, each with a connected socket of its own to a backend.
//!
//! A listening socket is read by one worker ([`reader`]), which has the sessions of the clients that the kernel gives to it, for as
//! long as the number of sockets stays: the kernel chooses by a hash of both addresses. A session ([`session`]) is an entry in
//! the worker's list of connections, holds a lease, and leaves an access line, as a connection does.

mod admit;
mod backend;
mod client_datagram;
mod handover;
mod outgoing;
mod reader;
mod scratch;
mod session;

use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use self::handover::HandedSession;
pub(super) use self::handover::SessionStore;
use self::reader::DatagramReader;
use super::crew::CrewMember;
use super::listener::Listener;
use crate::net::addr::Address;
use crate::stats::registry::ListenerId;
use crate::udp::FlowKey;
use crate::worker;

/// Gives up what this worker has. Called at the end of its thread.
pub(super) fn release() {
    reader::release();
    scratch::release();
}

/// Reads datagrams from a listening socket on this worker until it is stopped and its sessions have ended. `before` are the sessions
/// of the worker that had the socket until now.
pub(super) fn start(
    listener: Arc<Listener>,
    address: Address,
    number: usize,
    socket: OwnedFd,
    before: Vec<(FlowKey, Arc<CrewMember>)>,
) {
    let name = Arc::clone(&listener.config().name);
    match DatagramReader::new(listener, address, number, socket, before) {
        Ok(reader) => worker::spawn(reader.run()),
        Err(error) => {
            tracing::error!(listener = %name, %error, "a worker cannot receive datagrams: its listening socket failed");
        }
    }
}

/// Leaves a listening socket to another worker, but for its sessions. Returns which those are.
pub(super) fn hand_over(
    listener: ListenerId,
    address: &Address,
    number: usize,
    to: &Arc<CrewMember>,
) -> Vec<(FlowKey, Arc<CrewMember>)> {
    reader::find(listener, address, number).map_or_else(Vec::new, |reader| reader.hand_over(to))
}

/// Has all sockets of this worker looked at.
pub(super) fn wake() {
    reader::all().iter().for_each(|reader| reader.wake());
}

/// The sessions of this worker, and duplicates of their sockets.
pub(super) fn export() -> Vec<(HandedSession, OwnedFd)> {
    reader::all().iter().flat_map(|reader| reader.export()).collect()
}

/// Takes the sessions whose listening sockets this worker has.
pub(super) fn adopt(store: &SessionStore) {
    for reader in reader::all() {
        let own = store.take(|session| reader.is_bound_for(session));
        own.into_iter().for_each(|(session, socket)| reader.adopt(&session, socket));
    }
}

/// Ends the sessions of this worker without a trace: another process has them.
pub(super) fn forget() {
    reader::all().iter().for_each(|reader| reader.forget_sessions());
}
