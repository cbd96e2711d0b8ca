//! Bytes sent, and bytes that the answer must begin with.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::{Failure, quoted};
use super::tcp::Connection;

/// Passes once the answer has begun with `expect`; fails at the first byte that is another one, or when the answer ends too soon. Reads no
/// more than a little over `expect`, whatever is sent.
pub(super) async fn probe(mut connection: Connection, send: &[u8], expect: &[u8]) -> Result<(), Failure> {
    match connection.write_all(send).await {
        // Closed already; what was said before that tells more.
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
            return Err(Failure::Theirs(format!("answer begins with {got} instead of {wanted}")));
        }
        if count == 0 {
            return Err(if answer.is_empty() {
                Failure::no_answer()
            } else {
                let (got, wanted) = (quoted(&answer), quoted(expect));
                Failure::Theirs(format!("answer ends after {got}, expected {wanted}"))
            });
        }
    }
}
