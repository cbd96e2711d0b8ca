//! What the processes of a balancer use, read from /proc.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// CPU time since a process began.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Cpu {
    /// Of all its threads, by the scheduler's own clock.
    pub(crate) ns: u64,
    /// Ready to run, but without a CPU.
    pub(crate) waited_ns: u64,
    /// Counted in ticks.
    pub(crate) user_ticks: u64,
    /// Counted in ticks.
    pub(crate) system_ticks: u64,
}

impl Cpu {
    /// Of all these processes together.
    pub(crate) fn of(pids: &[u32]) -> io::Result<Cpu> {
        let mut sum = Cpu::default();
        for pid in pids {
            for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
                // Time on a CPU, then time spent waiting for one. A thread may end meanwhile.
                if let Ok(line) = fs::read_to_string(thread?.path().join("schedstat")) {
                    let mut fields = line.split(' ');
                    sum.ns += number(fields.next())?;
                    sum.waited_ns += number(fields.next())?;
                }
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // The name, in parentheses, may have spaces; user and system time are the 12th and 13th after it.
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
            sum.user_ticks += number(fields.next())?;
            sum.system_ticks += number(fields.next())?;
        }
        Ok(sum)
    }

    /// What came since.
    pub(crate) fn since(self, start: Cpu) -> Cpu {
        Cpu {
            ns: self.ns.saturating_sub(start.ns),
            waited_ns: self.waited_ns.saturating_sub(start.waited_ns),
            user_ticks: self.user_ticks.saturating_sub(start.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(start.system_ticks),
        }
    }
}

/// Proportional set size of all of them: what they share is counted once.
pub(crate) fn memory_kib(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        sum += number(line.and_then(|line| line.split_whitespace().next()))?;
    }
    Ok(sum)
}

/// How many established TCP sockets each epoll of these processes holds, most first: the only way to see from
/// outside on which worker a connection lives, and an exact one.
pub(crate) fn spread(pids: &[u32]) -> io::Result<Vec<usize>> {
    let established = established()?;
    let mut loops = Vec::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let entry = entry?;
            if fs::read_link(entry.path()).is_ok_and(|to| to == Path::new("anon_inode:[eventpoll]")) {
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display()))?;
                let held = info.lines().filter_map(|line| line.strip_prefix("tfd:"));
                let held: HashSet<u64> = held
                    .filter_map(|line| line.split("ino:").nth(1)?.split_whitespace().next())
                    .filter_map(|inode| u64::from_str_radix(inode, 16).ok())
                    .collect();
                loops.push(held.intersection(&established).count());
            }
        }
    }
    loops.sort_unstable_by_key(|&count| std::cmp::Reverse(count));
    Ok(loops)
}

/// Inodes of the established sockets of this network namespace.
fn established() -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for line in fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, "01", _, _, _, _, _, inode, ..] = fields[..] {
            inodes.insert(number(Some(inode))?);
        }
    }
    Ok(inodes)
}

fn number(text: Option<&str>) -> io::Result<u64> {
    text.and_then(|text| text.trim().parse().ok()).ok_or_else(|| io::Error::other("/proc does not read as expected"))
}
