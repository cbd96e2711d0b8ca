//! The processes that upgrades have replaced and that still drain, as the one that serves knows them.
//!
//! Each has a channel of its own to the process that serves. One that is replaced passes the channels of its predecessors on,
//! so that its end is not theirs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::channel::{Channel, Message, PORTION, PassedProcess};
use crate::control::predecessor::{DrainCallReceiver, PendingDrainCall, Predecessor};
use crate::control::status::SharedStatus;
use crate::net::memory_file;

/// How long a predecessor may take to be told that the channel ends.
const LEAVE_LIMIT: Duration = Duration::from_millis(100);

/// What is known of the processes that drain, and the channels to them.
pub struct PredecessorChain {
    status: Arc<SharedStatus>,
    links: Mutex<Vec<ChainLink>>,
}

struct ChainLink {
    pid: u32,
    drain: u32,
    channel: Arc<Channel>,
    watch: AbortHandle,
}

/// The task that reads a channel.
struct ChainWatch {
    chain: Arc<PredecessorChain>,
    pid: u32,
    channel: Arc<Channel>,
    /// Calls without an answer yet, by their ids.
    asked: HashMap<u64, oneshot::Sender<Vec<u8>>>,
    /// Dropped with the first report, or the end.
    unreported: Option<oneshot::Sender<()>>,
}

impl PredecessorChain {
    /// Without a process. What it learns goes into `status`.
    pub fn new(status: Arc<SharedStatus>) -> Arc<PredecessorChain> {
        Arc::new(PredecessorChain { status, links: Mutex::default() })
    }

    /// Adds a process. The receiver ends with its first report, or with it. On a tokio runtime.
    pub(super) fn add(self: &Arc<Self>, process: PassedProcess, channel: Channel) -> oneshot::Receiver<()> {
        let PassedProcess { pid, drain, connections } = process;
        let (channel, (unreported, reported)) = (Arc::new(channel), oneshot::channel());
        let (predecessor, calls) = match drain {
            0 => (Predecessor::without_calls(pid, connections), None),
            _ => {
                let (predecessor, calls) = Predecessor::with_calls(pid, connections);
                (predecessor, Some(calls))
            }
        };
        self.status.update(|status| status.predecessors.push(predecessor));
        let watch = ChainWatch {
            chain: Arc::clone(self),
            pid,
            channel: Arc::clone(&channel),
            asked: HashMap::new(),
            unreported: Some(unreported),
        };
        let watch = tokio::spawn(watch.run(calls)).abort_handle();
        self.links().push(ChainLink { pid, drain, channel, watch });
        reported
    }

    /// Connections that all of them have left.
    pub(super) fn connections(&self) -> usize {
        self.status.get().predecessors.iter().map(|it| it.connections).sum()
    }

    /// Passes all of them on to the process at the other end of a channel.
    ///
    /// # Errors
    /// It has ended.
    pub(super) async fn pass_on(&self, successor: &Channel) -> Result<(), String> {
        let links = std::mem::take(&mut *self.links());
        links.iter().for_each(|link| link.watch.abort());
        let known = self.status.get().predecessors;
        self.status.update(|status| status.predecessors.clear());
        for portion in links.chunks(PORTION) {
            let process = |link: &ChainLink| PassedProcess {
                pid: link.pid,
                drain: link.drain,
                connections: known.iter().find(|it| it.pid == link.pid).map_or(0, |it| it.connections),
            };
            let processes = portion.iter().map(process).collect();
            let channels: Vec<BorrowedFd<'_>> = portion.iter().map(|link| link.channel.as_fd()).collect();
            successor.send(&Message::Predecessors { processes }, &channels).await?;
        }
        Ok(())
    }

    /// Says to all of them that this process ends on purpose: they go on draining by themselves.
    pub async fn leave(&self) {
        let channels: Vec<Arc<Channel>> =
            self.links().iter().filter(|link| link.drain > 0).map(|link| Arc::clone(&link.channel)).collect();
        for channel in channels {
            // One that does not read takes the end for a failure.
            let _ = timeout(LEAVE_LIMIT, channel.send(&Message::Leaving, &[])).await;
        }
    }

    fn remove(&self, pid: u32) {
        self.links().retain(|link| link.pid != pid);
        self.status.update(|status| status.predecessors.retain(|it| it.pid != pid));
        tracing::info!(pid, "the process that ran before has ended");
    }

    fn links(&self) -> MutexGuard<'_, Vec<ChainLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChainWatch {
    /// Until the process has ended.
    async fn run(mut self, mut calls: Option<DrainCallReceiver>) {
        if calls.is_some() {
            let successor = Message::Successor { pid: std::process::id() };
            // Its end is seen below.
            let _ = self.channel.send(&successor, &[]).await;
        }
        loop {
            let next_call = async {
                match &mut calls {
                    Some(calls) => calls.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.channel.receive() => match received {
                    Ok(Some((message, descriptors))) => self.take(message, descriptors),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(pid = self.pid, error, "a process that drains is left alone");
                        break;
                    }
                },
                Some(call) = next_call => self.ask(call).await,
            }
        }
        self.chain.remove(self.pid);
    }

    async fn ask(&mut self, PendingDrainCall { call, answer }: PendingDrainCall) {
        // Those who waited too long are gone.
        self.asked.retain(|_, waiting| !waiting.is_closed());
        // No number of the process before, whose answers may still come.
        let id = fastrand::u64(..);
        let file = serde_json::to_vec(&call).map_err(io::Error::from).and_then(|json| memory_file::write(&json));
        let Ok(file) = file else {
            // Who asked may have gone.
            let _ = answer.send(b"{\"Err\":\"no memory or descriptor is left for the call\"}".to_vec());
            return;
        };
        if self.channel.send(&Message::Call { id }, &[file.as_fd()]).await.is_ok() {
            self.asked.insert(id, answer);
        }
    }

    /// Changes what is known of the process, from which something has come.
    fn heard(&self, change: impl FnOnce(&mut Predecessor)) {
        self.chain.status.update(|status| {
            if let Some(process) = status.predecessors.iter_mut().find(|it| it.pid == self.pid) {
                process.heard();
                change(process);
            }
        });
    }

    fn take(&mut self, message: Message, mut descriptors: Vec<std::os::fd::OwnedFd>) {
        match message {
            Message::Draining { connections } => {
                self.unreported = None;
                self.heard(|it| it.connections = connections);
            }
            Message::Predecessors { processes } if processes.len() == descriptors.len() => {
                for (process, descriptor) in processes.into_iter().zip(descriptors) {
                    let pid = process.pid;
                    match Channel::new(descriptor) {
                        Ok(channel) => drop(self.chain.add(process, channel)),
                        Err(error) => tracing::warn!(pid, %error, "a process that drains is left alone"),
                    }
                }
            }
            Message::Answer { id } => {
                self.heard(|_| {});
                let file = descriptors.pop().and_then(|file| memory_file::read(file).ok());
                if let (Some(waiting), Some(json)) = (self.asked.remove(&id), file) {
                    // Who asked may have gone.
                    let _ = waiting.send(json);
                }
            }
            other => tracing::warn!(pid = self.pid, ?other, "a process that drains said what was not expected"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::control::predecessor::DrainCall;
    use crate::net::passing;

    fn channel(socket: OwnedFd) -> Channel {
        Channel::new(socket).unwrap()
    }

    fn pair() -> (Channel, Channel) {
        let (one, other) = passing::pair().unwrap();
        (channel(one), channel(other))
    }

    fn known(chain: &PredecessorChain) -> Vec<(u32, usize)> {
        chain.status.get().predecessors.iter().map(|it| (it.pid, it.connections)).collect()
    }

    async fn said(channel: &Channel) -> Message {
        channel.receive().await.unwrap().expect("it is open").0
    }

    async fn answer(channel: &Channel, json: &[u8]) -> DrainCall {
        let Some((Message::Call { id }, mut files)) = channel.receive().await.unwrap() else { panic!("no call") };
        let call = memory_file::read(files.pop().unwrap()).unwrap();
        let file = memory_file::write(json).unwrap();
        channel.send(&Message::Answer { id }, &[file.as_fd()]).await.unwrap();
        serde_json::from_slice(&call).unwrap()
    }

    /// Three processes: the oldest stays reachable when the middle one, which has replaced it, is replaced and ends.
    #[tokio::test]
    async fn channels_of_predecessors_are_passed_on() {
        let own = Message::Successor { pid: std::process::id() };
        let (middle, last) = (PredecessorChain::new(Arc::default()), PredecessorChain::new(Arc::default()));
        let (oldest, of_oldest) = pair();
        let first_report = middle.add(PassedProcess { pid: 1, drain: 1, connections: 0 }, of_oldest);
        assert_eq!(said(&oldest).await, own);
        oldest.send(&Message::Draining { connections: 5 }, &[]).await.unwrap();
        assert!(first_report.await.is_err(), "dropped with the report");
        assert_eq!(known(&middle), [(1, 5)]);

        let (to_last, of_middle) = pair();
        drop(last.add(PassedProcess { pid: 2, drain: 1, connections: 7 }, of_middle));
        assert_eq!(said(&to_last).await, own);
        middle.pass_on(&to_last).await.unwrap();
        assert!(known(&middle).is_empty());
        assert_eq!(said(&oldest).await, own, "by the last one");
        assert_eq!(known(&last), [(2, 7), (1, 5)]);
        drop((middle, to_last));
        oldest.send(&Message::Draining { connections: 3 }, &[]).await.unwrap();
        let ask = async { last.status.get().predecessors.last().unwrap().ask::<u32>(DrainCall::Backends).await };
        let (answered, call) = tokio::join!(ask, answer(&oldest, b"{\"Ok\":9}"));
        assert_eq!((answered, call), (Ok(Some(9)), DrainCall::Backends));
        assert_eq!(known(&last), [(1, 3)], "the middle one has ended");

        last.leave().await;
        assert_eq!(said(&oldest).await, Message::Leaving);
        drop(oldest);
        while !known(&last).is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// One that knows nothing of calls is never sent any, and reports all the same.
    #[tokio::test]
    async fn older_process_is_only_listened_to() {
        let chain = PredecessorChain::new(Arc::default());
        let (old, of_old) = pair();
        drop(chain.add(PassedProcess { pid: 1, drain: 0, connections: 0 }, of_old));
        let predecessor = chain.status.get().predecessors.remove(0);
        assert!(predecessor.ask::<u32>(DrainCall::Backends).await.unwrap_err().contains("version"));
        chain.leave().await;
        old.send(&Message::Draining { connections: 2 }, &[]).await.unwrap();
        while known(&chain) != [(1, 2)] {
            tokio::task::yield_now().await;
        }
        let nothing = timeout(Duration::from_millis(1), old.receive()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
}
