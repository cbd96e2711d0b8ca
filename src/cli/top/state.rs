//! What a user has chosen, and what each key changes of it. Pure.

use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tidegate::stats::latency::{Stage, Window};

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
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    Quit,
}

impl Interface {
    pub(super) fn new(choice: Selection) -> Interface {
        Interface { choice, selected: 0, typing: false, helping: false }
    }

    /// A key was pressed; `lines` is their number, `page` the number that fits on the screen.
    pub(super) fn press(&mut self, key: KeyEvent, lines: usize, page: usize) -> Flow {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Flow::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
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

    fn press(interface: &mut Interface, code: KeyCode) -> Flow {
        interface.press(KeyEvent::from(code), 1000, 18)
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
        assert_eq!(typing.press(control_c, 9, 9), Flow::Quit);
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
        all.press(KeyEvent::from(KeyCode::Up), 3, 18);
        assert_eq!(all.selected, 1);
        all.press(KeyEvent::from(KeyCode::Down), 0, 0);
        assert_eq!((all.selected, all.first(0, 0)), (0, 0));
    }
}
