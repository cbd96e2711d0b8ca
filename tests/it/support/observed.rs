//! A tidegate that has met what is counted: traffic, TLS, retries, refusals, health checks that fail.

use std::io::{Read, Write};

use super::authority::Authority;
use super::backend::{Backend, Dead};
use super::client::{Place, connect, expect, read_to_end};
use super::stats::{ADMIN, Answer, get, listener};
use super::tidegate::Tidegate;
use super::tls::Tls;
use super::{DEADLINE, eventually};

/// How many connections each of its listeners had: what they carried was echoed.
pub(crate) const PLAIN: u64 = 10;
pub(crate) const SECURE: u64 = 3;
pub(crate) const RETRIED: u64 = 4;
pub(crate) const REFUSED: u64 = 2;
/// Bytes of each, in either direction.
pub(crate) const BYTES: u64 = 5;

/// Its listeners are `plain` and `secure` to pool `p`, `retried` to `q`, of whose backends one is gone, `refused`
/// to `r`, which has none but that, and `checked` to `c`, where `down` has failed its health checks.
pub(crate) struct Observed {
    pub(crate) tidegate: Tidegate,
    pub(crate) port: Place,
    backends: Vec<Backend>,
    _dead: Dead,
    authority: Authority,
}

impl Observed {
    pub(crate) fn start() -> Observed {
        let (authority, dead) = (Authority::new(), Dead::start());
        let backends: Vec<Backend> = (0..4).map(|_| Backend::echo()).collect();
        let [a, b, up, down] = &backends[..] else { unreachable!("four") };
        let (a, b, up, down, dead_at) = (a.place(), b.place(), up.place(), down.place(), dead.address());
        let certificate = authority.issue(&["localhost"]).yaml();
        let tidegate = Tidegate::start(&format!(
            "{ADMIN}\
             listeners:\n\
             - {{ name: plain, bind: 127.0.0.1:0, pool: p }}\n\
             - {{ name: secure, bind: 127.0.0.1:0, pool: p, tls: {{ certificates: [{certificate}] }} }}\n\
             - {{ name: retried, bind: 127.0.0.1:0, pool: q, max_connections: 100 }}\n\
             - {{ name: refused, bind: 127.0.0.1:0, pool: r }}\n\
             - {{ name: checked, bind: 127.0.0.1:0, pool: c }}\n\
             pools:\n\
             - {{ name: p, backends: [{{ name: a, address: \"{a}\" }}] }}\n\
             - {{ name: q, backends: [{{ name: gone, address: \"{dead_at}\" }}, {{ name: b, address: \"{b}\", max_connections: 50 }}] }}\n\
             - {{ name: r, backends: [{{ name: gone, address: \"{dead_at}\" }}] }}\n\
             - {{ name: c, backends: [{{ name: up, address: \"{up}\", weight: 3 }}, {{ name: down, address: \"{down}\", backup: true }}], \
                  health: {{ tcp: {{}}, interval: 100ms, fall: 1 }} }}\n"
        ));
        let port = tidegate.stats_port();
        let mut observed = Observed { tidegate, port, backends, _dead: dead, authority };
        observed.talk();
        observed
    }

    /// What its stats port answers.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(&self.port, path)
    }

    fn talk(&mut self) {
        for (listener, count) in [("plain", PLAIN), ("retried", RETRIED)] {
            for _ in 0..count {
                let mut client = connect(&self.tidegate.at(listener));
                client.write_all(b"hello").expect("write");
                expect(&mut client, b"hello");
            }
        }
        for _ in 0..SECURE {
            let client = Tls::connect(&self.tidegate.at("secure"), &self.authority.client(), "localhost");
            (&client).write_all(b"hello").expect("write");
            (&client).read_exact(&mut [0; BYTES as usize]).expect("read");
            client.finish();
        }
        for _ in 0..REFUSED {
            read_to_end(&mut connect(&self.tidegate.at("refused")));
        }
        self.tidegate.wait_for_up("down");
        self.backends.truncate(3);
        self.tidegate.wait_for_down("down");
        for (name, count) in [("plain", PLAIN), ("secure", SECURE), ("retried", RETRIED), ("refused", REFUSED)] {
            eventually(DEADLINE, &format!("{count} connections of {name} have ended"), || {
                let view = self.tidegate.view();
                let listener = listener(&view, name);
                listener.ended == count && listener.open == 0
            });
        }
    }
}
