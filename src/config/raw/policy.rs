//! Rules of a pool beyond the choice of a backend, as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::located::Field;
use crate::config::model::SameSite;
use crate::config::scalars::{CookieName, Percent, Period};
use crate::config::scalars_serde::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawOutlier {
    /// Failed connects and TLS handshakes that eject a backend: in a row, or within window.
    #[schemars(extend("default" = 5), range(min = 1, max = 10_000))]
    pub(crate) failures: Field<Int>,
    /// Count failures within this time; 0s counts those in a row.
    #[schemars(extend("default" = "0s"))]
    pub(crate) window: Field<Period>,
    /// Length of the first ejection; the n-th in close succession lasts n times as long.
    #[schemars(extend("default" = "30s"))]
    pub(crate) ejection: Field<Period>,
    /// The longest ejection.
    #[schemars(extend("default" = "5m"))]
    pub(crate) max_ejection: Field<Period>,
    /// Backends that may be ejected at once, of those that are not drained, in maintenance or without weight; rounded down.
    #[schemars(extend("default" = "50%"))]
    pub(crate) max_ejected: Field<Percent>,
    /// HTTP responses with status 5xx count as failures; needs protocol: http or sniff: http at the listener.
    #[schemars(extend("default" = false))]
    pub(crate) http_5xx: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawQueue {
    /// Connections that may wait at once; 0 rejects them at once.
    #[schemars(extend("default" = 0), range(min = 0, max = 1_000_000))]
    pub(crate) size: Field<Int>,
    /// The longest wait.
    #[schemars(extend("default" = "5s"))]
    pub(crate) timeout: Field<Period>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPersist {
    /// What a client is known by.
    #[schemars(extend("default" = "client_ip"))]
    pub(crate) by: Field<RawPersistBy>,
    /// Time that a client is remembered after its last connection has ended. With by: cookie, the cookie's Max-Age, 0s by default:
    /// until the browser is closed.
    #[schemars(extend("default" = "30m"))]
    pub(crate) ttl: Field<Period>,
    /// Clients that are remembered; beyond that, the one not seen for the longest time is forgotten. Not with by: cookie.
    #[schemars(extend("default" = 100_000), range(min = 1, max = 10_000_000))]
    pub(crate) size: Field<Int>,
    /// With by: cookie, required: the cookie's name.
    pub(crate) name: Field<CookieName>,
    /// With by: cookie: requests of other sites that carry the cookie.
    #[schemars(extend("default" = "lax"))]
    pub(crate) same_site: Field<SameSite>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawPersistBy {
    /// The client's address, of which `hash` says how many bits count.
    ClientIp,
    /// A cookie that names the backend; for listeners with protocol: http only.
    Cookie,
}
