//! The order in which tasks that are ready run.

use std::collections::VecDeque;

/// So many tasks that move little run in a turn of the loop for each one that moves much, once there are so many.
/// One that moves much costs about as much as eight that move little: it keeps a fifth of the time.
const SHARE: usize = 32;

/// How much a task moves when it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// A message at a time: it runs in the coming turn of the loop.
    #[default]
    Light,
    /// As much as a turn allows. Of these, one runs in a turn of the loop, after the light ones, so that a small
    /// message waits for one of them and not for all.
    Heavy,
}

/// Tasks that are ready, each in here once.
#[derive(Debug)]
pub(super) struct Turns<T> {
    light: VecDeque<T>,
    heavy: VecDeque<T>,
    /// Of this turn of the loop.
    light_left: usize,
    heavy_left: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { light: VecDeque::new(), heavy: VecDeque::new(), light_left: 0, heavy_left: 0 }
    }
}

impl<T> Turns<T> {
    pub(super) fn push(&mut self, task: T, weight: Weight) {
        match weight {
            Weight::Light => self.light.push_back(task),
            Weight::Heavy => self.heavy.push_back(task),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.light.is_empty() && self.heavy.is_empty()
    }

    /// Begins a turn of the loop: what is pushed from now on runs in the next one.
    pub(super) fn begin(&mut self) {
        self.light_left = self.light.len();
        self.heavy_left = self.heavy.len().min(1 + self.light_left / SHARE);
    }

    /// The next task of this turn of the loop.
    pub(super) fn next(&mut self) -> Option<T> {
        if let Some(left) = self.light_left.checked_sub(1) {
            self.light_left = left;
            return self.light.pop_front();
        }
        self.heavy_left = self.heavy_left.checked_sub(1)?;
        self.heavy.pop_front()
    }

    pub(super) fn clear(&mut self) {
        *self = Turns::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(turns: &mut Turns<&'static str>) -> Vec<&'static str> {
        turns.begin();
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn those_that_move_much_come_last_and_one_at_a_time() {
        let mut turns = Turns::default();
        for name in ["A", "B", "C"] {
            turns.push(name, Weight::Heavy);
        }
        turns.push("a", Weight::Light);
        turns.push("b", Weight::Light);
        assert_eq!(turn(&mut turns), ["a", "b", "A"]);
        turns.push("c", Weight::Light);
        turns.push("A", Weight::Heavy);
        assert_eq!(turn(&mut turns), ["c", "B"]);
        assert_eq!(turn(&mut turns), ["C"]);
        assert_eq!(turn(&mut turns), ["A"]);
        assert!(turns.is_empty());
        assert_eq!(turn(&mut turns), [""; 0]);
    }

    #[test]
    fn what_becomes_ready_meanwhile_waits_for_the_next_turn() {
        let mut turns = Turns::default();
        turns.push("a", Weight::Light);
        turns.push("A", Weight::Heavy);
        turns.begin();
        assert_eq!(turns.next(), Some("a"));
        turns.push("a", Weight::Light);
        assert_eq!(turns.next(), Some("A"));
        turns.push("A", Weight::Heavy);
        assert_eq!(turns.next(), None);
        assert_eq!(turn(&mut turns), ["a", "A"]);
    }

    #[test]
    fn many_small_ones_do_not_starve_the_others() {
        let mut turns = Turns::default();
        for _ in 0..3 * SHARE {
            turns.push("a", Weight::Light);
        }
        for name in ["A", "B", "C", "D", "E"] {
            turns.push(name, Weight::Heavy);
        }
        assert_eq!(turn(&mut turns)[3 * SHARE..], ["A", "B", "C", "D"]);
    }
}
