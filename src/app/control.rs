//! The control loop: carries out requests for changes, one after the other, until the process is to end.
//!
//! Every change ends in [`App::apply`] with a whole configuration: that of the file, with what was changed at run time over it.
//! All that can fail comes before; then the reply is sent, once the change is in effect on every worker.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::config_watch::ConfigWatch;
use super::restore::{Restored, STORE_LIMIT, restore};
use super::upgrade::inheritance::Inheritance;
use super::upgrade::successor::{Launcher, Successor};
use super::{App, ControlLink, StartError};
use crate::config::model::Config;
use crate::config::recheck::{Findings, findings};
use crate::config::{self, ConfigTexts, Failure, Loaded};
use crate::control::edit::Edit;
use crate::control::outcome::{Applied, Refusal};
use crate::control::predecessor::{DrainCall, Predecessor, ask_all};
use crate::control::request::{Actor, Change, ChangeReceiver, ChangeRequest};
use crate::control::status::{ChangeEvent, SharedStatus};
use crate::control::{Overlay, audit, differences, state_file};
use crate::log::Logging;
use crate::server::DataPlane;
use crate::threads::BlockingThread;
use crate::tls::OnDisk;

/// How long reading the configuration and the files that it names may take: a file system may hang.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Name of a configuration that came over the admin interface, in its errors.
const PUT_NAME: &str = "PUT /api/config";

/// Progress of a reload, for the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadPhase {
    /// A reload begins.
    Begins,
    /// It has ended; why it was refused.
    Ended(Result<(), String>),
}

/// Told about reloads.
pub type ReloadObserver = Box<dyn Fn(ReloadPhase, &DataPlane) + Send>;

/// Why the control loop has ended.
pub enum ControlEnd {
    /// A request asked for a drain.
    Drain,
    /// Another process has taken over: this one is to drain.
    HandedOver(Successor),
}

/// A running balancer, and what it takes to change it.
pub struct Controller {
    app: App,
    path: PathBuf,
    /// The configuration of the file, or the one that was put in its place.
    file: Arc<Config>,
    overlay: Overlay,
    /// The state file that was read or written: another one is looked at before it is replaced.
    known_state_file: Option<PathBuf>,
    /// Whether that file has the overlay: what could not be written is written with the next change, even of nothing.
    is_stored: bool,
    /// The configuration that was put in the place of the file's.
    put: Option<Arc<str>>,
    status: Arc<SharedStatus>,
    files: Arc<BlockingThread>,
    watch: ConfigWatch,
    observer: ReloadObserver,
    launcher: Launcher,
}

/// A configuration that was read, and what it comes to.
struct Proposal {
    file: Arc<Config>,
    texts: Option<ConfigTexts>,
    overlay: Overlay,
    effective: Config,
    dropped: Vec<String>,
    created: bool,
    /// What the checks of a file say of it.
    warnings: Vec<String>,
}

impl Controller {
    /// Starts the balancer with the configuration of `path` and the changes of its state file.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start(
        path: &Path,
        loaded: Loaded,
        logging: &Logging,
        link: ControlLink,
        mut inheritance: Inheritance,
        observer: ReloadObserver,
    ) -> Result<Controller, StartError> {
        // Before anybody replaces the file of the program.
        let launcher = Launcher::of_this_process()?;
        let files = Arc::new(BlockingThread::start("config")?);
        // Of the file, also where another configuration was put in its place.
        let watch = ConfigWatch::start(path, Arc::clone(&files), loaded.texts());
        let (mut loaded, mut put) = (loaded, None);
        if let Some(text) = inheritance.put.take() {
            match config::parse(PUT_NAME, &text, &OnDisk) {
                Ok(parsed) => (loaded, put) = (parsed, Some(text.into())),
                Err(failure) => tracing::warn!("a configuration that was put is not in effect any more: {failure}"),
            }
        }
        let Restored { effective, overlay, known_state_file, is_stored } =
            restore(&files, &loaded.config, inheritance.overlay.take()).await;
        let (texts, file) = (loaded.texts(), Arc::new(loaded.config));
        let status = Arc::clone(&link.status);
        // Before the admin interface answers.
        status.update(|status| {
            let now = Some(SystemTime::now());
            (status.generation, status.since, status.last_success) = (1, now, now);
            (status.last_reload_succeeded, status.texts) = (true, texts);
            (status.shutdown, status.file) = (effective.shutdown.clone(), Some(Arc::clone(&file)));
            status.path = Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        });
        let app = App::start_with(effective, logging, link, inheritance).await?;
        let controller = Controller {
            app,
            path: path.to_owned(),
            file,
            overlay,
            known_state_file,
            is_stored,
            put,
            status,
            files,
            watch,
            observer,
            launcher,
        };
        controller.compare_with_file();
        Ok(controller)
    }

    /// The balancer, to drain it.
    pub fn into_app(self) -> App {
        self.app
    }

    /// The balancer.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Carries out requests until one asks for the end.
    pub async fn run(&mut self, requests: &mut ChangeReceiver) -> ControlEnd {
        // Otherwise what was dropped would be back as soon as the file says again what it said before. Not while it starts: a request to
        // end must not wait for a slow disk, as there are connections already.
        if let (false, Some(path)) = (self.is_stored, self.state_path()) {
            self.store(path).await;
        }
        let mut next = None;
        loop {
            let request = match next.take() {
                Some(request) => request,
                None => tokio::select! {
                    request = requests.recv() => match request {
                        Some(request) => request,
                        // Every sender is gone, and the process goes on.
                        None => std::future::pending().await,
                    },
                    () = self.watch.changed() => {
                        self.file_has_changed().await;
                        continue;
                    }
                },
            };
            // Reloads that wait are one: the file is read when the last of them has been asked for.
            let mut together = vec![request];
            while is_plain_reload(&together[0]) {
                match requests.try_recv() {
                    Ok(another) if is_plain_reload(&another) => together.push(another),
                    Ok(another) => {
                        next = Some(another);
                        break;
                    }
                    Err(_) => break,
                }
            }
            let (outcome, end) = match self.carry_out(&together[0]).await {
                Ok((applied, end)) => (Ok(applied), end),
                Err(refusal) => (Err(refusal), None),
            };
            for ChangeRequest { actor, action, dry_run, reply, .. } in together {
                self.record(&actor, &action, dry_run, &outcome);
                // Who asked may have gone.
                let _ = reply.send(outcome.clone());
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Leaves an audit line and an event.
    fn record(&self, actor: &Actor, action: &str, dry_run: bool, outcome: &Result<Applied, Refusal>) {
        audit::log(actor, action, dry_run, outcome);
        if !dry_run {
            self.status.tell(ChangeEvent {
                actor: actor.0.clone(),
                action: action.to_owned(),
                refused: outcome.as_ref().err().map(Refusal::summary),
                generation: self.status.get().generation,
                changes: outcome.as_ref().map_or(Vec::new(), |applied| applied.changes.clone()),
            });
        }
    }

    /// Starts another process in the place of this one. Nothing has changed here until it serves.
    async fn upgrade(&self, binary: Option<&Path>) -> Result<(Applied, Successor), Refusal> {
        let mut applied = self.unchanged();
        let changed = (&self.overlay, self.put.as_deref());
        let successor = self.launcher.hand_over(binary, &self.app, changed, &self.files).await;
        let successor = successor.map_err(|error| {
            tracing::error!(error, "upgrade failed");
            Refusal::Conflict(format!("upgrade failed: {error}"))
        })?;
        let (new, old) = (successor.pid(), std::process::id());
        let program = successor.program().display();
        applied.changes.push(format!("process {new} ({program}) has taken over from process {old}, which drains"));
        Ok((applied, successor))
    }

    /// What has changed, and whether that ends the loop.
    async fn carry_out(&mut self, request: &ChangeRequest) -> Result<(Applied, Option<ControlEnd>), Refusal> {
        self.status.unless_stale(request.if_match.as_deref())?;
        if request.dry_run {
            return Ok((self.preview(&request.change).await?, None));
        }
        let applied = match &request.change {
            Change::Reload => self.reload().await?,
            Change::Replace(text) => {
                let loaded = self.parse(text.clone()).await?;
                self.put(self.proposal(loaded).await?).await?
            }
            Change::Edit(edit) => self.apply(self.edited(edit).await?).await?,
            Change::Upgrade(binary) => {
                let (applied, successor) = self.upgrade(binary.as_deref()).await?;
                return Ok((applied, Some(ControlEnd::HandedOver(successor))));
            }
            Change::Drain => return Ok((self.unchanged(), Some(ControlEnd::Drain))),
        };
        Ok((applied, None))
    }

    /// What a change would do.
    async fn preview(&self, change: &Change) -> Result<Applied, Refusal> {
        let proposal = match change {
            Change::Reload => self.proposal(self.read().await?).await?,
            Change::Replace(text) => self.proposal(self.parse(text.clone()).await?).await?,
            Change::Edit(edit) => self.edited(edit).await?,
            Change::Upgrade(_) | Change::Drain => return Ok(self.unchanged()),
        };
        let (changes, created) = (self.changes(&proposal.effective), proposal.created);
        let warnings = [proposal.dropped, proposal.warnings].concat();
        Ok(Applied { changes, created, warnings, ..self.unchanged() })
    }

    async fn reload(&mut self) -> Result<Applied, Refusal> {
        (self.observer)(ReloadPhase::Begins, self.app.plane());
        let outcome = match self.read_file().await {
            Ok(Ok(loaded)) => {
                self.watch.set_seen(loaded.texts());
                let applied = match self.proposal(loaded).await {
                    Ok(proposal) => self.apply(proposal).await,
                    Err(refusal) => Err(refusal),
                };
                if applied.is_ok() {
                    self.put = None;
                }
                applied
            }
            Ok(Err(failure)) => {
                // The reason says more than that the file has changed. One that cannot be read has no text.
                if !failure.texts().is_empty() {
                    self.watch.set_seen(failure.texts());
                }
                Err(Refusal::of_failure(&failure))
            }
            Err(refusal) => Err(refusal),
        };
        self.status.update(|status| {
            status.last_reload_succeeded = outcome.is_ok();
            match &outcome {
                Ok(_) => (status.last_success, status.file_differs) = (Some(SystemTime::now()), None),
                Err(refusal) => {
                    status.file_differs = Some(format!("the last reload was refused: {}", refusal.summary()));
                }
            }
        });
        let told = outcome.as_ref().map(|_| ()).map_err(Refusal::summary);
        (self.observer)(ReloadPhase::Ended(told), self.app.plane());
        outcome
    }

    /// Applies a configuration in the place of the file's.
    async fn put(&mut self, proposal: Proposal) -> Result<Applied, Refusal> {
        let text = proposal.texts.as_ref().map(ConfigTexts::main);
        let applied = self.apply(proposal).await?;
        self.put = text;
        self.compare_with_file();
        Ok(applied)
    }

    /// The file has other contents than before.
    async fn file_has_changed(&mut self) {
        if self.app.config().reload.watch {
            let actor = Actor("reload.watch".to_owned());
            let outcome = self.reload().await;
            self.record(&actor, "reload", false, &outcome);
            return;
        }
        self.compare_with_file();
    }

    /// Whether the file says what is in effect.
    fn compare_with_file(&self) {
        let why = match self.put {
            Some(_) => "a configuration that was put is in effect until the next reload",
            None => "it has changed since it was read: `tidegate reload` applies it",
        };
        self.status.update(|status| status.file_differs = (status.texts != *self.watch.seen()).then(|| why.to_owned()));
    }

    async fn read(&self) -> Result<Loaded, Refusal> {
        self.read_file().await?.map_err(|failure| Refusal::of_failure(&failure))
    }

    async fn read_file(&self) -> Result<Result<Loaded, Failure>, Refusal> {
        let path = self.path.clone();
        let looked_at = path.clone();
        // Reading a pipe or a device could wait for ever, or never end. What is not there has an error of its own.
        let is_odd = self.on_files(move || fs::metadata(looked_at).is_ok_and(|it| !it.is_file() && !it.is_dir()));
        if is_odd.await? {
            let why = format!("{} is no regular file: only a start can read it", path.display());
            return Err(Refusal::Conflict(why));
        }
        self.on_files(move || config::load(&path, &OnDisk)).await
    }

    async fn parse(&self, text: String) -> Result<Loaded, Refusal> {
        let parsed: Result<Loaded, Failure> = self.on_files(move || config::parse(PUT_NAME, &text, &OnDisk)).await?;
        parsed.map_err(|failure| Refusal::of_failure(&failure))
    }

    async fn on_files<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        match timeout(READ_LIMIT, self.files.call(call)).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Refusal::Conflict("reading the configuration failed: a defect of tidegate".to_owned())),
            Err(_) => {
                let why =
                    format!("reading the configuration takes longer than {READ_LIMIT:?}: does a file system hang?");
                Err(Refusal::Conflict(why))
            }
        }
    }

    async fn proposal(&self, loaded: Loaded) -> Result<Proposal, Refusal> {
        loaded.log_warnings();
        let (effective, overlay, dropped) = self.overlay.apply(&loaded.config);
        let (texts, file) = (Some(loaded.texts()), Arc::new(loaded.config));
        let Findings { errors, warnings } = self.findings(&effective, Some(&file)).await?;
        if !errors.is_empty() {
            return Err(Refusal::of_lines(&self.path.display().to_string(), &errors));
        }
        Ok(Proposal { file, texts, overlay, effective, dropped, created: false, warnings })
    }

    async fn edited(&self, edit: &Edit) -> Result<Proposal, Refusal> {
        let (overlay, created) = self.overlay.edited(&self.file, edit)?;
        let (effective, overlay, dropped) = overlay.apply(&self.file);
        let Findings { errors, warnings } = self.findings(&effective, None).await?;
        if !errors.is_empty() {
            return Err(Refusal::Conflict(errors.join("\n")));
        }
        Ok(Proposal { file: Arc::clone(&self.file), texts: None, overlay, effective, dropped, created, warnings })
    }

    /// What the checks of a file say of a configuration, and neither of the one in effect nor of `file`, which was checked alone.
    async fn findings(&self, proposed: &Config, file: Option<&Arc<Config>>) -> Result<Findings, Refusal> {
        let (proposed, in_effect, file) = (proposed.clone(), Arc::clone(self.app.config()), file.cloned());
        let bound = self.app.addresses();
        let check = move || {
            let new = findings(&proposed, &bound).beyond(|| findings(&in_effect, &bound));
            new.beyond(|| file.map_or_else(Findings::default, |file| findings(&file, &[])))
        };
        self.on_files(check).await
    }

    fn changes(&self, effective: &Config) -> Vec<String> {
        let mut changes = differences(self.app.config(), effective);
        if changes.is_empty() && **self.app.config() != *effective {
            changes.push("a value that is not shown".to_owned());
        }
        changes
    }

    async fn apply(&mut self, proposal: Proposal) -> Result<Applied, Refusal> {
        let changes = self.changes(&proposal.effective);
        let state_path = self.state_path();
        if !changes.is_empty() {
            let applied = self.app.apply(proposal.effective).await;
            applied.map_err(|StartError(lines)| Refusal::of_lines(&self.path.display().to_string(), &lines))?;
        }
        proposal.dropped.iter().for_each(|entry| tracing::warn!("runtime change dropped: {entry}"));
        let is_stored = self.is_stored && self.overlay == proposal.overlay && state_path == self.state_path();
        (self.file, self.overlay) = (proposal.file, proposal.overlay);
        let shutdown = self.app.config().shutdown.clone();
        self.status.update(|status| {
            (status.shutdown, status.file) = (shutdown, Some(Arc::clone(&self.file)));
            if !changes.is_empty() {
                (status.generation, status.since) = (status.generation + 1, Some(SystemTime::now()));
            }
            status.texts = proposal.texts.unwrap_or_else(|| status.texts.clone());
        });
        let mut warnings = [proposal.dropped, proposal.warnings].concat();
        if !changes.is_empty() {
            warnings.extend(self.tell_predecessors().await);
        }
        if let (false, Some(path)) = (is_stored, self.state_path()) {
            warnings.extend(self.store(path).await);
        }
        Ok(Applied { changes, created: proposal.created, warnings, ..self.unchanged() })
    }

    /// Has processes that drain follow the configuration in effect. Returns which ones do not.
    pub async fn tell_predecessors(&self) -> Vec<String> {
        let told = ask_all::<()>(self.status.get().predecessors, &DrainCall::follow(self.app.config())).await;
        let failed = |(process, told): (Predecessor, Result<(), String>)| {
            let why = told.err().filter(|_| process.connections > 0)?;
            Some(format!(
                "process {}, which an upgrade has replaced, goes on with its own backends: {why}",
                process.pid
            ))
        };
        told.into_iter().filter_map(failed).collect()
    }

    fn state_path(&self) -> Option<PathBuf> {
        self.app.config().admin.as_ref().and_then(|admin| admin.state_file.clone())
    }

    /// Writes the state file. Returns why that failed.
    async fn store(&mut self, path: PathBuf) -> Option<String> {
        let (overlay, is_known) = (self.overlay.clone(), self.known_state_file.as_ref() == Some(&path));
        let written = path.clone();
        let write = move || {
            // One that is no state file is left alone, until somebody has moved it or made it right.
            if !is_known {
                state_file::read(&path)?;
            }
            state_file::write(&path, &overlay)
        };
        let fault = match timeout(STORE_LIMIT, self.files.call(write)).await {
            Ok(Some(Ok(()))) => {
                (self.known_state_file, self.is_stored) = (Some(written), true);
                return None;
            }
            Ok(Some(Err(fault))) => fault,
            Ok(None) | Err(_) => format!("it was not written within {STORE_LIMIT:?}"),
        };
        self.is_stored = false;
        let warning = format!("state file: {fault}; this change will not outlive the process");
        tracing::warn!("{warning}");
        Some(warning)
    }

    fn unchanged(&self) -> Applied {
        let generation = self.status.get().generation;
        Applied { generation, changes: Vec::new(), created: false, warnings: Vec::new() }
    }
}

fn is_plain_reload(request: &ChangeRequest) -> bool {
    request.change == Change::Reload && !request.dry_run && request.if_match.is_none()
}
