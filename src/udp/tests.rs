mod simulation;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> FlowRules {
    FlowRules { idle: SECOND * 60, max_sessions: 3, responses: None, amplification: NonZeroU32::new(3) }
}

fn key(client: u16) -> FlowKey {
    FlowKey { client: ([192, 0, 2, 1], client).into(), local: ([10, 0, 0, 1], 53).into() }
}

#[test]
fn same_client_at_another_local_address_is_another_session() {
    let (mut table, now) = (FlowTable::new(rules()), Instant::now());
    let other = FlowKey { local: ([10, 0, 0, 2], 53).into(), ..key(1) };
    let one = table.open(key(1), 'a', 1, 40, now).unwrap();
    assert_eq!(table.arrived(&other, 1, 40, now), None);
    let two = table.open(other, 'b', 1, 40, now).unwrap();
    assert_eq!((table.get(one), table.get(two)), (Some(&'a'), Some(&'b')));
    assert_eq!(table.open(key(1), 'c', 1, 40, now), None, "it has one");
    assert_eq!(table.arrived(&key(1), 1, 40, now), Some(one));
}

#[test]
fn session_ends_when_neither_side_has_sent_for_idle() {
    let (mut table, now) = (FlowTable::new(rules()), Instant::now());
    let one = table.open(key(1), 1, 1, 40, now).unwrap();
    table.open(key(2), 2, 1, 40, now + SECOND).unwrap();
    assert_eq!(table.next_expiry(), Some(now + SECOND * 60));
    assert_eq!(table.replied(one, 1, 9, now + SECOND * 30), Reply::Forward);
    assert_eq!(table.expire(now + SECOND * 60), None);
    assert_eq!(table.expire(now + SECOND * 61), Some((key(2), 2)));
    assert_eq!((table.expire(now + SECOND * 89), table.next_expiry()), (None, Some(now + SECOND * 90)));
    table.set_rules(FlowRules { idle: SECOND, ..rules() });
    assert_eq!(table.expire(now + SECOND * 31), Some((key(1), 1)), "other rules hold for it too");
    assert!(table.is_empty() && table.next_expiry().is_none());
    assert_eq!(table.replied(one, 1, 9, now), Reply::Gone);
}

#[test]
fn responses_are_counted_for_each_datagram_of_the_client() {
    let responses = NonZeroU32::new(2);
    let (mut table, now) = (FlowTable::new(FlowRules { responses, ..rules() }), Instant::now());
    let one = table.open(key(1), (), 1, 40, now).unwrap();
    assert_eq!(table.replied(one, 1, 40, now), Reply::Forward);
    table.arrived(&key(1), 1, 40, now);
    let replies = [(); 3].map(|()| table.replied(one, 1, 40, now));
    assert_eq!(replies, [Reply::Forward, Reply::Forward, Reply::Last]);
}

#[test]
fn forged_address_gets_one_datagram_for_each_and_three_times_its_bytes() {
    let (mut table, now) = (FlowTable::new(rules()), Instant::now());
    let one = table.open(key(1), (), 1, 40, now).unwrap();
    assert_eq!(table.replied(one, 1, 4000, now), Reply::Forward, "an answer of DNS");
    assert_eq!(table.replied(one, 1, 1, now), Reply::Amplified);
    let two = table.open(key(2), (), 1, 100, now).unwrap();
    let replies = [100, 100, 100, 1].map(|bytes| table.replied(two, 1, bytes, now));
    assert_eq!(replies, [Reply::Forward, Reply::Forward, Reply::Forward, Reply::Amplified]);
    table.arrived(&key(2), 1, 1, now);
    assert_eq!(table.replied(two, 100, 100_000, now), Reply::Forward, "it has sent after a reply: it receives them");
    table.set_rules(FlowRules { amplification: None, ..rules() });
    assert_eq!(table.replied(one, 100, 100_000, now), Reply::Forward);
}

#[test]
fn repeating_without_a_reply_proves_nothing() {
    let (mut table, now) = (FlowTable::new(rules()), Instant::now());
    let one = table.open(key(1), (), 1, 10, now).unwrap();
    for _ in 0..9 {
        table.arrived(&key(1), 1, 10, now);
    }
    assert_eq!(table.replied(one, 10, 100_000, now), Reply::Forward, "one for each");
    assert_eq!(table.replied(one, 1, 1, now), Reply::Amplified);
}

#[test]
fn those_who_converse_make_no_room() {
    let (mut table, now) = (FlowTable::new(rules()), Instant::now());
    let one = table.open(key(1), 1, 1, 40, now).unwrap();
    table.open(key(2), 2, 1, 40, now).unwrap();
    table.open(key(3), 3, 1, 40, now).unwrap();
    table.replied(one, 1, 40, now);
    table.arrived(&key(1), 1, 40, now);
    table.arrived(&key(2), 1, 40, now);
    assert!(table.is_full() && table.open(key(4), 4, 1, 40, now).is_none());
    let evicted: Vec<u8> = std::iter::from_fn(|| table.evict()).map(|(_, value)| value).collect();
    assert_eq!(evicted, [3, 2], "first what has sent once, and never the one that has sent after a reply");
}

#[test]
fn backlog_is_bounded_and_keeps_the_order_of_each_client() {
    let mut backlog = FirstDatagrams::new(4, 10);
    assert!([(1, b"a1"), (2, b"b1"), (1, b"a2")].iter().all(|(client, text)| backlog.push(key(*client), *text)));
    assert!(!backlog.push(key(3), b"too large"));
    assert!(backlog.push(key(3), b"c1") && !backlog.push(key(4), b""), "four");
    let texts = |popped: Option<(FlowKey, Vec<Box<[u8]>>)>| popped.map(|(key, all)| (key.client.port(), all.concat()));
    assert_eq!(texts(backlog.pop()), Some((1, b"a1a2".to_vec())));
    assert!(backlog.push(key(5), b"room"));
    assert_eq!(texts(backlog.pop()), Some((2, b"b1".to_vec())));
    assert_eq!([texts(backlog.pop()), texts(backlog.pop())].map(|it| it.map(|it| it.0)), [Some(3), Some(5)]);
    assert!(backlog.is_empty() && backlog.pop().is_none());
}

proptest! {
    #[test]
    fn table_behaves_like_a_list(steps in prop::collection::vec((0_u8..6, 0_u16..8, 0_u64..40, 0_u64..2000), 1..300)) {
        simulation::against_a_list(&steps)?;
    }
}
