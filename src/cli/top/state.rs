//! What a user has chosen, and what each key changes of it. Pure.

use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tidegate::config::model::AdminState;
use tidegate::stats::latency::{Stage, Window};

use super::prompt::{BackendChange, ChangeTarget, Prompt, PromptStep};
use super::rows::{Selection, Sort};

/// Letters that a filter may have.
const LONGEST_FILTER: usize = 64;

/// The state of the user interface.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Interface {
    pub(super) choice: Selection,
    /// The line that details are shown of.
    pub(super) selected: usize,
    /// Keys go into the filter.
    pub(super) typing: bool,
    /// The keys are explained.
    pub(super) helping: bool,
    /// What is asked before a change.
    pub(super) prompt: Option<Prompt>,
    /// A change is under way.
    pub(super) changing: bool,
    /// What came of the last change, until the next key.
    pub(super) told: Option<Told>,
}

/// What the bottom line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Done(String),
    Failed(String),
}

/// What is on the screen when a key is pressed.
#[derive(Clone, Debug, Default)]
pub(super) struct Screenful {
    /// Lines of the table.
    pub(super) lines: usize,
    /// How many of them fit on the screen.
    pub(super) page: usize,
    /// What a change would be of: the selected line, if that is a backend.
    pub(super) target: Option<ChangeTarget>,
}

/// Whether to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    Quit,
    /// Goes on, and makes a change.
    Change(ChangeTarget, BackendChange),
}

impl Interface {
    pub(super) fn new(choice: Selection) -> Interface {
        Interface { choice, selected: 0, typing: false, helping: false, prompt: None, changing: false, told: None }
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent, shown: &Screenful) -> Flow {
        let (lines, page) = (shown.lines, shown.page);
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Flow::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
            return Flow::GoOn;
        }
        self.told = None;
        if let Some(prompt) = self.prompt.take() {
            match prompt.press(key.code) {
                PromptStep::Ask(prompt) => self.prompt = Some(prompt),
                PromptStep::Cancel => {}
                PromptStep::Send(target, change) => {
                    self.changing = true;
                    return Flow::Change(target, change);
                }
            }
            return Flow::GoOn;
        }
        if self.helping {
            self.helping = false;
            let closes = matches!(key.code, KeyCode::Esc | KeyCode::Char('q' | '?' | 'h') | KeyCode::Enter);
            if closes {
                return Flow::GoOn;
            }
        }
        let last = lines.saturating_sub(1);
        // Lines may have gone since.
        self.selected = self.selected.min(last);
        let choice = &mut self.choice;
        match key.code {
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc if choice.filter.is_empty() => return Flow::Quit,
            KeyCode::Esc => choice.filter.clear(),
            KeyCode::Char('?' | 'h') => self.helping = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Enter => self.ask(shown, Prompt::Which),
            KeyCode::Char('d') => self.ask(shown, |it| Prompt::Sure(it, BackendChange::State(AdminState::Drain))),
            KeyCode::Char('m') => self.ask(shown, |it| Prompt::Sure(it, BackendChange::State(AdminState::Maintenance))),
            KeyCode::Char('s') | KeyCode::Right => choice.sort = step(Sort::value_variants(), choice.sort, 1),
            KeyCode::Char('S') | KeyCode::Left => choice.sort = step(Sort::value_variants(), choice.sort, -1),
            KeyCode::Char('r') => choice.reversed = !choice.reversed,
            KeyCode::Char('t') => choice.stage = step(&Stage::ALL, choice.stage, 1),
            KeyCode::Char('T') => choice.stage = step(&Stage::ALL, choice.stage, -1),
            KeyCode::Char('w') => choice.window = step(&Window::ALL, choice.window, 1),
            KeyCode::Char('W') => choice.window = step(&Window::ALL, choice.window, -1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.selected = (self.selected + page.max(1)).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(page.max(1)),
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.selected = last,
            _ => {}
        }
        Flow::GoOn
    }

    /// Asks before a change of the selected backend.
    fn ask(&mut self, shown: &Screenful, prompt: impl FnOnce(ChangeTarget) -> Prompt) {
        match &shown.target {
            _ if self.changing => self.told = Some(Told::Failed("the last change is still under way".to_owned())),
            Some(target) => self.prompt = Some(prompt(target.clone())),
            None => self.told = Some(Told::Failed("select a backend: up, down".to_owned())),
        }
    }

    /// A change has ended.
    pub(super) fn changed(&mut self, outcome: Told) {
        self.changing = false;
        self.told = Some(outcome);
    }

    fn type_filter(&mut self, code: KeyCode) {
        let filter = &mut self.choice.filter;
        self.selected = 0;
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                filter.clear();
                self.typing = false;
            }
            KeyCode::Backspace => _ = filter.pop(),
            KeyCode::Char(letter) if !letter.is_control() && filter.chars().count() < LONGEST_FILTER => {
                filter.push(letter);
            }
            _ => {}
        }
    }

    /// The first line of `lines` that is seen on a page of this height: the selected one is in the middle, as far as there
    /// are lines before and after it.
    pub(super) fn first(&self, lines: usize, page: usize) -> usize {
        let selected = self.selected.min(lines.saturating_sub(1));
        selected.saturating_sub(page / 2).min(lines.saturating_sub(page))
    }
}

/// The next of all, or the one before, going round.
fn step<T: Copy + PartialEq>(all: &[T], now: T, by: isize) -> T {
    let place = all.iter().position(|one| *one == now).unwrap_or_default();
    let next = (place as isize + by).rem_euclid(all.len().max(1) as isize);
    all.get(next as usize).copied().unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> Interface {
        Interface::new(Selection {
            sort: Sort::Config,
            reversed: false,
            stage: Stage::Turnaround,
            window: Window::TenSeconds,
            filter: String::new(),
        })
    }

    fn shown(lines: usize, page: usize) -> Screenful {
        Screenful { lines, page, target: None }
    }

    fn press(interface: &mut Interface, code: KeyCode) -> Flow {
        interface.press(KeyEvent::from(code), &shown(1000, 18))
    }

    fn letters(interface: &mut Interface, text: &str) {
        text.chars().for_each(|letter| assert_eq!(press(interface, KeyCode::Char(letter)), Flow::GoOn));
    }

    #[test]
    fn keys_that_end_it() {
        assert_eq!(press(&mut interface(), KeyCode::Char('q')), Flow::Quit);
        assert_eq!(press(&mut interface(), KeyCode::Esc), Flow::Quit);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        let mut typing = interface();
        letters(&mut typing, "/q");
        assert_eq!(typing.choice.filter, "q");
        assert_eq!(typing.press(control_c, &shown(9, 9)), Flow::Quit);
        assert_eq!(press(&mut interface(), KeyCode::Char('c')), Flow::GoOn);
    }

    #[test]
    fn each_key_changes_what_it_is_for() {
        let mut all = interface();
        letters(&mut all, "srtw");
        assert_eq!((all.choice.sort, all.choice.reversed), (Sort::Name, true));
        assert_eq!((all.choice.stage, all.choice.window), (Stage::Session, Window::Minute));
        letters(&mut all, "SrTW");
        assert_eq!(all, interface());
        press(&mut all, KeyCode::Left);
        assert_eq!(all.choice.sort, Sort::Max, "round and round");
        press(&mut all, KeyCode::Right);
        assert_eq!(all, interface());
    }

    #[test]
    fn a_filter_is_typed() {
        let mut all = interface();
        all.selected = 7;
        letters(&mut all, "/dbx");
        press(&mut all, KeyCode::Backspace);
        press(&mut all, KeyCode::Enter);
        assert_eq!((all.choice.filter.as_str(), all.typing, all.selected), ("db", false, 0));
        letters(&mut all, "s");
        assert_eq!((all.choice.filter.as_str(), all.choice.sort), ("db", Sort::Name), "keys are keys again");
        assert_eq!(press(&mut all, KeyCode::Esc), Flow::GoOn, "it takes the filter away first");
        assert_eq!(all.choice.filter, "");
        letters(&mut all, "/");
        letters(&mut all, &"x".repeat(500));
        assert_eq!(all.choice.filter.len(), LONGEST_FILTER);
    }

    #[test]
    fn changes_of_a_backend_are_asked_about() {
        let target = ChangeTarget { pool: "db".to_owned(), entry: "b".to_owned(), addresses: 1, open: 0, weight: 1 };
        let shown = Screenful { target: Some(target.clone()), ..shown(5, 18) };
        let mut all = interface();
        let key = |all: &mut Interface, code| all.press(KeyEvent::from(code), &shown);
        let drain = BackendChange::State(AdminState::Drain);
        for keys in [&[KeyCode::Char('d')][..], &[KeyCode::Enter, KeyCode::Char('d')]] {
            keys.iter().for_each(|code| assert_eq!(key(&mut all, *code), Flow::GoOn));
            assert_eq!(all.prompt, Some(Prompt::Sure(target.clone(), drain)));
            assert_eq!(key(&mut all, KeyCode::Char('n')), Flow::GoOn);
            assert_eq!(all, interface(), "no is no");
        }
        // Keys that are taken keep their meaning; after Enter they are changes.
        key(&mut all, KeyCode::Char('r'));
        assert!(all.choice.reversed && all.prompt.is_none());
        for code in [KeyCode::Enter, KeyCode::Char('r')] {
            key(&mut all, code);
        }
        assert!(all.choice.reversed && all.prompt.is_some());
        let ready = BackendChange::State(AdminState::Ready);
        assert_eq!(key(&mut all, KeyCode::Char('y')), Flow::Change(target.clone(), ready));
        key(&mut all, KeyCode::Char('m'));
        assert_eq!((&all.prompt, all.changing), (&None, true), "one after the other");
        all.changed(Told::Done("fine".to_owned()));
        assert_eq!(all.told, Some(Told::Done("fine".to_owned())));
        key(&mut all, KeyCode::Char('m'));
        assert!(all.told.is_none() && all.prompt.is_some());
        // With a question open, a letter is an answer and no end.
        assert_eq!(key(&mut all, KeyCode::Char('q')), Flow::GoOn);
    }

    #[test]
    fn without_a_backend_nothing_is_asked() {
        let mut all = interface();
        for code in [KeyCode::Char('d'), KeyCode::Char('m'), KeyCode::Enter] {
            assert_eq!(press(&mut all, code), Flow::GoOn);
            assert!(all.prompt.is_none() && matches!(all.told, Some(Told::Failed(_))), "{code:?}");
        }
    }

    #[test]
    fn help_goes_by_any_key() {
        let mut all = interface();
        letters(&mut all, "?");
        assert!(all.helping);
        assert_eq!(press(&mut all, KeyCode::Char('q')), Flow::GoOn);
        assert_eq!(all, interface());
    }

    #[test]
    fn a_thousand_lines_are_walked_through() {
        let mut all = interface();
        press(&mut all, KeyCode::Up);
        assert_eq!((all.selected, all.first(1000, 18)), (0, 0));
        press(&mut all, KeyCode::End);
        assert_eq!((all.selected, all.first(1000, 18)), (999, 982));
        press(&mut all, KeyCode::Down);
        press(&mut all, KeyCode::PageUp);
        assert_eq!((all.selected, all.first(1000, 18)), (981, 972));
        // Most of them are filtered away.
        assert_eq!(all.first(3, 18), 0);
        all.press(KeyEvent::from(KeyCode::Up), &shown(3, 18));
        assert_eq!(all.selected, 1);
        all.press(KeyEvent::from(KeyCode::Down), &shown(0, 0));
        assert_eq!((all.selected, all.first(0, 0)), (0, 0));
    }
}
