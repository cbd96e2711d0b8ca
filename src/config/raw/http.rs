//! Keys of `protocol: http`, as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::located::{Field, Located};
use crate::config::model::Forwarded;
use crate::config::scalars::{BackendHttp, Period, RetryReason, Size};
use crate::config::scalars_serde::Int;

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawProtocol {
    /// Each connection is balanced by itself; its bytes are not changed.
    Tcp,
    /// HTTP/1.1 and HTTP/2: each request is balanced by itself.
    Http,
    /// Datagrams: each session, a client's address, is balanced by itself.
    Udp,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHttpListener {
    /// X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and X-Real-IP of requests to the backends.
    #[schemars(extend("default" = "append"))]
    pub(crate) forwarded: Field<Forwarded>,
    /// Size of a request's head, 1KiB to 1MiB; a larger one is answered 431.
    #[schemars(extend("default" = "64KiB"))]
    pub(crate) max_head: Field<Size>,
    /// Time for a request's head; 0s is no limit.
    #[schemars(extend("default" = "10s"))]
    pub(crate) head_timeout: Field<Period>,
    /// Idle time of a client's connection between requests; 0s is no limit.
    #[schemars(extend("default" = "75s"))]
    pub(crate) keep_alive: Field<Period>,
    /// From the end of a request's head to the head of its response; then the answer is 504. 0s is no limit.
    #[schemars(extend("default" = "1m"))]
    pub(crate) request_timeout: Field<Period>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHttpPool {
    /// Version of HTTP to the backends; 2 needs no TLS (prior knowledge).
    #[schemars(extend("default" = 1.1))]
    pub(crate) version: Field<BackendHttp>,
    /// Idle connections to each backend that a worker keeps; 0 is none.
    #[schemars(extend("default" = 64), range(min = 0, max = 65_536))]
    pub(crate) idle_connections: Field<Int>,
    /// Close connections to backends that are idle for this long; 0s is no limit.
    #[schemars(extend("default" = "60s"))]
    pub(crate) idle_timeout: Field<Period>,
    /// Failures after which a request that may be repeated is sent again; at most `retries` times. Empty is none.
    #[schemars(extend("default" = ["connect", "closed"]))]
    pub(crate) retry: Field<Vec<Located<RetryReason>>>,
}
