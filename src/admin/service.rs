//! What the thread of the admin interface serves: addresses come and go, and rules change, while connections stay.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle as LocalTask, spawn_local};

use super::collector::Collector;
use super::http::{AccessRules, ConnectionSlots, HttpServer, ListeningSocket, Token};
use super::snapshot_model::Snapshot;
use crate::config::model;
use crate::limits::ClientSet;
use crate::net::addr::Address;
use crate::threads::BlockingThread;
use crate::tls::Acceptor;

/// What connections are held to, and the thread that reads the token's file again.
pub(super) struct Rules {
    token: Option<(Token, BlockingThread)>,
    allow: ClientSet,
    tls: Option<Arc<Acceptor>>,
}

impl Rules {
    /// Reads the token.
    ///
    /// # Errors
    /// The reason.
    pub(super) fn load(config: &model::AdminConfig, tls: Option<Arc<Acceptor>>) -> Result<Rules, String> {
        let load = |path: &model::Redacted<std::path::PathBuf>| {
            let token = Token::load(path.reveal())?;
            let reader = BlockingThread::start("token").map_err(|error| format!("admin: {error}"))?;
            Ok::<_, String>((token, reader))
        };
        let token = config.token_file.as_ref().map(load).transpose()?;
        Ok(Rules { token, allow: ClientSet::new(&config.allow), tls })
    }
}

/// What is served from now on.
pub(super) struct ServeChange {
    pub(super) added: Vec<(Address, ListeningSocket)>,
    pub(super) removed: Vec<Address>,
    /// `None` leaves them as they are.
    pub(super) rules: Option<Rules>,
}

/// What is served.
pub(super) struct Service {
    server: Rc<HttpServer>,
    collector: Rc<Collector>,
    slots: Rc<ConnectionSlots>,
    answers: watch::Receiver<bool>,
    accepting: BTreeMap<Address, AcceptTask>,
    token_watch: Option<LocalTask<()>>,
}

/// The task that accepts at an address.
struct AcceptTask {
    task: LocalTask<()>,
    /// Dropped, it ends once nothing waits in the queue.
    _stop: oneshot::Sender<()>,
}

impl Service {
    pub(super) fn new(collector: Rc<Collector>, slots: Rc<ConnectionSlots>, answers: watch::Receiver<bool>) -> Service {
        let server = Rc::new(HttpServer::new(Rc::clone(&collector), Rc::clone(&slots)));
        Service { server, collector, slots, answers, accepting: BTreeMap::new(), token_watch: None }
    }

    pub(super) async fn snapshot(&self) -> Snapshot {
        Snapshot::clone(&*self.collector.snapshot().await)
    }

    /// Returns once it is in effect, and the sockets of removed addresses are closed.
    pub(super) async fn change(&mut self, ServeChange { added, removed, rules }: ServeChange) {
        if let Some(rules) = rules {
            self.set_rules(rules);
        }
        for (address, socket) in added {
            let (stop, stopped) = oneshot::channel();
            let (server, answers) = (Rc::clone(&self.server), self.answers.clone());
            let at = address.clone();
            let task = spawn_local(async move { server.serve(at, socket, answers, stopped).await });
            self.accepting.insert(address, AcceptTask { task, _stop: stop });
        }
        let ending: Vec<_> = removed.iter().filter_map(|address| self.accepting.remove(address)).collect();
        let tasks: Vec<_> = ending.into_iter().map(|accepting| accepting.task).collect();
        if !tasks.is_empty() {
            for task in tasks {
                let _ = task.await;
            }
            self.slots.end_streams_where(|address| removed.contains(address));
        }
    }

    fn set_rules(&mut self, Rules { token, allow, tls }: Rules) {
        if let Some(task) = self.token_watch.take() {
            task.abort();
        }
        let (token, reader) = token.map(|(token, reader)| (Rc::new(token), reader)).unzip();
        if let (Some(token), Some(reader)) = (&token, reader) {
            let (token, slots) = (Rc::clone(token), Rc::clone(&self.slots));
            // Requests show the token each; a stream has shown one that is no longer valid.
            let watch = async move { token.watch(reader, || slots.end_streams()).await };
            self.token_watch = Some(spawn_local(watch));
        }
        self.server.set_rules(AccessRules { token, allow, tls });
        // What has admitted them may hold no longer.
        self.slots.end_streams();
    }
}
