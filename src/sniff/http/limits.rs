//! Limits of a head.

#![forbid(unsafe_code)]

/// Bytes in which a head must end.
pub const MAX_HEAD: usize = 16 * 1024;

/// Header fields of a head.
pub(super) const MAX_FIELDS: usize = 100;
