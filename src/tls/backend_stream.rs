//! TLS to backends over streams of tokio's, for health checks.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::connector::{BackendName, Connector};
use super::stream::HandshakeError;

impl Connector {
    /// Completes a handshake with a backend that must be `name`, offering these protocols (ALPN). The caller bounds its time.
    ///
    /// # Errors
    /// Those of [`HandshakeError`].
    pub async fn connect_stream<S>(
        &self,
        stream: S,
        name: BackendName,
        protocols: Vec<Vec<u8>>,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (config, verified) = self.config(protocols);
        let stream = TlsConnector::from(config).connect(name.0, stream).await.map_err(failure)?;
        verified.established(stream.get_ref().1);
        Ok(stream)
    }
}

fn failure(error: io::Error) -> HandshakeError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => HandshakeError::Tls(inner.clone().into()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => HandshakeError::Left,
        None => HandshakeError::Io(error),
    }
}
