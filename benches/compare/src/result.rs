//! What a run leaves behind, as JSON: written by the load and the rounds, read by the report.

use serde::{Deserialize, Serialize};

/// Everything that the report needs, and the raw numbers of every run.
#[derive(Serialize, Deserialize, Default, Clone, Debug)]
pub(crate) struct Results {
    /// Where and when.
    pub(crate) machine: Machine,
    /// Who took part.
    pub(crate) peers: Vec<Peer>,
    /// Every run, in order.
    pub(crate) runs: Vec<Run>,
}

/// Where and when.
#[derive(Serialize, Deserialize, Default, Clone, Debug)]
pub(crate) struct Machine {
    /// The CPU's model.
    pub(crate) cpu: String,
    /// CPUs online.
    pub(crate) cores: usize,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// UTC, when the first run began.
    pub(crate) date: String,
    /// Seconds of a measured window.
    pub(crate) seconds: f64,
    /// Rounds that were asked for.
    pub(crate) rounds: u32,
}

/// A balancer, or the control without one.
#[derive(Serialize, Deserialize, Default, Clone, Debug)]
pub(crate) struct Peer {
    /// As in [`Run::peer`].
    pub(crate) name: String,
    /// What the program itself says.
    pub(crate) version: String,
}

/// One run.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Run {
    /// Which balancer.
    pub(crate) peer: String,
    /// Its workers.
    pub(crate) workers: u32,
    /// From 1.
    pub(crate) round: u32,
    /// Which scenario.
    pub(crate) scenario: String,
    /// 2 when the first attempt had failed.
    pub(crate) attempt: u32,
    /// What was measured, or why it does not count.
    pub(crate) outcome: Result<Outcome, String>,
}

/// What the load prints.
#[derive(Serialize, Deserialize, Default, Clone, Debug)]
pub(crate) struct Outcome {
    /// Which scenario.
    pub(crate) scenario: String,
    /// Connections at the same time.
    pub(crate) connections: usize,
    /// The measured window.
    pub(crate) seconds: f64,
    /// Operations that were completed in the window.
    pub(crate) operations: u64,
    /// Bytes that clients received in the window.
    pub(crate) bytes: u64,
    /// CPU time of the watched processes in the window, from the scheduler.
    pub(crate) cpu_ns: u64,
    /// The kernel's split of the same, counted in ticks.
    pub(crate) user_ms: u64,
    /// See `user_ms`.
    pub(crate) system_ms: u64,
    /// How long their threads were ready and had no CPU, all together. More than a little means that
    /// others used the machine.
    pub(crate) waited_ns: u64,
    /// CPU time of the load itself.
    pub(crate) load_cpu_ns: u64,
    /// Of operations, if there were any.
    pub(crate) latency: Option<Latency>,
    /// Only of newcomers.
    pub(crate) newcomers: Option<Newcomers>,
    /// Only of idle connections.
    pub(crate) memory: Option<Memory>,
    /// Backends' and clients' connections on each event loop of the watched processes, most first. Only of
    /// idle connections.
    pub(crate) spread: Vec<usize>,
    /// Only of TLS: those that were completed in the whole run, warm-up and end included.
    pub(crate) handshakes: Option<Handshakes>,
    /// Every byte of the whole run, warm-up and end included; of TLS what it carries.
    pub(crate) ledger: Ledger,
    /// Anything that makes the run invalid.
    pub(crate) errors: Vec<String>,
}

/// Microseconds.
#[derive(Serialize, Deserialize, Default, Clone, Copy, Debug)]
pub(crate) struct Latency {
    /// The median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The slowest.
    pub(crate) max: f64,
}

/// How long newcomers waited from their connect to their answer, in milliseconds.
#[derive(Serialize, Deserialize, Default, Clone, Copy, Debug)]
pub(crate) struct Newcomers {
    /// The median of those that came together.
    pub(crate) at_once_p50: f64,
    /// The last of them.
    pub(crate) at_once_last: f64,
    /// The median of those that came one by one.
    pub(crate) one_by_one_p50: f64,
    /// The slowest of them.
    pub(crate) one_by_one_last: f64,
}

/// Proportional set size of the watched processes, in KiB.
#[derive(Serialize, Deserialize, Default, Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// With a few connections, so that what is made at first use is made.
    pub(crate) before_kib: u64,
    /// With all of them.
    pub(crate) after_kib: u64,
    /// Those opened in between.
    pub(crate) connections: usize,
}

/// How TLS sessions began.
#[derive(Serialize, Deserialize, Default, Clone, Copy, Debug)]
pub(crate) struct Handshakes {
    /// With the server's signature.
    pub(crate) full: u64,
    /// With a ticket.
    pub(crate) resumed: u64,
}

/// Bytes that entered sockets on one side and left them on the other.
#[derive(Serialize, Deserialize, Default, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// By clients.
    pub(crate) requests_sent: u64,
    /// By backends.
    pub(crate) requests_received: u64,
    /// By backends.
    pub(crate) answers_sent: u64,
    /// By clients.
    pub(crate) answers_received: u64,
}

impl Ledger {
    /// What does not add up.
    pub(crate) fn missing(&self) -> Option<String> {
        let Ledger { requests_sent, requests_received, answers_sent, answers_received } = *self;
        if requests_sent != requests_received {
            return Some(format!("clients sent {requests_sent} bytes, backends received {requests_received}"));
        }
        if answers_sent != answers_received {
            return Some(format!("backends sent {answers_sent} bytes, clients received {answers_received}"));
        }
        None
    }
}

impl Outcome {
    /// The outcome if it may be reported.
    pub(crate) fn checked(self) -> Result<Outcome, String> {
        if let Some(error) = self.errors.first() {
            let more = self.errors.len() - 1;
            return Err(if more == 0 { error.clone() } else { format!("{error} (and {more} more)") });
        }
        if let Some(missing) = self.ledger.missing() {
            return Err(missing);
        }
        // An empty run has nothing wrong in it, and nothing right.
        if self.ledger.answers_received == 0 {
            return Err("nothing was exchanged".into());
        }
        Ok(self)
    }

    /// Reads what the load printed.
    pub(crate) fn parse(json: &str) -> Result<Outcome, String> {
        serde_json::from_str::<Outcome>(json).map_err(|error| format!("the load's result: {error}"))?.checked()
    }

    /// Microseconds of CPU per operation.
    pub(crate) fn us_per_operation(&self) -> Option<f64> {
        (self.operations > 0).then(|| self.cpu_ns as f64 / 1e3 / self.operations as f64)
    }

    /// Seconds of CPU per 10⁹ bytes.
    pub(crate) fn s_per_gb(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.cpu_ns as f64 / self.bytes as f64)
    }
}

impl Memory {
    /// What a connection takes.
    pub(crate) fn kib_per_connection(&self) -> f64 {
        (self.after_kib as f64 - self.before_kib as f64) / self.connections.max(1) as f64
    }
}
