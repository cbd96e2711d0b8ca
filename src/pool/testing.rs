//! What the tests of pools and health checks share: pools in a line, and a look at what is logged.

use std::io::Write;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::config::model::{
    BackendAddress, BackendConfig, Balance, HashPrefix, Health, HealthCheck, HttpPool, Initial, OnConflict, OnDown,
    OutlierConfig, PoolConfig, QueueConfig,
};
use crate::stats::registry::BackendId;

/// A pool `p` of these backends, without checks, in round robin.
pub(crate) fn pool(backends: Vec<BackendConfig>) -> PoolConfig {
    PoolConfig {
        name: "p".into(),
        balance: Balance::RoundRobin,
        hash: HashPrefix { ipv4: 32, ipv6: 64 },
        backends,
        health: None,
        outlier: None,
        fail_open: 0,
        on_down: OnDown::Keep,
        on_conflict: OnConflict::Refuse,
        slow_start: Duration::ZERO,
        retries: 2,
        persist: None,
        http: HttpPool::default(),
        queue: QueueConfig { size: 0, timeout: Duration::from_secs(5) },
        connect_timeout: Duration::from_secs(5),
        send_proxy: None,
        tls: None,
        source: Vec::new(),
    }
}

/// Outlier detection by this number of failures, within `window` or in a row.
pub(crate) fn outlier(failures: u32, window: Duration) -> OutlierConfig {
    OutlierConfig {
        failures: NonZeroU32::new(failures).unwrap(),
        window: (!window.is_zero()).then_some(window),
        ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(300),
        max_ejected: 50,
        http_5xx: false,
    }
}

/// Backends `a`, `b`, ... of these weights, at addresses that nobody connects to.
pub(crate) fn backends(weights: &[u32]) -> Vec<BackendConfig> {
    weights
        .iter()
        .zip(0_u16..)
        .map(|(&weight, i)| BackendConfig {
            state: crate::config::model::AdminState::Ready,
            forced: None,
            name: match char::from_u32(u32::from('a') + u32::from(i)) {
                Some(letter @ 'a'..='z') => letter.to_string().into(),
                _ => format!("b{i}").into(),
            },
            address: BackendAddress::Ip(([127, 0, 0, 1], 10_000 + i).into()),
            weight,
            max_connections: None,
            backup: false,
        })
        .collect()
}

/// The id of the backend at this place of the pool.
pub(crate) fn id(pool: &super::Pool, place: usize) -> BackendId {
    pool.backends()[place].id()
}

/// The place of a backend in its pool.
pub(crate) fn place(pool: &super::Pool, backend: &super::Backend) -> usize {
    pool.backends().iter().position(|it| **it == *backend).unwrap()
}

/// A health check of the given kind: every 2 s, up to 1 s, rise 2, fall 3, down until the first pass.
pub(crate) fn health(check: HealthCheck) -> Health {
    let times = |n: u32| NonZeroU32::MIN.saturating_add(n - 1);
    Health {
        check,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: times(2),
        fall: times(3),
        by_datagrams: false,
        port: None,
        initial: Initial::Probe,
    }
}

/// What is logged on this thread from now on, for as long as the second value lives.
pub(crate) fn capture_log() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// Log lines.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// All lines so far, without surrounding space.
    pub(crate) fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// The lines that contain `what`.
    pub(crate) fn with(&self, what: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(what)).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}
