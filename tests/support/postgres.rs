//! The real PostgreSQL, as Debian packages it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::authority::Issued;
use super::process::{Process, bound, require};
use super::{DEADLINE, free_port, holds_within};

/// A cluster of its own in a temporary directory; dropping it ends the server and removes the data.
pub(crate) struct Postgres {
    process: Option<Process>, // dropped before the directory
    port: u16,
    binaries: PathBuf,
    settings: Vec<String>,
    directory: TempDir,
}

impl Postgres {
    /// A server on a free port, with the tables of pgbench.
    pub(crate) fn start() -> Postgres {
        let postgres = Postgres::bare(&[]);
        let mut load = postgres.pgbench(postgres.port);
        run(load.args(["-i", "-q", "-s", "5"]));
        postgres
    }

    /// A server on a free port that speaks TLS.
    pub(crate) fn with_tls(files: &Issued) -> Postgres {
        Postgres::with_tls_files(&files.cert, &files.key)
    }

    /// As [`Postgres::with_tls`], with a certificate from elsewhere.
    pub(crate) fn with_tls_files(cert: &Path, key: &Path) -> Postgres {
        Postgres::with(&TLS, Some((cert, key)))
    }

    /// A server on a free port, with these settings and nothing in it.
    pub(crate) fn bare(settings: &[&str]) -> Postgres {
        Postgres::with(settings, None)
    }

    fn with(settings: &[&str], files: Option<(&Path, &Path)>) -> Postgres {
        let (binaries, directory) = (binaries(), directory());
        copy_tls_files(&directory, files);
        let mut initdb = as_server_user(binaries.join("initdb"), "KILL");
        initdb.args(["-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D", "data"]);
        run(initdb.current_dir(directory.path()));
        Postgres::run_in(directory, settings)
    }

    fn run_in(directory: TempDir, settings: &[&str]) -> Postgres {
        let binaries = binaries();
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let (process, port) = (0..5)
            .find_map(|_| {
                let port = free_port();
                Some((start_server(&binaries, directory.path(), &settings, port)?, port))
            })
            .unwrap_or_else(|| panic!("postgres does not start:\n{}", log(directory.path())));
        Postgres { process: Some(process), port, binaries, settings, directory }
    }

    /// A standby that streams from this server, with these settings beside its own.
    pub(crate) fn standby(&self, settings: &[&str]) -> Postgres {
        self.standby_with(settings, None)
    }

    /// As [`Postgres::standby`], and it speaks TLS.
    pub(crate) fn standby_with_tls(&self, files: &Issued) -> Postgres {
        self.standby_with(&TLS, Some((&files.cert, &files.key)))
    }

    fn standby_with(&self, settings: &[&str], files: Option<(&Path, &Path)>) -> Postgres {
        let directory = directory();
        copy_tls_files(&directory, files);
        let mut backup = as_server_user(self.binaries.join("pg_basebackup"), "KILL");
        backup.args(["-h", "127.0.0.1", "-U", "postgres", "-D", "data", "-R", "-X", "stream", "-c", "fast", "-p"]);
        run(backup.arg(self.port.to_string()).current_dir(directory.path()));
        Postgres::run_in(directory, settings)
    }

    /// Replaces pg_hba.conf for TCP; over the unix socket everybody is trusted.
    pub(crate) fn set_hba(&self, tcp: &str) {
        let hba = self.directory.path().join("data/pg_hba.conf");
        fs::write(hba, format!("local all all trust\n{tcp}\nhost replication all 127.0.0.1/32 trust\n"))
            .expect("write");
        self.query("select pg_reload_conf()");
    }

    /// As its superuser, over its unix socket; fails the test on an error.
    pub(crate) fn query(&self, sql: &str) -> String {
        let mut psql = bound(self.binaries.join("psql"), "KILL");
        psql.arg("-h").arg(self.directory.path()).args(["-p", &self.port.to_string(), "-U", "postgres", "-XAtqc", sql]);
        let output = psql.output().expect("psql");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        log(self.directory.path())
    }

    /// Ends the server: SIGINT, its fast shutdown.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Ends the server at once, without a word to the standby: SIGQUIT, its immediate shutdown.
    pub(crate) fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::QUIT);
            assert!(process.wait(DEADLINE).is_some(), "postgres does not end");
        }
    }

    /// Starts it on the same port; returns once it is ready.
    pub(crate) fn start_again(&mut self) {
        let started = start_server(&self.binaries, self.directory.path(), &self.settings, self.port);
        assert!(started.is_some(), "postgres does not start again:\n{}", log(self.directory.path()));
        self.process = started;
    }

    /// Starts it on the same port with these settings, and does not wait until it is ready.
    pub(crate) fn start_unready(&mut self, settings: &[&str]) {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        self.process = Some(spawn_server(&self.binaries, self.directory.path(), &settings, self.port));
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

/// What pgbench counted, in transactions a second; fails the test when a client saw an error.
pub(crate) fn tps(pgbench: &mut Command) -> String {
    let output = pgbench.output().unwrap_or_else(|error| panic!("{pgbench:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let told = format!("{pgbench:?}: {}\n{out}\n{err}", output.status);
    assert!(output.status.success(), "{told}");
    assert!(!err.contains("error") && !err.contains("aborted") && !out.contains("aborted"), "{told}");

    let value = |label: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(label));
        line.unwrap_or_else(|| panic!("no {label:?}: {told}")).trim().to_owned()
    };
    assert!(value("number of transactions actually processed:").parse::<u64>().expect("a number") > 0, "{told}");
    assert!(value("number of failed transactions:").starts_with("0 "), "{told}");
    value("tps =").split('.').next().expect("a number").to_owned()
}

/// Settings of a server that speaks TLS.
const TLS: [&str; 3] = ["ssl=on", "ssl_cert_file=../server.pem", "ssl_key_file=../server.key"];

/// The server refuses a key that others can read.
fn copy_tls_files(directory: &TempDir, files: Option<(&Path, &Path)>) {
    for (file, name) in files.iter().flat_map(|(cert, key)| [(cert, "server.pem"), (key, "server.key")]) {
        let copy = directory.path().join(name);
        fs::copy(file, &copy).expect("copy");
        own(&copy);
    }
}

/// A directory of the server's user.
fn directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("tidegate-pg-").tempdir_in("/tmp").expect("a temporary directory");
    own(directory.path());
    directory
}

fn own(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(id("-u")), Some(id("-g"))).expect("chown");
    }
}

fn start_server(binaries: &Path, directory: &Path, settings: &[String], port: u16) -> Option<Process> {
    let mut process = spawn_server(binaries, directory, settings, port);
    let ready = || {
        let mut question = Command::new(binaries.join("pg_isready"));
        question.args(["-q", "-h"]).arg(directory).args(["-p", &port.to_string()]);
        question.status().is_ok_and(|status| status.success())
    };
    // Asked on the unix socket in our directory, the answer can only be our own server's.
    holds_within(DEADLINE, || process.has_ended() || ready());
    (!process.has_ended()).then_some(process)
}

fn spawn_server(binaries: &Path, directory: &Path, settings: &[String], port: u16) -> Process {
    // SIGINT ends the server at once but in order, with its shared memory: SIGKILL would leave that behind.
    let mut command = as_server_user(binaries.join("postgres"), "INT");
    command.args(["-D", "data", "-p", &port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=200"]
        .into_iter()
        .chain(settings.iter().map(String::as_str))
    {
        command.args(["-c", setting]);
    }
    command.arg("-c").arg(format!("unix_socket_directories={}", directory.display()));
    let out = File::create(directory.join("log")).expect("a log file");
    command.current_dir(directory).stdout(out.try_clone().expect("dup")).stderr(out);
    Process::start(command, Signal::INT)
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
