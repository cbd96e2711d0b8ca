//! A hierarchical timer wheel: insert, cancel and expire in constant time, however many connections wait.
//!
//! The scheme is that of Varghese and Lauck (SOSP 1987), "hierarchical timing wheels": level 0 has a slot
//! for each of the next 64 ticks, level 1 one for each of the next 64 groups of 64 ticks, and so on. When
//! the wheel comes to a slot of a higher level, its timers move down. Time is a number of ticks that the
//! caller counts: the wheel reads no clock.

use slab::Slab;

/// Slots of a level; a bit for each in `Level::occupied`.
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
/// 64^6 ticks are 2.2 years of milliseconds. Later deadlines wait in the last slot, and are linked again from there.
const LEVELS: usize = 6;
const NONE: u32 = u32::MAX;

/// Deadlines, each with a value that is returned when it has passed.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    /// The tick up to which all timers have been expired.
    now: u64,
    levels: [Level; LEVELS],
    entries: Slab<Entry<T>>,
}

#[derive(Debug)]
struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    next: u32,
    previous: u32,
    level: u8,
    slot: u8,
    value: T,
}

/// A timer that has been inserted and has neither expired nor been cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u32);

impl<T> Wheel<T> {
    pub(crate) fn new(now: u64) -> Wheel<T> {
        let levels = std::array::from_fn(|_| Level { occupied: 0, heads: [NONE; SLOTS] });
        Wheel { now, levels, entries: Slab::new() }
    }

    /// Adds a timer that expires once the wheel is advanced to `deadline` or beyond. One that has passed
    /// already expires at the next tick.
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> Key {
        let deadline = deadline.max(self.now + 1);
        // A slab of more than 2^32 timers would need 200 GB first.
        let key = self.entries.insert(Entry { deadline, next: NONE, previous: NONE, level: 0, slot: 0, value }) as u32;
        self.link(key);
        Key(key)
    }

    /// Takes a timer out before it expires.
    pub(crate) fn cancel(&mut self, key: Key) -> T {
        self.unlink(key.0);
        self.entries.remove(key.0 as usize).value
    }

    /// No timer expires before this tick. It may be early (when a slot of a higher level has to be spread
    /// out first), never late. `None`: there are no timers.
    pub(crate) fn next(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_in(level)).min()
    }

    /// Moves time on to `now` and returns an expired timer, or `None` when there is none left: call it
    /// until then. Timers expire in the order of their ticks.
    pub(crate) fn expire(&mut self, now: u64) -> Option<T> {
        loop {
            let due = self.next().filter(|&tick| tick <= now);
            let Some(tick) = due else {
                self.now = self.now.max(now);
                return None;
            };
            // Time stays one behind the tick until its level 0 slot is empty.
            self.now = tick - 1;
            for level in (1..LEVELS).rev() {
                if self.next_in(level) == Some(tick) {
                    self.cascade(level, tick);
                }
            }
            let head = self.levels[0].heads[slot_of(tick, 0)];
            if head != NONE && self.entries[head as usize].deadline == tick {
                self.unlink(head);
                return Some(self.entries.remove(head as usize).value);
            }
            self.now = tick;
        }
    }

    /// The first tick at which an occupied slot of this level is reached.
    fn next_in(&self, level: usize) -> Option<u64> {
        let occupied = self.levels[level].occupied;
        if occupied == 0 {
            return None;
        }
        // Slots are counted from the one that the next tick lies in, or, on higher levels, begins: a slot
        // of a higher level whose beginning has passed has been spread out already, so it is a lap away.
        let shift = SLOT_BITS * level as u32;
        let first = (self.now >> shift) + 1;
        let ahead = occupied.rotate_right((first % SLOTS as u64) as u32).trailing_zeros();
        Some((first + u64::from(ahead)) << shift)
    }

    fn link(&mut self, key: u32) {
        let deadline = self.entries[key as usize].deadline;
        // Linked relative to the tick before the deadline's earliest expiry; see next_in for the lap rule.
        let mut level = 0;
        while level < LEVELS - 1 {
            let shift = SLOT_BITS * level as u32;
            if (deadline >> shift) - (self.now >> shift) <= SLOTS as u64 {
                break;
            }
            level += 1;
        }
        let shift = SLOT_BITS * level as u32;
        let last = (self.now >> shift) + SLOTS as u64;
        let slot = ((deadline >> shift).min(last) % SLOTS as u64) as usize;
        let head = self.levels[level].heads[slot];
        let entry = &mut self.entries[key as usize];
        (entry.level, entry.slot) = (level as u8, slot as u8);
        (entry.previous, entry.next) = (NONE, head);
        if head != NONE {
            self.entries[head as usize].previous = key;
        }
        self.levels[level].heads[slot] = key;
        self.levels[level].occupied |= 1 << slot;
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, previous, level, slot, .. } = self.entries[key as usize];
        let level = &mut self.levels[usize::from(level)];
        if previous == NONE {
            level.heads[usize::from(slot)] = next;
            if next == NONE {
                level.occupied &= !(1 << slot);
            }
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
    }

    /// Spreads the slot that begins at `tick` over the levels below.
    fn cascade(&mut self, level: usize, tick: u64) {
        let slot = slot_of(tick, level);
        let mut key = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
        self.levels[level].occupied &= !(1 << slot);
        while key != NONE {
            let next = self.entries[key as usize].next;
            self.link(key);
            key = next;
        }
    }
}

fn slot_of(tick: u64, level: usize) -> usize {
    ((tick >> (SLOT_BITS * level as u32)) % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum WheelStep {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<WheelStep>> {
        let distance = prop_oneof![0..70u64, 0..5_000u64, 0..400_000u64, 0..1u64 << 40];
        let step = prop_oneof![
            4 => distance.clone().prop_map(WheelStep::Insert),
            1 => any::<prop::sample::Index>().prop_map(|index| WheelStep::Cancel(index.index(1 << 16))),
            3 => distance.prop_map(WheelStep::Advance),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Against a sorted map: the same timers expire, in order, none early and none late.
        #[test]
        fn behaves_like_a_sorted_map(start in 0..1u64 << 41, steps in steps()) {
            let mut wheel = Wheel::new(start);
            let mut model: BTreeMap<u64, (u64, Key)> = BTreeMap::new();
            let mut now = start;
            for (id, step) in steps.into_iter().enumerate() {
                let id = id as u64;
                match step {
                    WheelStep::Insert(distance) => {
                        let key = wheel.insert(now + distance, id);
                        model.insert(id, ((now + distance).max(now + 1), key));
                    }
                    WheelStep::Cancel(index) if !model.is_empty() => {
                        let id = *model.keys().nth(index % model.len()).unwrap();
                        let (_, key) = model.remove(&id).unwrap();
                        prop_assert_eq!(wheel.cancel(key), id);
                    }
                    WheelStep::Cancel(_) => {}
                    WheelStep::Advance(distance) => {
                        now += distance;
                        let mut last = 0;
                        while let Some(id) = wheel.expire(now) {
                            let (deadline, _) = model.remove(&id).unwrap();
                            prop_assert!(deadline <= now && deadline >= last);
                            last = deadline;
                        }
                        prop_assert!(model.values().all(|&(deadline, _)| deadline > now));
                    }
                }
                let earliest = model.values().map(|&(deadline, _)| deadline).min();
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                prop_assert!(wheel.next() <= earliest || earliest.is_none());
                prop_assert!(wheel.next().is_none_or(|tick| tick > now));
            }
        }
    }
}
