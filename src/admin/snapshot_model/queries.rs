//! Queries of databases.

use serde::{Deserialize, Serialize};

use crate::stats::queries::{PassthroughReason, QueryCounts, QueryProtocol};

/// What was seen of the queries of one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryStats {
    /// The protocol.
    pub protocol: QueryProtocol,
    /// Queries, answered or not.
    pub queries: u64,
    /// Those whose answer was an error.
    pub failed: u64,
    /// Those that were sent before the query ahead of them was answered.
    pub pipelined: u64,
    /// Those without an answer.
    pub no_response: u64,
    /// Those that were answered.
    pub statements: Vec<StatementCount>,
    /// Errors that servers sent.
    pub errors: Vec<QueryErrorCount>,
    /// Connections whose queries are no longer watched.
    pub passthrough: Vec<PassthroughCount>,
}

/// Answered queries of one statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementCount {
    /// Its first word or command in capitals, or `other`.
    pub statement: String,
    /// How many.
    pub count: u64,
}

/// Errors of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryErrorCount {
    /// The first two characters of an SQLSTATE, or the first word of an error of Redis; or `other`.
    pub class: String,
    /// How many.
    pub count: u64,
}

/// Connections that are not watched any more for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassthroughCount {
    /// The reason.
    pub reason: PassthroughReason,
    /// How many.
    pub count: u64,
}

impl QueryStats {
    /// One for each protocol of which anything was seen.
    pub(in crate::admin) fn of(counts: &QueryCounts) -> Vec<QueryStats> {
        let each = counts.protocols().map(|(protocol, counts)| QueryStats {
            protocol,
            queries: counts.queries(),
            failed: counts.failed(),
            pipelined: counts.pipelined(),
            no_response: counts.unanswered(),
            statements: counts
                .statements()
                .map(|(it, count)| StatementCount { statement: protocol.statement_name(it).to_owned(), count })
                .collect(),
            errors: counts
                .errors()
                .map(|(it, count)| QueryErrorCount { class: protocol.class_name(it).to_owned(), count })
                .collect(),
            passthrough: counts.passthrough().map(|(reason, count)| PassthroughCount { reason, count }).collect(),
        });
        each.collect()
    }
}
