//! The balancer as a child process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::backend::Scripted;
use super::client::{Place, connect};
use super::process::{Process, bound};
use super::{DEADLINE, eventually, proc};

/// A running `tidegate run`; dropping it kills it.
pub(crate) struct Tidegate {
    process: Process,
    logs: Arc<Logs>,
    /// The value of `log` in the configuration.
    log: String,
    directory: TempDir,
}

/// How to run it.
pub(crate) struct Launch {
    yaml: String,
    log: String,
    open_files: Option<(u64, u64)>,
    hosts: Option<PathBuf>,
    program: PathBuf,
    name_the_file: bool,
    environment: Vec<(String, OsString)>,
    passed: Vec<OwnedFd>,
    directory: TempDir,
}

/// One line on stderr.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    json: Value,
}

#[derive(Default)]
struct Logs {
    lines: Mutex<Vec<Line>>,
    changed: Condvar,
}

/// A configuration with one listener, `in`, and one backend, `b`; more keys for either may follow.
pub(crate) fn forward(to: impl Display, listener: &str, pool: &str) -> String {
    format!(
        "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {listener} }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{to}\" }}], {pool} }}]\n"
    )
}

/// Both ends of a connection through the balancer: the client's and the backend's. `listener` is more keys of it.
pub(crate) fn one_connection(listener: &str) -> (Tidegate, TcpStream, TcpStream) {
    let scripted = Scripted::start();
    let tidegate = Tidegate::start(&forward(scripted.place(), listener, ""));
    let client = connect(&tidegate.at("in"));
    let backend = scripted.accept();
    relays(&tidegate);
    (tidegate, client, backend)
}

/// Waits until a connection that its backend has accepted is relayed. The kernel accepts before tidegate knows that it is
/// connected, and until then a reset is a failed connect. A worker is runnable from the moment when the kernel knows.
pub(crate) fn relays(tidegate: &Tidegate) {
    eventually(DEADLINE, "it relays", || proc::is_asleep(tidegate.pid()));
}

impl Tidegate {
    /// Runs with this configuration, and waits until its listeners are open. Logs are JSON, access lines go to a file.
    pub(crate) fn start(yaml: &str) -> Tidegate {
        Tidegate::with(yaml).start()
    }

    /// As [`Tidegate::start`], to be changed before it runs. `yaml` has no `log` section.
    pub(crate) fn with(yaml: &str) -> Launch {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = format!("{{ format: json, access: {} }}", directory.path().join("access.log").display());
        Launch::of(yaml.to_owned(), log, directory)
    }

    /// The configuration file that it was started with.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.path().join("tidegate.yaml")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Processes that were started by upgrades, the last one last.
    pub(crate) fn successors(&self) -> Vec<u32> {
        let logs = self.logs();
        // What has started may be a launcher of what serves.
        let is_one =
            |line: &&Line| line.is("upgrade: the new process starts") || line.is("upgrade: the new process serves");
        let mut pids: Vec<u32> =
            logs.iter().filter(is_one).map(|line| u32::try_from(line.number("pid")).expect("a process id")).collect();
        pids.dedup();
        pids
    }

    /// SIGUSR2, to the process that runs now: this one or a successor. Returns the one that has taken over,
    /// once the one before accepts nothing any more.
    pub(crate) fn upgrade(&self) -> u32 {
        let before = self.count_logs(|line| line.is("took over from the process that ran before"));
        let old = self.successors().last().copied().unwrap_or(self.pid());
        proc::signal(old, Signal::USR2);
        eventually(DEADLINE, "the upgrade", || {
            let failed = self.logs().into_iter().find(|line| line.is("upgrade failed"));
            assert!(failed.is_none(), "{failed:?}");
            self.count_logs(|line| line.is("took over from the process that ran before")) > before
        });
        let listening = self.logs().into_iter().filter(|line| line.is("listening"));
        let addresses: BTreeSet<SocketAddr> = listening.filter_map(|line| line.field("address").parse().ok()).collect();
        for address in addresses.into_iter().filter(SocketAddr::is_ipv4) {
            eventually(DEADLINE, "the process before has closed its sockets", || !proc::listens(old, address));
        }
        *self.successors().last().expect("one was started")
    }

    /// The first address of a listener.
    pub(crate) fn at(&self, listener: &str) -> Place {
        let lines = self.logs.lines.lock().expect("the reader lives");
        let line = lines.iter().find(|line| line.is("listening") && line.field("listener") == listener);
        Place::parse(&line.unwrap_or_else(|| panic!("no listener {listener}")).field("address"))
    }

    /// The address of a listener whose log is text.
    pub(crate) fn at_text(&self, listener: &str) -> SocketAddr {
        let wanted = format!("listening listener={listener} address=");
        let line = self.wait_for_log("where it listens", |line| line.text.contains(&wanted));
        let (_, address) = line.text.split_once(&wanted).expect("just found");
        address.parse().unwrap_or_else(|_| panic!("not an address: {address}"))
    }

    pub(crate) fn logs(&self) -> Vec<Line> {
        self.logs.lines.lock().expect("the reader lives").clone()
    }

    /// The first log line for which this holds, now or later.
    pub(crate) fn wait_for_log(&self, what: &str, condition: impl Fn(&Line) -> bool) -> Line {
        self.logs.wait_for(DEADLINE, &condition).unwrap_or_else(|| panic!("no log line: {what}"))
    }

    pub(crate) fn count_logs(&self, condition: impl Fn(&Line) -> bool) -> usize {
        self.logs().iter().filter(|line| condition(line)).count()
    }

    /// Waits until a health check found this backend up.
    pub(crate) fn wait_for_up(&self, backend: &str) {
        self.wait_for_log(&format!("{backend} is up"), |line| {
            line.is("backend up") && line.field("backend") == backend
        });
    }

    /// Waits until a health check found this backend down; the line says why.
    pub(crate) fn wait_for_down(&self, backend: &str) -> Line {
        self.wait_for_log(&format!("{backend} is down"), |line| {
            line.is("backend down") && line.field("backend") == backend
        })
    }

    /// The access lines so far.
    pub(crate) fn access(&self) -> Vec<Access> {
        let text = fs::read_to_string(self.access_file()).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(Access::parse).collect()
    }

    pub(crate) fn access_file(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }

    /// The first access line for which this holds, now or later.
    pub(crate) fn wait_for_access(&self, what: &str, condition: impl Fn(&Access) -> bool) -> Access {
        let mut found = None;
        eventually(DEADLINE, &format!("an access line: {what}"), || {
            found = self.access().into_iter().find(|line| condition(line));
            found.is_some()
        });
        found.expect("found")
    }

    /// The access line of a test's only connection.
    pub(crate) fn only_access(&self) -> Access {
        let line = self.wait_for_access("of the only connection", |_| true);
        assert_eq!(self.access().len(), 1, "one connection, one line: {:?}", self.access());
        line
    }

    /// The directory of that file: `DIRECTORY` in a configuration.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Another configuration, beside the same `log`, as the file would have it.
    pub(crate) fn contents(&self, yaml: &str) -> String {
        contents(&self.log, yaml, self.directory.path())
    }

    /// Another configuration in the file, put in the place of the old one at once.
    pub(crate) fn rewrite(&self, yaml: &str) {
        let next = self.directory.path().join("next.yaml");
        fs::write(&next, self.contents(yaml)).expect("write the configuration");
        fs::rename(next, self.config_file()).expect("rename");
    }

    /// Another value of `log`, for what is written to the file from now on.
    pub(crate) fn set_log(&mut self, log: &str) {
        log.clone_into(&mut self.log);
    }

    /// `kill -9`, and another start with the file as it now is.
    pub(crate) fn kill_and_start(mut self) -> Tidegate {
        self.process.kill();
        let spare = tempfile::tempdir().expect("a temporary directory");
        let directory = std::mem::replace(&mut self.directory, spare);
        Launch::of(String::new(), self.log.clone(), directory).start_with_file_as_it_is()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How it ends; fails the test when it does not.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait(DEADLINE).expect("the process ends")
    }

    /// Still there?
    pub(crate) fn runs(&mut self) -> bool {
        !self.process.has_ended()
    }

    pub(crate) fn open_files(&self) -> usize {
        self.lasting_files().len()
    }

    /// The number of the next file that stays open.
    pub(crate) fn lowest_free_file(&self) -> usize {
        let open = self.lasting_files();
        (0..).find(|file| !open.contains(file)).expect("there is always one more number")
    }

    /// But for the configuration file, which is read again now and then.
    fn lasting_files(&self) -> BTreeSet<usize> {
        let config_file = self.config_file();
        let files = proc::open_files(self.pid()).filter(|(_, file)| *file != config_file);
        files.map(|(number, _)| number).collect()
    }

    pub(crate) fn resident(&self) -> u64 {
        proc::resident(self.pid())
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        for pid in self.successors() {
            // Unless it has ended, and its number is another's.
            if proc::environment(pid).iter().any(|variable| variable.starts_with("TIDEGATE_UPGRADE=")) {
                proc::signal(pid, Signal::KILL);
            }
        }
        if thread::panicking() {
            let lines = self.logs();
            eprintln!("--- the last of {} log lines", lines.len());
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{}", line.text);
            }
        }
    }
}

/// `DIRECTORY` in a configuration is the one of its file.
fn contents(log: &str, yaml: &str, directory: &Path) -> String {
    format!("log: {log}\n{}", yaml.replace("DIRECTORY", &directory.display().to_string()))
}

impl Launch {
    fn of(yaml: String, log: String, directory: TempDir) -> Launch {
        Launch {
            yaml,
            log,
            open_files: None,
            hosts: None,
            program: env!("CARGO_BIN_EXE_tidegate").into(),
            name_the_file: true,
            environment: Vec::new(),
            passed: Vec::new(),
            directory,
        }
    }

    /// The value of `log` in the configuration.
    pub(crate) fn log(mut self, log: &str) -> Launch {
        log.clone_into(&mut self.log);
        self
    }

    /// Soft and hard limit of open files.
    pub(crate) fn open_files(mut self, soft: u64, hard: u64) -> Launch {
        self.open_files = Some((soft, hard));
        self
    }

    /// What /etc/hosts says, for this process alone.
    pub(crate) fn hosts(mut self, hosts: &str) -> Launch {
        let file = self.directory.path().join("hosts");
        fs::write(&file, hosts).expect("write the hosts");
        self.hosts = Some(file);
        self
    }

    /// Another file of the program.
    pub(crate) fn program(mut self, program: &Path) -> Launch {
        program.clone_into(&mut self.program);
        self
    }

    /// A variable of its environment.
    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Launch {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Descriptors from 3 on, at most two, as socket activation passes them.
    pub(crate) fn passing(mut self, sockets: Vec<OwnedFd>) -> Launch {
        self.passed = sockets;
        self
    }

    /// `tidegate run` in the directory of the file, without --config.
    pub(crate) fn without_argument(mut self) -> Launch {
        self.name_the_file = false;
        self
    }

    /// Runs it, and waits until its listeners are open.
    pub(crate) fn start(self) -> Tidegate {
        self.write();
        self.start_with_file_as_it_is()
    }

    fn start_with_file_as_it_is(self) -> Tidegate {
        let mut tidegate = self.spawn();
        let started = |line: &Line| line.is("started") || (line.json.is_null() && line.text.contains("started"));
        let end = Instant::now() + DEADLINE;
        while tidegate.logs.wait_for(Duration::from_millis(20), started).is_none() {
            assert!(tidegate.runs(), "it ended with {:?}", tidegate.wait());
            assert!(Instant::now() < end, "it does not start");
        }
        tidegate
    }

    /// Runs it to its end: how it ended, and what it wrote to stderr.
    pub(crate) fn run_to_end(self) -> (ExitStatus, String) {
        self.write();
        let mut tidegate = self.spawn();
        let status = tidegate.wait();
        let mut text = String::new();
        // The reader sees the end of stderr right after the end of the process.
        eventually(DEADLINE, "the end of stderr", || Arc::strong_count(&tidegate.logs) == 1);
        for line in tidegate.logs() {
            text.push_str(&line.text);
            text.push('\n');
        }
        (status, text)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("tidegate.yaml")
    }

    fn write(&self) {
        fs::write(self.file(), contents(&self.log, &self.yaml, self.directory.path()))
            .expect("write the configuration");
    }

    fn spawn(mut self) -> Tidegate {
        let file = self.file();
        let mut command = self.command(&file);
        command.envs(self.environment.drain(..));
        let mut passed = self.passed.drain(..);
        let stdin = passed.next().map_or_else(Stdio::null, Stdio::from);
        command.stdout(passed.next().map_or_else(Stdio::null, Stdio::from));
        drop(passed);
        let mut process = Process::start_with(command, stdin, Signal::KILL);
        let stderr = process.child().stderr.take().expect("piped");
        let logs = Arc::new(Logs::default());
        thread::spawn({
            let logs = Arc::clone(&logs);
            move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    logs.push(&String::from_utf8_lossy(&line));
                }
            }
        });
        Tidegate { process, logs, log: self.log, directory: self.directory }
    }

    fn command(&self, file: &Path) -> Command {
        let binary = &self.program;
        let mut command = match (self.open_files, &self.hosts) {
            (None, None) if !self.passed.is_empty() => {
                // Without a window in which other children could inherit them: they are the launcher's stdin and stdout.
                let script = match self.passed.len() {
                    1 => "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
                    _ => "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec \"$@\"",
                };
                let mut command = bound("sh", "KILL");
                command.args(["-c", script, "sh"]).arg(binary);
                command
            }
            (None, None) => bound(binary, "KILL"),
            (None, Some(hosts)) => {
                let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
                let mut command = bound("unshare", "KILL");
                command.args([namespaces, "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
                command.arg(hosts).arg(binary);
                command
            }
            (Some((soft, hard)), _) => {
                let mut command = bound("prlimit", "KILL");
                command.arg(format!("--nofile={soft}:{hard}")).arg(binary);
                command
            }
        };
        command.arg("run");
        if self.name_the_file {
            command.arg("--config").arg(file);
        }
        command.current_dir(self.directory.path()).env_remove("RUST_LOG").stderr(Stdio::piped());
        command
    }
}

impl Line {
    fn parse(text: &str) -> Line {
        Line { text: text.to_owned(), json: serde_json::from_str(text).unwrap_or(Value::Null) }
    }

    /// Whether this is its message, which may go on after a colon (JSON logs only).
    pub(crate) fn is(&self, message: &str) -> bool {
        let rest = self.json["message"].as_str().and_then(|whole| whole.strip_prefix(message));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    pub(crate) fn level(&self) -> String {
        self.field("level").to_uppercase()
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json.is_object()
    }

    /// The value of a field as text; empty when it is not there.
    pub(crate) fn field(&self, name: &str) -> String {
        text(&self.json[name])
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.json[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {}", self.text))
    }
}

impl Logs {
    fn push(&self, text: &str) {
        self.lines.lock().expect("no panic under it").push(Line::parse(text));
        self.changed.notify_all();
    }

    fn wait_for(&self, limit: Duration, condition: impl Fn(&Line) -> bool) -> Option<Line> {
        let lines = self.lines.lock().expect("the reader lives");
        let (lines, _) = self
            .changed
            .wait_timeout_while(lines, limit, |lines| !lines.iter().any(&condition))
            .expect("the reader lives");
        lines.iter().find(|line| condition(line)).cloned()
    }
}

/// One line of the access log, written as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Access(Value);

impl Access {
    fn parse(line: &str) -> Access {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("access line {line:?}: {error}"));
        assert!(value.is_object(), "access line {line:?}");
        Access(value)
    }

    /// Who ended it, and why.
    pub(crate) fn end(&self) -> String {
        self.field("reason")
    }

    /// The name of the backend; `None` when it got none.
    pub(crate) fn backend(&self) -> Option<&str> {
        self.0["backend"].as_str()
    }

    pub(crate) fn field(&self, name: &str) -> String {
        text(&self.0[name])
    }

    /// `None` when it is null.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.0[name].as_f64()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        self.0[name].clone()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    /// Bytes from the client to the backend, and from the backend to the client.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let bytes = |name: &str| self.0[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {}", self.0));
        (bytes("bytes_in"), bytes("bytes_out"))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
