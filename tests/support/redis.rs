//! The real redis-server.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::client::{Place, try_connect};
use super::process::{Process, bound, require};
use super::{DEADLINE, free_port, holds_within};

/// A redis-server that keeps nothing; dropping it kills it.
pub(crate) struct Redis {
    process: Process,
    port: u16,
    _directory: TempDir,
}

impl Redis {
    /// On a free port.
    pub(crate) fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// On a free port, with these options.
    pub(crate) fn start_with(options: &[&str]) -> Redis {
        let started = (0..5).find_map(|_| Redis::try_start(free_port(), options).ok());
        started.unwrap_or_else(|| panic!("redis-server does not start"))
    }

    /// On the port that one had before.
    pub(crate) fn start_on(port: u16) -> Redis {
        Redis::try_start(port, &[]).unwrap_or_else(|log| panic!("redis-server does not start on port {port}:\n{log}"))
    }

    fn try_start(port: u16, options: &[&str]) -> Result<Redis, String> {
        require("redis-server", "redis-server");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let mut command = bound("redis-server", "KILL");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(directory.path()).args(options).stdout(File::create(&log).expect("a log file"));
        let mut process = Process::start(command, Signal::KILL);
        let address = Place::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let answers = || match ping(&address) {
            Ok(()) => true,
            Err(error) => error.contains("NOAUTH"),
        };
        holds_within(DEADLINE, || process.has_ended() || answers());
        // The one that answers could be somebody else's, when ours found the port taken: then ours ends.
        if process.wait(Duration::from_millis(50)).is_some() || !answers() {
            return Err(fs::read_to_string(log).unwrap_or_default());
        }
        Ok(Redis { process, port, _directory: directory })
    }

    /// A command by redis-cli, and what it printed.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        require("redis-cli", "redis-tools");
        let mut client = Command::new("redis-cli");
        let output = client.args(["-p", &self.port.to_string()]).args(words).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}

/// One connection, one PING.
pub(crate) fn ping(place: &Place) -> Result<(), String> {
    let mut stream = try_connect(place).map_err(|error| format!("connect: {error}"))?;
    ping_on(&mut stream)
}

/// One PING.
pub(crate) fn ping_on(stream: &mut (impl Read + Write)) -> Result<(), String> {
    stream.write_all(b"PING\r\n").map_err(|error| format!("write: {error}"))?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).map_err(|error| format!("read: {error}"))?;
    if &answer == b"+PONG\r\n" { Ok(()) } else { Err(format!("answer {:?}", String::from_utf8_lossy(&answer))) }
}
