//! Listening sockets: of each address of each listener one for every worker, or one for all. Of each port of a range there is one,
//! and one worker accepts from it: it gives connections to the others all the same.
//!
//! A socket that listens is closed with its address only: close(2) resets what waits in its queue. When workers retire, the
//! others accept from their sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::upgrade::inheritance::SocketInfo;
use crate::config::model::{Config, ListenerConfig, ListenerSocket, ListenerState, ReusePort};
use crate::net::addr::Address;
use crate::net::dial::Options;
use crate::net::inherited::{InheritedSockets, TakenSockets};
use crate::net::listen::{self, ListenOptions, Listening, Sharing};
use crate::net::socket_file::{ModeChange, SocketFile};
use crate::server::WorkerSocket;

/// A listener's name, and an address as configured.
pub(super) type BindKey = (Arc<str>, Address);

/// The place of a socket among those of its address, and the index of a worker that accepts from it.
type Assignment = (usize, usize);

/// The sockets of all listeners. Workers accept from duplicates: a socket is closed when both are.
#[derive(Default)]
pub(super) struct ListenSockets(BTreeMap<BindKey, BoundAddress>);

/// The sockets of one address.
pub(super) struct BoundAddress {
    /// Removed before its socket is closed, so that no client finds it without a listener.
    file: Option<SocketFile>,
    /// Port 0 is replaced by the port that the kernel chose.
    pub(super) actual: Address,
    v6_only: bool,
    /// Others may not be able to join its sockets.
    is_inherited: bool,
    sockets: Vec<OwnedFd>,
    assigned: BTreeSet<Assignment>,
}

/// An address that is bound, and a duplicate of each socket for each of its workers.
pub(super) struct OpenedAddress {
    pub(super) key: BindKey,
    pub(super) bound: BoundAddress,
    pub(super) duplicates: Vec<WorkerSocket>,
}

/// How an address is to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SocketSettings {
    options: ListenOptions,
    accepting: AcceptingWorkers,
}

/// Who accepts from the sockets of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptingWorkers {
    /// Every worker from each of them.
    All,
    /// Each worker from its own.
    Each,
    /// One of them, by the port: that of a range of ports.
    One(u16),
    /// Each socket is read by one worker, for as long as that is there: of UDP, where two would change the order of datagrams.
    Single,
}

/// What becomes of the sockets of an address that stays: other options, or other workers.
pub(super) struct AddressChange {
    pub(super) key: BindKey,
    options: (ListenOptions, ListenOptions),
    /// Bound, and not listening yet.
    joined: Vec<OwnedFd>,
    assigned: BTreeSet<Assignment>,
    /// For workers that begin to accept from a socket.
    pub(super) added: Vec<WorkerSocket>,
    /// Workers that no longer do.
    pub(super) removed: Vec<Assignment>,
    mode: Option<ModeChange>,
    shared: Option<SharedUntilCommit>,
}

/// Sockets that others may join from now on. Dropped before the change is committed, they become exclusive again, as far as the
/// kernel forgets it: once one has joined, another process of the user may until the port is closed.
struct SharedUntilCommit {
    sockets: Vec<OwnedFd>,
    address: Address,
    options: (ListenOptions, ListenOptions),
}

impl Drop for SharedUntilCommit {
    fn drop(&mut self) {
        let (exclusive, shared) = &self.options;
        for socket in &self.sockets {
            // What was set can be unset.
            let _ = listen::change(socket, &self.address, shared, exclusive);
        }
    }
}

impl ListenSockets {
    /// Takes inherited sockets of addresses of listeners, or binds them, or says of each that cannot be bound why.
    pub(super) fn bind(
        &self,
        wanted: &[(&ListenerConfig, &Address)],
        config: &Config,
        workers: &[usize],
        inherited: &InheritedSockets,
        old: &Config,
    ) -> Result<Vec<OpenedAddress>, Vec<String>> {
        let (mut opened, mut errors) = (Vec::<OpenedAddress>::new(), Vec::new());
        for (listener, address) in wanted {
            let settings = settings(listener, address, v6_only(listener, address, config));
            let options = &settings.options;
            let key = (Arc::clone(&listener.name), Address::clone(address));
            let taken = inherited.take(Some(&listener.name), address, options);
            let bound = taken.and_then(|taken| match taken {
                Some(taken) => adopt(&listener.name, taken, &settings, workers),
                None => match self.given_up(address, options, old, config) {
                    Some(bound) => bound.take_over(&settings, workers),
                    None => bind_one(address, &settings, workers),
                },
            });
            match bound {
                Ok((bound, duplicates)) => opened.push(OpenedAddress { key, bound, duplicates }),
                Err(error) => {
                    let new = opened.iter().map(|new| (&new.key.0, &new.bound.actual));
                    let owner = owner(address, self.0.iter().map(|(key, bound)| (&key.0, &bound.actual)).chain(new));
                    let why = listen::explain(address, options, &error, owner.as_deref());
                    errors.push(format!("listener {}: cannot listen on {address}: {why}", listener.name));
                }
            }
        }
        if errors.is_empty() { Ok(opened) } else { Err(errors) }
    }

    /// The sockets of an address that another listener gives up by the new configuration. With other options it cannot be bound
    /// before it is closed.
    fn given_up(
        &self,
        address: &Address,
        options: &ListenOptions,
        old: &Config,
        new: &Config,
    ) -> Option<&BoundAddress> {
        let has = |config: &Config, key: &BindKey| listener_of(config, &key.0).is_some_and(|it| listens_at(it, &key.1));
        let has_same_options = |key: &BindKey, bound: &BoundAddress| {
            let listener = listener_of(old, &key.0);
            listener.is_some_and(|listener| settings(listener, &key.1, bound.v6_only).options == *options)
        };
        let fits = |(key, bound): &(&BindKey, &BoundAddress)| {
            bound.actual == *address && !options.datagrams && !has(new, key) && has_same_options(key, bound)
        };
        self.0.iter().find(fits).map(|(_, bound)| bound)
    }

    /// Prepares what becomes of the addresses that both configurations have, for these workers.
    pub(super) fn prepare(
        &self,
        old: &Config,
        new: &Config,
        workers: &[usize],
    ) -> Result<Vec<AddressChange>, Vec<String>> {
        let (mut changes, mut errors) = (Vec::new(), Vec::new());
        for (key, bound) in &self.0 {
            let of = |config: &Config| {
                let listener = listener_of(config, &key.0)?;
                listens_at(listener, &key.1).then(|| settings(listener, &key.1, bound.v6_only))
            };
            let (Some(before), Some(after)) = (of(old), of(new)) else { continue };
            let (listener, address) = key;
            let v6_only = |it: &ListenerConfig| v6_only(it, address, new);
            if listener_of(new, listener).is_some_and(|it| v6_only(it) != bound.v6_only) {
                errors.push(format!(
                    "listener {listener}: whether {address} takes IPv4 too cannot change while tidegate runs: restart it"
                ));
            }
            match bound.prepare(key, before, &after, workers) {
                Ok(change) => changes.extend(change),
                Err(error) => {
                    let why = listen::explain(address, &after.options, &error, None);
                    errors.push(format!("listener {listener}: cannot change the sockets of {address}: {why}"));
                }
            }
        }
        if errors.is_empty() { Ok(changes) } else { Err(errors) }
    }

    /// Carries a change out, but for what workers do.
    pub(super) fn commit(&mut self, change: &mut AddressChange) {
        let Some(bound) = self.0.get_mut(&change.key) else { return };
        let ((listener, address), (from, to)) = (&change.key, &change.options);
        change.shared.iter_mut().for_each(|shared| shared.sockets.clear());
        let changed = bound.sockets.iter().map(|socket| listen::change(socket, address, from, to));
        let started = change.joined.iter().map(|socket| listen::start(socket, to));
        for error in changed.chain(started).filter_map(Result::err) {
            tracing::error!(%listener, %address, %error, "a listening socket does not take its options");
        }
        if let Some(Err(error)) = change.mode.as_ref().map(ModeChange::set) {
            tracing::error!(%listener, %address, %error, "the mode of a unix socket cannot be set");
        }
        bound.sockets.append(&mut change.joined);
        bound.assigned = std::mem::take(&mut change.assigned);
    }

    pub(super) fn insert(&mut self, key: BindKey, bound: BoundAddress) {
        self.0.insert(key, bound);
    }

    pub(super) fn remove(&mut self, key: &BindKey) {
        let Some(removed) = self.0.remove(key) else { return };
        if let Some(heir) = self.0.values_mut().find(|heir| heir.actual == removed.actual) {
            heir.file = removed.file;
        }
    }

    /// Where an address of a listener listens.
    pub(super) fn actual(&self, key: &BindKey) -> Option<&Address> {
        self.0.get(key).map(|bound| &bound.actual)
    }

    /// All of them, to be handed over to another process.
    pub(super) fn all(&self) -> impl Iterator<Item = (SocketInfo, BorrowedFd<'_>)> {
        self.0.iter().flat_map(|((name, configured), bound)| {
            bound.sockets.iter().enumerate().map(move |(index, socket)| {
                let info = SocketInfo::new(Some(name), configured, &bound.actual, socket, index);
                (info, socket.as_fd())
            })
        })
    }

    /// Descriptors of listening sockets, the workers' duplicates included.
    pub(super) fn open_files(&self) -> usize {
        self.0.values().map(|bound| bound.sockets.len() + bound.assigned.len()).sum()
    }

    /// Closes them all but for the workers' duplicates.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl BoundAddress {
    /// The same sockets for another listener: what waits in their queues goes to either.
    fn take_over(&self, settings: &SocketSettings, workers: &[usize]) -> io::Result<(BoundAddress, Vec<WorkerSocket>)> {
        let bound = BoundAddress {
            // It changes hands when the other one is removed.
            file: None,
            actual: self.actual.clone(),
            v6_only: self.v6_only,
            is_inherited: self.is_inherited,
            sockets: self.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?,
            assigned: BTreeSet::new(),
        };
        bound.complete(settings, workers)
    }

    /// With all the sockets that it is to have, each listening, and the workers' duplicates.
    fn complete(
        mut self,
        settings: &SocketSettings,
        workers: &[usize],
    ) -> io::Result<(BoundAddress, Vec<WorkerSocket>)> {
        for socket in self.join(settings, workers)? {
            listen::start(&socket, &settings.options)?;
            self.sockets.push(socket);
        }
        self.assigned = assignments(self.sockets.len(), workers, settings.accepting);
        let duplicates = duplicates(&self.sockets.iter().collect::<Vec<_>>(), &self.assigned)?;
        Ok((self, duplicates))
    }

    /// A further socket for each worker that is to have its own and has none: bound, and not listening yet.
    fn join(&self, settings: &SocketSettings, workers: &[usize]) -> io::Result<Vec<OwnedFd>> {
        let address = match (&self.actual, settings.accepting) {
            (Address::Tcp(address), AcceptingWorkers::Each) => address,
            // Later, one more would change the socket, and so the worker, of clients that have sessions.
            (Address::Tcp(address), AcceptingWorkers::Single)
                if settings.options.sharing != Sharing::Exclusive && self.assigned.is_empty() && !self.is_inherited =>
            {
                address
            }
            _ => return Ok(Vec::new()),
        };
        let joined = (self.sockets.len()..workers.len()).map(|_| listen::join(*address, &settings.options));
        match joined.collect() {
            // A socket unit without ReusePort= has one for all.
            Err(_) if self.is_inherited => Ok(Vec::new()),
            joined => joined,
        }
    }

    /// `None` if nothing changes.
    fn prepare(
        &self,
        key: &BindKey,
        from: SocketSettings,
        settings: &SocketSettings,
        workers: &[usize],
    ) -> io::Result<Option<AddressChange>> {
        let (mut from, to) = (from.options, &settings.options);
        if from != *to {
            listen::check(&self.actual, to)?;
        }
        let mode = match (&self.file, to.mode) {
            (Some(file), Some(mode)) if from.mode != to.mode => Some(file.prepare_mode(mode)?),
            _ => None,
        };
        let (mut joined, mut shared) = (Vec::new(), None);
        if settings.accepting == AcceptingWorkers::Each {
            if from.sharing == Sharing::Exclusive {
                let sharing = ListenOptions { sharing: to.sharing, ..from.clone() };
                let sockets = self.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
                let address = self.actual.clone();
                shared = Some(SharedUntilCommit { sockets, address, options: (from.clone(), sharing.clone()) });
                for socket in &self.sockets {
                    listen::change(socket, &self.actual, &from, &sharing)?;
                }
                from = sharing;
            }
            joined = self.join(settings, workers)?;
        }
        let sockets: Vec<&OwnedFd> = self.sockets.iter().chain(&joined).collect();
        let assigned = assignments(sockets.len(), workers, settings.accepting);
        let added = duplicates(&sockets, assigned.difference(&self.assigned))?;
        if from == *to && joined.is_empty() && assigned == self.assigned {
            return Ok(None);
        }
        let removed = self.assigned.difference(&assigned).copied().collect();
        let options = (from, to.clone());
        Ok(Some(AddressChange { key: key.clone(), options, joined, assigned, added, removed, mode, shared }))
    }
}

fn listener_of<'c>(config: &'c Config, name: &str) -> Option<&'c ListenerConfig> {
    config.listeners.iter().find(|listener| *listener.name == *name)
}

fn listens_at(listener: &ListenerConfig, address: &Address) -> bool {
    listener.state != ListenerState::Drain && listener.binds(address)
}

fn bind_one(
    address: &Address,
    settings: &SocketSettings,
    workers: &[usize],
) -> io::Result<(BoundAddress, Vec<WorkerSocket>)> {
    let Listening { socket, file } = listen::listen(address, &settings.options)?;
    let bound = BoundAddress {
        file,
        actual: listen::local_address(&socket)?,
        v6_only: settings.options.v6_only,
        is_inherited: false,
        sockets: vec![socket],
        assigned: BTreeSet::new(),
    };
    bound.complete(settings, workers)
}

/// Who accepts from which socket. Where each worker has its own, those that are more are shared out as well; where there are fewer
/// sockets than workers, several have one together.
fn assignments(sockets: usize, workers: &[usize], accepting: AcceptingWorkers) -> BTreeSet<Assignment> {
    let numbers = 0..sockets;
    match accepting {
        AcceptingWorkers::All => {
            numbers.flat_map(|number| workers.iter().map(move |worker| (number, *worker))).collect()
        }
        AcceptingWorkers::Each => {
            let longer = sockets.max(workers.len());
            numbers.cycle().zip(workers.iter().copied().cycle()).take(longer).collect()
        }
        AcceptingWorkers::Single => numbers.zip(workers.iter().copied().cycle()).collect(),
        // The same one for a port, whatever the range.
        AcceptingWorkers::One(port) => {
            numbers.zip(workers.iter().copied().cycle().skip(usize::from(port) % workers.len().max(1))).collect()
        }
    }
}

fn duplicates<'a>(
    sockets: &[&OwnedFd],
    assigned: impl IntoIterator<Item = &'a Assignment>,
) -> io::Result<Vec<WorkerSocket>> {
    let duplicate =
        |&(number, worker): &Assignment| Ok(WorkerSocket { number, worker, socket: sockets[number].try_clone()? });
    assigned.into_iter().map(duplicate).collect()
}

/// Sockets of another process, and as many more as there are workers. Those that are more than the workers are kept too:
/// connections wait in their queues.
fn adopt(
    listener: &str,
    taken: TakenSockets,
    settings: &SocketSettings,
    workers: &[usize],
) -> io::Result<(BoundAddress, Vec<WorkerSocket>)> {
    let TakenSockets { sockets, actual, file, without } = taken;
    for option in without {
        tracing::warn!(%listener, address = %actual, "the inherited socket keeps its setting of socket.{option}");
    }
    // That of a socket unit is the unit's own.
    let mode = file.as_ref().zip(settings.options.mode).map(|(file, mode)| file.prepare_mode(mode)?.set());
    if let Some(Err(error)) = mode {
        tracing::warn!(%listener, address = %actual, %error, "the inherited socket keeps its setting of socket.mode");
    }
    let v6_only = settings.options.v6_only;
    let bound = BoundAddress { file, actual, v6_only, is_inherited: true, sockets, assigned: BTreeSet::new() };
    bound.complete(settings, workers)
}

/// How an address of a listener is to listen.
fn settings(listener: &ListenerConfig, address: &Address, v6_only: bool) -> SocketSettings {
    let options = ListenOptions {
        mode: matches!(address, Address::Unix(_)).then_some(listener.socket.mode),
        datagrams: listener.udp.is_some(),
        ..options(&listener.socket, v6_only)
    };
    let range = listener.bind.iter().find(|bind| bind.is_range() && bind.contains(address));
    match (address, range) {
        (Address::Tcp(address), Some(_)) => {
            let sharing = if options.sharing == Sharing::Anyone { Sharing::Anyone } else { Sharing::Exclusive };
            let accepting = AcceptingWorkers::One(address.port());
            SocketSettings { options: ListenOptions { sharing, ..options }, accepting }
        }
        (Address::Tcp(_), None) if options.datagrams => SocketSettings { options, accepting: AcceptingWorkers::Single },
        (Address::Tcp(_), None) if options.sharing != Sharing::Exclusive => {
            SocketSettings { options, accepting: AcceptingWorkers::Each }
        }
        _ => SocketSettings { options, accepting: AcceptingWorkers::All },
    }
}

fn options(socket: &ListenerSocket, v6_only: bool) -> ListenOptions {
    ListenOptions {
        backlog: socket.backlog,
        connection: Options { nodelay: socket.nodelay, keepalive: socket.keepalive },
        fast_open: socket.fast_open,
        defer_accept: socket.defer_accept.map_or(0, whole_seconds),
        mptcp: socket.mptcp,
        transparent: socket.transparent,
        freebind: socket.freebind,
        datagrams: false,
        sharing: match socket.reuse_port {
            ReusePort::Auto => Sharing::Workers,
            ReusePort::On => Sharing::Anyone,
            ReusePort::Off => Sharing::Exclusive,
        },
        v6_only,
        mode: None,
    }
}

/// The kernel counts in seconds; a part of one is one.
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX)
}

/// `[::]:80` takes IPv4 too, as everywhere on Linux, unless a listener binds `0.0.0.0:80` as well.
fn v6_only(of: &ListenerConfig, address: &Address, config: &Config) -> bool {
    let Address::Tcp(address) = address else { return false };
    let v4 = Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()));
    config.listeners.iter().any(|listener| listener.udp.is_some() == of.udp.is_some() && listener.binds(&v4))
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

/// Logs which ranges of ports have new sockets, and how many.
pub(super) fn log_ranges(config: &Config, opened: &[OpenedAddress]) {
    let opened: BTreeSet<&BindKey> = opened.iter().map(|opened| &opened.key).collect();
    for listener in &config.listeners {
        for range in listener.bind.iter().filter(|bind| bind.is_range()) {
            let is_new = |address: &Address| opened.contains(&(Arc::clone(&listener.name), address.clone()));
            let ports = range.addresses().filter(is_new).count();
            if ports > 0 {
                tracing::info!(listener = %listener.name, address = %range, ports, "listening");
            }
        }
    }
}

#[cfg(test)]
mod tests;
