//! Options of a socket that listens already. Linux takes all of them but IPPROTO_MPTCP and IPV6_V6ONLY.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::SockRef;

use super::super::addr::Address;
use super::super::sys;
use super::options::{ListenOptions, Sharing};
use super::tcp::{self, saturating};

/// Tries options on a socket that is closed again: whether they are permitted.
///
/// # Errors
/// Those of setsockopt(2).
pub fn check(address: &Address, options: &ListenOptions) -> io::Result<()> {
    match address {
        Address::Tcp(address) => tcp::open(*address, options).map(drop),
        Address::Unix(_) => Ok(()),
    }
}

/// Changes the options of a listening socket. Sockets that are accepted from now on inherit them; the accept queue stays.
///
/// # Errors
/// Those of setsockopt(2) and listen(2).
pub fn change(socket: &OwnedFd, address: &Address, from: &ListenOptions, to: &ListenOptions) -> io::Result<()> {
    let set = SockRef::from(socket);
    if let Address::Tcp(address) = address {
        if to.datagrams {
            return change_datagrams(&set, *address, from, to);
        }
        if from.connection.nodelay != to.connection.nodelay {
            set.set_tcp_nodelay(to.connection.nodelay)?;
        }
        if from.connection.keepalive != to.connection.keepalive {
            match to.connection.keepalive {
                Some(_) => to.connection.apply_lasting(socket)?,
                None => set.set_keepalive(false)?,
            }
        }
        if from.defer_accept != to.defer_accept {
            sys::set_option(socket, sys::TCP_DEFER_ACCEPT, saturating(to.defer_accept))?;
        }
        if from.fast_open != to.fast_open {
            sys::set_option(socket, sys::TCP_FASTOPEN, saturating(to.fast_open))?;
        }
        match address {
            _ if from.transparent == to.transparent => {}
            SocketAddr::V4(_) => set.set_ip_transparent_v4(to.transparent)?,
            SocketAddr::V6(_) => set.set_ip_transparent_v6(to.transparent)?,
        }
        if from.freebind != to.freebind {
            tcp::set_freebind(&set, *address, to.freebind)?;
        }
        if (from.sharing == Sharing::Exclusive) != (to.sharing == Sharing::Exclusive) {
            set.set_reuse_port(to.sharing != Sharing::Exclusive)?;
        }
    }
    if from.backlog != to.backlog {
        // On a socket that listens, it changes the length of the queue and nothing else.
        set.listen(to.backlog)?;
    }
    Ok(())
}

fn change_datagrams(
    set: &SockRef<'_>,
    address: SocketAddr,
    from: &ListenOptions,
    to: &ListenOptions,
) -> io::Result<()> {
    match address {
        _ if from.transparent == to.transparent => {}
        SocketAddr::V4(_) => set.set_ip_transparent_v4(to.transparent)?,
        SocketAddr::V6(_) => set.set_ip_transparent_v6(to.transparent)?,
    }
    if from.freebind != to.freebind {
        tcp::set_freebind(set, address, to.freebind)?;
    }
    Ok(())
}
