//! `starttls: mysql` with a real MariaDB and its client.

use std::process::{Command, Output};

use crate::support::authority::{Authority, Issued};
use crate::support::backend::{Backend, Dead, in_thread};
use crate::support::checked::is_up;
use crate::support::client::Place;
use crate::support::docs::quote;
use crate::support::mariadb::MariaDb;
use crate::support::mysqlwire::{CACHING, Mysql8, answer_ok};
use crate::support::python;
use crate::support::stats::ADMIN;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::{DEADLINE, eventually};

const CIPHER: &str = "select variable_value from information_schema.session_status where variable_name = 'Ssl_cipher'";

/// Arguments of the client.
const PLAIN: &[&str] = &["--skip-ssl"];

fn listener(files: &Issued, more: &str) -> String {
    format!("tls: {{ certificates: [{}], starttls: mysql, {more} }}", files.yaml())
}

fn pool(authority: &Authority) -> String {
    format!("tls: {{ starttls: mysql, ca: {} }}", authority.file().display())
}

/// The server with a certificate of this authority.
fn with_tls(authority: &Authority, more: &[&str]) -> MariaDb {
    let own = authority.issue(&["127.0.0.1"]);
    let (cert, key) = (format!("--ssl-cert={}", own.cert.display()), format!("--ssl-key={}", own.key.display()));
    MariaDb::start(&[&[cert.as_str(), &key], more].concat())
}

/// Arguments of a client that verifies tidegate's certificate.
fn verified(authority: &Authority) -> Vec<String> {
    vec![format!("--ssl-ca={}", authority.file().display()), "--ssl-verify-server-cert".to_owned()]
}

fn mariadb<S: AsRef<str>>(tidegate: &Tidegate, arguments: &[S], sql: &str) -> Output {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--host=127.0.0.1", "--user=app", "--password=app", "-Nse", sql]);
    client.arg(format!("--port={}", tidegate.at("in").tcp().port()));
    client.args(arguments.iter().map(AsRef::as_ref)).output().expect("mariadb")
}

#[track_caller]
fn printed(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[track_caller]
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it connects");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn run(server: &MariaDb, sql: &str) {
    let output = server.query(sql);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
}

fn place(server: &MariaDb) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// What the client is told by the server: whether its own connection has TLS, and the server's.
#[test]
fn client_logs_in_with_tls_on_either_side() {
    let authority = Authority::new();
    let front = authority.issue(&["db.example.test", "127.0.0.1"]);
    let verified = verified(&authority);
    let (bare, secure) = (MariaDb::start(&[]), with_tls(&authority, &[]));
    let plain: Vec<String> = PLAIN.iter().map(ToString::to_string).collect();
    for (server, front, back, arguments) in [
        (&bare, listener(&front, ""), String::new(), &verified),
        // A server that has TLS, which the pool does not use.
        (&secure, listener(&front, ""), String::new(), &verified),
        (&secure, listener(&front, ""), pool(&authority), &verified),
        (&secure, listener(&front, "min_version: \"1.3\""), pool(&authority), &verified),
        (&secure, String::new(), pool(&authority), &plain),
        (&secure, listener(&front, "plaintext: allow"), pool(&authority), &plain),
        (&secure, listener(&front, "plaintext: allow"), pool(&authority), &verified),
        (&bare, listener(&front, "plaintext: allow"), String::new(), &plain),
    ] {
        let tidegate = Tidegate::start(&forward(place(server), &front, &back));
        let text = format!("{front}; {back}; {arguments:?}");
        let has_tls = !printed(&mariadb(&tidegate, arguments, CIPHER)).is_empty();
        assert_eq!(has_tls, !back.is_empty(), "{text}: at the server");
        let status = printed(&mariadb(&tidegate, arguments, "\\s"));
        assert_eq!(
            !status.contains("Not in use"),
            std::ptr::eq(arguments, &verified),
            "{text}: at the client: {status}"
        );
        // A database in the login, compression, and more than the buffers hold.
        for more in ["--database=information_schema", "--compress", "--max-allowed-packet=32M"] {
            let arguments: Vec<String> = arguments.iter().cloned().chain([more.to_owned()]).collect();
            let length = printed(&mariadb(&tidegate, &arguments, "select repeat('x', 5000000)")).len();
            assert_eq!(length, 5_000_000, "{text}, {more}");
        }
        // Errors of the server, where it finds them.
        let wrong: Vec<String> = arguments.iter().cloned().chain(["--password=wrong".to_owned()]).collect();
        let told = complaint(&mariadb(&tidegate, &wrong, "select 1"));
        assert!(told.starts_with("ERROR 1045 (28000): Access denied for user 'app'@"), "{text}: {told}");
        let absent: Vec<String> = arguments.iter().cloned().chain(["--database=absent".to_owned()]).collect();
        let told = complaint(&mariadb(&tidegate, &absent, "select 1"));
        assert!(told.starts_with("ERROR 1044 (42000): Access denied") || told.starts_with("ERROR 1049"), "{told}");
    }
}

#[test]
fn client_reads_why_it_is_refused() {
    let authority = Authority::new();
    let front = authority.issue(&["127.0.0.1"]);
    let server = MariaDb::start(&[]);
    let tidegate = Tidegate::start(&forward(place(&server), &listener(&front, ""), ""));
    let told = complaint(&mariadb(&tidegate, PLAIN, "select 1"));
    assert_eq!(format!("{told}\n"), quote("ERROR 3159"), "as the manual has it");
    // A certificate of another authority, and one for another name.
    let other = Authority::new();
    let told = complaint(&mariadb(&tidegate, &verified(&other), "select 1"));
    assert!(told.contains("TLS/SSL error"), "{told}");
    let elsewhere = Tidegate::start(&forward(place(&server), &listener(&authority.issue(&["a.example"]), ""), ""));
    let told = complaint(&mariadb(&elsewhere, &verified(&authority), "select 1"));
    assert!(told.contains("TLS/SSL error"), "{told}");

    // No server at all, and one whose TLS cannot be verified.
    let dead = Dead::start();
    let tidegate = Tidegate::start(&forward(dead.place(), &listener(&front, "plaintext: allow"), ""));
    let none = "ERROR 1105 (HY000): no database server can take the connection now";
    assert_eq!(complaint(&mariadb(&tidegate, PLAIN, "select 1")), none);
    let told = complaint(&mariadb(&tidegate, &verified(&authority), "select 1"));
    // It cannot tell who says so.
    assert!(told.contains("1105 - no database server can take the connection now"), "{told}");
    let secure = with_tls(&other, &[]);
    let keys = listener(&front, "plaintext: allow");
    let tidegate = Tidegate::start(&forward(place(&secure), &keys, &format!("retries: 0, {}", pool(&authority))));
    for arguments in [&verified(&authority)[..], &["--skip-ssl".to_owned()]] {
        assert_eq!(complaint(&mariadb(&tidegate, arguments, "select 1")), none);
    }
    eventually(DEADLINE, "both lines", || tidegate.access().len() == 2);
    assert!(tidegate.access().iter().all(|line| line.end() == "rejected: connect failed"), "{:?}", tidegate.access());
}

/// The server knows of no TLS but its own.
#[test]
fn account_that_requires_tls_needs_it_at_the_pool() {
    let authority = Authority::new();
    let front = authority.issue(&["127.0.0.1"]);
    let server = with_tls(&authority, &[]);
    run(&server, "alter user app@'%' require ssl");
    let verified = verified(&authority);
    let both = Tidegate::start(&forward(place(&server), &listener(&front, ""), &pool(&authority)));
    assert_eq!(printed(&mariadb(&both, &verified, "select 1")), "1");
    let in_front = Tidegate::start(&forward(place(&server), &listener(&front, ""), ""));
    let told = complaint(&mariadb(&in_front, &verified, "select 1"));
    assert!(told.starts_with("ERROR 1045 (28000)"), "{told}");
    run(&server, "alter user app@'%' require none; set global require_secure_transport = 1");
    let told = complaint(&mariadb(&in_front, &verified, "select 1"));
    assert!(told.starts_with("ERROR 1045 (28000)"), "{told}");
    // A certificate of the pool's own.
    let own = authority.issue_client("app");
    let requiring = with_tls(&authority, &[&format!("--ssl-ca={}", authority.file().display())]);
    run(&requiring, "alter user app@'%' require x509");
    let tls =
        format!("tls: {{ starttls: mysql, ca: {}, client_certificate: {} }}", authority.file().display(), own.yaml());
    let shown = Tidegate::start(&forward(place(&requiring), &listener(&front, ""), &tls));
    assert_eq!(printed(&mariadb(&shown, &verified, "select 1")), "1");
    let without = Tidegate::start(&forward(place(&requiring), &listener(&front, ""), &pool(&authority)));
    complaint(&mariadb(&without, &verified, "select 1"));
}

#[test]
fn other_methods_pass_through_by_a_change_of_method() {
    let authority = Authority::new();
    let front = authority.issue(&["127.0.0.1"]);
    let server = with_tls(&authority, &[]);
    run(&server, "install soname 'auth_ed25519'");
    run(&server, "create or replace user app@'%' identified via ed25519 using password('app')");
    let verified = verified(&authority);
    for back in [String::new(), pool(&authority)] {
        let tidegate = Tidegate::start(&forward(place(&server), &listener(&front, ""), &back));
        assert_eq!(printed(&mariadb(&tidegate, &verified, "select 1")), "1", "{back}");
    }
}

#[test]
fn unix_socket_of_the_server() {
    let authority = Authority::new();
    let server = MariaDb::start(&[]);
    let front = listener(&authority.issue(&["127.0.0.1"]), "");
    let tidegate = Tidegate::start(&forward(Place::Unix(server.socket()), &front, ""));
    assert_eq!(printed(&mariadb(&tidegate, &verified(&authority), "select 6 * 7")), "42");
}

/// It logs in, and so never blocks the host.
#[test]
fn tls_check_asks_within_the_protocol() {
    let authority = Authority::new();
    let server = with_tls(&authority, &["--max-connect-errors=3"]);
    // The server never blocks 127.0.0.1.
    let check =
        format!("source: [127.0.0.77], health: {{ tls: {{}}, interval: 10ms, timeout: 10s }}, {}", pool(&authority));
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(place(&server), "", &check)));
    tidegate.wait_for_up("b");
    let checks = || tidegate.view().pools[0].backends[0].checks.as_ref().unwrap().count;
    eventually(DEADLINE, "100 checks", || checks() >= 100);
    assert!(is_up(&tidegate, "p", "b"));
    assert_eq!(printed(&mariadb(&tidegate, PLAIN, "select 1")), "1");
    let other = Authority::new();
    let check = format!("health: {{ tls: {{}}, interval: 50ms }}, {}", pool(&other));
    let down = Tidegate::start(&forward(place(&server), "", &check));
    let reason = down.wait_for_down("b").field("reason");
    assert!(reason.starts_with("TLS handshake failed"), "{reason}");
}

/// What two drivers make of it: `caching_sha2_password` with and without the server's cache, a wrong password, no TLS.
#[test]
fn drivers_log_in_by_caching_sha2_password() {
    let authority = Authority::new();
    let keys = listener(&authority.issue(&["127.0.0.1"]), "");
    let oracle = "
import mysql.connector as driver
def connect(port, ca, password):
    tls = dict(ssl_ca=ca, ssl_verify_cert=True, ssl_verify_identity=True) if ca else dict(ssl_disabled=True)
    driver.connect(host='127.0.0.1', port=port, user='app', password=password, use_pure=True, **tls).close()
";
    let pymysql = "
import pymysql as driver
def connect(port, ca, password):
    tls = dict(ssl={'ca': ca, 'check_hostname': True}) if ca else dict(ssl_disabled=True)
    driver.connect(host='127.0.0.1', port=port, user='app', password=password, **tls).close()
";
    let attempts = "
import sys
port, ca = int(sys.stdin.readline()), sys.stdin.readline().strip()
for (ca, password) in [(ca, 'correct horse'), (ca, 'correct horse'), (ca, 'wrong'), (None, 'correct horse')]:
    try:
        connect(port, ca, password)
        print('connected')
    except driver.Error as error:
        print(error.args[0])
";
    for driver in [oracle, pymysql] {
        for back in [String::new(), pool(&authority)] {
            let mut server = Mysql8::new(CACHING);
            server.session = answer_ok;
            server.tls = Some(authority.issue(&["127.0.0.1"]).server().into());
            let backend = Backend::bind(
                "127.0.0.1:0".parse().unwrap(),
                in_thread({
                    let server = server.clone();
                    move |stream| server.serve(stream)
                }),
            );
            let tidegate = Tidegate::start(&forward(backend.place(), &keys, &back));
            let input = format!("{}\n{}\n", tidegate.at("in").tcp().port(), authority.file().display());
            let told = python::run(&format!("{driver}{attempts}"), input.as_bytes());
            let seen = server.seen();
            assert_eq!(
                told.split_whitespace().collect::<Vec<_>>(),
                ["connected", "connected", "1045", "3159"],
                "{back}: {seen:?}"
            );
            assert_eq!(server.logins(), (1, 1), "{seen:?}");
            let logins = seen.iter().filter(|it| it.ends_with(" login")).collect::<Vec<_>>();
            assert_eq!(logins, [if back.is_empty() { "plain login" } else { "ssl login" }; 3], "{seen:?}");
        }
    }
}

/// MariaDB takes the header before its greeting, and sees the client's address.
#[test]
fn proxy_header_goes_before_the_greeting() {
    let authority = Authority::new();
    let server = with_tls(&authority, &["--proxy-protocol-networks=127.0.0.0/8"]);
    let keys = listener(&authority.issue(&["127.0.0.1"]), "");
    let tidegate = Tidegate::start(&forward(place(&server), &keys, &format!("send_proxy: v2, {}", pool(&authority))));
    let host = "select host from information_schema.processlist where id = connection_id()";
    let port = printed(&mariadb(&tidegate, &verified(&authority), host));
    drop(tidegate);
    assert!(port.starts_with("localhost:") || port.starts_with("127.0.0.1:"), "{port}");
}
