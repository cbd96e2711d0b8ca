//! TLS of the clients, by rustls. Its unbuffered face leaves the socket and the buffers to the load.
//!
//! They offer TLS 1.3 with one key exchange and one cipher suite, so that every balancer does the same work for
//! a handshake and for a byte, whatever it would prefer: X25519, because a post-quantum exchange would be a cost
//! only to those that know it; AES-128-GCM, which every implementation of TLS 1.3 has (RFC 8446, section 9.1).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{RecvFlags, SendFlags};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConnectionData, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    UnbufferedClientConnection,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme};

use super::hub::broken;
use crate::certificate;
use crate::result::Handshakes;
use crate::scenario::Tls;
use crate::sock;

/// Tickets that are kept: more than clients take at the same time.
const TICKETS: usize = 256;
/// More than a record's header, tag and type add to what it carries (RFC 8446, section 5.2).
const OVERHEAD: usize = 64;

/// Makes the clients' ends, and watches over their handshakes.
pub(crate) struct Connector {
    wanted: Tls,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Completed ones, of either kind.
    pub(crate) handshakes: Handshakes,
}

impl Connector {
    /// For servers that have this certificate.
    pub(crate) fn new(wanted: Tls, certificate: &Path) -> io::Result<Connector> {
        let expected = CertificateDer::from_pem_file(certificate)
            .map_err(|error| io::Error::other(format!("{}: {error}", certificate.display())))?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Expected(expected)))
            .with_no_client_auth();
        config.resumption = match wanted {
            Tls::Full => Resumption::disabled(),
            Tls::Resumed => Resumption::store(Arc::new(Tickets::default())),
        };
        let name = ServerName::try_from(certificate::NAME).map_err(io::Error::other)?;
        Ok(Connector { wanted, config: Arc::new(config), name, handshakes: Handshakes::default() })
    }

    /// The client's end of a new connection.
    pub(crate) fn open(&self) -> io::Result<Stream> {
        let connection =
            UnbufferedClientConnection::new(self.config.clone(), self.name.clone()).map_err(io::Error::other)?;
        let mut stream = Stream {
            connection,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            established: false,
            closed: false,
            peer_closed: false,
        };
        stream.advance(&mut [])?;
        Ok(stream)
    }

    /// Counts a handshake that has completed, unless it is not of the kind that the scenario is about. The first
    /// one of a client may be full: that is where its tickets come from.
    pub(crate) fn completed(&mut self, stream: &Stream, first: bool) -> io::Result<()> {
        let kind = stream.connection.handshake_kind();
        match (kind, self.wanted) {
            (Some(HandshakeKind::Full), Tls::Full) => self.handshakes.full += 1,
            (Some(HandshakeKind::Full), Tls::Resumed) if first => self.handshakes.full += 1,
            (Some(HandshakeKind::Resumed), Tls::Resumed) => self.handshakes.resumed += 1,
            (kind, wanted) => {
                let Handshakes { full, resumed } = self.handshakes;
                let kind = kind.map_or_else(|| "of no kind".into(), |kind| format!("{kind:?}"));
                return broken(format!(
                    "a handshake was {kind} instead of {wanted:?}, after {full} full and {resumed} resumed ones"
                ));
            }
        }
        Ok(())
    }
}

/// What one look at a socket found.
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// Of answers or streams.
    pub(crate) bytes: usize,
    /// The handshake has just completed: requests can be sent.
    pub(crate) established: bool,
    /// The other side has finished.
    pub(crate) end: bool,
}

/// A client's end.
pub(crate) struct Stream {
    connection: UnbufferedClientConnection,
    /// The beginning of a record whose rest is yet to come.
    incoming: Vec<u8>,
    /// Encrypted, not yet sent.
    outgoing: Vec<u8>,
    established: bool,
    /// We have sent close_notify.
    closed: bool,
    /// We have received it.
    peer_closed: bool,
}

impl Stream {
    /// What a new connection sends first.
    pub(crate) fn hello(&self) -> &[u8] {
        &self.outgoing
    }

    /// Whether the socket has taken everything.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Sends a request as one record, together with what is left of the handshake; returns its length. `None`
    /// during the handshake, of which it sends what is to be sent.
    pub(crate) fn send(&mut self, socket: &OwnedFd, request: &[u8]) -> io::Result<Option<usize>> {
        if self.established {
            let mut traffic = traffic(&mut self.connection)?;
            let room = request.len() + OVERHEAD;
            append(&mut self.outgoing, room, |room| traffic.encrypt(request, room).map_err(io::Error::other))?;
        }
        self.flush(socket)?;
        if !self.established {
            return Ok(None);
        }
        // A socket takes it at once, because nothing else is under way; nobody would come back for the rest.
        if self.outgoing.is_empty() { Ok(Some(request.len())) } else { broken("a request was not taken at once") }
    }

    /// Reads once, with room for it all, and decrypts what is complete. `None`: there is nothing yet.
    pub(crate) fn receive(&mut self, socket: &OwnedFd, scratch: &mut [u8]) -> io::Result<Option<Heard>> {
        let kept = self.incoming.len();
        scratch[..kept].copy_from_slice(&self.incoming);
        let Some((_, received)) = sock::ready(rustix::net::recv(socket, &mut scratch[kept..], RecvFlags::empty()))?
        else {
            return Ok(None);
        };
        if received == 0 {
            // nginx does not say it to a client that has said it.
            if !self.peer_closed && !self.closed {
                return broken("a client saw the end of a TLS connection without close_notify");
            }
            return Ok(Some(Heard { end: true, ..Heard::default() }));
        }
        let (heard, used) = self.advance(&mut scratch[..kept + received])?;
        self.incoming.clear();
        self.incoming.extend_from_slice(&scratch[used..kept + received]);
        if self.peer_closed && !self.closed {
            self.close()?;
            // The other side may not be there any more to take it.
            let _ = self.flush(socket);
        } else if !heard.established {
            // Otherwise it goes out together with the first request.
            self.flush(socket)?;
        }
        Ok(Some(heard))
    }

    /// Ends our side.
    pub(crate) fn finish(&mut self, socket: &OwnedFd) -> io::Result<()> {
        if !self.closed {
            self.close()?;
        }
        self.flush(socket)
    }

    fn close(&mut self) -> io::Result<()> {
        let mut traffic = traffic(&mut self.connection)?;
        self.closed = true;
        append(&mut self.outgoing, OVERHEAD, |room| traffic.queue_close_notify(room).map_err(io::Error::other))
    }

    /// Goes on until it needs more bytes; returns what it found, and how much of the buffer it has used.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<(Heard, usize)> {
        let mut heard = Heard::default();
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(&mut buffer[used..]);
            let more = match state.map_err(io::Error::other)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        heard.bytes += record.payload.len();
                        discard += record.discard;
                    }
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    // A ClientHello, or a Finished; a record cannot be longer.
                    append(&mut self.outgoing, 17 << 10, |room| data.encode(room).map_err(io::Error::other))?;
                    true
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    true
                }
                ConnectionState::PeerClosed => {
                    self.peer_closed = true;
                    true
                }
                ConnectionState::WriteTraffic(_) => {
                    heard.established = !self.established;
                    self.established = true;
                    false
                }
                ConnectionState::BlockedHandshake | ConnectionState::Closed => false,
                other => return broken(format!("TLS is in a state that a client does not know: {other:?}")),
            };
            used += discard;
            if !more {
                return Ok((heard, used));
            }
        }
    }

    fn flush(&mut self, socket: &OwnedFd) -> io::Result<()> {
        if !self.outgoing.is_empty()
            && let Some(sent) = sock::ready(rustix::net::send(socket, &self.outgoing, SendFlags::NOSIGNAL))?
        {
            self.outgoing.drain(..sent);
        }
        Ok(())
    }
}

/// Where something can be said, outside of a handshake.
fn traffic(connection: &mut UnbufferedClientConnection) -> io::Result<WriteTraffic<'_, ClientConnectionData>> {
    match connection.process_tls_records(&mut []).state.map_err(io::Error::other)? {
        ConnectionState::WriteTraffic(traffic) => Ok(traffic),
        other => broken(format!("TLS takes nothing to send: {other:?}")),
    }
}

/// Lets something write up to so many bytes behind what is there.
fn append(to: &mut Vec<u8>, room: usize, write: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let start = to.len();
    to.resize(start + room, 0);
    let written = write(&mut to[start..])?;
    to.truncate(start + written);
    Ok(())
}

/// Tickets of the one server, each to be used once. rustls' own store keeps eight for a server, and clients that
/// begin at the same time take more.
#[derive(Default, Debug)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Tickets {
    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() < TICKETS {
            tickets.push(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    // There is one key exchange to offer, and no TLS 1.2.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
}

/// Knows the certificate by its bytes. Its signature is left unverified: that is work of the load, which is the
/// same for all, and only makes it slower.
#[derive(Debug)]
struct Expected(CertificateDer<'static>);

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *certificate == self.0 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("the server has another certificate".into()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 was not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
