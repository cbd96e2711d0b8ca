//! Accepting, and choosing the worker on which a connection lives.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::accepting::Accepting;
use super::listener::Listener;
use super::plane_state::PlaneState;
use super::session::{self, Accepted, Permits};
use super::worker_state::WorkerState;
use crate::net::addr::{Address, ClientAddr};
use crate::worker::{self, AcceptSocket, Transport, poll_fn};

/// How long to wait before another try when the process or the host has run out of something.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How often to look whether connects still wait for a descriptor.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// Accepts from a listening socket on this worker until it is stopped. `number` tells those of one address apart.
pub(super) fn start(listener: Arc<Listener>, address: Address, number: usize, socket: OwnedFd) {
    let state = WorkerState::current();
    let guard = state.plane.accepts();
    let accepting = Rc::new(Accepting::new(listener, address, number));
    if state.has_stopped_accepting() {
        accepting.stop();
    }
    state.accepts(&accepting);
    worker::spawn(async move {
        if let Err(error) = run(&accepting, socket).await {
            let listener = accepting.listener();
            let name = &listener.config().name;
            tracing::error!(listener = %name, %error, "a worker cannot accept: its listening socket failed");
        }
        drop(guard);
    });
}

async fn run(accepting: &Accepting, socket: OwnedFd) -> io::Result<()> {
    let state = WorkerState::current();
    let plane = &state.plane;
    let socket = AcceptSocket::new(socket)?;
    accepting.begin();
    let mut batch = AcceptBatch::default();
    while unless_stopped(accepting, socket.waiting()).await.is_some() {
        for _ in 0..batch.at_turn(worker::turn(), worker::is_busy()) {
            if plane.descriptor_shortage.exists() {
                socket.paused(unless_stopped(accepting, descriptors(plane))).await?;
                break;
            }
            let listener = accepting.listener();
            if accepting.is_paused() {
                socket.paused(unless_stopped(accepting, accepting.resumed())).await?;
                break;
            }
            let permits = match try_room(plane, &listener) {
                Some(permits) => permits,
                None => {
                    let room = socket.paused(unless_stopped(accepting, room(plane, &listener))).await?;
                    let Some(permits) = room else { break };
                    // The wait may have been long: it is configured differently, or paused.
                    if accepting.is_paused() {
                        continue;
                    }
                    permits
                }
            };
            match socket.accept() {
                Ok(Some((fd, client))) => arrive(&state, accepting.listener(), fd, client, permits),
                Ok(None) => {
                    batch = AcceptBatch::default();
                    break;
                }
                Err(error) => {
                    drop(permits);
                    if let Some(more) = plane.accept_trouble.admit(Instant::now(), &error) {
                        tracing::warn!(%error, more, "cannot accept now: connections wait in the kernel's queue");
                    }
                    let pause = worker::sleep_until(worker::now() + EXHAUSTED_PAUSE);
                    socket.paused(unless_stopped(accepting, pause)).await?;
                }
            }
        }
    }
    if accepting.is_handed_over() {
        return Ok(());
    }
    // What waits in the queue is still taken, as far as there is room for it: closing would reset it.
    let listener = accepting.listener();
    while let Some(permits) = try_room(plane, &listener)
        && let Ok(Some((fd, client))) = socket.accept()
    {
        arrive(&state, Arc::clone(&listener), fd, client, permits);
    }
    Ok(())
}

/// How many connections are accepted in a turn of the loop: one, so that none is asked for that is not there, and
/// more when there was one in each of several turns in a row. On a busy worker, as many at once as may be: there, a turn
/// is what costs.
#[derive(Clone, Copy, Debug, Default)]
struct AcceptBatch {
    last: u64,
    in_a_row: u32,
}

impl AcceptBatch {
    const GROWS_AFTER: u32 = 4;
    const MAX: u32 = 32;

    fn at_turn(&mut self, turn: u64, is_busy: bool) -> u32 {
        self.in_a_row = if turn == self.last + 1 { self.in_a_row + 1 } else { 0 };
        self.last = turn;
        if is_busy {
            return AcceptBatch::MAX;
        }
        let beyond = self.in_a_row.saturating_sub(AcceptBatch::GROWS_AFTER);
        1u32.checked_shl(beyond).map_or(AcceptBatch::MAX, |count| count.min(AcceptBatch::MAX))
    }
}

/// Counts the connection, finds it a worker, and starts its session there.
fn arrive(state: &WorkerState, listener: Arc<Listener>, socket: OwnedFd, client: ClientAddr, permits: Permits) {
    let transport = match client {
        ClientAddr::Tcp(_) if !listener.config().socket.mptcp => Transport::Tcp,
        _ => Transport::Other,
    };
    // There is a worker: this one, or that in whose favour it retires.
    let Some(slot) = state.plane.crew.slot(state.worker) else { return };
    listener.counters().opened();
    let worker = Arc::clone(&slot.worker);
    let accepted = Accepted { socket, transport, client, at: Instant::now(), listener, permits, slot };
    match state.is_on(&worker) {
        true => session::start(accepted),
        false => worker.remote.run(move || session::start(accepted)),
    }
}

/// What `future` gives, unless accepting is stopped before.
async fn unless_stopped<T>(accepting: &Accepting, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if accepting.is_stopped() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Waits for room; meanwhile connections wait in the kernel's queue.
async fn room(plane: &PlaneState, listener: &Listener) -> Permits {
    let in_listener = listener.connections().acquire().await;
    if !plane.capacity().has_room()
        && let Some(more) = plane.accept_trouble.admit(Instant::now(), "capacity")
    {
        tracing::warn!(
            connections = plane.open(),
            more,
            "at the capacity that the limit of open files allows: connections wait in the kernel's queue"
        );
    }
    Permits::new(plane.capacity().acquire().await, in_listener)
}

/// Waits until no connect lacks a descriptor; meanwhile connections wait in the kernel's queue.
async fn descriptors(plane: &PlaneState) {
    if let Some(more) = plane.accept_trouble.admit(Instant::now(), "descriptors") {
        tracing::warn!(
            more,
            "too many open files: accepting pauses until the connects to backends that wait for a descriptor have theirs"
        );
    }
    while plane.descriptor_shortage.exists() {
        worker::sleep_until(worker::now() + SHORTAGE_PAUSE).await;
    }
}

fn try_room(plane: &PlaneState, listener: &Listener) -> Option<Permits> {
    let in_listener = listener.connections().try_acquire()?;
    Some(Permits::new(plane.capacity().try_acquire()?, in_listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_batch_grows_with_turns_in_a_row_and_is_largest_on_a_busy_worker() {
        let mut batch = AcceptBatch::default();
        let turns: Vec<u32> = (100..113).map(|turn| batch.at_turn(turn, false)).collect();
        assert_eq!(turns, [1, 1, 1, 1, 1, 2, 4, 8, 16, 32, 32, 32, 32]);
        assert_eq!(batch.at_turn(200, false), 1, "after a pause, one");
        assert!((201..400).map(|turn| batch.at_turn(turn, false)).all(|most| (1..=32).contains(&most)));
        assert_eq!(batch.at_turn(500, true), 32);
    }
}
