//! The size of a head.

#![forbid(unsafe_code)]

/// Bytes in which a head must end.
pub const LIMIT: usize = 16 * 1024;

/// Fields of a head that are read.
pub(super) const MAX_FIELDS: usize = 100;
