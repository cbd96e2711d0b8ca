//! The real mariadbd.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{Process, bound, require};
use super::{DEADLINE, free_port, holds_within};

/// A server with an account `app`, password `app`; dropping it kills it.
pub(crate) struct MariaDb {
    process: Process,
    port: u16,
    directory: TempDir,
}

impl MariaDb {
    /// On a free port, with these options of `[mysqld]`.
    pub(crate) fn start(options: &[&str]) -> MariaDb {
        require("mariadb", "mariadb-client");
        require("mariadb-install-db", "mariadb-server");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = format!("--datadir={}", directory.path().join("data").display());
        // It refuses root unless told so.
        let user: &[&str] = if rustix::process::geteuid().is_root() { &["--user=root"] } else { &[] };
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data]).args(user);
        // Servers that share a directory for temporary tables take them from each other.
        install.env("TMPDIR", directory.path());
        let output = install.output().expect("mariadb-install-db");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let log = directory.path().join("log");
        let port = free_port();
        let mut command = bound("mariadbd", "KILL");
        command.args(["--no-defaults", "--bind-address=127.0.0.1", &data]).args(user).args(options);
        command.arg(format!("--port={port}")).arg(format!("--socket={}", directory.path().join("s").display()));
        command.env("TMPDIR", directory.path()).stderr(File::create(&log).expect("a log file"));
        let mut server = MariaDb { process: Process::start(command, Signal::KILL), port, directory };
        let starts = holds_within(DEADLINE, || server.process.has_ended() || server.query("select 1").status.success());
        assert!(
            starts && server.process.wait(Duration::ZERO).is_none(),
            "mariadbd does not start:\n{}",
            fs::read_to_string(log).unwrap_or_default()
        );
        let account = server.query("create user app@'%' identified by 'app'");
        assert!(account.status.success(), "{}", String::from_utf8_lossy(&account.stderr));
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Its unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// As root, over the unix socket.
    pub(crate) fn query(&self, sql: &str) -> Output {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--user=root", "-Nse", sql]).arg(format!("--socket={}", self.socket().display()));
        client.output().expect("mariadb")
    }
}

/// As `app`, over TCP.
pub(crate) fn query(port: u16, sql: &str) -> Output {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--host=127.0.0.1", "--user=app", "--password=app", "-Nse", sql]);
    client.arg(format!("--port={port}")).output().expect("mariadb")
}
