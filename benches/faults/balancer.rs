//! tidegate as a child process, with a listener of each kind.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::backend::{Backend, Listening};
use crate::content;

/// Where clients connect, and how.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    /// The client speaks TLS.
    pub(crate) tls: bool,
    /// A clean end is one of the backend's own, by TLS, and not that of a process which was killed.
    pub(crate) authenticated_end: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(u16),
    Unix(PathBuf),
}

pub(crate) struct Balancer {
    pub(crate) listeners: Vec<Listener>,
    child: Child,
    admin: u16,
    log: PathBuf,
}

impl Balancer {
    pub(crate) fn start(program: &Path, folder: &Path, backends: &[Backend]) -> Result<Balancer, String> {
        let ports: Vec<u16> = free_ports(6);
        let socket = folder.join("in.sock");
        let of = |kind: fn(&Listening) -> bool| {
            let chosen = backends.iter().map(|backend| &backend.listening).filter(|listening| kind(listening));
            chosen.map(|listening| format!("{{ address: \"{listening}\" }}")).collect::<Vec<_>>().join(", ")
        };
        let tcp = of(|listening| matches!(listening, Listening::Tcp { tls: false, .. }));
        let (tls, unix) = (of(Listening::is_tls), of(|listening| matches!(listening, Listening::Unix(_))));
        let (cert, key) = (content::cert_file(folder), content::key_file(folder));
        let own = format!("tls: {{ certificates: [{{ cert: {}, key: {} }}] }}", cert.display(), key.display());
        let health = "health: { tcp: {}, interval: 200ms, timeout: 200ms }, timeouts: { connect: 2s }";
        let yaml = format!(
            "workers: 2\nadmin: {{ bind: \"127.0.0.1:{admin}\" }}\nlog: {{ access: {access} }}\nlisteners:\n\
             - {{ name: plain, bind: \"127.0.0.1:{plain}\", pool: tcp }}\n\
             - {{ name: unix, bind: \"unix:{socket}\", pool: unix }}\n\
             - {{ name: terminated, bind: \"127.0.0.1:{terminated}\", pool: tcp, {own} }}\n\
             - {{ name: again, bind: \"127.0.0.1:{again}\", pool: secure, {own} }}\n\
             - {{ name: watched, bind: \"127.0.0.1:{watched}\", pool: tcp, sniff: http }}\n\
             - {{ name: through, bind: \"127.0.0.1:{through}\", pool: tcp, \
             routes: [{{ match: {{ sni: [localhost] }}, pool: through }}] }}\n\
             pools:\n\
             - {{ name: tcp, backends: [{tcp}], {health} }}\n\
             - {{ name: unix, balance: least_connections, backends: [{unix}], {health} }}\n\
             - {{ name: through, backends: [{tls}], {health} }}\n\
             - {{ name: secure, backends: [{tls}], tls: {{ ca: {cert}, server_name: localhost }}, {health} }}\n",
            admin = ports[0],
            plain = ports[1],
            terminated = ports[2],
            again = ports[3],
            watched = ports[4],
            through = ports[5],
            socket = socket.display(),
            access = folder.join("access.log").display(),
            cert = cert.display(),
        );
        let (file, log) = (folder.join("tidegate.yaml"), folder.join("tidegate.log"));
        fs::write(&file, yaml).map_err(|error| error.to_string())?;
        let stderr = File::create(&log).map_err(|error| error.to_string())?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("run").arg("--config").arg(&file);
        let child = command.env_remove("RUST_LOG").stdout(Stdio::null()).stderr(stderr).spawn();
        let child = child.map_err(|error| format!("setpriv: {error}"))?;
        let listener = |name, place, tls, authenticated_end| Listener { name, place, tls, authenticated_end };
        let listeners = vec![
            listener("plain", Place::Tcp(ports[1]), false, false),
            listener("unix", Place::Unix(socket), false, false),
            listener("terminated", Place::Tcp(ports[2]), true, false),
            listener("again", Place::Tcp(ports[3]), true, true),
            listener("watched", Place::Tcp(ports[4]), false, false),
            listener("through", Place::Tcp(ports[5]), true, true),
        ];
        let mut balancer = Balancer { listeners, child, admin: ports[0], log };
        let end = Instant::now() + Duration::from_secs(30);
        while !balancer.log().contains(" ready") {
            if Instant::now() > end || !matches!(balancer.child.try_wait(), Ok(None)) {
                return Err(format!("tidegate does not start:\n{}", balancer.log_tail()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(balancer)
    }

    /// That it lives, answers, and has not panicked.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("tidegate ended: {status}"));
        }
        if self.log().contains("a defect of tidegate") {
            return Err("tidegate panicked".into());
        }
        self.get("/livez").map(|_| ())
    }

    pub(crate) fn open_connections(&self) -> Result<u64, String> {
        let stats: serde_json::Value = serde_json::from_str(&self.get("/stats")?).map_err(|error| error.to_string())?;
        stats["plane"]["open"].as_u64().ok_or_else(|| "no plane.open".into())
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("GET {path}: {error}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin)).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("GET {path}: {answer:?}"))?;
        if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(format!("GET {path}: {head}")) }
    }

    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// SIGTERM, with nothing open.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, Signal::TERM).map_err(|error| error.to_string())?;
        }
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            match self.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("SIGTERM: {status}")),
                None if Instant::now() > end => return Err("SIGTERM: it does not end".into()),
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}
