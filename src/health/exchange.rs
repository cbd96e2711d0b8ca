//! The exchange check: sends bytes, and expects a beginning of the answer.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::{ProbeFailure, quoted};
use super::tcp::Connection;

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
