//! Rules of a pool beyond the choice of a backend.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Checker, copied, optional_period, value};
use crate::config::located::Located;
use crate::config::model::{
    ListenerConfig, OutlierConfig, Persist, PersistConfig, PersistCookie, PoolIndex, QueueConfig, Sniff,
};
use crate::config::raw::{RawPersist, RawPersistBy, RawPool};
use crate::config::report::Diagnostic;
use crate::config::scalars::{CookieName, Percent, Period};
use crate::config::tree::NodeId;

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
            if fronts.peek().is_some() && fronts.all(|listener| !reads_responses(listener)) {
                let what = "has no effect: no listener in front of this pool has `protocol: http` or `sniff: http`";
                self.warning(at, Diagnostic::new(what).hint("add one to the listener, or remove `http_5xx`"));
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

    /// `None` if it is absent, or invalid, which is reported.
    pub(super) fn persist(&mut self, pool: &RawPool) -> Option<Persist> {
        let (raw, at) = value(pool.persist.as_ref())?;
        if is_by_cookie(raw) {
            return self.persist_cookie(raw, at).map(Persist::Cookie);
        }
        // Whether they are wrong depends on what could not be read.
        let is_unread = raw.by.as_ref().is_some_and(|key| key.value.is_none()) || self.is_typo_of(at, "by");
        let of_cookies = [raw.name.as_ref().map(|key| key.at), raw.same_site.as_ref().map(|key| key.at)];
        for at in of_cookies.into_iter().flatten().filter(|_| !is_unread) {
            let diagnostic = Diagnostic::new("requires `by: cookie`");
            self.error(
                at,
                diagnostic.hint("clients are known by their address: write `by: cookie`, or remove the key"),
            );
        }
        Some(Persist::ClientIp(PersistConfig {
            ttl: self.positive(raw.ttl.as_ref(), PERSIST_TTL),
            size: positive_number(self.number(raw.size.as_ref(), 1..=10_000_000, 100_000)),
        }))
    }

    fn persist_cookie(&mut self, raw: &RawPersist, at: NodeId) -> Option<PersistCookie> {
        if let Some(key) = &raw.size {
            let diagnostic = Diagnostic::new("`size` and `by: cookie` exclude each other");
            self.error(key.at, diagnostic.hint("remove it: the cookie names the backend, and no client is remembered"));
        }
        let hint = "name: the cookie's name, such as backend";
        let (CookieName(name), _) = self.required(raw.name.as_ref(), "name", at, hint)?;
        Some(PersistCookie {
            name: name.clone(),
            ttl: optional_period(raw.ttl.as_ref(), Duration::ZERO),
            same_site: copied(raw.same_site.as_ref()).unwrap_or_default(),
        })
    }
}

/// Whether clients are known by a cookie.
pub(super) fn is_by_cookie(persist: &RawPersist) -> bool {
    copied(persist.by.as_ref()) == Some(RawPersistBy::Cookie)
}

fn reads_responses(listener: &ListenerConfig) -> bool {
    listener.http.is_some() || listener.sniff == Sniff::Http
}

/// A number whose range begins at 1.
fn positive_number(number: i64) -> NonZeroU32 {
    u32::try_from(number).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}
