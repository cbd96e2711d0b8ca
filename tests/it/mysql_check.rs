//! `health: mysql` with a server that plays MySQL 8: `caching_sha2_password` in plain text, with and without the account in its cache.

use std::io::Result;

use crate::support::backend::{Backend, in_thread};
use crate::support::mysqlwire::{AnyWire, CACHING, Mysql8, command};
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

/// Of a primary.
fn answer_variables(wire: &mut AnyWire) -> Result<()> {
    while let Some(command) = command(wire)? {
        assert!(command.starts_with(b"\x03SHOW GLOBAL VARIABLES"));
        let column = |name: &[u8]| {
            [b"\x03def\0\0\0", &[name.len() as u8][..], name, b"\0\x0c\x2d\0\0\0\0\0\xfd\0\0\0\0\0"].concat()
        };
        let end = [0xfe, 0, 0, 2, 0];
        for body in [&[2][..], &column(b"Variable_name"), &column(b"Value"), &end, b"\x09read_only\x03OFF", &end] {
            wire.send(body)?;
        }
    }
    Ok(())
}

#[test]
fn caching_sha2_in_full_and_fast() {
    let mut server = Mysql8::new(CACHING);
    server.session = answer_variables;
    // What it finds wrong ends the connection, and the check fails.
    let backend = Backend::start(in_thread({
        let server = server.clone();
        move |stream| server.serve(stream)
    }));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, [server.password, b"\n"].concat()).unwrap();
    let check = format!("mysql: {{ user: probe, password_file: {}, role: primary }}", file.display());
    let tidegate = Tidegate::start(&forward(backend.place(), "", &format!("health: {{ {check}, interval: 50ms }}")));
    tidegate.wait_for_up("b");
    eventually(DEADLINE, "checks from the cache", || server.logins().1 >= 3);
    assert_eq!(server.logins().0, 1, "{:?}", server.seen());
    assert_eq!(tidegate.count_logs(|line| line.is("backend down")), 0);
}
