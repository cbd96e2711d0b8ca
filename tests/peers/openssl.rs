//! TLS to a backend that is not made of the same library.

use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::client::{Place, connect, expect, try_connect};
use crate::support::process::{Process, bound, require};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::Authority;
use crate::support::{DEADLINE, eventually, free_port};

fn towards(backend: &Place, tls: &str) -> Tidegate {
    Tidegate::start(&forward(backend, "", &format!("retries: 0, tls: {{ {tls} }}")))
}

fn ca(authority: &Authority) -> String {
    format!("ca: {}", authority.file().display())
}

/// A server that is not made of the same library.
#[test]
fn an_openssl_server() {
    require("openssl", "openssl");
    let authority = Authority::new();
    let certificate = authority.issue(&["db.example"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let port = free_port();
        let mut command = bound("openssl", "KILL");
        command.args(["s_server", "-quiet", "-rev", version, "-accept", &format!("127.0.0.1:{port}"), "-cert"]);
        command.arg(&certificate.cert).arg("-key").arg(&certificate.key).stdout(Stdio::null()).stderr(Stdio::null());
        let _server = Process::start(command, Signal::KILL);
        let place = Place::parse(&format!("127.0.0.1:{port}"));
        eventually(DEADLINE, "openssl listens", || try_connect(&place).is_ok());
        let tidegate = towards(&place, &format!("server_name: db.example, {}", ca(&authority)));
        let mut client = connect(&tidegate.at("in"));
        client.write_all(b"drawer\n").unwrap();
        expect(&mut client, b"reward\n");
    }
}
