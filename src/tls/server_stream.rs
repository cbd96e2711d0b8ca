//! TLS of the admin interface, over streams of tokio's.

use std::io;

use rustls::server::Acceptor as HelloAcceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;

use super::acceptor::Acceptor;
use super::alert::Alert;
use super::explain::TlsError;

/// A handshake that has failed.
#[derive(Debug)]
pub struct FailedHandshake<S> {
    /// In words; `None` if the client only went away.
    pub reason: Option<String>,
    /// The connection, to be closed so that the client reads the alert.
    pub stream: Option<S>,
}

impl Acceptor {
    /// Completes a handshake with a client. The caller bounds its time.
    ///
    /// # Errors
    /// See [`FailedHandshake`].
    pub async fn handshake<S>(
        &self,
        stream: S,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<S>, FailedHandshake<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = LazyConfigAcceptor::new(HelloAcceptor::default(), stream);
        let mut start = match (&mut hello).await {
            Ok(start) => start,
            Err(error) => return Err(FailedHandshake { reason: reason(&error), stream: hello.take_io() }),
        };
        if self.rejects_name(start.client_hello().server_name()) {
            let _ = start.io.write_all(&Alert::UnrecognizedName.record()).await;
            let reason = Some("no certificate for the server name (SNI)".to_owned());
            return Err(FailedHandshake { reason, stream: Some(start.io) });
        }
        let config = match self.server_config() {
            Ok(config) => config,
            Err(error) => return Err(FailedHandshake { reason: Some(error.to_string()), stream: Some(start.io) }),
        };
        match start.into_stream(config).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => Err(FailedHandshake { reason: reason(&error), stream: Some(stream) }),
        }
    }
}

/// What failed, in words.
fn reason(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(TlsError::from(error.clone()).to_string())
}
