//! Listening sockets: of each address of each listener one for every worker.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{Config, ListenerConfig, ListenerSocket, ReusePort};
use crate::net::addr::Address;
use crate::net::dial::Options;
use crate::net::listen::{self, ListenOptions, Listening, Sharing};
use crate::net::socket_file::SocketFile;

/// A listener's name, and an address as configured.
pub(super) type BindKey = (Arc<str>, Address);

/// The sockets of all listeners. Workers accept from duplicates: a socket is closed when both are.
#[derive(Default)]
pub(super) struct ListenSockets(BTreeMap<BindKey, BoundAddress>);

/// The sockets of one address.
pub(super) struct BoundAddress {
    /// Removed before its socket is closed, so that no client finds it without a listener.
    _file: Option<SocketFile>,
    /// Port 0 is replaced by the port that the kernel chose.
    pub(super) actual: Address,
    sockets: Vec<OwnedFd>,
}

impl BoundAddress {
    /// A duplicate for each worker.
    pub(super) fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(OwnedFd::try_clone).collect()
    }
}

impl ListenSockets {
    /// Binds addresses of listeners, or says of each that cannot be bound why.
    pub(super) fn bind(
        &self,
        wanted: &[(&ListenerConfig, &Address)],
        config: &Config,
        workers: usize,
    ) -> Result<Vec<(BindKey, BoundAddress)>, Vec<String>> {
        let (mut bound, mut errors) = (Vec::new(), Vec::new());
        for (listener, address) in wanted {
            let options = options(&listener.socket, v6_only(address, config));
            match bind_one(address, &options, workers, listener.socket.reuse_port) {
                Ok(sockets) => bound.push(((Arc::clone(&listener.name), Address::clone(address)), sockets)),
                Err(error) => {
                    let new = bound.iter().map(|(key, bound): &(BindKey, BoundAddress)| (&key.0, &bound.actual));
                    let owner = owner(address, self.0.iter().map(|(key, bound)| (&key.0, &bound.actual)).chain(new));
                    let why = listen::explain(address, &options, &error, owner.as_deref());
                    errors.push(format!("listener {}: cannot listen on {address}: {why}", listener.name));
                }
            }
        }
        if errors.is_empty() { Ok(bound) } else { Err(errors) }
    }

    pub(super) fn insert(&mut self, key: BindKey, bound: BoundAddress) {
        self.0.insert(key, bound);
    }

    pub(super) fn remove(&mut self, key: &BindKey) {
        self.0.remove(key);
    }

    /// Where an address of a listener listens.
    pub(super) fn actual(&self, key: &BindKey) -> Option<&Address> {
        self.0.get(key).map(|bound| &bound.actual)
    }

    /// Closes them all but for the workers' duplicates.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn bind_one(
    address: &Address,
    options: &ListenOptions,
    workers: usize,
    reuse_port: ReusePort,
) -> io::Result<BoundAddress> {
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
    Ok(BoundAddress { _file: file, actual, sockets })
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

/// `[::]:80` takes IPv4 too, as everywhere on Linux, unless a listener binds `0.0.0.0:80` as well.
fn v6_only(address: &Address, config: &Config) -> bool {
    let Address::Tcp(address) = address else { return false };
    let v4 = Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()));
    config.listeners.iter().any(|listener| listener.bind.contains(&v4))
}

/// The listener that has the address already, or one that overlaps it.
fn owner<'b>(address: &Address, mut bound: impl Iterator<Item = (&'b Arc<str>, &'b Address)>) -> Option<String> {
    let overlaps = |other: &Address| match (address, other) {
        (Address::Tcp(address), Address::Tcp(other)) => {
            let (one, two) = (address.ip().to_canonical(), other.ip().to_canonical());
            address.port() == other.port() && (one == two || one.is_unspecified() || two.is_unspecified())
        }
        (address, other) => address == other,
    };
    bound.find(|(_, other)| overlaps(other)).map(|(name, other)| format!("listener {name} ({other})"))
}
