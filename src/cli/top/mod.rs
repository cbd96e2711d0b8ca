//! `tidegate top`: what a running tidegate does, in a terminal.
//!
//! [`rows`], [`state`], [`prompt`] and [`screen`] are pure: what was seen and what was pressed come in, lines come out. Here is what is
//! not: the terminal, the clock and the stats port.

mod plain;
mod prompt;
mod rows;
mod screen;
mod state;
#[cfg(test)]
mod tests;
pub(super) mod units;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tidegate::admin::snapshot_model::Snapshot;
use tidegate::stats::latency::{Stage, Window};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use self::prompt::{BackendChange, ChangeTarget};
use self::rows::{Selection, Sort};
use self::screen::Seen;
use self::state::{Flow, Interface, Told};
use super::change;
use super::output::{USAGE, print, say};
use super::signals::Signals;
use super::stats_port::{StatsPort, Which};

/// Between two polls of the stats port.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Top {
    /// Print one table and exit
    #[arg(long)]
    once: bool,
    /// With --once: print JSON with exact numbers
    #[arg(long, requires = "once")]
    json: bool,
    /// Sort order
    #[arg(long, value_name = "KEY", value_enum, default_value = "config")]
    sort: Sort,
    /// Reverse the sort order
    #[arg(long)]
    reverse: bool,
    /// Connection stage that P50, P99 and MAX measure
    #[arg(long, value_name = "STAGE", value_parser = stages(), default_value = "turnaround")]
    stage: String,
    /// Time window of P50, P99 and MAX
    #[arg(long, value_name = "WINDOW", value_parser = windows(), default_value = "10s")]
    window: String,
    /// Show only backends whose name or address contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    #[command(flatten)]
    which: Which,
}

fn stages() -> clap::builder::PossibleValuesParser {
    Stage::ALL.map(Stage::name).into()
}

fn windows() -> clap::builder::PossibleValuesParser {
    Window::ALL.map(Window::name).into()
}

/// Shows a running tidegate until told to end, or once.
pub(crate) fn top(asked: Top) -> ExitCode {
    let choice = Selection {
        sort: asked.sort,
        reversed: asked.reverse,
        // They were parsed by the same names.
        stage: Stage::named(&asked.stage).unwrap_or(Stage::Turnaround),
        window: Window::named(&asked.window).unwrap_or(Window::TenSeconds),
        filter: asked.filter,
    };
    let port = match asked.which.find() {
        Ok(port) => port,
        Err(code) => return code,
    };
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !asked.once && !is_terminal {
        say("error: this is no terminal\n  = help: --once prints one table");
        return ExitCode::from(USAGE);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    if asked.once {
        return match runtime.block_on(port.ask::<Snapshot>("/stats")) {
            Ok(snapshot) if asked.json => print(format!("{:#}\n", plain::json(&snapshot, &choice)).as_bytes()),
            Ok(snapshot) => print(plain::text(&snapshot, &choice).as_bytes()),
            Err(error) => failed(&error),
        };
    }
    let ended = runtime.block_on(watch(port, Interface::new(choice)));
    // Not dropped: that could wait for a look that is under way.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("the terminal: {error}")),
    }
}

fn failed(error: &str) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::FAILURE
}

/// The terminal in its other life; back to its first when dropped, a panic included.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Screen> {
        // Its panic hook restores the terminal before the message is written.
        ratatui::try_init().map(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where that fails, the terminal has gone.
        let _ = ratatui::try_restore();
    }
}

async fn watch(port: StatsPort, mut interface: Interface) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let mut seen = Seen { address: port.to_string(), ..Seen::default() };
    let port = Arc::new(port);
    let (looks, mut looked) = unbounded_channel();
    let (outcomes, mut came) = unbounded_channel();
    let mut screen = Screen::open()?;
    let mut keys = keys();
    tokio::spawn(look(Arc::clone(&port), looks));
    loop {
        screen.0.draw(|frame| screen::draw(frame, &seen, &interface))?;
        tokio::select! {
            Some(look) = looked.recv() => seen.take(look),
            Some(outcome) = came.recv() => interface.changed(outcome),
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    let shown = screen::shown(&seen, &interface, screen.0.size()?.height);
                    match interface.press(key, &shown) {
                        Flow::GoOn => {}
                        Flow::Quit => return Ok(()),
                        Flow::Change(target, change) => {
                            tokio::spawn(make(Arc::clone(&port), target, change, outcomes.clone()));
                        }
                    }
                }
                // Another size: redraw.
                Some(_) => {}
                // The terminal has gone.
                None => return Ok(()),
            },
            () = signals.next() => return Ok(()),
        }
    }
}

impl Seen {
    fn take(&mut self, look: Result<Snapshot, String>) {
        match look {
            Ok(snapshot) => {
                self.previous = self.snapshot.replace(snapshot);
                self.trouble = None;
            }
            // What was seen last stays on the screen.
            Err(error) => self.trouble = Some(error),
        }
    }
}

/// Makes a change, and tells what came of it.
async fn make(port: Arc<StatsPort>, target: ChangeTarget, change: BackendChange, outcomes: UnboundedSender<Told>) {
    let outcome = match change::patch(&port, &target.pool, &target.entry, &change.body()).await {
        Ok(changes) if changes.is_empty() => Told::Done(format!("{}: nothing changes", target.name())),
        Ok(changes) => Told::Done(changes.join("; ")),
        Err(error) => Told::Failed(error),
    };
    // It may be over.
    let _ = outcomes.send(outcome);
}

/// Polls once a second, until the receiver is gone.
async fn look(port: Arc<StatsPort>, looks: UnboundedSender<Result<Snapshot, String>>) {
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if looks.send(port.ask("/stats").await).is_err() {
            return;
        }
    }
}

/// What is pressed. A thread waits for it, which ends with the process, or with the terminal.
fn keys() -> UnboundedReceiver<Event> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
