//! The action of a call, and the form of its answer.

use std::time::Duration;

use hyper::StatusCode;

use crate::config::model::Balance;
use crate::control::request::Change;

#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// By the control thread.
    Apply(Change),
    /// Ends the connections of a backend.
    Cut { pool: String, name: String },
    /// Ends connections, by id or by a query without options.
    End { id: Option<String>, query: String },
}

/// The form of an answer.
#[derive(Debug, PartialEq)]
pub(super) enum AnswerForm {
    Changes,
    /// The same, and the file that was read.
    Reload,
    Backend {
        pool: String,
        name: String,
    },
    Pool {
        pool: String,
    },
    Listener {
        listener: String,
    },
    Removed {
        pool: String,
        name: String,
        cut: bool,
        wait: Duration,
    },
    /// As plain balancers have it, and so are the following.
    Server {
        pool: String,
        name: String,
    },
    ServerRemoved {
        pool: String,
        name: String,
    },
    Algorithm {
        pools: Vec<String>,
        algorithm: &'static str,
    },
}

/// A call that cannot be.
#[derive(Debug, PartialEq)]
pub(super) struct NoCall {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl NoCall {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> NoCall {
        NoCall { status, why: why.into() }
    }
}

/// A body or a query that cannot be read.
impl From<String> for NoCall {
    fn from(why: String) -> NoCall {
        NoCall::new(StatusCode::BAD_REQUEST, why)
    }
}

/// An algorithm by its name in the file.
pub(super) fn balance(name: &str) -> Option<Balance> {
    Balance::ALL.into_iter().find(|balance| balance.name() == name)
}
