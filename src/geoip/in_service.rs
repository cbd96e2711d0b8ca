//! The database in service.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use crate::config::files::CountryDatabase;
use crate::net::country::Country;

/// The database in service, if there is one. Lookups take no lock.
#[derive(Debug, Default)]
pub struct GeoIp {
    database: ArcSwapOption<CountryDatabase>,
    reloads: Mutex<GeoIpReloads>,
}

/// What became of changes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GeoIpReloads {
    /// Changes that went into service.
    pub replaced: u64,
    /// Changes that were rejected, each content once.
    pub rejected: u64,
    /// Why the present content of the file is not in service; `None` when it is.
    pub fault: Option<String>,
}

impl GeoIp {
    /// The country of an address; `None` where it is not known, or there is no database.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        self.database.load().as_ref()?.countries.get(address)
    }

    /// The database in service.
    pub fn database(&self) -> Option<Arc<CountryDatabase>> {
        self.database.load_full()
    }

    /// Puts another database in service, or none: the configuration says so.
    pub fn set(&self, database: Option<Arc<CountryDatabase>>) {
        self.database.store(database);
        self.update(|reloads| reloads.fault = None);
    }

    /// What became of changes of the file so far.
    pub fn reloads(&self) -> GeoIpReloads {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file has changed, and its content goes into service.
    pub(super) fn replace(&self, database: CountryDatabase) {
        self.database.store(Some(Arc::new(database)));
        self.update(|reloads| (reloads.replaced, reloads.fault) = (reloads.replaced + 1, None));
    }

    /// The file has changed, and its content cannot be used.
    pub(super) fn reject(&self, fault: String) {
        self.update(|reloads| (reloads.rejected, reloads.fault) = (reloads.rejected + 1, Some(fault)));
    }

    fn update(&self, change: impl FnOnce(&mut GeoIpReloads)) {
        change(&mut self.reloads.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
