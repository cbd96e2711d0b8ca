//! What a snapshot is taken of.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::config::model;
use crate::log::counters::LogCounters;
use crate::server::DataPlane;

/// Where everything is that the stats port shows.
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
    /// Of each log.
    pub logs: Vec<LogCounters>,
}
