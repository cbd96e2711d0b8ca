//! Child processes that never outlive their test.

use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::holds_within;

/// A running child process; dropping it ends it.
pub(crate) struct Process {
    child: Child,
    ended_by: Signal,
}

impl Process {
    /// Starts `command`, which should come from [`bound`]; `ended_by` is the signal that ends it quickly and cleanly.
    pub(crate) fn start(command: Command, ended_by: Signal) -> Process {
        Process::start_with(command, Stdio::null(), ended_by)
    }

    /// As [`Process::start`], with something to read.
    pub(crate) fn start_with(mut command: Command, stdin: Stdio, ended_by: Signal) -> Process {
        let child = command.stdin(stdin).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, ended_by }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal to a process of our own");
    }

    /// `kill -9`, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// How it ended, or `None` when it still runs after `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        holds_within(limit, || self.has_ended());
        self.child.try_wait().expect("wait")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        _ = kill_process(Pid::from_child(&self.child), self.ended_by);
        if self.wait(Duration::from_secs(10)).is_none() {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

/// A command whose process gets `signal` when the thread that starts it ends, however that comes about: also when the test
/// process is killed. (PR_SET_PDEATHSIG without `unsafe`; setpriv is part of util-linux.)
pub(crate) fn bound(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command
}

/// Fails the test when `program` is not installed.
pub(crate) fn require(program: &str, package: &str) {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    assert!(found, "{program} is missing: install the Debian package {package}, or run `make test` as root");
}
