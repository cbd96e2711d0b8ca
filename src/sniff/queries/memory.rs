//! The statements of prepared ones, by what names them.

#![forbid(unsafe_code)]

use crate::stats::queries::StatementKind;

/// A bounded memory of statements. Of more than it holds, the oldest are forgotten.
#[derive(Debug)]
pub(super) struct StatementMemory<const MOST: usize> {
    /// Beside the statements, so that looking for one reads few lines of the cache.
    names: Vec<u32>,
    statements: Vec<StatementKind>,
    /// Where the next one goes, once it is full.
    oldest: usize,
}

impl<const MOST: usize> Default for StatementMemory<MOST> {
    fn default() -> StatementMemory<MOST> {
        StatementMemory { names: Vec::new(), statements: Vec::new(), oldest: 0 }
    }
}

impl<const MOST: usize> StatementMemory<MOST> {
    /// What is known by this name from now on.
    pub(super) fn insert(&mut self, name: u32, statement: StatementKind) {
        let place = match self.place(name) {
            Some(place) => place,
            None if self.names.len() < MOST => {
                self.names.push(name);
                self.statements.push(statement);
                return;
            }
            None => {
                let place = self.oldest;
                self.oldest = (place + 1) % MOST;
                place
            }
        };
        if let (Some(kept), Some(of)) = (self.names.get_mut(place), self.statements.get_mut(place)) {
            (*kept, *of) = (name, statement);
        }
    }

    /// The other statement, where it is not known.
    pub(super) fn get(&self, name: u32) -> StatementKind {
        let statement = self.place(name).and_then(|place| self.statements.get(place));
        statement.copied().unwrap_or(StatementKind::OTHER)
    }

    /// There is none of this name any more.
    pub(super) fn remove(&mut self, name: u32) {
        let Some(place) = self.place(name) else { return };
        self.names.swap_remove(place);
        self.statements.swap_remove(place);
        if self.names.is_empty() {
            *self = StatementMemory::default();
        }
    }

    fn place(&self, name: u32) -> Option<usize> {
        self.names.iter().position(|known| *known == name)
    }
}

/// A hash of a name, over its bytes as they come (FNV-1a). Names with equal hashes are taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameHash(u32);

impl NameHash {
    /// Of the empty name.
    pub(super) const EMPTY: NameHash = NameHash(0x811c_9dc5);

    /// Takes bytes up to a NUL, which it returns the end of.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            if *byte == 0 {
                return Some(at + 1);
            }
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
        None
    }

    pub(super) fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::queries::QueryProtocol;

    #[test]
    fn memory_keeps_the_newest() {
        let [select, insert] = ["SELECT", "INSERT"].map(|word| QueryProtocol::Postgres.statement(word.as_bytes()));
        let mut memory = StatementMemory::<4>::default();
        (0..6).for_each(|name| memory.insert(name, select));
        memory.insert(5, insert);
        let known: Vec<_> = (0..7).map(|name| memory.get(name)).collect();
        let other = StatementKind::OTHER;
        assert_eq!(known, [other, other, select, select, select, insert, other]);
        memory.remove(2);
        memory.insert(7, insert);
        assert_eq!([2, 3, 7].map(|name| memory.get(name)), [other, select, insert]);
        (0..8).for_each(|name| memory.remove(name));
        assert_eq!(memory.names.capacity(), 0);
    }
}
