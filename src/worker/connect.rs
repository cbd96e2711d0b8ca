//! The end of a connect that [`net::dial`](crate::net::dial) has started.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::deadline::until;
use super::socket::{Socket, Transport};
use crate::net::addr::Address;
use crate::net::dial;
use crate::net::errno::Call;

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The deadline has passed.
    TimedOut,
    /// A system call, or the connect itself, has failed.
    Failed(Call, io::Error),
}

/// Waits until the connect of `fd` to `address` has ended.
///
/// # Errors
/// It has failed or met itself, or `deadline` has passed.
pub async fn connect(
    fd: OwnedFd,
    address: &Address,
    transport: Transport,
    deadline: Instant,
) -> Result<Socket, ConnectError> {
    let of = |call| move |error: io::Error| ConnectError::Failed(call, error);
    let socket = Socket::new(fd, transport).map_err(of(Call::Event))?;
    let connected = until(Some(deadline), socket.connected()).await;
    connected.ok_or(ConnectError::TimedOut)?.map_err(of(Call::Connect))?;
    if let Address::Tcp(address) = address {
        dial::refuse_self_connect(&socket, address.port()).map_err(of(Call::Connect))?;
    }
    Ok(socket)
}
