//! TLS of health checks: by the rules of the pool, as connections of clients get it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::ProbeFailure;
use super::tcp::Connection;
use crate::config::model::{Authorities, NameSource, PoolTls, Verify};
use crate::pool::Backend;
use crate::sniff::postgres;
use crate::tls::{BackendName, Connector, HandshakeError};

/// TLS to one backend.
#[derive(Clone, Copy)]
pub(super) struct BackendTls<'a> {
    pub(super) connector: &'a Connector,
    pub(super) backend: &'a Backend,
    /// Instead of the name by which the pool verifies it.
    pub(super) server_name: Option<&'a str>,
}

/// Rules of checks in pools without TLS, whose clients verify their servers themselves: every certificate is accepted.
pub(super) fn unverified(pool: &str) -> Result<Connector, ProbeFailure> {
    let rules = PoolTls {
        verify: Verify::Off,
        ca: Authorities::System,
        server_name: NameSource::Backend,
        alpn: Vec::new(),
        client_certificate: None,
        starttls: None,
        resumption: false,
    };
    Connector::new(pool, &rules).map_err(|error| ProbeFailure::Local(error.to_string()))
}

impl BackendTls<'_> {
    /// Completes a handshake, offering the protocols of the pool (ALPN).
    pub(super) async fn start(self, connection: Connection) -> Result<Connection, ProbeFailure> {
        let alpn = self.backend.settings().tls.as_ref().map_or(&[][..], |tls| &tls.alpn);
        self.start_with(connection, alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()).await
    }

    /// Completes a handshake, offering these protocols.
    pub(super) async fn start_with(
        self,
        connection: Connection,
        protocols: Vec<Vec<u8>>,
    ) -> Result<Connection, ProbeFailure> {
        let name = match self.server_name {
            Some(name) => BackendName::parse(name).ok_or_else(|| {
                ProbeFailure::Backend(format!("{} is no name that a certificate could be for", name.escape_debug()))
            })?,
            None => self.connector.backend_name(self.backend.configured_address()).map_err(ProbeFailure::Backend)?,
        };
        match self.connector.connect_stream(connection, name, protocols).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(HandshakeError::Io(error)) => Err(error.into()),
            Err(HandshakeError::Left) => Err(ProbeFailure::backend("closed the connection instead of a TLS handshake")),
            Err(HandshakeError::Tls(error)) => {
                let remedy = error.remedy("the pool's tls.ca").map(|remedy| format!("; {remedy}")).unwrap_or_default();
                Err(ProbeFailure::Backend(format!("TLS handshake failed: {error}{remedy}")))
            }
        }
    }
}

/// PostgreSQL's own request for TLS. One byte of the answer is read: what comes after it is TLS, or an error.
pub(super) async fn request_postgres(connection: &mut Connection) -> Result<(), ProbeFailure> {
    connection.write_all(&postgres::SSL_REQUEST).await?;
    match connection.read_u8().await? {
        postgres::ACCEPT_TLS => Ok(()),
        postgres::REFUSE => Err(ProbeFailure::backend("refuses TLS (PostgreSQL: ssl = off)")),
        // Its text is not read: a man in the middle could have put it there (CVE-2024-10977).
        b'E' => Err(ProbeFailure::backend(
            "answers the request for TLS by an error, as PostgreSQL does when it cannot start a process for it",
        )),
        byte => Err(ProbeFailure::Backend(format!(
            "answers the request for TLS by byte 0x{byte:02x}, as PostgreSQL never does"
        ))),
    }
}
