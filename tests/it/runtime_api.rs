//! The calls that change a running process, over HTTP: what each does, answers and refuses.

mod calls;
mod checks;
mod listeners;
mod plain;
mod refusals;
mod removal;
mod who_may;
mod whole_config;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::backend::{Backend, Dead};
use crate::support::client::{End, connect, echoes, expect, read_to_end, talking, try_connect};
use crate::support::process::require;
use crate::support::stats::{ADMIN_SOCKET, Answer, call_with, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

/// Listener `in` to pool `p` with backends `a` and `b`, and listener `other` to pool `q`, which has a backend `a` too.
struct Changed {
    tidegate: Tidegate,
    backends: [Backend; 4],
}

impl Changed {
    fn start() -> Changed {
        let backends = [(); 4].map(|()| Backend::echo());
        let tidegate = Tidegate::start(&Changed::yaml(&backends));
        Changed { tidegate, backends }
    }

    fn yaml(backends: &[Backend; 4]) -> String {
        let [a, b, of_q, _] = [0, 1, 2, 3].map(|place| backends[place].place());
        format!(
            "{ADMIN_SOCKET}listeners:\n\
             - {{ name: in, bind: \"127.0.0.1:0\", pool: p }}\n\
             - {{ name: other, bind: \"127.0.0.1:0\", pool: q }}\n\
             pools:\n\
             - {{ name: p, backends: [{{ name: a, address: \"{a}\" }}, {{ name: b, address: \"{b}\" }}] }}\n\
             - {{ name: q, backends: [{{ name: a, address: \"{of_q}\" }}] }}\n"
        )
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.tidegate.call(method, path, &body)
    }

    fn talking(&self) -> TcpStream {
        talking(&self.tidegate.at("in"))
    }

    /// Which backends of `p` get the next connections.
    fn served(&self) -> Vec<usize> {
        let before = [0, 1, 2, 3].map(|place| self.backends[place].accepted());
        (0..8).for_each(|_| drop(self.talking()));
        (0..4).filter(|place| self.backends[*place].accepted() > before[*place]).collect()
    }

    fn backend(&self, name: &str) -> Value {
        self.tidegate.resource(&format!("/api/pools/p/backends/{name}"))
    }
}

fn changes(answer: &Answer) -> Vec<String> {
    serde_json::from_value(answer.json()["changes"].clone()).unwrap()
}
