//! Answers take little of the CPU, however many ask: what they take beyond a share of it is waited for, and who waits for
//! the same gets the same.
//!
//! The thread's low priority is not enough for that. While it is in the kernel, where sending is, a worker that shares its
//! CPU waits; so it does while readers on the same machine run, and while it hands over what it has measured. A percent of
//! the time is a percent of the requests that are delayed.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hyper::Response;
use hyper::body::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::http::{Body, Whole};

/// The share of one CPU that answers may take for long, 0.2 %, unless they take long each ...
const SHARE: f64 = 0.002;
/// ... as nobody waits longer than this for his turn to come.
const LONGEST: Duration = Duration::from_millis(500);
/// What they may take at once, in seconds of CPU time, after a time in which nobody asked: 60 to 120 answers.
const AT_ONCE: f64 = 0.05;
/// What an answer takes besides making it, in seconds of CPU time: the kernel's work for its connection and its bytes, and the
/// reader's own, which may well be on this machine.
const SENDING: f64 = 0.4e-3;
/// Answers that are kept for those who wait, and their bytes: whoever asks for ever others has them made.
const MOST_KEPT: usize = 16;
const MOST_BYTES: usize = 32 << 20;

/// How much of the CPU answers have taken.
#[derive(Debug)]
pub(super) struct Pace {
    /// CPU time that may be taken, in seconds; below zero, it is waited for.
    left: Cell<f64>,
    at: Cell<Instant>,
    /// Who has asked and has no answer yet.
    waiting: Cell<usize>,
    kept: RefCell<Vec<Kept>>,
    /// One answer is made at a time, in the order in which they were asked for.
    turn: Mutex<()>,
}

/// An answer, for those who asked the same before it was made.
#[derive(Debug)]
struct Kept {
    question: String,
    made: Instant,
    head: Response<()>,
    body: Bytes,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace {
            left: Cell::new(AT_ONCE),
            at: Cell::new(now),
            waiting: Cell::new(0),
            kept: RefCell::default(),
            turn: Mutex::default(),
        }
    }

    /// Time has passed.
    fn credit(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.at.replace(now));
        self.left.set((self.left.get() + passed.as_secs_f64() * SHARE).min(AT_ONCE));
    }

    /// How long to wait before another answer is given.
    fn wait(&self, now: Instant) -> Duration {
        self.credit(now);
        Duration::from_secs_f64((-self.left.get() / SHARE).max(0.0))
    }

    fn spend(&self, cpu_time: f64) {
        let least = -SHARE * LONGEST.as_secs_f64();
        self.left.set((self.left.get() - cpu_time).max(least));
    }

    /// The answer to a question, made after it was asked: for it alone, or for others too who wait for the same.
    pub(super) async fn answer(&self, question: &str, answer: impl Future<Output = Response<Body>>) -> Response<Body> {
        let asked = Instant::now();
        let _place = Place::new(self);
        let _turn = self.turn.lock().await;
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
            // Before anything is spent, which has an end at what is waited for at most.
            self.credit(Instant::now());
        }
        if let Some(kept) = self.kept(question, asked) {
            self.spend(SENDING);
            return kept;
        }
        let (made, before) = (Instant::now(), cpu_time());
        let answer = answer.await;
        self.spend(cpu_time() - before + SENDING);
        self.keep(question, &answer, made);
        answer
    }

    /// An answer to this question that was made since it was asked. Older ones are for nobody any more: turns are in the
    /// order of asking.
    fn kept(&self, question: &str, asked: Instant) -> Option<Response<Body>> {
        let mut kept = self.kept.borrow_mut();
        kept.retain(|kept| kept.made >= asked);
        let Kept { head, body, .. } = kept.iter().find(|kept| kept.question == question)?;
        let mut answer = Response::new(Whole(body.clone()).into_body());
        *answer.status_mut() = head.status();
        answer.headers_mut().clone_from(head.headers());
        Some(answer)
    }

    fn keep(&self, question: &str, answer: &Response<Body>, made: Instant) {
        let mut kept = self.kept.borrow_mut();
        let bytes: usize = kept.iter().map(|kept| kept.body.len()).sum();
        // What comes bit by bit can be given once.
        if let Some(Whole(body)) = answer.extensions().get()
            && self.waiting.get() > 1
            && kept.len() < MOST_KEPT
            && bytes + body.len() <= MOST_BYTES
        {
            let mut head = Response::new(());
            *head.status_mut() = answer.status();
            head.headers_mut().clone_from(answer.headers());
            kept.push(Kept { question: question.to_owned(), made, head, body: body.clone() });
        }
    }
}

/// Of one who waits for an answer.
struct Place<'p>(&'p Pace);

impl<'p> Place<'p> {
    fn new(pace: &'p Pace) -> Place<'p> {
        pace.waiting.update(|waiting| waiting + 1);
        Place(pace)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.update(|waiting| waiting - 1);
        if self.0.waiting.get() == 0 {
            self.0.kept.take();
        }
    }
}

/// CPU time of this thread, in seconds.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http_body_util::BodyExt;
    use hyper::StatusCode;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::super::http::whole;
    use super::*;

    #[test]
    fn for_long_answers_take_no_more_than_their_share() {
        let start = Instant::now();
        let (pace, mut now, mut spent) = (Pace::new(start), start, 0.0);
        for _ in 0..10_000 {
            now += pace.wait(now);
            assert!(pace.wait(now) < Duration::from_micros(1));
            pace.spend(0.0003);
            spent += 0.0003;
        }
        let share = (spent - AT_ONCE) / (now - start).as_secs_f64();
        assert!((share - SHARE).abs() < SHARE / 50.0, "{share}");
    }

    #[test]
    fn nobody_waits_long_for_his_turn() {
        let start = Instant::now();
        let pace = Pace::new(start);
        (0..10).for_each(|_| pace.spend(1.0));
        let wait = pace.wait(start);
        assert!(wait.abs_diff(LONGEST) < Duration::from_micros(1), "{wait:?}");
    }

    #[test]
    fn who_asks_seldom_does_not_wait() {
        let (start, cost) = (Instant::now(), 0.015);
        let pace = Pace::new(start);
        for second in (0..1000).step_by(10) {
            assert_eq!(pace.wait(start + Duration::from_secs(second)), Duration::ZERO, "{second}");
            pace.spend(cost);
        }
        // And what was not used is not saved up for ever.
        pace.wait(start + Duration::from_secs(100_000));
        assert_eq!(pace.left.get(), AT_ONCE);
    }

    /// An answer that says which it is.
    async fn ask(pace: &Pace, question: &str, made: &Cell<u32>) -> String {
        let make = async {
            made.set(made.get() + 1);
            whole(StatusCode::CREATED, "text/plain", format!("{question} {}", made.get()))
        };
        let answer = pace.answer(question, make).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.headers()["content-type"], "text/plain");
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_the_same_get_the_same() {
        let (pace, made) = (Pace::new(Instant::now()), Cell::new(0));
        assert_eq!(ask(&pace, "a", &made).await, "a 1");
        assert_eq!(ask(&pace, "a", &made).await, "a 2", "what is true now, and not a moment ago");
        (0..10).for_each(|_| pace.spend(1.0));
        let start = Instant::now();
        let (one, two, three, other) = tokio::join!(
            ask(&pace, "a", &made),
            ask(&pace, "a", &made),
            ask(&pace, "a", &made),
            ask(&pace, "b", &made)
        );
        assert_eq!([one, two, three, other], ["a 3", "a 3", "a 3", "b 4"]);
        let took = start.elapsed();
        assert!(took > LONGEST + Duration::from_secs_f64(3.0 * SENDING / SHARE) && took < LONGEST * 4, "{took:?}");
        assert_eq!(pace.kept.borrow().len(), 0, "nobody waits any more");
        assert_eq!(ask(&pace, "a", &made).await, "a 5", "nobody gets what was made before he asked");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_waits_no_more() {
        let (pace, made) = (Pace::new(Instant::now()), Cell::new(0));
        pace.spend(1.0);
        let left = timeout(LONGEST / 2, ask(&pace, "a", &made)).await;
        assert!(left.is_err() && pace.waiting.get() == 0 && made.get() == 0);
        assert_eq!(ask(&pace, "a", &made).await, "a 1");
    }

    /// As the questions of a page that asks for what is new each second: each is another one.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_for_those_who_have_their_answers() {
        let (pace, made) = (Pace::new(Instant::now()), Cell::new(0));
        pace.spend(1.0);
        let always_somebody = async {
            for number in 0..4 * MOST_KEPT {
                ask(&pace, &number.to_string(), &made).await;
            }
        };
        let others = async {
            for _ in 0..4 * MOST_KEPT {
                ask(&pace, "a", &made).await;
                assert!(pace.kept.borrow().len() <= 2);
            }
        };
        tokio::join!(always_somebody, others);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded() {
        let (pace, most) = (Rc::new(Pace::new(Instant::now())), Rc::new(Cell::new((0, 0))));
        pace.spend(1.0);
        let all = LocalSet::new();
        for number in 0..40 {
            let (pace, most) = (Rc::clone(&pace), Rc::clone(&most));
            all.spawn_local(async move {
                let large = async { whole(StatusCode::OK, "text/plain", vec![0; MOST_BYTES / 20 * (number % 4)]) };
                pace.answer(&number.to_string(), large).await;
                let kept = pace.kept.borrow();
                let bytes: usize = kept.iter().map(|kept| kept.body.len()).sum();
                most.set((most.get().0.max(kept.len()), most.get().1.max(bytes)));
            });
        }
        all.await;
        assert_eq!(most.get().0, MOST_KEPT);
        assert!(most.get().1 <= MOST_BYTES && most.get().1 > MOST_BYTES / 2, "{most:?}");
    }
}
