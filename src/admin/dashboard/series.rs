//! The histograms of the last seconds of one listener, pool or backend, for its heat map and its percentiles over time.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::admin::response::{ResponseBody, plain, whole};
use crate::stats::histogram::Histogram;
use crate::stats::latency::{Latencies, Measured, PoolMeasured, Stage};
use crate::stats::registry::{BackendId, ListenerId, PoolId};

/// The answer: each second in which something was measured, the oldest first.
#[derive(Debug, PartialEq, Serialize)]
struct Seconds {
    /// Now, since 1970.
    time: f64,
    /// The number of the last second that is over.
    second: u64,
    seconds: Vec<Second>,
}

/// Microseconds.
#[derive(Debug, PartialEq, Serialize)]
struct Second {
    second: u64,
    count: u64,
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    #[serde(rename = "p99.9")]
    p999: Option<u64>,
    max: u64,
    /// Smallest value, largest value, count.
    ranges: Vec<(u64, u64, u64)>,
}

/// What is asked for: `listener=0&stage=connect&after=17`, `pool=0`, or `backend=0`, by the ids that `/events` sends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SeriesQuery {
    of: Subject,
    stage: Stage,
    /// Seconds up to this one are known already.
    after: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    Listener(ListenerId),
    Pool(PoolId),
    Backend(BackendId),
}

/// What was measured of it.
enum SubjectStats<'a> {
    One(&'a Measured),
    Pool(PoolMeasured<'a>),
}

/// Answers `/series`: the last 10 seconds, or those after the one that the question names.
pub(in crate::admin) fn series(query: &str, latencies: &Latencies) -> Response<ResponseBody> {
    let Some(question) = SeriesQuery::parse(query) else {
        return plain(
            StatusCode::BAD_REQUEST,
            "ask for one listener, pool or backend by its id, and a stage: \
             /series?listener=0&stage=connect, /series?pool=0&stage=connect or \
             /series?backend=0&stage=turnaround\n",
        );
    };
    let found = match question.of {
        Subject::Listener(id) => latencies.listener(id).map(SubjectStats::One),
        Subject::Pool(id) => latencies.pool(id).map(SubjectStats::Pool),
        Subject::Backend(id) => latencies.backend(id).map(SubjectStats::One),
    };
    let Some(found) = found else {
        return plain(StatusCode::NOT_FOUND, "there is no listener, pool or backend with this id\n");
    };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    match serde_json::to_vec(&seconds(found, question, latencies.second(), time)) {
        Ok(text) => whole(StatusCode::OK, "application/json", text),
        // There are no keys but strings.
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "this cannot be written as JSON\n"),
    }
}

fn seconds(found: SubjectStats<'_>, question: SeriesQuery, second: u64, time: f64) -> Seconds {
    let (stage, after) = (question.stage, question.after);
    let of = |(second, histogram): (u64, Histogram)| Second::of(second, &histogram);
    let seconds = match found {
        SubjectStats::One(measured) => {
            measured.stage(stage).into_iter().flat_map(|it| it.seconds(after)).map(of).collect()
        }
        SubjectStats::Pool(pool) => pool.seconds(stage, after).map(of).collect(),
    };
    Seconds { time, second, seconds }
}

impl Second {
    fn of(second: u64, histogram: &Histogram) -> Second {
        let [p50, p90, p99, p999] =
            histogram.quantiles([0.5, 0.9, 0.99, 0.999]).map(|value| (histogram.count() > 0).then_some(value));
        Second {
            second,
            count: histogram.count(),
            p50,
            p90,
            p99,
            p999,
            max: histogram.max(),
            ranges: histogram.ranges().collect(),
        }
    }
}

impl SeriesQuery {
    /// `None` for one that is not understood: every key is known and has a value.
    fn parse(query: &str) -> Option<SeriesQuery> {
        let (mut of, mut stage, mut after) = (None, None, 0);
        for pair in query.split('&') {
            match pair.split_once('=')? {
                ("listener", id) if of.is_none() => of = Some(Subject::Listener(id.parse().ok()?)),
                ("pool", id) if of.is_none() => of = Some(Subject::Pool(id.parse().ok()?)),
                ("backend", id) if of.is_none() => of = Some(Subject::Backend(id.parse().ok()?)),
                ("stage", name) => stage = Some(Stage::named(name)?),
                ("after", second) => after = second.parse().ok()?,
                _ => return None,
            }
        }
        Some(SeriesQuery { of: of?, stage: stage?, after })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::latency::Sample;
    use crate::stats::registry::Registry;

    fn listener() -> ListenerId {
        Registry::default().listener()
    }

    fn one_of_each() -> Latencies {
        let registry = Registry::default();
        let pool = registry.pool();
        Latencies::new([listener()], [(pool, vec![registry.backend()])])
    }

    #[test]
    fn a_question_names_one_thing_and_a_stage() {
        let question = |of, after| Some(SeriesQuery { of, stage: Stage::Connect, after });
        assert_eq!(
            SeriesQuery::parse("listener=3&stage=connect"),
            question(Subject::Listener("3".parse().unwrap()), 0)
        );
        assert_eq!(SeriesQuery::parse("pool=2&stage=connect"), question(Subject::Pool("2".parse().unwrap()), 0));
        assert_eq!(
            SeriesQuery::parse("after=17&backend=999&stage=connect"),
            question(Subject::Backend("999".parse().unwrap()), 17)
        );
        for wrong in [
            "",
            "stage=connect",
            "listener=0",
            "listener=0&backend=0&stage=connect",
            "pool=0&backend=0&stage=connect",
            "listener=-1&stage=connect",
            "listener=0&stage=lunch",
            "listener=0&stage=connect&after=",
            "listener=0&stage=connect&window=10s",
            "listener=0&stage",
        ] {
            assert_eq!(SeriesQuery::parse(wrong), None, "{wrong}");
            assert_eq!(series(wrong, &one_of_each()).status(), StatusCode::BAD_REQUEST);
        }
        let latencies = one_of_each();
        assert_eq!(series("listener=0&stage=connect", &latencies).status(), StatusCode::OK);
        assert_eq!(series("listener=1&stage=connect", &latencies).status(), StatusCode::NOT_FOUND);
        assert_eq!(series("backend=1&stage=connect", &latencies).status(), StatusCode::NOT_FOUND);
        assert_eq!(series("pool=0&stage=connect", &latencies).status(), StatusCode::OK);
        assert_eq!(series("pool=1&stage=connect", &latencies).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn each_second_is_told_once() {
        let mut latencies = Latencies::new([listener()], []);
        let took = |micros| Sample::new(listener(), BackendId::NONE, Stage::Connect, Duration::from_micros(micros));
        let (mut after, mut told) = (0, Vec::new());
        for now in 1..=30 {
            // Nothing in every third second, and a reader that comes every seventh.
            if now % 3 != 0 {
                latencies.absorb(&[took(now), took(1000 * now), took(1000 * now)]);
            }
            latencies.advance(now);
            if now % 7 == 0 || now == 30 {
                let question = SeriesQuery { of: Subject::Listener(listener()), stage: Stage::Connect, after };
                let answer = seconds(
                    SubjectStats::One(latencies.listener(listener()).unwrap()),
                    question,
                    latencies.second(),
                    0.0,
                );
                assert_eq!(answer.second, now);
                told.extend(answer.seconds.iter().map(|second| second.second));
                for second in answer.seconds {
                    assert_eq!((second.count, second.max), (3, 1000 * second.second));
                    assert_eq!(second.ranges.iter().map(|(.., count)| count).sum::<u64>(), 3);
                    assert_eq!(second.p50, Some(1000 * second.second), "the largest value bounds it");
                }
                after = answer.second;
            }
        }
        assert_eq!(told, (1..=30).filter(|second| second % 3 != 0).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_second_to_begin_with_it_is_the_last_ten() {
        let mut latencies = Latencies::new([listener()], []);
        for now in 1..=30 {
            latencies.absorb(&[Sample::new(listener(), BackendId::NONE, Stage::Queue, Duration::ZERO)]);
            latencies.advance(now);
        }
        let question = SeriesQuery { of: Subject::Listener(listener()), stage: Stage::Queue, after: 0 };
        let answer = seconds(SubjectStats::One(latencies.listener(listener()).unwrap()), question, 30, 0.0);
        assert_eq!(
            answer.seconds.iter().map(|second| second.second).collect::<Vec<_>>(),
            (21..=30).collect::<Vec<_>>()
        );
    }
}
