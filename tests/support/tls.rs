//! TLS of the tests' own: rustls at either end, openssl as a program.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

pub(crate) use super::authority::{Authority, Issued, client_connection};
use super::backend::{Backend, Scripted, in_thread};
use super::client::{Place, try_connect};
use super::process::{bound, require};
use super::tidegate::{Tidegate, forward, relays};

/// One end of a TLS connection. Two threads may use it at once, one to read and one to write: `&Tls` does both.
pub(crate) struct Tls {
    socket: TcpStream,
    connection: Mutex<Connection>,
    /// What was read of it, and not yet asked for.
    opened: Mutex<VecDeque<u8>>,
    /// Held from the sealing of records to the end of their writing: they must not overtake each other.
    writing: Mutex<()>,
}

impl Tls {
    /// Connects, with a handshake.
    pub(crate) fn connect(place: &Place, config: &ClientConfig, name: &str) -> Tls {
        Tls::try_connect(place, config, name).unwrap_or_else(|error| panic!("TLS to {place} as {name}: {error}"))
    }

    /// As [`Tls::connect`], when it may fail.
    pub(crate) fn try_connect(place: &Place, config: &ClientConfig, name: &str) -> io::Result<Tls> {
        Tls::on(try_connect(place)?, client_connection(config, name))
    }

    /// The handshake of a server.
    pub(crate) fn accept(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Tls> {
        let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Tls::on(socket, connection)
    }

    /// The handshake, on a socket on which it may have begun.
    pub(crate) fn on(mut socket: TcpStream, connection: impl Into<Connection>) -> io::Result<Tls> {
        let mut connection = connection.into();
        while connection.is_handshaking() {
            if let (0, 0) = connection.complete_io(&mut socket)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        while connection.wants_write() {
            connection.write_tls(&mut socket)?;
        }
        Ok(Tls { socket, connection: Mutex::new(connection), opened: Mutex::default(), writing: Mutex::default() })
    }

    /// Below TLS.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Sends a close_notify, and no FIN.
    pub(crate) fn close_notify(&self) -> io::Result<()> {
        self.write_records(|connection| {
            connection.send_close_notify();
            Ok(())
        })
    }

    /// Sends a close_notify and a FIN.
    pub(crate) fn finish(&self) {
        self.close_notify().expect("a close_notify");
        self.socket.shutdown(Shutdown::Write).expect("FIN");
    }

    /// What is known of the connection.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.connection.lock().expect("no panic under it"))
    }

    /// The certificate of the other side.
    pub(crate) fn peer(&self) -> Option<CertificateDer<'static>> {
        self.look(|connection| Some(connection.peer_certificates()?.first()?.clone().into_owned()))
    }

    /// Seals bytes without sending them.
    pub(crate) fn seal(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connection.lock().expect("no panic under it");
        connection.writer().write_all(bytes).expect("room");
        let mut sealed = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut sealed).expect("a Vec");
        }
        sealed
    }

    fn write_records(&self, say: impl FnOnce(&mut Connection) -> io::Result<()>) -> io::Result<()> {
        let _writing = self.writing.lock().expect("no panic under it");
        let mut records = Vec::new();
        {
            let mut connection = self.connection.lock().expect("no panic under it");
            say(&mut connection)?;
            while connection.wants_write() {
                connection.write_tls(&mut records)?;
            }
        }
        (&self.socket).write_all(&records)
    }
}

impl Read for &Tls {
    /// `Ok(0)` is a close_notify; a FIN without one is the error `UnexpectedEof`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut opened = self.opened.lock().expect("no panic under it");
        let mut received = vec![0; 64 * 1024];
        loop {
            if !opened.is_empty() {
                return opened.read(buffer);
            }
            match self.connection.lock().expect("no panic under it").reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            let count = (&self.socket).read(&mut received)?;
            let mut rest = &received[..count];
            let mut connection = self.connection.lock().expect("no panic under it");
            // Nothing is how it learns of the FIN.
            while connection.read_tls(&mut rest)? > 0 {
                connection.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                // rustls keeps little of it, and takes no more before that is gone.
                let mut portion = [0; 16 * 1024];
                while let Ok(count @ 1..) = connection.reader().read(&mut portion) {
                    opened.extend(&portion[..count]);
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
}

impl Write for &Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut count = 0;
        self.write_records(|connection| {
            count = connection.writer().write(bytes)?;
            Ok(())
        })?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a client begins with: its ClientHello, as one record.
pub(crate) fn client_hello(connection: &mut ClientConnection) -> Vec<u8> {
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("a Vec");
    }
    hello
}

/// A record of the handshake cut into several, with at most so many bytes of it each.
pub(crate) fn split_record(record: &[u8], size: usize) -> Vec<u8> {
    let (header, message) = record.split_at(5);
    let parts = message.chunks(size).map(|part| {
        let length = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&header[..3], &length, part].concat()
    });
    parts.flatten().collect()
}

/// The configuration of one listener, `in`, that terminates TLS for one plain backend, `b`.
pub(crate) fn terminate(to: impl Display, certificates: &[&Issued], tls: &str, listener: &str) -> String {
    let certificates: Vec<String> = certificates.iter().map(|issued| issued.yaml()).collect();
    let certificates = certificates.join(", ");
    forward(to, &format!("tls: {{ certificates: [{certificates}], {tls} }}, {listener}"), "")
}

/// Both ends of a connection through the balancer: TLS to it, and what it makes of it for the backend.
pub(crate) struct Terminated {
    pub(crate) tidegate: Tidegate,
    pub(crate) client: Tls,
    pub(crate) backend: TcpStream,
}

/// As [`Terminated`] says, for a client of the newest version; `listener` is more keys of it.
pub(crate) fn one_tls_connection(listener: &str) -> Terminated {
    one_tls_connection_of(listener, Authority::client)
}

/// As [`one_tls_connection`], for this client.
pub(crate) fn one_tls_connection_of(listener: &str, client: impl Fn(&Authority) -> ClientConfig) -> Terminated {
    let (scripted, authority) = (Scripted::start(), Authority::new());
    let certificate = authority.issue(&["a.example"]);
    let tidegate = Tidegate::start(&terminate(scripted.place(), &[&certificate], "", listener));
    let client = Tls::connect(&tidegate.at("in"), &client(&authority), "a.example");
    let backend = scripted.accept();
    relays(&tidegate);
    Terminated { tidegate, client, backend }
}

/// A backend that speaks TLS: after each handshake, its connection goes to a closure, in a thread of its own. Handshakes that
/// fail are left.
pub(crate) fn tls_backend(config: ServerConfig, serve: impl Fn(Tls) + Send + Sync + 'static) -> Backend {
    let config = Arc::new(config);
    Backend::start(in_thread(move |socket| {
        if let Ok(tls) = Tls::accept(socket, &config) {
            serve(tls);
        }
    }))
}

/// Sends its name and a close_notify, and waits for the end.
pub(crate) fn send_name_over_tls(name: &str) -> impl Fn(Tls) + Send + Sync + 'static {
    let name = name.to_owned();
    move |tls| {
        _ = (&tls).write_all(name.as_bytes());
        _ = tls.close_notify();
        _ = (&tls).read(&mut [0]);
    }
}

/// All bytes up to the close_notify.
pub(crate) fn read_all(tls: &Tls) -> String {
    let mut bytes = Vec::new();
    let mut tls = tls;
    tls.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("after {:?}: {error}", String::from_utf8_lossy(&bytes)));
    String::from_utf8(bytes).expect("text")
}

/// `openssl s_client` until the server closes: all that it prints, and whether it was content.
pub(crate) fn s_client(place: &Place, arguments: &[&str]) -> (String, bool) {
    require("openssl", "openssl");
    let mut command = bound("openssl", "KILL");
    command.args(["s_client", "-ign_eof", "-connect", &place.tcp().to_string()]).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("openssl");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (text, output.status.success())
}
