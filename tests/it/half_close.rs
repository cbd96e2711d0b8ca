//! FIN and RST mean on one side what they meant on the other; and every bound on a connection's life.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::support::backend::{Backend, Dead, Scripted, Unreachable};
use crate::support::client::{End, Place, connect, expect, read_to_end, reset};
use crate::support::data::{Summing, receive, send};
use crate::support::proc::unacknowledged;
use crate::support::tidegate::{Tidegate, forward, one_connection};
use crate::support::{DEADLINE, eventually};

const FIFTY_MIB: u64 = 50 << 20;

#[test]
fn a_client_that_has_finished_still_receives() {
    let (tidegate, mut client, mut backend) = one_connection("");
    finish_then_receive(&mut client, &mut backend);
    let line = tidegate.only_access();
    assert_eq!(line.end(), "client closed");
    assert_eq!(line.bytes(), (8, FIFTY_MIB));
}

#[test]
fn a_backend_that_has_finished_still_receives() {
    let (tidegate, mut client, mut backend) = one_connection("");
    finish_then_receive(&mut backend, &mut client);
    let line = tidegate.only_access();
    assert_eq!(line.end(), "backend closed");
    assert_eq!(line.bytes(), (FIFTY_MIB, 8));
}

/// `first` says something and finishes; `second` sees that, and then has much to say.
fn finish_then_receive(first: &mut TcpStream, second: &mut TcpStream) {
    first.write_all(b"question").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(second), (b"question".to_vec(), End::Fin));
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let sum = send(second, 21, FIFTY_MIB).unwrap();
            second.shutdown(Shutdown::Write).unwrap();
            sum
        });
        assert_eq!(receive(first).unwrap(), sent.join().unwrap());
    });
}

#[test]
fn after_the_clients_fin_a_silent_backend_is_not_waited_for() {
    let (tidegate, client, mut backend) = one_connection("timeouts: { half_close: 300ms }");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut backend).0, b"");
    closed_for(&client);
    assert_eq!(tidegate.only_access().end(), "half-close timeout");
}

#[test]
fn after_the_backends_fin_a_silent_client_is_not_waited_for() {
    let (tidegate, mut client, backend) = one_connection("timeouts: { half_close: 300ms }");
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).0, b"");
    closed_for(&backend);
    assert_eq!(tidegate.only_access().end(), "half-close timeout");
}

/// `half_close` is about silence: a side that still sends keeps the connection.
#[test]
fn half_closed_and_talking_is_not_cut() {
    steadily(|timeout, pause| {
        let keys = format!("timeouts: {{ half_close: {timeout:?} }}");
        let (_tidegate, mut client, mut backend) = one_connection(&keys);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut backend), (Vec::new(), End::Fin));
        let mut longest = Duration::ZERO;
        for _ in 0..30 {
            let sent = Instant::now();
            _ = backend.write_all(b"x");
            thread::sleep(pause);
            longest = longest.max(sent.elapsed());
        }
        _ = backend.shutdown(Shutdown::Write);
        (longest, read_to_end(&mut client) == (vec![b'x'; 30], End::Fin))
    });
}

/// A unix socket knows no half-close by close(2): the client is gone both ways at once. It has finished, as over TCP,
/// and not reset, also where a listener has addresses of both kinds.
#[test]
fn a_unix_client_that_closes_has_finished() {
    let (backend, folder) = (Scripted::start(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("in.sock");
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: [\"127.0.0.1:0\", \"unix:{}\"], pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
        socket.display(),
        backend.place()
    ));
    for (index, at) in [Place::Unix(socket), tidegate.at("in")].into_iter().enumerate() {
        let mut client = connect(&at);
        client.write_all(b"a job").unwrap();
        drop(client);
        let mut connection = backend.accept();
        assert_eq!(read_to_end(&mut connection), (b"a job".to_vec(), End::Fin), "{at}");
        drop(connection);
        eventually(DEADLINE, "its access line", || tidegate.access().len() == index + 1);
        assert_eq!(tidegate.access()[index].end(), "client closed", "{at}");
    }
}

#[test]
fn fin_without_a_byte() {
    let (tidegate, mut client, mut backend) = one_connection("");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut backend), (Vec::new(), End::Fin));
    backend.write_all(b"bye").unwrap();
    drop(backend);
    assert_eq!(read_to_end(&mut client), (b"bye".to_vec(), End::Fin));
    let line = tidegate.only_access();
    assert_eq!((line.end(), line.bytes()), ("client closed".to_owned(), (0, 3)));
}

/// Everything the client has to say is there before the backend is: its connect hangs for a while.
#[test]
fn fin_before_the_backend_is_connected() {
    let mut backend = Unreachable::start();
    let tidegate = Tidegate::start(&forward(backend.address(), "", "timeouts: { connect: 30s }"));
    let before = tidegate.open_files();
    let mut client = connect(&tidegate.at("in"));
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    eventually(DEADLINE, "it is dialling", || tidegate.open_files() >= before + 2);

    let mut connection = backend.accept_next();
    assert_eq!(read_to_end(&mut connection), (b"all of it".to_vec(), End::Fin));
    connection.write_all(b"answer").unwrap();
    drop(connection);
    assert_eq!(read_to_end(&mut client), (b"answer".to_vec(), End::Fin));
    assert_eq!(tidegate.only_access().end(), "client closed");
}

#[test]
fn a_client_that_resets_while_dialling_ends_the_dial() {
    let backend = Unreachable::start();
    let tidegate = Tidegate::start(&forward(backend.address(), "", "timeouts: { connect: 1h }"));
    let before = tidegate.open_files();
    let client = connect(&tidegate.at("in"));
    eventually(DEADLINE, "it is dialling", || tidegate.open_files() >= before + 2);
    reset(client);
    assert_eq!(tidegate.only_access().end(), "client left");
    eventually(DEADLINE, "both sockets are closed", || tidegate.open_files() == before);
}

/// The last bytes and the FIN come in one segment, so in one event.
#[test]
fn data_and_fin_in_one_segment() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), "", ""));
    for round in 0..200_usize {
        let mut client = connect(&tidegate.at("in"));
        let mut backend = scripted.accept();
        // Every other round the connection has relayed before.
        if round % 2 == 1 {
            client.write_all(b"hello").unwrap();
            expect(&mut backend, b"hello");
        }
        let message = vec![b'm'; 1 + round * 7];
        write_with_fin(&mut client, &message);
        let (received, end) = read_to_end(&mut backend);
        assert_eq!((received.len(), end), (message.len(), End::Fin), "round {round}");
        assert!(received == message, "other bytes than were sent in round {round}");
        write_with_fin(&mut backend, b"and back");
        assert_eq!(read_to_end(&mut client), (b"and back".to_vec(), End::Fin), "round {round}");
    }
}

fn write_with_fin(stream: &mut TcpStream, bytes: &[u8]) {
    sockopt::set_tcp_cork(&*stream, true).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn fin_from_both_sides_at_once() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!("workers: 2\n{}", forward(scripted.place(), "", "")));
    let finish = |mut stream: TcpStream, text: &[u8]| {
        stream.write_all(text).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_to_end(&mut stream)
    };
    for round in 0..500 {
        let client = connect(&tidegate.at("in"));
        let backend = scripted.accept();
        thread::scope(|scope| {
            let backend = scope.spawn(|| finish(backend, b"from the backend"));
            assert_eq!(finish(client, b"from the client"), (b"from the backend".to_vec(), End::Fin), "round {round}");
            assert_eq!(backend.join().unwrap(), (b"from the client".to_vec(), End::Fin), "round {round}");
        });
    }
    tidegate.wait_for_access("the last of 500", |_| tidegate.access().len() == 500);
    for line in tidegate.access() {
        assert!(["client closed", "backend closed"].contains(&line.end().as_str()), "{line:?}");
    }
}

#[test]
fn a_clients_rst_arrives_after_the_bytes_before_it() {
    let (tidegate, client, backend) = one_connection("");
    write_then_reset(client, backend);
    let line = tidegate.only_access();
    assert_eq!((line.end(), line.bytes()), ("client reset".to_owned(), (32 * 1024, 0)));
}

#[test]
fn a_backends_rst_arrives_after_the_bytes_before_it() {
    let (tidegate, client, backend) = one_connection("");
    write_then_reset(backend, client);
    let line = tidegate.only_access();
    assert_eq!((line.end(), line.bytes()), ("backend reset".to_owned(), (0, 32 * 1024)));
}

fn write_then_reset(mut first: TcpStream, mut second: TcpStream) {
    let bytes: Vec<u8> = (0..32 * 1024_u32).map(|index| index.to_le_bytes()[0]).collect();
    first.write_all(&bytes).unwrap(); // fits into the first window: the kernel has handed it over when this returns
    reset(first);
    let (received, end) = read_to_end(&mut second);
    assert_eq!((received.len(), end), (bytes.len(), End::Reset));
    assert!(received == bytes, "other bytes than were sent");
}

/// The one who reads is slow: what was sent before the RST is still under way, and arrives all the same.
#[test]
fn a_rst_does_not_overtake_what_is_under_way() {
    const BYTES: u64 = 1 << 20;
    for up in [true, false] {
        let (tidegate, client, backend) = one_connection("");
        let (mut writer, mut reader) = if up { (client, backend) } else { (backend, client) };
        let sent = send(&mut writer, 23, BYTES).unwrap();
        eventually(DEADLINE, "it has left the writer", || unacknowledged(&writer) == 0);
        reset(writer);
        let mut got = Summing::default();
        let mut buffer = [0; 16 * 1024];
        let end = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break End::Fin,
                Ok(count) => got.add(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
                Err(error) => panic!("{error}"),
            }
            thread::sleep(Duration::from_micros(200));
        };
        assert_eq!((got.sum(), end), (sent, End::Reset), "up: {up}");
        assert_eq!(tidegate.only_access().end(), if up { "client reset" } else { "backend reset" });
    }
}

/// A reset while the other side is in the middle of a bulk: it gets a part, and no FIN that would make it look whole.
#[test]
fn a_rst_during_a_bulk_is_not_a_fin() {
    let (tidegate, client, mut backend) = one_connection("");
    thread::scope(|scope| {
        scope.spawn(move || {
            send(&mut &client, 22, 20 << 20).unwrap();
            reset(client);
        });
        let (bytes, end) = read_to_end(&mut backend);
        assert_eq!(end, End::Reset, "after {} bytes", bytes.len());
        assert!(bytes.len() <= 20 << 20);
    });
    assert_eq!(tidegate.only_access().end(), "client reset");
}

/// Who closes without having read sends RST, not FIN.
#[test]
fn a_client_that_closes_with_unread_bytes() {
    let (tidegate, client, mut backend) = one_connection("");
    backend.write_all(b"never read").unwrap();
    closed_with_unread(client);
    assert_eq!(read_to_end(&mut backend), (Vec::new(), End::Reset));
    assert_eq!(tidegate.only_access().end(), "client reset");
}

#[test]
fn a_backend_that_closes_with_unread_bytes() {
    let (tidegate, mut client, backend) = one_connection("");
    client.write_all(b"never read").unwrap();
    closed_with_unread(backend);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    assert_eq!(tidegate.only_access().end(), "backend reset");
}

fn closed_with_unread(stream: TcpStream) {
    assert!(stream.peek(&mut [0]).unwrap() > 0);
    drop(stream);
}

/// A side that has sent FIN, and was read to its end, may still reset.
#[test]
fn rst_after_fin() {
    let (tidegate, client, mut backend) = one_connection("");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut backend), (Vec::new(), End::Fin));
    reset(client);
    // Reading says "end" as before, so the news is the socket's error; nobody has to write to find out.
    eventually(DEADLINE, "the RST is passed on", || backend.take_error().unwrap().is_some());
    assert_eq!(tidegate.only_access().end(), "client reset");
}

#[test]
fn idle_connections_are_closed() {
    let (tidegate, mut client, mut backend) = one_connection("timeouts: { idle: 300ms }");
    client.write_all(b"last words").unwrap();
    expect(&mut backend, b"last words");
    closed_for(&client);
    closed_for(&backend);
    let line = tidegate.only_access();
    assert_eq!((line.end(), line.bytes()), ("idle timeout".to_owned(), (10, 0)));
}

/// Bytes in one direction only keep a connection, whichever it is.
#[test]
fn a_byte_in_either_direction_is_activity() {
    steadily(|timeout, pause| {
        let scripted = Scripted::start();
        let keys = format!("timeouts: {{ idle: {timeout:?} }}");
        let tidegate = Tidegate::start(&forward(scripted.place(), &keys, ""));
        let mut up = (connect(&tidegate.at("in")), scripted.accept());
        let mut down = (connect(&tidegate.at("in")), scripted.accept());
        let mut longest = Duration::ZERO;
        for _ in 0..30 {
            let sent = Instant::now();
            _ = up.0.write_all(b"u");
            _ = down.1.write_all(b"d");
            thread::sleep(pause);
            longest = longest.max(sent.elapsed());
        }
        _ = up.0.shutdown(Shutdown::Write);
        _ = down.1.shutdown(Shutdown::Write);
        let up = read_to_end(&mut up.1) == (vec![b'u'; 30], End::Fin);
        let down = read_to_end(&mut down.0) == (vec![b'd'; 30], End::Fin);
        (longest, up && down)
    });
}

#[test]
fn the_lifetime_ends_also_busy_connections() {
    let (tidegate, mut client, mut backend) = one_connection("timeouts: { lifetime: 500ms }");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = [0; 1024];
            while backend.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        let deadline = Instant::now() + DEADLINE;
        while client.write_all(b"busy").is_ok() {
            assert!(Instant::now() < deadline, "it lives on");
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(tidegate.only_access().end(), "lifetime reached");
}

#[test]
fn a_dead_backend_closes_the_client_at_once() {
    let dead = Dead::start();
    let tidegate = Tidegate::start(&forward(dead.address(), "", ""));
    let mut client = connect(&tidegate.at("in"));
    assert_eq!(read_to_end(&mut client).0, b"");
    let line = tidegate.only_access();
    assert_eq!(line.end(), "rejected: connect failed");
    assert_eq!(line.field("client"), client.local_addr().unwrap().to_string());
    assert_eq!(line.bytes(), (0, 0));
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    let backend = Unreachable::start();
    let tidegate = Tidegate::start(&forward(backend.address(), "", "retries: 0, timeouts: { connect: 300ms }"));
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"");
    assert_eq!(tidegate.only_access().end(), "rejected: connect failed");
}

/// The client never notices that the first choice was dead.
#[test]
fn another_backend_is_tried() {
    let (dead, alive) = (Dead::start(), Backend::named("alive"));
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, retries: 1, backends: [{{ name: dead, address: \"{}\" }}, {{ name: alive, address: \"{}\" }}] }}]",
        dead.address(),
        alive.place()
    ));
    for _ in 0..10 {
        assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))), (b"alive".to_vec(), End::Fin));
    }
    tidegate.wait_for_access("the last", |_| tidegate.access().len() == 10);
    for line in tidegate.access() {
        assert_eq!(line.backend(), Some("alive"));
        assert_eq!(line.end(), "backend closed");
        assert!(line.number("connect_ms").is_some(), "{line:?}");
    }
}

/// Waits until the other side has closed this stream, by FIN or RST.
fn closed_for(stream: &TcpStream) {
    match (&*stream).read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

/// Runs an attempt that sends 30 times, with a pause after each, on connections with a timeout of 13 pauses. It returns its
/// longest pause and whether it went well. A machine too busy to send in time proves nothing: the next attempt has more of it.
fn steadily(attempt: impl Fn(Duration, Duration) -> (Duration, bool)) {
    for pause in [30, 30, 30, 150, 150, 150, 150].map(Duration::from_millis) {
        let timeout = pause * 13;
        let (longest, well) = attempt(timeout, pause);
        if longest < timeout / 2 {
            assert!(well, "cut although it was never silent for longer than {longest:?}");
            return;
        }
    }
    panic!("this machine is too busy to send every 150 ms");
}
