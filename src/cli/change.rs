//! Commands that change a running instance: `reload`, `drain`, `weight` and others. Each is one call of the admin interface.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap_complete::engine::ArgValueCompleter;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate::admin::connections::ConnectionsEnded;
use tidegate::config::files::Unread;
use tidegate::config::{Style, as_one_text, parse_duration};
use tokio::time::sleep;

use super::completions::{backends, listeners, pools, pools_and_backends};
use super::output::{print, say};
use super::stats_port::{FailedCall, StatsPort, Which, encoded};

/// How long a change may take: the configuration may lie on a slow file system, and health checks of new pools are waited for.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long an upgrade may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two looks at a backend that drains.
const WAIT_POLL: Duration = Duration::from_millis(250);

#[derive(clap::Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct Diff {
    /// Compare this file with what is in effect [default: the file that the instance reads]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct OfBackend {
    /// The backend
    #[arg(value_name = "POOL/BACKEND", add = ArgValueCompleter::new(backends))]
    backend: BackendArg,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    of: OfBackend,
    /// Wait until its last connection has ended, at most this long [default of --wait alone: no limit]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = duration)]
    #[allow(clippy::option_option, reason = "not given, given alone, given with a value")]
    wait: Option<Option<Duration>>,
}

#[derive(clap::Args)]
pub(crate) struct Weight {
    /// The backend
    #[arg(value_name = "POOL/BACKEND", add = ArgValueCompleter::new(backends))]
    backend: BackendArg,
    /// The weight; 0 is no new connections
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    weight: u32,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct Add {
    /// The pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(pools))]
    pool: String,
    /// Name of the backend
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it listens: IP:PORT, NAME:PORT or unix:PATH; PORT * is that which the client connected to
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Its weight [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    weight: Option<u32>,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    of: OfBackend,
    /// Wait until its last connection has ended, at most this long [default of --wait alone: no limit]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = duration)]
    #[allow(clippy::option_option, reason = "not given, given alone, given with a value")]
    wait: Option<Option<Duration>>,
}

#[derive(clap::Args)]
#[group(id = "reset_what", required = true, multiple = false, args = ["what", "listener", "all"])]
pub(crate) struct Reset {
    /// The backend, or the pool with its backends
    #[arg(value_name = "POOL[/BACKEND]", add = ArgValueCompleter::new(pools_and_backends))]
    what: Option<String>,
    /// The listener of this name
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(listeners))]
    listener: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct OfListener {
    /// The listener
    #[arg(value_name = "LISTENER", add = ArgValueCompleter::new(listeners))]
    listener: String,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct Upgrade {
    /// The binary to start [default: the file of the running one, as it now is]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

/// `POOL/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BackendArg {
    pool: String,
    name: String,
}

impl std::str::FromStr for BackendArg {
    type Err = String;

    fn from_str(text: &str) -> Result<BackendArg, String> {
        match text.split_once('/') {
            Some((pool, name)) if !pool.is_empty() && !name.is_empty() => {
                Ok(BackendArg { pool: pool.to_owned(), name: name.to_owned() })
            }
            _ => Err("write POOL/BACKEND, such as db/db-1".to_owned()),
        }
    }
}

impl BackendArg {
    fn path(&self) -> String {
        backend_path(&self.pool, &self.name)
    }
}

fn backend_path(pool: &str, name: &str) -> String {
    format!("/api/pools/{}/backends/{}", encoded(pool), encoded(name))
}

/// Changes values of a backend. Returns a line for each difference, and for each warning.
///
/// # Errors
/// Why nothing has changed.
pub(super) async fn patch(port: &StatsPort, pool: &str, name: &str, values: &Value) -> Result<Vec<String>, String> {
    let path = backend_path(pool, name);
    let call = port.call(&Method::PATCH, &path, Some(values.to_string()), CHANGE_TIMEOUT);
    let (_, answer) = call.await.map_err(|refused| refused.message)?;
    let warnings = lines(&answer, "warnings").map(|warning| format!("warning: {warning}"));
    Ok(lines(&answer, "changes").map(str::to_owned).chain(warnings).collect())
}

/// The texts of a list in an answer.
fn lines<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    answer[key].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// Applies the configuration file as it now is.
pub(crate) fn reload(asked: Reload) -> ExitCode {
    let given = asked.which.config_file().map(Path::to_owned);
    let port = match asked.which.find() {
        Ok(port) => port,
        // What was said of the file is why nothing has changed.
        Err(_) => return ExitCode::FAILURE,
    };
    run(async || of_own_file(&port, "/api/reload", given.as_deref()).await)
}

/// Shows what a reload would change, or what another file would.
pub(crate) fn diff(asked: Diff) -> ExitCode {
    let Diff { file, which } = asked;
    let Some(file) = file else {
        let given = which.config_file().map(Path::to_owned);
        return on(which, async |port| of_own_file(port, "/api/reload?dry_run=true", given.as_deref()).await);
    };
    // The instance reads no other files for it. What is wrong with the text, it says itself.
    let text = match as_one_text(&file, &Unread) {
        Ok(text) => text,
        Err(failure) => {
            say(failure.render(Style::of_stderr()).trim_end());
            return ExitCode::FAILURE;
        }
    };
    on(which, async |port| {
        shown(port.call(&Method::PUT, "/api/config?dry_run=true", Some(text), CHANGE_TIMEOUT).await).map(drop)
    })
}

/// A call about the file that the instance reads. `given` is the one by which it was found.
async fn of_own_file(port: &StatsPort, path: &str, given: Option<&Path>) -> Result<(), FailedCall> {
    let answer = shown(port.call(&Method::POST, path, None, CHANGE_TIMEOUT).await)?;
    let whole = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let (Some(given), Some(own)) = (given, answer["file"].as_str().map(Path::new))
        && whole(given) != whole(own)
    {
        let (given, own) = (given.display(), own.display());
        say(format_args!(
            "warning: the running instance reads {own}; {given} only says where its admin interface is: to compare it, \
             `tidegate diff {given}`"
        ));
    }
    Ok(())
}

/// No new connections for a backend.
pub(crate) fn drain(asked: Drain) -> ExitCode {
    let OfBackend { backend, which } = asked.of;
    on(which, async |port| {
        change(port, &Method::PATCH, &backend.path(), Some(&json!({ "state": "drain" }))).await?;
        match asked.wait {
            Some(limit) => wait(port, &backend, limit, Until::Drained).await,
            None => Ok(()),
        }
    })
}

/// A backend back in service.
pub(crate) fn ready(asked: OfBackend) -> ExitCode {
    state(asked, "ready")
}

/// A backend without connections and without health checks.
pub(crate) fn maintenance(asked: OfBackend) -> ExitCode {
    state(asked, "maintenance")
}

fn state(asked: OfBackend, state: &str) -> ExitCode {
    set(asked.which, &asked.backend.path(), &json!({ "state": state }))
}

fn set(which: Which, path: &str, values: &Value) -> ExitCode {
    on(which, async |port| change(port, &Method::PATCH, path, Some(values)).await)
}

/// Ends the connections of a backend.
pub(crate) fn cut(asked: OfBackend) -> ExitCode {
    let OfBackend { backend, which } = asked;
    on(which, async |port| {
        let (_, answer) = port.call(&Method::POST, &format!("{}/cut", backend.path()), None, CHANGE_TIMEOUT).await?;
        // What is not its answer is another version's.
        let ConnectionsEnded { ended, unreached } = serde_json::from_value(answer).unwrap_or_default();
        print(format!("{ended} connections ended\n").as_bytes());
        unreached.iter().for_each(|process| say(format_args!("warning: {process}: they are not cut")));
        Ok(())
    })
}

/// Another weight for a backend.
pub(crate) fn weight(asked: Weight) -> ExitCode {
    let Weight { backend, weight, which } = asked;
    set(which, &backend.path(), &json!({ "weight": weight }))
}

/// Adds a backend.
pub(crate) fn add(asked: Add) -> ExitCode {
    let Add { pool, name, address, weight, which } = asked;
    let path = BackendArg { pool, name }.path();
    let mut body = json!({ "address": address });
    if let Some(weight) = weight {
        body["weight"] = weight.into();
    }
    on(which, async |port| change(port, &Method::PUT, &path, Some(&body)).await)
}

/// Removes a backend, which drains.
pub(crate) fn remove(asked: Remove) -> ExitCode {
    let OfBackend { backend, which } = asked.of;
    on(which, async |port| {
        change(port, &Method::DELETE, &backend.path(), None).await?;
        match asked.wait {
            Some(limit) => wait(port, &backend, limit, Until::Gone).await,
            None => Ok(()),
        }
    })
}

/// Drops what was changed at run time: the file's values are in effect again.
pub(crate) fn reset(asked: Reset) -> ExitCode {
    let Reset { what, listener, all: _, which } = asked;
    let path = match (what.as_deref().map(|what| what.split_once('/').ok_or(what)), listener) {
        (Some(Ok((pool, name))), _) => format!("{}/reset", backend_path(pool, name)),
        (Some(Err(pool)), _) => format!("/api/pools/{}/reset", encoded(pool)),
        (None, Some(listener)) => format!("/api/listeners/{}/reset", encoded(&listener)),
        (None, None) => "/api/reset".to_owned(),
    };
    on(which, async |port| change(port, &Method::POST, &path, None).await)
}

/// A listener that accepts nothing for a while.
pub(crate) fn pause(asked: OfListener) -> ExitCode {
    listener(asked, "paused")
}

/// A listener that accepts again.
pub(crate) fn resume(asked: OfListener) -> ExitCode {
    listener(asked, "ready")
}

fn listener(asked: OfListener, state: &str) -> ExitCode {
    let OfListener { listener, which } = asked;
    set(which, &format!("/api/listeners/{}", encoded(&listener)), &json!({ "state": state }))
}

/// Hands over to another binary.
pub(crate) fn upgrade(asked: Upgrade) -> ExitCode {
    let Upgrade { binary, which } = asked;
    let body = binary.map(|binary| json!({ "binary": binary }).to_string());
    on(which, async |port| shown(port.call(&Method::POST, "/api/upgrade", body, UPGRADE_TIMEOUT).await).map(drop))
}

/// What a command waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The backend has no connections.
    Drained,
    /// Nor is it listed.
    Gone,
}

/// Waits until a backend has no connections, here and in a process that an upgrade has replaced.
async fn wait(port: &StatsPort, backend: &BackendArg, limit: Option<Duration>, until: Until) -> Result<(), FailedCall> {
    let end = limit.map(|limit| Instant::now() + limit);
    let mut last = String::new();
    loop {
        let open = connections(port, backend).await?;
        let is_here = open.here.is_some_and(|here| here > 0 || until == Until::Gone);
        if !is_here && open.elsewhere == 0 {
            print(format!("{}/{} has no connections\n", backend.pool, backend.name).as_bytes());
            return Ok(());
        }
        let left = open.to_string();
        if left != last {
            say(format_args!("{left}"));
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            let state = if until == Until::Drained { "stays drained" } else { "is removed once they have ended" };
            return Err(FailedCall::from(format!("{left} at the end of --wait: the backend {state}")));
        }
        last = left;
        sleep(WAIT_POLL).await;
    }
}

/// What a backend has open, all addresses of a host name together.
struct BackendSessions {
    /// `None` if there is no such backend.
    here: Option<u64>,
    /// In processes that upgrades have replaced.
    elsewhere: u64,
    /// Of these, in words: those to any backend, where it is not known to which.
    unknown: Vec<String>,
}

impl fmt::Display for BackendSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.here.unwrap_or_default() + self.elsewhere;
        write!(f, "{left} connection{} left", if left == 1 { "" } else { "s" })?;
        if self.elsewhere > 0 {
            write!(f, ", of which {} in processes that an upgrade has replaced", self.elsewhere)?;
        }
        self.unknown.iter().try_for_each(|process| write!(f, "; {process}"))
    }
}

async fn connections(port: &StatsPort, backend: &BackendArg) -> Result<BackendSessions, FailedCall> {
    let path = format!("/api/pools/{}/backends", encoded(&backend.pool));
    let (_, answer) = port.call(&Method::GET, &path, None, CHANGE_TIMEOUT).await?;
    let here = open(&answer["backends"], &backend.name);
    let mut sessions = BackendSessions { here, elsewhere: 0, unknown: Vec::new() };
    for process in answer["predecessors"].as_array().into_iter().flatten() {
        let all = process["connections"].as_u64().unwrap_or_default();
        if process["backends"].is_array() {
            sessions.elsewhere += open(&process["backends"], &backend.name).unwrap_or_default();
        } else if all > 0 {
            sessions.elsewhere += all;
            let (pid, reason) = (&process["pid"], process["reason"].as_str().unwrap_or_default());
            sessions.unknown.push(format!("those of process {pid} are to any backend: {reason}"));
        }
    }
    Ok(sessions)
}

/// Connections to a backend in a list of backends, all addresses of a host name together. `None` if it is not in there.
fn open(backends: &Value, name: &str) -> Option<u64> {
    let is_meant = |it: &&Value| {
        let rest = it["name"].as_str().and_then(|it| it.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    };
    let meant = backends.as_array().into_iter().flatten().filter(is_meant);
    let rows: Vec<u64> = meant.map(|it| it["connections"].as_u64().unwrap_or_default()).collect();
    (!rows.is_empty()).then(|| rows.iter().sum())
}

/// Makes a change and shows what it has changed.
async fn change(port: &StatsPort, method: &Method, path: &str, body: Option<&Value>) -> Result<(), FailedCall> {
    shown(port.call(method, path, body.map(Value::to_string), CHANGE_TIMEOUT).await).map(drop)
}

fn shown(answer: Result<(StatusCode, Value), FailedCall>) -> Result<Value, FailedCall> {
    let (_, answer) = answer?;
    let changes: Vec<&str> = lines(&answer, "changes").collect();
    let text = if changes.is_empty() { "nothing changes".to_owned() } else { changes.join("\n") };
    print(format!("{text}\n").as_bytes());
    lines(&answer, "warnings").for_each(|warning| say(format_args!("warning: {warning}")));
    Ok(answer)
}

/// Finds the instance, and does something with it.
fn on(which: Which, act: impl AsyncFnOnce(&StatsPort) -> Result<(), FailedCall>) -> ExitCode {
    match which.find() {
        Ok(port) => run(async || act(&port).await),
        Err(code) => code,
    }
}

fn run(act: impl AsyncFnOnce() -> Result<(), FailedCall>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(act()) {
        Ok(()) => ExitCode::SUCCESS,
        // As `check` prints it.
        Err(FailedCall { report: Some(report), .. }) => {
            say(report.trim_end());
            ExitCode::FAILURE
        }
        Err(FailedCall { message, report: None }) => failed(&message),
    }
}

fn failed(error: &str) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::FAILURE
}
