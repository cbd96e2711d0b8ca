//! Choosing a backend for a session, and a socket that is connected to it.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::super::listener::Listener;
use crate::net::addr::{Address, ClientAddr};
use crate::net::dial;
use crate::net::errno::{Call, CallError, Scope};
use crate::pool::{Backend, Excluded, Lease, Pool};
use crate::stats::udp::DatagramDrop;
use crate::udp::FlowKey;
use crate::worker::{self, DatagramSocket};

/// A backend that was not tried yet, and a socket that is connected to it.
pub(super) fn choose(
    listener: &Listener,
    pool: &Arc<Pool>,
    key: &FlowKey,
    tried: &mut Excluded,
) -> Result<(Lease, DatagramSocket), DatagramDrop> {
    let client = ClientAddr::Tcp(key.client);
    for _ in 0..=pool.settings().retries {
        let lease = match pool.lease(client.ip(), tried) {
            Ok(lease) => lease,
            Err(why) => {
                pool.record_refusal();
                tell_no_backend(listener, pool, client, &why);
                return Err(DatagramDrop::NoBackend);
            }
        };
        match connect(pool, lease.backend(), key) {
            Ok(socket) => return Ok((lease, socket)),
            Err(error) if error.scope().is_ours() => {
                tell_no_backend(listener, pool, client, &error);
                return Err(DatagramDrop::NoBackend);
            }
            Err(error) => {
                tell(pool, lease.backend(), error.errno);
                if error.scope() != Scope::LocalAddress {
                    pool.record_connect_failure(lease.backend(), Duration::ZERO);
                }
                tried.add(lease.backend().id());
            }
        }
    }
    Err(DatagramDrop::NoBackend)
}

/// From the next source address; from the one after that when that one has no port left.
fn connect(pool: &Pool, backend: &Backend, key: &FlowKey) -> Result<DatagramSocket, CallError> {
    let of_port = |address: &Address| address.for_client(|| Some(key.local.port()));
    let Some(Address::Tcp(to)) = backend.address().and_then(of_port) else {
        return Err(CallError { call: Call::Connect, errno: Errno::DESTADDRREQ });
    };
    let mut outcome = None;
    for source in pool.sources(backend.settings(), &Address::Tcp(to)) {
        match dial::datagrams(to, Some(source)) {
            Err(error) if error.scope() == Scope::LocalAddress => outcome = Some(Err(error)),
            started => {
                outcome = Some(started);
                break;
            }
        }
    }
    let socket = outcome.unwrap_or_else(|| dial::datagrams(to, None))?;
    DatagramSocket::new(socket)
        .map_err(|error| CallError { call: Call::Event, errno: Errno::from_io_error(&error).unwrap_or(Errno::NOMEM) })
}

pub(super) fn tell(pool: &Pool, backend: &Backend, errno: Errno) {
    let reason = std::io::Error::from(errno).to_string();
    if let Some(more) = backend.failed_connects().admit(worker::now(), &reason) {
        let (pool, backend) = (pool.name(), backend.name());
        tracing::warn!(%pool, %backend, %reason, more, "backend refuses datagrams");
    }
}

fn tell_no_backend(listener: &Listener, pool: &Pool, client: ClientAddr, why: &dyn std::fmt::Display) {
    let reason = why.to_string();
    let Some(more) = listener.refusals().admit(worker::now(), &reason) else { return };
    listener.remember(client, format!("pool {}: {reason}", pool.name()), more);
    let (listener, pool) = (&listener.config().name, pool.name());
    tracing::warn!(%listener, %pool, %reason, more, "no backend for a session: its datagram is dropped");
}
