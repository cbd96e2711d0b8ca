//! One probe of one backend: connect, PROXY header, TLS, the check itself.

use std::io::ErrorKind;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::io::AsyncWriteExt;
use tokio::time;
use tracing::{info, warn};

use super::database::{self, Checked, DatabaseShared};
use super::failure::ProbeFailure;
use super::tcp::Connection;
use super::transport::{BackendTls, request_postgres};
use super::{exchange, http, tcp};
use crate::config::model::{self, Health, HealthCheck, SendProxy, StartTls};
use crate::net::addr::Address;
use crate::pool::{Backend, Pool};
use crate::sniff::proxy_protocol::Outgoing;
use crate::stats::database::{DatabaseState, ServerRole};
use crate::tls::Connector;

/// What the checks of a pool share.
pub(super) struct CheckContext {
    connector: ArcSwapOption<Connector>,
    database: DatabaseShared,
}

impl CheckContext {
    pub(super) fn new(connector: Option<Arc<Connector>>, database: DatabaseShared) -> CheckContext {
        CheckContext { connector: ArcSwapOption::from(connector), database }
    }

    pub(super) fn set_connector(&self, connector: Option<Arc<Connector>>) {
        self.connector.store(connector);
    }
}

/// One probe of one backend.
pub(super) struct Probe<'a> {
    pub(super) pool: &'a Pool,
    pub(super) context: &'a CheckContext,
    pub(super) settings: &'a model::PoolConfig,
    pub(super) health: &'a Health,
    pub(super) backend: &'a Backend,
}

impl Probe<'_> {
    /// Probes, and records what a database says of itself.
    pub(super) async fn run(&self) -> Result<(), ProbeFailure> {
        let Some(address) = self.backend.address() else { return Err(self.no_address()) };
        let probed = time::timeout(self.health.timeout, self.probe(address)).await;
        let probed = probed.unwrap_or_else(|_| Err(ProbeFailure::timed_out(self.health.timeout)));
        match probed {
            Ok(checked) => {
                self.record(checked.state);
                checked.verdict
            }
            // Not its role any more, as far as anybody knows.
            Err(failure @ ProbeFailure::Backend(_)) => {
                self.backend.set_database(None);
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    fn record(&self, state: Option<DatabaseState>) {
        let role = |state: Option<DatabaseState>| state.and_then(|state| state.role);
        let before = self.backend.set_database(state);
        if let (Some(before), Some(role)) = (role(before), role(state))
            && before != role
        {
            let (pool, backend, role) = (self.pool.name(), self.backend.name(), role.name());
            info!(%pool, %backend, role, before = before.name(), "role of the backend has changed");
        }
        if role(state) == Some(ServerRole::Primary) && role(before) != Some(ServerRole::Primary) {
            self.warn_of_two_primaries();
        }
    }

    /// After a failover the old primary goes on for a while, or for good if nothing fences it.
    fn warn_of_two_primaries(&self) {
        let is_primary = |it: &Backend| it.database().and_then(|state| state.role) == Some(ServerRole::Primary);
        for other in self.pool.backends().iter().filter(|other| other.id() != self.backend.id() && is_primary(other)) {
            let (pool, backend, other) = (self.pool.name(), self.backend.name(), other.name());
            warn!(%pool, %backend, %other, "two primaries: both backends state that they are one");
        }
    }

    fn no_address(&self) -> ProbeFailure {
        match self.backend.status().reason {
            Some(why) => ProbeFailure::backend(&*why),
            None => ProbeFailure::backend("name is not resolved yet"),
        }
    }

    async fn probe(&self, own: &Address) -> Result<Checked, ProbeFailure> {
        let address = self.probed(own).ok_or_else(no_port)?;
        let source = self.pool.source(self.settings, &address);
        let mut connection = tcp::connect(&address, source).await?;
        // `health.port` is another service, which expects no PROXY header.
        if let Some(version) = self.settings.send_proxy.filter(|_| address == *own) {
            match connection.write_all(&header(version)).await {
                // Closed already: what the backend sent before says more.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
                sent => sent?,
            }
        }
        match &self.health.check {
            HealthCheck::Tcp => {}
            HealthCheck::Http(check) => {
                let host = http::host(check, self.backend.configured_address(), &address);
                http::probe(connection, &host, check).await?;
            }
            HealthCheck::Exchange { send, expect } => {
                exchange::probe(connection, send.reveal(), expect.reveal()).await?;
            }
            HealthCheck::Postgres(check) => {
                let connection = self.secure(connection).await?;
                return database::postgres(connection, self.is_private(&address), check, &self.context.database).await;
            }
            HealthCheck::Redis(check) => {
                let connection = self.secure(connection).await?;
                return database::redis(connection, check, &self.context.database).await;
            }
        }
        Ok(Checked { state: None, verdict: Ok(()) })
    }

    /// TLS as the pool has it, after the protocol's own request for it.
    async fn secure(&self, mut connection: Connection) -> Result<Connection, ProbeFailure> {
        let connector = self.context.connector.load_full();
        let Some(rules) = &self.settings.tls else { return Ok(connection) };
        // A reload replaces it a moment before the settings.
        let connector = connector.ok_or_else(|| ProbeFailure::Local("TLS of the pool is being replaced".to_owned()))?;
        match rules.starttls {
            Some(StartTls::Postgres) => request_postgres(&mut connection).await?,
            None => {}
        }
        BackendTls { connector: &connector, backend: self.backend }.start(connection).await
    }

    /// Whether nobody between can read what is sent.
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
