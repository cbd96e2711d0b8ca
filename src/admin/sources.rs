//! What a snapshot is taken of.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use crate::config::model;
use crate::log::counters::LogCounters;
use crate::net::addr::Address;
use crate::server::Shared;
use crate::tls::{Acceptor, Connector};

/// Where everything is that is shown.
pub struct Sources {
    /// Listeners, pools, backends.
    pub shared: Arc<Shared>,
    /// Where each listener listens, by its name.
    pub addresses: Vec<(Arc<str>, Address)>,
    /// Of each listener that terminates TLS.
    pub servers: Vec<Arc<Acceptor>>,
    /// Of each pool that speaks TLS.
    pub clients: Vec<Arc<Connector>>,
    /// The version and the commit of the program.
    pub version: (&'static str, &'static str),
    /// When the process started, by both clocks.
    pub started: (SystemTime, Instant),
    /// What runs.
    pub config: Arc<model::Config>,
    /// Set once it drains.
    pub draining: Arc<AtomicBool>,
    /// Of each log.
    pub logs: Vec<LogCounters>,
}
