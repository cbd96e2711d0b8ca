//! The connect, which is all of a `tcp` check and the beginning of every other.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, UnixStream};

use super::failure::ProbeFailure;
use crate::net::addr::Address;
use crate::net::dial;
use crate::net::errno::Call;
use crate::net::sys;

/// A connection to a backend, over TCP or a unix socket. Dynamic: a probe every few seconds is no hot path.
///
/// Closed by FIN, not by RST (SO_LINGER 0), though FIN leaves a socket in TIME_WAIT. Servers log a reset as an error:
/// PostgreSQL writes "could not receive data from client: Connection reset by peer", MySQL adds to `max_connect_errors`.
/// Most accept a close without a byte silently.
pub(super) type Connection = Box<dyn ProbeStream>;

pub(super) trait ProbeStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ProbeStream for S {}

/// Passes once connected.
pub(super) async fn connect(to: &Address, from: Option<IpAddr>) -> Result<Connection, ProbeFailure> {
    Ok(match to {
        Address::Tcp(remote) => {
            let socket = match remote {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }
            .map_err(ProbeFailure::of(Call::Socket))?;
            if let Some(local) = from {
                // connect(2) chooses the port then, among those that are free towards this destination.
                sys::set_option(&socket, sys::IP_BIND_ADDRESS_NO_PORT, 1).map_err(ProbeFailure::of(Call::Option))?;
                socket.bind(SocketAddr::new(local, 0)).map_err(ProbeFailure::of(Call::Bind))?;
            }
            let stream = socket.connect(*remote).await.map_err(ProbeFailure::of(Call::Connect))?;
            dial::refuse_self_connect(&stream, remote.port())?;
            Box::new(stream)
        }
        Address::Unix(path) => {
            Box::new(UnixStream::connect(path.as_path()).await.map_err(ProbeFailure::of(Call::Connect))?)
        }
    })
}
