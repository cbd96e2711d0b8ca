//! WebSocket through `protocol: http`: client and server are those of Python's websockets.

use std::io::Write;

use crate::support::authority::Authority;
use crate::support::client::{End, connect, read_to_end};
use crate::support::process::Process;
use crate::support::python;
use crate::support::stats::ADMIN;
use crate::support::tidegate::Tidegate;
use crate::support::web::{balance_requests, over_tls};

/// Sends back each message, and closes when it is `close`.
const SERVER: &str = "
from websockets.sync.server import serve
def echo(socket):
    for message in socket:
        if message == 'close':
            socket.close(4001, 'as asked')
        else:
            socket.send(message)
with serve(echo, '127.0.0.1', 0, max_size=None, subprotocols=['chat']) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
";

const CLIENT: &str = "
import os, ssl, sys
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
address, _, ca = sys.stdin.read().partition('\\n')
context = ssl.create_default_context(cadata=ca) if ca else None
if context:
    context.set_alpn_protocols(['http/1.1'])
url = ('wss://' if ca else 'ws://') + address + '/chat'
with connect(url, ssl=context, subprotocols=['chat'], max_size=None, proxy=None) as socket:
    assert socket.subprotocol == 'chat'
    for number in range(200):
        socket.send('text %d' % number)
        assert socket.recv(timeout=60) == 'text %d' % number
    for size in (0, 1, 125, 126, 65_535, 65_536, 3_000_000):
        message = os.urandom(size)
        socket.send(message)
        assert socket.recv(timeout=60) == message, size
    assert socket.ping().wait(60)
with connect(url, ssl=context, subprotocols=['chat'], proxy=None) as socket:
    socket.send('close')
    try:
        socket.recv(timeout=60)
        raise SystemExit('it is not closed')
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 4001 and closed.rcvd.reason == 'as asked', closed
print('done')
";

fn server() -> (Process, String) {
    let (process, port) = python::serve(SERVER, &[]);
    (process, format!("127.0.0.1:{port}"))
}

#[test]
fn messages_go_both_ways_and_either_side_closes() {
    let (_server, at) = server();
    let authority = Authority::new();
    let issued = authority.issue(&["127.0.0.1"]);
    let ca = std::fs::read_to_string(authority.file()).unwrap();
    for (listener, ca) in [("", ""), (over_tls(&issued).as_str(), ca.as_str())] {
        let tidegate = Tidegate::start(&format!("{ADMIN}{}", balance_requests(&[&at], listener, "")));
        let said = python::run(CLIENT, format!("{}\n{ca}", tidegate.at("in")).as_bytes());
        assert_eq!(said.trim(), "done", "{listener}");
    }
}

#[test]
fn bytes_that_come_before_the_101_are_refused() {
    let (_server, at) = server();
    let tidegate = Tidegate::start(&balance_requests(&[&at], "", ""));
    let mut client = connect(&tidegate.at("in"));
    // A masked text of five bytes: "hello".
    let frame = [0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'];
    let head = "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(&[head.as_bytes(), &frame].concat()).unwrap();
    let (bytes, end) = read_to_end(&mut client);
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(end, End::Reset, "{text}");
    // At most the backend's 101 came through: nothing of what an echo would be.
    assert!(text.is_empty() || (text.starts_with("HTTP/1.1 101 ") && text.ends_with("\r\n\r\n")), "{text}");
}
