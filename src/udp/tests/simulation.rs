//! The table against a plain list of sessions, and against simulated clients, networks and floods: each seed is another run.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

use super::super::*;

/// A session as a list has it.
struct Listed {
    key: FlowKey,
    id: FlowId,
    counts: [u64; 4],
    class: usize,
    last: Instant,
    /// When it was touched last, as a number that no two have.
    turn: usize,
}

fn key(client: u16) -> FlowKey {
    FlowKey { client: ([192, 0, 2, 1], client).into(), local: ([10, 0, 0, 1], 53).into() }
}

/// Each step is an action, a client, a time that passes in seconds, and bytes.
pub(super) fn against_a_list(steps: &[(u8, u16, u64, u64)]) -> Result<(), TestCaseError> {
    let (idle, max_sessions) = (Duration::from_secs(60), 5);
    let (responses, amplification) = (NonZeroU32::new(4), NonZeroU32::new(3));
    let mut table = FlowTable::new(FlowRules { idle, max_sessions, responses, amplification });
    let mut list: Vec<Listed> = Vec::new();
    let mut now = Instant::now();
    for (turn, &(action, client, seconds, bytes)) in steps.iter().enumerate() {
        let key = key(client);
        let known = list.iter().position(|it| it.key == key);
        match action {
            0 | 1 => match (table.arrived(&key, 1, bytes, now), known) {
                (Some(id), Some(place)) => {
                    let it = &mut list[place];
                    prop_assert_eq!(id, it.id);
                    it.counts[0] += 1;
                    it.counts[1] += bytes;
                    it.class = it.class.max(if it.counts[2] > 0 { 2 } else { 1 });
                    (it.last, it.turn) = (now, turn);
                }
                (None, None) => {
                    let opened = table.open(key, turn, 1, bytes, now);
                    prop_assert_eq!(opened.is_some(), list.len() < max_sessions);
                    if let Some(id) = opened {
                        list.push(Listed { key, id, counts: [1, bytes, 0, 0], class: 0, last: now, turn });
                    }
                }
                other => prop_assert!(false, "{other:?}"),
            },
            2 => {
                let Some(place) = known else { continue };
                let it = &mut list[place];
                let [requests, received, replies, sent] = it.counts;
                let amplified = it.class < 2 && replies + 1 > requests && sent + bytes > 3 * received;
                let reply = table.replied(it.id, 1, bytes, now);
                if amplified {
                    prop_assert_eq!(reply, Reply::Amplified);
                    continue;
                }
                it.counts = [requests, received, replies + 1, sent + bytes];
                (it.last, it.turn) = (now, turn);
                prop_assert_eq!(reply, if replies + 1 >= 4 * requests { Reply::Last } else { Reply::Forward });
                if reply == Reply::Last {
                    prop_assert!(table.remove(it.id).is_some());
                    list.remove(place);
                }
            }
            3 => now += Duration::from_secs(seconds),
            4 => {
                let first = list.iter().filter(|it| it.class < 2).min_by_key(|it| (it.class, it.turn));
                let first = first.map(|it| it.key);
                prop_assert_eq!(table.evict().map(|(key, _)| key), first);
                list.retain(|it| Some(it.key) != first);
            }
            _ => {
                let mut expired: Vec<FlowKey> = std::iter::from_fn(|| table.expire(now)).map(|(key, _)| key).collect();
                let (due, left): (Vec<_>, Vec<_>) = list.drain(..).partition(|it| it.last + idle <= now);
                list = left;
                let mut due: Vec<FlowKey> = due.into_iter().map(|it| it.key).collect();
                expired.sort();
                due.sort();
                prop_assert_eq!(expired, due);
            }
        }
        prop_assert_eq!(table.len(), list.len());
        prop_assert_eq!(table.next_expiry(), list.iter().map(|it| it.last + idle).min());
        prop_assert!(list.iter().all(|it| table.get(it.id).is_some()));
    }
    Ok(())
}

/// A client of a game: datagrams at a pace, each answered after a round trip.
struct Player {
    key: FlowKey,
    sent: u64,
    flow: Option<FlowId>,
}

/// Virtual time, players, a flood of forged addresses that a server answers too, and a worker that reads what came.
struct World {
    random: fastrand::Rng,
    table: FlowTable<u64>,
    backlog: FirstDatagrams,
    now: Instant,
    players: Vec<Player>,
    moved: usize,
    lost: usize,
    forged: u64,
}

const MAX_SESSIONS: usize = 64;

impl World {
    fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let idle = Duration::from_secs(random.u64(2..60));
        let rules = FlowRules { idle, max_sessions: MAX_SESSIONS, responses: None, amplification: NonZeroU32::new(3) };
        let players = (0..random.u16(1..32)).map(|port| Player { key: key(port), sent: 0, flow: None }).collect();
        let (table, backlog) = (FlowTable::new(rules), FirstDatagrams::new(32, 4096));
        World { random, table, backlog, now: Instant::now(), players, moved: 0, lost: 0, forged: 0 }
    }

    fn admit(&mut self, key: FlowKey, datagrams: u64) {
        if self.table.is_full() && self.table.evict().is_none() {
            return;
        }
        self.forged += 1;
        assert!(self.table.open(key, self.forged, datagrams, datagrams * 40, self.now).is_some());
    }

    /// One turn of the worker: what sessions sent, then some of those that have none.
    fn turn(&mut self, flood: u16) {
        let mut arrivals: Vec<(FlowKey, Option<usize>)> =
            (0..self.players.len()).map(|player| (self.players[player].key, Some(player))).collect();
        for _ in 0..flood {
            let forged = FlowKey { client: ([203, 0, 113, self.random.u8(..)], self.random.u16(..)).into(), ..key(0) };
            arrivals.push((forged, None));
        }
        self.random.shuffle(&mut arrivals);
        for (key, player) in arrivals {
            if let Some(player) = player {
                self.players[player].sent += 1;
            }
            match self.table.arrived(&key, 1, 40, self.now) {
                Some(id) => {
                    if let Some(player) = player {
                        let known = &mut self.players[player].flow;
                        self.moved += usize::from(known.is_some_and(|known| known != id));
                        *known = Some(id);
                    }
                    self.table.replied(id, 1, 60, self.now);
                }
                None => {
                    let has_room = self.backlog.push(key, &[0; 40]);
                    self.lost += usize::from(!has_room && player.is_some());
                }
            }
        }
        for _ in 0..8 {
            let Some((key, datagrams)) = self.backlog.pop() else { break };
            self.admit(key, datagrams.len() as u64);
            if let Some(id) = self.table.arrived(&key, 0, 0, self.now) {
                self.table.replied(id, 1, 60, self.now);
                if let Some(player) = self.players.iter_mut().find(|player| player.key == key) {
                    self.moved += usize::from(player.flow.is_some_and(|known| known != id));
                    player.flow = Some(id);
                }
            }
        }
        self.now += Duration::from_millis(33);
        while self.table.expire(self.now).is_some() {}
    }
}

/// Established before the flood, a player keeps its session and loses nothing.
#[test]
fn flood_moves_no_session_and_memory_keeps_its_bound() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        while world.players.iter().any(|player| player.flow.is_none()) {
            world.turn(0);
        }
        // The second datagram came after a reply.
        world.turn(0);
        let (flood, before) = (world.random.u16(1..200), world.lost);
        for _ in 0..60 {
            world.turn(flood);
            assert!(world.table.len() <= MAX_SESSIONS, "seed {seed}");
        }
        assert_eq!((world.moved, world.lost), (0, before), "seed {seed}: {flood} forged addresses a turn");
    }
}

/// One that comes during the flood gets a session as soon as a datagram of its has a place.
#[test]
fn newcomer_gets_a_session_during_a_flood() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        let flood = world.random.u16(1..100);
        let limit = 400;
        let turns = (0..limit).find(|_| {
            world.turn(flood);
            world.players.iter().all(|player| player.flow.is_some())
        });
        assert!(turns.is_some(), "seed {seed}: {flood} forged addresses a turn");
    }
}

/// Ids are not reused while an owner may still hold one.
#[test]
fn id_of_a_session_that_has_ended_names_no_other() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut world = World::new(7);
    let (mut ended, mut open) = (HashSet::new(), HashMap::new());
    for _ in 0..5000 {
        let key = key(random.u16(..20));
        match world.table.open(key, 0, 1, 1, world.now) {
            Some(id) => drop(open.insert(key, id)),
            None => {
                let id = open.remove(&key).unwrap();
                assert!(world.table.remove(id).is_some());
                ended.insert(id);
            }
        }
        assert!(ended.iter().all(|id| world.table.get(*id).is_none()));
    }
}
