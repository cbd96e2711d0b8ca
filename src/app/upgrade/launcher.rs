//! The process between the old one and the new one, where a service manager supervises them.
//!
//! systemd waits for a main process that ends only if that is its own child: another it kills without letting it drain. The new
//! process is started by the old one. So what the old one starts is a launcher, which starts the new process and ends once
//! that can take over: its child is then systemd's.

use std::os::fd::RawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;
use std::{env, io};

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use tokio::time::{sleep, timeout};

use super::VARIABLE;
use crate::net::sys;

/// How long a launcher may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);
const END_POLL: Duration = Duration::from_millis(1);

/// What [`VARIABLE`] says.
pub(super) struct Ancestry {
    pub(super) predecessor: Pid,
    pub(super) channel: RawFd,
    launcher: Option<Pid>,
}

impl Ancestry {
    /// `None` if this process replaces no other.
    ///
    /// # Errors
    /// The variable makes no sense.
    pub(super) fn from_environment() -> Result<Option<Ancestry>, String> {
        let Ok(value) = env::var(VARIABLE) else { return Ok(None) };
        let ancestry = Ancestry::parse(&value)
            .ok_or_else(|| format!("{VARIABLE}={value}: not of the form PID:DESCRIPTOR or PID:DESCRIPTOR:PID"))?;
        // It was meant for another process, or the old one has ended: there is nothing to take over.
        Ok(Some(ancestry).filter(|ancestry| ancestry.launcher.is_some() || getppid() == Some(ancestry.predecessor)))
    }

    fn parse(value: &str) -> Option<Ancestry> {
        let pid = |text: &str| text.parse().ok().and_then(Pid::from_raw);
        let mut parts = value.split(':');
        let (predecessor, channel) = (pid(parts.next()?)?, parts.next()?.parse().ok()?);
        let launcher = parts.next().map(pid);
        let is_whole = parts.next().is_none() && launcher != Some(None);
        is_whole.then_some(Ancestry { predecessor, channel, launcher: launcher.flatten() })
    }

    /// That of this process, which [`launch`] has tied to it.
    pub(super) fn launcher(&self) -> Option<LauncherProcess> {
        self.launcher.map(LauncherProcess)
    }
}

/// The launcher of this process.
pub(super) struct LauncherProcess(Pid);

impl LauncherProcess {
    /// Ends it, so that this process is the service manager's. On the main thread.
    pub(super) async fn end(self) {
        // The tie must not outlive it.
        let ended = set_parent_process_death_signal(None).and_then(|()| kill_process(self.0, Signal::KILL));
        if let Err(error) = ended {
            tracing::warn!(%error, launcher = self.0.as_raw_nonzero(), "cannot end the launcher of this process");
            return;
        }
        let has_ended = async {
            while getppid() == Some(self.0) {
                sleep(END_POLL).await;
            }
        };
        let _ = timeout(END_LIMIT, has_ended).await;
    }
}

/// Is the launcher, if this process is to be one; returns once the new process has ended before it could take over. In the
/// new process, ties it to its launcher: killed, that takes it along. On the main thread, before anything can wait.
pub fn launch() -> Option<ExitCode> {
    // What is wrong with the variable, `PredecessorLink::from_environment` says.
    let ancestry = Ancestry::from_environment().ok().flatten()?;
    if let Some(launcher) = ancestry.launcher {
        let is_tied = set_parent_process_death_signal(Some(Signal::KILL)).is_ok() && getppid() == Some(launcher);
        return (!is_tied).then_some(ExitCode::FAILURE);
    }
    env::var_os("NOTIFY_SOCKET")?;
    // Without a new process, the old one sees the channel closed, and how this process has ended.
    let status = start(&ancestry).and_then(|mut child| {
        // The new process's alone, whose end the old one is to see.
        drop(sys::take_descriptor(ancestry.channel)?);
        child.wait()
    });
    Some(status.map_or(ExitCode::FAILURE, |status| ExitCode::from(code(status))))
}

fn start(ancestry: &Ancestry) -> io::Result<std::process::Child> {
    let mut arguments = env::args_os();
    let mut command = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let [old, own] = [ancestry.predecessor, getpid()].map(Pid::as_raw_nonzero);
    command.args(arguments).env(VARIABLE, format!("{old}:{}:{own}", ancestry.channel)).spawn()
}

/// As a shell has it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_is_read_whole() {
        let read = |value: &str| {
            let raw = |pid: Pid| pid.as_raw_nonzero().get();
            Ancestry::parse(value).map(|it| (raw(it.predecessor), it.channel, it.launcher.map(raw)))
        };
        assert_eq!(read("12:7"), Some((12, 7, None)));
        assert_eq!(read("12:7:13"), Some((12, 7, Some(13))));
        for wrong in ["", "12", "12:", ":7", "12:7:", "12:7:x", "12:7:13:14", "0:7", "x:7"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
