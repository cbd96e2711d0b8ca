//! The Debian package, and the unit in it, under a systemd of the test's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::backend::Backend;
use crate::support::client::{Place, connect, echoes, talking, try_connect};
use crate::support::machine::Machine;
use crate::support::{DEADLINE, eventually};

/// `make` of what cargo has built for the tests.
fn make(arguments: &[&str]) {
    // One at a time: they have a directory in common.
    let lock = File::create(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dist.lock")).unwrap();
    lock.lock().unwrap();
    let output = Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("--silent")
        .args(arguments)
        .output()
        .expect("make");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn package(directory: &Path, revision: u8) -> PathBuf {
    let packages = format!("PACKAGES={}", directory.display());
    let options = format!("DEB=--quiet --fast --deb-revision {revision}");
    make(&["deb", "BUILD=:", "PROFILE=dev", &packages, &options]);
    let name = format!("_0.1.0-{revision}_");
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut fits = files.filter(|file| {
        let file = file.file_name().unwrap().to_string_lossy();
        file.starts_with("tidegate_") && file.contains(&name) && file.ends_with(".deb")
    });
    fits.next().expect("a package")
}

/// A machine with the package, and a backend in its network.
fn installed(directory: &Path) -> (Machine, Backend) {
    let machine = Machine::start();
    machine.enter_network();
    install(&machine, &package(directory, 1));
    (machine, Backend::echo())
}

fn install(machine: &Machine, package: &Path) -> String {
    fs::copy(package, machine.path("/root/tidegate.deb")).unwrap();
    machine.run(["dpkg", "--install", "/root/tidegate.deb"])
}

fn client_place() -> Place {
    Place::parse("127.0.0.1:6432")
}

fn configuration(backend: &Backend, more: &str) -> String {
    format!(
        "admin: {{ bind: \"unix:/run/tidegate/admin.sock\" }}\n{more}\
         listeners: [{{ name: in, bind: \"127.0.0.1:6432\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: one, address: \"{}\" }}], health: {{ tcp: {{}}, interval: 100ms }} }}]\n",
        backend.place()
    )
}

#[test]
fn package_is_installed_upgraded_and_purged() {
    let directory = tempfile::tempdir().unwrap();
    let (machine, backend) = installed(directory.path());
    assert_eq!(machine.run(["systemctl", "is-active", "tidegate"]), "active\n");
    assert_eq!(machine.run(["systemctl", "is-enabled", "tidegate"]), "enabled\n");
    let owner = machine.shell(
        "stat -c '%U %a' /etc/tidegate; stat -c %U /run/tidegate/admin.sock; id -un tidegate; tidegate --version",
    );
    assert!(owner.starts_with("root 750\ntidegate\ntidegate\ntidegate 0.1.0"), "{owner}");
    machine.run(["tidegate", "check"]);
    for path in [
        "/usr/share/man/man1/tidegate.1.gz",
        "/usr/share/man/man5/tidegate.yaml.5.gz",
        "/usr/share/bash-completion/completions/tidegate",
        "/usr/share/zsh/vendor-completions/_tidegate",
        "/usr/share/tidegate/tidegate.schema.json",
        "/usr/share/doc/tidegate/examples/postgres.yaml",
    ] {
        assert!(fs::metadata(machine.path(path)).unwrap().len() > 100, "{path}");
    }

    // The first connection.
    machine.write(
        "/etc/tidegate/config.yaml",
        &configuration(&backend, "log: { access: /var/log/tidegate/access.log }\n"),
    );
    machine.run(["systemctl", "reload", "tidegate"]);
    let mut client = talking(&client_place());

    // logrotate renames the log, and the next line is in a new file.
    drop(talking(&client_place()));
    let lines = |path: &str| fs::read_to_string(machine.path(path)).unwrap_or_default().lines().count();
    eventually(DEADLINE, "a line in the log", || lines("/var/log/tidegate/access.log") == 1);
    machine.run(["logrotate", "--force", "/etc/logrotate.d/tidegate"]);
    drop(talking(&client_place()));
    eventually(DEADLINE, "a line in the new log", || lines("/var/log/tidegate/access.log") == 1);
    assert_eq!(lines("/var/log/tidegate/access.log.1"), 1);

    // An upgrade of the package under load.
    let (next, before) = (package(directory.path(), 2), machine.property("tidegate", "MainPID"));
    let (stop, place) = (AtomicBool::new(false), client_place());
    let connections = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut connections = 0;
            while !stop.load(Ordering::Relaxed) {
                echoes(&mut try_connect(&place).expect("a connection during the upgrade"));
                connections += 1;
            }
            connections
        });
        let printed = install(&machine, &next);
        stop.store(true, Ordering::Relaxed);
        assert!(!printed.contains("goes on with the old version"), "{printed}");
        load.join().unwrap()
    });
    assert!(connections > 0);
    let after = machine.property("tidegate", "MainPID");
    assert_ne!(before, after, "{}", machine.journal());
    assert_eq!(machine.property("tidegate", "NRestarts"), "0");
    assert_eq!(machine.run(["systemctl", "is-active", "tidegate"]), "active\n");
    let program = machine.run(["readlink", &format!("/proc/{after}/exe")]);
    assert_eq!(program, "/usr/bin/tidegate\n", "the new file, not the deleted one");
    echoes(&mut client);
    drop(client);
    drop(talking(&client_place()));

    machine.run(["dpkg", "--remove", "tidegate"]);
    assert_eq!(machine.property("tidegate", "Result"), "success", "{}", machine.journal());
    assert!(machine.path("/etc/tidegate/config.yaml").exists(), "a configuration outlives removal");
    machine.run(["dpkg", "--purge", "tidegate"]);
    let rest = machine.shell(
        "find /etc /usr /var/lib /var/log /run -xdev -iname '*tidegate*' ! -path '/var/lib/systemd/*' ! -path '/run/systemd/*'; \
         getent passwd tidegate || true",
    );
    assert_eq!(rest, "");
}

/// `make install` into a directory, twice: a configuration that is there is left alone.
#[test]
fn make_install_has_a_prefix_and_a_root() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let destination = format!("DESTDIR={}", root.display());
    let install =
        || make(&["install", "BUILD=:", "PROFILE=dev", "PREFIX=/opt/tidegate", "SYSCONFDIR=/opt/etc", &destination]);
    install();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(read("opt/tidegate/share/man/man1/tidegate.1").starts_with('.'));
    assert!(read("opt/tidegate/share/man/man5/tidegate.yaml.5").starts_with('.'));
    for completion in [
        "bash-completion/completions/tidegate",
        "zsh/site-functions/_tidegate",
        "fish/vendor_completions.d/tidegate.fish",
    ] {
        assert!(read(&format!("opt/tidegate/share/{completion}")).contains("tidegate"), "{completion}");
    }
    let unit = read("opt/tidegate/lib/systemd/system/tidegate.service");
    assert!(
        unit.contains("\nExecStart=/opt/tidegate/bin/tidegate run --config /opt/etc/tidegate/config.yaml\n"),
        "{unit}"
    );
    assert!(!unit.contains("/usr/bin/tidegate") && !unit.contains(" /etc/tidegate/"), "{unit}");
    let program = Command::new(root.join("opt/tidegate/bin/tidegate")).arg("--version").output().unwrap();
    assert!(program.status.success());
    assert!(root.join("opt/tidegate/lib/debug/opt/tidegate/bin/tidegate.debug").exists());
    let configuration = root.join("opt/etc/tidegate/config.yaml");
    assert!(read("opt/etc/tidegate/config.yaml").contains("$schema=/opt/tidegate/share/tidegate/"));
    fs::write(&configuration, "own").unwrap();
    install();
    assert_eq!(fs::read_to_string(&configuration).unwrap(), "own");
}

#[test]
fn unit_under_systemd() {
    let directory = tempfile::tempdir().unwrap();
    let (machine, backend) = installed(directory.path());
    machine.write("/etc/tidegate/config.yaml", &configuration(&backend, "shutdown: { drain: 60s }\n"));
    machine.run(["systemctl", "reload", "tidegate"]);
    let place = client_place();
    let mut client = talking(&place);
    let status = || machine.property("tidegate", "StatusText");
    eventually(DEADLINE, "the status", || status() == "1 listener, 1 of 1 backend up, 1 connection");

    // A wrong file: systemctl fails, and nothing has changed.
    machine.write("/etc/tidegate/config.yaml", &configuration(&backend, "shutdown: { drain: 60 }\n"));
    let refused = machine.output(["systemctl", "reload", "tidegate"]);
    assert!(!refused.status.success());
    let journal = machine.journal();
    assert!(journal.contains("has no unit"), "{journal}");
    echoes(&mut client);
    machine.write("/etc/tidegate/config.yaml", &configuration(&backend, "shutdown: { drain: 60s }\n"));
    machine.run(["systemctl", "reload", "tidegate"]);

    // An upgrade by the signal: systemd follows.
    let main = || machine.property("tidegate", "MainPID");
    let old = main();
    machine.run(["systemctl", "kill", "--kill-who=main", "--signal=USR2", "tidegate"]);
    eventually(DEADLINE, "the new process is the main one", || main() != old);
    echoes(&mut client);
    let second = talking(&place);

    // The watchdog: a process that hangs is killed and replaced.
    machine.write("/etc/systemd/system/tidegate.service.d/watchdog.conf", "[Service]\nWatchdogSec=1s\n");
    machine.run(["systemctl", "daemon-reload"]);
    // Both processes drain, each with a connection, before the next one starts.
    machine.run(["systemctl", "restart", "--no-block", "tidegate"]);
    eventually(DEADLINE, "it does not accept", || try_connect(&place).is_err());
    for mut session in [client, second] {
        assert_eq!(machine.property("tidegate", "ActiveState"), "deactivating");
        echoes(&mut session);
    }
    eventually(DEADLINE, "it has started again", || machine.property("tidegate", "ActiveState") == "active");
    let hung = main();
    machine.shell(&format!("kill -STOP {hung}"));
    eventually(DEADLINE, "systemd replaces it", || main() != hung && main() != "0");
    assert_eq!(machine.property("tidegate", "NRestarts"), "1");
    eventually(DEADLINE, "the new one serves", || try_connect(&place).is_ok());

    // It stops when its last connection has ended.
    let mut last = talking(&place);
    machine.run(["systemctl", "stop", "--no-block", "tidegate"]);
    eventually(DEADLINE, "it does not accept", || try_connect(&place).is_err());
    assert_eq!(
        machine.run(["systemctl", "show", "--value", "--property", "ActiveState", "tidegate"]),
        "deactivating\n"
    );
    echoes(&mut last);
    drop(last);
    eventually(DEADLINE, "it has stopped", || machine.property("tidegate", "ActiveState") == "inactive");
    assert_eq!(machine.property("tidegate", "Result"), "success");
}

#[test]
fn sockets_of_systemd_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (machine, backend) = installed(directory.path());
    machine.run(["systemctl", "stop", "tidegate"]);
    machine.write("/etc/tidegate/config.yaml", &configuration(&backend, ""));
    // Six starts within ten seconds are more than systemd allows, which then closes its sockets.
    machine.write("/etc/systemd/system/tidegate.service.d/limit.conf", "[Unit]\nStartLimitIntervalSec=0\n");
    machine.write("/etc/systemd/system/tidegate.socket", "[Socket]\nListenStream=127.0.0.1:6432\nBacklog=1024\n");
    machine.run(["systemctl", "daemon-reload"]);
    machine.run(["systemctl", "start", "tidegate.socket"]);
    // The first connection starts it.
    echoes(&mut connect(&client_place()));
    eventually(DEADLINE, "systemd knows that it is ready", || machine.property("tidegate", "ActiveState") == "active");
    machine.run(["systemctl", "stop", "tidegate"]);
    let mut waiting = connect(&client_place());
    echoes(&mut waiting);
    drop(waiting);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut connections = 0;
            while !stop.load(Ordering::Relaxed) {
                echoes(&mut try_connect(&client_place()).expect("a connection during the restart"));
                connections += 1;
            }
            connections
        });
        for _ in 0..3 {
            machine.run(["systemctl", "restart", "tidegate"]);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(load.join().unwrap() > 0);
    });
}
