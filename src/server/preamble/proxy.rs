//! PROXY headers: taken off where the peer is trusted, refused where it is not.

use crate::config::model::ProxyProtocol;
use crate::net::addr::ClientAddr;
use crate::server::connection::Preamble;
use crate::server::listener::Listener;
use crate::server::peek::{Peek, PeekError};
use crate::server::screened::UNTRUSTED_HEADER;
use crate::sniff::proxy_protocol::{self, Addresses, HeaderError, ParsedHeader, ReceivedTlvs};
use crate::stats::termination::Termination;
use crate::worker::Socket;

/// What became of a peer that may or may not send a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerKind {
    /// Its first bytes are known, and any header is taken off.
    Known,
    /// It sent nothing. The first bytes that are to come may still be a header, which then comes too late.
    Silent {
        /// Whether it is trusted with one.
        may_send_header: bool,
    },
}

/// Whether headers of this peer are believed. `peer` is its own address: no header was read yet.
pub(super) fn is_trusted(rule: &ProxyProtocol, peer: ClientAddr) -> bool {
    match peer.ip() {
        Some(ip) => rule.trusted.iter().any(|network| network.contains(&ip)),
        // A unix socket's peers are on this host, and the socket's mode says which of them may connect.
        None => true,
    }
}

/// Takes a trusted peer's header off. `client` becomes the one that it names; what that had connected to, and what else the header
/// says, goes to `preamble`.
pub(super) async fn take_header(
    listener: &Listener,
    rule: &ProxyProtocol,
    client: &mut ClientAddr,
    preamble: &mut Preamble,
    peek: &mut Peek<'_, Socket>,
) -> Result<PeerKind, Termination> {
    let ParsedHeader { length, addresses } =
        match peek.until(proxy_protocol::MAX_HEADER, proxy_protocol::recognise).await {
            Ok(Ok(header)) => header,
            Ok(Err(HeaderError::Absent)) if !rule.required => return Ok(PeerKind::Known),
            Ok(Err(fault)) => {
                listener.log_refusal(*client, &fault);
                return Err(Termination::BadProxyHeader);
            }
            Err(cut) if rule.required => return Err(cut.into()),
            Err(cut) => return silence(cut, peek, true),
        };
    preamble.tlvs = peek.bytes().get(..length).and_then(ReceivedTlvs::of);
    peek.take_off(length);
    match addresses {
        Addresses::Proxied(ends) => {
            *client = ClientAddr::Tcp(ends.source);
            preamble.destination = Some(ends.destination);
        }
        Addresses::Unix => *client = ClientAddr::Unix,
        // The peer speaks for itself: its own address counts, against limits too.
        Addresses::Local => {}
    }
    Ok(PeerKind::Known)
}

/// Makes sure that a peer which is not trusted sends no header: a backend could believe it. No byte beyond a header's
/// signature is read for that.
pub(super) async fn refuse_header(
    listener: &Listener,
    client: ClientAddr,
    peek: &mut Peek<'_, Socket>,
) -> Result<PeerKind, Termination> {
    match peek.until(proxy_protocol::SIGNATURE_LIMIT, proxy_protocol::recognise_signature).await {
        Ok(Err(_)) => Ok(PeerKind::Known),
        Ok(Ok(_)) => {
            listener.log_refusal(client, &UNTRUSTED_HEADER);
            Err(Termination::UntrustedProxyHeader)
        }
        Err(cut) => silence(cut, peek, false),
    }
}

/// A protocol in which the server speaks first, or a client that has nothing to say.
fn silence(cut: PeekError, peek: &Peek<'_, Socket>, may_send_header: bool) -> Result<PeerKind, Termination> {
    match cut {
        PeekError::TooSlow if peek.bytes().is_empty() => Ok(PeerKind::Silent { may_send_header }),
        PeekError::Finished if peek.bytes().is_empty() => Ok(PeerKind::Known),
        cut => Err(cut.into()),
    }
}
