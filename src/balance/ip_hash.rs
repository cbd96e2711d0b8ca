//! Consistent placement: the same client goes to the same backend, on every instance, whatever the order in
//! which backends are listed; when one of N goes away, about 1/N of the clients move, and all of
//! them come back with it.
//!
//! The table is that of Maglev (Eisenbud et al., "Maglev: a fast and reliable software network load balancer",
//! NSDI 2016, section 3.4): each backend has its own permutation of the table's slots, and they take
//! turns in claiming the next slot of theirs that is vacant. A backend of half the heaviest's weight takes
//! every other turn.

use super::candidate::{Candidate, Live};
use super::sampling::{REDRAWS, redraw, scan};

/// Slots of the table: a prime, so that every step visits every slot; some 65 for each of 1,000 backends, so that
/// shares are within 2 % of even. 256 KiB.
const SLOTS: usize = 65_537;

/// No backend has this slot yet.
const VACANT: u32 = u32::MAX;

/// Who gets which keys.
#[derive(Debug)]
pub struct IpHash {
    slots: Box<[u32]>,
    /// The candidates by identity: what is scanned, so that scanning too is independent of their order.
    by_identity: Box<[u32]>,
}

impl IpHash {
    /// Every candidate gets a slot, as long as there are no more than 65,537 of them.
    pub(super) fn new(candidates: &[Candidate]) -> IpHash {
        let mut order: Vec<u32> = (0..candidates.len() as u32).collect();
        order.sort_by_key(|&index| candidates[index as usize].identity);
        IpHash { slots: fill(candidates, &order), by_identity: order.into() }
    }

    pub(super) fn pick(&self, key: u64, live: &impl Live) -> Option<usize> {
        let at = |key: u64| self.slots.get((key % SLOTS as u64) as usize).map(|&index| index as usize);
        let home = at(key)?;
        if live.can_take(home) {
            return Some(home);
        }
        // The second home of a client is as fixed as its first.
        (1..=REDRAWS).filter_map(|attempt| at(redraw(key, attempt))).find(|&index| live.can_take(index)).or_else(|| {
            let ordered = Ordered { order: &self.by_identity, live };
            let place = scan(self.by_identity.len(), redraw(key, 0), &ordered)?;
            Some(self.by_identity[place] as usize)
        })
    }
}

/// One backend's progress in claiming slots.
struct Claim {
    index: u32,
    weight: u64,
    /// Turns taken, times the heaviest weight: a turn is due when round times weight has reached it.
    due: u64,
    slot: usize,
    step: usize,
}

fn fill(candidates: &[Candidate], order: &[u32]) -> Box<[u32]> {
    let claim = |&index: &u32| {
        let Candidate { identity, weight } = candidates[index as usize];
        Claim {
            index,
            weight: u64::from(weight.max(1)),
            due: 0,
            slot: (redraw(identity, 1) % SLOTS as u64) as usize,
            step: (redraw(identity, 2) % (SLOTS as u64 - 1)) as usize + 1,
        }
    };
    let mut claims: Vec<Claim> = order.iter().map(claim).collect();
    let Some(heaviest) = claims.iter().map(|c| c.weight).max() else {
        return Box::default();
    };

    let mut slots = vec![VACANT; SLOTS].into_boxed_slice();
    let mut vacant = SLOTS;
    for round in 1.. {
        for claim in &mut claims {
            if round * claim.weight < claim.due {
                continue;
            }
            claim.due += heaviest;
            // Ends because a slot is vacant and the permutation visits them all.
            while slots[claim.slot] != VACANT {
                claim.advance();
            }
            slots[claim.slot] = claim.index;
            claim.advance();
            vacant -= 1;
            if vacant == 0 {
                return slots;
            }
        }
    }
    slots
}

impl Claim {
    fn advance(&mut self) {
        self.slot += self.step;
        if self.slot >= SLOTS {
            self.slot -= SLOTS;
        }
    }
}

/// The candidates in another order.
struct Ordered<'a, L> {
    order: &'a [u32],
    live: &'a L,
}

impl<L: Live> Live for Ordered<'_, L> {
    fn connections(&self, index: usize) -> u32 {
        self.live.connections(self.order[index] as usize)
    }

    fn latency_us(&self, index: usize) -> u32 {
        self.live.latency_us(self.order[index] as usize)
    }

    fn can_take(&self, index: usize) -> bool {
        self.live.can_take(self.order[index] as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hash;
    use super::super::testing::{Fixed, candidates, check_pick, check_shares};
    use super::*;

    /// The identity that each of 10,000 client addresses is placed on.
    fn placement(candidates: &[Candidate]) -> Vec<u64> {
        let balancer = IpHash::new(candidates);
        let live = Fixed::all(candidates.len());
        let place = |client: u32| {
            let address = (0x0a00_0000 + client).to_be_bytes();
            candidates[balancer.pick(hash(&address), &live).unwrap()].identity
        };
        (0..10_000).map(place).collect()
    }

    fn moved(a: &[u64], b: &[u64]) -> usize {
        a.iter().zip(b).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn taking_one_of_five_away_moves_a_fifth_and_adding_it_restores() {
        let five = candidates(&[1; 5]);
        let before = placement(&five);
        for gone in 0..5 {
            let mut four = five.clone();
            let gone = four.remove(gone);
            let without = placement(&four);
            assert!(!without.contains(&gone.identity));
            let moved = moved(&before, &without);
            assert!((1_500..=2_500).contains(&moved), "{moved} moved");
            four.push(gone);
            assert_eq!(placement(&four), before);
        }
    }

    #[test]
    fn the_same_for_ever() {
        // Another answer here means that an upgrade moves the clients of every installation.
        let balancer = IpHash::new(&candidates(&[1, 2, 3, 4]));
        let mut sum = 0_u64;
        for slot in &balancer.slots {
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(*slot));
        }
        assert_eq!(sum, 14_885_971_818_380_715_682);
    }

    #[test]
    fn everybody_gets_a_slot() {
        let mut weights = vec![1; 999];
        weights.push(1000);
        let balancer = IpHash::new(&candidates(&weights));
        let mut chosen = vec![0; weights.len()];
        balancer.slots.iter().for_each(|&i| chosen[i as usize] += 1);
        assert!(chosen.iter().all(|&n| n >= 1));
        let heavy = f64::from(chosen[999]) / SLOTS as f64;
        assert!((0.48..0.52).contains(&heavy), "{heavy}");
    }

    #[test]
    fn a_full_home_sends_its_clients_to_all_others() {
        let five = candidates(&[1; 5]);
        let balancer = IpHash::new(&five);
        let live = Fixed::takers([true, true, false, true, true]);
        let mut chosen = [0; 5];
        for client in 0..10_000_u32 {
            let key = hash(&client.to_be_bytes());
            let index = balancer.pick(key, &live).unwrap();
            assert_eq!(balancer.pick(key, &live), Some(index));
            chosen[index] += 1;
        }
        assert_eq!(chosen[2], 0);
        assert!(chosen.iter().all(|&n| n == 0 || (2_200..2_800).contains(&n)), "{chosen:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))] // a table each

        #[test]
        fn picks_whoever_can_take(weights in prop::collection::vec(1..1000_u32, 0..40), seed: u64) {
            let balancer = IpHash::new(&candidates(&weights));
            check_pick(weights.len(), seed, |key, live| balancer.pick(key, live))?;
        }

        #[test]
        fn independent_of_order(
            weights in prop::collection::vec(1..1000_u32, 1..12).prop_map(|w| candidates(&w)),
            seed: u64,
        ) {
            let before = placement(&weights);
            let mut shuffled = weights;
            shuffled.sort_by_key(|c| redraw(c.identity, seed));
            prop_assert_eq!(placement(&shuffled), before);
        }

        #[test]
        fn by_weight(weights in prop::collection::vec(1..50_u32, 1..12)) {
            let mut chosen = vec![0; weights.len()];
            IpHash::new(&candidates(&weights)).slots.iter().for_each(|&i| chosen[i as usize] += 1);
            check_shares(&chosen, &weights, 0.001)?;
        }

        #[test]
        fn who_goes_takes_little_more_than_its_own_clients(
            weights in prop::collection::vec(1..10_u32, 2..12), gone in 0..12_usize,
        ) {
            let all = candidates(&weights);
            let mut rest = all.clone();
            let gone = rest.remove(gone % all.len());
            let (before, after) = (placement(&all), placement(&rest));
            let its_own = before.iter().filter(|&&i| i == gone.identity).count();
            let moved = moved(&before, &after);
            prop_assert!(moved <= its_own + 800, "{moved} moved, {its_own} were its own");
        }
    }
}
