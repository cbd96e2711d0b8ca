//! A Debian machine of the test's own: systemd as process 1, in namespaces over a root file system that `make test` prepares.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Signal, geteuid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{Process, bound, require};
use super::{DEADLINE, eventually, holds_within};

/// Moves into a control group of the machine's own, so that what systemd makes is below it, and starts what comes next.
const ENTER: &str = r#"
set -e
for group in $1; do
    mkdir "$group"
    echo $$ >"$group/cgroup.procs"
done
shift
exec unshare --fork --pid --mount --uts --ipc --cgroup --net --kill-child -- sh -c "$@"
"#;

/// What its process 1 does before it is systemd: mounts what a container has, above an overlay that forgets.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
if [ "$3" = unified ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
mkdir old
pivot_root . old
umount -l old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no
"#;

/// A running machine; dropping it ends every process in it.
pub(crate) struct Machine {
    process: Process,
    /// Of its process 1, as seen from here.
    pid: u32,
    groups: Vec<PathBuf>,
    _directory: tempfile::TempDir,
}

impl Machine {
    /// Starts one, and waits until systemd has started everything.
    pub(crate) fn start() -> Machine {
        require("nsenter", "util-linux");
        assert!(geteuid().is_root(), "a machine of the test's own takes root: run `make test` as root");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian-root");
        assert!(root.is_dir(), "{} is missing: run `make target/debian-root` as root", root.display());
        let directory = tempfile::tempdir().expect("a temporary directory");
        // A hierarchy of version 2 alone, or beside those of version 1.
        let is_unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let hierarchies: &[&str] = if is_unified { &[""] } else { &["systemd", "unified"] };
        let name = format!("tidegate-test-{}-{}", std::process::id(), directory.path().file_name().unwrap().display());
        let groups: Vec<PathBuf> =
            hierarchies.iter().map(|below| Path::new("/sys/fs/cgroup").join(below).join(&name)).collect();
        let words: Vec<String> = groups.iter().map(|group| group.display().to_string()).collect();
        // Ends with the one that started it: process 1 takes all others along.
        let mut command = bound("sh", "KILL");
        command.args(["-c", ENTER, "enter", &words.join(" "), BOOT, "boot"]).arg(root).arg(directory.path());
        command.arg(if is_unified { "unified" } else { "hybrid" });
        let process = Process::start(command, Signal::KILL);
        let outer = process.pid();
        let children = format!("/proc/{outer}/task/{outer}/children");
        let mut pid = None;
        eventually(DEADLINE, "its process 1 is systemd", || {
            let child = fs::read_to_string(&children).expect("what starts it has ended");
            pid = child.trim().parse().ok();
            pid.is_some_and(|pid: u32| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "systemd\n")
            })
        });
        let machine = Machine { process, pid: pid.expect("found"), groups, _directory: directory };
        eventually(DEADLINE, "systemd has started", || {
            machine.output(["systemctl", "is-system-running"]).stdout == b"running\n"
        });
        machine
    }

    /// The thread that calls this, and those that it starts, are in the machine's network from now on.
    pub(crate) fn enter_network(&self) {
        let network = File::open(format!("/proc/{}/ns/net", self.pid)).expect("its network");
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
    }

    /// What a command in it prints, and how it ends.
    pub(crate) fn output<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> Output {
        let mut enter = Command::new("nsenter");
        enter.args([
            "--target",
            &self.pid.to_string(),
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--net",
            "--",
        ]);
        enter.args(command).env("LC_ALL", "C.UTF-8").output().expect("nsenter")
    }

    /// What a command prints that has to succeed.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> String {
        let output = self.output(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{text}{errors}\n{}", output.status, self.journal());
        text
    }

    /// The same, by a shell.
    pub(crate) fn shell(&self, script: &str) -> String {
        self.run(["sh", "-e", "-c", script])
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, name: &str) -> String {
        self.run(["systemctl", "show", "--value", "--property", name, unit]).trim().to_owned()
    }

    /// The end of the log of tidegate.service.
    pub(crate) fn journal(&self) -> String {
        let output = self.output(["journalctl", "--no-pager", "--lines=40", "--unit=tidegate.service"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Where one of its files is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid)).join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let place = self.path(path);
        fs::create_dir_all(place.parent().expect("a directory")).expect("create it");
        fs::write(place, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.journal());
        }
        self.process.kill();
        for group in &self.groups {
            // Once its processes have gone; the innermost first.
            holds_within(DEADLINE, || {
                _ = Command::new("find")
                    .arg(group)
                    .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"])
                    .output();
                !group.exists()
            });
        }
    }
}
