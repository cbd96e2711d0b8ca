//! A unix socket by which curl does to the demo's backends what the demo does to them.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::backends::{BackendMode, BackendModes, KINDS};
use super::http::{DemoRefusal, DemoRequest, DemoResponse, read_request};

/// What a path says that a backend is to do.
const VERBS: [(&str, BackendMode, &str); 3] = [
    ("stop", BackendMode::Away, "refuses connections"),
    ("start", BackendMode::Serving, "answers"),
    ("reset", BackendMode::Resetting, "resets connections"),
];
/// Connections that are served at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// How long a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait with the next accept after one has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running socket; it ends when this is dropped.
pub(super) struct Switches {
    _task: JoinSet<()>,
}

impl Switches {
    /// Listens under this path.
    pub(super) fn start(path: &Path, modes: BackendModes) -> io::Result<Switches> {
        let listener = UnixListener::bind(path)?;
        let mut task = JoinSet::new();
        task.spawn(accept(listener, modes));
        Ok(Switches { _task: task })
    }
}

async fn accept(listener: UnixListener, modes: BackendModes) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, _)) => {
                let modes = modes.clone();
                // A client that goes away, or says nothing, is its own business.
                connections.spawn(async move { drop(timeout(REQUEST_LIMIT, serve(socket, modes)).await) });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(mut socket: UnixStream, modes: BackendModes) -> io::Result<()> {
    let Some(request) = read_request(&mut socket, &mut Vec::new()).await? else { return Ok(()) };
    socket.write_all(&respond(&request, &modes).encode(&request, false)).await?;
    socket.shutdown().await
}

/// Carries out `POST /BACKEND/VERB`.
fn respond(request: &Result<DemoRequest, DemoRefusal>, modes: &BackendModes) -> DemoResponse {
    let request = match request {
        Err(refusal) => return DemoResponse::to_refused(refusal),
        Ok(request) if request.method != "POST" => return DemoResponse::only("POST"),
        Ok(request) => request,
    };
    let asked = request.path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let known = asked.and_then(|(name, verb)| {
        let (_, mode, effect) = VERBS.iter().find(|(known, ..)| *known == verb)?;
        modes.set(name, *mode).then(|| format!("{name} {effect}\n"))
    });
    match known {
        Some(effect) => DemoResponse::new(200, effect),
        None => {
            let (names, verbs) = (KINDS.map(|kind| kind.name), VERBS.map(|(verb, ..)| verb));
            let (names, verbs) = (names.join(" | "), verbs.join(" | "));
            DemoResponse::new(404, format!("the paths are /BACKEND/VERB: {names} / {verbs}\n"))
        }
    }
}
