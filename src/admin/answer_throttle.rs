//! Rounds of answers, whose rate does not grow with the number of readers.
//!
//! Those who asked before a round began get their answers from it, each distinct one made once. So an answer is never older
//! than its question, the wait is bounded by one interval and the work of one round, and the cost does not grow with the number
//! of those who ask, but for sending.
//!
//! The thread's low priority does not bound the cost: while it is in the kernel, or takes what workers have measured,
//! a worker on the same CPU waits.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hyper::Response;
use hyper::body::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::rate_limit::RateLimit;
use super::response::{FullBody, ResponseBody};

/// From one round to the next when they are asked for without a pause.
const INTERVAL: Duration = Duration::from_millis(500);
/// Rounds without a wait after a pause: scripts that read page after page, and dashboards.
const BURST: u32 = 50;
/// Bodies of a round that are kept. More distinct answers are made one by one.
const MAX_KEPT_BYTES: usize = 32 << 20;

/// Makes answers in rounds.
#[derive(Debug)]
pub(super) struct AnswerThrottle {
    limit: RateLimit,
    /// When the current round began. Locked in the order of asking, by one answer at a time.
    round: Mutex<Instant>,
    /// Of the current round.
    kept: RefCell<Vec<Kept>>,
    /// Questions without an answer yet.
    waiting: Cell<usize>,
}

#[derive(Debug)]
struct Kept {
    question: String,
    head: Response<()>,
    body: Bytes,
}

impl AnswerThrottle {
    pub(super) fn new(now: Instant) -> AnswerThrottle {
        AnswerThrottle {
            limit: RateLimit::new(INTERVAL, BURST, now),
            round: Mutex::new(now),
            kept: RefCell::default(),
            waiting: Cell::new(0),
        }
    }

    /// The answer to a question. `make` gets the beginning of its round: what was read since then is new enough.
    pub(super) async fn answer<F>(&self, question: &str, make: impl FnOnce(Instant) -> F) -> Response<ResponseBody>
    where
        F: Future<Output = Response<ResponseBody>>,
    {
        let asked = Instant::now();
        let _waiting = WaitingReader::new(self);
        let mut round = self.round.lock().await;
        if *round < asked {
            self.limit.acquire().await;
            self.kept.borrow_mut().clear();
            *round = Instant::now();
        } else if let Some(kept) = self.kept(question) {
            return kept;
        }
        let answer = make(*round).await;
        self.keep(question, &answer);
        answer
    }

    fn kept(&self, question: &str) -> Option<Response<ResponseBody>> {
        let kept = self.kept.borrow();
        let Kept { head, body, .. } = kept.iter().find(|kept| kept.question == question)?;
        let mut answer = Response::new(FullBody(body.clone()).into_body());
        *answer.status_mut() = head.status();
        answer.headers_mut().clone_from(head.headers());
        Some(answer)
    }

    fn keep(&self, question: &str, answer: &Response<ResponseBody>) {
        let mut kept = self.kept.borrow_mut();
        let bytes: usize = kept.iter().map(|kept| kept.body.len()).sum();
        if let Some(FullBody(body)) = answer.extensions().get()
            && self.waiting.get() > 1
            && bytes + body.len() <= MAX_KEPT_BYTES
        {
            let mut head = Response::new(());
            *head.status_mut() = answer.status();
            head.headers_mut().clone_from(answer.headers());
            kept.push(Kept { question: question.to_owned(), head, body: body.clone() });
        }
    }
}

/// A question without an answer yet. The last one frees what was kept.
struct WaitingReader<'t>(&'t AnswerThrottle);

impl<'t> WaitingReader<'t> {
    fn new(throttle: &'t AnswerThrottle) -> WaitingReader<'t> {
        throttle.waiting.update(|waiting| waiting + 1);
        WaitingReader(throttle)
    }
}

impl Drop for WaitingReader<'_> {
    fn drop(&mut self) {
        self.0.waiting.update(|waiting| waiting - 1);
        if self.0.waiting.get() == 0 {
            self.0.kept.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http_body_util::BodyExt;
    use hyper::StatusCode;
    use tokio::task::LocalSet;
    use tokio::time::{advance, timeout};

    use super::super::response::whole;
    use super::*;

    /// A throttle whose answers say which they are.
    struct ThrottleFixture {
        throttle: AnswerThrottle,
        made: Cell<u32>,
    }

    impl ThrottleFixture {
        async fn new() -> ThrottleFixture {
            let stage = ThrottleFixture { throttle: AnswerThrottle::new(Instant::now()), made: Cell::new(0) };
            advance(Duration::from_millis(1)).await;
            stage
        }

        /// Uses up the burst, so that the next round waits for a whole interval.
        async fn exhaust(&self) {
            for _ in 0..BURST {
                self.throttle.limit.acquire().await;
            }
            advance(Duration::from_millis(1)).await;
        }

        async fn ask(&self, question: &str) -> String {
            let make = |began: Instant| async move {
                assert!(began <= Instant::now());
                self.made.set(self.made.get() + 1);
                whole(StatusCode::CREATED, "text/plain", format!("{question} {}", self.made.get()))
            };
            let answer = self.throttle.answer(question, make).await;
            assert_eq!(answer.status(), StatusCode::CREATED);
            assert_eq!(answer.headers()["content-type"], "text/plain");
            String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_round_answers_all_who_asked_before_it() {
        let stage = ThrottleFixture::new().await;
        assert_eq!(stage.ask("a").await, "a 1");
        advance(Duration::from_millis(1)).await;
        assert_eq!(stage.ask("a").await, "a 2", "as of now, not of a moment ago");
        stage.exhaust().await;
        let start = Instant::now();
        let (one, two, three, other) = tokio::join!(stage.ask("a"), stage.ask("a"), stage.ask("a"), stage.ask("b"));
        assert_eq!([one, two, three, other], ["a 3", "a 3", "a 3", "b 4"]);
        assert!(start.elapsed() <= INTERVAL, "{:?}", start.elapsed());
        assert_eq!(stage.throttle.kept.borrow().len(), 0, "no question is left");
    }

    /// The fault: 60 clients that ask at once, each of which waited for all before it.
    #[tokio::test(start_paused = true)]
    async fn wait_does_not_grow_with_the_number_of_questions() {
        let stage = Rc::new(ThrottleFixture::new().await);
        stage.exhaust().await;
        let (all, longest) = (LocalSet::new(), Rc::new(Cell::new(Duration::ZERO)));
        for number in 0..600 {
            let (stage, longest) = (Rc::clone(&stage), Rc::clone(&longest));
            all.spawn_local(async move {
                let question = (number % 7).to_string();
                for _ in 0..5 {
                    let asked = Instant::now();
                    stage.ask(&question).await;
                    longest.set(longest.get().max(asked.elapsed()));
                }
            });
        }
        all.await;
        assert!(longest.get() <= INTERVAL, "{:?}", longest.get());
        assert!(stage.made.get() <= 7 * 6, "{} answers were made", stage.made.get());
    }

    #[tokio::test(start_paused = true)]
    async fn question_that_is_dropped_uses_nothing_up() {
        let stage = ThrottleFixture::new().await;
        stage.exhaust().await;
        let left = timeout(INTERVAL / 2, stage.ask("a")).await;
        assert!(left.is_err() && stage.throttle.waiting.get() == 0 && stage.made.get() == 0);
        let start = Instant::now();
        assert_eq!(stage.ask("a").await, "a 1");
        assert!(start.elapsed() <= INTERVAL / 2, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn kept_bodies_are_bounded() {
        let (stage, most) = (Rc::new(ThrottleFixture::new().await), Rc::new(Cell::new(0)));
        stage.exhaust().await;
        let all = LocalSet::new();
        for number in 0..40 {
            let (stage, most) = (Rc::clone(&stage), Rc::clone(&most));
            all.spawn_local(async move {
                let large = |_| async { whole(StatusCode::OK, "text/plain", vec![0; MAX_KEPT_BYTES / 10]) };
                stage.throttle.answer(&number.to_string(), large).await;
                most.set(stage.throttle.kept.borrow().len().max(most.get()));
            });
        }
        all.await;
        assert_eq!(most.get(), 10);
    }
}
