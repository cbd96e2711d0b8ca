//! Readers of a stats port that never pause.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// At the same time.
const READERS: usize = 8;
/// What each of them reads, one after the other.
const PATHS: [&str; 3] = ["/metrics", "/stats", "/stats;csv"];

/// Eight readers; they end when this is dropped.
pub(crate) struct Scrapers {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Scrapers {
    /// Starts to read. They yield to the load, whose machine they share.
    pub(crate) fn start(at: SocketAddrV4) -> Scrapers {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..READERS).map(|_| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            thread::spawn(move || {
                // Of this thread alone; without it, the readers disturb the load more than they have to.
                let _ = rustix::process::setpriority_process(None, 19);
                while !stop.load(Ordering::Relaxed) {
                    for path in PATHS {
                        match read(at, path) {
                            Ok(()) => drop(answers.fetch_add(1, Ordering::Relaxed)),
                            // Not there yet, or gone.
                            Err(_) => thread::sleep(Duration::from_millis(10)),
                        }
                    }
                }
            })
        });
        let threads = threads.collect();
        Scrapers { stop, answers, threads }
    }
}

impl Drop for Scrapers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It only reads.
            let _ = thread.join();
        }
        eprintln!("the stats port was read {} times", self.answers.load(Ordering::Relaxed));
    }
}

fn read(at: SocketAddrV4, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
