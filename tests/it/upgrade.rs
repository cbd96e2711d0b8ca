//! Upgrades: another process takes over the listening sockets, and the old one drains.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::backend::{Backend, Dead, Scripted};
use crate::support::client::{Place, connect, expect, read_to_end, try_connect};
use crate::support::notify::NotifySocket;
use crate::support::process::require;
use crate::support::stats::{ADMIN, ADMIN_SOCKET, get, listener};
use crate::support::tidegate::{Line, Tidegate, forward};
use crate::support::{DEADLINE, eventually, proc};

fn says(stream: &mut std::net::TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    expect(stream, text);
}

#[test]
fn upgrade_keeps_connections_in_the_old_process_and_gives_new_ones_to_the_new() {
    let backend = Backend::echo();
    let mut tidegate = Tidegate::start(&format!("{ADMIN_SOCKET}{}", forward(backend.place(), "", "")));
    let (place, admin) = (tidegate.at("in"), tidegate.stats_port());
    let mut old = connect(&place);
    says(&mut old, b"before");
    let successor = tidegate.upgrade();
    tidegate.wait_for_log("that the old one drains", |line| line.is("draining"));
    let audited = tidegate.wait_for_log("the upgrade", |line| line.is("audit"));
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_tidegate")).unwrap();
    let change = format!("process {successor} ({}) has taken over", program.display());
    assert_eq!((audited.field("actor").as_str(), audited.field("action").as_str()), ("SIGUSR2", "upgrade"));
    assert!(audited.field("changes").contains(&change), "{audited:?}");
    let mut new = connect(&place);
    says(&mut new, b"after");
    says(&mut old, b"still");
    // The same port of the admin interface, and the new process answers.
    let view = tidegate.view();
    assert_eq!((view.process.pid, listener(&view, "in").accepted), (successor, 1));
    eventually(DEADLINE, "the new process knows what the old one has left", || {
        tidegate.view().predecessors.iter().map(|it| (it.pid, it.connections)).eq([(tidegate.pid(), 1)])
    });
    let metrics = get(&admin, "/metrics").text();
    assert!(metrics.contains("\ntidegate_upgrade_draining 1\n"), "{metrics}");
    assert!(metrics.contains("\ntidegate_upgrade_draining_connections 1\n"), "{metrics}");
    assert!(tidegate.runs());
    drop((old, new));
    eventually(DEADLINE, "the old process is gone", || tidegate.view().predecessors.is_empty());
    assert!(tidegate.wait().success(), "it has drained");
    let mut new = connect(&place);
    says(&mut new, b"and on");
    eventually(DEADLINE, "the new process is alone", || tidegate.view().predecessors.is_empty());
    assert!(get(&admin, "/metrics").text().contains("\ntidegate_upgrade_draining 0\n"));
    proc::signal(successor, Signal::TERM);
    drop(new);
    eventually(DEADLINE, "it ends as any other", || !proc::runs(successor));
}

/// Every connect and every echo counts: none is refused, reset or left in a queue.
#[test]
fn upgrades_under_load_refuse_nobody() {
    const CLIENTS: usize = 20;
    const UPGRADES: usize = 3;
    let backend = Backend::echo();
    let tidegate = Tidegate::start(&format!("workers: 2\n{}", forward(backend.place(), "", "")));
    let place = tidegate.at("in");
    let (ends, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    while !ends.load(Ordering::Relaxed) {
                        says(&mut connect(&place), b"hello");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let more = || {
            let before = served.load(Ordering::Relaxed);
            eventually(DEADLINE, "clients are served", || {
                served.load(Ordering::Relaxed) > before + 200
                    || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        };
        for _ in 0..UPGRADES {
            more();
            tidegate.upgrade();
        }
        more();
        ends.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("no client has failed"));
    });
}

#[test]
fn file_of_a_unix_socket_outlives_the_old_process() {
    let (backend, folder) = (Backend::named("b"), TempDir::new().unwrap());
    let (path, gone, admin) =
        (folder.path().join("in.sock"), folder.path().join("gone.sock"), folder.path().join("admin.sock"));
    let yaml = |listeners: &str| {
        format!(
            "admin: {{ bind: \"unix:{}\" }}\nlisteners: [{{ name: in, bind: \"unix:{}\", pool: p }}{listeners}]\n\
             pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
            admin.display(),
            path.display(),
            backend.place()
        )
    };
    let other = format!(", {{ name: gone, bind: \"unix:{}\", pool: p }}", gone.display());
    let mut tidegate = Tidegate::start(&yaml(&other));
    assert_eq!(read_to_end(&mut connect(&Place::Unix(gone.clone()))).0, b"b");
    tidegate.rewrite(&yaml(""));
    let successor = tidegate.upgrade();
    assert!(tidegate.wait().success());
    assert_eq!(read_to_end(&mut connect(&Place::Unix(path.clone()))).0, b"b");
    assert_eq!(get(&Place::Unix(admin.clone()), "/livez").status, 200);
    assert!(!gone.exists(), "the old process removes what the new one has not");
    proc::signal(successor, Signal::TERM);
    eventually(DEADLINE, "the new process ends", || !proc::runs(successor));
    assert!(!path.exists() && !admin.exists(), "the files are the new process's");
}

/// Sockets of a listener that stays are all adopted, or bound in addition; those of one that is gone are closed.
#[test]
fn unix_socket_whose_file_is_gone_is_bound_again_by_an_upgrade() {
    let (backend, folder) = (Backend::named("b"), TempDir::new().unwrap());
    let path = folder.path().join("in.sock");
    let mut tidegate = Tidegate::start(&format!(
        "listeners: [{{ name: in, bind: \"unix:{}\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
        path.display(),
        backend.place()
    ));
    fs::remove_file(&path).unwrap();
    tidegate.upgrade();
    assert!(tidegate.wait().success());
    assert_eq!(read_to_end(&mut connect(&Place::Unix(path))).0, b"b");
}

#[test]
fn workers_and_listeners_may_change_with_an_upgrade() {
    let backend = Backend::named("b");
    let yaml = |workers: usize, names: &[&str]| {
        let listeners: Vec<String> =
            names.iter().map(|name| format!("{{ name: {name}, bind: \"127.0.0.1:0\", pool: p }}")).collect();
        format!(
            "workers: {workers}\nlisteners: [{}]\npools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
            listeners.join(", "),
            backend.place()
        )
    };
    let tidegate = Tidegate::start(&yaml(4, &["stays", "gone"]));
    let (stays, gone) = (tidegate.at("stays"), tidegate.at("gone"));
    for (workers, names) in [(1, &["stays", "new"][..]), (3, &["stays"][..])] {
        tidegate.rewrite(&yaml(workers, names));
        tidegate.upgrade();
        // The kernel spreads them over all sockets.
        for _ in 0..64 {
            assert_eq!(read_to_end(&mut connect(&stays)).0, b"b");
        }
        eventually(DEADLINE, "what is gone is closed", || try_connect(&gone).is_err());
    }
}

/// A health check that answers once: only the old process knows that the backend is up.
#[test]
fn verdicts_of_health_checks_are_taken_over() {
    let backend = Backend::named("b");
    let answered = AtomicUsize::new(0);
    let mut held = Vec::new();
    let checked = Backend::bind(SocketAddr::new(backend.address().ip(), 0), move |mut stream| {
        if answered.fetch_add(1, Ordering::Relaxed) == 0 {
            stream.write_all(b"+").unwrap();
        } else {
            held.push(stream);
        }
    });
    let health = format!(
        "health: {{ exchange: {{ send: \"x\", expect: \"+\" }}, port: {}, interval: 1h, timeout: 1h }}",
        checked.address().port()
    );
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(backend.address(), "", &health)));
    tidegate.wait_for_up("b");
    tidegate.upgrade();
    assert_eq!(get(&tidegate.stats_port(), "/readyz").status, 200);
    assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"b");
    eventually(DEADLINE, "the new process has begun its own check", || checked.accepted() == 2);
    assert_eq!(tidegate.count_logs(|line| line.is("not ready")), 0);
}

#[test]
fn service_manager_hears_which_process_is_the_main_one() {
    let (backend, socket) = (Backend::echo(), NotifySocket::new());
    let launch = Tidegate::with(&forward(backend.place(), "", "")).environment("NOTIFY_SOCKET", socket.name());
    let mut tidegate = launch.start();
    assert_eq!(socket.next()[0], "READY=1");
    let successor = tidegate.upgrade();
    let next = socket.wait_for(|line| !line.starts_with("STATUS="));
    assert_eq!(next, [format!("MAINPID={successor}")]);
    let next = socket.next();
    assert_eq!(next[0], "READY=1", "by the new process, and nothing more by the old one");
    // systemd waits for a main process that is its own child alone.
    assert!(!is_child(successor, tidegate.pid()));
    assert!(tidegate.wait().success());
    assert!(proc::runs(successor));
}

/// Whether the one process is the parent of the other.
fn is_child(pid: u32, of: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == of.to_string()))
}

/// Under a service manager too, whose new process has a launcher between.
#[test]
fn launcher_and_new_process_end_together() {
    let (backend, socket, program) = (Backend::echo(), NotifySocket::new(), Program::new());
    let launch = Tidegate::with(&forward(backend.place(), "", "")).environment("NOTIFY_SOCKET", socket.name());
    let tidegate = launch.program(&program.path).start();
    let place = tidegate.at("in");
    let files = tidegate.open_files();
    // The status of the new process is its launcher's.
    tidegate.rewrite("listeners: []\n");
    fails(&tidegate, "exit code 2");
    // One that is in its start for a second, as a new backend does not answer its check, and then for ever.
    let silent = Scripted::start();
    let check = "health: { exchange: { send: \"x\", expect: \"+\" }, timeout: 1h }";
    let pool = format!("}}, {{ name: q, backends: [{{ address: \"{}\" }}], {check}", silent.place());
    tidegate.rewrite(&forward(backend.place(), "", &pool));
    let (known, started) = (failures(&tidegate).len(), tidegate.successors().len());
    tidegate.signal(Signal::USR2);
    let _check = silent.accept();
    let launcher = tidegate.successors()[started];
    let child = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap();
    let child: u32 = child.trim().parse().unwrap();
    proc::signal(child, Signal::STOP);
    proc::signal(launcher, Signal::KILL);
    next_failure(&tidegate, known, "(signal: 9");
    eventually(DEADLINE, "both are gone", || !proc::runs(child) && !proc::runs(launcher));
    says(&mut connect(&place), b"goes on");
    eventually(DEADLINE, "no descriptor is left behind", || tidegate.open_files() <= files);
}

/// The new process takes the end of the old one for a crash only if it is one.
#[test]
fn old_process_that_is_told_to_end_takes_the_new_one_along() {
    for (signal, managed) in [(Signal::TERM, true), (Signal::QUIT, true), (Signal::QUIT, false), (Signal::TERM, false)]
    {
        for _ in 0..5 {
            let (backend, socket) = (Backend::echo(), NotifySocket::new());
            let mut launch = Tidegate::with(&forward(backend.place(), "", ""));
            if managed {
                launch = launch.environment("NOTIFY_SOCKET", socket.name());
            }
            let mut tidegate = launch.start();
            let place = tidegate.at("in");
            tidegate.signal(Signal::USR2);
            eventually(DEADLINE, "the new process is ready", || tidegate.count_logs(|line| line.is("ready")) == 2);
            tidegate.signal(signal);
            assert!(tidegate.wait().success());
            if tidegate.count_logs(|line| line.is("upgrade: the new process serves")) == 0 {
                eventually(DEADLINE, "the port is closed", || try_connect(&place).is_err());
            }
        }
    }
}

/// A file of the program that can be replaced.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Program {
    pub(crate) fn new() -> Program {
        // On the file system of the real one, of which it is another name.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("tidegate");
        fs::hard_link(env!("CARGO_BIN_EXE_tidegate"), &path).unwrap();
        Program { path, _folder: folder }
    }

    pub(crate) fn replace(&self, text: &str, mode: u32) {
        let new = self.path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }

    fn restore(&self) {
        let new = self.path.with_extension("new");
        fs::hard_link(env!("CARGO_BIN_EXE_tidegate"), &new).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }
}

/// A script that talks to its parent as a new process does; `$n` is the channel.
pub(crate) fn script(steps: &str) -> String {
    format!("#!/bin/bash\nn=${{TIDEGATE_UPGRADE#*:}}\n{steps}\n")
}

pub(crate) const HELLO: &str = "printf '{\"message\":\"hello\",\"version\":2,\"pid\":%d}' $$ >&$n\n";
pub(crate) const READY: &str = "printf '{\"message\":\"ready\",\"files\":[]}' >&$n\n";

fn failures(tidegate: &Tidegate) -> Vec<Line> {
    tidegate.logs().into_iter().filter(|line| line.is("upgrade failed")).collect()
}

/// The next failure, which says this.
fn fails(tidegate: &Tidegate, why: &str) {
    let known = failures(tidegate).len();
    tidegate.signal(Signal::USR2);
    next_failure(tidegate, known, why);
}

fn next_failure(tidegate: &Tidegate, known: usize, why: &str) {
    eventually(DEADLINE, "the upgrade fails", || failures(tidegate).len() > known);
    let error = failures(tidegate)[known].field("error");
    assert!(error.contains(why) && error.ends_with("the running process goes on"), "{why}: {error}");
}

#[test]
fn old_process_goes_on_whatever_becomes_of_the_new_one() {
    require("bash", "bash");
    let (backend, program) = (Backend::echo(), Program::new());
    let yaml = format!("{ADMIN}{}", forward(backend.place(), "", ""));
    let mut tidegate = Tidegate::with(&yaml).program(&program.path).start();
    let (place, admin) = (tidegate.at("in"), tidegate.stats_port());
    let mut client = connect(&place);
    says(&mut client, b"first");
    let files = tidegate.open_files();
    let mut goes_on = |tidegate: &Tidegate| {
        says(&mut client, b"the same");
        says(&mut connect(&place), b"another");
        assert_eq!(get(&admin, "/livez").status, 200);
        assert_eq!(tidegate.count_logs(|line| line.is("draining")), 0);
    };
    let cases = [
        ("exit 1".to_owned(), "the new process has ended (exit status: 1)"),
        ("kill -9 $$".to_owned(), "the new process has ended (signal: 9"),
        ("printf garbage >&$n; exec sleep 1000".to_owned(), "is no tidegate that can take over"),
        (READY.to_owned() + "exec sleep 1000", "said what was not expected"),
        ("printf '{\"message\":\"hello\",\"version\":99}' >&$n; exec sleep 1000".to_owned(), "version 99"),
        (HELLO.to_owned() + "kill -9 $$", "(signal: 9"),
        (HELLO.to_owned() + READY + "kill -9 $$", "(signal: 9"),
        (
            HELLO.to_owned() + "printf '{\"message\":\"failed\",\"error\":\"no key\"}' >&$n; exec sleep 1000",
            ": no key; ",
        ),
        ("head -c 200000 /dev/zero >&$n; exec sleep 1000".to_owned(), "is no tidegate"),
    ];
    for (steps, why) in cases {
        program.replace(&script(&steps), 0o755);
        fails(&tidegate, why);
        goes_on(&tidegate);
    }
    program.replace("no program", 0o644);
    let known = failures(&tidegate).len();
    tidegate.signal(Signal::USR2);
    eventually(DEADLINE, "it cannot be started", || failures(&tidegate).len() > known);
    let error = failures(&tidegate)[known].field("error");
    assert!(error.contains("cannot start") && error.contains("Permission denied"), "{error}");
    goes_on(&tidegate);

    // It hangs until it is killed: before it has said anything, and after it has said that it is ready, when the admin interface
    // of the old process accepts nothing.
    for steps in [String::new(), HELLO.to_owned(), HELLO.to_owned() + READY] {
        program.replace(&script(&(steps + "exec sleep 1000")), 0o755);
        let (known, started) = (failures(&tidegate).len(), tidegate.successors().len());
        tidegate.signal(Signal::USR2);
        eventually(DEADLINE, "it has started", || tidegate.successors().len() > started);
        let pid = tidegate.successors()[started];
        eventually(DEADLINE, "it hangs", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        });
        says(&mut connect(&place), b"meanwhile");
        proc::signal(pid, Signal::KILL);
        next_failure(&tidegate, known, "(signal: 9");
        goes_on(&tidegate);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is reaped");
    }
    // Once it was to serve, it has little time: until then probes wait.
    program.replace(&script(&(HELLO.to_owned() + READY + "exec sleep 1000")), 0o755);
    fails(&tidegate, "is ready, but does not serve");
    goes_on(&tidegate);
    eventually(DEADLINE, "no descriptor is left behind", || tidegate.open_files() <= files);

    // The real one, with a configuration that it cannot use.
    program.restore();
    tidegate.rewrite("listeners: []\n");
    fails(&tidegate, "exit code 2");
    goes_on(&tidegate);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("{{ name: other, bind: \"{}\", pool: p }}, {{ name: in", taken.local_addr().unwrap());
    tidegate.rewrite(&yaml.replace("{ name: in", &other));
    fails(&tidegate, "listener other: cannot listen on");
    goes_on(&tidegate);
    assert!(tidegate.runs());

    tidegate.rewrite(&yaml);
    assert!(failures(&tidegate).len() > 10);
    tidegate.signal(Signal::USR2);
    tidegate.wait_for_log("the upgrade", |line| line.is("took over from the process that ran before"));
    says(&mut connect(&place), b"new");
    says(&mut client, b"old");
}

/// By the command, which waits for the outcome.
#[test]
fn upgrade_command_reports_the_outcome() {
    let (backend, program, folder) = (Backend::echo(), Program::new(), TempDir::new().unwrap());
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let yaml = format!("admin: {{ bind: \"{admin}\" }}\n{}", forward(backend.place(), "", ""));
    let mut tidegate = Tidegate::start(&yaml);
    let upgrade = |program: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["upgrade", "--admin", &admin, "--binary"]).arg(program).output().unwrap()
    };
    let failed = upgrade(Path::new("/nowhere/tidegate"));
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot start /nowhere/tidegate: No such file"), "{told}");
    assert!(tidegate.runs());
    // Nothing is connected: the old process ends at once, and has answered all the same.
    let done = upgrade(&program.path);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    let successor = *tidegate.successors().last().unwrap();
    assert!(
        told.contains(&format!(
            "process {successor} ({}) has taken over from process {}",
            program.path.display(),
            tidegate.pid()
        )),
        "{told}"
    );
    assert!(tidegate.wait().success());
    says(&mut connect(&tidegate.at("in")), b"new");
}

/// What an operator has changed at run time is not undone, without a state file too.
#[test]
fn changes_of_run_time_outlive_an_upgrade() {
    let (one, other, folder) = (Backend::named("1"), Backend::named("2"), TempDir::new().unwrap());
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let tidegate = Tidegate::start(&format!(
        "admin: {{ bind: \"{admin}\" }}\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: one, address: \"{}\" }}, {{ name: two, address: \"{}\" }}] }}]\n",
        one.place(),
        other.place()
    ));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(["drain", "p/one", "--admin", &admin]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let max = tidegate.call("PATCH", "/api/listeners/in", "{\"max_connections\": 77}");
    assert_eq!(max.status, 200, "{}", max.text());
    let whole = fs::read_to_string(tidegate.config_file()).unwrap();
    let put = tidegate.call("PUT", "/api/config", &whole.replace("name: p,", "name: p, balance: random,"));
    assert_eq!(put.status, 200, "{}", put.text());
    tidegate.upgrade();
    for _ in 0..4 {
        assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"2");
    }
    let config = tidegate.call("GET", "/api/config", "").json();
    let (listener, pool) = (&config["data"]["listeners"][0], &config["data"]["pools"][0]);
    assert_eq!((&listener["max_connections"], &pool["balance"]), (&77.into(), &"random".into()));
    let differs = || tidegate.call("GET", "/stats", "").json()["config"]["file_differs"].clone();
    assert!(differs().as_str().is_some_and(|why| why.contains("put")), "{}", differs());
    // Until the file is applied again.
    assert_eq!(tidegate.call("POST", "/api/reload", "").status, 200);
    assert!(differs().is_null(), "{}", differs());
    let config = tidegate.call("GET", "/api/config", "").json();
    assert_eq!(config["data"]["pools"][0]["balance"], "round_robin");
}

/// SIGTERM while an upgrade is under way ends both.
#[test]
fn process_that_is_ended_while_it_upgrades_leaves_none_behind() {
    require("bash", "bash");
    let (backend, program) = (Backend::echo(), Program::new());
    let mut tidegate = Tidegate::with(&forward(backend.place(), "", "")).program(&program.path).start();
    program.replace(&script("exec sleep 1000"), 0o755);
    tidegate.signal(Signal::USR2);
    eventually(DEADLINE, "it has started", || !tidegate.successors().is_empty());
    let pid = tidegate.successors()[0];
    tidegate.terminate();
    assert!(tidegate.wait().success());
    eventually(DEADLINE, "the new one is gone", || !proc::runs(pid));
}

/// The variable is another process's: it was inherited by one that upgrades nothing.
#[test]
fn variable_of_another_parent_is_ignored() {
    let address = Dead::start().address();
    let launch = Tidegate::with(&forward(address, "", "")).environment("TIDEGATE_UPGRADE", "1:7");
    let tidegate = launch.start();
    assert_eq!(tidegate.count_logs(|line| line.level() == "ERROR"), 0);
}
