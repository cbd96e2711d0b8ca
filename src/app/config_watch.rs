//! Notices when the contents of the configuration file change, or those of the files that it includes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::files::Unread;
use crate::config::{self, ConfigTexts};
use crate::notices::Notices;
use crate::threads::BlockingThread;

/// Time between two looks without a notice: some file systems give none.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// A file that is written in several steps has settled when two looks at this distance agree.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Looks at a file that does not settle, until it is taken as it is.
const MAX_LOOKS: u32 = 10;

/// The configuration file and those that it includes, as they were last seen.
pub(super) struct ConfigWatch {
    seen: ConfigTexts,
    changes: mpsc::Receiver<ConfigTexts>,
    _task: JoinSet<()>,
}

impl ConfigWatch {
    /// Watches from now on. Must be called on a tokio runtime.
    pub(super) fn start(path: &Path, files: Arc<BlockingThread>, seen: ConfigTexts) -> ConfigWatch {
        let (found, changes) = mpsc::channel(1);
        let notices = Notices::start("the configuration file");
        let watched = BTreeSet::from([path.to_owned()]);
        let look = Look { path: path.to_owned(), watched, notices, files, last: seen.clone() };
        let mut task = JoinSet::new();
        task.spawn(look.run(found));
        ConfigWatch { seen, changes, _task: task }
    }

    /// What it last was.
    pub(super) fn seen(&self) -> &ConfigTexts {
        &self.seen
    }

    /// It was read by someone else.
    pub(super) fn set_seen(&mut self, texts: ConfigTexts) {
        self.seen = texts;
    }

    /// Until its contents are others than those last seen, and settled. May be dropped at any time.
    pub(super) async fn changed(&mut self) {
        while let Some(texts) = self.changes.recv().await {
            if texts != self.seen {
                self.seen = texts;
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// The texts of a regular file and of those that it includes, and what to watch: reading another one could wait for ever, or never
/// end.
fn read_regular(path: &Path) -> Option<(ConfigTexts, BTreeSet<PathBuf>)> {
    let metadata = fs::metadata(path).ok()?;
    let is_readable = metadata.is_file() && metadata.len() <= config::MAX_FILE;
    is_readable.then(|| config::read_texts(path, &Unread)).flatten()
}

/// What looks at the files.
struct Look {
    path: PathBuf,
    /// The files, and patterns of those that may come.
    watched: BTreeSet<PathBuf>,
    notices: Notices,
    files: Arc<BlockingThread>,
    last: ConfigTexts,
}

impl Look {
    async fn run(mut self, found: mpsc::Sender<ConfigTexts>) {
        loop {
            // A directory may have been replaced by another one.
            self.notices.watch(&self.watched);
            // One that cannot be read has not changed yet: it is being replaced.
            if let Some(mut texts) = self.read_watched().await
                && texts != self.last
            {
                for _ in 0..MAX_LOOKS {
                    sleep(SETTLE_TIME).await;
                    match self.read().await {
                        Some(again) if again != texts => texts = again,
                        _ => break,
                    }
                }
                self.last = texts;
                if found.send(self.last.clone()).await.is_err() {
                    return;
                }
            }
            let _ = timeout(POLL_INTERVAL, self.notices.next()).await;
        }
    }

    /// The texts, and each of their files is watched: a change after the read is noticed.
    async fn read_watched(&mut self) -> Option<ConfigTexts> {
        let before = self.watched.clone();
        let texts = self.read().await?;
        if self.watched == before {
            return Some(texts);
        }
        self.notices.watch(&self.watched);
        self.read().await
    }

    async fn read(&mut self) -> Option<ConfigTexts> {
        let path = self.path.clone();
        let (texts, watched) = self.files.call(move || read_regular(&path)).await.flatten()?;
        self.watched = watched;
        Some(texts)
    }
}
