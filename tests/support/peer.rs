//! Programs of others that speak to the balancer, or for it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::client::{Place, try_connect};
use super::process::{Process, bound, require};
use super::{DEADLINE, holds_within, own_address};

/// nginx or HAProxy with a configuration of one port; dropping it ends it.
pub(crate) struct Peer {
    process: Process, // dropped before the directory
    pub(crate) address: SocketAddr,
    pub(crate) directory: TempDir,
}

impl Peer {
    /// HAProxy; `sections` get the address to bind to.
    pub(crate) fn haproxy(sections: impl Fn(SocketAddr) -> String) -> Peer {
        require("haproxy", "haproxy");
        let defaults = "defaults\n timeout connect 30s\n timeout client 60s\n timeout server 60s\n";
        Peer::start(
            |directory, address| {
                fs::write(directory.join("conf"), format!("{defaults}{}", sections(address))).expect("write");
                let mut command = bound("haproxy", "KILL");
                command.args(["-db", "-f"]).arg(directory.join("conf"));
                command
            },
            Signal::TERM,
        )
    }

    /// nginx; `blocks` get the address to listen at.
    pub(crate) fn nginx(blocks: impl Fn(SocketAddr) -> String) -> Peer {
        require("nginx", "nginx");
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        assert!(Path::new(module).is_file(), "{module} is missing: install the Debian package libnginx-mod-stream");
        Peer::start(
            |directory, address| {
                let global = "daemon off; master_process off; error_log stderr; pid nginx.pid;";
                let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|kind| format!("{kind}_temp_path {kind};"));
                let blocks = blocks(address).replace("http {", &format!("http {{ access_log off; {}", paths.concat()));
                let text = format!("load_module {module}; {global} events {{}}\n{blocks}\n");
                fs::write(directory.join("conf"), text).expect("write");
                let mut command = bound("nginx", "KILL");
                command.args(["-e", "stderr", "-c", "conf", "-p"]).arg(directory);
                command
            },
            Signal::TERM,
        )
    }

    fn start(command: impl Fn(&Path, SocketAddr) -> Command, ended_by: Signal) -> Peer {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Nobody else binds to an address of its own.
        let free = TcpListener::bind((own_address(), 0)).expect("bind");
        let address = free.local_addr().expect("its address");
        drop(free);
        let log = File::create(directory.path().join("log")).expect("a log file");
        let mut command = command(directory.path(), address);
        command.current_dir(directory.path()).stdout(log.try_clone().expect("dup")).stderr(log);
        let mut process = Process::start(command, ended_by);
        holds_within(DEADLINE, || process.has_ended() || try_connect(&Place::Tcp(address)).is_ok());
        let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        assert!(!process.has_ended(), "it does not start:\n{log}");
        Peer { process, address, directory }
    }

    /// `kill -9`, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn place(&self) -> Place {
        Place::Tcp(self.address)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
    }
}
