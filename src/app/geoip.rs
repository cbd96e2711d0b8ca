//! What becomes of the database of countries when the configuration changes.

use std::sync::Arc;

use crate::config::files::CountryDatabase;
use crate::config::model::Config;
use crate::geoip::{DatabaseWatch, GeoIp};

/// A change that cannot fail any more.
pub(super) enum GeoIpChange {
    /// The same file, or none as before: what is in service stays, and its watch goes on.
    Same,
    /// Another one, or none.
    Other(Option<(Arc<CountryDatabase>, DatabaseWatch)>),
}

impl GeoIpChange {
    /// Reads the database if it is another one than before.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) async fn prepare(before: &Config, after: &Config) -> Result<GeoIpChange, String> {
        match &after.geoip {
            same if *same == before.geoip => Ok(GeoIpChange::Same),
            None => Ok(GeoIpChange::Other(None)),
            Some(geoip) => DatabaseWatch::open(&geoip.database).await.map(|opened| GeoIpChange::Other(Some(opened))),
        }
    }

    /// Puts it in service. Returns what then watches its file, unless that stays as it is.
    pub(super) fn commit(self, geoip: &Arc<GeoIp>) -> Option<Option<impl Future<Output = ()> + Send + 'static>> {
        let GeoIpChange::Other(opened) = self else { return None };
        let (database, watch) = opened.unzip();
        geoip.set(database);
        let geoip = Arc::clone(geoip);
        Some(watch.map(|watch| watch.run(geoip)))
    }
}
