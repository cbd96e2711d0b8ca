//! `tidegate completions`, and the names that a shell completes: those that the running instance knows.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use hyper::Method;
use serde_json::Value;

use super::output::{print, say};
use super::stats_port::Which;

/// A completion is not worth a longer wait.
const LIMIT: Duration = Duration::from_millis(500);

/// Answers a shell that asks for completions, and ends the process then.
pub(super) fn answer_shell(command: fn() -> clap::Command) {
    CompleteEnv::with_factory(command).complete();
}

/// Prints the script by which a shell asks `tidegate` for completions.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let shells = Shells::builtins();
    let mut script = Vec::new();
    let written = shells
        .completer(&shell.to_string())
        .map(|completer| completer.write_registration("COMPLETE", "tidegate", "tidegate", "tidegate", &mut script));
    match written {
        Some(Ok(())) => print(&script),
        Some(Err(_)) | None => {
            say(format_args!("error: there are no completions for {shell}"));
            ExitCode::FAILURE
        }
    }
}

/// `POOL/BACKEND` of the running instance.
pub(super) fn backends(current: &OsStr) -> Vec<CompletionCandidate> {
    let pools = ask("/api/pools");
    let backends = entries(&pools["pools"]).flat_map(|pool| entries(&pool["backends"]));
    fitting(current, backends.filter_map(|backend| backend["id"].as_str()))
}

/// Both.
pub(super) fn pools_and_backends(current: &OsStr) -> Vec<CompletionCandidate> {
    pools(current).into_iter().chain(backends(current)).collect()
}

/// Names of its pools.
pub(super) fn pools(current: &OsStr) -> Vec<CompletionCandidate> {
    let pools = ask("/api/pools");
    fitting(current, entries(&pools["pools"]).filter_map(|pool| pool["name"].as_str()))
}

/// Names of its listeners.
pub(super) fn listeners(current: &OsStr) -> Vec<CompletionCandidate> {
    let listeners = ask("/api/listeners");
    fitting(current, entries(&listeners["listeners"]).filter_map(|listener| listener["name"].as_str()))
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn fitting<'n>(current: &OsStr, names: impl Iterator<Item = &'n str>) -> Vec<CompletionCandidate> {
    let begin = current.to_str().unwrap_or_default();
    names.filter(|name| name.starts_with(begin)).map(CompletionCandidate::new).collect()
}

/// `null` without an instance that answers: a completion is no place for errors.
fn ask(path: &str) -> Value {
    let Ok(port) = Which::default().find_for_probe() else { return Value::Null };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Value::Null };
    runtime.block_on(port.call(&Method::GET, path, None, LIMIT)).map_or(Value::Null, |(_, answer)| answer)
}
