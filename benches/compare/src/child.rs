//! Processes that this program starts: where they run, and that they end with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Open files of every balancer, if this process may grant that many: far more than any scenario needs.
const OPEN_FILES: u64 = 65_536;
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// Restricts this thread, and what it starts later, to these CPUs. None given: as it is.
pub(crate) fn pin(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    sched_setaffinity(None, &set)
        .map_err(|error| io::Error::other(format!("cannot run on CPU {cpus:?} (two are needed): {error}")))
}

/// `compare exec`: prepares this process and becomes another program. A step of its own because what has to be
/// done between fork and exec cannot be done from safe code.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The process with which this one ends.
    #[arg(long)]
    parent: i32,
    /// The only CPUs it runs on.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Only returns when it fails.
pub(crate) fn exec(args: &Args) -> Result<(), String> {
    let prepare = || -> io::Result<()> {
        // SIGTERM, not SIGKILL: a master process has to end its workers.
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        // The parent may have ended before that.
        if getppid() != Pid::from_raw(args.parent) {
            return Err(io::Error::other("the parent has ended"));
        }
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: Some(OPEN_FILES), maximum: Some(maximum.unwrap_or(OPEN_FILES).max(OPEN_FILES)) };
        if setrlimit(Resource::Nofile, wanted).is_err() {
            // Not root: as far as it goes. The scenarios need some 9,000.
            setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
        }
        pin(&args.cpus)
    };
    prepare().map_err(|error| error.to_string())?;
    let [program, arguments @ ..] = &args.command[..] else { return Err("no program".into()) };
    let error = Command::new(program).args(arguments).exec();
    Err(format!("{}: {error}", program.display()))
}

/// A process in a group of its own, which is ended when this is dropped, and by the kernel when this program
/// ends in any other way.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a program on these CPUs; what it says goes to a file.
    pub(crate) fn start(command: &[OsString], cpus: &[usize], log: &Path) -> io::Result<Process> {
        let log = File::create(log)?;
        let child = guarded(command, cpus)?.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Process { child })
    }

    /// Its id and those of its children.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        let root = self.child.id();
        let mut pids = vec![root];
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // State and parent follow the name, which stands in parentheses.
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
            if parent == Some(root) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Its exit, if it has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let Some(group) = Pid::from_raw(pid) else { return };
        // Once it was waited for, its number may be another's: then only its group may be left.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process(group, Signal::TERM);
            let deadline = Instant::now() + GRACE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Whatever it left behind, or itself. A group's number is not given to others while it has members.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs a program on these CPUs until it ends, at the latest after `limit`; returns what it printed.
pub(crate) fn output(command: &[OsString], cpus: &[usize], limit: Duration) -> Result<String, String> {
    let named = |error: io::Error| format!("{}: {error}", command[0].display());
    // To a file: a pipe that nobody reads while waiting could fill up.
    let printed = tempfile::tempfile().map_err(named)?;
    let stdout = printed.try_clone().map_err(named)?;
    let child = guarded(command, cpus).and_then(|mut command| command.stdout(stdout).spawn()).map_err(named)?;
    let mut process = Process { child };
    let deadline = Instant::now() + limit;
    while process.ended().map_err(named)?.is_none() {
        if Instant::now() > deadline {
            return Err(format!("did not end within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut printed = printed;
    io::Seek::rewind(&mut printed).and_then(|()| io::read_to_string(printed)).map_err(named)
}

fn guarded(command: &[OsString], cpus: &[usize]) -> io::Result<Command> {
    let mut guarded = Command::new(std::env::current_exe()?);
    guarded.arg("exec").arg("--parent").arg(std::process::id().to_string());
    if !cpus.is_empty() {
        guarded.arg("--cpus").arg(cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    }
    guarded.arg("--").args(command).stdin(Stdio::null()).process_group(0);
    Ok(guarded)
}
