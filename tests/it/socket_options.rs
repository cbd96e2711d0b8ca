//! Options of listening sockets that show outside: the mode of a unix socket, addresses that are not there yet.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::backend::Backend;
use crate::support::client::{connect, echoes};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::Tidegate;

#[test]
fn unix_listener_has_its_mode_also_on_reload_and_upgrade() {
    let backend = Backend::echo();
    let yaml = |socket: &str| {
        format!(
            "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"unix:DIRECTORY/in.sock\", pool: p{socket} }}]\n\
             pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
            backend.place()
        )
    };
    let tidegate = Tidegate::start(&yaml(""));
    let path = tidegate.directory().join("in.sock");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o755);
    for (text, wanted) in [("0660", 0o660), ("0777", 0o777), ("0600", 0o600)] {
        tidegate.rewrite(&yaml(&format!(", socket: {{ mode: \"{text}\" }}")));
        assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
        assert_eq!(mode(), wanted);
        echoes(&mut connect(&tidegate.at("in")));
    }
    tidegate.rewrite(&yaml(", socket: { mode: \"0666\" }"));
    tidegate.upgrade();
    assert_eq!(mode(), 0o666);
    echoes(&mut connect(&tidegate.at("in")));
}

/// From TEST-NET-1 (RFC 5737), which no host has.
#[test]
fn freebind_listens_on_an_address_that_is_not_there_yet() {
    let backend = Backend::echo();
    let yaml = |more: &str| {
        format!(
            "{ADMIN_SOCKET}listeners:\n  - {{ name: in, bind: \"127.0.0.1:0\", pool: p }}\n{more}\
             pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
            backend.place()
        )
    };
    let virtual_ip = |socket: &str| yaml(&format!("  - {{ name: vip, bind: \"192.0.2.1:18999\", pool: p{socket} }}\n"));
    let tidegate = Tidegate::start(&yaml(""));
    let check = || tidegate.command(&["check", "--config", tidegate.config_file().to_str().unwrap()]).err;
    tidegate.rewrite(&virtual_ip(""));
    let refused = tidegate.call("POST", "/api/reload", "");
    assert!(refused.status == 422 && refused.text().contains("socket.freebind"), "{}", refused.text());
    assert!(check().contains("this host has no address 192.0.2.1"), "{}", check());
    tidegate.rewrite(&virtual_ip(", socket: { freebind: true }"));
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    assert_eq!(tidegate.at("vip").tcp().ip().to_string(), "192.0.2.1");
    assert!(!check().contains("192.0.2.1"), "{}", check());
    echoes(&mut connect(&tidegate.at("in")));
    // It is an option of a socket that listens: it changes, and the socket stays.
    tidegate.rewrite(&virtual_ip(""));
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
}
