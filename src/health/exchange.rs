//! The exchange check: sends bytes, and expects a beginning of the answer.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::{ProbeFailure, quoted};
use super::tcp::Connection;
use crate::net::addr::Address;
use crate::net::dial;

/// Passes once the answer begins with `expect`; fails at the first different byte, or when the answer ends early. Reads at
/// most 255 bytes more than `expect` has.
pub(super) async fn probe(mut connection: Connection, send: &[u8], expect: &[u8]) -> Result<(), ProbeFailure> {
    match connection.write_all(send).await {
        // Closed already: what the backend sent before says more.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        sent => sent?,
    }

    let mut answer = Vec::new();
    let mut part = [0; 256];
    loop {
        let count = connection.read(&mut part).await?;
        answer.extend_from_slice(&part[..count]);
        if answer.starts_with(expect) {
            return Ok(());
        }
        if !expect.starts_with(&answer) {
            let (got, wanted) = (quoted(&answer), quoted(expect));
            return Err(ProbeFailure::Backend(format!("answer begins with {got} instead of {wanted}")));
        }
        if count == 0 {
            return Err(if answer.is_empty() {
                ProbeFailure::no_answer()
            } else {
                let (got, wanted) = (quoted(&answer), quoted(expect));
                ProbeFailure::Backend(format!("answer ends after {got}, expected {wanted}"))
            });
        }
    }
}

/// The same with a datagram, and one in answer: passes if that begins with `expect`. What is lost is not sent again: `fall` is for that.
pub(super) async fn datagrams(
    to: &Address,
    from: Option<IpAddr>,
    send: &[u8],
    expect: &[u8],
) -> Result<(), ProbeFailure> {
    let Address::Tcp(to) = to else {
        return Err(ProbeFailure::backend("a unix socket takes no datagrams"));
    };
    let socket = dial::datagrams(*to, from).map_err(|error| ProbeFailure::of(error.call)(error.errno.into()))?;
    let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
    socket.send(send).await?;
    let mut answer = vec![0; 65_536];
    let count = socket.recv(&mut answer).await?;
    let answer = &answer[..count];
    if answer.starts_with(expect) {
        return Ok(());
    }
    let (got, wanted) = (quoted(&answer[..count.min(expect.len() + 32)]), quoted(expect));
    Err(ProbeFailure::Backend(format!("answer begins with {got} instead of {wanted}")))
}
