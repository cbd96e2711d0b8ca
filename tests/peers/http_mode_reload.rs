//! Reloads under clients with kept connections of `protocol: http`: no request fails.

use rustix::process::Signal;

use crate::support::authority::Authority;
use crate::support::peer::Peer;
use crate::support::python::Script;
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::Tidegate;
use crate::support::web::{answered, nginx_named, over_tls};
use crate::support::{DEADLINE, eventually, tell};

/// Clients of Python until its standard input ends: of HTTP/1.1, and of HTTP/2 with eight streams at a time, in plain text and over TLS.
///
/// A connection that closes before a request was written on it, or a GOAWAY that says that a stream was not processed, is no failure:
/// the client connects again (RFC 9112, 9.3.1; RFC 9113, 6.8). So is a close of a kept connection that crosses a request: nothing of
/// an answer has come, and the request is sent once more, but it is counted.
const CLIENTS: &str = r#"
import http.client, socket, ssl, sys, threading
import h2.config, h2.connection, h2.events
plain, tls, ca, versions = sys.stdin.readline().split()
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(['h2'])
over, lock = threading.Event(), threading.Lock()
count = {'requests': 0, 'connections': 0, 'crossed': 0}
failures = []

def add(what, number=1):
    with lock:
        count[what] += number

def http1():
    client = None
    while not over.is_set():
        is_new = client is None
        if is_new:
            client = http.client.HTTPConnection(plain, timeout=60)
            client.connect()
            add('connections')
        try:
            client.request('GET', '/')
            answer = client.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            if is_new:
                failures.append(f'a new connection: {error!r}')
            add('crossed')
            client.close()
            client = None
            continue
        body = answer.read()
        if answer.status != 200 or body not in (b'one', b'two'):
            failures.append(f'{answer.status} {body}')
        add('requests')
        # It has read that the server closes.
        if client.sock is None:
            client = None

def http2(address, context):
    host, port = address.split(':')
    while not over.is_set():
        sock = socket.create_connection((host, int(port)), timeout=60)
        if context:
            sock = context.wrap_socket(sock, server_hostname=host)
            assert sock.selected_alpn_protocol() == 'h2'
        add('connections')
        conn = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding='utf-8'))
        conn.initiate_connection()
        open, last, leaving, done = {}, None, False, 0
        while True:
            leaving = leaving or over.is_set()
            while len(open) < 8 and not leaving:
                stream = conn.get_next_available_stream_id()
                conn.send_headers(stream, [(':method', 'GET'), (':scheme', 'http'), (':authority', address), (':path', '/')], end_stream=True)
                open[stream] = [None, b'']
            if not open:
                break
            try:
                sock.sendall(conn.data_to_send())
                data = sock.recv(65536)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as error:
                data, why = b'', repr(error)
            else:
                why = 'the connection ended'
            if not data:
                failures.append(f'{why} with {len(open)} streams, {done} done, last {last}')
                break
            for event in conn.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    open[event.stream_id][0] = dict(event.headers)[':status']
                elif isinstance(event, h2.events.DataReceived):
                    open[event.stream_id][1] += event.data
                    conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    status, body = open.pop(event.stream_id)
                    if status != '200' or body not in (b'one', b'two'):
                        failures.append(f'{status} {body}')
                    add('requests')
                    done += 1
                elif isinstance(event, h2.events.StreamReset):
                    open.pop(event.stream_id, None)
                    failures.append(f'reset {event.error_code}')
                elif isinstance(event, h2.events.ConnectionTerminated):
                    leaving, last = True, event.last_stream_id
                    if event.error_code:
                        failures.append(f'GOAWAY {event.error_code}')
                    for stream in [stream for stream in open if stream > last]:
                        del open[stream]
                        add('crossed')
        sock.close()

def guard(run, *arguments):
    try:
        run(*arguments)
    except Exception as error:
        failures.append(f'{run.__name__}: {error!r}')

threads = [threading.Thread(target=guard, args=(http1,)) for _ in range(6)]
if versions == 'both':
    threads += [threading.Thread(target=guard, args=(http2, plain, None)) for _ in range(2)]
    threads += [threading.Thread(target=guard, args=(http2, tls, context)) for _ in range(2)]
[thread.start() for thread in threads]
print('started', flush=True)
sys.stdin.read()
over.set()
[thread.join() for thread in threads]
print(count, len(failures), failures[:20])
"#;

/// The clients, and what they have said when they were stopped.
struct Clients(Script);

impl Clients {
    fn start(tidegate: &Tidegate, authority: &Authority, versions: &str) -> Clients {
        let (plain, tls) = (tidegate.at("in"), tidegate.at("tls"));
        Clients(Script::start(CLIENTS, &format!("{plain} {tls} {} {versions}", authority.file().display())))
    }

    /// No request has failed.
    fn stop(self, what: &str) {
        let said = self.0.finish();
        let last = said.lines().last().unwrap_or_default();
        tell(&format!("{what}: {last}"));
        assert!(last.ends_with(" 0 []"), "{said}");
    }
}

fn yaml(peers: &[Peer; 2], certificates: &str, weights: [u32; 2], version: &str) -> String {
    let at = |number: usize| {
        format!("{{ name: b{number}, address: \"{}\", weight: {} }}", peers[number].place(), weights[number])
    };
    format!(
        "{ADMIN_SOCKET}workers: 2\nlisteners:\n\
         - {{ name: in, bind: \"127.0.0.1:0\", protocol: http, pool: p }}\n\
         - {{ name: tls, bind: \"127.0.0.1:0\", protocol: http, pool: p, {certificates} }}\n\
         pools: [{{ name: p, http: {{ version: {version} }}, backends: [{}, {}] }}]\n",
        at(0),
        at(1)
    )
}

fn start(version: &str) -> ([Peer; 2], Authority, String, Tidegate) {
    let peers = ["one", "two"].map(|name| nginx_named(name, if version == "2" { "http2" } else { "" }));
    let authority = Authority::new();
    let certificates = over_tls(&authority.issue(&["127.0.0.1"]));
    let tidegate = Tidegate::start(&yaml(&peers, &certificates, [1, 1], version));
    (peers, authority, certificates, tidegate)
}

/// Waits until the backends have answered many more.
fn goes_on(peers: &[Peer; 2]) {
    let all = || peers.iter().map(answered).sum::<u64>();
    let before = all();
    eventually(DEADLINE, "requests are answered", || all() > before + 300);
}

#[test]
fn no_request_fails_under_reloads() {
    for version in ["1.1", "2"] {
        let (peers, authority, certificates, tidegate) = start(version);
        let clients = Clients::start(&tidegate, &authority, "both");
        for round in 1..=12 {
            goes_on(&peers);
            let weights = [[1, 1], [3, 1], [0, 1]][round % 3];
            tidegate.rewrite(&yaml(&peers, &certificates, weights, version));
            let applied = || tidegate.count_logs(|line| line.is("audit") && line.field("actor") == "SIGHUP");
            let before = applied();
            tidegate.signal(Signal::HUP);
            eventually(DEADLINE, "it is applied", || applied() > before);
        }
        goes_on(&peers);
        clients.stop(&format!("12 reloads, backends of HTTP/{version}"));
    }
}

/// With clients of HTTP/1.1: the library of the others takes any frame after GOAWAY for an error.
#[test]
fn no_request_fails_under_upgrades() {
    for version in ["1.1", "2"] {
        let (peers, authority, _, tidegate) = start(version);
        let clients = Clients::start(&tidegate, &authority, "1.1");
        for _ in 0..4 {
            goes_on(&peers);
            tidegate.upgrade();
        }
        goes_on(&peers);
        clients.stop(&format!("4 upgrades, backends of HTTP/{version}"));
    }
}
