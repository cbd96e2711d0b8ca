//! Receivers of syslog messages, each with a thread that reads.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::Shutdown;
use socket2::{Domain, SockRef, Socket, Type};

use super::rfc5424::{Message, first_frame, parse};
use super::{DEADLINE, eventually};

/// A receiver, and what it has received. Reading ends with it.
pub(crate) struct Receiver {
    messages: Arc<Mutex<Vec<Message>>>,
    /// Ends the thread.
    stop: Box<dyn Fn() + Send>,
    thread: Option<thread::JoinHandle<()>>,
    /// Its address, as `log.access` names it.
    pub(crate) target: String,
}

impl Receiver {
    pub(crate) fn udp() -> Receiver {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let target = format!("syslog:{}", socket.local_addr().expect("its address"));
        Receiver::datagrams(Socket::from(socket), target)
    }

    pub(crate) fn unix_datagram(path: &Path) -> Receiver {
        let socket = UnixDatagram::bind(path).expect("bind");
        Receiver::datagrams(Socket::from(socket), format!("syslog:{}", path.display()))
    }

    fn datagrams(socket: Socket, target: String) -> Receiver {
        let reader = socket.try_clone().expect("a duplicate");
        let stop = move || _ = rustix::net::shutdown(&socket, Shutdown::Both);
        Receiver::start(target, stop, move |messages| {
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = (&reader).read(&mut buffer) {
                messages.lock().expect("no panic under it").push(message(&buffer[..length]));
            }
        })
    }

    /// With octet counting. Takes one connection after the other, at an address that it may have had before.
    pub(crate) fn tcp(address: Option<SocketAddr>) -> Receiver {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&address.unwrap_or((Ipv4Addr::LOCALHOST, 0).into()).into()).expect("bind");
        socket.listen(16).expect("listen");
        let listener = TcpListener::from(socket);
        let target = format!("syslog+tcp:{}", listener.local_addr().expect("its address"));
        Receiver::streams(Socket::from(listener), target, |unread, messages| {
            let mut rest = &unread[..];
            while let Some((first, more)) = first_frame(rest).expect("octet counting") {
                messages.lock().expect("no panic under it").push(message(first));
                rest = more;
            }
            *unread = rest.to_vec();
        })
    }

    /// With messages that end with NUL.
    pub(crate) fn unix_stream(path: &Path) -> Receiver {
        let listener = UnixListener::bind(path).expect("bind");
        Receiver::streams(Socket::from(listener), format!("syslog:{}", path.display()), |unread, messages| {
            while let Some(end) = unread.iter().position(|&byte| byte == 0) {
                let rest = unread.split_off(end + 1);
                unread.truncate(end);
                messages.lock().expect("no panic under it").push(message(unread));
                *unread = rest;
            }
        })
    }

    fn streams(
        listener: Socket,
        target: String,
        mut split: impl FnMut(&mut Vec<u8>, &Mutex<Vec<Message>>) + Send + 'static,
    ) -> Receiver {
        let acceptor = listener.try_clone().expect("a duplicate");
        let open = Arc::new(Mutex::new(None::<Socket>));
        let stop = {
            let open = Arc::clone(&open);
            move || {
                _ = rustix::net::shutdown(&listener, Shutdown::Both);
                if let Some(stream) = &*open.lock().expect("no panic under it") {
                    // What has come is read first.
                    _ = SockRef::from(stream).shutdown(std::net::Shutdown::Read);
                }
            }
        };
        Receiver::start(target, stop, move |messages| {
            while let Ok((stream, _)) = acceptor.accept() {
                *open.lock().expect("no panic under it") = stream.try_clone().ok();
                let (mut unread, mut buffer) = (Vec::new(), vec![0; 65_536]);
                loop {
                    match (&stream).read(&mut buffer) {
                        Ok(0) => break,
                        Ok(length) => unread.extend_from_slice(&buffer[..length]),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                    split(&mut unread, messages);
                }
                *open.lock().expect("no panic under it") = None;
            }
        })
    }

    fn start(
        target: String,
        stop: impl Fn() + Send + 'static,
        read: impl FnOnce(&Mutex<Vec<Message>>) + Send + 'static,
    ) -> Receiver {
        let messages = Arc::default();
        let thread = thread::spawn({
            let messages = Arc::clone(&messages);
            move || read(&messages)
        });
        Receiver { messages, stop: Box::new(stop), thread: Some(thread), target }
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().expect("the thread lives").clone()
    }

    /// The messages, once there are this many.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Message> {
        eventually(DEADLINE, &format!("{count} messages at {}", self.target), || self.messages().len() >= count);
        self.messages()
    }

    /// Closes it. What it has received.
    pub(crate) fn close(mut self) -> Vec<Message> {
        (self.stop)();
        self.thread.take().expect("once").join().expect("every message is one of RFC 5424");
        self.messages()
    }
}

fn message(bytes: &[u8]) -> Message {
    parse(bytes).unwrap_or_else(|error| panic!("{error}"))
}
