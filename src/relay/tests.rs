//! The relay between two scripted sockets, against a model of what each side must have seen in the end.

mod model;
mod timing;

use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use super::{End, Pacing, Turn};
use crate::stats::termination::Side;
use model::{ALL, ModelEvent, ScriptedPair, Watching, at, event};

/// What must hold of what the tap has seen: all that was read, in order, in place.
fn check_seen(pair: &ScriptedPair, ahead: usize) -> Result<(), TestCaseError> {
    let Some(tap) = &pair.tap else { return Ok(()) };
    for side in [Side::Client, Side::Backend] {
        let read = pair.sent(side).len() - pair.socket(side).arrived.borrow().len();
        let skipped = if side == Side::Client { ahead } else { 0 };
        let came = &tap.came[side as usize];
        prop_assert_eq!(came.len(), read - skipped, "bytes from the {}", side);
        let differs = came.iter().zip(&pair.sent(side)[skipped..]).any(|(seen, sent)| seen.is_some_and(|b| b != *sent));
        prop_assert!(!differs, "bytes from the {} were not seen as they are", side);
    }
    Ok(())
}

/// What must hold of what `side` has received, `other` being its counterpart.
fn check_received(pair: &ScriptedPair, side: Side) -> Result<(), TestCaseError> {
    let (socket, other) = (pair.socket(side), pair.socket(side.other()));
    let (received, sent) = (socket.written.borrow(), pair.sent(side.other()));
    prop_assert!(sent.starts_with(&received), "bytes to the {side} differ from those sent");
    if socket.reset.get() {
        return Ok(()); // It is gone: how much it got before is its own affair.
    }
    prop_assert_eq!(received.len(), sent.len(), "all bytes reach the {}", side);
    // A FIN that arrived just before the RST may have been passed on or not; a RST alone is never one.
    let fin = if other.reset.get() { socket.told_fin.get() && other.fin.get() } else { other.fin.get() };
    prop_assert_eq!(socket.told_fin.get(), fin, "FIN to the {}", side);
    prop_assert_eq!(socket.told_reset.get(), other.reset.get(), "RST to the {}, and nothing else is one", side);
    Ok(())
}

/// The end of a socket is noticed in the turn in which it is reported, whatever state the relay is in.
fn check_noticed(pair: &ScriptedPair) -> Result<(), TestCaseError> {
    let resets = [pair.client.reset.get(), pair.backend.reset.get()];
    if pair.end.is_some() || resets == [false, false] {
        return Ok(());
    }
    prop_assert!(pair.relay.is_half_closed(), "a reset was not noticed: {resets:?}");
    prop_assert!(resets != [true, true], "both sides are gone, and the relay lives");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever arrives, in whatever pieces and order: both sides see what they must, and the relay ends.
    #[test]
    fn each_side_sees_what_the_other_did(
        splices in any::<[bool; 2]>(),
        layered in any::<[bool; 2]>(),
        ahead in prop::collection::vec(any::<u8>(), 0..3_000),
        lets_pass in prop::option::of(prop::collection::vec(prop_oneof![Just(0), 1..200_000u64, Just(u64::MAX)], 1..5)),
        script in prop::collection::vec((any::<bool>(), event()), 0..60),
        rate in prop::option::of(prop_oneof![1_000_000_u64..10_000_000, 10_000_000_u64..2_000_000_000]),
    ) {
        let mut pair = ScriptedPair::of(splices, layered, ahead.clone());
        pair.pacing = rate.and_then(NonZeroU64::new).map(Pacing::new);
        pair.tap = lets_pass.map(|lets_pass| Box::new(Watching { lets_pass, ..Watching::default() }));
        for (client, event) in &script {
            pair.happen(if *client { Side::Client } else { Side::Backend }, event);
            pair.run();
            check_noticed(&pair)?;
            pair.now += Duration::from_micros(700);
        }
        pair.open_the_gates();
        if pair.end.is_none() {
            // Nothing in flight: no buffer and no pipe is held.
            prop_assert!(pair.relay.holds_nothing());
            for side in [Side::Client, Side::Backend] {
                prop_assert!(!pair.socket(side).reset.get(), "the {} has reset, and that was not passed on", side);
                check_received(&pair, side)?;
            }
            pair.happen(Side::Client, &ModelEvent::Fin);
            pair.happen(Side::Backend, &ModelEvent::Fin);
            pair.open_the_gates();
        }
        let resets = [pair.client.reset.get(), pair.backend.reset.get()];
        match pair.end {
            None => prop_assert!(false, "it does not end"),
            Some(End::Closed(first)) => prop_assert!(pair.socket(first).fin.get()),
            Some(End::Reset(side)) => prop_assert!(pair.socket(side).reset.get()),
            Some(End::Unreachable(_) | End::TlsProtocolError(_)) => prop_assert!(false, "nobody was lost"),
        }
        if !matches!(pair.end, Some(End::Closed(_))) || resets == [false, false] {
            check_received(&pair, Side::Client)?;
            check_received(&pair, Side::Backend)?;
        }
        check_seen(&pair, ahead.len())?;
        for (socket, moved) in [(&pair.client, pair.relay.bytes_to_client()), (&pair.backend, pair.relay.bytes_to_backend())] {
            let written = socket.written.borrow().len() as u64;
            // What a layer holds for somebody who is gone was taken all the same.
            prop_assert!(moved == written || moved > written && socket.layered && socket.reset.get());
        }
        drop(pair.relay);
        prop_assert_eq!(pair.resources.acquired(), 0, "every pipe came back");
    }
}

/// A pair between which `count` bytes from the client have moved.
fn after_sending(count: usize) -> ScriptedPair {
    let mut pair = ScriptedPair::new([true, true]);
    pair.happen(Side::Backend, &ModelEvent::Room(usize::MAX / 2));
    pair.happen(Side::Client, &ModelEvent::Arrive(count));
    pair.run();
    pair
}

#[test]
fn much_goes_by_splice_and_little_goes_back_to_copying() {
    let mut pair = after_sending(1 << 20);
    assert_eq!(pair.backend.written.borrow().len(), 1 << 20);
    assert!(pair.relay.to_backend.splices(), "1 MiB at once is worth a pipe");
    for _ in 0..8 {
        pair.happen(Side::Client, &ModelEvent::Arrive(100));
        pair.run();
    }
    assert!(!pair.relay.to_backend.splices(), "100 bytes at a time are not");
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
}

#[test]
fn what_a_tap_lets_pass_goes_by_splice_and_not_a_byte_more() {
    let mut pair = ScriptedPair::new([true, true]);
    // One to see first; then much, then again one, then little.
    let lets_pass = vec![1000, 100_000 + (1 << 20), 1000];
    pair.tap = Some(Box::new(Watching { lets_pass, ..Watching::default() }));
    pair.happen(Side::Backend, &ModelEvent::Room(usize::MAX / 2));
    for _ in 0..4 {
        pair.happen(Side::Client, &ModelEvent::Arrive(32 << 10));
        pair.run();
    }
    pair.tap.as_mut().unwrap().left[0] = 100_000 + (1 << 20);
    pair.happen(Side::Client, &ModelEvent::Arrive(2 << 20));
    pair.run();
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
    let came = &pair.tap.as_ref().unwrap().came[0];
    assert_eq!(came.len(), pair.sent(Side::Client).len());
    let first = came.iter().position(Option::is_none).expect("something passed");
    let passed = came[first..].iter().take_while(|byte| byte.is_none()).count();
    // What is left of it when it is little is copied.
    assert!(((36_000 + (1 << 20))..=100_000 + (1 << 20)).contains(&passed), "{passed}");
    assert!(pair.relay.to_backend.splices());
}

#[test]
fn one_stream_does_not_keep_the_worker() {
    let mut pair = ScriptedPair::new([true, true]);
    pair.happen(Side::Backend, &ModelEvent::Room(usize::MAX / 2));
    pair.happen(Side::Client, &ModelEvent::Arrive(8 << 20));
    let turn = pair.relay.turn(&pair.client, &pair.backend, &mut pair.resources, &mut pair.tap, at(pair.now), None);
    assert_eq!(turn, Turn::Again, "it asks for the next turn");
    assert!(pair.backend.written.borrow().len() <= 512 << 10, "one turn is bounded");
}

#[test]
fn only_a_spliced_turn_is_large() {
    for (splices, turn_bytes) in [([true, true], 1 << 20), ([false, true], 256 << 10)] {
        let mut pair = ScriptedPair::new(splices);
        pair.happen(Side::Backend, &ModelEvent::Room(usize::MAX / 2));
        pair.resources.set_large_turns(true);
        pair.happen(Side::Client, &ModelEvent::Arrive(16 << 20));
        let mut turn = || {
            let before = pair.backend.written.borrow().len();
            pair.relay.turn(&pair.client, &pair.backend, &mut pair.resources, &mut pair.tap, at(pair.now), None);
            pair.backend.written.borrow().len() - before
        };
        turn();
        let moved = turn();
        // The last splice may begin a byte before the end of the turn.
        assert!((turn_bytes..turn_bytes * 2).contains(&moved), "{moved} of {turn_bytes}, {splices:?}");
    }
}

#[test]
fn a_receiver_that_stands_still_holds_back_its_sender() {
    let mut pair = ScriptedPair::new([true, true]);
    pair.happen(Side::Client, &ModelEvent::Arrive(8 << 20));
    pair.run();
    let kept = pair.sent(Side::Client).len() - pair.client.arrived.borrow().len();
    assert!(kept <= 64 << 10, "{kept} bytes were read that nobody takes");
}

#[test]
fn reset_waits_for_the_bytes_before_it() {
    let mut pair = after_sending(1000);
    pair.happen(Side::Client, &ModelEvent::Reset);
    for _ in 0..5 {
        pair.run();
        assert_eq!(pair.end, None, "1,000 bytes are under way");
        assert!(pair.relay.wake_at().is_some());
        pair.now += Duration::from_secs(1);
    }
    pair.happen(Side::Backend, &ModelEvent::Acknowledge(ALL));
    pair.run();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert!(pair.backend.told_reset.get() && !pair.backend.told_fin.get());
}

#[test]
fn a_reset_met_in_writing_is_no_fin_for_the_other_side() {
    let mut pair = ScriptedPair::new([false, false]);
    // The backend's room is used up, so that the client's bytes are not read when the RST arrives.
    pair.happen(Side::Client, &ModelEvent::Arrive(40_000));
    pair.run();
    pair.happen(Side::Client, &ModelEvent::Reset);
    pair.happen(Side::Client, &ModelEvent::Room(usize::MAX / 2));
    pair.happen(Side::Backend, &ModelEvent::Arrive(10));
    pair.run();
    assert_eq!(pair.end, None);
    pair.open_the_gates();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
    assert!(pair.backend.told_reset.get() && !pair.backend.told_fin.get());
}

#[test]
fn a_client_that_has_finished_and_then_resets_is_noticed() {
    let mut pair = after_sending(10);
    pair.happen(Side::Client, &ModelEvent::Fin);
    pair.run();
    assert!(pair.backend.told_fin.get());
    pair.happen(Side::Backend, &ModelEvent::Acknowledge(ALL));
    pair.happen(Side::Client, &ModelEvent::Reset);
    pair.run();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert!(pair.backend.told_reset.get());
}

#[test]
fn a_reset_of_a_sender_that_waits_for_its_receiver_is_noticed() {
    // The backend takes nothing: what the client sent is stuck in the relay, and behind it comes its reset.
    let mut pair = ScriptedPair::new([true, true]);
    pair.happen(Side::Client, &ModelEvent::Arrive(1 << 20));
    pair.run();
    assert!(!pair.relay.is_half_closed());
    pair.happen(Side::Client, &ModelEvent::Reset);
    pair.run();
    assert!(pair.relay.is_half_closed(), "half_close counts from here");
    // What was sent before the reset is delivered all the same, if the backend goes on.
    pair.open_the_gates();
    assert_eq!(pair.end, Some(End::Reset(Side::Client)));
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
}

#[test]
fn both_sides_reset_ends_the_relay_at_once() {
    for fin_before in [false, true] {
        for first in [Side::Client, Side::Backend] {
            let mut pair = after_sending(60_000);
            if fin_before {
                pair.happen(Side::Client, &ModelEvent::Fin);
                pair.run();
            }
            pair.happen(first, &ModelEvent::Reset);
            pair.run();
            pair.happen(first.other(), &ModelEvent::Reset);
            pair.run();
            assert_eq!(pair.end, Some(End::Reset(first)), "{first} first, after a FIN: {fin_before}");
        }
    }
}

#[test]
fn a_peer_that_closes_both_ways_at_once_has_finished() {
    for first in [Side::Client, Side::Backend] {
        let mut pair = after_sending(10);
        pair.happen(first, &ModelEvent::Fin);
        pair.run();
        // The other has closed without reading that, which its kernel answers with a reset.
        let other = pair.socket(first.other());
        other.happen(|socket| socket.fin.set(true));
        other.happen(|socket| (socket.reset.set(true), socket.error.set(true)).0);
        pair.run();
        assert_eq!(pair.end, Some(End::Closed(first)));
    }
}

#[test]
fn waiting_for_acknowledgements_that_do_not_come_gets_cheap() {
    let mut pair = after_sending(1_000);
    pair.happen(Side::Client, &ModelEvent::Reset);
    let mut looks = 0;
    let end = pair.now + Duration::from_secs(60);
    while pair.now < end {
        pair.run();
        looks += 1;
        pair.now = pair.relay.wake_at().expect("it looks again");
    }
    assert!(looks <= 10 + 60, "{looks} looks in a minute");
}

#[test]
fn first_byte_is_timed_from_the_clients_first_byte() {
    let mut pair = ScriptedPair::new([true, true]);
    pair.run();
    pair.now += Duration::from_secs(5);
    pair.happen(Side::Backend, &ModelEvent::Room(1000));
    pair.happen(Side::Client, &ModelEvent::Room(1000));
    pair.happen(Side::Client, &ModelEvent::Arrive(10));
    pair.run();
    pair.now += Duration::from_millis(30);
    pair.happen(Side::Client, &ModelEvent::Arrive(10));
    pair.run();
    assert_eq!(pair.relay.take_first_byte(), None);
    pair.now += Duration::from_millis(12);
    pair.happen(Side::Backend, &ModelEvent::Arrive(10));
    pair.run();
    assert_eq!(pair.relay.take_first_byte(), Some(Duration::from_millis(42)));
    pair.happen(Side::Backend, &ModelEvent::Arrive(10));
    pair.run();
    assert_eq!(pair.relay.take_first_byte(), None, "once");
}

#[test]
fn without_pipes_it_copies() {
    let mut pair = ScriptedPair::new([true, true]);
    let all: Vec<_> = std::iter::from_fn(|| pair.resources.acquire()).collect();
    assert_eq!(all.len(), super::MAX_PIPES);
    pair.happen(Side::Backend, &ModelEvent::Room(usize::MAX / 2));
    pair.happen(Side::Client, &ModelEvent::Arrive(1 << 20));
    pair.run();
    assert_eq!(*pair.backend.written.borrow(), pair.sent(Side::Client));
}
