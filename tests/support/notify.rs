//! A service manager that keeps its messages: the receiving end of sd_notify(3).

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tempfile::TempDir;

use super::DEADLINE;

pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    name: OsString,
    _folder: Option<TempDir>,
}

impl NotifySocket {
    /// On a path.
    pub(crate) fn new() -> NotifySocket {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind");
        NotifySocket { socket, name: path.into(), _folder: Some(folder) }.with_deadline()
    }

    /// On an abstract address, as older versions of systemd.
    pub(crate) fn abstract_name() -> NotifySocket {
        let name = format!("tidegate-test-{}-{}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bind");
        NotifySocket { socket, name: format!("@{name}").into(), _folder: None }.with_deadline()
    }

    fn with_deadline(self) -> NotifySocket {
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        self
    }

    /// The value of NOTIFY_SOCKET.
    pub(crate) fn name(&self) -> OsString {
        self.name.clone()
    }

    /// The next message, as its lines.
    pub(crate) fn next(&self) -> Vec<String> {
        let mut bytes = [0; 8192];
        let count = self.socket.recv(&mut bytes).expect("a message in time");
        let text = String::from_utf8(bytes[..count].to_vec()).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// The next message with this line; those before it are skipped.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        loop {
            let message = self.next();
            if message.iter().any(|line| wanted(line)) {
                return message;
            }
        }
    }
}
