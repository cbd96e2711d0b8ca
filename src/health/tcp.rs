//! The plainest check: something takes the connection.
//!
//! Also where all checks connect.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, UnixStream};

use super::failure::Failure;
use crate::net::addr::Address;
use crate::net::dial;
use crate::net::errno::Call;
use crate::net::sys;

/// A connection to a backend, whatever its kind. Dynamic, because a probe every few seconds is no hot path.
///
/// It is closed as any client would close it. A reset (linger 0) would spare us a socket in TIME_WAIT every few seconds,
/// but servers log a reset as an error, and some count it against the client: PostgreSQL writes "could not receive data from client:
/// Connection reset by peer", MySQL adds to `max_connect_errors`. On a plain close after no byte at all most of them say nothing.
pub(super) type Connection = Box<dyn Stream>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Passes once connected.
pub(super) async fn connect(to: &Address, from: Option<IpAddr>) -> Result<Connection, Failure> {
    Ok(match to {
        Address::Tcp(remote) => {
            let socket = match remote {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }
            .map_err(Failure::of(Call::Socket))?;
            if let Some(local) = from {
                // connect(2) chooses the port then, among those that are free towards this destination.
                sys::set_option(&socket, sys::IP_BIND_ADDRESS_NO_PORT, 1).map_err(Failure::of(Call::Option))?;
                socket.bind(SocketAddr::new(local, 0)).map_err(Failure::of(Call::Bind))?;
            }
            let stream = socket.connect(*remote).await.map_err(Failure::of(Call::Connect))?;
            dial::refuse_self_connect(&stream)?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path.as_path()).await.map_err(Failure::of(Call::Connect))?),
    })
}
