//! What the demo does by itself, step by step.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tidegate::config::model::AdminState;
use tidegate::server::DataPlane;
use tokio::time::{Instant, sleep, timeout};

use super::backends::{BackendMode, BackendModes};
use super::balancer::{POOL, backend};
use super::places::DemoPlaces;
use super::report;
use super::screen::DemoScreen;
use super::tally::Tally;
use crate::cli::change::patch;
use crate::cli::stats_port::StatsPort;

/// How long health checks may take to notice something. It takes them about a second.
const NOTICE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether they have.
const NOTICE_POLL: Duration = Duration::from_millis(20);
/// How long the admin interface may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// One step.
pub(super) struct DemoStep {
    pub(super) name: &'static str,
    /// What it means, in plain words.
    pub(super) meaning: &'static str,
    act: DemoAct,
    /// What health checks are to notice: this backend, up or down.
    expects: Option<(&'static str, bool)>,
    /// How long it is looked at afterwards.
    holds: Duration,
}

/// What a step does.
#[derive(Clone, Copy)]
enum DemoAct {
    Nothing,
    Switch(&'static str, BackendMode),
    State(&'static str, AdminState),
    /// Writes a weight into the configuration file, and reloads.
    Reload(&'static str, u32),
}

/// All steps, in their order.
pub(super) const STEPS: [DemoStep; 8] = [
    DemoStep {
        name: "all are in service",
        meaning: "Round robin by weight: heavy, with weight 2, gets half of all; quick and slow a quarter each.",
        act: DemoAct::Nothing,
        expects: None,
        holds: Duration::from_secs(4),
    },
    DemoStep {
        name: "quick goes away",
        meaning: "As when its process ends: its port refuses connections. A connect that is refused is tried at\n\
                  once with another backend (failover), so clients get their answers. Only what quick was just\n\
                  answering is lost. After 2 failed health checks, every 0.5 s, quick gets no connection at all.",
        act: DemoAct::Switch("quick", BackendMode::Away),
        expects: Some(("quick", false)),
        holds: Duration::from_secs(3),
    },
    DemoStep {
        name: "quick is back",
        meaning: "After 2 health checks that pass, it gets its share again.",
        act: DemoAct::Switch("quick", BackendMode::Serving),
        expects: Some(("quick", true)),
        holds: Duration::from_secs(3),
    },
    DemoStep {
        name: "slow resets connections",
        meaning: "It accepts, and resets instead of answering. The request was sent by then, and a layer-4 balancer\n\
                  must not send it again: it may have had its effect. So these requests fail, until health checks,\n\
                  which are reset too, take slow out.",
        act: DemoAct::Switch("slow", BackendMode::Resetting),
        expects: Some(("slow", false)),
        holds: Duration::from_secs(3),
    },
    DemoStep {
        name: "slow answers again",
        meaning: "After 2 health checks that pass, it gets its share again.",
        act: DemoAct::Switch("slow", BackendMode::Serving),
        expects: Some(("slow", true)),
        holds: Duration::from_secs(2),
    },
    DemoStep {
        name: "heavy is drained",
        meaning: "As before its maintenance: it gets no new connections, those that are open end by themselves, and\n\
                  health checks go on. No request fails.",
        act: DemoAct::State("heavy", AdminState::Drain),
        expects: None,
        holds: Duration::from_secs(3),
    },
    DemoStep {
        name: "heavy is ready again",
        meaning: "It gets its share again at once, as its health checks went on.",
        act: DemoAct::State("heavy", AdminState::Ready),
        expects: None,
        holds: Duration::from_secs(2),
    },
    DemoStep {
        name: "a reload: quick has weight 3",
        meaning: "The configuration file has changed and is applied. Connections, counters and health are kept; only\n\
                  the shares change: quick gets a half, heavy a third, slow a sixth.",
        act: DemoAct::Reload("quick", 3),
        expects: None,
        holds: Duration::from_secs(4),
    },
];

/// What comes after the last step.
pub(super) const REST: &str = "the rest of the time";

/// How long all steps take, if health checks take a second.
pub(super) fn duration() -> Duration {
    STEPS.iter().map(|step| step.holds + Duration::from_secs(u64::from(step.expects.is_some()))).sum()
}

/// What the steps are done with.
pub(super) struct Script<'d> {
    pub(super) places: &'d DemoPlaces,
    pub(super) modes: &'d BackendModes,
    pub(super) plane: Arc<DataPlane>,
    pub(super) tally: &'d Tally,
    pub(super) screen: &'d DemoScreen,
    pub(super) started: Instant,
}

impl Script<'_> {
    /// Plays all steps, one after the other.
    ///
    /// # Errors
    /// stdout has no reader.
    pub(super) async fn play(&self) -> io::Result<()> {
        let port = StatsPort::of_socket(self.places.admin.clone());
        for step in &STEPS {
            self.tally.begin(step.name, Instant::now());
            let by_hand = step.act.by_hand(self.places);
            self.screen.print(report::step(self.started.elapsed(), step.name, step.meaning, &by_hand)).await?;
            if let Err(why) = self.carry_out(step.act, &port).await {
                self.screen.event(report::event(self.started.elapsed(), &format!("this did not work: {why}"))).await?;
            }
            if let Some((name, is_up)) = step.expects {
                self.expect(name, is_up).await?;
            }
            sleep(step.holds).await;
        }
        self.tally.begin(REST, Instant::now());
        self.screen.print(report::rest(self.started.elapsed(), REST)).await
    }

    /// # Errors
    /// What the user may have made impossible: a backend that was removed, a file that was changed.
    async fn carry_out(&self, act: DemoAct, port: &StatsPort) -> Result<(), String> {
        match act {
            DemoAct::Nothing => {}
            DemoAct::Switch(name, mode) => {
                self.modes.set(name, mode);
            }
            DemoAct::State(name, state) => {
                patch(port, POOL, name, &json!({ "state": state })).await?;
            }
            DemoAct::Reload(name, weight) => {
                let path = &self.places.config;
                let failed = |error: io::Error| format!("{}: {error}", path.display());
                let text = fs::read_to_string(path).map_err(failed)?;
                let changed = with_weight(&text, name, weight)
                    .ok_or_else(|| format!("{} has no line with {name} and its weight any more", path.display()))?;
                fs::write(path, changed).map_err(failed)?;
                let reload = port.call(&Method::POST, "/api/reload", None, CALL_LIMIT);
                reload.await.map_err(|refused| refused.message)?;
            }
        }
        Ok(())
    }

    /// Waits until health checks have noticed, and remembers how long that took.
    async fn expect(&self, name: &str, is_up: bool) -> io::Result<()> {
        let begin = Instant::now();
        let noticed = async {
            while backend(&self.plane, name).is_some_and(|backend| backend.is_up() != is_up) {
                sleep(NOTICE_POLL).await;
            }
        };
        if timeout(NOTICE_LIMIT, noticed).await.is_ok() {
            self.tally.noticed(begin.elapsed());
            return Ok(());
        }
        let what = format!("health checks have not noticed within {} s", NOTICE_LIMIT.as_secs());
        self.screen.event(report::event(self.started.elapsed(), &what)).await
    }
}

impl DemoAct {
    /// The command by which a user does the same; empty for nothing.
    fn by_hand(self, places: &DemoPlaces) -> String {
        match self {
            DemoAct::Nothing => String::new(),
            DemoAct::Switch(name, mode) => {
                let verb = match mode {
                    BackendMode::Away => "stop",
                    BackendMode::Serving => "start",
                    BackendMode::Resetting => "reset",
                };
                places.switch(name, verb)
            }
            DemoAct::State(name, state) => places.patch(name, &json!({ "state": state }).to_string()),
            DemoAct::Reload(..) => places.call("POST", "/api/reload", ""),
        }
    }
}

/// The configuration with another weight in the line of this backend.
fn with_weight(text: &str, name: &str, weight: u32) -> Option<String> {
    let is_its = |line: &str| line.contains(&format!("name: {name},"));
    let before = text.lines().find(|line| is_its(line) && line.contains("weight: "))?;
    let (start, rest) = before.split_once("weight: ")?;
    let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let after = format!("{start}weight: {weight}{}", &rest[digits..]);
    Some(text.replacen(before, &after, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_weight_of_one_line_changes() {
        let text = "a\n - { name: quick, weight: 12 }\n - { name: slow, weight: 1 }\n";
        let changed = "a\n - { name: quick, weight: 3 }\n - { name: slow, weight: 1 }\n";
        assert_eq!(with_weight(text, "quick", 3).as_deref(), Some(changed));
        assert_eq!(with_weight(text, "heavy", 3), None);
        assert_eq!(with_weight(" - { name: quick, address: a }", "quick", 3), None);
    }

    #[test]
    fn steps_leave_all_backends_as_they_were() {
        let (mut modes, mut states) = (Vec::new(), Vec::new());
        for step in &STEPS {
            match step.act {
                DemoAct::Switch(name, mode) => modes.push((name, mode)),
                DemoAct::State(name, state) => states.push((name, state)),
                DemoAct::Nothing | DemoAct::Reload(..) => {}
            }
        }
        let last = |name: &str| modes.iter().rfind(|(known, _)| *known == name).map(|(_, mode)| *mode);
        assert_eq!((last("quick"), last("slow")), (Some(BackendMode::Serving), Some(BackendMode::Serving)));
        assert_eq!(states.last(), Some(&("heavy", AdminState::Ready)));
        assert!(duration() < Duration::from_secs(40));
    }
}
