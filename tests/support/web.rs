//! Web servers and clients of others, around a listener of `protocol: http`.

use std::fmt::Display;
use std::fs;
use std::process::Command;

use super::authority::Issued;
use super::peer::Peer;
use super::process::require;

/// nginx that answers each request with its name, and logs it. `listen` are more parameters of its socket.
pub(crate) fn nginx_named(name: &str, listen: &str) -> Peer {
    nginx(listen, &format!("location / {{ return 200 {name}; }}"))
}

/// nginx with these locations, which logs each request, and keeps connections for as long as the client does.
pub(crate) fn nginx(listen: &str, locations: &str) -> Peer {
    Peer::nginx(|at| {
        format!(
            "http {{ keepalive_requests 1000000; keepalive_timeout 600; client_max_body_size 0; \
             server {{ listen {at} {listen}; root .; log_not_found off; access_log requests; {locations} }} }}"
        )
    })
}

/// Requests that nginx has answered.
pub(crate) fn answered(nginx: &Peer) -> u64 {
    let log = fs::read_to_string(nginx.directory.path().join("requests")).unwrap_or_default();
    log.lines().count() as u64
}

/// The configuration of one listener, `in`, of `protocol: http`, whose pool has these backends: `b1`, `b2` and so on.
pub(crate) fn balance_requests<D: Display>(backends: &[D], listener: &str, pool: &str) -> String {
    let backends: Vec<String> =
        backends.iter().zip(1..).map(|(at, number)| format!("{{ name: b{number}, address: \"{at}\" }}")).collect();
    format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", protocol: http, pool: p, {listener} }}]\n\
         pools: [{{ name: p, backends: [{}], {pool} }}]\n",
        backends.join(", ")
    )
}

/// The keys of a listener that terminates TLS for HTTP/2 and HTTP/1.1.
pub(crate) fn over_tls(issued: &Issued) -> String {
    format!("tls: {{ certificates: [{}], alpn: [h2, http/1.1] }}", issued.yaml())
}

/// What a program prints; fails the test unless it succeeded.
pub(crate) fn printed(program: &str, package: &str, arguments: &[&str]) -> String {
    require(program, package);
    let output = Command::new(program).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What curl prints. It fails when a transfer has not ended within a minute.
pub(crate) fn curl(arguments: &[&str]) -> String {
    printed("curl", "curl", &[&["-sS", "--max-time", "60"], arguments].concat())
}
