//! Shares of the clients: weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005;
//! Thaler and Ravishankar, 1998).
//!
//! Each client draws a number for each share, and gets the one that wins. A share's number depends on no other share, so a
//! change of weights moves only clients that the changed shares gain or lose: the fewest that there can be.

use super::keyed_hash::hash;
use super::sampling::redraw;

/// Shares, prepared.
#[derive(Debug, Default)]
pub struct Split {
    /// Identity and weight.
    shares: Box<[(u64, f64)]>,
}

impl Split {
    /// Shares by name, each with its weight. A name that comes again is another share.
    pub fn new<'n>(shares: impl IntoIterator<Item = (&'n str, u32)>) -> Split {
        let mut names: Vec<&str> = Vec::new();
        let share = |(name, weight): (&'n str, u32)| {
            let before = names.iter().filter(|other| **other == name).count();
            names.push(name);
            (redraw(hash(name.as_bytes()), before as u64), f64::from(weight))
        };
        Split { shares: shares.into_iter().map(share).collect() }
    }

    /// The share of a client with this key. `None` only where there is no weight.
    pub fn pick(&self, key: u64) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for (place, &(identity, weight)) in self.shares.iter().enumerate() {
            if weight <= 0.0 {
                continue;
            }
            let score = -unit(redraw(key ^ identity, 1)).ln() / weight;
            if best.is_none_or(|(_, least)| score < least) {
                best = Some((place, score));
            }
        }
        best.map(|(place, _)| place)
    }
}

/// A number above 0 and at most 1, of the 53 bits that a float holds.
fn unit(random: u64) -> f64 {
    ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENTS: u32 = 20_000;

    /// The share of each of many clients.
    fn shares(weights: &[u32]) -> Vec<usize> {
        let names: Vec<String> = (0..weights.len()).map(|place| format!("pool-{place}")).collect();
        let split = Split::new(names.iter().map(String::as_str).zip(weights.iter().copied()));
        (0..CLIENTS).map(|client| split.pick(hash(&(0x0a00_0000 + client).to_be_bytes())).unwrap()).collect()
    }

    #[test]
    fn the_same_for_ever() {
        // Another answer here means that an upgrade moves the clients of every installation.
        let sum =
            shares(&[95, 5, 0, 20]).iter().fold(0_u64, |sum, share| sum.wrapping_mul(31).wrapping_add(*share as u64));
        assert_eq!(sum, 12_781_243_775_189_238_427);
    }

    #[test]
    fn from_95_and_5_to_90_and_10_moves_a_twentieth_and_only_one_way() {
        let (before, after) = (shares(&[95, 5]), shares(&[90, 10]));
        let moved: Vec<(usize, usize)> =
            before.into_iter().zip(after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|way| *way == (0, 1)), "nobody leaves the share that grows");
        let part = moved.len() as f64 / f64::from(CLIENTS);
        assert!((0.04..0.06).contains(&part), "{part}");
    }

    #[test]
    fn no_weight_is_no_client_and_a_pool_twice_is_two_shares() {
        assert_eq!(Split::new([("a", 0)]).pick(7), None);
        assert_eq!(Split::default().pick(7), None);
        assert!(shares(&[0, 1]).iter().all(|share| *share == 1));
        let twice = Split::new([("a", 1), ("a", 1)]);
        let second = (0..10_000_u64).filter(|key| twice.pick(redraw(*key, 3)) == Some(1)).count();
        assert!((4_700..5_300).contains(&second), "{second}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_are_those_of_the_weights(weights in prop::collection::vec(0..1000_u32, 1..6)) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let chosen = shares(&weights);
            for (place, weight) in weights.iter().enumerate() {
                let wanted = f64::from(*weight) / f64::from(total);
                let got = chosen.iter().filter(|share| **share == place).count() as f64 / f64::from(CLIENTS);
                // Five standard deviations.
                let tolerance = 5.0 * (wanted * (1.0 - wanted) / f64::from(CLIENTS)).sqrt();
                prop_assert!((got - wanted).abs() <= tolerance, "{} of {:?}: {} instead of {}", place, weights, got, wanted);
            }
        }

        #[test]
        fn who_moves_goes_to_a_share_that_grew_or_from_one_that_shrank(
            before in prop::collection::vec(1..1000_u32, 2..6), place in 0..6_usize, weight in 0..1000_u32,
        ) {
            let mut after = before.clone();
            let place = place % after.len();
            after[place] = weight;
            let grew = weight > before[place];
            for (from, to) in shares(&before).into_iter().zip(shares(&after)) {
                if from != to {
                    prop_assert_eq!(if grew { to } else { from }, place);
                }
            }
        }
    }
}
