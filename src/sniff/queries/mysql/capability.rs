//! Capabilities (`CLIENT_…` of MySQL, `MARIADB_CLIENT_…` in the upper half).

#![forbid(unsafe_code)]

/// MariaDB has none in the upper half where it is set.
pub(super) const MYSQL: u64 = 1;
pub(super) const CONNECT_WITH_DB: u64 = 1 << 3;
pub(super) const COMPRESS: u64 = 1 << 5;
pub(super) const PROTOCOL_41: u64 = 1 << 9;
pub(super) const SSL: u64 = 1 << 11;
pub(super) const SECURE_CONNECTION: u64 = 1 << 15;
pub(super) const AUTH_LENGTH: u64 = 1 << 21;
pub(super) const DEPRECATE_EOF: u64 = 1 << 24;
pub(super) const OPTIONAL_METADATA: u64 = 1 << 25;
pub(super) const ZSTD: u64 = 1 << 26;
pub(super) const QUERY_ATTRIBUTES: u64 = 1 << 27;
pub(super) const COM_MULTI: u64 = 1 << 33;
pub(super) const CACHE_METADATA: u64 = 1 << 36;
