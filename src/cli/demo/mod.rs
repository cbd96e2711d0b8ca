//! `tidegate demo`: the balancer at work, with nothing else needed: backends and a load of its own.

mod backends;
mod load;
mod report;

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate::admin::snapshot_model::{Latency, LatencySummary, Snapshot};
use tidegate::app::{App, Drained};
use tidegate::config::{self, Loaded};
use tidegate::log::{self, Logging, access::Access};
use tidegate::net::addr::Address;
use tidegate::pool::Backend;
use tidegate::stats::latency::{Stage, Window};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use self::backends::{Backends, HEALTH};
use self::load::LoadGenerator;
use self::report::{DemoOutcome, Moment, ReportRow};
use super::output::say;
use super::signals::Signals;

/// Where it listens if it can.
const PREFERRED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where its stats port is if it can.
const STATS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);
/// From one live line to the next.
const LINE: Duration = Duration::from_secs(1);
/// A drain that takes longer than this is explained.
const NOTICE: Duration = Duration::from_millis(200);

/// Shows what tidegate does, for a number of seconds or until a signal.
pub(crate) fn demo(seconds: Option<u64>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let result = runtime.block_on(run(seconds));
    // Not dropped: that would wait for a write to a stdout without a reader.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // As in `tidegate demo | head`: they have seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::FAILURE
}

async fn run(seconds: Option<u64>) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let backends = Backends::start().await?;
    // The configuration keeps the log to warnings: it shall not drown the demo.
    let logging = log::start(&configuration(PREFERRED, STATS, &backends)?.config.log).map_err(io::Error::other)?;
    log::log_panics();
    let running = tokio::select! {
        running = RunningDemo::start(&backends, &logging) => running?,
        () = signals.next() => return Ok(()),
    };

    let screen = DemoScreen::default();
    let load = LoadGenerator::start(running.address);
    let shown = tokio::select! {
        shown = running.show(&screen, &load, &backends, seconds) => shown,
        () = signals.next() => Ok(()),
    };
    running.finish(&screen, load, &backends, &mut signals, shown).await
}

/// The configuration of the demo, as a user would write it.
fn configuration_text(listen: SocketAddr, stats: SocketAddr, backends: &Backends) -> String {
    let listed: String = backends
        .addresses()
        .iter()
        .map(|(kind, address)| {
            format!("      - {{ name: {}, address: {address}, weight: {} }}\n", kind.name, kind.weight)
        })
        .collect();
    format!(
        "admin: {{ bind: {stats} }}\n\
         log: {{ level: warn }}\n\
         shutdown: {{ drain: 5s }}\n\
         listeners:\n  \
           - {{ name: demo, bind: {listen}, pool: demo }}\n\
         pools:\n  \
           - name: demo\n    \
             balance: round_robin\n    \
             backends:\n{listed}    \
             health: {{ http: {{ path: {HEALTH} }}, interval: 1s }}\n"
    )
}

fn configuration(listen: SocketAddr, stats: SocketAddr, backends: &Backends) -> io::Result<Loaded> {
    config::parse("demo", &configuration_text(listen, stats, backends), &config::files::Unread)
        .map_err(|failure| io::Error::other(failure.to_string()))
}

/// The balancer and where it is.
struct RunningDemo {
    app: App,
    address: SocketAddr,
    started: Instant,
    drain: Duration,
}

impl RunningDemo {
    /// On [`PREFERRED`], or on a port that the kernel chooses. It is tried and not asked whether the port is free: it might
    /// be taken in between.
    async fn start(backends: &Backends, logging: &Logging) -> io::Result<RunningDemo> {
        let launch = async |listen, stats| {
            let loaded = configuration(listen, stats, backends)?;
            let access = Access::open(&loaded.config.log, logging)?;
            let drain = loaded.config.shutdown.drain;
            let app = App::start(loaded.config, vec![logging.dropped_lines()], access).await;
            app.map(|app| (app, drain)).map_err(io::Error::other)
        };
        let (app, drain) = match launch(PREFERRED, STATS).await {
            Ok(launched) => launched,
            Err(error) => {
                let any = SocketAddr::new(PREFERRED.ip(), 0);
                // What is wrong with more than the port is wrong here too.
                let launched = launch(any, any).await?;
                say(format_args!("note: {error}"));
                launched
            }
        };
        let address = app.addresses().iter().find_map(|(_, address)| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        });
        let address = address.ok_or_else(|| io::Error::other("the demo listens nowhere"))?;
        Ok(RunningDemo { app, address, started: Instant::now(), drain })
    }

    /// Reports until the time is over, or stdout has no reader.
    async fn show(
        &self,
        screen: &DemoScreen,
        load: &LoadGenerator,
        backends: &Backends,
        seconds: Option<u64>,
    ) -> io::Result<()> {
        let moved = (self.address != PREFERRED).then_some(PREFERRED);
        let stats = match self.app.stats_port() {
            Some(Address::Tcp(address)) => *address,
            _ => STATS,
        };
        let text = configuration_text(self.address, stats, backends);
        let dashboard = self.app.stats_port();
        screen.print(report::welcome(self.address, moved, dashboard, backends.addresses(), &text)).await?;

        let mut ticks = interval_at(self.started + LINE, LINE);
        // After a pause (the process was stopped, or stdout was not read) lines come once a second again, not all at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut last = (self.started, 0);
        for number in 0.. {
            ticks.tick().await;
            let (now, connections) = (Instant::now(), self.connections());
            let since = now.duration_since(last.0).as_secs_f64().max(f64::MIN_POSITIVE);
            let moment = Moment {
                elapsed: now.duration_since(self.started),
                connections,
                rate: (connections - last.1) as f64 / since,
                open: self.app.open(),
                backends: self.backends().map(|b| (b.name().to_string(), b.counters().connections())).collect(),
                errors: load.tally().failed(),
            };
            last = (now, connections);
            screen.print(report::live(number, &moment)).await?;
            if seconds.is_some_and(|seconds| moment.elapsed >= Duration::from_secs(seconds)) {
                break;
            }
        }
        Ok(())
    }

    /// Ends the load, drains, and sums up. `shown` is an error when stdout has no reader.
    async fn finish(
        self,
        screen: &DemoScreen,
        load: LoadGenerator,
        backends: &Backends,
        signals: &mut Signals,
        shown: io::Result<()>,
    ) -> io::Result<()> {
        let elapsed = self.started.elapsed();
        let tally = Arc::clone(load.tally());
        let in_a_hurry = tokio::select! {
            () = load.finish() => false,
            () = signals.next() => true,
        };
        backends.close_idle();
        // Asked while there are workers to answer; the counters are read once the last connection has left its mark.
        let snapshot = self.app.snapshot().await.unwrap_or_default();
        let counted: Vec<Arc<Backend>> = self.backends().collect();
        let states = self.app.listeners().to_vec();
        let hurry = async {
            if !in_a_hurry {
                signals.next().await;
            }
        };
        let notice = async {
            sleep(NOTICE).await;
            if shown.is_ok() {
                let open = states.iter().map(|listener| listener.counters().open()).sum();
                // If that fails, so does the summary.
                let _ = screen.print(report::draining(open, self.drain)).await;
            }
            pending::<Infallible>().await
        };
        let drained = tokio::select! {
            drained = self.app.drain(self.drain, hurry) => drained,
            never = notice => match never {},
        };
        shown?;

        let Snapshot { listeners, pools, .. } = &snapshot;
        let measured = pools.iter().flat_map(|pool| &pool.backends);
        let rows: Vec<ReportRow> =
            counted.iter().zip(measured).map(|(backend, seen)| row(backend, &seen.latency)).collect();
        let all = listeners.first().and_then(|listener| first_byte(&listener.latency));
        let outcome = DemoOutcome {
            elapsed,
            cut: match drained {
                Drained::Clean => 0,
                Drained::Cut(connections) => connections,
            },
            answered: tally.answered(),
            failed: tally.failed(),
            first_failure: tally.first_failure(),
        };
        tokio::select! {
            biased;
            printed = screen.print(report::summary(&rows, all, &outcome)) => printed,
            () = signals.next() => Ok(()),
        }
    }

    fn connections(&self) -> u64 {
        self.app.listeners().iter().map(|listener| listener.counters().accepted()).sum()
    }

    fn backends(&self) -> impl Iterator<Item = Arc<Backend>> {
        self.app.pools().into_iter().flat_map(|pool| pool.backends().to_vec())
    }
}

fn row(backend: &Backend, latency: &Latency) -> ReportRow {
    ReportRow {
        name: backend.name().to_string(),
        connections: backend.counters().connections(),
        bytes_in: backend.traffic().bytes_in(),
        bytes_out: backend.traffic().bytes_out(),
        errors: backend.counters().connect_failures(),
        first_byte: first_byte(latency),
    }
}

/// Since the start.
fn first_byte(latency: &Latency) -> Option<LatencySummary> {
    latency.get(Stage::FirstByte, Window::All).copied()
}

/// stdout. Its reader may stop reading (a pager does), and then a write does not return: it gets a thread of its own,
/// so that signals are still heeded.
#[derive(Default)]
struct DemoScreen {
    /// A print that was given up comes to its end nevertheless, and before the next one.
    turn: Arc<Mutex<()>>,
}

impl DemoScreen {
    async fn print(&self, text: String) -> io::Result<()> {
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
