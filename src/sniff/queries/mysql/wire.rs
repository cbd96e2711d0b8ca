//! The protocol.

#![forbid(unsafe_code)]

use crate::sniff::queries::event::Ended;
use crate::stats::queries::{PassthroughReason, QueryProtocol};

pub(super) const PROTOCOL: QueryProtocol = QueryProtocol::Mysql;

pub(super) const MALFORMED: Ended = Some(PassthroughReason::Malformed);
