//! What the kernel says about a process.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Ticks a second in /proc/PID/stat; the kernel's interface has it fixed on all architectures that count.
pub(crate) const TICKS_PER_SECOND: u64 = 100;

/// Bytes of memory that are resident.
pub(crate) fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("memory of a process of our own");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line Rss");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1024
}

/// Sends a signal to a process that a process of the test has started. None if it has ended.
/// The most bytes of memory that were resident at once.
pub(crate) fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line VmHWM");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

/// Variables of its environment when it was started; none if it has ended.
pub(crate) fn environment(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    text.split(|byte| *byte == 0).map(|variable| String::from_utf8_lossy(variable).into_owned()).collect()
}

/// Whether it runs: it is there and no zombie.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, after_name)| !after_name.trim_start().starts_with('Z'))
}

/// Each of its descriptors, and what it refers to, such as `socket:[4711]`. None of a process that has ended.
pub(crate) fn open_files(pid: u32) -> impl Iterator<Item = (usize, PathBuf)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    descriptors.into_iter().flatten().flatten().filter_map(|descriptor| {
        let number = descriptor.file_name().to_str()?.parse().ok()?;
        // One that was closed meanwhile has no link.
        Some((number, fs::read_link(descriptor.path()).ok()?))
    })
}

/// Whether it holds one of the sockets that listen on an IPv4 address.
pub(crate) fn listens(pid: u32, address: SocketAddr) -> bool {
    let sockets: Vec<PathBuf> = listening(address).iter().map(|inode| format!("socket:[{inode}]").into()).collect();
    open_files(pid).any(|(_, file)| sockets.contains(&file))
}

/// Whether each of its threads waits for something other than a CPU.
pub(crate) fn is_asleep(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process of our own");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, after_name)| after_name.trim_start().starts_with('S'))
    })
}

/// CPU time used so far, user and system, in ticks.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process of our own");
    // The name in brackets may hold spaces; the 14th and 15th fields are the 12th and 13th after it.
    let after_name = stat.rsplit_once(')').expect("the name in brackets").1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().expect("user time") + fields[12].parse::<u64>().expect("system time")
}

/// The soft limit of open files.
pub(crate) fn open_files_limit(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits of a process of our own");
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line Max open files");
    line.split_whitespace().next().expect("the soft limit").parse().expect("a number")
}

/// Bytes written to an IPv4 stream that the other end of it has not acknowledged.
pub(crate) fn unacknowledged(stream: &TcpStream) -> u64 {
    let (local, peer) = ends(stream);
    queues(local, peer).expect("the stream is in the table").0
}

/// Whether the process at the other end of an IPv4 stream, which is on this host, has read all that was written.
pub(crate) fn is_read(stream: &TcpStream) -> bool {
    let (local, peer) = ends(stream);
    queues(local, peer).is_some_and(|(unsent, _)| unsent == 0)
        && queues(peer, local).is_none_or(|(_, unread)| unread == 0)
}

/// The sockets that listen on an IPv4 address, by their inodes.
pub(crate) fn listening(address: SocketAddr) -> BTreeSet<String> {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 0A is LISTEN.
    let rows = rows.filter(|fields| fields.get(1) == Some(&wanted.as_str()) && fields.get(3) == Some(&"0A"));
    rows.map(|fields| fields[9].to_owned()).collect()
}

fn ends(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    (stream.local_addr().expect("its address"), stream.peer_addr().expect("connected"))
}

/// What the kernel holds of an IPv4 stream's end: bytes to send, and bytes to read.
fn queues(local: SocketAddr, peer: SocketAddr) -> Option<(u64, u64)> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets");
    // There may be tens of thousands of others, most of them in TIME_WAIT: no field of theirs is looked at.
    let ports = [local, peer].map(|address| format!(":{:04X}", address.port()));
    let found = table.lines().filter(|line| ports.iter().all(|port| line.contains(port))).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields[1].ends_with(&ports[0]) && fields[2].ends_with(&ports[1]);
        is_it.then(|| fields[4].to_owned())
    });
    let bytes = |queue: &str| u64::from_str_radix(queue, 16).expect("a number");
    found.map(|found| found.split_once(':').map(|(send, receive)| (bytes(send), bytes(receive))).expect("two queues"))
}

/// Lets this process, which holds the clients and the backends, open `files` files.
pub(crate) fn allow_open_files(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    assert!(hard >= files, "this test opens {files} files, and the hard limit is {hard}: raise it (ulimit -Hn)");
    if limit.current.is_some_and(|soft| soft < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum }).expect("setrlimit");
    }
}
