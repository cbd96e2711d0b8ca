//! What the process may do once it runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::process::geteuid;

use crate::support::authority::Authority;
use crate::support::backend::Backend;
use crate::support::client::{connect, read_to_end};
use crate::support::tidegate::{Tidegate, forward};

/// CAP_NET_BIND_SERVICE, CAP_DAC_OVERRIDE, CAP_SYS_RESOURCE by their numbers in capabilities(7).
const NEEDED: u64 = 1 << 10 | 1 << 1 | 1 << 24;
const NET_ADMIN: u64 = 1 << 12;

/// A line of every thread's status.
fn of_threads(tidegate: &Tidegate, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", tidegate.pid())).expect("a process of our own");
    threads.map(|thread| in_status(&thread.expect("an entry").path().join("status"), field)).collect()
}

fn in_status(file: &Path, field: &str) -> String {
    let status = fs::read_to_string(file).expect("a status");
    status.lines().find_map(|line| line.strip_prefix(field)).expect("the field").trim().to_owned()
}

fn capabilities(value: &str) -> u64 {
    u64::from_str_radix(value, 16).expect("hexadecimal")
}

#[test]
fn capabilities_that_are_not_needed_are_given_up() {
    let own = capabilities(&in_status(Path::new("/proc/self/status"), "CapEff:"));
    let backend = Backend::named("b");
    for (socket, needed) in [("", NEEDED), ("socket: { transparent: true }", NEEDED | NET_ADMIN)] {
        if !geteuid().is_root() && needed != NEEDED {
            // IP_TRANSPARENT is root's.
            continue;
        }
        let tidegate = Tidegate::start(&forward(backend.place(), socket, ""));
        assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"b");
        let mut sets = vec!["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"];
        if geteuid().is_root() {
            sets.push("CapBnd:");
        }
        for set in sets {
            for value in of_threads(&tidegate, set) {
                let held = capabilities(&value);
                assert_eq!(held & !needed, 0, "{set} {value}");
                // All that is needed, of what this process has itself.
                assert!(set != "CapEff:" || held == own & needed, "{set} {value} of {own:x}");
            }
        }
        assert!(of_threads(&tidegate, "NoNewPrivs:").iter().all(|value| value == "1"));
    }
}

/// As root, keys of other users are still read.
#[test]
fn keys_of_other_users_are_read_by_root() {
    if !geteuid().is_root() {
        return;
    }
    let (authority, backend) = (Authority::new(), Backend::named("b"));
    let issued = authority.issue(&["a.example"]);
    chown(&issued.key, Some(65534), Some(65534)).expect("chown");
    fs::set_permissions(&issued.key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let tls = format!("tls: {{ certificates: [{}] }}", issued.yaml());
    let tidegate = Tidegate::start(&forward(backend.place(), &tls, ""));
    assert_eq!(tidegate.count_logs(|line| line.level() == "WARN"), 0);
}
