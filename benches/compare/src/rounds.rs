//! The rounds: every balancer in turn, for every scenario, again and again. What changes on the machine in
//! the course of it then changes for all of them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::certificate::Certificate;
use crate::child;
use crate::peers::{Kind, Peer, Setup, on_path};
use crate::report;
use crate::result::{Machine, Outcome, Results, Run};
use crate::scenario::{self, Http, Scenario};
use crate::scrape::Scrapers;

/// Backends: 127.0.0.2 and the following.
const BACKENDS: u8 = 4;
/// Below the ports that the kernel gives to clients. Every run has its own, so that none meets what the one
/// before it left behind.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Over warm-up and window, for a load that opens, drains and closes.
const RUN_OVERHEAD: Duration = Duration::from_secs(60);
/// A run that failed is repeated so often, then shown as failed.
const ATTEMPTS: u32 = 2;

/// `compare run`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Rounds: each has every balancer in every scenario once.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The measured window.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Before each window.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these balancers.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Kind>,
    /// Leave out the runs with two workers.
    #[arg(long)]
    one_worker: bool,
    /// The tidegate that is measured.
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
    /// Where results go. Envoy is looked for in `venv` there, then on the path.
    #[arg(long, default_value = "target/compare")]
    out: PathBuf,
}

/// Runs everything, leaves the results in the directory and returns the report.
pub(crate) fn run(args: &Args) -> Result<String, String> {
    let text = |error: io::Error| error.to_string();
    fs::create_dir_all(&args.out).map_err(text)?;
    let out = args.out.canonicalize().map_err(text)?;
    let kinds = if args.peers.is_empty() { Kind::ALL.to_vec() } else { args.peers.clone() };
    let found: Vec<_> = kinds.iter().map(|&kind| Peer::find(kind, &args.tidegate, &out.join("venv"))).collect();
    let plan = plan(args)?;
    let mut missing: Vec<String> = found.iter().filter_map(|peer| peer.as_ref().err().cloned()).collect();
    let needs_h2load = plan.iter().any(|(scenario, _)| scenario.http == Some(Http::Version2));
    if needs_h2load && on_path("h2load").is_none() {
        missing.push("h2load is missing: apt-get install nghttp2-client".into());
    }
    if !missing.is_empty() {
        return Err(missing.join("\nerror: "));
    }
    let peers: Vec<Peer> = found.into_iter().flatten().collect();

    let machine = machine(args).map_err(text)?;
    if machine.cores < 2 {
        return Err("two CPUs are needed: one for the balancer, one for the load".into());
    }
    let mut results = Results { machine, peers: peers.iter().map(Peer::described).collect(), runs: Vec::new() };
    let certificate = Certificate::make(&out).map_err(text)?;
    let mut ports = PORTS;
    for round in 1..=args.rounds {
        for &(scenario, workers) in &plan {
            for peer in peers.iter().filter(|peer| peer.kind.takes(&scenario, workers)) {
                let mut attempt = 1;
                let outcome = loop {
                    let outcome = measure(args, peer, &scenario, workers, &mut ports, &certificate, &out);
                    if outcome.is_ok() || attempt == ATTEMPTS {
                        break outcome;
                    }
                    attempt += 1;
                };
                let run = Run {
                    peer: peer.kind.name().into(),
                    workers,
                    round,
                    scenario: scenario.name.into(),
                    attempt,
                    outcome,
                };
                eprintln!("round {round}/{}  {}", args.rounds, report::line(&run));
                results.runs.push(run);
            }
        }
        // What was measured until here is not lost when a later round is interrupted.
        report::write(&results, &out)?;
    }
    Ok(report::markdown(&results))
}

/// Scenarios with the number of workers.
fn plan(args: &Args) -> Result<Vec<(Scenario, u32)>, String> {
    if let Some(name) = args.only.iter().find(|name| scenario::find(name).is_none()) {
        let names: Vec<&str> = scenario::ALL.iter().chain([&scenario::SPREAD]).map(|scenario| scenario.name).collect();
        return Err(format!("there is no scenario `{name}`; there are {}", names.join(", ")));
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut plan: Vec<_> = scenario::ALL.iter().map(|&scenario| (scenario, 1)).collect();
    if !args.one_worker {
        plan.extend(scenario::TWO_WORKERS.iter().filter_map(|name| Some((scenario::find(name)?, 2))));
        plan.push((scenario::SPREAD, 2));
    }
    plan.retain(|(scenario, _)| wanted(scenario.name));
    Ok(plan)
}

/// One run: a balancer of its own, a load of its own.
fn measure(
    args: &Args,
    peer: &Peer,
    scenario: &Scenario,
    workers: u32,
    ports: &mut std::ops::Range<u16>,
    certificate: &Certificate,
    out: &Path,
) -> Result<Outcome, String> {
    let (listen, backends) = addresses(ports)?;
    let (cpus, load_cpus): (&[usize], &[usize]) = if workers == 1 { (&[0], &[1]) } else { (&[0, 1], &[0, 1]) };
    let tls = scenario.tls.map(|_| certificate);
    let flood = (scenario.hellos > 0).then_some(certificate);
    let setup = Setup {
        listen,
        backends: &backends,
        tls,
        http: scenario.http,
        udp: scenario.udp,
        flood,
        workers,
        cpus,
        dir: out,
    };
    let flooded = setup.flooded();
    let mut process = peer.start(&setup)?;
    let _scrapers = (peer.kind == Kind::TidegateScraped).then(|| Scrapers::start(setup.stats_port()));
    let pids = match &process {
        Some(process) => process.pids().map_err(|error| error.to_string())?,
        None => Vec::new(),
    };

    let joined = |list: Vec<String>| list.join(",");
    let backends = joined(backends.iter().map(ToString::to_string).collect());
    let target = if process.is_some() { listen.to_string() } else { backends.clone() };
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = vec![own.into_os_string(), "load".into()];
    let mut option = |name: &str, value: String| command.extend([OsString::from(name), value.into()]);
    option("--scenario", scenario.name.into());
    option("--target", target);
    option("--backend", backends);
    option("--seconds", args.seconds.to_string());
    option("--warmup", args.warmup.to_string());
    if !pids.is_empty() {
        option("--watch", joined(pids.iter().map(ToString::to_string).collect()));
    }
    if scenario.http.is_some() && process.is_some() {
        command.push("--forwarded".into());
    }
    if let Some(certificate) = flood {
        let flood = [OsString::from("--flood"), flooded.to_string().into(), "--certificate".into()];
        command.extend(flood);
        command.push(certificate.cert.clone().into());
    }
    if let Some(tls) = tls {
        command.extend(["--certificate".into(), tls.cert.clone().into()]);
    }
    let limit = RUN_OVERHEAD + Duration::from_secs_f64(args.seconds + args.warmup);
    let outcome = Outcome::parse(&child::output(&command, load_cpus, limit)?)?;
    match process.as_mut().map(child::Process::ended) {
        Some(Ok(Some(status))) => Err(format!("{} ended during the run: {status}", peer.kind.name())),
        _ => Ok(outcome),
    }
}

/// Free addresses for a balancer and its backends, all on one port.
fn addresses(ports: &mut std::ops::Range<u16>) -> Result<(SocketAddrV4, Vec<SocketAddrV4>), String> {
    for _ in 0..2 {
        for port in ports.by_ref() {
            let at = |last| SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), port);
            let all: Vec<SocketAddrV4> = (1..=1 + BACKENDS).map(at).collect();
            if all.iter().all(|address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()) {
                return Ok((all[0], all[1..].to_vec()));
            }
        }
        *ports = PORTS;
    }
    Err("there is no free port".into())
}

/// RFC 3339, in UTC.
fn now() -> io::Result<String> {
    let date = Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]).output()?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}

fn machine(args: &Args) -> io::Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    Ok(Machine {
        cpu: model.unwrap_or("unknown").into(),
        cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
        date: now()?,
        seconds: args.seconds,
        rounds: args.rounds,
    })
}
