use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Protocol, SockRef};

use super::*;
use crate::net::dial::Options;
use crate::net::sys;

fn options() -> ListenOptions {
    ListenOptions {
        backlog: 16,
        connection: Options { nodelay: false, keepalive: None },
        fast_open: 0,
        defer_accept: 0,
        mptcp: false,
        transparent: false,
        freebind: false,
        datagrams: false,
        sharing: Sharing::Exclusive,
        v6_only: false,
        mode: None,
    }
}

fn tcp(address: &str) -> Address {
    Address::Tcp(address.parse().unwrap())
}

fn bound(options: &ListenOptions) -> (OwnedFd, Address, SocketAddr) {
    let socket = listen(&tcp("127.0.0.1:0"), options).unwrap().socket;
    let address = local_address(&socket).unwrap();
    let Address::Tcp(tcp) = address else { panic!("{address}") };
    (socket, address, tcp)
}

fn is_readable(socket: &OwnedFd, within: Duration) -> bool {
    let timeout = Timespec::try_from(within).unwrap();
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

fn accept(socket: &OwnedFd) -> OwnedFd {
    assert!(is_readable(socket, Duration::from_secs(10)));
    acceptfrom_with(socket, SocketFlags::CLOEXEC).unwrap().0
}

#[test]
fn accepted_sockets_inherit_the_options_of_connections() {
    for (nodelay, keepalive) in [(true, Some(Duration::from_secs(7))), (false, None)] {
        let (socket, _, address) = bound(&ListenOptions { connection: Options { nodelay, keepalive }, ..options() });
        let _client = TcpStream::connect(address).unwrap();
        let accepted = accept(&socket);
        let accepted = SockRef::from(&accepted);
        assert_eq!(accepted.tcp_nodelay().unwrap(), nodelay);
        assert_eq!(accepted.keepalive().unwrap(), keepalive.is_some());
        if let Some(idle) = keepalive {
            assert_eq!(accepted.tcp_keepalive_time().unwrap(), idle);
            assert_eq!(accepted.tcp_keepalive_interval().unwrap(), idle);
        }
        assert!(accepted.out_of_band_inline().unwrap());
    }
}

#[test]
fn a_port_in_use_is_found_out_by_each_way_of_sharing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(taken.local_addr().unwrap());
    for sharing in [Sharing::Exclusive, Sharing::Workers, Sharing::Anyone] {
        let error = listen(&address, &ListenOptions { sharing, ..options() }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{sharing:?}");
    }
}

#[test]
fn workers_share_a_port_among_themselves_only() {
    let workers = ListenOptions { sharing: Sharing::Workers, ..options() };
    let (_first, address, at) = bound(&workers);
    let second = join(at, &workers).unwrap();
    start(&second, &workers).unwrap();
    let another_process = listen(&address, &workers).unwrap_err();
    assert_eq!(another_process.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn of_those_who_want_a_port_at_the_same_moment_one_gets_it() {
    const RIVALS: usize = 4;
    let options = ListenOptions { sharing: Sharing::Workers, ..options() };
    let mut won = 0;
    for _ in 0..200 {
        let (free, address, _) = bound(&options);
        drop(free);
        let (start, tried) = (Barrier::new(RIVALS), Barrier::new(RIVALS));
        let rival = || {
            start.wait();
            let got = listen(&address, &options);
            tried.wait(); // nobody lets go before all have tried
            got.is_ok()
        };
        let winners = thread::scope(|scope| {
            let rivals: Vec<_> = (0..RIVALS).map(|_| scope.spawn(rival)).collect();
            rivals.into_iter().map(|rival| rival.join().unwrap()).filter(|got| *got).count()
        });
        assert!(winners <= 1, "{winners} share {address}");
        won += winners;
    }
    assert!(won >= 100, "a stranger has a port now and then, not as a rule: {won}");
}

#[test]
fn anyone_shares_with_other_processes() {
    let anyone = ListenOptions { sharing: Sharing::Anyone, ..options() };
    let (_first, address, _) = bound(&anyone);
    listen(&address, &anyone).unwrap();
}

#[test]
fn connections_are_spread_over_the_sockets_of_workers() {
    let workers = ListenOptions { sharing: Sharing::Workers, ..options() };
    let (first, _, at) = bound(&workers);
    let second = join(at, &workers).unwrap();
    start(&second, &workers).unwrap();
    let reached_both = (0..200).any(|_| {
        let _client = TcpStream::connect(at).unwrap();
        is_readable(&first, Duration::ZERO) && is_readable(&second, Duration::ZERO)
    });
    assert!(reached_both, "200 connections and all on one socket");
}

#[test]
fn with_defer_accept_a_connection_comes_with_its_first_byte() {
    let (socket, _, address) = bound(&ListenOptions { defer_accept: 30, ..options() });
    let mut client = TcpStream::connect(address).unwrap();
    // Connected for the client already: were it not deferred, it would be there.
    assert!(!is_readable(&socket, Duration::from_millis(20)));
    client.write_all(b"x").unwrap();
    accept(&socket);
}

#[test]
fn fast_open_is_set() {
    assert_eq!(sys::option(bound(&options()).0, sys::TCP_FASTOPEN), 0);
    assert_eq!(sys::option(bound(&ListenOptions { fast_open: 64, ..options() }).0, sys::TCP_FASTOPEN), 64);
}

#[test]
fn mptcp_is_its_own_protocol() {
    let (socket, _, address) = bound(&ListenOptions { mptcp: true, ..options() });
    assert_eq!(SockRef::from(&socket).protocol().unwrap(), Some(Protocol::MPTCP));
    // Clients that speak plain TCP are served all the same.
    let _client = TcpStream::connect(address).unwrap();
    accept(&socket);
}

#[test]
fn transparent_binds_to_an_address_of_others() {
    // From TEST-NET-1 (RFC 5737), which no host has.
    let foreign = tcp("192.0.2.1:0");
    assert_eq!(listen(&foreign, &options()).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    let transparent = listen(&foreign, &ListenOptions { transparent: true, ..options() });
    if rustix::process::geteuid().is_root() {
        assert!(SockRef::from(&transparent.unwrap().socket).ip_transparent_v4().unwrap());
    } else {
        assert_eq!(transparent.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "it takes CAP_NET_ADMIN");
    }
}

/// Unlike `transparent`, it needs no privilege.
#[test]
fn freebind_binds_to_an_address_that_is_not_there_yet() {
    // From TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849), which no host has.
    for (foreign, own) in [("192.0.2.1:0", "127.0.0.1:0"), ("[2001:db8::1]:0", "[::1]:0")] {
        let (foreign, own) = (tcp(foreign), tcp(own));
        let free = ListenOptions { freebind: true, ..options() };
        assert_eq!(listen(&foreign, &options()).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        let bound = listen(&foreign, &free).unwrap();
        let Address::Tcp(at) = local_address(&bound.socket).unwrap() else { panic!("TCP") };
        let workers = ListenOptions { sharing: Sharing::Workers, ..free.clone() };
        change(&bound.socket, &foreign, &free, &workers).unwrap();
        start(&join(at, &workers).unwrap(), &workers).unwrap();
        // It changes while the socket listens.
        let is_free = |socket: &OwnedFd| match own {
            Address::Tcp(own) if own.is_ipv4() => SockRef::from(socket).freebind_v4().unwrap(),
            _ => SockRef::from(socket).freebind_v6().unwrap(),
        };
        let socket = listen(&own, &options()).unwrap().socket;
        assert!(!is_free(&socket));
        change(&socket, &own, &options(), &free).unwrap();
        assert!(is_free(&socket));
        change(&socket, &own, &free, &options()).unwrap();
        assert!(!is_free(&socket));
    }
}

#[test]
fn ipv6_takes_ipv4_too_unless_told_otherwise() {
    for v6_only in [false, true] {
        let socket = listen(&tcp("[::]:0"), &ListenOptions { v6_only, ..options() }).unwrap().socket;
        let Address::Tcp(address) = local_address(&socket).unwrap() else { panic!() };
        let by_ipv4 = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port()));
        assert_eq!(by_ipv4.is_ok(), !v6_only);
        TcpStream::connect(("::1", address.port())).unwrap();
    }
}

#[test]
fn a_socket_file_is_replaced_only_when_nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let path = Arc::new(folder.path().join("app.sock"));
    let address = Address::Unix(Arc::clone(&path));
    let first = listen(&address, &options()).unwrap();
    assert_eq!(local_address(&first.socket).unwrap(), address);
    assert_eq!(listen(&address, &options()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    // As a process that is killed leaves it.
    std::mem::forget(first.file);
    drop(first.socket);
    let second = listen(&address, &options()).expect("a stale file is no obstacle");
    let mut client = UnixStream::connect(&*path).unwrap();
    client.write_all(b"x").unwrap();
    let mut server = UnixStream::from(accept(&second.socket));
    server.read_exact(&mut [0]).unwrap();

    let file = folder.path().join("not-a-socket");
    fs::write(&file, "precious").unwrap();
    let error = listen(&Address::Unix(Arc::new(file.clone())), &options()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn options_of_a_socket_that_listens_change_and_its_queue_stays() {
    let plain = ListenOptions { sharing: Sharing::Workers, ..options() };
    let (socket, address, at) = bound(&plain);
    let _waits = TcpStream::connect(at).unwrap();
    let connection = Options { nodelay: true, keepalive: Some(Duration::from_secs(7)) };
    let all = ListenOptions { backlog: 99, connection, fast_open: 5, defer_accept: 1, ..plain.clone() };
    change(&socket, &address, &plain, &all).unwrap();
    assert_eq!((sys::option(&socket, sys::TCP_FASTOPEN), sys::option(&socket, sys::TCP_DEFER_ACCEPT)), (5, 1));
    let mut client = TcpStream::connect(at).unwrap();
    client.write_all(b"x").unwrap();
    let (first, second) = (accept(&socket), accept(&socket));
    let (first, second) = (SockRef::from(&first), SockRef::from(&second));
    assert!(!first.tcp_nodelay().unwrap(), "it had come before");
    assert!(second.tcp_nodelay().unwrap() && second.keepalive().unwrap());
    assert_eq!(second.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
    change(&socket, &address, &all, &plain).unwrap();
    assert_eq!((sys::option(&socket, sys::TCP_FASTOPEN), sys::option(&socket, sys::TCP_DEFER_ACCEPT)), (0, 0));
    let _client = TcpStream::connect(at).unwrap();
    let third = accept(&socket);
    let third = SockRef::from(&third);
    assert!(!third.tcp_nodelay().unwrap() && !third.keepalive().unwrap());
}

#[test]
fn a_longer_queue_takes_more_at_once() {
    let short = ListenOptions { backlog: 1, ..options() };
    let (socket, address, at) = bound(&short);
    change(&socket, &address, &short, &ListenOptions { backlog: 64, ..short.clone() }).unwrap();
    let clients: Vec<_> = (0..40).map(|_| TcpStream::connect_timeout(&at, Duration::from_secs(10)).unwrap()).collect();
    clients.iter().for_each(|_| drop(accept(&socket)));
    // A unix socket has no other option.
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(Arc::new(folder.path().join("s")));
    let unix = listen(&address, &short).unwrap();
    change(&unix.socket, &address, &short, &ListenOptions { backlog: 64, transparent: true, ..short.clone() }).unwrap();
    let _clients: Vec<_> = (0..40).map(|_| UnixStream::connect(folder.path().join("s")).unwrap()).collect();
}

#[test]
fn exclusive_address_can_be_shared_and_made_exclusive_again() {
    let (alone, workers) = (options(), ListenOptions { sharing: Sharing::Workers, ..options() });
    let (first, address, at) = bound(&alone);
    assert!(join(at, &workers).is_err());
    change(&first, &address, &alone, &workers).unwrap();
    let second = join(at, &workers).unwrap();
    start(&second, &workers).unwrap();
    let reached = |clients: Vec<TcpStream>| {
        let mut accepted = [0, 0];
        for _ in &clients {
            let place = usize::from(!is_readable(&first, Duration::ZERO));
            accepted[place] += 1;
            drop(accept([&first, &second][place]));
        }
        accepted
    };
    let clients = || (0..16).map(|_| TcpStream::connect(at).unwrap()).collect::<Vec<_>>();
    assert!(reached(clients()).iter().all(|count| *count > 0));
    // None is lost: what comes now waits at one of them.
    for socket in [&first, &second] {
        change(socket, &address, &workers, &alone).unwrap();
    }
    assert!(reached(clients()).contains(&16));
}
