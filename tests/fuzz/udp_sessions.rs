//! What must hold of the table of sessions of UDP, whatever is done in whatever order.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tidegate::udp::{FirstDatagrams, FlowId, FlowKey, FlowRules, FlowTable, Reply};

/// Three bytes are a step: what is done, the client, and a number.
pub(crate) fn udp_sessions(bytes: &[u8]) {
    let Some((first, steps)) = bytes.split_first() else { return };
    let max_sessions = usize::from(first % 16) + 1;
    let rules = |number: u8| FlowRules {
        idle: Duration::from_secs(u64::from(number % 60) + 1),
        max_sessions,
        responses: NonZeroU32::new(u32::from(number % 3)),
        amplification: NonZeroU32::new(u32::from(number % 4)),
    };
    let key = |client: u8| FlowKey { client: ([192, 0, 2, client], 1).into(), local: ([10, 0, 0, 1], 53).into() };
    let (mut table, mut now) = (FlowTable::new(rules(*first)), Instant::now());
    let mut backlog = FirstDatagrams::new(8, 64);
    let (mut known, mut waiting) = (HashMap::<FlowKey, FlowId>::new(), Vec::<FlowKey>::new());
    for step in steps.chunks_exact(3) {
        let (key, number) = (key(step[1]), step[2]);
        match step[0] % 9 {
            0 | 1 => {
                let arrived = table.arrived(&key, 1, number.into(), now);
                assert_eq!(arrived, known.get(&key).copied(), "a session is found as long as it is open");
                if arrived.is_none() {
                    match table.open(key, key, 1, number.into(), now) {
                        Some(id) => drop(known.insert(key, id)),
                        None => assert!(table.is_full()),
                    }
                }
            }
            2 => {
                let Some(id) = known.get(&key).copied() else { continue };
                let reply = table.replied(id, 1, u64::from(number) * 10, now);
                assert_ne!(reply, Reply::Gone);
                if reply == Reply::Last {
                    assert_eq!(table.remove(id), Some((key, key)));
                    known.remove(&key);
                }
            }
            3 => now += Duration::from_secs(u64::from(number)),
            4 => {
                while let Some((key, value)) = table.expire(now) {
                    assert_eq!((key, known.remove(&key).is_some()), (value, true));
                }
                assert!(table.next_expiry().is_none_or(|at| at > now));
            }
            5 => {
                if let Some((key, _)) = table.evict() {
                    assert!(known.remove(&key).is_some());
                }
            }
            6 => table.set_rules(rules(number)),
            7 => {
                if backlog.push(key, &[number; 8][..usize::from(number % 9)]) {
                    waiting.push(key);
                }
                assert!(waiting.len() <= 8);
            }
            _ => match backlog.pop() {
                Some((key, datagrams)) => {
                    assert_eq!((key, datagrams.len()), (waiting[0], waiting.iter().filter(|it| **it == key).count()));
                    waiting.retain(|it| *it != key);
                }
                None => assert!(waiting.is_empty()),
            },
        }
        assert_eq!((table.len(), backlog.is_empty()), (known.len(), waiting.is_empty()));
        assert!(table.len() <= max_sessions);
        assert!(known.iter().all(|(key, id)| table.get(*id) == Some(key)));
        assert_eq!(table.next_expiry().is_none(), known.is_empty());
    }
}
