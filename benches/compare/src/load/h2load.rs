//! Clients of HTTP/2: h2load of nghttp2, beside the load's own backends and on the same CPU.

use std::ffi::OsString;
use std::fs;
use std::io;

use super::watch::Cpu;
use super::{DRAIN_TIMEOUT, Load, broken, nanoseconds};
use crate::child::Process;
use crate::http;
use crate::result::Outcome;

/// Streams of a connection at once; the scenario's connections are the requests at once.
const STREAMS: usize = 8;
/// Requests of the warm-up, which also says how many the window takes.
const WARM_UP: u64 = 4_000;
/// More requests than the window should take, so that they last.
const RESERVE: f64 = 1.2;
/// From h2load's start until its connections are open, in nanoseconds.
const OPENING: u64 = 100_000_000;

impl Load<'_> {
    /// h2load counts requests, not time: what it began, it completes.
    pub(super) fn measure_h2load(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        let start = self.clients.now();
        let mut process = self.start_h2load(WARM_UP)?;
        self.complete_h2load(&mut process, WARM_UP)?;
        let rate = WARM_UP as f64 * 1e9 / (self.clients.now() - start) as f64;

        let requests = (rate * (self.args.seconds * RESERVE + OPENING as f64 / 1e9)) as u64;
        let mut process = self.start_h2load(requests)?;
        let opened = self.clients.now() + OPENING;
        self.turn_until(opened, |_| false)?;

        let own = [std::process::id()];
        let before = (Cpu::of(&self.args.watch)?, Cpu::of(&own)?);
        let (start, answered) = (self.clients.now(), self.backends.answered);
        self.turn_until(start + nanoseconds(self.args.seconds), |load| load.backends.answered >= WARM_UP + requests)?;
        let cpu = Cpu::of(&self.args.watch)?.since(before.0);
        let load = Cpu::of(&own)?.since(before.1);
        outcome.seconds = (self.clients.now() - start) as f64 / 1e9;
        outcome.count_cpu(cpu, load);
        self.clients.operations = self.backends.answered - answered;
        outcome.bytes = self.clients.operations * self.scenario.answer as u64;

        self.complete_h2load(&mut process, requests)
    }

    fn start_h2load(&self, requests: u64) -> io::Result<H2load> {
        let log = tempfile::NamedTempFile::new()?;
        let connections = self.scenario.connections.div_ceil(STREAMS);
        let mut command: Vec<OsString> = vec!["h2load".into(), "--requests".into(), requests.to_string().into()];
        command.extend(["--clients".into(), connections.to_string().into()]);
        command.extend(["--max-concurrent-streams".into(), STREAMS.to_string().into()]);
        for field in http::request_fields() {
            // `Host` is :authority in HTTP/2.
            let field = field.strip_prefix("Host").map_or_else(|| field.into(), |value| format!(":authority{value}"));
            command.extend(["--header".into(), field.into()]);
        }
        command.push(format!("http://{}{}", self.args.target[0], http::request_target()).into());
        let process = Process::start(&command, &[], log.path())?;
        Ok(H2load { process, log })
    }

    /// Answers until it has ended, and looks at what it says.
    fn complete_h2load(&mut self, h2load: &mut H2load, requests: u64) -> io::Result<()> {
        let deadline = self.clients.now() + DRAIN_TIMEOUT + nanoseconds(self.args.seconds);
        loop {
            let now = self.clients.now();
            self.turn_until(now + 5_000_000, |_| false)?;
            if h2load.process.ended()?.is_some() {
                break;
            }
            if now > deadline {
                return broken("h2load did not end");
            }
        }
        let said = fs::read_to_string(h2load.log.path())?;
        let Some(summary) = said.lines().find(|line| line.starts_with("requests: ")) else {
            return broken(format!("h2load said {said:?}"));
        };
        let all = format!("{requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout");
        let body = requests * self.scenario.answer as u64;
        // "traffic: … headers (…) space savings …, 6.10MB (640000) data".
        let data = said.lines().find_map(|line| line.strip_prefix("traffic: ")?.rsplit_once('(')?.1.split(')').next());
        if !summary.ends_with(&all) || data != Some(&body.to_string()) {
            return broken(format!("h2load said {said:?}"));
        }
        self.hub.ledger.requests_sent += requests * self.scenario.request as u64;
        self.hub.ledger.answers_received += body;
        Ok(())
    }
}

/// h2load, and what it says.
struct H2load {
    process: Process,
    log: tempfile::NamedTempFile,
}
