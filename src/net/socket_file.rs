//! Files of unix listening sockets: stale ones, concurrent binds, removal.
//!
//! A socket file outlives its socket. A start must replace the file of a killed process, but not that of a running one. Check,
//! removal and bind are three calls: an flock(2) on the folder makes them atomic among processes that take it, without a lock file.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use socket2::Domain;

use super::socket;

/// Limit of a bind's wait for the folder's lock.
const BIND_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of a removal's wait: it must not delay the exit.
const REMOVAL_LOCK_TIMEOUT: Duration = Duration::from_millis(20);

/// Pause between two tries for the lock.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Files that this process has bound and not removed yet.
static BOUND: Mutex<Vec<SocketFileId>> = Mutex::new(Vec::new());

/// A socket file that this process has bound. Dropped, it is removed, unless the path names another file by now.
///
/// Drop it before its socket: only the open socket reserves the inode.
#[derive(Debug)]
pub struct SocketFile(SocketFileId);

#[derive(Clone, Debug, PartialEq, Eq)]
struct SocketFileId {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFileId {
    fn of(path: &Path) -> io::Result<SocketFileId> {
        let meta = fs::symlink_metadata(path)?;
        Ok(SocketFileId { path: path.to_owned(), device: meta.dev(), inode: meta.ino() })
    }

    fn remove(&self) {
        let _lock = lock_folder(&self.path, REMOVAL_LOCK_TIMEOUT);
        if SocketFileId::of(&self.path).is_ok_and(|named| named == *self) {
            // Another process may have removed it in the meantime.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let mut bound = bound();
        let known = bound.len();
        bound.retain(|identity| *identity != self.0);
        // Unless `remove_all` has removed it.
        let is_left = bound.len() < known;
        drop(bound);
        if is_left {
            self.0.remove();
        }
    }
}

/// Removes every remaining socket file of this process, at its exit.
pub fn remove_all() {
    let all = std::mem::take(&mut *bound());
    all.iter().for_each(SocketFileId::remove);
}

fn bound() -> MutexGuard<'static, Vec<SocketFileId>> {
    BOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds and listens. Replaces a stale file.
pub(super) fn listen(path: &Path, backlog: i32) -> io::Result<(OwnedFd, SocketFile)> {
    let socket = socket::stream(Domain::UNIX, None)?;
    let address = socket::unix_address(path)?;
    let _lock = lock_folder(path, BIND_LOCK_TIMEOUT);
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let identity = SocketFileId::of(path)?;
    bound().push(identity.clone());
    let file = SocketFile(identity);
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Whether a socket file refuses connections: its owner is gone. A full accept queue does not refuse.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refuses = || {
        let (socket, address) = (socket::stream(Domain::UNIX, None).ok()?, socket::unix_address(path).ok()?);
        socket.connect(&address).err()
    };
    is_socket && refuses().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Locks the folder of `path` until dropped. `None` after `limit`: the caller goes on without, as a foreign lock must not
/// prevent a start.
fn lock_folder(path: &Path, limit: Duration) -> Option<OwnedFd> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let end = Instant::now() + limit;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => thread::sleep(LOCK_RETRY_INTERVAL),
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn stale_file_is_replaced_by_one_of_those_who_start_at_once() {
        const RIVALS: usize = 4;
        let folder = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let path = folder.path().join(format!("{round}.sock"));
            if round % 2 == 1 {
                drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
                assert!(path.exists());
            }
            let (start, tried) = (Barrier::new(RIVALS), Barrier::new(RIVALS));
            let rival = || {
                start.wait();
                let got = listen(&path, 16);
                tried.wait(); // nobody lets go before all have tried
                got.ok()
            };
            let winners: Vec<_> = thread::scope(|scope| {
                let rivals: Vec<_> = (0..RIVALS).map(|_| scope.spawn(rival)).collect();
                rivals.into_iter().filter_map(|rival| rival.join().unwrap()).collect()
            });
            assert_eq!(winners.len(), 1, "round {round}");
            UnixStream::connect(&path).expect("the winner listens under the name");
        }
    }

    #[test]
    fn file_of_another_owner_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let (old_socket, old_file) = listen(&path, 16).unwrap();
        // As a deployment does that starts its successor before it ends what runs.
        fs::rename(&path, folder.path().join("old.sock")).unwrap();
        let (_new_socket, new_file) = listen(&path, 16).unwrap();
        drop(old_file);
        drop(old_socket);
        UnixStream::connect(&path).expect("the successor still has its name");
        drop(new_file);
        assert!(!path.exists());
    }

    #[test]
    fn full_queue_is_no_stale_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let _listening = listen(&path, 0).unwrap();
        let _clients: Vec<_> = (0..4)
            .map(|_| {
                let client = socket::stream(Domain::UNIX, None).unwrap();
                let _ = client.connect(&socket::unix_address(&path).unwrap());
                client
            })
            .collect();
        assert_eq!(listen(&path, 0).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    /// Also when someone holds the lock for good.
    #[test]
    fn removal_does_not_wait_for_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let (_socket, file) = listen(&path, 16).unwrap();
        let _held = lock_folder(&path, Duration::ZERO).unwrap();
        drop(file);
        assert!(!path.exists());
    }
}
