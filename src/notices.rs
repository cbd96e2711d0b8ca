//! Notices of the file system that files have changed: by a rename, a symbolic link that points elsewhere, or a write in place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Notices of the file system, where it gives them.
pub struct Notices {
    /// What is watched, for the log.
    what: &'static str,
    notice: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Notices {
    /// For `what`, which the log names.
    pub fn start(what: &'static str) -> Notices {
        let notice = Arc::new(Notify::new());
        let to = notice.clone();
        let handler = move |event: notify::Result<Event>| {
            if !event.is_ok_and(|event| is_only_read(&event.kind)) {
                to.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(handler).map_err(|failure| without(what, &failure)).ok();
        let watcher = watcher.and_then(|mut watcher| match watcher.configure(Config::default()) {
            Ok(_) => Some(watcher),
            // Its own thread has not started, which nothing else says. Its drop would panic.
            Err(_) => {
                std::mem::forget(watcher);
                tracing::warn!(
                    "{what}: no thread is left: changes of files are noticed within seconds instead of at once"
                );
                None
            }
        });
        Notices { what, notice, watcher, watched: BTreeSet::new() }
    }

    /// Until the next notice.
    pub async fn next(&self) {
        self.notice.notified().await;
    }

    /// Gives notices where this one cannot be.
    pub fn handle(&self) -> Arc<Notify> {
        Arc::clone(&self.notice)
    }

    /// Watches the directories in which a change of these files shows: a file that is renamed into place, or a
    /// symbolic link that points elsewhere, is an event of the directory and not of the file.
    pub fn watch(&mut self, paths: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = paths.iter().flat_map(|path| directories(path)).collect();
        for gone in self.watched.difference(&wanted) {
            // It may be gone from the disk as well.
            _ = watcher.unwatch(gone);
        }
        let mut failed = None;
        // Those already watched as well: a directory may have been replaced by another one.
        for directory in &wanted {
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                // One that does not exist yet is tried again at every poll.
                Err(failure) if directory.exists() => failed = Some(failure),
                _ => {}
            }
        }
        self.watched = wanted;
        if let Some(failure) = failed {
            without(self.what, &failure);
            self.watcher = None;
        }
    }
}

/// Reads give notices too. Those of a poll must not trigger the next.
fn is_only_read(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(kind) if *kind != AccessKind::Close(AccessMode::Write))
}

fn without(what: &str, failure: &notify::Error) {
    tracing::warn!(%failure, "{what}: changes of files are noticed within seconds instead of at once");
}

/// The directory of a path, and the one of the file that it links to.
fn directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => Some(parent.to_owned()),
        _ => Some(PathBuf::from(".")),
    };
    let real = path.canonicalize().ok();
    [parent(path), real.as_deref().and_then(parent)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// A directory of this test alone; removed with it.
    struct TestFolder(PathBuf);

    impl TestFolder {
        fn new(test: &str) -> TestFolder {
            let path = std::env::temp_dir().join(format!("tidegate-notices-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            TestFolder(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }
    }

    impl Drop for TestFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_what_changes_a_file_is_a_reason_to_look() {
        use notify::event::{CreateKind, ModifyKind, RenameMode};
        assert!(is_only_read(&EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(is_only_read(&EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(!is_only_read(&EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(!is_only_read(&EventKind::Create(CreateKind::File)));
        assert!(!is_only_read(&EventKind::Modify(ModifyKind::Name(RenameMode::To))));
    }

    #[test]
    fn the_directory_that_is_named_and_the_one_behind_links_are_watched() {
        let folder = TestFolder::new("links");
        fs::create_dir(folder.path("real")).unwrap();
        folder.write("real/a.pem", "a");
        symlink("real/a.pem", folder.path("a.pem")).unwrap();
        let root = folder.path("").canonicalize().unwrap();
        let found: BTreeSet<PathBuf> = directories(&root.join("a.pem")).collect();
        assert_eq!(found, BTreeSet::from([root.clone(), root.join("real")]));
        assert_eq!(directories(Path::new("does-not-exist.pem")).collect::<Vec<_>>(), [PathBuf::from(".")]);
    }

    /// Without the fallback: the paused clock would jump to it, but nothing here sleeps.
    #[tokio::test]
    async fn a_rename_and_a_swapped_link_give_notices() {
        let folder = TestFolder::new("swap");
        fs::create_dir(folder.path("1")).unwrap();
        fs::create_dir(folder.path("2")).unwrap();
        folder.write("1/tls.crt", "a");
        folder.write("2/tls.crt", "b");
        symlink("1", folder.path("..data")).unwrap();
        symlink("..data/tls.crt", folder.path("tls.crt")).unwrap();
        let mut notices = Notices::start("test");
        notices.watch(&BTreeSet::from([folder.path("tls.crt")]));
        assert!(notices.watcher.is_some());

        symlink("2", folder.path("..data_tmp")).unwrap();
        timeout(DEADLINE, notices.notice.notified()).await.unwrap();
        fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
        timeout(DEADLINE, notices.notice.notified()).await.unwrap();
    }
}
