//! The real PostgreSQL, as Debian packages it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::process::{Process, bound, require};
use super::{DEADLINE, free_port, holds_within};

/// A cluster of its own in a temporary directory; dropping it ends the server and removes the data.
pub(crate) struct Postgres {
    _process: Process, // dropped before the directory
    port: u16,
    binaries: PathBuf,
    _directory: TempDir,
}

impl Postgres {
    /// A server on a free port, with the tables of pgbench.
    pub(crate) fn start() -> Postgres {
        let binaries = binaries();
        let directory =
            tempfile::Builder::new().prefix("tidegate-pg-").tempdir_in("/tmp").expect("a temporary directory");
        if geteuid().is_root() {
            let (user, group) = (id("-u"), id("-g"));
            chown(directory.path(), Some(user), Some(group)).expect("chown");
        }
        let mut initdb = as_server_user(binaries.join("initdb"), "KILL");
        initdb.args(["-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D", "data"]);
        run(initdb.current_dir(directory.path()));

        let (process, port) = (0..5)
            .find_map(|_| start_server(&binaries, directory.path()))
            .unwrap_or_else(|| panic!("postgres does not start:\n{}", log(directory.path())));
        let postgres = Postgres { _process: process, port, binaries, _directory: directory };
        let mut load = postgres.pgbench(port);
        run(load.args(["-i", "-q", "-s", "5"]));
        postgres
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// pgbench against this server, reached through `port`.
    pub(crate) fn pgbench(&self, port: u16) -> Command {
        let mut command = bound(self.binaries.join("pgbench"), "KILL");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
        command.env("PGDATABASE", "postgres").env("PGCONNECT_TIMEOUT", "30");
        command
    }

    /// psql against this server, reached through `port`.
    pub(crate) fn psql(&self, port: u16) -> Command {
        let mut command = bound(self.binaries.join("psql"), "KILL");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-p", &port.to_string()]);
        command.env("PGCONNECT_TIMEOUT", "30");
        command
    }
}

fn start_server(binaries: &Path, directory: &Path) -> Option<(Process, u16)> {
    let port = free_port();
    // SIGINT ends the server at once but in order, with its shared memory: SIGKILL would leave that behind.
    let mut command = as_server_user(binaries.join("postgres"), "INT");
    command.args(["-D", "data", "-p", &port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=200"] {
        command.args(["-c", setting]);
    }
    command.arg("-c").arg(format!("unix_socket_directories={}", directory.display()));
    let out = File::create(directory.join("log")).expect("a log file");
    command.current_dir(directory).stdout(out.try_clone().expect("dup")).stderr(out);
    let mut process = Process::start(command, Signal::INT);
    let ready = || {
        let mut question = Command::new(binaries.join("pg_isready"));
        question.args(["-q", "-h"]).arg(directory).args(["-p", &port.to_string()]);
        question.status().is_ok_and(|status| status.success())
    };
    // Asked on the unix socket in our directory, the answer can only be our own server's.
    holds_within(DEADLINE, || process.has_ended() || ready());
    (!process.has_ended()).then_some((process, port))
}

/// The newest version that is installed.
fn binaries() -> PathBuf {
    let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    let found =
        versions.iter().rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).find(
            |directory| ["initdb", "postgres", "pgbench"].iter().all(|program| directory.join(program).is_file()),
        );
    found.expect("PostgreSQL is missing: install the Debian package postgresql, or run `make test` as root")
}

/// PostgreSQL refuses to run as root.
fn as_server_user(program: impl AsRef<OsStr>, signal: &str) -> Command {
    if !geteuid().is_root() {
        return bound(program, signal);
    }
    require("setpriv", "util-linux");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--pdeathsig", signal, "--"]);
    command.arg(program);
    command
}

fn id(which: &str) -> u32 {
    let output = Command::new("id").args([which, "postgres"]).output().expect("id");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("the user postgres, which the Debian package postgresql makes")
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
