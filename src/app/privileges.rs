//! What the process may do as root: no more than it needs once it runs.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::config::model::Config;

/// The capabilities that a running balancer needs (capabilities(7)).
fn needed(config: &Config) -> CapabilitySet {
    // NET_BIND_SERVICE: ports below 1024, also those of later binds.
    // DAC_OVERRIDE: keys, tokens, logs and socket folders that belong to other users, which are opened again while it runs.
    // SYS_RESOURCE: pipes for splice(2) keep their size beyond the 64 MiB that one user may have.
    let needed = CapabilitySet::NET_BIND_SERVICE | CapabilitySet::DAC_OVERRIDE | CapabilitySet::SYS_RESOURCE;
    match config.listeners.iter().any(|listener| listener.socket.transparent) {
        true => needed | CapabilitySet::NET_ADMIN,
        false => needed,
    }
}

/// Gives up every capability that is not needed, for good, and all ways to gain one by execve(2).
///
/// Capabilities belong to threads, and a new thread has those of the one that makes it: call it before there is another.
///
/// # Errors
/// Those of capset(2) and prctl(2).
pub fn restrict(config: &Config) -> io::Result<()> {
    let needed = needed(config);
    for capability in CapabilitySet::all().iter().filter(|&capability| !needed.contains(capability)) {
        match remove_capability_from_bounding_set(capability) {
            // Not root, whose bounding set matters no more without a way to gain capabilities.
            Err(Errno::PERM) => break,
            // Newer than the kernel.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut sets = capabilities(None)?;
    sets.effective &= needed;
    sets.permitted &= needed;
    // What is ambient goes with what is inheritable.
    sets.inheritable &= needed;
    set_capabilities(None, sets)?;
    Ok(set_no_new_privs(true)?)
}
