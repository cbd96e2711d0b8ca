//! What is counted of queries.

use std::collections::BTreeMap;

use serde_json::Value;

use super::http::{ended, stats};
use super::tidegate::Tidegate;

/// What was seen of the queries of one protocol.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SeenQueries {
    pub(crate) failed: u64,
    pub(crate) pipelined: u64,
    pub(crate) unanswered: u64,
    /// `SELECT`, and how many.
    pub(crate) statements: BTreeMap<String, u64>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) opaque: BTreeMap<String, u64>,
}

pub(crate) fn numbers(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(of, count)| ((*of).to_owned(), *count)).collect()
}

fn counted(list: &Value, name: &str) -> BTreeMap<String, u64> {
    let rows = list.as_array().expect("a list").iter();
    rows.map(|row| (row[name].as_str().expect("a name").to_owned(), row["count"].as_u64().expect("a number"))).collect()
}

/// Of a listener or a backend.
pub(crate) fn queries_of(owner: &Value) -> SeenQueries {
    let Some(seen) = owner["queries"].as_array().and_then(|protocols| protocols.first()) else {
        return SeenQueries::default();
    };
    let number = |name: &str| seen[name].as_u64().expect("a number");
    let statements = counted(&seen["statements"], "statement");
    let unanswered = number("no_response");
    assert_eq!(number("queries"), statements.values().sum::<u64>() + unanswered);
    SeenQueries {
        failed: number("failed"),
        pipelined: number("pipelined"),
        unanswered,
        statements,
        errors: counted(&seen["errors"], "class"),
        opaque: counted(&seen["passthrough"], "reason"),
    }
}

/// The listener's and its backend's, which are the same, once their connections have ended; and times of each answer.
pub(crate) fn queries_everywhere(tidegate: &Tidegate) -> SeenQueries {
    ended(tidegate);
    let stats = stats(tidegate);
    let (listener, backend) = (&stats["listeners"][0], &stats["pools"][0]["backends"][0]);
    let seen = queries_of(listener);
    assert_eq!(queries_of(backend), seen);
    for stage in ["query_first_byte", "query"] {
        for owner in [listener, backend, &stats["pools"][0]] {
            let timed = owner["latency"][stage]["all"]["count"].as_u64().unwrap_or_default();
            assert_eq!(timed, seen.statements.values().sum::<u64>(), "{stage}");
        }
    }
    seen
}
