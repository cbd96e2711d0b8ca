//! The last things that happened: bounded, so that a flood of them pushes out what came before and nothing else.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The last of what happened, the oldest first.
#[derive(Debug)]
pub struct RecentEvents<T> {
    most: usize,
    entries: Mutex<VecDeque<(SystemTime, T)>>,
}

impl<T: Clone> RecentEvents<T> {
    /// Keeps `most` entries.
    pub fn new(most: usize) -> RecentEvents<T> {
        RecentEvents { most, entries: Mutex::default() }
    }

    /// It happened now.
    pub fn add(&self, entry: T) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        while entries.len() >= self.most && entries.pop_front().is_some() {}
        entries.push_back((SystemTime::now(), entry));
    }

    /// What is kept, the oldest first.
    pub fn entries(&self) -> Vec<(SystemTime, T)> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let journal = RecentEvents::new(3);
        (0..10).for_each(|number| journal.add(number));
        let kept: Vec<i32> = journal.entries().into_iter().map(|(_, number)| number).collect();
        assert_eq!(kept, [7, 8, 9]);
    }
}
