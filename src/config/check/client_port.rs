//! Backends whose port is that which the client connected to.

use super::{Checker, value};
use crate::config::located::Located;
use crate::config::model::{ListenerConfig, PoolConfig, PoolIndex};
use crate::config::raw::RawPool;
use crate::config::report::{Diagnostic, shown};

impl Checker<'_> {
    /// Refuses them behind unix sockets, whose clients connect to no port.
    pub(super) fn client_ports(
        &mut self,
        listeners: &[ListenerConfig],
        pools: &[PoolConfig],
        raw: Option<&Located<Vec<Located<RawPool>>>>,
    ) {
        let raw = value(raw).map_or(&[][..], |(pools, _)| pools);
        for (index, (pool, raw)) in pools.iter().zip(raw).enumerate() {
            let takes_it = pool.backends.iter().position(|backend| backend.address.has_client_port());
            let leads_here = |listener: &&ListenerConfig| {
                let is_unix = listener.bind.iter().any(|bind| bind.ports().is_none());
                is_unix && listener.pools().any(|pool| pool == PoolIndex(index))
            };
            let (Some(place), Some(listener)) = (takes_it, listeners.iter().find(leads_here)) else { continue };
            let backends = value(Some(raw)).and_then(|(pool, _)| value(pool.backends.as_ref()));
            let Some(backend) = backends.and_then(|(list, _)| value(list.get(place))) else { continue };
            let at = backend.0.address.as_ref().map_or(backend.1, |address| address.at);
            let name = shown(&listener.name).to_string();
            let diagnostic =
                Diagnostic::new(format!("clients of the unix socket of listener `{name}` connect to no port"));
            self.error(at, diagnostic.hint("write the backend's port, or give that listener another pool"));
        }
    }
}
