//! The listening sockets of the admin interface: one for each address of `admin.bind`, which stay while their address does.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::http::ListeningSocket;
use crate::config::model::AdminConfig;
use crate::net::addr::Address;
use crate::net::dial::Options;
use crate::net::inherited::InheritedSockets;
use crate::net::listen::{self, ListenOptions, Listening, Sharing};
use crate::net::socket_file::{ModeChange, SocketFile};

/// Connections that may wait to be accepted: those of strangers who come without a pause, and a probe behind them.
const BACKLOG: i32 = 1024;

/// The open sockets. The thread serves duplicates.
#[derive(Default)]
pub(super) struct AdminSockets {
    open: Vec<OpenSocket>,
    mode: u32,
}

/// The socket of an address.
pub(super) struct OpenSocket {
    /// Its drop must come before that of the socket. A socket unit keeps its own.
    file: Option<SocketFile>,
    pub(super) configured: Address,
    /// Port 0 is replaced by the port that the kernel chose.
    pub(super) actual: Address,
    v6_only: bool,
    socket: OwnedFd,
}

/// A change of the sockets that cannot fail any more.
#[derive(Default)]
pub(super) struct SocketsChange {
    opened: Vec<OpenSocket>,
    /// A duplicate of each, to be served.
    pub(super) added: Vec<(Address, ListeningSocket)>,
    pub(super) removed: Vec<Address>,
    modes: Vec<ModeChange>,
    mode: u32,
}

impl AdminSockets {
    /// Opens the sockets of new addresses, and prepares the modes of files. A process that `answers` not yet leaves the files
    /// that it has from its predecessor as they are, until [`AdminSockets::set_modes`].
    ///
    /// # Errors
    /// The reason. Nothing has changed then.
    pub(super) fn prepare(
        &self,
        config: &AdminConfig,
        inherited: &InheritedSockets,
        answers: bool,
    ) -> Result<SocketsChange, String> {
        let mut change = SocketsChange { mode: config.socket_mode, ..SocketsChange::default() };
        for address in &config.bind {
            let v6_only = config.is_v6_only(address);
            match self.open.iter().find(|open| open.configured == *address) {
                Some(open) if open.v6_only != v6_only => {
                    return Err(format!(
                        "admin: whether {address} takes IPv4 too cannot change while it is open: remove it in one reload, \
                         and add it in another"
                    ));
                }
                // Another's file, or none, is no reason to refuse a change of something else.
                Some(open) if config.socket_mode != self.mode => change.modes.extend(open.mode(config.socket_mode)?),
                Some(_) => {}
                None => {
                    let opened = self.open(config, address, inherited)?;
                    let duplicate = opened.socket.try_clone().map_err(|error| format!("admin: {error}"))?;
                    let mode = opened.mode(config.socket_mode)?;
                    change.modes.extend(mode.filter(|_| answers));
                    change.added.push((opened.actual.clone(), ListeningSocket::new(duplicate, &opened.actual)));
                    change.opened.push(opened);
                }
            }
        }
        let gone = self.open.iter().filter(|open| !config.bind.contains(&open.configured));
        change.removed = gone.map(|open| open.actual.clone()).collect();
        Ok(change)
    }

    /// Takes an inherited socket, or binds one.
    fn open(
        &self,
        config: &AdminConfig,
        address: &Address,
        inherited: &InheritedSockets,
    ) -> Result<OpenSocket, String> {
        let options = ListenOptions {
            backlog: BACKLOG,
            connection: Options { nodelay: true, keepalive: None },
            fast_open: 0,
            defer_accept: 0,
            mptcp: false,
            transparent: false,
            freebind: false,
            datagrams: false,
            sharing: Sharing::Exclusive,
            v6_only: config.is_v6_only(address),
            mode: Some(config.socket_mode),
        };
        let listening = match inherited.take(None, address, &options) {
            // Several are of a socket unit that names the address more than once: one has to do.
            Ok(Some(mut taken)) => Ok(Listening { socket: taken.sockets.swap_remove(0), file: taken.file }),
            Ok(None) => listen::listen(address, &options),
            Err(error) => Err(error),
        };
        let bound = listening.and_then(|listening| Ok((listen::local_address(&listening.socket)?, listening)));
        let (actual, Listening { socket, file }) = bound.map_err(|error| match self.in_the_way(address, &error) {
            Some(old) => format!(
                "admin: cannot listen on {address}: the interface itself listens on {old} until it has moved: use another port \
                 in one reload, and this one in another"
            ),
            None => format!(
                "admin: cannot listen on {address}: {}",
                listen::explain(address, &options, &error, None)
            ),
        })?;
        Ok(OpenSocket { file, configured: address.clone(), actual, v6_only: options.v6_only, socket })
    }

    /// The open address that overlaps one that cannot be bound.
    fn in_the_way(&self, address: &Address, error: &io::Error) -> Option<&Address> {
        let Address::Tcp(wanted) = address else { return None };
        let overlaps = |open: &&Address| match open {
            Address::Tcp(open) => open.port() == wanted.port() && (is_any(open) || is_any(wanted) || open == wanted),
            Address::Unix(_) => false,
        };
        self.addresses().find(overlaps).filter(|_| error.kind() == io::ErrorKind::AddrInUse)
    }

    /// Makes a change. Returns what is no longer open: to be dropped when the thread no longer serves it.
    pub(super) fn commit(&mut self, change: SocketsChange) -> Vec<OpenSocket> {
        for mode in &change.modes {
            if let Err(error) = mode.set() {
                tracing::error!(%error, "the mode of a socket of the admin interface cannot be set");
            }
        }
        self.mode = change.mode;
        let (kept, gone) = self.open.drain(..).partition(|open| !change.removed.contains(&open.actual));
        self.open = kept;
        self.open.extend(change.opened);
        gone
    }

    /// Everything, closed.
    pub(super) fn close(&self) -> SocketsChange {
        SocketsChange { removed: self.addresses().cloned().collect(), mode: self.mode, ..SocketsChange::default() }
    }

    /// Gives the files of unix sockets their mode.
    pub(super) fn set_modes(&self) {
        for open in &self.open {
            let set = open.mode(self.mode).and_then(|mode| match mode {
                Some(mode) => mode.set().map_err(|error| error.to_string()),
                None => Ok(()),
            });
            if let Err(error) = set {
                tracing::error!(address = %open.actual, error, "the mode of a socket of the admin interface cannot be set");
            }
        }
    }

    /// Where it listens.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.open.iter().map(|open| &open.actual)
    }

    /// Each socket, with its address as configured and as it is.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (&Address, &Address, BorrowedFd<'_>)> {
        self.open.iter().map(|open| (&open.configured, &open.actual, open.socket.as_fd()))
    }

    /// Removes the files: before their sockets are closed.
    pub(super) fn remove_files(&mut self) {
        self.open.iter_mut().for_each(OpenSocket::remove_file);
    }
}

impl OpenSocket {
    /// The change to this mode; `None` without a file of this process.
    fn mode(&self, mode: u32) -> Result<Option<ModeChange>, String> {
        let change = self.file.as_ref().map(|file| file.prepare_mode(mode)).transpose();
        change.map_err(|error| format!("admin: cannot set the mode of {}: {error}", self.actual))
    }

    /// No client finds the file without a socket behind it.
    pub(super) fn remove_file(&mut self) {
        self.file = None;
    }
}

impl SocketsChange {
    /// Where sockets were opened.
    pub(super) fn opened(&self) -> impl Iterator<Item = &Address> {
        self.opened.iter().map(|open| &open.actual)
    }
}

fn is_any(address: &SocketAddr) -> bool {
    address.ip().is_unspecified()
}
