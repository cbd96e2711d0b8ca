//! Whatever becomes of both sides, in each state of a connection: it lives exactly as long as something is owed to a side
//! that is still there. No timeout helps here: those of these listeners are longer than any test.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::authority::Authority;
use crate::support::backend::{Scripted, Unreachable};
use crate::support::client::{connect, expect, reset};
use crate::support::proc::{allow_open_files, is_asleep, unacknowledged};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// What becomes of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It says nothing, and stays.
    Silent,
    /// It has finished sending, and stays.
    Fin,
    /// It closes, as the kernel does for a process that is killed: RST where bytes were not read, else FIN.
    Killed,
    Reset,
}

const FATES: [Fate; 4] = [Fate::Silent, Fate::Fin, Fate::Killed, Fate::Reset];

/// What both sides have done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An exchange, which is over.
    Idle,
    /// The client sends, and the backend reads nothing: bytes wait in every buffer between them.
    Upload,
    /// The same the other way.
    Download,
    BothStuck,
    /// The client has finished, and the backend has seen it.
    ClientFinished,
    BackendFinished,
}

const STATES: [State; 6] =
    [State::Idle, State::Upload, State::Download, State::BothStuck, State::ClientFinished, State::BackendFinished];

impl State {
    fn upload_is_stuck(self) -> bool {
        matches!(self, State::Upload | State::BothStuck)
    }

    fn download_is_stuck(self) -> bool {
        matches!(self, State::Download | State::BothStuck)
    }

    fn bring_about(self, tidegate: &Tidegate, client: &mut TcpStream, backend: &mut TcpStream) {
        client.write_all(b"question").unwrap();
        expect(backend, b"question");
        backend.write_all(b"answer").unwrap();
        expect(client, b"answer");
        if self.upload_is_stuck() {
            send_until_stuck(tidegate, client);
        }
        if self.download_is_stuck() {
            send_until_stuck(tidegate, backend);
        }
        let (finishing, other) = match self {
            State::ClientFinished => (&*client, backend),
            State::BackendFinished => (&*backend, client),
            _ => return,
        };
        finishing.shutdown(Shutdown::Write).unwrap();
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "the FIN is passed on");
    }

    /// Whether the connection ends once this has become of its sides.
    fn ends(self, client: Fate, backend: Fate) -> bool {
        // A side that closes with bytes unread resets.
        let is_gone = |fate: Fate, unread: bool| match fate {
            Fate::Reset => true,
            Fate::Killed => unread,
            Fate::Silent | Fate::Fin => false,
        };
        let client_gone = is_gone(client, self.download_is_stuck());
        let backend_gone = is_gone(backend, self.upload_is_stuck());
        let owed_to_backend = self.upload_is_stuck() && !backend_gone;
        let owed_to_client = self.download_is_stuck() && !client_gone;
        if client_gone || backend_gone {
            return match (client_gone, backend_gone) {
                (true, false) => !owed_to_backend,
                (false, true) => !owed_to_client,
                _ => true,
            };
        }
        let has_finished = |fate, before| before || matches!(fate, Fate::Fin | Fate::Killed);
        has_finished(client, self == State::ClientFinished)
            && has_finished(backend, self == State::BackendFinished)
            && !owed_to_backend
            && !owed_to_client
    }
}

/// Until what was sent stays where it is: no buffer on the way has room.
fn send_until_stuck(tidegate: &Tidegate, stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let chunk = vec![0x55; 256 << 10];
    let mut waiting = 0;
    eventually(DEADLINE, "a stuck stream", || {
        loop {
            match stream.write(&chunk) {
                Ok(_) => waiting = 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("while sending: {error}"),
            }
        }
        // On a busy machine it may be tidegate that waits, for a CPU.
        waiting = if is_asleep(tidegate.pid()) { waiting + 1 } else { 0 };
        // Looked at again and again, and nothing moves.
        waiting > 12 && unacknowledged(stream) > 0
    });
    stream.set_nonblocking(false).unwrap();
}

/// What is left of a side.
fn meet(fate: Fate, stream: TcpStream) -> Option<TcpStream> {
    match fate {
        Fate::Silent => Some(stream),
        Fate::Fin => {
            _ = stream.shutdown(Shutdown::Write);
            Some(stream)
        }
        Fate::Killed => None,
        Fate::Reset => {
            reset(stream);
            None
        }
    }
}

#[test]
fn every_pair_of_ends_in_every_state() {
    allow_open_files(2_000);
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!(
        "workers: 1\n\
         listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, timeouts: {{ half_close: 1h }} }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
        scripted.place()
    ));
    let has_ended = |client: &str| tidegate.access().iter().any(|line| line.field("client") == client);
    for state in STATES {
        let (mut ending, mut staying) = (BTreeMap::new(), BTreeMap::new());
        for (of_client, of_backend) in FATES.iter().flat_map(|&client| FATES.map(|backend| (client, backend))) {
            let mut client = connect(&tidegate.at("in"));
            let mut backend = scripted.accept();
            state.bring_about(&tidegate, &mut client, &mut backend);
            let address = client.local_addr().unwrap().to_string();
            let left = (meet(of_client, client), meet(of_backend, backend));
            let group = if state.ends(of_client, of_backend) { &mut ending } else { &mut staying };
            group.insert(address, ((of_client, of_backend), left));
        }
        for (client, (fates, _)) in &ending {
            let what = format!("{state:?}: the end of a connection whose client and backend are {fates:?}");
            eventually(Duration::from_secs(20), &what, || has_ended(client));
        }
        for (client, (fates, _)) in &staying {
            assert!(!has_ended(client), "{state:?}: {fates:?} must go on: something is owed");
        }
        // And once both are gone, so is each of these.
        for (client, (fates, (client_side, backend_side))) in staying {
            client_side.into_iter().chain(backend_side).for_each(reset);
            let what = format!("{state:?}: the end of a connection that is left, {fates:?}");
            eventually(Duration::from_secs(20), &what, || has_ended(&client));
        }
    }
}

/// Phases in which there is no backend yet, or one that has not said that it is one.
#[test]
fn a_client_that_resets_ends_every_phase_before_the_relay() {
    let (authority, hung) = (Authority::new(), Unreachable::start());
    let scripted = Scripted::start();
    let certificate = authority.issue(&["localhost"]).yaml();
    let timeouts = "timeouts: { sniff: 1h, handshake: 1h }";
    let tidegate = Tidegate::start(&format!(
        "listeners:\n\
         - {{ name: header, bind: \"127.0.0.1:0\", pool: p, proxy_protocol: {{ trusted: [127.0.0.0/8] }}, {timeouts} }}\n\
         - {{ name: hello, bind: \"127.0.0.1:0\", pool: p, tls: {{ certificates: [{certificate}] }}, {timeouts} }}\n\
         - {{ name: routed, bind: \"127.0.0.1:0\", pool: p, routes: [{{ match: {{ sni: [a.example] }}, pool: p }}], {timeouts} }}\n\
         - {{ name: dial, bind: \"127.0.0.1:0\", pool: hung, {timeouts} }}\n\
         - {{ name: upstream, bind: \"127.0.0.1:0\", pool: secure, {timeouts} }}\n\
         pools:\n\
         - {{ name: p, backends: [{{ address: \"{scripted}\" }}] }}\n\
         - {{ name: hung, timeouts: {{ connect: 1h }}, backends: [{{ address: \"{hung}\" }}] }}\n\
         - {{ name: secure, timeouts: {{ connect: 1h }}, tls: {{ verify: off }}, backends: [{{ address: \"{scripted}\" }}] }}\n",
        scripted = scripted.place(),
        hung = hung.address(),
    ));
    let first: [(&str, &[u8]); 5] = [
        ("header", b"PROXY TCP4 "),
        ("hello", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]),
        ("routed", &[0x16, 3, 1, 2, 0, 1]),
        ("dial", b"a request"),
        ("upstream", b"a request"),
    ];
    for (listener, bytes) in first {
        for bytes in [bytes, b""] {
            let before = tidegate.access().len();
            let mut client = connect(&tidegate.at(listener));
            client.write_all(bytes).unwrap();
            // Waits until tidegate has its handshake under way, or until nothing was sent that it could have read.
            let _backend = (listener == "upstream").then(|| scripted.accept());
            reset(client);
            let what = format!("the end of a client that has reset at {listener} after {} bytes", bytes.len());
            eventually(Duration::from_secs(20), &what, || tidegate.access().len() > before);
        }
    }
}

/// A backend that takes the connection and dies in its TLS handshake is as good as one that refuses.
#[test]
fn a_backend_that_resets_in_its_handshake_ends_the_dial() {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, retries: 0, timeouts: {{ connect: 1h }}, tls: {{ verify: off }}, \
         backends: [{{ address: \"{}\" }}] }}]\n",
        scripted.place()
    ));
    for close in [reset, drop::<TcpStream>] {
        let before = tidegate.access().len();
        let _client = connect(&tidegate.at("in"));
        close(scripted.accept());
        eventually(Duration::from_secs(20), "its end", || tidegate.access().len() > before);
    }
}
