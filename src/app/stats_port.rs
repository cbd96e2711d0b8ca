//! The stats port of an [`App`](super::App): what becomes of it when `admin` changes.

use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::task::JoinSet;

use crate::admin::snapshot_model::Snapshot;
use crate::admin::{AdminChange, AdminServer, Sources};
use crate::config::model::AdminConfig;
use crate::net::addr::Address;
use crate::net::inherited::InheritedSockets;
use crate::server::{self, Samples};
use crate::tls::{self, Acceptor};

/// The stats port, and what it is made from when the configuration gets one.
pub(super) struct AdminPort {
    sources: Sources,
    /// Stays when the port is closed: what it has counted goes on when there is one again.
    running: Option<(AdminServer, Samples)>,
    /// Whether it accepts from its start on.
    answers: AtomicBool,
    /// Of the files of TLS.
    watch: JoinSet<()>,
}

/// A change that cannot fail any more.
pub(super) enum PortChange {
    Same,
    Change { change: Box<AdminChange>, started: Option<Box<(AdminServer, Samples)>>, tls: TlsChange },
}

/// TLS from then on, and the watch of its files.
pub(super) enum TlsChange {
    Same,
    Other(Option<(Arc<Acceptor>, TlsWatchTask)>),
}

type TlsWatchTask = Pin<Box<dyn Future<Output = ()> + Send>>;

impl AdminPort {
    /// Closed. `answers` is whether it accepts once it is open, or waits for [`AdminPort::answer`].
    pub(super) fn new(sources: Sources, answers: bool) -> AdminPort {
        AdminPort { sources, running: None, answers: AtomicBool::new(answers), watch: JoinSet::new() }
    }

    /// Binds other addresses, reads another token, starts the thread if there is none.
    ///
    /// # Errors
    /// The reason. Nothing has changed then.
    pub(super) fn prepare(
        &self,
        before: Option<&AdminConfig>,
        after: Option<&AdminConfig>,
        inherited: &InheritedSockets,
    ) -> Result<PortChange, String> {
        let is_same = before.and_then(|before| before.tls.as_ref()) == after.and_then(|after| after.tls.as_ref());
        let (acceptor, tls) = match after.and_then(|after| after.tls.as_ref()) {
            _ if is_same => (self.sources.interface.tls(), TlsChange::Same),
            None => (None, TlsChange::Other(None)),
            Some(rules) => {
                let acceptor = Acceptor::of_admin(rules).map(Arc::new).map_err(|error| format!("admin: {error}"))?;
                let watch = tls::watch::run(vec![Arc::clone(&acceptor)], Vec::new());
                let watch = watch.map_err(|error| format!("admin: cannot watch the files of TLS: {error}"))?;
                (Some(Arc::clone(&acceptor)), TlsChange::Other(Some((acceptor, Box::pin(watch)))))
            }
        };
        let (change, started) = match (after, &self.running) {
            (None, None) => return Ok(PortChange::Same),
            (None, Some((server, _))) => (server.closing(), None),
            (Some(after), Some((server, _))) => (server.prepare(before, after, acceptor, inherited)?, None),
            (Some(after), None) => {
                let (samples, measurements) = server::samples();
                let answers = self.answers.load(Ordering::Relaxed);
                let server = AdminServer::start(self.sources.clone(), measurements, answers);
                let server = server.map_err(|error| format!("admin: {error}"))?;
                (server.prepare(None, after, acceptor, inherited)?, Some(Box::new((server, samples))))
            }
        };
        Ok(PortChange::Change { change: Box::new(change), started, tls })
    }

    /// Serves new addresses, and then no longer those that were removed.
    pub(super) async fn commit(&mut self, change: PortChange) {
        let PortChange::Change { change, started, tls } = change else { return };
        if let TlsChange::Other(tls) = tls {
            self.watch.abort_all();
            let (acceptor, watch) = tls.unzip();
            self.sources.interface.set_tls(acceptor);
            watch.into_iter().for_each(|watch| drop(self.watch.spawn(watch)));
        }
        self.running = started.map(|started| *started).or(self.running.take());
        let Some((server, _)) = &mut self.running else { return };
        for address in change.opened() {
            tracing::info!(%address, "stats port");
        }
        let was_open = server.addresses().next().is_some();
        server.commit(*change).await;
        if was_open && server.addresses().next().is_none() {
            tracing::info!("stats port closed");
        }
    }

    /// Where workers write down what they measure; `None` while the stats port is closed.
    pub(super) fn samples(&self) -> Option<Samples> {
        self.running
            .as_ref()
            .filter(|(server, _)| server.addresses().next().is_some())
            .map(|(_, samples)| samples.clone())
    }

    /// The first of its addresses; `None` if it is closed.
    pub(super) fn address(&self) -> Option<&Address> {
        self.running.as_ref()?.0.addresses().next()
    }

    /// What is true now; `None` if it is closed.
    pub(super) async fn snapshot(&self) -> Option<Snapshot> {
        self.running.as_ref()?.0.snapshot().await
    }

    /// The listening sockets, each with its address as configured and as it is.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (&Address, &Address, BorrowedFd<'_>)> {
        self.running.iter().flat_map(|(server, _)| server.sockets())
    }

    /// Whether it accepts from now on.
    pub(super) fn answer(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
        self.running.iter().for_each(|(server, _)| server.answer(answers));
    }

    /// Ends it.
    pub(super) fn stop(&mut self) -> Option<JoinHandle<()>> {
        self.running.take()?.0.stop()
    }
}
