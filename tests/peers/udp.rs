//! `protocol: udp` with other people's programs: DNS, QUIC, iperf3; and the loads of games and floods.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate::net::datagrams::{self, MAX_BATCH, OutgoingDatagram};

use crate::support::process::{Process, bound};
use crate::support::python;
use crate::support::stats::{ADMIN_SOCKET, counters};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// A port that is free for TCP and UDP.
fn free_port() -> u16 {
    let is_free = |port: &u16| {
        let address = (Ipv4Addr::LOCALHOST, *port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).find(is_free).unwrap()
}

/// Listeners of UDP and TCP at one port, and pools of backends at one port.
fn both(port: u16, backends: &[SocketAddr], udp: &str) -> String {
    let entries: Vec<String> = backends.iter().map(|it| format!("{{ address: \"{it}\" }}")).collect();
    let entries = entries.join(", ");
    format!(
        "{ADMIN_SOCKET}workers: 2\nlisteners:\n\
         - {{ name: u, protocol: udp, bind: \"127.0.0.1:{port}\", pool: u, udp: {{ {udp} }} }}\n\
         - {{ name: t, bind: \"127.0.0.1:{port}\", pool: t }}\n\
         pools:\n- {{ name: u, backends: [{entries}] }}\n- {{ name: t, backends: [{entries}] }}\n"
    )
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn dig_asks_dnsmasq_over_udp_and_tcp() {
    let (backend, front) = (free_port(), free_port());
    let long = "x".repeat(250);
    let mut command = bound("dnsmasq", "KILL");
    command
        .args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--conf-file=/dev/null",
            "--pid-file",
            "--user=root",
        ])
        .args(["--bind-interfaces", "--listen-address=127.0.0.1", "--address=/a.example/192.0.2.7"])
        .arg(format!("--port={backend}"))
        .arg(format!("--txt-record=long.example,{long},{long},{long},{long}"));
    let _dnsmasq = Process::start(command, Signal::KILL);
    let tidegate = Tidegate::start(&both(front, &[at(backend)], "responses: 1, idle: 10s"));
    let dig = |arguments: &[&str]| {
        let mut command = Command::new("dig");
        command.args(["@127.0.0.1", "-p", &front.to_string(), "+tries=20", "+time=1", "+short"]).args(arguments);
        output(&mut command).trim().to_owned()
    };
    for _ in 0..50 {
        assert_eq!(dig(&["a.example"]), "192.0.2.7");
    }
    assert!(dig(&["long.example", "TXT", "+bufsize=4096", "+ignore"]).len() > 1000, "one datagram for one");
    assert!(dig(&["long.example", "TXT", "+noedns"]).len() > 1000, "cut off, and asked again by TCP");
    eventually(DEADLINE, "sessions end with their answers", || tidegate.view().listeners[0].open == 0);
    assert!(tidegate.view().listeners[0].accepted >= 52);
}

#[test]
fn iperf3_loses_nothing_both_ways() {
    let (backend, front) = (free_port(), free_port());
    let mut command = bound("iperf3", "KILL");
    command.args(["-s", "-B", "127.0.0.1", "-p", &backend.to_string()]).stdout(Stdio::null());
    let _server = Process::start(command, Signal::KILL);
    eventually(DEADLINE, "it listens", || std::net::TcpStream::connect(at(backend)).is_ok());
    // The server of a reverse run streams to a client that has said one word.
    let tidegate = Tidegate::start(&both(front, &[at(backend)], "amplification: 0"));
    for direction in [&[][..], &["-R"]] {
        let mut command = Command::new("iperf3");
        command.args(["-u", "-c", "127.0.0.1", "-p", &front.to_string(), "-b", "20M", "-t", "2", "-P", "2", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&output(command.args(direction))).unwrap();
        let sum = &report["end"]["sum"];
        let (lost, packets) = (sum["lost_packets"].as_f64().unwrap(), sum["packets"].as_f64().unwrap());
        assert!(packets > 100.0 && lost <= packets / 100.0, "{direction:?}: {sum}");
        for stream in report["end"]["streams"].as_array().unwrap() {
            assert_eq!(stream["udp"]["out_of_order"].as_u64().unwrap_or(0), 0, "{stream}");
        }
    }
    assert!(tidegate.view().listeners[0].accepted >= 4);
}

const QUIC_SERVER: &str = "
import asyncio, sys
from aioquic.asyncio import serve
from aioquic.quic.configuration import QuicConfiguration
async def echo(reader, writer):
    writer.write(await reader.read())
    writer.write_eof()
async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=['echo'])
    configuration.load_cert_chain('certs/dev.pem', 'certs/dev.key')
    server = await serve('127.0.0.1', 0, configuration=configuration,
                         stream_handler=lambda reader, writer: asyncio.ensure_future(echo(reader, writer)))
    print(server._transport.get_extra_info('sockname')[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
";

const QUIC_CLIENT: &str = "
import asyncio, os, ssl, sys
from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration
port = int(sys.stdin.read())
async def one():
    configuration = QuicConfiguration(is_client=True, alpn_protocols=['echo'], verify_mode=ssl.CERT_NONE)
    async with connect('127.0.0.1', port, configuration=configuration) as client:
        for size in (1, 1000, 1_000_000):
            reader, writer = await client.create_stream()
            data = os.urandom(size)
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data, size
async def main():
    await asyncio.gather(*[one() for _ in range(8)])
asyncio.run(main())
print('done')
";

#[test]
fn quic_passes_unmodified() {
    let servers = [(); 2].map(|()| python::serve(QUIC_SERVER, &[]));
    let backends: Vec<SocketAddr> = servers.iter().map(|(_, port)| at(port.parse().unwrap())).collect();
    let front = free_port();
    let tidegate = Tidegate::start(&both(front, &backends, ""));
    assert_eq!(python::run(QUIC_CLIENT, front.to_string().as_bytes()).trim(), "done");
    let listener = &tidegate.view().listeners[0];
    let datagrams = listener.datagrams.as_ref().unwrap();
    assert_eq!(listener.accepted, 8);
    assert_eq!(datagrams.dropped["amplification"], 0, "a server of QUIC limits itself");
}

/// Answers each datagram by its name and what it got.
const ECHO: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
s.bind(('127.0.0.1', 0))
print(s.getsockname()[1], flush=True)
name = sys.argv[1].encode()
while True:
    data, client = s.recvfrom(65536)
    s.sendto(name + data, client)
";

/// A client of a game: numbered datagrams, and what came back.
struct Player {
    socket: UdpSocket,
    sent: u32,
    received: u32,
    last: u32,
    backend: Option<u8>,
    moved: u32,
    reordered: u32,
}

impl Player {
    fn new(server: SocketAddr) -> Player {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(server).unwrap();
        Player { socket, sent: 0, received: 0, last: 0, backend: None, moved: 0, reordered: 0 }
    }

    fn send(&mut self) {
        self.sent += 1;
        let _ = self.socket.send(&[&self.sent.to_be_bytes()[..], &[7; 40]].concat());
    }

    fn receive(&mut self) {
        let mut buffer = [0; 100];
        while let Ok(count) = self.socket.recv(&mut buffer) {
            assert_eq!(count, 45);
            self.received += 1;
            self.moved += u32::from(self.backend.replace(buffer[0]).is_some_and(|before| before != buffer[0]));
            let number = u32::from_be_bytes(buffer[1..5].try_into().unwrap());
            self.reordered += u32::from(number <= self.last);
            self.last = self.last.max(number);
        }
    }
}

/// Plays for a while, 30 datagrams a second each.
fn play(players: &mut [Player], time: Duration) {
    let started = Instant::now();
    let (mut tick, mut active) = (started, 0);
    while started.elapsed() < time {
        // Not all come in the same millisecond.
        active = if players.last().is_some_and(|last| last.sent > 0) { players.len() } else { active + 10 };
        players.iter_mut().take(active).for_each(Player::send);
        tick += Duration::from_millis(33);
        while Instant::now() < tick {
            players.iter_mut().for_each(Player::receive);
            thread::sleep(Duration::from_millis(10));
        }
    }
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        players.iter_mut().for_each(Player::receive);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Datagrams for which the receive buffers of some sockets had no room, by their local and remote ports.
fn without_room(of: impl Fn(u16, u16) -> bool) -> u64 {
    let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
    let drops = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
        of(port(fields[1]), port(fields[2])).then(|| fields[12].parse::<u64>().unwrap())
    };
    sockets.lines().skip(1).filter_map(drops).sum()
}

fn dropped(tidegate: &Tidegate) -> BTreeMap<String, u64> {
    tidegate.view().listeners[0].datagrams.as_ref().unwrap().dropped.clone()
}

#[test]
fn game_with_a_reload_a_second_moves_no_session_and_keeps_the_order() {
    let servers = ["a", "b", "c"].map(|name| python::serve(ECHO, &[name]));
    let backends: Vec<SocketAddr> = servers.iter().map(|(_, port)| at(port.parse().unwrap())).collect();
    let front = free_port();
    let tidegate = Tidegate::start(&both(front, &backends, ""));
    let over = AtomicBool::new(false);
    let players: Vec<Player> = thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                count += 1;
                let weight = count % 3 + 1;
                let text = both(front, &backends, &format!("idle: {}m", count % 5 + 1));
                let first = format!("\"{}\" }}", backends[0]);
                let text = text.replace(&first, &format!("\"{}\", weight: {weight} }}", backends[0]));
                tidegate.rewrite(&text);
                assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
                thread::sleep(Duration::from_secs(1));
            }
            count
        });
        let groups: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut players: Vec<Player> = (0..250).map(|_| Player::new(at(front))).collect();
                    play(&mut players, Duration::from_secs(8));
                    players
                })
            })
            .collect();
        let players = groups.into_iter().flat_map(|group| group.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(reloads.join().unwrap() >= 5);
        players
    });
    let mut players = players;
    let servers: Vec<u16> = backends.iter().map(SocketAddr::port).collect();
    let own: Vec<u16> = players.iter().map(|player| player.socket.local_addr().unwrap().port()).collect();
    // Each datagram has come back, or the kernel says which socket's buffer had no room for it.
    eventually(DEADLINE, "no datagram is lost without a trace", || {
        players.iter_mut().for_each(Player::receive);
        let missing = players.iter().map(|player| u64::from(player.sent - player.received)).sum::<u64>();
        missing
            == without_room(|local, remote| {
                local == front || servers.contains(&local) || servers.contains(&remote) || own.contains(&local)
            })
    });
    let sum = |of: fn(&Player) -> u32| players.iter().map(of).map(u64::from).sum::<u64>();
    let (sent, received) = (sum(|it| it.sent), sum(|it| it.received));
    let dropped = dropped(&tidegate);
    println!("{sent} sent, {received} received, dropped: {dropped:?}");
    assert_eq!((sum(|it| it.moved), sum(|it| it.reordered)), (0, 0));
    assert_eq!(tidegate.view().listeners[0].accepted, 1000, "a session each");
    let own: u64 = dropped.iter().filter(|(cause, _)| *cause != "socket_buffer").map(|(_, count)| count).sum();
    assert_eq!(own, 0, "{dropped:?}");
}

#[test]
fn sessions_of_a_killed_server_go_to_another() {
    let mut servers: Vec<(Process, String)> = ["a", "b"].map(|name| python::serve(ECHO, &[name])).into();
    let backends: Vec<SocketAddr> = servers.iter().map(|(_, port)| at(port.parse().unwrap())).collect();
    let front = free_port();
    let tidegate = Tidegate::start(&both(front, &backends, ""));
    let mut players: Vec<Player> = (0..50).map(|_| Player::new(at(front))).collect();
    play(&mut players, Duration::from_secs(1));
    assert_eq!(players.iter().filter(|player| player.backend == Some(b'a')).count(), 25);
    servers[0].0.kill();
    play(&mut players, Duration::from_secs(1));
    assert!(players.iter().all(|player| player.backend == Some(b'b')));
    assert!(players.iter().all(|player| player.sent - player.received <= 2), "what the error was about");
    assert_eq!(counters(&tidegate.stats_port())["tidegate_listener_sessions_moved_total{listener=\"u\"}"], 25.0);
}

/// A million forged addresses, at the pace that a sender on the same two cores has.
#[test]
fn flood_of_forged_addresses_costs_players_few_datagrams_and_memory_its_bound() {
    const FORGED: u32 = 1_000_000;
    let server = python::serve(ECHO, &["a"]);
    let front = free_port();
    let tidegate = Tidegate::start(&both(front, &[at(server.1.parse().unwrap())], "max_sessions: 4096"));
    let mut players: Vec<Player> = (0..100).map(|_| Player::new(at(front))).collect();
    play(&mut players, Duration::from_secs(1));
    let before = tidegate.resident();
    let (sent, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let started = Instant::now();
            for first in (0..FORGED).step_by(MAX_BATCH) {
                let forged: Vec<OutgoingDatagram<'_>> = (first..first + MAX_BATCH as u32)
                    .map(|number| OutgoingDatagram {
                        head: &[],
                        bytes: &[9; 44],
                        peer: Some(at(front)),
                        local: Some(IpAddr::V4(Ipv4Addr::from(0x7f01_0000 + number))),
                        segment: None,
                    })
                    .collect();
                sent.fetch_add(datagrams::send(&socket, &forged).0 as u64, Ordering::Relaxed);
                // 50,000 a second.
                let due = Duration::from_micros(u64::from(first) * 20);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            play(&mut players, Duration::from_secs(1));
        }
    });
    let (all, received) = players.iter().fold((0, 0), |(all, got), it| (all + it.sent, got + it.received));
    let (view, dropped) = (tidegate.view(), dropped(&tidegate));
    println!("{} forged, {received} of {all}, {:?}, {dropped:?}", sent.into_inner(), view.listeners[0].accepted);
    tidegate.logs().iter().filter(|line| line.level() == "WARN").take(5).for_each(|line| println!("{line:?}"));
    assert!(received * 10 >= all * 9, "{received} of {all}: {dropped:?}");
    assert!(players.iter().all(|player| (player.moved, player.reordered) == (0, 0)));
    assert!(view.listeners[0].open_max <= 4096);
    let grown = tidegate.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
}
