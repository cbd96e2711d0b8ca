//! The listening sockets of all listeners, for each worker its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{ListenerSocket, ReusePort};
use crate::net::addr::Address;
use crate::net::dial::Options;
use crate::net::listen::{self, ListenOptions, Listening, Sharing};
use crate::net::socket_file::SocketFile;
use crate::server::{Accepting, ListenerState};

/// What was bound.
pub(super) struct Bound {
    /// For each worker.
    pub(super) sockets: Vec<Vec<Accepting>>,
    pub(super) addresses: Vec<(Arc<str>, Address)>,
    /// To be dropped before their sockets are closed.
    pub(super) socket_files: Vec<SocketFile>,
}

/// Binds every address of every listener, or says of each that cannot be bound why.
pub(super) fn bind(listeners: &[Arc<ListenerState>], workers: usize) -> Result<Bound, Vec<String>> {
    let mut bound = Bound {
        sockets: std::iter::repeat_with(Vec::new).take(workers).collect(),
        addresses: Vec::new(),
        socket_files: Vec::new(),
    };
    let mut errors = Vec::new();
    for listener in listeners {
        let config = listener.config();
        for address in &config.bind {
            let options = options(&config.socket, v6_only(address, listeners));
            match bind_one(address, &options, workers, config.socket.reuse_port) {
                Ok((actual, sockets, file)) => {
                    bound.socket_files.extend(file);
                    bound.addresses.push((Arc::clone(&config.name), actual));
                    for (of_worker, socket) in bound.sockets.iter_mut().zip(sockets) {
                        of_worker.push(Accepting { listener: Arc::clone(listener), socket });
                    }
                }
                Err(error) => {
                    let owner = owner(address, &bound.addresses);
                    let why = listen::explain(address, &options, &error, owner.as_deref());
                    errors.push(format!("listener {}: cannot listen on {address}: {why}", config.name));
                }
            }
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

fn bind_one(
    address: &Address,
    options: &ListenOptions,
    workers: usize,
    reuse_port: ReusePort,
) -> io::Result<(Address, Vec<OwnedFd>, Option<SocketFile>)> {
    let Listening { socket, file } = listen::listen(address, options)?;
    let actual = listen::local_address(&socket)?;
    let mut sockets = vec![socket];
    while sockets.len() < workers {
        let next = match actual {
            Address::Tcp(address) if reuse_port != ReusePort::Off => listen::join(address, options)?,
            _ => sockets[0].try_clone()?,
        };
        sockets.push(next);
    }
    Ok((actual, sockets, file))
}

fn options(socket: &ListenerSocket, v6_only: bool) -> ListenOptions {
    ListenOptions {
        backlog: socket.backlog,
        connection: Options { nodelay: socket.nodelay, keepalive: socket.keepalive },
        fast_open: socket.fast_open,
        defer_accept: socket.defer_accept.map_or(0, whole_seconds),
        mptcp: socket.mptcp,
        transparent: socket.transparent,
        sharing: match socket.reuse_port {
            ReusePort::Auto => Sharing::Workers,
            ReusePort::On => Sharing::Anyone,
            ReusePort::Off => Sharing::Exclusive,
        },
        v6_only,
    }
}

/// The kernel counts in seconds; a part of one is one.
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX)
}

/// `[::]:80` takes IPv4 too, as everywhere on Linux, unless `0.0.0.0:80` is somebody's as well.
fn v6_only(address: &Address, listeners: &[Arc<ListenerState>]) -> bool {
    let Address::Tcp(address) = address else { return false };
    let v4 = Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()));
    listeners.iter().any(|listener| listener.config().bind.contains(&v4))
}

/// The listener that has the address already, or one that overlaps it.
fn owner(address: &Address, bound: &[(Arc<str>, Address)]) -> Option<String> {
    let overlaps = |other: &Address| match (address, other) {
        (Address::Tcp(address), Address::Tcp(other)) => {
            let (one, two) = (address.ip().to_canonical(), other.ip().to_canonical());
            address.port() == other.port() && (one == two || one.is_unspecified() || two.is_unspecified())
        }
        (address, other) => address == other,
    };
    bound.iter().find(|(_, other)| overlaps(other)).map(|(name, other)| format!("listener {name} ({other})"))
}
