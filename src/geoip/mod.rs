//! The countries of clients: the database in service, and its replacement when its file changes.

mod in_service;
mod watch;

pub use self::in_service::{GeoIp, GeoIpReloads};
pub use self::watch::DatabaseWatch;
