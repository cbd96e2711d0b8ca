//! TLS of a configuration: what its files hold, put in service.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::Config;
use crate::pool::Pool;
use crate::server::Upstream;
use crate::stats::registry::PoolId;
use crate::tls::{Acceptor, Connector};

/// What listeners and pools speak TLS by.
pub(super) struct Secured {
    /// Of each listener.
    pub(super) servers: Vec<Option<Arc<Acceptor>>>,
    /// Of the pools that have one.
    pub(super) clients: Vec<Arc<Connector>>,
    /// Of the same pools.
    pub(super) upstreams: HashMap<PoolId, Upstream>,
}

impl Secured {
    /// Reads every file.
    ///
    /// # Errors
    /// What is wrong with them, each with its listener or pool.
    pub(super) fn load(config: &Config, pools: &[Arc<Pool>]) -> Result<Secured, Vec<String>> {
        let mut errors = Vec::new();
        let mut secured = Secured { servers: Vec::new(), clients: Vec::new(), upstreams: HashMap::new() };
        for listener in &config.listeners {
            let server = listener.tls.as_ref().map(|tls| Acceptor::new(&listener.name, tls)).transpose();
            let server = server.unwrap_or_else(|error| {
                errors.push(format!("listener {}: {error}", listener.name));
                None
            });
            secured.servers.push(server.map(Arc::new));
        }
        for pool in pools {
            let settings = pool.settings();
            let mut load = || {
                let Some(tls) = &settings.tls else { return Ok(None) };
                let client = Arc::new(Connector::new(pool.name(), tls).map_err(|error| error.to_string())?);
                secured.clients.push(Arc::clone(&client));
                Upstream::new(client, &settings).map(Some)
            };
            let upstream = load().unwrap_or_else(|error| {
                errors.push(format!("pool {}: {error}", pool.name()));
                None
            });
            secured.upstreams.extend(upstream.map(|upstream| (pool.id(), upstream)));
        }
        if errors.is_empty() { Ok(secured) } else { Err(errors) }
    }
}
