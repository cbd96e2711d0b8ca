//! TLS without a socket: records in and plaintext out, plaintext in and records out.
//!
//! rustls is used by its unbuffered API, so that the buffers belong to the worker and not to the connection. This is the
//! only file that uses that API. rustls has removed it on its main branch: the next major version asks for a rewrite of
//! this file, and of no other.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use super::backlog::Backlog;

/// The server's end of TLS.
pub type ServerEngine = UnbufferedServerConnection;
/// The client's end of TLS.
pub type ClientEngine = UnbufferedClientConnection;

/// Either end of TLS.
pub trait Engine {
    /// What rustls keeps beside it.
    type Data;
    /// Processes the records that have come.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// What both ends have in common.
    fn common(&self) -> &CommonState;
}

impl Engine for ServerEngine {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Engine for ClientEngine {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

pub(super) fn server(config: Arc<ServerConfig>) -> Result<ServerEngine, Error> {
    ServerEngine::new(config)
}

pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<ClientEngine, Error> {
    ClientEngine::new(config, name)
}

/// Opens and seals the records of one connection.
pub(super) struct RecordLayer<E> {
    engine: E,
    /// The peer has sent a close_notify.
    is_closed: bool,
    /// Boxed: most connections have none, and all would pay for its size.
    failure: Option<Box<Error>>,
}

/// What one step of the engine came to.
pub(super) struct Driven {
    /// Bytes of the records that are processed.
    pub(super) used: usize,
    /// Bytes that were opened into the buffer.
    pub(super) filled: usize,
    /// Bytes that are to be sent.
    pub(super) sealed: usize,
    /// Whether what was to be sealed is among them; `None` if the engine did not come to it.
    pub(super) done: Option<io::Result<()>>,
}

/// Where opened bytes go.
pub(super) struct OpenedBytes<'b> {
    pub(super) buffer: &'b mut [u8],
    /// Takes what the buffer has no room for.
    pub(super) overflow: &'b mut Backlog,
}

/// What is to be sealed.
#[derive(Clone, Copy)]
pub(super) enum Seal<'b> {
    Bytes(&'b [u8]),
    CloseNotify,
}

impl<E: Engine> RecordLayer<E> {
    pub(super) fn new(engine: E) -> RecordLayer<E> {
        RecordLayer { engine, is_closed: false, failure: None }
    }

    pub(super) fn common(&self) -> &CommonState {
        self.engine.common()
    }

    /// Whether the peer has sent a close_notify.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_deref()
    }

    /// Fails the connection, unless it has failed already.
    pub(super) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert_with(|| Box::new(error));
    }

    /// Processes the records in `incoming` as far as possible, then seals `seal` to the end of `outgoing`, whose length
    /// is its room.
    pub(super) fn drive(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Vec<u8>,
        opened: OpenedBytes<'_>,
        seal: Option<Seal<'_>>,
    ) -> Driven {
        let OpenedBytes { buffer, overflow } = opened;
        let mut driven = Driven { used: 0, filled: 0, sealed: 0, done: None };
        let Driven { used, filled, sealed, done } = &mut driven;
        loop {
            let UnbufferedStatus { mut discard, state } = self.engine.process(&mut incoming[*used..]);
            let more = match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(Ok(record)) = records.next_record() {
                        discard += record.discard;
                        let (now, later) = record.payload.split_at(record.payload.len().min(buffer.len() - *filled));
                        buffer[*filled..*filled + now.len()].copy_from_slice(now);
                        *filled += now.len();
                        overflow.push(later);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    while let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                        message.encode(&mut outgoing[*sealed..]).map(|count| *sealed += count)
                    {
                        reserve(outgoing, *sealed + required_size);
                    }
                    true
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.is_closed = true;
                    true
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    *done = seal.as_ref().map(|seal| seal.write(&mut traffic, outgoing, sealed));
                    false
                }
                Err(error) => {
                    self.failure.get_or_insert_with(|| Box::new(error));
                    true
                }
                // The engine waits for more records. Early data is never accepted.
                _ => false,
            };
            *used += discard;
            // After a failure, only its alert is fetched: the record at fault is still there, and would fail again.
            if !more || (self.failure.is_some() && !self.engine.common().wants_write()) {
                return driven;
            }
        }
    }
}

impl Seal<'_> {
    fn write<D>(
        &self,
        traffic: &mut WriteTraffic<'_, D>,
        outgoing: &mut Vec<u8>,
        sealed: &mut usize,
    ) -> io::Result<()> {
        loop {
            let room = &mut outgoing[*sealed..];
            let done = match self {
                Seal::Bytes(bytes) => traffic.encrypt(bytes, room),
                Seal::CloseNotify => traffic.queue_close_notify(room),
            };
            match done {
                Ok(count) => {
                    *sealed += count;
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    reserve(outgoing, *sealed + required_size);
                }
                Err(EncryptError::EncryptExhausted) => {
                    return Err(io::Error::other("the keys of this TLS connection are used up"));
                }
            }
        }
    }
}

/// Grows a buffer to at least `size` bytes.
pub(super) fn reserve(buffer: &mut Vec<u8>, size: usize) {
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
}
