//! A backend: a process of its own, so that it can be killed and stopped.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::content::{self, Body};

/// Where a backend listens.
#[derive(Clone)]
pub(crate) enum Listening {
    Tcp { address: SocketAddrV4, tls: bool },
    Unix(PathBuf),
}

impl Listening {
    /// At a port that is free now.
    pub(crate) fn tcp(tls: bool) -> Listening {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("its address").port();
        Listening::Tcp { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), tls }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Listening::Tcp { tls: true, .. })
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listening::Tcp { address, .. } => address.fmt(f),
            Listening::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A backend's process, from outside.
pub(crate) struct Backend {
    pub(crate) listening: Listening,
    folder: PathBuf,
    child: Child,
}

impl Backend {
    pub(crate) fn start(listening: Listening, folder: &Path) -> Backend {
        let child = spawn(&listening, folder);
        Backend { listening, folder: folder.to_owned(), child }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.listening, &self.folder);
    }

    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It is a child that was not waited for, so the number is its own.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(listening: &Listening, folder: &Path) -> Child {
    if let Listening::Unix(path) = listening {
        let _ = fs::remove_file(path);
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("backend").arg("--listen").arg(listening.to_string()).arg("--folder").arg(folder);
    if listening.is_tls() {
        command.arg("--tls");
    }
    command.spawn().expect("a backend")
}

/// `faults backend`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[arg(long)]
    listen: String,
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    tls: bool,
}

/// Serves until it is killed.
pub(crate) fn serve(args: &Args) -> Result<(), String> {
    // Nothing is left when the run is interrupted.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    let tls = args.tls.then(|| content::server_config(&args.folder));
    let folder: Arc<Path> = args.folder.clone().into();
    let serve = |stream: TcpStream| {
        let (tls, folder) = (tls.clone(), Arc::clone(&folder));
        // When there is no thread left, the connection is closed.
        let _ = thread::Builder::new().spawn(move || converse(stream, tls, &folder));
    };
    match args.listen.strip_prefix("unix:") {
        Some(path) => {
            let listener = UnixListener::bind(path).map_err(|error| error.to_string())?;
            listener.incoming().flatten().for_each(|stream: UnixStream| serve(TcpStream::from(OwnedFd::from(stream))));
        }
        None => {
            let listener = bind(&args.listen)?;
            listener.incoming().flatten().for_each(serve);
        }
    }
    Ok(())
}

/// The port may still be somebody's for a moment: an outgoing connection's, chosen by the kernel.
fn bind(address: &str) -> Result<TcpListener, String> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.map_err(|error| format!("{address}: {error}")),
        }
    }
}

fn converse(stream: TcpStream, tls: Option<Arc<ServerConfig>>, folder: &Path) {
    // How it ends is the client's affair, and that of faults.
    let _ = match tls {
        None => both_ways(&stream, folder),
        Some(config) => over_tls(stream, config, folder),
    };
}

/// Answers while it is asked: both directions are full at the same time.
fn both_ways(mut stream: &TcpStream, folder: &Path) -> io::Result<()> {
    while let Some(head) = content::read_head(&mut stream)? {
        let Some(((id, answer), length)) = content::asked(&head).zip(content::length(&head)) else { return bad() };
        thread::scope(|scope| {
            let sending = scope.spawn(|| send(&mut &*stream, id, answer));
            receive(&mut stream, id, length, folder)?;
            sending.join().map_err(|_| io::Error::other("a panic"))?
        })?;
    }
    stream.shutdown(Shutdown::Write)
}

fn over_tls(stream: TcpStream, config: Arc<ServerConfig>, folder: &Path) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while let Some(head) = content::read_head(&mut stream)? {
        let Some(((id, answer), length)) = content::asked(&head).zip(content::length(&head)) else { return bad() };
        receive(&mut stream, id, length, folder)?;
        send(&mut stream, id, answer)?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)
}

fn bad<T>() -> io::Result<T> {
    Err(ErrorKind::InvalidData.into())
}

fn receive(from: &mut impl Read, id: u64, length: u64, folder: &Path) -> io::Result<()> {
    let (mut offset, mut buffer) = (0, vec![0; 64 << 10]);
    while offset < length {
        let want = usize::try_from(length - offset).unwrap_or(usize::MAX).min(buffer.len());
        let count = from.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(wrong) = content::difference(id, Body::Request, offset, &buffer[..count]) {
            let mut report = OpenOptions::new().create(true).append(true).open(content::report(folder))?;
            writeln!(report, "{wrong}")?;
        }
        offset += count as u64;
    }
    Ok(())
}

fn send(to: &mut impl Write, id: u64, length: u64) -> io::Result<()> {
    to.write_all(content::answer_head(length).as_bytes())?;
    let (mut offset, mut buffer) = (0, vec![0; 64 << 10]);
    while offset < length {
        let count = usize::try_from(length - offset).unwrap_or(usize::MAX).min(buffer.len());
        content::fill(id, Body::Answer, offset, &mut buffer[..count]);
        to.write_all(&buffer[..count])?;
        offset += count as u64;
    }
    to.flush()
}
