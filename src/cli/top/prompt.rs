//! Changes of the selected backend: which one is meant, and what the bottom line asks first. Pure.

use ratatui::crossterm::event::KeyCode;
use serde_json::{Value, json};
use tidegate::admin::snapshot_model::{BackendStatus, Snapshot};
use tidegate::config::model::AdminState;
use tidegate::control::edit::MAX_WEIGHT;

use super::rows::Row;

/// What would be changed: an entry of `pools[].backends`, with all its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChangeTarget {
    pub(super) pool: String,
    pub(super) entry: String,
    /// Rows that change together.
    pub(super) addresses: usize,
    /// Connections that they have.
    pub(super) open: u64,
    pub(super) weight: u32,
}

/// A change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendChange {
    State(AdminState),
    Weight(u32),
}

/// What the bottom line asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    /// Which change.
    Which(ChangeTarget),
    /// Which weight; the digits so far.
    Weight(ChangeTarget, String),
    /// Whether it is meant.
    Sure(ChangeTarget, BackendChange),
}

/// What a key makes of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PromptStep {
    Ask(Prompt),
    Cancel,
    Send(ChangeTarget, BackendChange),
}

impl ChangeTarget {
    /// That of a line; `None` for the line of a pool, and for a backend that was removed.
    pub(super) fn of(row: &Row, snapshot: &Snapshot) -> Option<ChangeTarget> {
        let pool = snapshot.pools.get(row.place.0)?;
        let backend = pool.backends.get(row.place.1?)?;
        if backend.status() == BackendStatus::Leaving {
            return None;
        }
        let entry = backend.entry();
        let all = || pool.backends.iter().filter(|it| it.entry() == entry && it.status() != BackendStatus::Leaving);
        Some(ChangeTarget {
            pool: pool.name.clone(),
            entry: entry.to_owned(),
            addresses: all().count(),
            open: all().map(|it| it.open).sum(),
            weight: backend.weight,
        })
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.pool, self.entry)
    }
}

impl BackendChange {
    /// The body of the call that makes it.
    pub(super) fn body(self) -> Value {
        match self {
            BackendChange::State(state) => json!({ "state": state }),
            BackendChange::Weight(weight) => json!({ "weight": weight }),
        }
    }
}

impl Prompt {
    /// A key was pressed.
    pub(super) fn press(self, key: KeyCode) -> PromptStep {
        let is_no = matches!(key, KeyCode::Esc | KeyCode::Char('q'));
        match self {
            Prompt::Which(_) | Prompt::Weight(..) if is_no => PromptStep::Cancel,
            Prompt::Which(target) => match key {
                KeyCode::Char('d') => Prompt::Sure(target, BackendChange::State(AdminState::Drain)).ask(),
                KeyCode::Char('r') => Prompt::Sure(target, BackendChange::State(AdminState::Ready)).ask(),
                KeyCode::Char('m') => Prompt::Sure(target, BackendChange::State(AdminState::Maintenance)).ask(),
                KeyCode::Char('w') => Prompt::Weight(target, String::new()).ask(),
                _ => Prompt::Which(target).ask(),
            },
            Prompt::Weight(target, mut digits) => {
                match key {
                    KeyCode::Enter => {
                        if let Ok(weight) = digits.parse() {
                            return Prompt::Sure(target, BackendChange::Weight(weight)).ask();
                        }
                    }
                    KeyCode::Backspace => _ = digits.pop(),
                    KeyCode::Char(digit @ '0'..='9') => {
                        digits.push(digit);
                        // A digit that makes it too large is not taken.
                        if digits.parse::<u32>().map_or(true, |weight| weight > MAX_WEIGHT) {
                            digits.pop();
                        }
                    }
                    _ => {}
                }
                Prompt::Weight(target, digits).ask()
            }
            Prompt::Sure(target, change) => match key {
                KeyCode::Char('y' | 'Y') => PromptStep::Send(target, change),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => PromptStep::Cancel,
                _ => Prompt::Sure(target, change).ask(),
            },
        }
    }

    fn ask(self) -> PromptStep {
        PromptStep::Ask(self)
    }

    /// As it is in the bottom line. What must be seen comes first: the line may be cut.
    pub(super) fn text(&self) -> String {
        match self {
            Prompt::Which(target) => {
                format!("{}:  d drain   r ready   m maintenance   w weight   Esc back", target.name())
            }
            Prompt::Weight(target, digits) => format!(
                "weight of {}, now {} (0 to {MAX_WEIGHT}): {digits}_   Enter done   Esc back",
                target.name(),
                target.weight
            ),
            Prompt::Sure(target, change) => {
                let what = match change {
                    BackendChange::State(AdminState::Drain) => format!("drain {}", target.name()),
                    BackendChange::State(AdminState::Ready) => format!("make {} ready", target.name()),
                    BackendChange::State(AdminState::Maintenance) => format!("put {} into maintenance", target.name()),
                    BackendChange::Weight(weight) => format!("weight {weight} for {}", target.name()),
                };
                let addresses = match target.addresses {
                    0 | 1 => String::new(),
                    addresses => format!(" ({addresses} addresses)"),
                };
                let open = match target.open {
                    0 => "no open connections".to_owned(),
                    1 => "its open connection stays".to_owned(),
                    open => format!("its {open} open connections stay"),
                };
                format!("{what}{addresses}? y/n   {open}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> ChangeTarget {
        ChangeTarget { pool: "db".to_owned(), entry: "db-1".to_owned(), addresses: 1, open: 3, weight: 5 }
    }

    /// Presses keys, all of which but the last go on asking.
    fn pressed(keys: &[KeyCode]) -> PromptStep {
        keys.iter().fold(PromptStep::Ask(Prompt::Which(target())), |step, key| match step {
            PromptStep::Ask(prompt) => prompt.press(*key),
            ended => panic!("{ended:?} before {key:?}"),
        })
    }

    fn typed(keys: &str) -> PromptStep {
        pressed(&keys.chars().map(KeyCode::Char).collect::<Vec<_>>())
    }

    fn asked(step: PromptStep) -> String {
        match step {
            PromptStep::Ask(prompt) => prompt.text(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_change_is_sent_after_a_yes_only() {
        let states = [('d', AdminState::Drain), ('r', AdminState::Ready), ('m', AdminState::Maintenance)];
        for (key, state) in states {
            let change = BackendChange::State(state);
            assert_eq!(typed(&format!("{key}")), PromptStep::Ask(Prompt::Sure(target(), change)));
            assert_eq!(typed(&format!("{key}xd y")), PromptStep::Send(target(), change), "other keys are no answer");
            for no in ["n", "q"] {
                assert_eq!(typed(&format!("{key}{no}")), PromptStep::Cancel);
            }
            assert_eq!(pressed(&[KeyCode::Char(key), KeyCode::Enter]), typed(&format!("{key}")), "Enter is no yes");
            assert_eq!(pressed(&[KeyCode::Char(key), KeyCode::Esc]), PromptStep::Cancel);
            assert_eq!(change.body(), json!({ "state": state.name() }));
        }
        assert_eq!(typed("q"), PromptStep::Cancel);
    }

    #[test]
    fn weight_is_typed_within_its_bounds() {
        let keys = |text: &str| text.chars().map(KeyCode::Char).collect::<Vec<_>>();
        let mut all = keys("w10x005");
        assert_eq!(asked(pressed(&all)), "weight of db/db-1, now 5 (0 to 1000): 1000_   Enter done   Esc back");
        all.extend([KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!(asked(pressed(&all)), "weight 100 for db/db-1? y/n   its 3 open connections stay");
        all.push(KeyCode::Char('y'));
        assert_eq!(pressed(&all), PromptStep::Send(target(), BackendChange::Weight(100)));
        assert_eq!(BackendChange::Weight(100).body(), json!({ "weight": 100 }));
        let nothing = pressed(&[KeyCode::Char('w'), KeyCode::Enter]);
        assert_eq!(nothing, PromptStep::Ask(Prompt::Weight(target(), String::new())), "no weight is none");
    }

    #[test]
    fn questions_say_what_will_happen() {
        let ask = |addresses, open, state| {
            Prompt::Sure(ChangeTarget { addresses, open, ..target() }, BackendChange::State(state)).text()
        };
        assert_eq!(ask(1, 0, AdminState::Drain), "drain db/db-1? y/n   no open connections");
        assert_eq!(ask(1, 1, AdminState::Ready), "make db/db-1 ready? y/n   its open connection stays");
        assert_eq!(
            ask(3, 7, AdminState::Maintenance),
            "put db/db-1 into maintenance (3 addresses)? y/n   its 7 open connections stay"
        );
    }
}
