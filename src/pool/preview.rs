//! Dry-run of a lease, for `tidegate explain`.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::lease::{Now, client_key};
use super::{Backend, Excluded, NoBackend, Pool};
use crate::balance::{Draw, Live};
use crate::config::model::AdminState;

/// What the next lease would be, and how each backend stands. Accurate until the next connection arrives.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The backend, or why there is none.
    pub choice: Result<Choice, NoBackend>,
    /// All backends, in the order of the configuration.
    pub backends: Vec<BackendPreview>,
    /// The backend that the client had last, if `persist` remembers it and it can take the connection.
    pub persistent: bool,
    /// Too few backends are up (`fail_open`): all are used as if they were.
    pub fails_open: bool,
    /// Connections that wait in the pool's queue.
    pub waiting: u32,
}

/// The backend of the next lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// This one.
    One {
        /// Which.
        backend: Arc<Backend>,
        /// The algorithm's first choice, if that one is full or down.
        instead_of: Option<Arc<Backend>>,
    },
    /// One of these, each with its probavailability; the likeliest first.
    Drawn(Vec<(Arc<Backend>, f64)>),
}

impl Preview {
    /// How a backend stands.
    pub fn of(&self, backend: &Backend) -> Option<&BackendPreview> {
        self.backends.iter().find(|preview| *preview.backend == *backend)
    }
}

/// How a backend stands.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendPreview {
    /// Which one.
    pub backend: Arc<Backend>,
    /// Whether it could take a connection.
    pub availability: Availability,
    /// Connections it has.
    pub connections: u32,
    /// Its moving average that `least_latency` goes by, in microseconds.
    pub latency_us: u32,
    /// Of its weight, while it grows after it came back (`slow_start`): below 1.
    pub share: f64,
}

/// Whether a backend could take a connection. What comes first in this order is the reason if there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It could.
    Available,
    /// It was removed.
    Leaving,
    /// It is drained.
    Drained,
    /// It is in maintenance.
    Maintenance,
    /// It is down.
    Down,
    /// It is ejected: connects to it failed.
    Ejected,
    /// Its weight is 0.
    Weightless,
    /// It has as many connections as it may.
    Full,
}

/// The members as they are, none of them full or down.
struct Roomy<'a>(&'a Now<'a>);

impl Live for Roomy<'_> {
    fn connections(&self, index: usize) -> u32 {
        self.0.connections(index)
    }

    fn latency_us(&self, index: usize) -> u32 {
        self.0.latency_us(index)
    }

    fn can_take(&self, _: usize) -> bool {
        true
    }
}

impl Pool {
    /// Dry-run of [`Pool::lease`]: takes nothing, and does not advance round robin.
    pub fn preview(&self, client: Option<IpAddr>) -> Preview {
        let snapshot = self.snapshot.load();
        let none = Excluded::new();
        let draw = Draw {
            key: client.map_or(0, |ip| client_key(ip, snapshot.settings.hash)),
            turn: self.turn.load(Relaxed),
            random: 0,
        };
        let choice = [&snapshot.primary, &snapshot.backup].into_iter().find_map(|tier| {
            let now = Now { members: &tier.members, fails_open: snapshot.fails_open, excluded: &none };
            let member = |place: usize| Arc::clone(&tier.members[place]);
            if let Some(chances) = tier.balancer.chances(&now) {
                let mut drawn: Vec<_> = chances
                    .into_iter()
                    .enumerate()
                    .filter(|&(_, chance)| chance > 0.0)
                    .map(|(place, chance)| (member(place), chance))
                    .collect();
                drawn.sort_by(|one, two| two.1.total_cmp(&one.1));
                return (!drawn.is_empty()).then_some(Choice::Drawn(drawn));
            }
            let backend = tier.balancer.pick(&draw, &now)?;
            // A full one also changes how many equals take turns: who is chosen then may have room himself.
            let instead_of = tier.balancer.pick(&draw, &Roomy(&now)).filter(|&other| !now.can_take(other));
            Some(Choice::One { backend: member(backend), instead_of: instead_of.map(member) })
        });
        let rules = snapshot.settings.persistence().zip(client);
        let last = rules.and_then(|(rules, ip)| {
            self.persist().get(client_key(ip, snapshot.settings.hash), rules, std::time::Instant::now())
        });
        let last = last.and_then(|id| snapshot.persistent(id, &none)).map(Arc::clone);
        let persistent = last.is_some();
        let choice = last.map(|backend| Choice::One { backend, instead_of: None }).or(choice);
        Preview {
            choice: choice.ok_or_else(|| NoBackend::explain(&snapshot.backends, &none)),
            backends: self.previews(&snapshot.backends, snapshot.fails_open),
            persistent,
            fails_open: snapshot.fails_open,
            waiting: self.queue_status().waiting,
        }
    }

    fn previews(&self, backends: &[Arc<Backend>], fails_open: bool) -> Vec<BackendPreview> {
        let shares = self.shares();
        let preview = |backend: &Arc<Backend>| BackendPreview {
            backend: Arc::clone(backend),
            availability: match () {
                () if backend.is_leaving() => Availability::Leaving,
                () if backend.state() == AdminState::Drain => Availability::Drained,
                () if backend.state() == AdminState::Maintenance => Availability::Maintenance,
                () if backend.weight() == 0 && backend.is_up() => Availability::Weightless,
                () if fails_open && backend.may_be_tried() && backend.is_full() => Availability::Full,
                () if fails_open && backend.may_be_tried() => Availability::Available,
                () if !backend.is_up() && backend.status().ejected => Availability::Ejected,
                () if !backend.is_up() => Availability::Down,
                () if backend.is_full() => Availability::Full,
                () => Availability::Available,
            },
            connections: backend.connections(),
            latency_us: backend.latency_us(),
            share: shares.get(&backend.id()).copied().unwrap_or(1.0),
        };
        backends.iter().map(preview).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::super::testing::{backends, id, place, pool};
    use super::*;
    use crate::config::model::{self, Balance};
    use crate::stats::registry::Registry;

    const CERTAIN: [Balance; 4] =
        [Balance::RoundRobin, Balance::LeastConnections, Balance::IpHash, Balance::LeastLatency];

    fn build(config: &model::PoolConfig) -> Arc<Pool> {
        Pool::new(config.clone(), &Registry::default(), 1)
    }

    fn client(number: u8) -> Option<IpAddr> {
        Some([10, 0, 0, number].into())
    }

    fn availability(previews: &[BackendPreview], of: &Arc<Backend>) -> Availability {
        previews.iter().find(|preview| preview.backend == *of).unwrap().availability
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever is full, down or a backup: the next lease is on the previewed backend.
        #[test]
        fn what_is_previewed_is_what_happens(
            weights in prop::collection::vec(0..4_u32, 1..6),
            limits in prop::collection::vec(0..3_u32, 6),
            backups in prop::collection::vec(any::<bool>(), 6),
            downs in prop::collection::vec(any::<bool>(), 6),
            clients in prop::collection::vec(any::<u8>(), 1..12),
        ) {
            for balance in CERTAIN {
                let mut config = model::PoolConfig { balance, ..pool(backends(&weights)) };
                for (index, backend) in config.backends.iter_mut().enumerate() {
                    backend.max_connections = NonZeroU32::new(limits[index]);
                    backend.backup = backups[index];
                }
                let pool = build(&config);
                for index in (0..weights.len()).filter(|&index| downs[index] && index > 0) {
                    pool.set_down(id(&pool, index), "test");
                }
                let mut leases = Vec::new();
                for &number in &clients {
                    let preview = pool.preview(client(number));
                    prop_assert_eq!(&pool.preview(client(number)), &preview, "a look changes nothing");
                    match (preview.choice, pool.lease(client(number), &Excluded::new())) {
                        (Ok(Choice::One { backend, instead_of }), Ok(lease)) => {
                            prop_assert_eq!(&backend, lease.backend());
                            prop_assert_eq!(availability(&preview.backends, &backend), Availability::Available);
                            if let Some(other) = instead_of {
                                prop_assert_ne!(availability(&preview.backends, &other), Availability::Available);
                            }
                            leases.push(lease);
                        }
                        (Err(why), Err(happened)) => prop_assert_eq!(why, happened),
                        (preview, lease) => prop_assert!(false, "{preview:?}, but {lease:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn nobody_with_room_is_said_to_be_full() {
        let mut config = model::PoolConfig { balance: Balance::LeastConnections, ..pool(backends(&[1, 1, 1])) };
        config.backends[1].max_connections = NonZeroU32::new(1);
        let pool = build(&config);
        let lease = || pool.lease(None, &Excluded::new()).unwrap();
        let _one_on_each = [lease(), lease(), lease()];
        let mut named = Vec::new();
        for _ in 0..6 {
            let Ok(Choice::One { instead_of, .. }) = pool.preview(None).choice else { panic!("nobody") };
            named.extend(instead_of);
            drop(lease()); // the next one's turn
        }
        assert_eq!(
            named.iter().map(|backend| backend.id()).collect::<Vec<_>>(),
            [id(&pool, 1); 2],
            "every third turn would be the full one's"
        );
    }

    #[test]
    fn chances_are_those_of_leases() {
        const LEASES: u32 = 20_000;
        let cases = [Balance::Random, Balance::PowerOfTwo].map(|balance| [(balance, 0), (balance, 1), (balance, 2)]);
        for (balance, full) in cases.into_iter().flatten() {
            let mut config = model::PoolConfig { balance, ..pool(backends(&[1, 2, 2, 0, 3, 1])) };
            config.backends[4].backup = true;
            (config.backends[2].max_connections, config.backends[5].max_connections) =
                (NonZeroU32::new(1), NonZeroU32::new(1));
            let pool = build(&config);
            let mut busy = Vec::new();
            // Until so many are full; a draw may find both of them.
            while pool.backends()[2].connections() + pool.backends()[5].connections() < full {
                busy.push(pool.lease(client(1), &Excluded::new()).unwrap());
            }
            let preview = pool.preview(client(1));
            let Ok(Choice::Drawn(drawn)) = preview.choice else { panic!("{preview:?}") };
            let mut chosen = [0_u32; 6];
            for _ in 0..LEASES {
                chosen[place(&pool, pool.lease(client(1), &Excluded::new()).unwrap().backend())] += 1;
            }
            for (index, &times) in chosen.iter().enumerate() {
                let chance =
                    drawn.iter().find(|(backend, _)| place(&pool, backend) == index).map_or(0.0, |(_, chance)| *chance);
                let share = f64::from(times) / f64::from(LEASES);
                assert!((chance - share).abs() < 0.02, "{balance:?}, {full} full: {drawn:?} but {chosen:?}");
            }
            drop(busy);
        }
    }

    #[test]
    fn how_everybody_stands() {
        let mut config = pool(backends(&[1, 0, 1, 1]));
        config.backends[2].max_connections = NonZeroU32::new(1);
        let pool = build(&config);
        pool.set_down(id(&pool, 3), "test");
        let abilities = || pool.preview(None).backends.iter().map(|standing| standing.availability).collect::<Vec<_>>();
        assert_eq!(
            abilities(),
            [Availability::Available, Availability::Weightless, Availability::Available, Availability::Down]
        );
        let _leases: Vec<_> = (0..2).map(|_| pool.lease(None, &Excluded::new()).unwrap()).collect();
        assert_eq!(
            abilities(),
            [Availability::Available, Availability::Weightless, Availability::Full, Availability::Down]
        );
    }
}
