//! Rules of a pool beyond the choice of a backend.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Checker, copied, optional_period, value};
use crate::config::located::Located;
use crate::config::model::{ListenerConfig, OutlierConfig, PersistConfig, PoolIndex, QueueConfig, Sniff};
use crate::config::raw::{RawPersistBy, RawPool};
use crate::config::report::Diagnostic;
use crate::config::scalars::{Percent, Period};

const EJECTION: Duration = Duration::from_secs(30);
const MAX_EJECTION: Duration = Duration::from_secs(300);
const MAX_EJECTED: u8 = 50;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
const PERSIST_TTL: Duration = Duration::from_secs(1800);

impl Checker<'_> {
    pub(super) fn outlier(&mut self, pool: &RawPool) -> Option<OutlierConfig> {
        let (raw, _) = value(pool.outlier.as_ref())?;
        let failures = self.number(raw.failures.as_ref(), 1..=10_000, 5);
        let ejection = self.positive(raw.ejection.as_ref(), EJECTION);
        let max_ejection = self.positive(raw.max_ejection.as_ref(), MAX_EJECTION.max(ejection));
        if max_ejection < ejection
            && let Some((_, at)) = value(raw.max_ejection.as_ref().or(raw.ejection.as_ref()))
        {
            let fault = format!("max_ejection {} is shorter than ejection {}", Period(max_ejection), Period(ejection));
            self.error(at, Diagnostic::new(fault).hint("ejections grow from `ejection` to `max_ejection`"));
        }
        Some(OutlierConfig {
            failures: positive_number(failures),
            window: optional_period(raw.window.as_ref(), Duration::ZERO),
            ejection,
            max_ejection,
            max_ejected: copied(raw.max_ejected.as_ref()).map_or(MAX_EJECTED, |Percent(percent)| percent),
            http_5xx: copied(raw.http_5xx.as_ref()).unwrap_or(false),
        })
    }

    /// Warns of `http_5xx` where no listener in front of the pool reads responses.
    pub(super) fn ejections_by_status(
        &mut self,
        listeners: &[ListenerConfig],
        raw: Option<&Located<Vec<Located<RawPool>>>>,
    ) {
        for (index, pool) in value(raw).map_or(&[][..], |(pools, _)| pools).iter().enumerate() {
            let outlier = value(Some(pool)).and_then(|(pool, _)| value(pool.outlier.as_ref()));
            let Some((true, at)) = outlier.and_then(|(outlier, _)| value(outlier.http_5xx.as_ref())) else { continue };
            let mut fronts =
                listeners.iter().filter(|listener| listener.pools().any(|pool| pool == PoolIndex(index))).peekable();
            // An unused pool is reported elsewhere.
            if fronts.peek().is_some() && fronts.all(|listener| listener.sniff != Sniff::Http) {
                let what = "has no effect: no listener in front of this pool has `sniff: http`";
                self.warning(at, Diagnostic::new(what).hint("add `sniff: http` to the listener, or remove `http_5xx`"));
            }
        }
    }

    pub(super) fn queue(&mut self, pool: &RawPool) -> QueueConfig {
        let Some((raw, _)) = value(pool.queue.as_ref()) else {
            return QueueConfig { size: 0, timeout: QUEUE_TIMEOUT };
        };
        QueueConfig {
            size: self.number(raw.size.as_ref(), 0..=1_000_000, 0) as u32,
            timeout: self.positive(raw.timeout.as_ref(), QUEUE_TIMEOUT),
        }
    }

    pub(super) fn persist(&mut self, pool: &RawPool) -> Option<PersistConfig> {
        let (raw, _) = value(pool.persist.as_ref())?;
        // There is no other yet.
        let RawPersistBy::ClientIp = copied(raw.by.as_ref()).unwrap_or(RawPersistBy::ClientIp);
        Some(PersistConfig {
            ttl: self.positive(raw.ttl.as_ref(), PERSIST_TTL),
            size: positive_number(self.number(raw.size.as_ref(), 1..=10_000_000, 100_000)),
        })
    }
}

/// A number whose range begins at 1.
fn positive_number(number: i64) -> NonZeroU32 {
    u32::try_from(number).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}
