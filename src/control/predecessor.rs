//! Processes that upgrades have replaced, while they drain: what they have left, and what they can be asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::model::{AdminState, BackendConfig, Config, ForcedHealth, PoolConfig};

/// How long an answer may take: with the admin interface's own work, less than its readers wait.
pub const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Calls to one process that wait; further ones wait for room.
const QUEUE: usize = 16;

/// What a replaced process is asked for. The answer is the JSON of a `Result`, whose error is a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum DrainCall {
    /// As `GET /api/connections` with this query.
    Connections { query: String },
    /// As `DELETE /api/connections` with this query, or of this id.
    End { query: String, id: Option<String> },
    /// As `POST /api/pools/POOL/backends/NAME/cut`.
    Cut { pool: String, name: String },
    /// The backends that have connections.
    Backends,
    /// Takes over what the process that serves says of backends, by pool: no client that still waits gets one that was taken
    /// out of service meanwhile.
    Follow { pools: BTreeMap<String, Vec<FollowedBackend>> },
}

/// What the process that serves says of a backend. One that it does not have is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedBackend {
    pub name: String,
    pub address: String,
    pub weight: u32,
    pub state: AdminState,
    pub forced: Option<ForcedHealth>,
}

impl DrainCall {
    /// Backends as this configuration has them.
    pub fn follow(config: &Config) -> DrainCall {
        let backend = |it: &BackendConfig| FollowedBackend {
            name: it.name.to_string(),
            address: it.address.to_string(),
            weight: it.weight,
            state: it.state,
            forced: it.forced,
        };
        let pool = |pool: &PoolConfig| (pool.name.to_string(), pool.backends.iter().map(backend).collect());
        DrainCall::Follow { pools: config.pools.iter().map(pool).collect() }
    }
}

/// A call, and where the JSON of its answer goes.
#[derive(Debug)]
pub struct PendingDrainCall {
    pub call: DrainCall,
    pub answer: oneshot::Sender<Vec<u8>>,
}

/// Calls for the channel to a process.
pub type DrainCallReceiver = mpsc::Receiver<PendingDrainCall>;

/// A process that an upgrade has replaced, while it drains.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// Its process id.
    pub pid: u32,
    /// Connections that it has left, as of the last second.
    pub connections: usize,
    /// `None` for one whose version takes no calls.
    calls: Option<mpsc::Sender<PendingDrainCall>>,
    /// It has not answered a call, and was not heard since: who asks then does not wait for it again.
    is_silent: Arc<AtomicBool>,
}

impl Predecessor {
    /// One that takes calls, and where they arrive.
    pub fn with_calls(pid: u32, connections: usize) -> (Predecessor, DrainCallReceiver) {
        let (calls, receiver) = mpsc::channel(QUEUE);
        (Predecessor { pid, connections, calls: Some(calls), is_silent: Arc::default() }, receiver)
    }

    /// One that only reports.
    pub fn without_calls(pid: u32, connections: usize) -> Predecessor {
        Predecessor { pid, connections, calls: None, is_silent: Arc::default() }
    }

    /// Something has come from it.
    pub fn heard(&self) {
        self.is_silent.store(false, Ordering::Relaxed);
    }

    /// Its answer; `None` if it has ended.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask<T: DeserializeOwned>(&self, call: DrainCall) -> Result<Option<T>, String> {
        let Some(calls) = &self.calls else { return Err("its version can only be waited for".to_owned()) };
        if self.is_silent.load(Ordering::Relaxed) {
            return Err("it has not answered the last call".to_owned());
        }
        let (answer, answered) = oneshot::channel();
        let asked = async {
            calls.send(PendingDrainCall { call, answer }).await.ok()?;
            answered.await.ok()
        };
        match timeout(CALL_LIMIT, asked).await {
            Ok(Some(json)) => serde_json::from_slice::<Result<T, String>>(&json)
                .map_err(|error| format!("its answer cannot be read: {error}"))?
                .map(Some),
            Ok(None) => Ok(None),
            Err(_) => {
                self.is_silent.store(true, Ordering::Relaxed);
                Err(format!("it does not answer within {} s", CALL_LIMIT.as_secs()))
            }
        }
    }
}

/// Asks each of them at the same time, on a tokio runtime. Those that have ended are left out.
pub async fn ask_all<T: DeserializeOwned + Send + 'static>(
    predecessors: Vec<Predecessor>,
    call: &DrainCall,
) -> Vec<(Predecessor, Result<T, String>)> {
    let ask = |predecessor: Predecessor| {
        let call = call.clone();
        tokio::spawn(async move {
            let answer = predecessor.ask(call).await.transpose()?;
            Some((predecessor, answer))
        })
    };
    let asked: Vec<_> = predecessors.into_iter().map(ask).collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.extend(answer.await.ok().flatten());
    }
    answers
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answer_that_does_not_come_is_told_from_the_end() {
        let ask = |predecessor: Predecessor| async move { predecessor.ask::<u32>(DrainCall::Backends).await };
        let (predecessor, mut calls) = Predecessor::with_calls(7, 1);
        let answer = async {
            let PendingDrainCall { call, answer } = calls.recv().await.unwrap();
            assert_eq!(call, DrainCall::Backends);
            answer.send(b"{\"Ok\":5}".to_vec()).unwrap();
            let PendingDrainCall { answer, .. } = calls.recv().await.unwrap();
            answer.send(b"{\"Err\":\"no\"}".to_vec()).unwrap();
            let PendingDrainCall { answer, .. } = calls.recv().await.unwrap();
            answer.send(b"5".to_vec()).unwrap();
            // Not answered, but held.
            let _held = calls.recv().await.unwrap();
            std::future::pending::<()>().await;
        };
        let asked = async {
            assert_eq!(ask(predecessor.clone()).await, Ok(Some(5)));
            assert_eq!(ask(predecessor.clone()).await, Err("no".to_owned()));
            assert!(ask(predecessor.clone()).await.unwrap_err().starts_with("its answer cannot be read"));
            assert_eq!(ask(predecessor.clone()).await, Err("it does not answer within 2 s".to_owned()));
            let asked = Instant::now();
            assert_eq!(ask(predecessor.clone()).await, Err("it has not answered the last call".to_owned()));
            assert_eq!(asked.elapsed(), Duration::ZERO, "it is not waited for again");
            predecessor.heard();
            assert_eq!(ask(predecessor.clone()).await, Err("it does not answer within 2 s".to_owned()));
            predecessor.heard();
        };
        tokio::select! {
            () = answer => {}
            () = asked => {}
        }
        drop(calls);
        assert_eq!(ask(predecessor).await, Ok(None), "it has ended");
        assert!(ask(Predecessor::without_calls(7, 1)).await.is_err());
    }
}
