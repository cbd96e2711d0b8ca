//! Threads with a name, whose absence is an error and no panic; and threads for calls that may hang.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot;

/// Starts a thread; the kernel shows 15 bytes of its name.
///
/// # Errors
/// The system allows no further thread. The error says which one, and which limits there are.
pub fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        let limits = "raise the limit of threads (ulimit -u, TasksMax= of systemd, the pids limit of containers)";
        io::Error::new(error.kind(), format!("cannot start the thread `{name}`: {error}: {limits}"))
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread for calls that may hang in a file system, one after the other. Dropped, it ends once it is idle; one that hangs
/// is left behind.
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
                // The panic hook reports it; its caller gets no result.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(BlockingThread { jobs })
    }

    /// Calls it on the thread. `None`: it panicked.
    pub async fn call<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Who asked may have gone.
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
