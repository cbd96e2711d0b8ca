//! `pools` as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::health::RawHealth;
use super::tls::RawPoolTls;
use crate::config::located::{Field, Located};
use crate::config::model::OnDown;
use crate::config::scalars::{BackendEndpoint, Period, SourceAddress};
use crate::config::scalars_serde::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPool {
    /// Unique; what `pool` of a listener and of a route refers to.
    #[schemars(required, length(min = 1, max = 128))]
    pub(crate) name: Field<String>,
    /// How a backend is chosen.
    #[schemars(extend("default" = "round_robin"))]
    pub(crate) balance: Field<RawBalance>,
    /// Which leading bits of the client's address ip_hash looks at.
    pub(crate) hash: Field<RawHash>,
    /// The servers.
    #[schemars(required, length(min = 1))]
    pub(crate) backends: Field<Vec<Located<RawBackend>>>,
    /// How they are checked; exactly one of tcp, http, exchange. Left out, they are always up.
    pub(crate) health: Field<RawHealth>,
    /// What becomes of a backend's connections when it goes down.
    #[schemars(extend("default" = "keep"))]
    pub(crate) on_down: Field<OnDown>,
    /// A backend's weight grows to full over this time once it is up again; 0s is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) slow_start: Field<Period>,
    /// Further backends tried when a connect fails; nothing was sent yet.
    #[schemars(extend("default" = 2), range(min = 0, max = 100))]
    pub(crate) retries: Field<Int>,
    /// Bounds on the way to a backend.
    pub(crate) timeouts: Field<RawPoolTimeouts>,
    /// A PROXY protocol header is sent to the backends.
    #[schemars(extend("default" = "off"))]
    pub(crate) send_proxy: Field<RawSendProxy>,
    /// Local addresses to connect from, in turn.
    #[schemars(extend("default" = []))]
    pub(crate) source: Field<Vec<Located<SourceAddress>>>,
    /// TLS towards the backends. Left out: plain TCP.
    #[schemars(extend("x-given" = true))]
    pub(crate) tls: Field<RawPoolTls>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawBalance {
    /// Smooth and weighted.
    RoundRobin,
    /// The same as round_robin.
    WeightedRoundRobin,
    /// Fewest connections per weight.
    LeastConnections,
    /// Consistent placement by the client's address, weighted.
    IpHash,
    /// The less loaded of two random backends.
    PowerOfTwo,
    /// The least moving average of connect and first-byte time.
    LeastLatency,
    /// By weight, at random.
    Random,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHash {
    /// Bits of an IPv4 address.
    #[schemars(extend("default" = 32), range(min = 0, max = 32))]
    pub(crate) ipv4_prefix: Field<Int>,
    /// Bits of an IPv6 address.
    #[schemars(extend("default" = 64), range(min = 0, max = 128))]
    pub(crate) ipv6_prefix: Field<Int>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBackend {
    /// The identity that hashing and statistics keep; by default the address as written.
    #[schemars(length(min = 1, max = 128))]
    pub(crate) name: Field<String>,
    /// Where it listens.
    #[schemars(required)]
    pub(crate) address: Field<BackendEndpoint>,
    /// Its share; with 0 it gets no new connections.
    #[schemars(extend("default" = 1), range(min = 0, max = 1000))]
    pub(crate) weight: Field<Int>,
    /// Connections open at once to it; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) max_connections: Field<Int>,
    /// Used only when no other backend can be.
    #[schemars(extend("default" = false))]
    pub(crate) backup: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPoolTimeouts {
    /// One connect.
    #[schemars(extend("default" = "5s"))]
    pub(crate) connect: Field<Period>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawSendProxy {
    /// None is sent.
    Off,
    /// One line of text.
    V1,
    /// Binary.
    V2,
}
