//! `tidegate demo`: the balancer at work, with nothing else needed: backends and a load of its own.

mod backends;
mod balancer;
mod certificate;
mod directory;
mod http;
mod live;
mod load;
mod places;
mod report;
mod screen;
mod script;
mod switches;
mod tally;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate::admin::snapshot_model::{BackendStats, Latency, LatencySummary, Snapshot};
use tidegate::app::{App, Drained};
use tidegate::config;
use tidegate::log;
use tidegate::pool::Backend;
use tidegate::stats::latency::{Stage, Window};
use tidegate::tls::OnDisk;
use tokio::time::{Instant, sleep, sleep_until};

use self::backends::{Backends, HEALTH};
use self::balancer::{DemoBalancer, DemoSocket, POOL, backends as backends_of};
use self::certificate::DemoCertificate;
use self::directory::DemoDirectory;
use self::live::LiveView;
use self::load::{LoadGenerator, LoadTarget};
use self::places::DemoPlaces;
use self::report::{ReportRow, Welcome};
use self::screen::DemoScreen;
use self::script::{STEPS, Script};
use self::switches::Switches;
use self::tally::Tally;
use super::output::say;
use super::signals::Signals;

/// Ports of the listener, if they are free: without and with TLS.
const PORTS: (u16, u16) = (8080, 8443);
/// Port of the dashboard, if it is free.
const DASHBOARD_PORT: u16 = 9900;
/// A drain that takes longer than this is explained.
const NOTICE: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Demo {
    /// End after N seconds; Ctrl-C ends it before
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Terminate TLS at the listener, with a certificate made for the demo; the load speaks TLS
    #[arg(long)]
    tls: bool,
    /// Watch HTTP (sniff: http), and send several requests on a connection, some of them for an error
    #[arg(long)]
    http: bool,
    /// Port of the dashboard on 127.0.0.1 [default: 9900, or any port if that is in use]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    dashboard_port: Option<u16>,
}

/// Shows what tidegate does, for some time or until a signal.
pub(crate) fn demo(asked: &Demo) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let result = runtime.block_on(run(asked));
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

async fn run(asked: &Demo) -> io::Result<()> {
    let mut signals = Signals::new()?;
    // Removed when this returns, in whichever way.
    let directory = DemoDirectory::create()?;
    let backends = Backends::start()?;
    let listener = DemoSocket::prefer(if asked.tls { PORTS.1 } else { PORTS.0 })?;
    let dashboard = match asked.dashboard_port {
        Some(port) => DemoSocket::require(port)?,
        None => DemoSocket::prefer(DASHBOARD_PORT)?,
    };
    let certificate = asked.tls.then(|| DemoCertificate::create(&directory)).transpose()?;
    let admin = directory.path("admin.sock");
    let text = configuration(asked, [&listener, &dashboard], &admin, certificate.as_ref(), &backends);
    let places = DemoPlaces {
        address: listener.address,
        dashboard: dashboard.address,
        config: directory.write("tidegate.yaml", &text)?,
        admin,
        switches: directory.path("backends.sock"),
        certificate: certificate.map(|certificate| certificate.cert),
        program: std::env::args().next().unwrap_or_else(|| "tidegate".to_owned()),
    };
    let loaded = config::load(&places.config, &OnDisk).map_err(|failure| io::Error::other(failure.to_string()))?;
    // The configuration keeps the log to errors: the demo shows the rest itself.
    let logging = log::start(&loaded.config.log).map_err(io::Error::other)?;
    log::log_panics();
    let moved = [("the demo", &listener), ("the dashboard", &dashboard)]
        .into_iter()
        .filter_map(|(what, socket)| socket.instead_of.as_ref().map(|(wanted, why)| report::moved(what, *wanted, why)));
    let moved = moved.collect();
    let mut balancer = tokio::select! {
        balancer = DemoBalancer::start(&places.config, loaded, &logging, [listener, dashboard]) => balancer?,
        () = signals.next() => return Ok(()),
    };
    let _switches = Switches::start(&places.switches, backends.modes().clone())?;

    let (screen, started) = (DemoScreen::default(), Instant::now());
    let end = Duration::from_secs(asked.seconds);
    let welcome = Welcome {
        places: &places,
        moved,
        backends: backends.addresses(),
        config: &text,
        has_http: asked.http,
        steps: script::duration(),
        end,
    };
    let tls = places.certificate.as_deref().map(DemoCertificate::client).transpose()?;
    let target = LoadTarget { address: places.address, tls, keeps_connections: asked.http };
    let tally = Arc::new(Tally::new(load::CLIENTS as usize, started));
    tally.begin(STEPS[0].name, started);
    let load = LoadGenerator::start(&target, &tally);
    let plane = Arc::clone(balancer.plane());
    let view = LiveView {
        plane: Arc::clone(&plane),
        status: Arc::clone(balancer.status()),
        tally: &tally,
        screen: &screen,
        started,
    };
    let script = Script { places: &places, modes: backends.modes(), plane, tally: &tally, screen: &screen, started };
    let show = async {
        screen.print(report::welcome(&welcome)).await?;
        let steps = async {
            script.play().await?;
            pending().await
        };
        tokio::select! {
            shown = view.show() => shown,
            shown = steps => shown,
        }
    };
    let shown = tokio::select! {
        shown = show => shown.map(|never: Infallible| match never {}),
        // As after POST /api/drain.
        () = balancer.run() => Ok(()),
        () = end_at(started, end) => Ok(()),
        () = signals.next() => Ok(()),
    };
    let ending = Ending { screen: &screen, backends: &backends, tally: &tally, started };
    ending.finish(balancer.into_app(), load, &mut signals, shown).await
}

/// A time that is too far away never comes.
async fn end_at(started: Instant, after: Duration) {
    match started.checked_add(after) {
        Some(end) => sleep_until(end).await,
        None => pending().await,
    }
}

/// The configuration of the demo, as a user would write it.
fn configuration(
    asked: &Demo,
    [listener, dashboard]: [&DemoSocket; 2],
    admin: &Path,
    certificate: Option<&DemoCertificate>,
    backends: &Backends,
) -> String {
    let list = |(kind, address): &(backends::BackendKind, SocketAddr)| {
        format!("      - {{ name: {}, address: {address}, weight: {} }}\n", kind.name, kind.weight)
    };
    let listed: String = backends.addresses().iter().map(list).collect();
    // A path may have characters that mean something in YAML, whose double-quoted strings are those of JSON.
    let path = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let tls = certificate.map_or_else(String::new, |DemoCertificate { cert, key }| {
        format!("    tls: {{ certificates: [{{ cert: {}, key: {} }}] }}\n", path(cert), path(key))
    });
    let sniff = if asked.http { "    sniff: http\n" } else { "" };
    let (bind, dashboard) = (listener.address, dashboard.address);
    let admin = serde_json::Value::from(format!("unix:{}", admin.to_string_lossy())).to_string();
    format!(
        "admin: {{ bind: [\"{dashboard}\", {admin}] }}\n\
         log: {{ level: error }}\n\
         shutdown: {{ drain: 5s }}\n\
         listeners:\n  \
           - name: {POOL}\n    \
             bind: {bind}\n    \
             pool: {POOL}\n{tls}{sniff}\
         pools:\n  \
           - name: {POOL}\n    \
             balance: round_robin\n    \
             backends:\n{listed}    \
             health: {{ http: {{ path: {HEALTH} }}, interval: 500ms, timeout: 500ms, rise: 2, fall: 2 }}\n"
    )
}

/// The end of the demo.
struct Ending<'d> {
    screen: &'d DemoScreen,
    backends: &'d Backends,
    tally: &'d Tally,
    started: Instant,
}

impl Ending<'_> {
    /// Ends the load, drains, and sums up. `shown` is an error when stdout has no reader.
    async fn finish(
        self,
        app: App,
        load: LoadGenerator,
        signals: &mut Signals,
        shown: io::Result<()>,
    ) -> io::Result<()> {
        let elapsed = self.started.elapsed();
        let in_a_hurry = tokio::select! {
            () = load.finish() => false,
            () = signals.next() => true,
        };
        self.tally.end(Instant::now());
        self.backends.close_idle();
        // Asked while there are workers to answer; the counters are read once the last connection has left its mark.
        let snapshot = app.snapshot().await.unwrap_or_default();
        let counted = backends_of(app.plane());
        let (plane, limit) = (Arc::clone(app.plane()), app.config().shutdown.drain);
        let hurry = async {
            if !in_a_hurry {
                signals.next().await;
            }
        };
        let notice = async {
            sleep(NOTICE).await;
            if shown.is_ok() {
                // If that fails, so does the summary.
                let _ = self.screen.print(report::draining(plane.open(), limit)).await;
            }
            pending::<Infallible>().await
        };
        let drained = tokio::select! {
            drained = app.drain(limit, hurry) => drained,
            never = notice => match never {},
        };
        shown?;

        let steps = self.tally.steps();
        let missed = STEPS.iter().map(|step| step.name).filter(|name| steps.iter().all(|step| step.name != *name));
        let missed: Vec<&str> = missed.collect();
        let rows: Vec<ReportRow> = counted.iter().map(|backend| row(backend, &snapshot)).collect();
        let all = snapshot.listeners.first().and_then(|listener| first_byte(&listener.latency));
        let cut = match drained {
            Drained::Clean => 0,
            Drained::Cut(connections) => connections,
        };
        let summary = report::what_clients_saw(elapsed, &steps, &self.tally.total(), &missed)
            + &report::what_tidegate_counted(&rows, all, cut);
        tokio::select! {
            biased;
            printed = self.screen.print(summary) => printed,
            () = signals.next() => Ok(()),
        }
    }
}

fn row(backend: &Backend, snapshot: &Snapshot) -> ReportRow {
    let is_its = |measured: &&BackendStats| measured.name == **backend.name();
    let measured = snapshot.pools.iter().filter(|pool| pool.name == POOL).flat_map(|pool| &pool.backends).find(is_its);
    ReportRow {
        name: backend.name().to_string(),
        connections: backend.counters().connections(),
        bytes_in: backend.traffic().bytes_in(),
        bytes_out: backend.traffic().bytes_out(),
        connect_failures: backend.counters().connect_failures(),
        failures: backend.counters().failures(),
        first_byte: measured.and_then(|measured| first_byte(&measured.latency)),
    }
}

/// Since the start.
fn first_byte(latency: &Latency) -> Option<LatencySummary> {
    latency.get(Stage::FirstByte, Window::All).copied()
}
