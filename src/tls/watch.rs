//! Reload of certificates and other TLS files when they change, without a reload of the configuration.
//!
//! inotify notices a change at once; where the file system gives no notices, a poll finds it within [`POLL_INTERVAL`]. A
//! notice only triggers a poll: `reload` decides by the files themselves.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::notices::Notices;
use crate::threads::BlockingThread;
use tokio::time::{sleep, timeout};

use super::acceptor::Acceptor;
use super::certificate::CertificateInfo;
use super::connector::Connector;
use super::dates::{date, distance};
use super::reload::{PollTime, ReloadOutcome, SETTLE_TIME};
use super::report::Age;

/// Time between polls without a notice: some file systems give none.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Time from a notice to the poll, so that a write in several steps causes one.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Time between two warnings about the same certificate.
const REMIND_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Polls the files of all of these until it is dropped, on a thread of its own, as a file system may hang.
///
/// # Errors
/// There is no thread.
pub fn run(servers: Vec<Arc<Acceptor>>, clients: Vec<Arc<Connector>>) -> io::Result<impl Future<Output = ()> + Send> {
    // Before the future is polled: the limit of open files is calculated with the watch's descriptors.
    let mut watch = Watch { servers, clients, notices: Notices::start("TLS"), warned: Vec::new() };
    let thread = BlockingThread::start("tls-watch")?;
    Ok(async move {
        let notice = watch.notices.handle();
        loop {
            let polled = thread.call(move || {
                let outcome = watch.poll_files(PollTime::read());
                (watch, outcome)
            });
            // A poll that panicked is the end of polling; what is in service stays.
            let Some((back, outcome)) = polled.await else {
                tracing::error!("TLS: changes of files are no longer watched, because of a fault in this program");
                return;
            };
            watch = back;
            let pause = if outcome == ReloadOutcome::Settling { SETTLE_TIME } else { POLL_INTERVAL };
            if timeout(pause, notice.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
            }
        }
    })
}

struct Watch {
    servers: Vec<Arc<Acceptor>>,
    clients: Vec<Arc<Connector>>,
    notices: Notices,
    warned: Vec<ExpiryWarning>,
}

impl Watch {
    fn poll_files(&mut self, now: PollTime) -> ReloadOutcome {
        let paths = self.servers.iter().flat_map(|server| server.paths());
        let paths = paths.chain(self.clients.iter().flat_map(|client| client.paths()));
        // Before the poll: a change after it gives a notice.
        self.notices.watch(&paths.collect());
        let mut outcomes: Vec<ReloadOutcome> = self.servers.iter().map(|server| server.poll(now)).collect();
        outcomes.extend(self.clients.iter().map(|client| client.poll(now)));
        let standings = self.servers.iter().map(|server| server.reload_status());
        let standings = standings.chain(self.clients.iter().map(|client| client.reload_status()));
        let facts: Vec<CertificateInfo> = standings.flat_map(|standing| standing.facts.clone()).collect();
        remind(&mut self.warned, &facts, now);
        ReloadOutcome::worst(&outcomes)
    }
}

/// A warning that was logged.
#[derive(Debug)]
struct ExpiryWarning {
    path: PathBuf,
    not_after: SystemTime,
    age: Age,
    at: Instant,
}

/// Warns of certificates that have expired or expire soon, at once and then daily. Returns the number of warnings.
fn remind(warned: &mut Vec<ExpiryWarning>, facts: &[CertificateInfo], now: PollTime) -> usize {
    let is_repeated = |warned: &ExpiryWarning, facts: &CertificateInfo, age| {
        warned.path == facts.path
            && warned.not_after == facts.not_after
            && warned.age == age
            && now.instant.saturating_duration_since(warned.at) < REMIND_INTERVAL
    };
    warned.retain(|warned| facts.iter().any(|facts| is_repeated(warned, facts, warned.age)));
    let mut count = 0;
    for facts in facts {
        let (path, end) = (facts.path.display(), facts.not_after);
        let age = Age::of(facts, now.wall);
        if age == Age::Fresh || warned.iter().any(|warned| is_repeated(warned, facts, age)) {
            continue;
        }
        let (date, distance) = (date(end), distance(now.wall, end));
        match age {
            Age::Expired => tracing::error!("TLS: {path} has expired on {date} ({distance}); clients refuse it"),
            _ => tracing::warn!("TLS: {path} expires on {date} ({distance})"),
        }
        warned.push(ExpiryWarning { path: facts.path.clone(), not_after: end, age, at: now.instant });
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::{Authority, Folder};

    const DEADLINE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_new_pair_goes_into_service_by_itself() {
        let (folder, authority) = (Folder::new(), Authority::new("authority"));
        let pair = folder.pair("a", &authority.issue(&["old.example.com"]));
        let server = Arc::new(Acceptor::new("web", &folder.listener(vec![pair])).unwrap());
        let task = tokio::spawn(run(vec![server.clone()], Vec::new()).unwrap());
        folder.replace_pair("a", &authority.issue(&["new.example.com"]));
        let renewed = async {
            while !server.knows(Some("new.example.com")) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, renewed).await.unwrap();
        assert_eq!((server.reload_status().replaced, server.reload_status().refused), (1, 0));
        task.abort();
    }

    #[test]
    fn an_end_is_told_when_it_nears_when_it_comes_and_once_a_day() {
        let day = Duration::from_secs(24 * 60 * 60);
        let start = PollTime { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH + 100 * day };
        let after = |days: u32, minutes: u64| {
            let passed = days * day + Duration::from_secs(60 * minutes);
            PollTime { instant: start.instant + passed, wall: start.wall + passed }
        };
        let facts = [CertificateInfo {
            path: "a.pem".into(),
            names: Vec::new(),
            patterns: Vec::new(),
            not_before: start.wall - 90 * day,
            not_after: start.wall + 15 * day,
            key: crate::tls::KeyKind::Ed25519,
        }];
        let mut warned = Vec::new();
        let looks = [
            (after(0, 0), 0),
            (after(1, 0), 1),
            (after(1, 1), 0),
            (after(1, 24 * 60 - 1), 0),
            (after(2, 0), 1),
            (after(15, 0), 1),
            (after(15, 1), 1),
            (after(15, 2), 0),
            (after(16, 1), 1),
        ];
        for (place, (now, expected)) in looks.into_iter().enumerate() {
            assert_eq!(remind(&mut warned, &facts, now), expected, "look {place}");
        }
        assert_eq!(remind(&mut warned, &[], after(17, 0)), 0);
        assert!(warned.is_empty(), "what is no longer in service is forgotten");
    }
}
