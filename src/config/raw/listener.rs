//! `listeners` as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::RawListenerTls;
use crate::config::located::{Field, Located, OneOrMany};
use crate::config::model::Sniff;
use crate::config::scalars::{BindAddress, Frequency, HostRule, NameRule, Network, PathPrefix, Period, ProtocolName};
use crate::config::scalars_serde::{Int, Switch};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawListener {
    /// Unique; used in logs and metrics.
    #[schemars(required, length(min = 1, max = 128))]
    pub(crate) name: Field<String>,
    /// One address or a list. Port 0 lets the kernel choose.
    #[schemars(required)]
    pub(crate) bind: Field<OneOrMany<BindAddress>>,
    /// The pool that connections go to when no route matches.
    #[schemars(required)]
    pub(crate) pool: Field<String>,
    /// Connections open at once; over it, they wait in the kernel's queue. 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) max_connections: Field<Int>,
    /// Whether HTTP/1.x is watched as it goes by.
    #[schemars(extend("default" = "off"))]
    pub(crate) sniff: Field<Sniff>,
    /// The first route that matches gives the pool. Without `tls`, the ClientHello is read and passed on unopened.
    pub(crate) routes: Field<Vec<Located<RawRoute>>>,
    /// TLS is terminated here. Left out: plain TCP, or TLS passthrough.
    #[schemars(extend("x-given" = true))]
    pub(crate) tls: Field<RawListenerTls>,
    /// A PROXY protocol header is taken from these peers; v1 and v2 are told apart by themselves.
    #[schemars(extend("x-given" = true))]
    pub(crate) proxy_protocol: Field<RawProxyProtocol>,
    /// Limits over which a connection is closed at once.
    pub(crate) limits: Field<RawLimits>,
    /// Bounds on the phases of a connection; 0s is no limit.
    pub(crate) timeouts: Field<RawListenerTimeouts>,
    /// Options of the sockets.
    pub(crate) socket: Field<RawSocket>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRoute {
    /// What a connection must be like; all given keys must match.
    #[schemars(required)]
    pub(crate) r#match: Field<RawMatch>,
    /// Where what matches goes.
    #[schemars(required)]
    pub(crate) pool: Field<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct RawMatch {
    /// Names of the server that was asked for (SNI), one of which must fit; `*.` stands for one label.
    #[schemars(length(min = 1))]
    pub(crate) sni: Field<Vec<Located<NameRule>>>,
    /// Application protocols, one of which must be the connection's.
    #[schemars(length(min = 1))]
    pub(crate) alpn: Field<Vec<Located<ProtocolName>>>,
    /// Hosts that the first request is for, one of which must fit; `*.` stands for one label. Needs sniff: http.
    #[schemars(length(min = 1))]
    pub(crate) host: Field<Vec<Located<HostRule>>>,
    /// Beginnings of the first request's path, one of which must fit; `/a` fits `/ab` too. Needs sniff: http.
    #[schemars(length(min = 1))]
    pub(crate) path_prefix: Field<Vec<Located<PathPrefix>>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawProxyProtocol {
    /// Networks and addresses; a header from any other peer closes the connection.
    #[schemars(required, length(min = 1))]
    pub(crate) trusted: Field<Vec<Located<Network>>>,
    /// false: peers in trusted may also send none.
    #[schemars(extend("default" = true))]
    pub(crate) required: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLimits {
    /// Connections that one address may have open; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) connections_per_ip: Field<Int>,
    /// Connections that one address may make, such as 20/s; 0 is no limit.
    #[schemars(extend("default" = 0))]
    pub(crate) connection_rate_per_ip: Field<Frequency>,
    /// Connections over the whole listener, such as 1000/s; 0 is no limit.
    #[schemars(extend("default" = 0))]
    pub(crate) connection_rate: Field<Frequency>,
    /// TLS handshakes under way at once; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) handshakes: Field<Int>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawListenerTimeouts {
    /// First bytes: ClientHello, PROXY header, STARTTLS, HTTP head.
    #[schemars(extend("default" = "5s"))]
    pub(crate) sniff: Field<Period>,
    /// TLS handshake.
    #[schemars(extend("default" = "10s"))]
    pub(crate) handshake: Field<Period>,
    /// No byte in either direction for this long.
    #[schemars(extend("default" = "1h"))]
    pub(crate) idle: Field<Period>,
    /// One side has finished, and the other has been silent for this long.
    #[schemars(extend("default" = "1m"))]
    pub(crate) half_close: Field<Period>,
    /// A connection is closed at this age, give or take 10 %.
    #[schemars(extend("default" = "0s"))]
    pub(crate) lifetime: Field<Period>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSocket {
    /// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
    #[schemars(extend("default" = 4096), range(min = 1, max = 2_147_483_647))]
    pub(crate) backlog: Field<Int>,
    /// TCP_NODELAY on both sides.
    #[schemars(extend("default" = true))]
    pub(crate) nodelay: Field<bool>,
    /// Idle time before the first keepalive probe, on both sides, in whole seconds; 0s is off.
    #[schemars(extend("default" = "60s"))]
    pub(crate) keepalive: Field<Period>,
    /// TCP_FASTOPEN: requests with data in the SYN that may be pending; 0 is off.
    #[schemars(extend("default" = 0), range(min = 0, max = 65535))]
    pub(crate) fast_open: Field<Int>,
    /// TCP_DEFER_ACCEPT: a connection is accepted once it has sent a byte, or after this long; 0s is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) defer_accept: Field<Period>,
    /// Multipath TCP.
    #[schemars(extend("default" = false))]
    pub(crate) mptcp: Field<bool>,
    /// auto: a listening socket for each worker, and no other process may bind the port;
    /// true: other processes may too; false: one socket that all workers accept from.
    #[schemars(extend("default" = "auto"))]
    pub(crate) reuse_port: Field<Switch>,
    /// IP_TRANSPARENT: bind to an address that is not this host's.
    #[schemars(extend("default" = false))]
    pub(crate) transparent: Field<bool>,
}
