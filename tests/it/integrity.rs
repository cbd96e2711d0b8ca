//! What one side sent, the other receives: all of it, in order, once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::support::backend::{Backend, echo, in_thread};
use crate::support::client::{Place, connect};
use crate::support::data::{Sum, Summing, receive, send, send_in};
use crate::support::tidegate::{Tidegate, forward, one_connection};
use crate::support::{DEADLINE, eventually, tell};

const MIB: u64 = 1 << 20;

#[test]
fn bulk_each_way_at_the_same_time_arrives_unchanged() {
    let (_tidegate, client, backend) = one_connection("");
    let (to_backend, to_client) = both_ways(&client, &backend, 64 * MIB);
    assert_eq!(to_backend.0, to_backend.1, "client to backend");
    assert_eq!(to_client.0, to_client.1, "backend to client");
    assert_eq!((to_backend.1.bytes, to_client.1.bytes), (64 * MIB, 64 * MIB));
}

#[test]
fn writes_of_one_byte() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), "", ""));
    let mut client = connect(&tidegate.at("in"));
    client.set_nodelay(true).unwrap();
    // Each alone on the way ...
    for round in 0..2_000_u32 {
        let byte = [u8::try_from(round % 251).unwrap()];
        client.write_all(&byte).unwrap();
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, byte, "round {round}");
    }
    // ... and many behind each other.
    assert_echoed(&client, 1, 5_000, |_| 1);
}

#[test]
fn writes_of_200_bytes_with_pauses() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), "", ""));
    let client = connect(&tidegate.at("in"));
    client.set_nodelay(true).unwrap();
    assert_echoed(&client, 2, 200 * 500, |_| {
        thread::sleep(Duration::from_millis(1));
        200
    });
}

/// Small segments fill a pipe long before its size is reached: each takes a slot of its own. What counts is that this is not
/// taken for an empty socket.
#[test]
fn small_segments_for_a_reader_that_pauses_after_a_bulk() {
    const BULK: u64 = 16 * MIB;
    const SMALL: u64 = 200 * 5_000;
    let (_tidegate, client, mut backend) = one_connection("");
    client.set_nodelay(true).unwrap();
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        let bulk = scope.spawn(|| send(&mut &client, 3, BULK).unwrap());
        let mut summing = Summing::default();
        copy_exactly(&mut backend, BULK, &mut summing);
        assert_eq!(summing.sum(), bulk.join().unwrap());

        let small = scope.spawn(|| {
            let sum = send_in(&mut Counting(&client, &written), 4, SMALL, |rng| {
                if rng.u8(..) < 16 {
                    thread::sleep(Duration::from_millis(1));
                }
                200
            });
            client.shutdown(Shutdown::Write).unwrap();
            sum.unwrap()
        });
        eventually(DEADLINE, "100 kB are on their way", || written.load(Ordering::SeqCst) >= 100_000);
        assert_eq!(receive(&mut backend).unwrap(), small.join().unwrap());
    });
}

/// There is no second band behind the balancer: an urgent byte goes in its place, copied or amid a bulk that is spliced.
#[test]
fn an_urgent_byte_is_not_lost() {
    for chunk in [10, 300_000] {
        let (_tidegate, client, backend) = one_connection("");
        for (from, mut to) in [(&client, &backend), (&backend, &client)] {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut from = from;
                    for _ in 0..50 {
                        from.write_all(&vec![b'.'; chunk]).unwrap();
                        assert_eq!(rustix::net::send(from, b"!", SendFlags::OOB).unwrap(), 1);
                        from.write_all(b"after").unwrap();
                    }
                });
                for round in 0..50 {
                    let mut received = vec![0; chunk + 6];
                    to.read_exact(&mut received)
                        .unwrap_or_else(|error| panic!("{chunk} bytes, round {round}: {error}"));
                    assert!(received.ends_with(b".!after"), "{chunk} bytes, round {round}");
                }
            });
        }
    }
}

#[test]
fn writes_of_many_sizes() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&forward(backend.place(), "", ""));
    let client = connect(&tidegate.at("in"));
    let powers: Vec<usize> = (0..20).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]).collect();
    let mut sizes = powers.iter().copied().filter(|size| *size > 0).cycle();
    assert_echoed(&client, 5, 32 * MIB, |_| sizes.next().unwrap());
}

/// Traffic turns from small to large and back, in both directions, many times over.
#[test]
fn small_and_large_in_turn() {
    let (_tidegate, client, backend) = one_connection("");
    let mixed = |seed, stream: &TcpStream| {
        let sum = send_in(&mut &*stream, seed, 64 * MIB, |rng: &mut Rng| match rng.u8(..4) {
            0 => rng.usize(1..100),
            1 => rng.usize(100..10_000),
            2 => rng.usize(10_000..200_000),
            _ => rng.usize(200_000..2_000_000),
        });
        stream.shutdown(Shutdown::Write).unwrap();
        sum.unwrap()
    };
    thread::scope(|scope| {
        let sent_up = scope.spawn(|| mixed(6, &client));
        let sent_down = scope.spawn(|| mixed(7, &backend));
        let got_up = scope.spawn(|| receive(&mut &backend).unwrap());
        assert_eq!(receive(&mut &client).unwrap(), sent_down.join().unwrap(), "backend to client");
        assert_eq!(got_up.join().unwrap(), sent_up.join().unwrap(), "client to backend");
    });
}

#[test]
fn many_connections_at_once() {
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("workers: 2\n{}", forward(backend.place(), "", "")));
    let place = tidegate.at("in");
    thread::scope(|scope| {
        for thread in 0..16 {
            let place = &place;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(100 + thread);
                for _ in 0..16 {
                    let (seed, bytes, chunk) = (rng.u64(..), rng.u64(1..512 * 1024), rng.usize(1..100_000));
                    assert_echoed(&connect(place), seed, bytes, |_| chunk);
                }
            });
        }
    });
    tidegate.wait_for_access("the last one", |_| tidegate.access().len() == 256);
    for line in tidegate.access() {
        assert_eq!(line.bytes().0, line.bytes().1, "an echo is as long as what it answers: {line:?}");
        assert_eq!(line.end(), "client closed");
    }
}

/// The other side does not read: the process stops reading too, keeps next to nothing, and delivers everything afterwards.
#[test]
fn a_paused_backend_costs_no_memory() {
    let (tidegate, client, backend) = one_connection("");
    paused(&tidegate, &client, &backend);
}

#[test]
fn a_paused_client_costs_no_memory() {
    let (tidegate, client, backend) = one_connection("");
    paused(&tidegate, &backend, &client);
}

/// The same without a bulk before it, in writes too small for it to be moved as one.
#[test]
fn a_pause_among_small_writes() {
    for up in [true, false] {
        let (_tidegate, client, backend) = one_connection("");
        let (writer, reader) = if up { (client, backend) } else { (backend, client) };
        writer.set_nodelay(true).unwrap();
        let (fits, sent) = fill(&writer, 700, Duration::from_micros(50), Duration::from_millis(50));
        assert!(fits > 16 * 1024, "{fits} bytes");
        thread::scope(|scope| {
            let got = scope.spawn(|| receive(&mut &reader).unwrap());
            writer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(got.join().unwrap(), sent, "up: {up}");
        });
    }
}

fn paused(tidegate: &Tidegate, writer: &TcpStream, reader: &TcpStream) {
    // Warm: buffers and pipes of the worker are there already.
    thread::scope(|scope| {
        let sent = scope.spawn(|| send(&mut &*writer, 8, 64 * MIB).unwrap());
        let mut got = Summing::default();
        copy_exactly(&mut &*reader, 64 * MIB, &mut got);
        assert_eq!(got.sum(), sent.join().unwrap());
    });

    let before = tidegate.resident();
    let (fits, sent) = fill(writer, 64 * 1024, Duration::ZERO, Duration::from_millis(700));
    let grown = tidegate.resident().saturating_sub(before);
    tell(&format!("{fits} bytes fit into a connection whose reader pauses; the process grew by {grown} bytes"));
    assert!(grown < MIB, "the process grew by {grown} bytes");

    thread::scope(|scope| {
        let got = scope.spawn(|| receive(&mut &*reader).unwrap());
        writer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(got.join().unwrap(), sent);
    });
}

/// Writes such chunks, with a pause after each, until nothing has moved for so long.
fn fill(stream: &TcpStream, chunk: usize, pause: Duration, blocked: Duration) -> (u64, Sum) {
    const MAX_BUFFERED: u64 = 512 * MIB;
    stream.set_nonblocking(true).unwrap();
    let mut rng = Rng::with_seed(9);
    let mut summing = Summing::default();
    let mut buffer = vec![0; chunk];
    let mut written = 0;
    let mut moved = Instant::now();
    'all: loop {
        thread::sleep(pause);
        rng.fill(&mut buffer);
        let mut left = &buffer[..];
        while !left.is_empty() {
            match (&*stream).write(left) {
                Ok(count) => {
                    summing.add(&left[..count]);
                    left = &left[count..];
                    written += count as u64;
                    moved = Instant::now();
                    assert!(written < MAX_BUFFERED, "{written} bytes were taken for a reader that does not read");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if moved.elapsed() > blocked {
                        break 'all;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("after {written} bytes: {error}"),
            }
        }
    }
    stream.set_nonblocking(false).unwrap();
    (written, summing.sum())
}

/// IPv4, IPv6 and unix sockets, on either side.
#[test]
fn every_kind_of_socket_to_every_other() {
    let directory = tempfile::tempdir().unwrap();
    let v4 = Backend::bind("127.0.0.1:0".parse().unwrap(), in_thread(echo));
    let v6 = Backend::bind("[::1]:0".parse().unwrap(), in_thread(echo));
    let unix = Backend::bind_unix(&directory.path().join("backend.sock"), in_thread(echo));

    let mut yaml = String::from("pools:\n");
    let backends = [("v4", v4.place()), ("v6", v6.place()), ("unix", unix.place())];
    for (name, place) in backends {
        yaml += &format!("  - {{ name: {name}, backends: [{{ address: \"{place}\" }}] }}\n");
    }
    yaml += "listeners:\n";
    for (pool, _) in backends {
        let socket = directory.path().join(format!("to-{pool}.sock"));
        for (kind, bind) in [
            ("v4", "127.0.0.1:0".to_owned()),
            ("v6", "[::1]:0".to_owned()),
            ("unix", format!("unix:{}", socket.display())),
        ] {
            yaml += &format!("  - {{ name: {kind}-{pool}, bind: \"{bind}\", pool: {pool} }}\n");
        }
    }

    let tidegate = Tidegate::start(&yaml);
    for (pool, place) in backends {
        for kind in ["v4", "v6", "unix"] {
            let listener = format!("{kind}-{pool}");
            let at = tidegate.at(&listener);
            assert_eq!(matches!(at, Place::Unix(_)), kind == "unix", "{listener}: {at}");
            assert_echoed(&connect(&at), 10, 3 * MIB, |_| 70_000);
            let line = tidegate.wait_for_access(&listener, |line| line.field("listener") == listener);
            assert_eq!(line.end(), "client closed");
            assert_eq!(
                line.backend(),
                Some(place.to_string().as_str()),
                "a backend without a name is called by its address"
            );
            assert_eq!(line.bytes(), (3 * MIB, 3 * MIB));
        }
    }
}

/// One listener at several addresses.
/// A unix socket whose queue is full says so at once, and nothing tells when it no longer is.
#[test]
fn a_full_unix_queue_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backend.sock");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let mut queued = Vec::new();
    loop {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        match rustix::net::connect(&socket, &SocketAddrUnix::new(&path).unwrap()) {
            Ok(()) => queued.push(socket),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    let tidegate = Tidegate::start(&forward(Place::Unix(path), "", ""));
    let before = tidegate.open_files();
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"patient").unwrap();
    eventually(DEADLINE, "it is accepted", || tidegate.open_files() > before);
    for _ in &queued {
        listener.accept().unwrap();
    }
    let (mut connection, _) = listener.accept().unwrap();
    let mut received = [0; 7];
    connection.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"patient");
}

#[test]
fn several_addresses_of_one_listener() {
    let backend = Backend::named("here");
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: [\"127.0.0.1:0\", \"[::1]:0\", \"127.0.0.2:0\"], pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
        backend.place()
    ));
    let addresses: Vec<Place> = tidegate
        .logs()
        .iter()
        .filter(|line| line.is("listening"))
        .map(|line| Place::parse(&line.field("address")))
        .collect();
    assert_eq!(addresses.len(), 3, "a line for each address: {addresses:?}");
    for address in &addresses {
        assert_eq!(receive(&mut connect(address)).unwrap().bytes, 4, "{address}");
    }
}

/// Sends `bytes` from either end at the same time; what was sent and received, first to the backend, then to the client.
fn both_ways(client: &TcpStream, backend: &TcpStream, bytes: u64) -> ((Sum, Sum), (Sum, Sum)) {
    thread::scope(|scope| {
        let ends = [(client, backend, 11), (backend, client, 12)];
        let [up, down] = ends.map(|(mut from, mut to, seed)| {
            let sent = scope.spawn(move || {
                let sum = send(&mut from, seed, bytes).unwrap();
                from.shutdown(Shutdown::Write).unwrap();
                sum
            });
            let got = scope.spawn(move || receive(&mut to).unwrap());
            (sent, got)
        });
        ((up.0.join().unwrap(), up.1.join().unwrap()), (down.0.join().unwrap(), down.1.join().unwrap()))
    })
}

/// Writes `bytes` bytes in such chunks to an echo, and reads them back meanwhile.
fn assert_echoed(client: &TcpStream, seed: u64, bytes: u64, chunk: impl FnMut(&mut Rng) -> usize + Send) {
    thread::scope(|scope| {
        let sent = scope.spawn(move || {
            let sum = send_in(&mut &*client, seed, bytes, chunk).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            sum
        });
        let got = receive(&mut &*client).unwrap();
        assert_eq!(got, sent.join().unwrap());
        assert_eq!(got.bytes, bytes);
    });
}

fn copy_exactly(from: &mut impl Read, bytes: u64, into: &mut Summing) {
    let mut buffer = vec![0; 128 * 1024];
    let mut left = bytes;
    while left > 0 {
        let size = buffer.len().min(usize::try_from(left).unwrap());
        let count = from.read(&mut buffer[..size]).unwrap();
        assert!(count > 0, "it ended {left} bytes too early");
        into.add(&buffer[..count]);
        left -= count as u64;
    }
}

/// Counts what was written.
struct Counting<'a>(&'a TcpStream, &'a AtomicU64);

impl Write for Counting<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let mut stream = self.0;
        let count = stream.write(buffer)?;
        self.1.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
