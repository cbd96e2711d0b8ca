//! Sockets that the process is started with, as systemd passes them (sd_listen_fds(3)).

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, read_to_end, try_connect};
use crate::support::stats::get;
use crate::support::tidegate::{Launch, Tidegate};
use crate::support::{DEADLINE, eventually};

fn configuration(backend: &Backend, workers: usize, bind: &str) -> Launch {
    Tidegate::with(&format!(
        "workers: {workers}\nlisteners: [{{ name: in, bind: {bind}, pool: p, socket: {{ backlog: 77 }} }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
        backend.place()
    ))
}

fn tcp() -> (TcpListener, Place) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = Place::Tcp(socket.local_addr().unwrap());
    (socket, place)
}

#[test]
fn sockets_of_configured_addresses_are_taken() {
    let (backend, folder) = (Backend::named("b"), tempfile::tempdir().unwrap());
    let path = folder.path().join("in.sock");
    let ((tcp, place), unix) = (tcp(), UnixListener::bind(&path).unwrap());
    // It waits in the queue: a socket that is bound again would not have it.
    let mut early = connect(&place);
    let bind = format!("[\"{place}\", \"unix:{}\"]", path.display());
    let passed: Vec<OwnedFd> = vec![tcp.try_clone().unwrap().into(), unix.into()];
    let launch = configuration(&backend, 3, &bind).passing(passed).environment("LISTEN_FDNAMES", "tcp:unix");
    let mut tidegate = launch.start();
    assert_eq!(read_to_end(&mut early).0, b"b");
    // One socket for three workers, which all take connections or can: none waits.
    for _ in 0..20 {
        assert_eq!(read_to_end(&mut connect(&place)).0, b"b");
        assert_eq!(read_to_end(&mut connect(&Place::Unix(path.clone()))).0, b"b");
    }
    assert_eq!(tidegate.count_logs(|line| line.level() == "WARN"), 0);
    tidegate.terminate();
    assert!(tidegate.wait().success());
    // systemd's: its file stays, and so does its socket.
    assert!(path.exists());
    drop(connect(&place));
}

#[test]
fn socket_of_the_admin_interface_is_taken() {
    let (backend, (socket, place)) = (Backend::named("b"), tcp());
    let yaml =
        format!("admin: {{ bind: \"{place}\" }}\n{}", crate::support::tidegate::forward(backend.place(), "", ""));
    let tidegate = Tidegate::with(&yaml).passing(vec![socket.into()]).start();
    assert_eq!(get(&place, "/livez").status, 200);
    assert_eq!(tidegate.stats_port(), place);
}

/// Two sockets of one address (SO_REUSEPORT) for one worker: connections of both are served.
#[test]
fn more_sockets_than_workers_are_all_served() {
    let backend = Backend::named("b");
    let bound = |address| {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseport(&socket, true).unwrap();
        rustix::net::bind(&socket, &std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, address))).unwrap();
        rustix::net::listen(&socket, 10).unwrap();
        socket
    };
    let first = TcpListener::from(bound(0));
    let address = first.local_addr().unwrap();
    let second = bound(address.port());
    let launch = configuration(&backend, 1, &format!("\"{address}\""));
    let _tidegate = launch.passing(vec![first.into(), second]).start();
    // The kernel spreads them over both: by chance alone, all 64 would be on one in one of 2^63 runs.
    for _ in 0..64 {
        assert_eq!(read_to_end(&mut connect(&Place::Tcp(address))).0, b"b");
    }
}

#[test]
fn socket_without_a_listener_is_closed_with_a_warning() {
    let (backend, (socket, place)) = (Backend::named("b"), tcp());
    let launch = configuration(&backend, 1, "\"127.0.0.1:0\"");
    let tidegate = launch.passing(vec![socket.into()]).environment("LISTEN_FDNAMES", "odd.socket").start();
    let line = tidegate.wait_for_log("what is closed", |line| line.is("closed an inherited socket"));
    assert_eq!((&*line.field("socket"), &*line.level()), (&*format!("{place} (odd.socket)"), "WARN"));
    eventually(DEADLINE, "it is closed", || try_connect(&place).is_err());
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"b");
}

#[test]
fn sockets_of_wrong_types_are_errors() {
    let backend = Backend::named("b");
    let (listening, _) = tcp();
    let client = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let cases: [(OwnedFd, &str); 3] = [
        (client.into(), "does not listen: use Accept=no"),
        (file.into(), "is no socket"),
        (std::os::unix::net::UnixDatagram::unbound().unwrap().into(), "is neither of TCP nor of UDP"),
    ];
    for (socket, message) in cases {
        let launch = configuration(&backend, 1, "\"127.0.0.1:0\"").passing(vec![socket]);
        let (status, text) = launch.environment("LISTEN_FDNAMES", "a.socket").run_to_end();
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.contains("the inherited socket `a.socket`") && text.contains(message), "{message}: {text}");
    }
    let (socket, _) = tcp();
    let launch = configuration(&backend, 1, "\"127.0.0.1:0\"").passing(vec![socket.into()]);
    let (status, text) = launch.environment("LISTEN_FDNAMES", "a:b").run_to_end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("LISTEN_FDNAMES"), "{text}");
}

/// Its owner decides whether an IPv6 socket takes IPv4 clients.
#[test]
fn socket_of_other_families_than_configured_is_an_error() {
    let backend = Backend::named("b");
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
    sockopt::set_ipv6_v6only(&socket, true).unwrap();
    rustix::net::bind(&socket, &std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    rustix::net::listen(&socket, 10).unwrap();
    let address = TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap();
    let (status, text) = configuration(&backend, 1, &format!("\"{address}\"")).passing(vec![socket]).run_to_end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("takes only IPv6 clients: set BindIPv6Only=both"), "{text}");
}

#[test]
fn variables_for_another_process_are_ignored() {
    let backend = Backend::named("b");
    let launch = configuration(&backend, 1, "\"127.0.0.1:0\"");
    let tidegate = launch.environment("LISTEN_PID", "1").environment("LISTEN_FDS", "3").start();
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"b");
}
