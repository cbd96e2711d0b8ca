//! Named threads, and threads for calls that may block.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot;

/// Starts a thread. The kernel shows 15 bytes of its name.
///
/// # Errors
/// At a limit of threads: the error names the thread and the limits.
pub fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        let limits = "raise the limit of threads (ulimit -u, TasksMax= of systemd, the pids limit of containers)";
        io::Error::new(error.kind(), format!("cannot start the thread `{name}`: {error}: {limits}"))
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread for calls that may block in a file system, one at a time. Dropped, it ends after its queue; one that hangs is
/// detached.
#[derive(Debug)]
pub struct BlockingThread {
    jobs: mpsc::Sender<Job>,
}

impl BlockingThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// Those of [`spawn`].
    pub fn start(name: &str) -> io::Result<BlockingThread> {
        let (jobs, received) = mpsc::channel::<Job>();
        spawn(name, move || {
            for job in received {
                // The panic hook reports it; the caller gets `None`.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(BlockingThread { jobs })
    }

    /// Runs `call` on the thread. `None` if it panics.
    pub async fn call<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Fails if the caller is gone.
            let _ = answer.send(call());
        };
        self.jobs.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_gives_nothing_and_the_next_one_is_made() {
        let thread = BlockingThread::start("test").unwrap();
        assert_eq!(thread.call(|| 1).await, Some(1));
        assert_eq!(thread.call(|| panic!("on purpose")).await, None::<()>);
        assert_eq!(thread.call(|| 2).await, Some(2));
    }
}
