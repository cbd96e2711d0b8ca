//! `pools` as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Health, Key, PoolTls};
use crate::config::de::Located;
use crate::config::units::{Period, SourceAddress, Target};
use crate::config::words::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    /// Unique; what `pool` of a listener and of a route refers to.
    #[schemars(required, length(min = 1, max = 128))]
    pub(crate) name: Key<String>,
    /// How a backend is chosen.
    #[schemars(extend("default" = "round_robin"))]
    pub(crate) balance: Key<Balance>,
    /// Which leading bits of the client's address ip_hash looks at.
    pub(crate) hash: Key<Hash>,
    /// The servers.
    #[schemars(required, length(min = 1))]
    pub(crate) backends: Key<Vec<Located<Backend>>>,
    /// How they are checked; exactly one of tcp, http, exchange. Left out, they are always up.
    pub(crate) health: Key<Health>,
    /// What becomes of a backend's connections when it goes down.
    #[schemars(extend("default" = "keep"))]
    pub(crate) on_down: Key<OnDown>,
    /// A backend's weight grows to full over this time once it is up again; 0s is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) slow_start: Key<Period>,
    /// Further backends tried when a connect fails; nothing was sent yet.
    #[schemars(extend("default" = 2), range(min = 0, max = 100))]
    pub(crate) retries: Key<Int>,
    /// Bounds on the way to a backend.
    pub(crate) timeouts: Key<PoolTimeouts>,
    /// A PROXY protocol header is sent to the backends.
    #[schemars(extend("default" = "off"))]
    pub(crate) send_proxy: Key<SendProxy>,
    /// Local addresses to connect from, in turn.
    #[schemars(extend("default" = []))]
    pub(crate) source: Key<Vec<Located<SourceAddress>>>,
    /// TLS towards the backends. Left out: plain TCP.
    #[schemars(extend("x-given" = true))]
    pub(crate) tls: Key<PoolTls>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
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
pub(crate) struct Hash {
    /// Bits of an IPv4 address.
    #[schemars(extend("default" = 32), range(min = 0, max = 32))]
    pub(crate) ipv4_prefix: Key<Int>,
    /// Bits of an IPv6 address.
    #[schemars(extend("default" = 64), range(min = 0, max = 128))]
    pub(crate) ipv6_prefix: Key<Int>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    /// The identity that hashing and statistics keep; by default the address as written.
    #[schemars(length(min = 1, max = 128))]
    pub(crate) name: Key<String>,
    /// Where it listens.
    #[schemars(required)]
    pub(crate) address: Key<Target>,
    /// Its share; with 0 it gets no new connections.
    #[schemars(extend("default" = 1), range(min = 0, max = 1000))]
    pub(crate) weight: Key<Int>,
    /// Connections open at once to it; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) max_connections: Key<Int>,
    /// Used only when no other backend can be.
    #[schemars(extend("default" = false))]
    pub(crate) backup: Key<bool>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnDown {
    /// They go on.
    Keep,
    /// They are closed.
    Cut,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolTimeouts {
    /// One connect.
    #[schemars(extend("default" = "5s"))]
    pub(crate) connect: Key<Period>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SendProxy {
    /// None is sent.
    Off,
    /// One line of text.
    V1,
    /// Binary.
    V2,
}
