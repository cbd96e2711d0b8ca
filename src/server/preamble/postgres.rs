//! PostgreSQL's own request for TLS, answered.

use crate::config::model::{ListenerTls, Plaintext};
use crate::net::addr::ClientAddr;
use crate::server::lingering_close::{LingerLimit, lingering_close};
use crate::server::listener::Listener;
use crate::server::peek::{Peek, write_all};
use crate::sniff::postgres::{self, Opening};
use crate::stats::termination::Termination;
use crate::worker::Socket;

/// How a PostgreSQL client begins.
pub(super) enum Asked {
    /// With an SSLRequest, which was accepted.
    Tls,
    /// With TLS at once (PostgreSQL 17).
    Directly,
    /// In plain text, as the listener allows.
    InPlain,
    /// With a CancelRequest of this length, in plain text, where sessions may not be.
    Cancel(usize),
}

/// Whether clients may have sessions in plain text.
///
/// Where they must show a certificate, `check` warns that `plaintext: allow` lets a StartupMessage in without one. That is
/// no reason to let a CancelRequest be more than it is.
fn allows_plain_sessions(rules: &ListenerTls) -> bool {
    rules.plaintext == Plaintext::Allow && rules.client_auth.as_ref().is_none_or(|auth| !auth.is_required())
}

/// Answers a PostgreSQL client until it begins in earnest.
pub(super) async fn begin(
    listener: &Listener,
    rules: &ListenerTls,
    client: ClientAddr,
    peek: &mut Peek<'_, Socket>,
) -> Result<Asked, Termination> {
    let mut gss_refused = false;
    loop {
        match peek.until(postgres::MAX_STARTUP_PACKET, postgres::recognise).await? {
            Ok(Opening::SslRequest) => {
                peek.take_off(postgres::SSL_REQUEST.len());
                if !peek.bytes().is_empty() {
                    // A man in the middle could have put them there (CVE-2021-23214).
                    listener.log_refusal(client, &"sends unencrypted data after its SSLRequest");
                    let words = postgres::error_response("08P01", "unencrypted data after the SSL request", None);
                    lingering_close(peek.stream(), &words, LingerLimit::SHORT).await;
                    return Err(Termination::NotTls);
                }
                answer(peek, postgres::ACCEPT_TLS).await?;
                return Ok(Asked::Tls);
            }
            // Again and again, each would cost an answer, and nothing would bound it.
            Ok(Opening::GssEncRequest) if gss_refused => {
                listener.log_refusal(client, &"asks for GSSAPI encryption again, which was refused");
                return Err(Termination::NotTls);
            }
            // What follows is held to the same rules as without this request.
            Ok(Opening::GssEncRequest) => {
                gss_refused = true;
                peek.take_off(postgres::SSL_REQUEST.len());
                answer(peek, postgres::REFUSE).await?;
            }
            Ok(Opening::DirectTls) => return Ok(Asked::Directly),
            // Clients before PostgreSQL 17 cancel in plain text, whatever the connection used.
            Ok(Opening::Cancel { .. }) if allows_plain_sessions(rules) => return Ok(Asked::InPlain),
            Ok(Opening::Cancel { length }) => return Ok(Asked::Cancel(length)),
            Ok(Opening::Startup { .. }) if rules.plaintext == Plaintext::Allow => return Ok(Asked::InPlain),
            Ok(Opening::Startup { .. }) => {
                listener.log_refusal(client, &"asks for no TLS, on a listener that wants it (tls.plaintext: refuse)");
                let words = postgres::error_response(
                    "28000",
                    "this server takes encrypted connections only",
                    Some("Connect with sslmode=require or stronger."),
                );
                lingering_close(peek.stream(), &words, LingerLimit::SHORT).await;
                return Err(Termination::NotTls);
            }
            Err(why) => {
                listener.log_refusal(client, &why);
                return Err(Termination::NotTls);
            }
        }
    }
}

async fn answer(peek: &Peek<'_, Socket>, byte: u8) -> Result<(), Termination> {
    write_all(peek.stream(), &[byte]).await.map_err(|_| Termination::ClientLeft)
}
