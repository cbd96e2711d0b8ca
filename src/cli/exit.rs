//! The end of the process.

use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidegate::app::upgrade::successor;
use tidegate::log::Logging;
use tidegate::net::socket_file;

/// How long the socket files may take to be removed: their file system may hang.
const REMOVAL: Duration = Duration::from_millis(20);

/// Ends the process, whatever its threads do: no thread is waited for that may hang in a file system, in a lookup, or
/// in a write to a log.
pub(super) fn exit(logging: &Logging, code: u8) -> ! {
    // It would take the end of this process for a crash, and serve.
    successor::abandon();
    within(REMOVAL, socket_file::remove_all);
    logging.dropped_lines().report();
    logging.flush();
    process::exit(code.into())
}

/// Calls it, and waits for it at most for that long.
fn within(limit: Duration, call: fn()) {
    let (done, is_done) = mpsc::channel();
    let thread = thread::Builder::new().name("exit".to_owned()).spawn(move || {
        call();
        // Too late is no matter.
        let _ = done.send(());
    });
    match thread {
        Ok(_) => {
            let _ = is_done.recv_timeout(limit);
        }
        // Without a thread it may hang, which is rarer than what it is for.
        Err(_) => call(),
    }
}
