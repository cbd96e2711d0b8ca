//! Listening sockets that the process did not bind: from systemd's socket activation, or from the process that it replaces.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, absolute};
use std::sync::{Mutex, PoisonError};

use socket2::{Protocol, SockRef, Type};

use super::addr::Address;
use super::listen::{ListenOptions, Sharing, local_address, saturating, set_for_datagrams, set_freebind};
use super::socket_file::SocketFile;
use super::sys;

/// Sockets that are left to be taken by the addresses that are bound.
#[derive(Debug, Default)]
pub struct InheritedSockets(Mutex<Vec<InheritedSocket>>);

/// A listening socket of another process.
#[derive(Debug)]
pub struct InheritedSocket {
    socket: OwnedFd,
    /// What it is called: the name of a systemd socket unit, or of a listener.
    name: String,
    address: Address,
    /// Of UDP.
    is_datagram: bool,
    bound_for: Option<BoundFor>,
}

/// For what the replaced process has bound a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundFor {
    /// The listener; `None` is the admin interface.
    pub listener: Option<String>,
    /// The address as configured: port 0 may be another one by now.
    pub address: Address,
}

/// Sockets of one address, and the file of a unix one that is now this process's.
#[derive(Debug)]
pub struct TakenSockets {
    /// Non-blocking, at least one.
    pub sockets: Vec<OwnedFd>,
    /// Where they listen.
    pub actual: Address,
    /// Only after a replaced process: a socket unit keeps its own.
    pub file: Option<SocketFile>,
    /// Options that could not be applied, and why.
    pub without: Vec<String>,
}

impl InheritedSocket {
    /// A socket that the process was started with; `name` is for messages.
    ///
    /// # Errors
    /// It is no listening stream socket.
    pub fn new(socket: OwnedFd, name: &str, bound_for: Option<BoundFor>) -> Result<InheritedSocket, String> {
        let unfit = |why: &str| format!("the inherited socket `{name}` {why}");
        let properties = SockRef::from(&socket);
        let kind = properties.r#type().map_err(|error| unfit(&format!("is no socket: {error}")))?;
        let address = local_address(&socket).map_err(|_| unfit("is neither of TCP nor of a unix path"))?;
        let unfit = |why: &str| format!("the inherited socket `{name}` ({address}) {why}");
        let is_datagram = kind == Type::DGRAM;
        if kind != Type::STREAM && !(is_datagram && matches!(address, Address::Tcp(_))) {
            return Err(unfit("is neither of TCP nor of UDP: use ListenStream= or ListenDatagram="));
        }
        if !is_datagram && !properties.is_listener().map_err(|error| unfit(&error.to_string()))? {
            return Err(unfit("does not listen: use Accept=no, which passes the listening socket"));
        }
        // It may come from a program that blocks.
        properties.set_nonblocking(true).map_err(|error| unfit(&error.to_string()))?;
        Ok(InheritedSocket { socket, name: name.to_owned(), address, is_datagram, bound_for })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The interface that it is bound to.
    pub fn device(&self) -> Option<String> {
        device(&self.socket)
    }

    fn fits(&self, listener: Option<&str>, address: &Address, options: &ListenOptions) -> bool {
        if self.is_datagram != options.datagrams {
            return false;
        }
        match &self.bound_for {
            Some(bound_for) if bound_for.address == *address && bound_for.listener.as_deref() == listener => true,
            _ => match (&self.address, address) {
                (Address::Unix(own), Address::Unix(path)) => names_same_file(own, path),
                (own, address) => own == address,
            },
        }
    }
}

/// The interface that a socket is bound to (SO_BINDTODEVICE).
pub fn device(socket: impl AsFd) -> Option<String> {
    let name = SockRef::from(&socket).device().ok().flatten()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

/// By path: a socket of systemd has an absolute one.
fn names_same_file(one: &Path, other: &Path) -> bool {
    match (absolute(one), absolute(other)) {
        (Ok(one), Ok(other)) => one == other,
        // One of them is empty.
        _ => false,
    }
}

impl fmt::Display for InheritedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.name)
    }
}

impl InheritedSockets {
    /// These.
    pub fn new(sockets: Vec<InheritedSocket>) -> InheritedSockets {
        InheritedSockets(Mutex::new(sockets))
    }

    /// Takes the sockets of an address, and sets the options that can be set on them. `None` if there are none. `listener` is
    /// `None` for the admin interface.
    ///
    /// # Errors
    /// They take other clients than configured: IPv6 ones with or without IPv4.
    pub fn take(
        &self,
        listener: Option<&str>,
        address: &Address,
        options: &ListenOptions,
    ) -> io::Result<Option<TakenSockets>> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<InheritedSocket> =
            left.extract_if(.., |socket| socket.fits(listener, address, options)).collect();
        drop(left);
        let Some(first) = taken.first() else { return Ok(None) };
        let actual = first.address.clone();
        for it in &taken {
            families_agree(it, options)?;
        }
        // One file, whichever of the sockets it is of.
        let file = match &actual {
            Address::Unix(path) if first.bound_for.is_some() => match SocketFile::of_predecessor(path) {
                // Clients cannot connect to a socket whose file is gone: another one is bound.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => Some(file?),
            },
            _ => None,
        };
        let mut without: Vec<String> = taken.iter().flat_map(|it| apply(it, options)).collect();
        without.sort();
        without.dedup();
        Ok(Some(TakenSockets { sockets: taken.into_iter().map(|it| it.socket).collect(), actual, file, without }))
    }

    /// Closes those that nothing has taken. Returns what they are.
    pub fn close_rest(&self) -> Vec<String> {
        let rest = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        rest.iter().map(ToString::to_string).collect()
    }
}

/// Whether an IPv6 socket takes IPv4 clients cannot change once it is bound.
fn families_agree(it: &InheritedSocket, options: &ListenOptions) -> io::Result<()> {
    match it.address {
        Address::Tcp(address) if address.is_ipv6() && address.ip().is_unspecified() => {}
        _ => return Ok(()),
    }
    let v6_only = SockRef::from(&it.socket).only_v6()?;
    let (has, wants) = match (v6_only, options.v6_only) {
        (true, false) => ("only IPv6 clients", "set BindIPv6Only=both in the socket unit, or bind 0.0.0.0 as well"),
        (false, true) => ("IPv4 clients too", "set BindIPv6Only=ipv6-only in the socket unit, or do not bind 0.0.0.0"),
        _ => return Ok(()),
    };
    let wants = if it.bound_for.is_some() { "this change needs a restart" } else { wants };
    Err(io::Error::other(format!("the inherited socket {it} takes {has}: {wants}")))
}

/// Sets what can be set on a socket that listens. Returns what cannot.
fn apply(it: &InheritedSocket, options: &ListenOptions) -> Vec<String> {
    let socket = SockRef::from(&it.socket);
    let mut without = Vec::new();
    let mut note = |option: &str, result: io::Result<()>| {
        if let Err(error) = result {
            without.push(format!("{option}: {error}"));
        }
    };
    if let (Address::Tcp(address), true) = (&it.address, options.datagrams) {
        note("freebind", set_freebind(&socket, *address, options.freebind));
        note("datagrams", set_for_datagrams(&socket, *address));
        return without;
    }
    // A second listen(2) only changes the length of the queue.
    note("backlog", socket.listen(options.backlog));
    let Address::Tcp(address) = it.address else { return without };
    note("nodelay, keepalive", options.connection.apply(it.socket.as_fd()));
    note("nodelay", socket.set_tcp_nodelay(options.connection.nodelay));
    if options.connection.keepalive.is_none() {
        note("keepalive", socket.set_keepalive(false));
    }
    note("defer_accept", sys::set_option(&it.socket, sys::TCP_DEFER_ACCEPT, saturating(options.defer_accept)));
    if options.fast_open > 0 || it.bound_for.is_some() {
        note("fast_open", sys::set_option(&it.socket, sys::TCP_FASTOPEN, saturating(options.fast_open)));
    }
    if options.transparent {
        note(
            "transparent",
            match address.is_ipv4() {
                true => socket.set_ip_transparent_v4(true),
                false => socket.set_ip_transparent_v6(true),
            },
        );
    }
    if options.freebind || it.bound_for.is_some() {
        note("freebind", set_freebind(&socket, address, options.freebind));
    }
    if options.sharing != Sharing::Exclusive && it.bound_for.is_some() {
        note("reuse_port", socket.set_reuse_port(true));
    }
    let is_mptcp = socket.protocol().ok().flatten() == Some(Protocol::MPTCP);
    if is_mptcp != options.mptcp {
        let kind = if is_mptcp { "is one of Multipath TCP" } else { "is none of Multipath TCP" };
        note("mptcp", Err(io::Error::other(format!("the socket {kind}"))));
    }
    without
}
