//! What the kernel says of this process (proc(5)).

use std::fs;

use super::snapshot_model::Process;

/// Looks now; what cannot be read is 0.
pub(super) fn read() -> Process {
    let usage = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    Process {
        pid: std::process::id(),
        cpu_seconds: cpu_seconds().unwrap_or_default(),
        resident_bytes: field("VmRSS") * 1024,
        virtual_bytes: field("VmSize") * 1024,
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        max_fds: usage.current.unwrap_or_default(),
        threads: field("Threads"),
    }
}

fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_something_of_everything() {
        let process = read();
        assert_eq!(process.pid, std::process::id());
        assert!(process.cpu_seconds > 0.0, "{process:?}");
        assert!(process.resident_bytes > 100_000 && process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(process.open_fds >= 3 && process.max_fds >= process.open_fds && process.threads >= 1, "{process:?}");
    }
}
