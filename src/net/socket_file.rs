//! Files of unix listening sockets: stale ones, concurrent binds, removal.
//!
//! A socket file outlives its socket. A start must replace the file of a killed process, but not that of a running one. Check,
//! removal and bind are three calls: an flock(2) on the folder makes them atomic among processes that take it, without a lock file.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
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

/// Files that the process which this one replaces has bound. They become this one's when it ends.
static OF_PREDECESSOR: Mutex<Vec<SocketFileId>> = Mutex::new(Vec::new());

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

impl SocketFile {
    /// The file of a socket that the process which this one replaces has bound. It is not this one's before
    /// [`take_over`]: a replacement that fails must leave it.
    ///
    /// # Errors
    /// Those of lstat(2): it is gone.
    pub(super) fn of_predecessor(path: &Path) -> io::Result<SocketFile> {
        let identity = SocketFileId::of(path)?;
        of_predecessor().push(identity.clone());
        Ok(SocketFile(identity))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        of_predecessor().retain(|identity| *identity != self.0);
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

/// The files that [`take_over`] makes this process's.
pub fn of_predecessor_paths() -> Vec<PathBuf> {
    of_predecessor().iter().map(|identity| identity.path.clone()).collect()
}

/// Makes the files of the predecessor this process's.
pub fn take_over() {
    let files = std::mem::take(&mut *of_predecessor());
    bound().extend(files);
}

/// Leaves files to the process that replaces this one: it removes them at its exit.
pub fn leave(paths: &[PathBuf]) {
    bound().retain(|identity| !paths.contains(&identity.path));
}

fn of_predecessor() -> MutexGuard<'static, Vec<SocketFileId>> {
    OF_PREDECESSOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bound() -> MutexGuard<'static, Vec<SocketFileId>> {
    BOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds and listens. Replaces a stale file. With a `mode`, the file has no other at any time at which a client can connect.
pub(super) fn listen(path: &Path, backlog: i32, mode: Option<u32>) -> io::Result<(OwnedFd, SocketFile)> {
    let socket = socket::stream(Domain::UNIX, None)?;
    let address = socket::unix_address(path)?;
    if let Some(mode) = mode {
        // Linux creates the file with the mode of the socket, less the umask: never with more.
        fchmod(&socket, Mode::from_raw_mode(mode))?;
    }
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
    if let Some(mode) = mode {
        // What the umask has taken away. Before listen(2), every connect is refused.
        file.prepare_mode(mode)?.set()?;
    }
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// A change of the mode of a socket file that this process may make.
#[derive(Debug)]
pub struct ModeChange {
    /// Open as a path (O_PATH): no other file that is given its name is changed.
    file: OwnedFd,
    mode: u32,
    is_same: bool,
}

impl SocketFile {
    /// Prepares a change of its permission bits.
    ///
    /// # Errors
    /// The file is gone or another one, or another user's.
    pub fn prepare_mode(&self, mode: u32) -> io::Result<ModeChange> {
        let SocketFileId { path, device, inode } = &self.0;
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let meta = rustix::fs::fstat(&file)?;
        if (meta.st_dev, meta.st_ino) != (*device, *inode) {
            return Err(io::Error::other("another file has taken its place"));
        }
        let is_same = meta.st_mode & 0o7777 == mode;
        if !is_same && meta.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("the file belongs to another user"));
        }
        Ok(ModeChange { file, mode, is_same })
    }
}

impl ModeChange {
    /// Makes it.
    ///
    /// # Errors
    /// Those of chmod(2).
    pub fn set(&self) -> io::Result<()> {
        if self.is_same {
            return Ok(());
        }
        // The descriptor of a path has no fchmod(2).
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))
    }
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
                let got = listen(&path, 16, None);
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
        let (old_socket, old_file) = listen(&path, 16, None).unwrap();
        // As a deployment does that starts its successor before it ends what runs.
        fs::rename(&path, folder.path().join("old.sock")).unwrap();
        let (_new_socket, new_file) = listen(&path, 16, None).unwrap();
        drop(old_file);
        drop(old_socket);
        UnixStream::connect(&path).expect("the successor still has its name");
        drop(new_file);
        assert!(!path.exists());
    }

    /// Also beyond the umask, and not the mode of a file that has taken its place.
    #[test]
    fn file_has_its_mode_and_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        for wanted in [0o600, 0o666, 0o000] {
            let (socket, file) = listen(&path, 16, Some(wanted)).unwrap();
            assert_eq!(mode(), wanted);
            file.prepare_mode(0o640).unwrap().set().unwrap();
            assert_eq!(mode(), 0o640);
            drop((file, socket));
        }
        let (_socket, file) = listen(&path, 16, Some(0o600)).unwrap();
        fs::rename(&path, folder.path().join("old.sock")).unwrap();
        assert_eq!(file.prepare_mode(0o666).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "precious").unwrap();
        assert!(file.prepare_mode(0o666).is_err());
    }

    #[test]
    fn full_queue_is_no_stale_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let _listening = listen(&path, 0, None).unwrap();
        let _clients: Vec<_> = (0..4)
            .map(|_| {
                let client = socket::stream(Domain::UNIX, None).unwrap();
                let _ = client.connect(&socket::unix_address(&path).unwrap());
                client
            })
            .collect();
        assert_eq!(listen(&path, 0, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    /// Also when someone holds the lock for good.
    #[test]
    fn removal_does_not_wait_for_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let (_socket, file) = listen(&path, 16, None).unwrap();
        let _held = lock_folder(&path, Duration::ZERO).unwrap();
        drop(file);
        assert!(!path.exists());
    }
}
