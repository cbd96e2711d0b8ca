//! What a worker has measured and not handed over yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::stats::latency::Sample;

/// Samples that are handed over at once: 64 KiB.
const PORTION: usize = 4096;
/// Portions of all workers that may wait for the stats thread.
const WAITING: usize = 64;
/// Samples that a worker keeps when they are not taken: 8 MiB. Those that come then are lost, and counted.
const MOST: usize = 512 * 1024;

/// Where samples come out that workers hand over.
#[derive(Debug)]
pub struct Measurements {
    portions: mpsc::Receiver<Vec<Sample>>,
    lost: Arc<AtomicU64>,
}

/// Where a worker writes samples down.
#[derive(Clone, Debug)]
pub struct Samples {
    list: Vec<Sample>,
    to: mpsc::Sender<Vec<Sample>>,
    lost: Arc<AtomicU64>,
}

/// The two ends. The first is cloned for each worker.
pub fn samples() -> (Samples, Measurements) {
    let (to, portions) = mpsc::channel(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    (Samples { list: Vec::new(), to, lost: Arc::clone(&lost) }, Measurements { portions, lost })
}

impl Samples {
    /// Writes one down.
    pub(super) fn add(&mut self, sample: Sample) {
        if self.list.len() >= MOST {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.list.capacity() == 0 {
            self.list.reserve_exact(PORTION);
        }
        self.list.push(sample);
        if self.list.len().is_multiple_of(PORTION) {
            self.hand_over();
        }
    }

    /// Hands over what there is; keeps it when the queue is full.
    pub(super) fn hand_over(&mut self) {
        if self.list.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(list)) = self.to.try_send(std::mem::take(&mut self.list)) {
            self.list = list;
        }
    }
}

impl Measurements {
    /// The next portion; `None` once there are no workers any more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<Sample>>> {
        self.portions.poll_recv(cx)
    }

    /// A portion that was handed over already.
    pub fn waiting(&mut self) -> Option<Vec<Sample>> {
        self.portions.try_recv().ok()
    }

    /// Samples that were dropped because the queue was full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::latency::Stage;
    use crate::stats::registry::{BackendId, ListenerId};

    fn sample() -> Sample {
        Sample::new(ListenerId::NONE, BackendId::NONE, Stage::Connect, Duration::ZERO)
    }

    #[test]
    fn nothing_is_lost_unless_nobody_takes_it_for_long() {
        let (mut samples, mut measurements) = samples();
        let fits = WAITING * PORTION + MOST;
        (0..fits).for_each(|_| samples.add(sample()));
        assert_eq!(measurements.lost(), 0);
        (0..5).for_each(|_| samples.add(sample()));
        assert_eq!(measurements.lost(), 5);
        let mut taken = 0;
        while let Some(portion) = measurements.waiting() {
            taken += portion.len();
            samples.hand_over();
        }
        assert_eq!(taken, fits);
    }

    #[test]
    fn what_is_idle_holds_nothing() {
        let (mut samples, mut measurements) = samples();
        samples.add(sample());
        samples.hand_over();
        assert_eq!((samples.list.capacity(), measurements.waiting().map(|portion| portion.len())), (0, Some(1)));
    }
}
