//! `pools`, as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::health::RawHealth;
use super::http::RawHttpPool;
use super::policy::{RawOutlier, RawPersist, RawQueue};
use super::tls::RawPoolTls;
use crate::config::located::{Field, Located};
use crate::config::model::{AdminState, OnConflict, OnDown};
use crate::config::scalars::{BackendEndpoint, Percent, Period, SourceAddress};
use crate::config::scalars_serde::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPool {
    /// Unique; referenced by `pool` of listeners and routes.
    #[schemars(required, length(min = 1, max = 128))]
    pub(crate) name: Field<String>,
    /// Load balancing algorithm.
    #[schemars(extend("default" = "round_robin"))]
    pub(crate) balance: Field<RawBalance>,
    /// With ip_hash: prefix length of the client address that is hashed.
    pub(crate) hash: Field<RawHash>,
    /// The servers. Without any, connections are closed until some are added.
    pub(crate) backends: Field<Vec<Located<RawBackend>>>,
    /// Health check: exactly one of tcp, http, exchange, tls, postgres, mysql, redis. Omit for none: backends are always up.
    pub(crate) health: Field<RawHealth>,
    /// Outlier ejection (circuit breaker, passive health): leave out backends whose connects fail. Omit for none.
    #[schemars(extend("x-given" = true))]
    pub(crate) outlier: Field<RawOutlier>,
    /// Percentage of backends that must be up; below it, all are used as if they were. 0% is off.
    #[schemars(extend("default" = "0%"))]
    pub(crate) fail_open: Field<Percent>,
    /// Connections of a backend that goes down.
    #[schemars(extend("default" = "keep"))]
    pub(crate) on_down: Field<OnDown>,
    /// With a check of `role: primary`: what to do while more than one backend states that it is the primary.
    #[schemars(extend("default" = "refuse"))]
    pub(crate) on_conflict: Field<OnConflict>,
    /// Ramp the weight up over this time after a backend comes up; 0s is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) slow_start: Field<Period>,
    /// Other backends to try when a connect fails; no client data has been sent by then.
    #[schemars(extend("default" = 2), range(min = 0, max = 100))]
    pub(crate) retries: Field<Int>,
    /// Session persistence (sticky sessions): a client stays with its backend while that one may take it. Omit for none.
    #[schemars(extend("x-given" = true))]
    pub(crate) persist: Field<RawPersist>,
    /// Connections that wait while no backend can take them: all full, or all down (failover).
    pub(crate) queue: Field<RawQueue>,
    /// Limits of the way to a backend.
    pub(crate) timeouts: Field<RawPoolTimeouts>,
    /// Send the client address by the PROXY protocol.
    #[schemars(extend("default" = "off"))]
    pub(crate) send_proxy: Field<RawSendProxy>,
    /// Local addresses to connect from, in turn.
    #[schemars(extend("default" = []))]
    pub(crate) source: Field<Vec<Located<SourceAddress>>>,
    /// TLS to the backends (re-encryption). Omit for plain TCP.
    #[schemars(extend("x-given" = true))]
    pub(crate) tls: Field<RawPoolTls>,
    /// HTTP to the backends; for listeners with protocol: http only.
    pub(crate) http: Field<RawHttpPool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawBalance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Alias of round_robin.
    WeightedRoundRobin,
    /// Fewest connections per weight.
    LeastConnections,
    /// Sticky sessions: weighted consistent hashing of the client address.
    IpHash,
    /// The less loaded of two random backends.
    PowerOfTwo,
    /// Lowest moving average (EWMA) of connect and first-byte time.
    LeastLatency,
    /// Weighted random.
    Random,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHash {
    /// Prefix length of IPv4 addresses.
    #[schemars(extend("default" = 32), range(min = 0, max = 32))]
    pub(crate) ipv4_prefix: Field<Int>,
    /// Prefix length of IPv6 addresses.
    #[schemars(extend("default" = 64), range(min = 0, max = 128))]
    pub(crate) ipv6_prefix: Field<Int>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBackend {
    /// Default: the address as written. Unique in the pool; identity for hashing, label in statistics.
    #[schemars(length(min = 1, max = 128))]
    pub(crate) name: Field<String>,
    /// Address and port, or unix:/path. Port * is that which the client connected to. A host name with several addresses is as
    /// many backends, NAME@ADDRESS.
    #[schemars(required)]
    pub(crate) address: Field<BackendEndpoint>,
    /// Share of the connections; 0 is no new connections.
    #[schemars(extend("default" = 1), range(min = 0, max = 1000))]
    pub(crate) weight: Field<Int>,
    /// Concurrent connections; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) max_connections: Field<Int>,
    /// Failover: used only while no other backend is available.
    #[schemars(extend("default" = false))]
    pub(crate) backup: Field<bool>,
    /// Administrative state: drain is no new connections, maintenance is no health checks either.
    #[schemars(extend("default" = "ready"))]
    pub(crate) state: Field<AdminState>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPoolTimeouts {
    /// Time limit of one connect.
    #[schemars(extend("default" = "5s"))]
    pub(crate) connect: Field<Period>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawSendProxy {
    /// No header.
    Off,
    /// Text.
    V1,
    /// Binary.
    V2,
}
