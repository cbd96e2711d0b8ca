//! Idle connections to backends, kept by each worker for itself.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::super::dial::Reuse;
use super::link::HttpLink;
use crate::config::model::{HttpVersion, NameSource, PoolConfig};
use crate::pool::{Backend, Pool};
use crate::stats::registry::BackendId;
use crate::worker;

/// Between two looks for connections that have been idle for too long, or that the backend has closed.
const SWEEP: Duration = Duration::from_secs(1);

thread_local! {
    static KEPT: Rc<KeptLinks> = Rc::default();
}

/// The idle connections of a worker.
#[derive(Default)]
pub(in crate::server) struct KeptLinks {
    backends: RefCell<HashMap<BackendId, KeptOfBackend>>,
    is_swept: Cell<bool>,
}

struct KeptOfBackend {
    pool: Arc<Pool>,
    /// As it was when a link was last kept.
    backend: Arc<Backend>,
    /// The one that was idle for the shortest time is the last, and the first to be taken.
    links: Vec<HttpLink>,
}

impl KeptOfBackend {
    /// Whether connections that were made by `settings` fit the backend as it is configured now.
    fn fits(&self, settings: &PoolConfig) -> bool {
        let own = self.backend.settings();
        own.tls == settings.tls && own.http.version == settings.http.version && own.source == settings.source
    }
}

impl KeptLinks {
    /// Takes one to this backend.
    fn take(&self, backend: &Arc<Backend>) -> Option<HttpLink> {
        let mut backends = self.backends.borrow_mut();
        let kept = backends.get_mut(&backend.id())?;
        if !kept.fits(backend.settings()) {
            backends.remove(&backend.id());
            return None;
        }
        // Streams share a connection of HTTP/2.
        if let Some(HttpLink::Http2(link)) = kept.links.last() {
            let link = HttpLink::Http2(link.clone());
            if link.is_ready() {
                return Some(link);
            }
            kept.links.pop();
            return None;
        }
        while let Some(link) = kept.links.pop() {
            if link.is_ready() {
                return Some(link);
            }
        }
        None
    }

    /// Keeps one for a next request, if there is room.
    pub(super) fn keep(pool: &Arc<Pool>, backend: &Arc<Backend>, link: HttpLink) {
        KEPT.with(|kept| kept.put(pool, backend, link));
    }

    /// Keeps those of this backend for no further request: one of them does not answer.
    pub(super) fn forget(backend: &Arc<Backend>) {
        KEPT.with(|kept| drop(kept.backends.borrow_mut().remove(&backend.id())));
    }

    fn put(self: &Rc<Self>, pool: &Arc<Pool>, backend: &Arc<Backend>, mut link: HttpLink) {
        let settings = backend.settings();
        let most = settings.http.idle_connections as usize;
        if most == 0 || !may_share(backend) || backend.is_leaving() || !link.is_ready() {
            return;
        }
        link.touch();
        let mut backends = self.backends.borrow_mut();
        let kept = backends.entry(backend.id()).or_insert_with(|| KeptOfBackend {
            pool: Arc::clone(pool),
            backend: Arc::clone(backend),
            links: Vec::new(),
        });
        if !kept.fits(settings) {
            kept.links.clear();
        }
        kept.backend = Arc::clone(backend);
        let most = if settings.http.version == HttpVersion::Http2 { 1 } else { most };
        if kept.links.len() < most {
            kept.links.push(link);
        }
        drop(backends);
        if !self.is_swept.replace(true) {
            let kept = Rc::clone(self);
            worker::spawn(async move {
                while kept.sweep() {
                    worker::sleep_until(worker::now() + SWEEP).await;
                }
                kept.is_swept.set(false);
            });
        }
    }

    /// Closes those that are of no use any more. Returns whether there are others.
    fn sweep(&self) -> bool {
        let now = worker::now();
        let mut backends = self.backends.borrow_mut();
        backends.retain(|id, kept| {
            // As it is configured now: it may have left the pool.
            let Some(backend) = kept.pool.backend(*id).filter(|backend| backend.is_up() && !backend.is_leaving())
            else {
                return false;
            };
            if !kept.fits(backend.settings()) {
                return false;
            }
            let is_old = |link: &HttpLink| {
                let idle = link.idle_since().map(|since| now.saturating_duration_since(since));
                idle.zip(backend.settings().http.idle_timeout).is_some_and(|(idle, most)| idle >= most)
            };
            kept.links.retain(|link| link.is_ready() && !is_old(link));
            !kept.links.is_empty()
        });
        !backends.is_empty()
    }

    /// Closes those of this worker. Called at the end of its thread.
    pub(in crate::server) fn release() {
        KEPT.with(|kept| drop(kept.backends.take()));
    }
}

/// Whether different clients may share connections: not where each begins with what is said of one client.
fn may_share(backend: &Backend) -> bool {
    let settings = backend.settings();
    let takes_clients_name = settings.tls.as_ref().is_some_and(|tls| tls.server_name == NameSource::Client);
    settings.send_proxy.is_none() && !takes_clients_name && !backend.configured_address().has_client_port()
}

/// The idle connections for one request.
pub(super) struct ReuseKept {
    /// Whether a new connection is wanted: another request has found an idle one closed.
    pub(super) fresh: bool,
}

impl Reuse for ReuseKept {
    type Kept = HttpLink;

    fn take(&self, backend: &Arc<Backend>) -> Option<HttpLink> {
        if self.fresh { None } else { KEPT.with(|kept| kept.take(backend)) }
    }
}
