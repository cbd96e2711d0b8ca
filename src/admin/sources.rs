//! What a snapshot is taken of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::config::model;
use crate::control::request::ChangeSender;
use crate::control::status::SharedStatus;
use crate::geoip::GeoIp;
use crate::log::Logging;
use crate::server::DataPlane;
use crate::tls::Acceptor;

/// Where everything is that the stats port shows.
#[derive(Clone)]
pub struct Sources {
    /// Listeners, pools, backends.
    pub plane: Arc<DataPlane>,
    /// The version and the commit of the program.
    pub version: (&'static str, &'static str),
    /// When the process started, by both clocks.
    pub started: (SystemTime, Instant),
    /// The configuration in effect.
    pub config: Arc<ArcSwap<model::Config>>,
    /// Set once it drains.
    pub draining: Arc<AtomicBool>,
    /// Countries of clients.
    pub geoip: Arc<GeoIp>,
    /// The admin interface's own state.
    pub interface: Arc<InterfaceState>,
    /// Its logs.
    pub logging: Logging,
    /// Where changes go; `None` if there can be none.
    pub changes: Option<ChangeSender>,
    /// Which configuration is in effect, and whether the file says the same.
    pub status: Arc<SharedStatus>,
}

/// The admin interface's own state: connections that were not served, TLS.
#[derive(Debug, Default)]
pub struct InterfaceState {
    rejected: AtomicU64,
    failed_handshakes: AtomicU64,
    /// TLS in service.
    tls: ArcSwapOption<Acceptor>,
}

impl InterfaceState {
    /// Counts a connection that `admin.allow` has closed.
    pub(super) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a TLS handshake that has failed.
    pub(super) fn fail_handshake(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// TLS handshakes that have failed.
    pub(super) fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.load(Ordering::Relaxed)
    }

    /// TLS in service.
    pub fn tls(&self) -> Option<Arc<Acceptor>> {
        self.tls.load_full()
    }

    /// Puts it in service, for what the interface shows of itself.
    pub fn set_tls(&self, tls: Option<Arc<Acceptor>>) {
        self.tls.store(tls);
    }

    /// Connections that `admin.allow` has closed.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}
