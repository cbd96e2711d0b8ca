//! The configuration as typed: one field a key, nothing resolved, nothing checked but the form of each
//! value. The descriptions, defaults and ranges here are what `tidegate schema` prints; a test holds
//! the defaults to those in effect.
//!
//! Every key is an `Option`, also a required one, so that its absence is reported with everything
//! else by [`check`](super::check) and does not end the reading.

#![allow(dead_code, reason = "a key that is not supported yet is refused while it is read and looked at no more")]

use schemars::JsonSchema;
use serde::Deserialize;

use super::de::{Located, NotYet, OneOrMany};
use super::later;
use super::units::{AccessTarget, BindAddress, Period, SourceAddress, StatusRange, Target};
use super::words::{Int, Switch, Workers};

/// A key that may be left out, and why it may be a hole is said at [`Located`].
type Key<T> = Option<Located<T>>;

/// Configuration of tidegate, a Layer-4 load balancer.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "tidegate")]
pub(crate) struct Config {
    /// Data-plane threads; auto is one per CPU that this process may use.
    #[schemars(extend("default" = "auto"))]
    pub(crate) workers: Key<Workers>,
    /// The stats port. Left out, there is none.
    #[serde(default)]
    pub(crate) admin: NotYet<later::Admin>,
    /// What is logged, and how.
    pub(crate) log: Key<Log>,
    /// How the process ends.
    pub(crate) shutdown: Key<Shutdown>,
    /// Where connections are accepted.
    #[schemars(required, length(min = 1))]
    pub(crate) listeners: Key<Vec<Located<Listener>>>,
    /// Where they go.
    #[schemars(required, length(min = 1))]
    pub(crate) pools: Key<Vec<Located<Pool>>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// The least severe level that is written; the environment's RUST_LOG wins over it.
    #[schemars(extend("default" = "info"))]
    pub(crate) level: Key<Level>,
    /// text for people, json for machines.
    #[schemars(extend("default" = "text"))]
    pub(crate) format: Key<Format>,
    /// off, stderr or a file's path: one line per finished connection.
    #[schemars(extend("default" = "off"))]
    pub(crate) access: Key<AccessTarget>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shutdown {
    /// On SIGTERM: accept no more, wait this long for connections to end, then cut them.
    #[schemars(extend("default" = "30s"))]
    pub(crate) drain: Key<Period>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// Unique; used in logs and metrics.
    #[schemars(required, length(min = 1, max = 128))]
    pub(crate) name: Key<String>,
    /// One address or a list. Port 0 lets the kernel choose.
    #[schemars(required)]
    pub(crate) bind: Key<OneOrMany<BindAddress>>,
    /// tcp or udp.
    #[serde(default)]
    #[schemars(extend("default" = "tcp"))]
    pub(crate) protocol: NotYet<later::Protocol>,
    /// The pool that connections go to.
    #[schemars(required)]
    pub(crate) pool: Key<String>,
    /// Connections open at once; over it, they wait in the kernel's queue. 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) max_connections: Key<Int>,
    /// Whether HTTP/1.x is watched as it goes by.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub(crate) sniff: NotYet<later::Sniff>,
    /// The first route that matches gives the pool.
    #[serde(default)]
    pub(crate) routes: NotYet<Vec<later::Route>>,
    /// TLS is terminated here. Left out: plain TCP, or TLS passthrough.
    #[serde(default)]
    pub(crate) tls: NotYet<later::ListenerTls>,
    /// A PROXY protocol header is taken from these peers.
    #[serde(default)]
    pub(crate) proxy_protocol: NotYet<later::ProxyProtocol>,
    /// Who may connect.
    #[serde(default)]
    pub(crate) access: NotYet<later::Access>,
    /// Limits over which a connection is closed at once.
    #[serde(default)]
    pub(crate) limits: NotYet<later::Limits>,
    /// Bounds on the phases of a connection; 0s is no limit.
    pub(crate) timeouts: Key<ListenerTimeouts>,
    /// Options of the sockets.
    pub(crate) socket: Key<Socket>,
    /// Flows of protocol udp.
    #[serde(default)]
    pub(crate) udp: NotYet<later::Udp>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerTimeouts {
    /// First bytes: ClientHello, PROXY header, STARTTLS, HTTP head.
    #[serde(default)]
    #[schemars(extend("default" = "5s"))]
    pub(crate) sniff: NotYet<Period>,
    /// TLS handshake.
    #[serde(default)]
    #[schemars(extend("default" = "10s"))]
    pub(crate) handshake: NotYet<Period>,
    /// No byte in either direction for this long.
    #[schemars(extend("default" = "1h"))]
    pub(crate) idle: Key<Period>,
    /// One side has finished, and the other has been silent for this long.
    #[schemars(extend("default" = "1m"))]
    pub(crate) half_close: Key<Period>,
    /// A connection is closed at this age, give or take 10 %.
    #[schemars(extend("default" = "0s"))]
    pub(crate) lifetime: Key<Period>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Socket {
    /// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
    #[schemars(extend("default" = 4096), range(min = 1, max = 2_147_483_647))]
    pub(crate) backlog: Key<Int>,
    /// TCP_NODELAY on both sides.
    #[schemars(extend("default" = true))]
    pub(crate) nodelay: Key<bool>,
    /// Idle time before the first keepalive probe, on both sides, in whole seconds; 0s is off.
    #[schemars(extend("default" = "60s"))]
    pub(crate) keepalive: Key<Period>,
    /// TCP_FASTOPEN: requests with data in the SYN that may be pending; 0 is off.
    #[schemars(extend("default" = 0), range(min = 0, max = 65535))]
    pub(crate) fast_open: Key<Int>,
    /// TCP_DEFER_ACCEPT: a connection is accepted once it has sent a byte, or after this long; 0s is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) defer_accept: Key<Period>,
    /// Multipath TCP.
    #[schemars(extend("default" = false))]
    pub(crate) mptcp: Key<bool>,
    /// auto: a listening socket for each worker, and no other process may bind the port;
    /// true: other processes may too; false: one socket that all workers accept from.
    #[schemars(extend("default" = "auto"))]
    pub(crate) reuse_port: Key<Switch>,
    /// IP_TRANSPARENT: bind to an address that is not this host's.
    #[schemars(extend("default" = false))]
    pub(crate) transparent: Key<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    /// Unique; what `pool` of a listener refers to.
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
    /// Ejection after failed connects in a row.
    #[serde(default)]
    pub(crate) outlier: NotYet<later::Outlier>,
    /// When fewer than this are up, all are used as if they were.
    #[serde(default)]
    #[schemars(extend("default" = "0%"))]
    pub(crate) fail_open: NotYet<super::units::Percent>,
    /// What becomes of a backend's connections when it goes down.
    #[schemars(extend("default" = "keep"))]
    pub(crate) on_down: Key<OnDown>,
    /// A backend's weight grows to full over this time once it is up again; 0s is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) slow_start: Key<Period>,
    /// Further backends tried when a connect fails; nothing was sent yet.
    #[schemars(extend("default" = 2), range(min = 0, max = 100))]
    pub(crate) retries: Key<Int>,
    /// Connections that wait when no backend can take them.
    #[serde(default)]
    pub(crate) queue: NotYet<later::Queue>,
    /// Bounds on the way to a backend.
    pub(crate) timeouts: Key<PoolTimeouts>,
    /// A PROXY protocol header is sent to the backends.
    #[serde(default)]
    #[schemars(extend("default" = "off"))]
    pub(crate) send_proxy: NotYet<later::SendProxy>,
    /// Local addresses to connect from, in turn.
    #[schemars(extend("default" = []))]
    pub(crate) source: Key<Vec<Located<SourceAddress>>>,
    /// TLS towards the backends. Left out: plain TCP.
    #[serde(default)]
    pub(crate) tls: NotYet<later::PoolTls>,
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

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    /// A connect is enough.
    pub(crate) tcp: Key<Tcp>,
    /// A request, and the status and perhaps the body of its answer.
    pub(crate) http: Key<Http>,
    /// A TLS handshake.
    #[serde(default)]
    pub(crate) tls: NotYet<later::HealthTls>,
    /// Bytes sent, bytes expected.
    pub(crate) exchange: Key<Exchange>,
    /// A login and the server's role.
    #[serde(default)]
    pub(crate) postgres: NotYet<later::Postgres>,
    /// A login and the server's role.
    #[serde(default)]
    pub(crate) mysql: NotYet<later::Mysql>,
    /// A PING and the server's role.
    #[serde(default)]
    pub(crate) redis: NotYet<later::Redis>,
    /// From the start of a probe to the start of the next, give or take 10 %.
    #[schemars(extend("default" = "2s"))]
    pub(crate) interval: Key<Period>,
    /// How long one probe may take.
    #[schemars(extend("default" = "1s"))]
    pub(crate) timeout: Key<Period>,
    /// Passes in a row until up.
    #[schemars(extend("default" = 2), range(min = 1, max = 1000))]
    pub(crate) rise: Key<Int>,
    /// Failures in a row until down.
    #[schemars(extend("default" = 3), range(min = 1, max = 1000))]
    pub(crate) fall: Key<Int>,
    /// The port that is probed; 0 is the backend's own.
    #[schemars(extend("default" = 0), range(min = 0, max = 65535))]
    pub(crate) port: Key<Int>,
    /// probe: down until the first pass, and one is enough; up: up until `fall` failures.
    #[schemars(extend("default" = "probe"))]
    pub(crate) initial: Key<Initial>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Initial {
    Probe,
    Up,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tcp {}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    /// What is asked for.
    #[schemars(extend("default" = "/health"), regex(pattern = "^/"))]
    pub(crate) path: Key<String>,
    /// How it is asked for.
    #[schemars(extend("default" = "GET"))]
    pub(crate) method: Key<String>,
    /// The Host header; by default the probed address.
    pub(crate) host: Key<String>,
    /// Statuses that pass.
    #[schemars(extend("default" = "200-399"))]
    pub(crate) status: Key<StatusRange>,
    /// A substring that the body must have.
    pub(crate) body: Key<String>,
    /// Ask over TLS.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(crate) tls: NotYet<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// Sent once connected; left out, the server speaks first. In double quotes \r and \n are one byte.
    #[schemars(extend("default" = ""))]
    pub(crate) send: Key<String>,
    /// What the answer must begin with.
    #[schemars(required, length(min = 1))]
    pub(crate) expect: Key<String>,
}
