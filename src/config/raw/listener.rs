//! `listeners`, as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::health::RawHeaders;
use super::http::{RawHttpListener, RawProtocol};
use super::tls::RawListenerTls;
use super::udp::RawUdp;
use crate::config::located::{Field, Located, OneOrMany};
use crate::config::model::{ListenerState, Sniff, SpokenProtocol};
use crate::config::scalars::{
    BindAddress, ByteRate, ClientPattern, CountryCode, FileMode, Frequency, HostRule, MethodName, NameRule, Network,
    PathPrefix, Period, ProtocolName, WholePath,
};
use crate::config::scalars_serde::{Int, Switch};
use crate::net::protocol::ClientProtocol;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawListener {
    /// Unique; label in logs and metrics.
    #[schemars(required, length(min = 1, max = 128))]
    pub(crate) name: Field<String>,
    /// One address or a list; with port 0 the kernel chooses. A range of ports is as many sockets.
    #[schemars(required)]
    pub(crate) bind: Field<OneOrMany<BindAddress>>,
    /// What is balanced: connections, requests, or sessions of datagrams.
    #[schemars(extend("default" = "tcp"))]
    pub(crate) protocol: Field<RawProtocol>,
    /// Default pool: connections and requests that match no route go there.
    #[schemars(required)]
    pub(crate) pool: Field<String>,
    /// Concurrent connections; further ones wait in the kernel's accept queue. 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) max_connections: Field<Int>,
    /// Parse a protocol in passing, for statistics; of HTTP/1.x also for routing. Excludes protocol: http.
    #[schemars(extend("default" = "off"))]
    pub(crate) sniff: Field<Sniff>,
    /// What clients speak, for the error message of one that gets no backend. sniff and tls.starttls say it too.
    pub(crate) protocol_hint: Field<SpokenProtocol>,
    /// First match wins. Without `tls`, sni and alpn are read from the ClientHello: TLS passthrough.
    pub(crate) routes: Field<Vec<Located<RawRoute>>>,
    /// TLS termination. Omit for plain TCP or TLS passthrough.
    #[schemars(extend("x-given" = true))]
    pub(crate) tls: Field<RawListenerTls>,
    /// Accept the PROXY protocol, v1 and v2.
    #[schemars(extend("x-given" = true))]
    pub(crate) proxy_protocol: Field<RawProxyProtocol>,
    /// Which clients may connect; decided before anything is read of them.
    pub(crate) access: Field<RawAccess>,
    /// HTTP to clients; with protocol: http only.
    pub(crate) http: Field<RawHttpListener>,
    /// Sessions of datagrams; with protocol: udp only.
    pub(crate) udp: Field<RawUdp>,
    /// Connection and rate limits; connections above one are rejected.
    pub(crate) limits: Field<RawLimits>,
    /// Limits of the phases of a connection; 0s is no limit.
    pub(crate) timeouts: Field<RawListenerTimeouts>,
    /// Socket options.
    pub(crate) socket: Field<RawSocket>,
    /// Administrative state: paused accepts nothing, drain closes the listening sockets. Sessions of protocol: udp go on in both.
    #[schemars(extend("default" = "ready"))]
    pub(crate) state: Field<ListenerState>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["pool"] },
    { "required": ["split"] },
    { "required": ["refuse"], "properties": { "refuse": { "const": true } } },
]))]
pub(crate) struct RawRoute {
    /// Unique within the listener: its label in statistics. Without one, its conditions are.
    #[schemars(length(min = 1, max = 128))]
    pub(crate) name: Field<String>,
    /// Conditions; all keys given must match.
    #[schemars(required)]
    pub(crate) r#match: Field<RawMatch>,
    /// Pool of the connections that match. Exactly one of pool, split and refuse is given.
    pub(crate) pool: Field<String>,
    /// Pools by shares of the clients; the same client always gets the same pool.
    #[schemars(length(min = 1))]
    pub(crate) split: Field<Vec<Located<RawShare>>>,
    /// true: refuse the connections that match.
    pub(crate) refuse: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawShare {
    /// Pool of this share.
    #[schemars(required)]
    pub(crate) pool: Field<String>,
    /// Share in relation to the other weights; 0 is no client.
    #[schemars(extend("default" = 1), range(min = 0, max = 1000))]
    pub(crate) weight: Field<Int>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct RawMatch {
    /// Server names (SNI), any of them; a leading `*.` matches one label.
    #[schemars(length(min = 1))]
    pub(crate) sni: Field<Vec<Located<NameRule>>>,
    /// Application protocols, any of them: offered by the client or, with `tls`, negotiated.
    #[schemars(length(min = 1))]
    pub(crate) alpn: Field<Vec<Located<ProtocolName>>>,
    /// Hosts of the request, any of them; a leading `*.` matches one label. Requires protocol: http, or sniff: http, which sees
    /// the first request.
    #[schemars(length(min = 1))]
    pub(crate) host: Field<Vec<Located<HostRule>>>,
    /// Whole paths of the request, any of them. Requires protocol: http.
    #[schemars(length(min = 1))]
    pub(crate) path: Field<Vec<Located<WholePath>>>,
    /// Prefixes of the request's path, any of them. With protocol: http `/a` matches `/a` and `/a/b`; with sniff: http, of the
    /// first request, also `/ab`.
    #[schemars(length(min = 1))]
    pub(crate) path_prefix: Field<Vec<Located<PathPrefix>>>,
    /// Methods of the request, any of them. Requires protocol: http.
    #[schemars(length(min = 1))]
    pub(crate) method: Field<Vec<Located<MethodName>>>,
    /// Fields that the request must have, all of them: the whole value, or "*" for any. Requires protocol: http.
    #[schemars(extend("minProperties" = 1, "examples" = [{ "X-Canary": "1" }]))]
    pub(crate) header: Field<RawHeaders>,
    /// Networks and addresses of clients, any of them.
    #[schemars(length(min = 1))]
    pub(crate) client: Field<Vec<Located<Network>>>,
    /// Countries of clients, any of them: ISO 3166-1 codes. Requires geoip.database.
    #[schemars(length(min = 1))]
    pub(crate) country: Field<Vec<Located<CountryCode>>>,
    /// Protocols of the client's first bytes, any of them; with `tls`, of those inside TLS. A client that says nothing for
    /// timeouts.sniff matches none. Not with protocol: http.
    #[schemars(length(min = 1))]
    pub(crate) protocol: Field<Vec<Located<ClientProtocol>>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAccess {
    /// Networks, addresses, and with geoip.database countries as country:DE. When not empty, all others are refused.
    #[schemars(extend("default" = []))]
    pub(crate) allow: Field<Vec<Located<ClientPattern>>>,
    /// The same for clients that are refused; wins over allow.
    #[schemars(extend("default" = []))]
    pub(crate) deny: Field<Vec<Located<ClientPattern>>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawProxyProtocol {
    /// Networks and addresses; a PROXY header from any other peer closes the connection.
    #[schemars(required, length(min = 1))]
    pub(crate) trusted: Field<Vec<Located<Network>>>,
    /// false: the header is optional for trusted peers.
    #[schemars(extend("default" = true))]
    pub(crate) required: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLimits {
    /// Concurrent connections per IPv4 address or IPv6 /64; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) connections_per_ip: Field<Int>,
    /// New connections per IPv4 address or IPv6 /64, such as 20/s: a token bucket. 0 is no limit.
    #[schemars(extend("default" = 0))]
    pub(crate) connection_rate_per_ip: Field<Frequency>,
    /// New connections of the whole listener, such as 1000/s: a token bucket. 0 is no limit.
    #[schemars(extend("default" = 0))]
    pub(crate) connection_rate: Field<Frequency>,
    /// Bandwidth of one connection in each direction, such as 10MiB/s; 0 is no limit. Not with protocol: http.
    #[schemars(extend("default" = 0))]
    pub(crate) bandwidth: Field<ByteRate>,
    /// Concurrent TLS handshakes; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) handshakes: Field<Int>,
    /// Requests per IPv4 address or IPv6 /64, such as 100/s: a token bucket; above it, 429. 0 is no limit. Requires protocol: http.
    #[schemars(extend("default" = 0))]
    pub(crate) request_rate_per_ip: Field<Frequency>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawListenerTimeouts {
    /// PROXY header, STARTTLS request, ClientHello, HTTP request head.
    #[schemars(extend("default" = "5s"))]
    pub(crate) sniff: Field<Period>,
    /// TLS handshake.
    #[schemars(extend("default" = "10s"))]
    pub(crate) handshake: Field<Period>,
    /// No data in either direction for this long.
    #[schemars(extend("default" = "1h"))]
    pub(crate) idle: Field<Period>,
    /// One side has sent its FIN, and the other sends no data for this long.
    #[schemars(extend("default" = "1m"))]
    pub(crate) half_close: Field<Period>,
    /// Age at which a connection is closed, give or take 10 %.
    #[schemars(extend("default" = "0s"))]
    pub(crate) lifetime: Field<Period>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSocket {
    /// Accept queue, listen(2); the kernel caps it at net.core.somaxconn.
    #[schemars(extend("default" = 4096), range(min = 1, max = 2_147_483_647))]
    pub(crate) backlog: Field<Int>,
    /// TCP_NODELAY, to clients and to backends.
    #[schemars(extend("default" = true))]
    pub(crate) nodelay: Field<bool>,
    /// TCP keepalive, both sides: idle time before the first probe, whole seconds; 0s is off.
    #[schemars(extend("default" = "60s"))]
    pub(crate) keepalive: Field<Period>,
    /// TCP_FASTOPEN: queue length of pending requests with data in the SYN; 0 is off.
    #[schemars(extend("default" = 0), range(min = 0, max = 65535))]
    pub(crate) fast_open: Field<Int>,
    /// TCP_DEFER_ACCEPT: accept on the first data, or after this time; 0s is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) defer_accept: Field<Period>,
    /// Multipath TCP (IPPROTO_MPTCP).
    #[schemars(extend("default" = false))]
    pub(crate) mptcp: Field<bool>,
    /// auto: one socket per worker, exclusive; true: shared with other processes; false: one socket for all workers.
    #[schemars(extend("default" = "auto"))]
    pub(crate) reuse_port: Field<Switch>,
    /// IP_TRANSPARENT: bind to a non-local address.
    #[schemars(extend("default" = false))]
    pub(crate) transparent: Field<bool>,
    /// IP_FREEBIND: bind to an address that the host does not have yet.
    #[schemars(extend("default" = false))]
    pub(crate) freebind: Field<bool>,
    /// Mode of unix sockets, octal digits in quotes: who may write to one may connect.
    #[schemars(extend("default" = "0755"))]
    pub(crate) mode: Field<FileMode>,
}
