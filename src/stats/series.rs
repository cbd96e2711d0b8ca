//! Histograms of one stage over time: since the start, and over sliding windows.
//!
//! Pure: time comes in as a number of seconds.

use std::collections::VecDeque;

use super::histogram::{Histogram, Packed, Sparse};

/// A span of time that a histogram is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Window {
    /// Since the start.
    All,
    /// The last 10 s, and the second that is not over.
    TenSeconds,
    /// The last minute, to within 5 s.
    Minute,
    /// The last 5 minutes, to within 30 s.
    FiveMinutes,
}

impl Window {
    /// Every window.
    pub const ALL: [Window; 4] = [Window::All, Window::TenSeconds, Window::Minute, Window::FiveMinutes];

    /// As it is written in every format.
    pub fn name(self) -> &'static str {
        match self {
            Window::All => "all",
            Window::TenSeconds => "10s",
            Window::Minute => "1m",
            Window::FiveMinutes => "5m",
        }
    }

    /// The one that is written so.
    pub fn named(name: &str) -> Option<Window> {
        Window::ALL.into_iter().find(|window| window.name() == name)
    }
}

/// Spans of one length that are over, and the one that is not.
#[derive(Clone, Debug, Default)]
struct Ring {
    current: Sparse,
    /// Each with the second at which it was over; those in which nothing was measured are left out.
    over: VecDeque<(u64, Packed)>,
}

impl Ring {
    /// The current span is over; it goes into `longer` too, a span of which it is a part.
    fn turn(&mut self, second: u64, keep: u64, longer: Option<&mut Sparse>) {
        while self.over.front().is_some_and(|(at, _)| at + keep <= second) {
            self.over.pop_front();
        }
        if self.current.is_empty() {
            return;
        }
        // Dropped, and not kept for the next span: most are short of samples.
        let current = std::mem::take(&mut self.current);
        if let Some(longer) = longer {
            longer.merge(&current);
        }
        self.over.push_back((second, Packed::new(&current)));
    }

    fn add_to(&self, histogram: &mut Histogram) {
        self.over.iter().for_each(|(_, span)| histogram.merge_packed(span));
    }
}

/// Seconds of a span and of its window: the longer ones are made of the shorter ones.
const MIDDLE: (u64, u64) = (5, 60);
pub(super) const LONG: (u64, u64) = (30, 300);
const SHORT: u64 = 10;

/// One stage of one listener or backend.
#[derive(Clone, Debug, Default)]
pub struct Series {
    total: Histogram,
    seconds: Ring,
    middle: Ring,
    long: Ring,
}

impl Series {
    pub(super) fn record(&mut self, micros: u64) {
        self.total.record(micros);
        self.seconds.current.record(micros);
    }

    /// The time is `second` now, and everything recorded so far came before.
    pub(super) fn turn(&mut self, second: u64) {
        self.seconds.turn(second, SHORT, Some(&mut self.middle.current));
        if second.is_multiple_of(MIDDLE.0) {
            self.middle.turn(second, MIDDLE.1, Some(&mut self.long.current));
        }
        if second.is_multiple_of(LONG.0) {
            self.long.turn(second, LONG.1, None);
        }
    }

    /// Everything since the start.
    pub fn total(&self) -> &Histogram {
        &self.total
    }

    /// Each of the last 10 seconds that is over, in which something was measured, and that comes after this one.
    pub fn seconds(&self, after: u64) -> impl Iterator<Item = (u64, Histogram)> {
        self.seconds.over.iter().filter(move |(second, _)| *second > after).map(|(second, span)| {
            let mut histogram = Histogram::default();
            histogram.merge_packed(span);
            (*second, histogram)
        })
    }

    /// What was measured in a window of time.
    pub fn window(&self, window: Window) -> Histogram {
        let mut histogram = Histogram::default();
        self.add_to(&mut histogram, window);
        histogram
    }

    pub(super) fn add_to(&self, histogram: &mut Histogram, window: Window) {
        let rings: &[&Ring] = match window {
            Window::All => return histogram.merge(&self.total),
            Window::TenSeconds => &[&self.seconds],
            Window::Minute => &[&self.middle],
            Window::FiveMinutes => &[&self.long, &self.middle],
        };
        histogram.merge_sparse(&self.seconds.current);
        if let [ring, shorter @ ..] = rings {
            ring.add_to(histogram);
            // What is not in one of its spans yet.
            if window != Window::TenSeconds {
                histogram.merge_sparse(&ring.current);
            }
            shorter.iter().for_each(|ring| histogram.merge_sparse(&ring.current));
        }
    }
}
