//! The load: one thread and one epoll that play clients and backends, so that it costs less than what stands
//! between them. Nothing is allocated while it measures.

mod backends;
mod clients;
mod h2load;
mod hub;
mod newcomers;
mod tls;
mod watch;

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::backends::Backends;
use self::clients::Clients;
use self::hub::{Hub, Side, broken, whose};
use self::tls::Connector;
use self::watch::Cpu;
use crate::result::{Latency, Memory, Outcome};
use crate::scenario::{self, Http, Scenario, Shape};
use crate::udp::Echo;

/// Until all connections are up, and until all are closed at the end.
const DRAIN_TIMEOUT: u64 = 15_000_000_000;
/// Between the last exchange on idle connections and the look at the memory.
const SETTLE: u64 = 500_000_000;
/// So many idle connections are there before their memory is counted.
const FIRST: usize = 64;

/// `compare load`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Which scenario.
    #[arg(long)]
    scenario: String,
    /// Where clients connect to.
    #[arg(long, value_delimiter = ',', required = true)]
    target: Vec<SocketAddrV4>,
    /// Where backends listen.
    #[arg(long, value_delimiter = ',', required = true)]
    backend: Vec<SocketAddrV4>,
    /// The measured window.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Before the window.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// The balancer's certificate, a PEM file, for scenarios with TLS.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// Where ClientHellos go, for scenarios with a flood of them.
    #[arg(long)]
    flood: Option<SocketAddrV4>,
    /// Make sure that HTTP requests reach backends with X-Forwarded-For, which balancers add.
    #[arg(long)]
    forwarded: bool,
    /// Processes whose CPU time and memory are read at the window's start and end.
    #[arg(long, value_delimiter = ',')]
    watch: Vec<u32>,
    /// The only CPU that the load runs on.
    #[arg(long)]
    cpu: Option<usize>,
    /// Instead of the scenario's.
    #[arg(long)]
    connections: Option<usize>,
    /// Instead of the scenario's: requests per second.
    #[arg(long)]
    rate: Option<u64>,
    /// Instead of the scenario's: bulk streams at the same time.
    #[arg(long)]
    beside: Option<usize>,
}

/// Runs one scenario, and says what came of it. What goes wrong is in the outcome.
pub(crate) fn run(args: &Args) -> Result<Outcome, String> {
    let mut scenario =
        scenario::find(&args.scenario).ok_or_else(|| format!("there is no scenario `{}`", args.scenario))?;
    scenario.connections = args.connections.unwrap_or(scenario.connections).max(1);
    scenario.rate = args.rate.unwrap_or(scenario.rate);
    scenario.beside = args.beside.unwrap_or(scenario.beside);
    let name = scenario.name.into();
    let mut outcome = Outcome { scenario: name, connections: scenario.connections, ..Outcome::default() };
    let result = (|| {
        if let Some(cpu) = args.cpu {
            crate::child::pin(&[cpu])?;
        }
        // Two descriptors for each connection, one on either side.
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
        match scenario.udp {
            true => datagrams(args, &scenario, &mut outcome),
            false => Load::new(args, scenario)?.run(&mut outcome),
        }
    })();
    if let Err(error) = result {
        outcome.errors.push(error.to_string());
    }
    Ok(outcome)
}

struct Load<'a> {
    args: &'a Args,
    scenario: Scenario,
    hub: Hub,
    backends: Backends,
    clients: Clients,
}

impl<'a> Load<'a> {
    fn new(args: &'a Args, scenario: Scenario) -> io::Result<Load<'a>> {
        let hub = Hub::new(scenario, args.forwarded)?;
        let backends = Backends::new(&hub, &args.backend)?;
        let connector = match (scenario.tls, &args.certificate) {
            (None, _) => None,
            (Some(tls), Some(certificate)) => Some(Connector::new(tls, certificate)?),
            (Some(_), None) => return broken(format!("{} needs --certificate", scenario.name)),
        };
        let clients = Clients::new(&hub, args.target.clone(), connector)?;
        Ok(Load { args, scenario, hub, backends, clients })
    }

    fn run(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        let measured = match self.scenario.shape {
            Shape::Idle => self.hold(outcome),
            Shape::Newcomers => self.newcomers(outcome),
            _ if self.scenario.http == Some(Http::Version2) => self.measure_h2load(outcome),
            _ => self.measure(outcome),
        };
        measured?;
        self.hub.stopping = true;
        self.clients.stop()?;
        let deadline = self.clients.now() + DRAIN_TIMEOUT;
        let result = self.close_all(deadline);
        outcome.ledger = self.hub.ledger;
        outcome.handshakes = self.clients.handshakes();
        if !result? {
            return broken(format!(
                "at the end {} of the clients' and {} of the backends' connections did not close",
                self.clients.open(),
                self.backends.open()
            ));
        }
        let histogram = &self.clients.histogram;
        outcome.operations = self.clients.operations;
        if !histogram.is_empty() {
            let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
            outcome.latency =
                Some(Latency { p50: us(0.5), p99: us(0.99), p999: us(0.999), max: histogram.max() as f64 / 1e3 });
        }
        Ok(())
    }

    /// Everything but idle connections: warm-up, then the window.
    fn measure(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        self.open(usize::MAX)?;
        if self.scenario.shape == Shape::Paced {
            self.clients.start_schedule(&self.hub);
        }
        let warm = self.clients.now() + nanoseconds(self.args.warmup);
        self.turn_until(warm, |_| false)?;

        let own = [std::process::id()];
        let before = (Cpu::of(&self.args.watch)?, Cpu::of(&own)?);
        let bytes = self.hub.ledger.answers_received;
        let start = self.clients.now();
        self.clients.window = (start, u64::MAX);
        self.turn_until(start + nanoseconds(self.args.seconds), |_| false)?;
        let end = self.clients.now();
        self.clients.window.1 = end;
        let cpu = Cpu::of(&self.args.watch)?.since(before.0);
        let load = Cpu::of(&own)?.since(before.1);

        outcome.seconds = (end - start) as f64 / 1e9;
        outcome.bytes = self.hub.ledger.answers_received - bytes;
        outcome.count_cpu(cpu, load);
        Ok(())
    }

    /// Waits for the end of all connections. Returns whether it came in time.
    fn close_all(&mut self, deadline: u64) -> io::Result<bool> {
        if self.scenario.http.is_some() {
            let closed = self.turn_until(deadline, |load| load.clients.open() == 0)?;
            self.backends.close_kept(&mut self.hub)?;
            return Ok(closed);
        }
        self.turn_until(deadline, |load| load.clients.open() == 0 && load.backends.open() == 0)
    }

    /// Opens connections and looks at the memory.
    fn hold(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        let first = FIRST.min(self.scenario.connections / 2);
        self.open(first)?;
        self.settle()?;
        let before_kib = watch::memory_kib(&self.args.watch)?;
        self.open(usize::MAX)?;
        self.settle()?;
        let after_kib = watch::memory_kib(&self.args.watch)?;
        outcome.memory = Some(Memory { before_kib, after_kib, connections: self.scenario.connections - first });
        outcome.spread = watch::spread(&self.args.watch)?;
        Ok(())
    }

    fn open(&mut self, count: usize) -> io::Result<()> {
        self.clients.open_up_to(&mut self.hub, count)?;
        let deadline = self.clients.now() + DRAIN_TIMEOUT;
        if self.turn_until(deadline, |load| load.clients.all_up())? {
            return Ok(());
        }
        broken(format!("only {} connections were answered in time", self.clients.up))
    }

    fn settle(&mut self) -> io::Result<()> {
        let until = self.clients.now() + SETTLE;
        self.turn_until(until, |_| false)?;
        Ok(())
    }

    /// Turns the loop until then, or until something is so; returns whether it is.
    fn turn_until(&mut self, deadline: u64, so: impl Fn(&Load) -> bool) -> io::Result<bool> {
        loop {
            if so(self) {
                return Ok(true);
            }
            let now = self.clients.now();
            if now >= deadline {
                return Ok(false);
            }
            // At a fixed rate it spins: it has a CPU of its own, and a timer's slack would be measured as the
            // balancer's latency.
            let busy = self.scenario.shape == Shape::Paced || !self.hub.streams.is_empty();
            let wait = if busy { Duration::ZERO } else { Duration::from_nanos(deadline - now) };
            self.turn(wait)?;
        }
    }

    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let Load { hub, backends, clients, .. } = self;
        for index in 0..hub.epoll.wait(Some(wait))? {
            let (token, _) = hub.epoll.event(index);
            match whose(token) {
                (Side::Listener, index) => backends.accept(hub, index)?,
                (Side::Backend, index) => backends.event(hub, index)?,
                (Side::Client, index) => clients.event(hub, index)?,
            }
        }
        clients.tick(hub)?;
        // Beside requests whose latency counts: one stream's turn, then a look at the requests again.
        let turns = if self.scenario.shape == Shape::Bulk { hub.streams.len() } else { hub.streams.len().min(1) };
        for _ in 0..turns {
            let Some(token) = hub.streams.pop_front() else { break };
            match whose(token) {
                (Side::Client, index) => clients.stream(hub, index)?,
                (_, index) => backends.stream(hub, index)?,
            }
        }
        Ok(())
    }
}

/// Plays a scenario of UDP.
fn datagrams(args: &Args, scenario: &Scenario, outcome: &mut Outcome) -> io::Result<()> {
    let mut echo = Echo::start(scenario, &args.target, &args.backend)?;
    let turn_until = |echo: &mut Echo, seconds: f64, is_enough: fn(&Echo) -> bool| {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || is_enough(echo) {
                return io::Result::Ok(());
            }
            echo.turn(left.min(Duration::from_millis(100)))?;
        }
    };
    turn_until(&mut echo, 5.0, Echo::is_up)?;
    if !echo.is_up() {
        return broken("not every session was answered");
    }
    turn_until(&mut echo, args.warmup, |_| false)?;
    let own = [std::process::id()];
    let before = (Cpu::of(&args.watch)?, Cpu::of(&own)?);
    let (replies, start) = (echo.replies, Instant::now());
    turn_until(&mut echo, args.seconds, |_| false)?;
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome.count_cpu(Cpu::of(&args.watch)?.since(before.0), Cpu::of(&own)?.since(before.1));
    outcome.operations = echo.replies - replies;
    outcome.bytes = outcome.operations * scenario.answer as u64;
    echo.stop();
    turn_until(&mut echo, 5.0, Echo::is_idle)?;
    outcome.ledger = echo.ledger(scenario);
    Ok(())
}

impl Outcome {
    /// Notes the CPU time of the watched processes and of the load.
    fn count_cpu(&mut self, cpu: Cpu, load: Cpu) {
        // The kernel counts ticks of 10 ms towards /proc, whatever its own are.
        (self.cpu_ns, self.user_ms, self.system_ms) = (cpu.ns, cpu.user_ticks * 10, cpu.system_ticks * 10);
        (self.waited_ns, self.load_cpu_ns) = (cpu.waited_ns, load.ns);
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
