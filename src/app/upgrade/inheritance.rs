//! What a process starts with that it has from others: sockets of a service manager, or all that the process which it replaces
//! hands over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::control::Overlay;
use crate::net::addr::Address;
use crate::net::inherited::{BoundFor, InheritedSocket, InheritedSockets, device};
use crate::net::memory_file;
use crate::pool::Pool;

/// What a process starts with.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Sockets for the addresses that are bound.
    pub sockets: InheritedSockets,
    /// Of the backends that the replaced process has checked.
    pub verdicts: Vec<Verdict>,
    /// Changes that were made at run time; `None` leaves them to the state file.
    pub overlay: Option<Overlay>,
    /// Text of a configuration that was put in the place of the file's.
    pub put: Option<String>,
    /// The admin interface accepts once [`App::answer`](crate::app::App::answer) says so.
    pub answers_later: bool,
}

impl From<InheritedSockets> for Inheritance {
    fn from(sockets: InheritedSockets) -> Inheritance {
        Inheritance { sockets, ..Inheritance::default() }
    }
}

/// What a health check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pool: String,
    backend: String,
    address: String,
    up: bool,
    reason: Option<String>,
}

impl Verdict {
    /// Of all backends that are checked and of which something is known.
    pub fn all(pools: &[Arc<Pool>]) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for pool in pools.iter().filter(|pool| pool.settings().health.is_some()) {
            for backend in pool.backends().iter().filter(|backend| !backend.is_leaving()) {
                let (Some(up), Some(address)) = (pool.verdict(backend.id()), backend.address()) else { continue };
                let reason = backend.status().reason.filter(|_| !up).map(|reason| (*reason).to_owned());
                let (pool, backend) = (pool.name().to_string(), backend.name().to_string());
                verdicts.push(Verdict { pool, backend, address: address.to_string(), up, reason });
            }
        }
        verdicts
    }

    /// Gives the backends that these are of what was known of them. Their names and addresses must be the same.
    pub fn take_over(verdicts: &[Verdict], pools: &[Arc<Pool>]) {
        for pool in pools.iter().filter(|pool| pool.settings().health.is_some()) {
            for backend in pool.backends().iter() {
                let Some(address) = backend.address().map(ToString::to_string) else { continue };
                let is_its = |it: &&Verdict| {
                    *it.pool == **pool.name() && *it.backend == **backend.name() && it.address == address
                };
                match verdicts.iter().find(is_its) {
                    Some(Verdict { up: true, .. }) => {
                        pool.set_up(backend.id());
                    }
                    Some(Verdict { reason, .. }) => {
                        pool.set_down(backend.id(), reason.as_deref().unwrap_or_default());
                    }
                    None => {}
                }
            }
        }
    }
}

/// A listening socket that is handed over: what it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketInfo {
    /// `None` is the admin interface.
    pub listener: Option<String>,
    pub configured: Place,
    /// Where it listens: port 0 is replaced.
    pub actual: Place,
    /// The interface that it is bound to (SO_BINDTODEVICE).
    pub device: Option<String>,
    /// Its place among the sockets of this address.
    pub index: usize,
}

/// An address, by its protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Tcp(std::net::SocketAddr),
    Unix(PathBuf),
}

impl From<&Address> for Place {
    fn from(address: &Address) -> Place {
        match address {
            Address::Tcp(address) => Place::Tcp(*address),
            Address::Unix(path) => Place::Unix(path.to_path_buf()),
        }
    }
}

impl From<Place> for Address {
    fn from(place: Place) -> Address {
        match place {
            Place::Tcp(address) => Address::Tcp(address),
            Place::Unix(path) => Address::Unix(Arc::new(path)),
        }
    }
}

impl SocketInfo {
    /// Of a socket of this process.
    pub fn new(
        listener: Option<&str>,
        configured: &Address,
        actual: &Address,
        socket: impl AsFd,
        index: usize,
    ) -> SocketInfo {
        let (configured, actual) = (configured.into(), actual.into());
        SocketInfo { listener: listener.map(str::to_owned), configured, actual, device: device(socket), index }
    }

    /// The socket that came with it.
    ///
    /// # Errors
    /// It is another one than this says.
    pub(super) fn socket(self, socket: OwnedFd) -> Result<InheritedSocket, String> {
        let SocketInfo { listener, configured, actual, device, index } = self;
        let name = listener.as_deref().map_or_else(|| "admin".to_owned(), |name| format!("listener {name}"));
        let bound_for = BoundFor { listener, address: configured.into() };
        let socket = InheritedSocket::new(socket, &name, Some(bound_for))?;
        let (address, own_device) = (Place::from(socket.address()), socket.device());
        if (&address, &own_device) != (&actual, &device) {
            return Err(format!("socket {index} of {name} is not the one of {actual:?}, but of {address:?}"));
        }
        Ok(socket)
    }
}

/// What is handed over beside the sockets.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct HandedState {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) overlay: Overlay,
    #[serde(default)]
    pub(super) put: Option<String>,
}

impl HandedState {
    /// A file in memory with it.
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        memory_file::write(&serde_json::to_vec(self)?)
    }

    /// # Errors
    /// It is too large, or something else.
    pub(super) fn read(file: OwnedFd) -> io::Result<HandedState> {
        Ok(serde_json::from_slice(&memory_file::read(file)?)?)
    }
}
