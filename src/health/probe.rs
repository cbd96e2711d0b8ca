//! One probe of one server: connect, PROXY header, TLS, the check itself.

use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use tokio::io::AsyncWriteExt;
use tokio::time;

use super::database::{self, DatabaseShared};
use super::failure::ProbeFailure;
use super::observation::{Observation, Questions};
use super::roles::PoolRoles;
use super::shared::{ProbeKey, SharedProbes};
use super::tcp::Connection;
use super::transport::{BackendTls, request_postgres, unverified};
use super::{exchange, http, tcp};
use crate::config::model::{self, Health, HealthCheck, SendProxy, StartTls};
use crate::net::addr::Address;
use crate::pool::{Backend, Pool};
use crate::sniff::proxy_protocol::Outgoing;
use crate::tls::Connector;

/// What the checks of a pool share.
pub(super) struct CheckContext {
    connector: ArcSwapOption<Connector>,
    /// For checks by TLS in a pool that has none.
    unverified: OnceLock<Arc<Connector>>,
    database: DatabaseShared,
    pub(super) roles: PoolRoles,
    /// Of all pools.
    pub(super) shared: SharedProbes,
}

impl CheckContext {
    pub(super) fn new(
        connector: Option<Arc<Connector>>,
        database: DatabaseShared,
        shared: SharedProbes,
    ) -> CheckContext {
        let connector = ArcSwapOption::from(connector);
        CheckContext { connector, unverified: OnceLock::new(), database, roles: PoolRoles::default(), shared }
    }

    pub(super) fn set_connector(&self, connector: Option<Arc<Connector>>) {
        self.connector.store(connector);
    }
}

/// A probe of a backend.
pub(super) struct Probe<'a> {
    pub(super) pool: &'a Pool,
    pub(super) context: &'a CheckContext,
    pub(super) settings: &'a model::PoolConfig,
    pub(super) health: &'a Health,
    pub(super) backend: &'a Backend,
}

impl Probe<'_> {
    /// Probes, with one time limit for all of it.
    pub(super) async fn run(&self, own: &Address, questions: Questions) -> Result<Observation, ProbeFailure> {
        let probed = time::timeout(self.health.timeout, self.probe(own, questions)).await;
        probed.unwrap_or_else(|_| Err(ProbeFailure::timed_out(self.health.timeout)))
    }

    /// What tells this check from others.
    pub(super) fn key(&self, own: &Address) -> Result<ProbeKey, ProbeFailure> {
        let address = self.probed(own).ok_or_else(no_port)?;
        Ok(ProbeKey {
            configured: self.backend.configured_address().clone(),
            check: self.health.check.without_role(),
            has_port: self.health.port.is_some(),
            timeout: self.health.timeout,
            by_datagrams: self.health.by_datagrams,
            send_proxy: self.send_proxy(own, &address),
            source: self.settings.source.clone(),
            tls: self.settings.tls.clone(),
            address,
        })
    }

    /// `health.port` is another service, which expects no PROXY header.
    fn send_proxy(&self, own: &Address, probed: &Address) -> Option<SendProxy> {
        self.settings.send_proxy.filter(|_| own == probed)
    }

    async fn probe(&self, own: &Address, questions: Questions) -> Result<Observation, ProbeFailure> {
        let address = self.probed(own).ok_or_else(no_port)?;
        let source = self.pool.source(self.settings, &address);
        if let (HealthCheck::Exchange { send, expect }, true) = (&self.health.check, self.health.by_datagrams) {
            let header = self.send_proxy(own, &address).map(|_| header(SendProxy::V2)).unwrap_or_default();
            exchange::datagrams(&address, source, &[&header[..], send.reveal()].concat(), expect.reveal()).await?;
            return Ok(Observation::default());
        }
        let mut connection = tcp::connect(&address, source).await?;
        if let Some(version) = self.send_proxy(own, &address) {
            match connection.write_all(&header(version)).await {
                // Closed already: what the backend sent before says more.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
                sent => sent?,
            }
        }
        match &self.health.check {
            HealthCheck::Tcp => {}
            HealthCheck::Http(check) => {
                if check.tls.unwrap_or_else(|| self.begins_with_tls()) {
                    let has_alpn = self.settings.tls.as_ref().is_some_and(|tls| !tls.alpn.is_empty());
                    let protocols = if has_alpn { vec![b"http/1.1".to_vec()] } else { Vec::new() };
                    let connector = self.connector_or_any()?;
                    connection = self.tls(&connector, None).start_with(connection, protocols).await?;
                }
                let host = http::host(check, self.backend.configured_address(), &address);
                http::probe(connection, &host, check).await?;
            }
            HealthCheck::Exchange { send, expect } => {
                if self.begins_with_tls() {
                    connection = self.secure(connection).await?;
                }
                exchange::probe(connection, send.reveal(), expect.reveal()).await?;
            }
            HealthCheck::Tls { server_name } => {
                let connector = self.connector_or_any()?;
                let tls = self.tls(&connector, server_name.as_deref());
                if self.starttls() == Some(StartTls::Mysql) {
                    let is_unix = matches!(address, Address::Unix(_));
                    return database::mysql_tls(connection, tls, is_unix, &self.context.database).await;
                }
                self.request_tls(&mut connection).await?;
                let mut stream = tls.start(connection).await?;
                // The handshake is what is checked.
                let _ = stream.shutdown().await;
            }
            HealthCheck::Postgres(check) => {
                let connection = self.secure(connection).await?;
                let (is_private, shared) = (self.is_private(&address), &self.context.database);
                return database::postgres(connection, is_private, check, questions, shared).await;
            }
            HealthCheck::Mysql(check) => {
                let connector = self.connector()?;
                let tls = connector.as_deref().map(|connector| self.tls(connector, None));
                let is_unix = matches!(address, Address::Unix(_));
                return database::mysql(connection, tls, is_unix, check, questions, &self.context.database).await;
            }
            HealthCheck::Redis(check) => {
                let connection = self.secure(connection).await?;
                return database::redis(connection, check, questions, &self.context.database).await;
            }
        }
        Ok(Observation::default())
    }

    /// TLS as the pool has it, after the protocol's own request for it.
    async fn secure(&self, mut connection: Connection) -> Result<Connection, ProbeFailure> {
        let Some(connector) = self.connector()? else { return Ok(connection) };
        self.request_tls(&mut connection).await?;
        self.tls(&connector, None).start(connection).await
    }

    /// The protocol's own request for TLS, where the pool has one.
    async fn request_tls(&self, connection: &mut Connection) -> Result<(), ProbeFailure> {
        match self.starttls() {
            Some(StartTls::Postgres) => request_postgres(connection).await,
            // The configuration has no other check by MySQL's TLS than those which log in.
            Some(StartTls::Mysql) | None => Ok(()),
        }
    }

    fn starttls(&self) -> Option<StartTls> {
        self.settings.tls.as_ref().and_then(|rules| rules.starttls)
    }

    fn tls<'s>(&'s self, connector: &'s Connector, server_name: Option<&'s str>) -> BackendTls<'s> {
        BackendTls { connector, backend: self.backend, server_name }
    }

    /// Whether connections to the port that is checked begin with TLS.
    fn begins_with_tls(&self) -> bool {
        let is_direct = self.settings.tls.as_ref().is_some_and(|tls| tls.starttls.is_none());
        is_direct && self.health.port.is_none()
    }

    /// TLS of the pool, or if it has none, one that accepts every certificate.
    fn connector_or_any(&self) -> Result<Arc<Connector>, ProbeFailure> {
        match self.connector()? {
            Some(connector) => Ok(connector),
            None => match self.context.unverified.get() {
                Some(connector) => Ok(Arc::clone(connector)),
                None => {
                    let connector = Arc::new(unverified(self.pool.name())?);
                    Ok(Arc::clone(self.context.unverified.get_or_init(|| connector)))
                }
            },
        }
    }

    /// TLS of the pool; `None` if it has none.
    fn connector(&self) -> Result<Option<Arc<Connector>>, ProbeFailure> {
        // A reload replaces it a moment before the settings.
        let connector = || {
            let replaced = || ProbeFailure::Local("TLS of the pool is being replaced".to_owned());
            self.context.connector.load_full().ok_or_else(replaced)
        };
        self.settings.tls.as_ref().map(|_| connector()).transpose()
    }

    /// Whether no third party can read what is sent.
    fn is_private(&self, address: &Address) -> bool {
        self.settings.tls.is_some() || matches!(address, Address::Unix(_))
    }

    /// `None` if neither the backend nor its check has a port.
    fn probed(&self, address: &Address) -> Option<Address> {
        match (address, self.health.port) {
            (Address::Tcp(address), Some(port)) => {
                let mut address = *address;
                address.set_port(port);
                Some(Address::Tcp(address))
            }
            _ => address.for_client(|| None),
        }
    }
}

/// Changes at run time can lead to this.
fn no_port() -> ProbeFailure {
    ProbeFailure::backend("it takes the port that the client connected to: set health.port to one to be checked")
}

/// The PROXY header of a connection that is tidegate's own: UNKNOWN, or LOCAL.
fn header(version: SendProxy) -> Vec<u8> {
    let own = Outgoing::default();
    match version {
        SendProxy::V1 => own.v1(),
        SendProxy::V2 => own.v2(),
    }
}
