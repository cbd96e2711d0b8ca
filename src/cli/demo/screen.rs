//! stdout of the demo.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Mutex;

/// stdout. Its reader may stop reading (a pager does), and then a write does not return: it gets a thread of its own,
/// so that signals are still heeded.
#[derive(Default)]
pub(super) struct DemoScreen {
    /// A print that was given up comes to its end nevertheless, and before the next one.
    turn: Arc<Mutex<()>>,
    /// The table starts over.
    is_interrupted: AtomicBool,
}

impl DemoScreen {
    /// Prints text, after which the table starts over.
    ///
    /// # Errors
    /// Those of write(2): EPIPE once the reader is gone.
    pub(super) async fn print(&self, text: String) -> io::Result<()> {
        self.is_interrupted.store(true, Relaxed);
        self.write(text).await
    }

    /// Prints a line between those of the table.
    ///
    /// # Errors
    /// As [`DemoScreen::print`].
    pub(super) async fn event(&self, text: String) -> io::Result<()> {
        self.write(text).await
    }

    /// Prints a line of the table, with its header above if that is due or the table starts over.
    ///
    /// # Errors
    /// As [`DemoScreen::print`].
    pub(super) async fn line(&self, header: &str, is_due: bool, line: &str) -> io::Result<()> {
        let header = if self.is_interrupted.swap(false, Relaxed) || is_due { header } else { "" };
        self.write(format!("{header}{line}")).await
    }

    async fn write(&self, text: String) -> io::Result<()> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let write = move || {
            let _turn = turn;
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}
