//! Who reaches the admin interface: its addresses, the mode of its unix sockets, and the clients that it admits.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::process::Signal;

use crate::support::backend::Backend;
use crate::support::client::{End, Place, connect, connect_from, expect, read_to_end, try_connect};
use crate::support::stats::{ask, call, get};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually, free_port, proc};

fn start(admin: &str) -> (Backend, Tidegate) {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&yaml(&backend, admin));
    (backend, tidegate)
}

fn yaml(backend: &Backend, admin: &str) -> String {
    format!("admin: {{ {admin} }}\n{}", forward(backend.place(), "", ""))
}

/// The addresses that the log names, in its order.
fn addresses(tidegate: &Tidegate) -> Vec<Place> {
    let lines = tidegate.logs();
    lines.iter().filter(|line| line.is("stats port")).map(|line| Place::parse(&line.field("address"))).collect()
}

fn loopback(port: u16) -> Place {
    Place::Tcp((Ipv4Addr::LOCALHOST, port).into())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn process_at(place: &Place) -> u64 {
    get(place, "/stats").json()["process"]["pid"].as_u64().unwrap()
}

#[test]
fn every_address_of_the_list_answers() {
    let (_backend, tidegate) = start("bind: [127.0.0.1:0, \"[::1]:0\", \"unix:DIRECTORY/a.sock\"]");
    let places = addresses(&tidegate);
    assert_eq!(places.len(), 3);
    for place in &places {
        assert_eq!(get(place, "/readyz").status, 200, "{place}");
        assert_eq!(process_at(place), u64::from(tidegate.pid()));
        // Without a token, changes are for unix sockets.
        let expected = if matches!(place, Place::Unix(_)) { 200 } else { 403 };
        assert_eq!(call(place, "POST", "/api/reload", "").status, expected, "{place}");
    }
}

/// With a token too, who may open the unix socket needs none.
#[test]
fn token_is_for_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "s3cret\n").unwrap();
    let (_backend, tidegate) =
        start(&format!("bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"], token_file: {}", token.display()));
    for place in addresses(&tidegate) {
        let (read, changed) = if matches!(place, Place::Unix(_)) { (200, 200) } else { (401, 401) };
        assert_eq!(get(&place, "/stats").status, read, "{place}");
        assert_eq!(call(&place, "POST", "/api/reload", "").status, changed, "{place}");
    }
}

/// A socket whose file is gone is no reason to refuse what has nothing to do with it.
#[test]
fn change_does_not_need_every_socket_file() {
    let (_backend, tidegate) = start("bind: [\"unix:DIRECTORY/a.sock\", \"unix:DIRECTORY/b.sock\"]");
    fs::remove_file(tidegate.directory().join("b.sock")).unwrap();
    let place = Place::Unix(tidegate.directory().join("a.sock"));
    let answer = call(&place, "PATCH", "/api/pools/p/backends/b", "{\"weight\": 7}");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// An address that stays has the very same socket; one that goes is closed when its own change has been answered.
#[test]
fn reload_adds_and_removes_addresses() {
    let (backend, tidegate) = start("bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"]");
    let socket = tidegate.directory().join("a.sock");
    let (old, unix) = (tidegate.stats_port(), Place::Unix(socket.clone()));
    let inode = fs::metadata(&socket).unwrap().ino();
    let new = loopback(free_port());
    tidegate.rewrite(&yaml(&backend, &format!("bind: [\"unix:DIRECTORY/a.sock\", \"{new}\"]")));
    let answer = call(&unix, "POST", "/api/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(get(&new, "/livez").status, 200);
    assert!(try_connect(&old).is_err(), "it is closed");
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
    // The change that closes its own address.
    tidegate.rewrite(&yaml(&backend, &format!("bind: \"{new}\"")));
    let answer = call(&unix, "POST", "/api/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!socket.exists() && try_connect(&unix).is_err());
    assert_eq!(get(&new, "/livez").status, 200);
}

/// Of the others, streams go on.
#[test]
fn removed_address_ends_its_own_streams_alone() {
    let (backend, tidegate) = start("bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\", \"unix:DIRECTORY/b.sock\"]");
    let places = addresses(&tidegate);
    let mut streams: Vec<_> = places.iter().map(connect).collect();
    for stream in &mut streams {
        std::io::Write::write_all(stream, b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        expect(stream, b"HTTP/1.1 200");
    }
    tidegate.rewrite(&yaml(&backend, "bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"]"));
    assert_eq!(call(&places[1], "POST", "/api/reload", "").status, 200);
    read_to_end(&mut streams.pop().unwrap());
    assert_eq!(call(&places[1], "PATCH", "/api/pools/p/backends/b", "{\"weight\": 9}").status, 200);
    for stream in &mut streams {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("weight: 1 -> 9") {
            let mut bytes = [0; 4096];
            let count = std::io::Read::read(stream, &mut bytes).unwrap();
            assert!(count > 0, "it ended after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&bytes[..count]);
        }
    }
}

/// What waits in the queue of an address that goes gets its answer.
#[test]
fn connections_in_the_queue_of_a_removed_address_are_answered() {
    let (backend, tidegate) = start("bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"]");
    let (old, unix) = (tidegate.stats_port(), Place::Unix(tidegate.directory().join("a.sock")));
    tidegate.rewrite(&yaml(&backend, "bind: \"unix:DIRECTORY/a.sock\""));
    proc::signal(tidegate.pid(), Signal::STOP);
    let mut waiting: Vec<_> = (0..20).map(|_| connect(&old)).collect();
    for stream in &mut waiting {
        std::io::Write::write_all(stream, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    proc::signal(tidegate.pid(), Signal::HUP);
    proc::signal(tidegate.pid(), Signal::CONT);
    for mut stream in waiting {
        let (text, end) = read_to_end(&mut stream);
        assert!(text.starts_with(b"HTTP/1.1 200"), "{end:?} {}", String::from_utf8_lossy(&text));
    }
    eventually(DEADLINE, "the address is closed", || try_connect(&old).is_err());
    assert_eq!(get(&unix, "/livez").status, 200);
}

#[test]
fn failed_bind_fails_the_reload_as_a_whole() {
    let (backend, tidegate) = start("bind: \"unix:DIRECTORY/a.sock\"");
    let unix = Place::Unix(tidegate.directory().join("a.sock"));
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let free = loopback(free_port());
    let bind = format!("bind: [\"{free}\", \"{}\", \"unix:DIRECTORY/b.sock\"]", taken.local_addr().unwrap());
    tidegate.rewrite(&yaml(&backend, &format!("{bind}, socket_mode: \"0666\"")));
    let answer = call(&unix, "POST", "/api/reload", "");
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("it is in use"), "{}", answer.text());
    assert!(try_connect(&free).is_err() && !tidegate.directory().join("b.sock").exists());
    assert_eq!((get(&unix, "/livez").status, mode(&tidegate.directory().join("a.sock"))), (200, 0o600));
}

/// For good or for a moment: a process that connects in between must not get in.
#[test]
fn socket_has_its_mode_and_gets_another_by_a_reload() {
    let (backend, tidegate) = start("bind: \"unix:DIRECTORY/a.sock\"");
    let path = tidegate.directory().join("a.sock");
    let unix = Place::Unix(path.clone());
    assert_eq!(mode(&path), 0o600);
    let inode = fs::metadata(&path).unwrap().ino();
    tidegate.rewrite(&yaml(&backend, "bind: \"unix:DIRECTORY/a.sock\", socket_mode: \"0660\""));
    assert_eq!(call(&unix, "POST", "/api/reload", "").status, 200);
    assert_eq!((mode(&path), fs::metadata(&path).unwrap().ino()), (0o660, inode));
}

#[test]
fn clients_that_are_not_allowed_are_closed_unread() {
    let (backend, tidegate) = start("bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"], allow: [127.0.0.2, 10.0.0.0/8]");
    let (place, unix) = (tidegate.stats_port(), Place::Unix(tidegate.directory().join("a.sock")));
    for _ in 0..5 {
        let (text, end) = read_to_end(&mut connect(&place));
        assert!(text.is_empty(), "{text:?} {end:?}");
    }
    let mut admitted = connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), place.tcp());
    std::io::Write::write_all(&mut admitted, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (text, end) = read_to_end(&mut admitted);
    assert_eq!(end, End::Fin);
    assert!(text.starts_with(b"HTTP/1.1 200"));
    let metrics = get(&unix, "/metrics").text();
    assert!(metrics.contains("\ntidegate_admin_rejected_connections_total 5\n"), "{metrics}");
    // A command says what the cause may be.
    let at = place.to_string();
    for arguments in [&["weight", "p/b", "2"][..], &["connections"], &["healthcheck"], &["top", "--once"]] {
        for scheme in ["http", "https"] {
            let ran = tidegate.command(&[arguments, &["--admin", &format!("{scheme}://{at}")]].concat());
            assert!(ran.code == Some(1) && ran.err.contains("`admin.allow`"), "{arguments:?} {scheme} {ran:?}");
        }
    }
    let lines = tidegate.logs();
    let lines: Vec<_> = lines.iter().filter(|line| line.level() == "WARN").collect();
    assert!((1..5).contains(&lines.len()), "{lines:?}");
    assert_eq!(lines[0].field("client"), "127.0.0.1");
    // For new connections, without another socket.
    tidegate.rewrite(&yaml(&backend, "bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"]"));
    assert_eq!(call(&unix, "POST", "/api/reload", "").status, 200);
    assert_eq!(get(&place, "/livez").status, 200);
    // What is open under a rule that holds no longer, ends.
    let mut stream = connect(&place);
    std::io::Write::write_all(&mut stream, b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    expect(&mut stream, b"HTTP/1.1 200");
    tidegate.rewrite(&yaml(&backend, "bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"], allow: [127.0.0.2]"));
    assert_eq!(call(&unix, "POST", "/api/reload", "").status, 200);
    read_to_end(&mut stream);
}

#[test]
fn upgrade_hands_all_addresses_over() {
    let (backend, tidegate) = start("bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\", \"unix:DIRECTORY/b.sock\"]");
    let places = addresses(&tidegate);
    let (a, b) = (tidegate.directory().join("a.sock"), tidegate.directory().join("b.sock"));
    let inode = fs::metadata(&a).unwrap().ino();
    // Another mode, and one address less.
    tidegate.rewrite(&yaml(&backend, "bind: [127.0.0.1:0, \"unix:DIRECTORY/a.sock\"], socket_mode: \"0640\""));
    let successor = tidegate.upgrade();
    for place in &places[..2] {
        // The old process may accept until it drains.
        eventually(DEADLINE, &format!("the new one answers at {place}"), || process_at(place) == u64::from(successor));
    }
    assert_eq!((mode(&a), fs::metadata(&a).unwrap().ino()), (0o640, inode));
    eventually(DEADLINE, "the old process removes what is its own", || !b.exists());
    proc::signal(successor, Signal::TERM);
    eventually(DEADLINE, "it ends as any other", || !proc::runs(successor));
    assert!(!a.exists());
}

/// systemd keeps its file, its mode and its socket.
#[test]
fn sockets_of_a_unit_fit_each_address() {
    let (backend, folder) = (Backend::echo(), tempfile::tempdir().unwrap());
    let path = folder.path().join("admin.sock");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let place = Place::Tcp(tcp.local_addr().unwrap());
    let bind = format!("bind: [\"{place}\", \"unix:{}\"]", path.display());
    let launch = Tidegate::with(&yaml(&backend, &bind)).passing(vec![unix.into(), tcp.into()]);
    let tidegate = launch.start();
    for place in [place, Place::Unix(path.clone())] {
        assert_eq!(ask(&place, "GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n").status, 200);
    }
    assert_eq!(mode(&path), 0o666);
    tidegate.terminate();
}
