use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::thread;

use socket2::{Domain, SockRef, Socket, Type};

use super::super::parser::first_frame;
use super::*;
use crate::log::counters::LogCounters;
use crate::log::writer::{LogThread, LogWriter};

const DEADLINE: Duration = Duration::from_secs(60);

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn log(server: SyslogServer) -> (LogThread, LogWriter) {
    let log = LogThread::start(LogCounters::new("access"), SyslogSink::new(server)).unwrap();
    let writer = log.writer();
    (log, writer)
}

fn line(writer: &LogWriter, text: &str) {
    writer.line(format!("{text}\n").as_bytes());
}

fn datagram(receive: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> String {
    let mut buffer = vec![0; 65_536];
    let length = receive(&mut buffer).expect("a datagram");
    buffer.truncate(length);
    String::from_utf8(buffer).expect("UTF-8")
}

fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn udp_gets_a_datagram_for_each_line() {
    let (socket, address) = udp();
    let (_log, writer) = log(SyslogServer::Udp(address));
    for text in ["one", "two"] {
        line(&writer, text);
        assert_eq!(datagram(|buffer| socket.recv(buffer)), text);
    }
}

#[test]
fn long_line_is_cut_between_characters_and_counted() {
    let (socket, address) = udp();
    let (_log, writer) = log(SyslogServer::Udp(address));
    for before in 0..4 {
        let text = "x".repeat(before) + &"\u{1f600}".repeat(MAX_DATAGRAM / 4);
        line(&writer, &text);
        let got = datagram(|buffer| socket.recv(buffer));
        assert!(text.starts_with(&got) && (MAX_DATAGRAM - 3..=MAX_DATAGRAM).contains(&got.len()), "{}", got.len());
    }
    eventually("three are cut", || writer.counters().truncated_lines() == 3);
    assert_eq!(writer.counters().write_errors(), 0);
}

/// The host says so, for each datagram but the last.
#[test]
fn lines_to_a_udp_port_that_is_closed_are_counted_until_it_is_open() {
    let (socket, address) = udp();
    drop(socket);
    let (log, writer) = log(SyslogServer::Udp(address));
    (0..5).for_each(|_| line(&writer, "lost"));
    eventually("four are known to be lost", || writer.counters().write_errors() == 4);
    let failing = writer.counters().failing().expect("it fails");
    assert_eq!(&*failing.error, format!("syslog:{address}: Connection refused (os error 111)"));
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    line(&writer, "first");
    line(&writer, "second");
    assert_eq!(datagram(|buffer| socket.recv(buffer)), "first");
    assert_eq!(datagram(|buffer| socket.recv(buffer)), "second");
    eventually("the fault is over", || writer.counters().failing().is_none());
    assert!(log.queue().flush(Instant::now() + DEADLINE));
    assert_eq!((writer.counters().write_errors(), writer.counters().dropped_lines()), (5, 0));
}

#[test]
fn unix_datagram_socket_that_is_made_again_gets_every_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (_log, writer) = log(SyslogServer::Unix(path.clone()));
    line(&writer, "before there is a socket");
    eventually("lines wait", || writer.counters().failing().is_some());
    for round in 0..3 {
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        if round == 0 {
            assert_eq!(datagram(|buffer| socket.recv(buffer)), "before there is a socket");
        }
        for text in ["one", "two"] {
            line(&writer, text);
            assert_eq!(datagram(|buffer| socket.recv(buffer)), text);
        }
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(writer.counters().write_errors(), 0);
}

#[test]
fn unix_datagram_socket_that_is_full_gets_every_line_once_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let (log, writer) = log(SyslogServer::Unix(path));
    // More than any net.unix.max_dgram_qlen.
    let lines = 5_000;
    (0..lines).for_each(|number| line(&writer, &number.to_string()));
    assert!(!log.queue().flush(Instant::now()), "there is room for all");
    for number in 0..lines {
        assert_eq!(datagram(|buffer| socket.recv(buffer)), number.to_string());
    }
    assert_eq!(writer.counters().write_errors() + writer.counters().dropped_lines(), 0);
}

#[test]
fn unix_stream_socket_gets_lines_that_end_with_nul() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let listener = UnixListener::bind(&path).unwrap();
    let (_log, writer) = log(SyslogServer::Unix(path));
    line(&writer, "one");
    line(&writer, "two");
    let mut got = [0; 8];
    listener.accept().unwrap().0.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"one\0two\0");
}

/// The next whole message of a stream with octet counting.
fn frame(stream: &mut TcpStream, unread: &mut Vec<u8>) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    loop {
        if let Some((message, rest)) = first_frame(unread).unwrap() {
            let text = String::from_utf8(message.to_vec()).unwrap();
            *unread = rest.to_vec();
            return text;
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).expect("a message");
        assert!(count > 0, "the stream ends within a message");
        unread.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn tcp_server_that_closes_and_comes_back_gets_every_line() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (_log, writer) = log(SyslogServer::Tcp(address));
    line(&writer, "first");
    let (mut stream, _) = listener.accept().unwrap();
    // What a server sends is discarded, and does not fill a buffer.
    stream.write_all(b"hello").unwrap();
    let mut unread = Vec::new();
    assert_eq!(frame(&mut stream, &mut unread), "first");
    drop((stream, listener));
    for text in ["while it is away", "ä \" ]", "12 "] {
        line(&writer, text);
    }
    eventually("it is known to be away", || writer.counters().failing().is_some());
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_reuse_address(true).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(1).unwrap();
    let (mut stream, _) = TcpListener::from(listener).accept().unwrap();
    let mut unread = Vec::new();
    for text in ["while it is away", "ä \" ]", "12 "] {
        assert_eq!(frame(&mut stream, &mut unread), text);
    }
    eventually("it is reached", || writer.counters().failing().is_none());
    assert_eq!(writer.counters().write_errors() + writer.counters().dropped_lines(), 0);
}

/// It reads nothing, and dies.
#[test]
fn lines_that_a_dead_tcp_server_has_not_received_are_counted() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let (log, writer) = log(SyslogServer::Tcp(listener.local_addr().unwrap()));
    let padding = "x".repeat(1000);
    let lines: u64 = 4_000;
    (0..lines).for_each(|number| line(&writer, &format!("{number:04}{padding}")));
    let (dead, _) = listener.accept().unwrap();
    eventually("the connection is full", || !log.queue().flush(Instant::now() + DEADLINE));
    // Acknowledged, but never read.
    let mut buffer = vec![0; 1 << 20];
    let mut received = dead.peek(&mut buffer).unwrap() as u64;
    eventually("all that fits has come", || {
        let now = dead.peek(&mut buffer).unwrap() as u64;
        std::mem::replace(&mut received, now) == now
    });
    drop(dead);
    let (mut stream, _) = listener.accept().unwrap();
    let mut unread = Vec::new();
    let next: u64 = frame(&mut stream, &mut unread)[..4].parse().unwrap();
    for number in next + 1..lines {
        assert_eq!(frame(&mut stream, &mut unread)[..4], format!("{number:04}"));
    }
    let whole = received / (5 + 4 + 1000);
    assert!(next > whole + 1, "{next} lines were sent, and {whole} received");
    // One whose acknowledgement was under way counts as lost.
    let lost = writer.counters().write_errors();
    assert!((next - whole..=next - whole + 1).contains(&lost), "{lost} of {next}, of which {whole} were received");
}

#[test]
fn frames_are_in_flight_until_their_last_byte_is_acknowledged() {
    let mut frames = FramesInFlight { lengths: [10, 20, 30].into(), bytes: 60 };
    for (unacknowledged, left) in [(60, 3), (51, 3), (50, 2), (31, 2), (30, 1), (1, 1), (0, 0)] {
        frames.delivered(unacknowledged);
        assert_eq!(frames.lengths.len(), left, "{unacknowledged}");
    }
    frames = FramesInFlight { lengths: [10, 20, 30].into(), bytes: 60 };
    assert_eq!((frames.lost(31), frames.bytes, frames.lost(0)), (2, 0, 0));
}

#[test]
fn rest_of_a_line_that_was_dropped_is_sent_before_the_next() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut sink = SyslogSink::new(SyslogServer::Tcp(listener.local_addr().unwrap()));
    let long = "x".repeat(32 << 20);
    assert_eq!(sink.write(long.as_bytes()).unwrap(), Written::NotYet);
    let (mut stream, _) = listener.accept().unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    eventually("the next line", || matches!(sink.write(b"next\n").unwrap(), Written::Bytes(5)));
    drop(sink);
    let all = reader.join().unwrap();
    let (first, rest) = first_frame(&all).unwrap().expect("whole");
    assert_eq!((first.len(), rest), (long.len(), &b"4 next"[..]));
}

#[test]
fn cut_keeps_whole_characters() {
    for (text, limit, expected) in
        [("abc", 3, "abc"), ("abc", 2, "ab"), ("aä", 2, "a"), ("aä", 3, "aä"), ("\u{1f600}", 3, ""), ("", 0, "")]
    {
        assert_eq!(cut(text.as_bytes(), limit), expected.as_bytes(), "{text} {limit}");
    }
}
