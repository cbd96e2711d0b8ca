//! What the demo's clients saw, step by step.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What all clients saw, written by them while others read it.
pub(super) struct Tally(Mutex<TallyState>);

struct TallyState {
    steps: Vec<StepTally>,
    /// Of each client: when it had its last answer as expected, at first its start.
    last_answers: Vec<Instant>,
}

/// What clients saw in one step. A request belongs to the step in which it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StepTally {
    pub(super) name: &'static str,
    /// Connections that clients opened.
    pub(super) connections: u64,
    /// Requests that were answered as expected.
    pub(super) answered: u64,
    /// Those that were not.
    pub(super) failed: u64,
    /// The longest time that one client was without an answer as expected.
    pub(super) longest_pause: Duration,
    /// Answers by the backend that gave them.
    pub(super) by_backend: BTreeMap<&'static str, u64>,
    /// What was wrong the first time.
    pub(super) first_failure: Option<String>,
    /// How long health checks took to notice what the step did.
    pub(super) noticed: Option<Duration>,
}

impl StepTally {
    pub(super) fn requests(&self) -> u64 {
        self.answered + self.failed
    }

    fn add(&mut self, other: &StepTally) {
        self.connections += other.connections;
        self.answered += other.answered;
        self.failed += other.failed;
        self.longest_pause = self.longest_pause.max(other.longest_pause);
        for (name, count) in &other.by_backend {
            *self.by_backend.entry(name).or_default() += count;
        }
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&other.first_failure);
        }
    }
}

impl Tally {
    /// Of a number of clients, which start now.
    pub(super) fn new(clients: usize, now: Instant) -> Tally {
        Tally(Mutex::new(TallyState { steps: Vec::new(), last_answers: vec![now; clients] }))
    }

    /// A step begins, unless it is the current one; the one before ends.
    pub(super) fn begin(&self, name: &'static str, now: Instant) {
        let mut state = self.state();
        if state.steps.last().is_some_and(|step| step.name == name) {
            return;
        }
        state.note_pauses(now);
        state.steps.push(StepTally { name, ..StepTally::default() });
    }

    /// The last step ends.
    pub(super) fn end(&self, now: Instant) {
        self.state().note_pauses(now);
    }

    /// Health checks have noticed what the step did.
    pub(super) fn noticed(&self, after: Duration) {
        self.state().step().noticed = Some(after);
    }

    /// A client has opened a connection.
    pub(super) fn connected(&self) {
        self.state().step().connections += 1;
    }

    /// A client has an answer as expected.
    pub(super) fn answered(&self, client: usize, backend: &'static str, now: Instant) {
        let mut state = self.state();
        let Some(last) = state.last_answers.get_mut(client) else { return };
        let pause = now.duration_since(std::mem::replace(last, now));
        let step = state.step();
        step.answered += 1;
        step.longest_pause = step.longest_pause.max(pause);
        *step.by_backend.entry(backend).or_default() += 1;
    }

    /// A request has failed.
    pub(super) fn failed(&self, why: String) {
        let mut state = self.state();
        let step = state.step();
        step.failed += 1;
        step.first_failure.get_or_insert(why);
    }

    /// Each step so far.
    pub(super) fn steps(&self) -> Vec<StepTally> {
        self.state().steps.clone()
    }

    /// All steps together.
    pub(super) fn total(&self) -> StepTally {
        let mut total = StepTally { name: "total", ..StepTally::default() };
        self.state().steps.iter().for_each(|step| total.add(step));
        total
    }

    fn state(&self) -> MutexGuard<'_, TallyState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TallyState {
    /// The current step. What comes before the first one is counted in one without a name.
    fn step(&mut self) -> &mut StepTally {
        if self.steps.is_empty() {
            self.steps.push(StepTally::default());
        }
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// Pauses that still last count in the step that ends.
    fn note_pauses(&mut self, now: Instant) {
        let longest = self.last_answers.iter().map(|last| now.duration_since(*last)).max().unwrap_or_default();
        if let Some(step) = self.steps.last_mut() {
            step.longest_pause = step.longest_pause.max(longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_belong_to_the_step_in_which_they_end() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let tally = Tally::new(2, start);
        tally.begin("first", start);
        tally.connected();
        tally.answered(0, "quick", at(10));
        tally.answered(1, "slow", at(30));
        tally.begin("second", at(40));
        tally.failed("reset".to_owned());
        tally.failed("refused".to_owned());
        tally.noticed(Duration::from_millis(7));
        // Client 0 waits since 10 ms; of client 1 the pause still lasts at the end.
        tally.answered(0, "quick", at(60));
        tally.end(at(150));
        let [first, second] = &tally.steps()[..] else { panic!("{:?}", tally.steps()) };
        assert_eq!((first.requests(), first.failed, first.longest_pause), (2, 0, Duration::from_millis(30)));
        assert_eq!((first.connections, first.by_backend["quick"], first.by_backend["slow"]), (1, 1, 1));
        assert_eq!((second.requests(), second.failed, second.longest_pause), (3, 2, Duration::from_millis(120)));
        assert_eq!(second.first_failure.as_deref(), Some("reset"));
        assert_eq!(second.noticed, Some(Duration::from_millis(7)));
        let total = tally.total();
        assert_eq!((total.answered, total.failed, total.by_backend["quick"]), (3, 2, 2));
        assert_eq!((total.longest_pause, total.first_failure.as_deref()), (Duration::from_millis(120), Some("reset")));
    }

    #[test]
    fn a_pause_that_spans_two_steps_counts_in_both() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let tally = Tally::new(1, start);
        tally.begin("first", start);
        tally.begin("second", at(100));
        tally.answered(0, "quick", at(130));
        let pauses: Vec<Duration> = tally.steps().iter().map(|step| step.longest_pause).collect();
        assert_eq!(pauses, [Duration::from_millis(100), Duration::from_millis(130)]);
    }
}
