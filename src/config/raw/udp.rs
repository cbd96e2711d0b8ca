//! Keys of `protocol: udp`, as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::located::Field;
use crate::config::scalars::Period;
use crate::config::scalars_serde::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawUdp {
    /// A session ends when neither side has sent a datagram for this long.
    #[schemars(extend("default" = "1m"))]
    pub(crate) idle: Field<Period>,
    /// Concurrent sessions. For one more, a session makes room whose client has sent nothing after a reply, or the datagram is dropped.
    #[schemars(extend("default" = 65_536), range(min = 1, max = 4_000_000))]
    pub(crate) max_sessions: Field<Int>,
    /// Replies to each datagram of a client, after which the session ends, such as 1 for DNS; 0 is no limit.
    #[schemars(extend("default" = 0), range(min = 0, max = 4_294_967_295_u32))]
    pub(crate) responses: Field<Int>,
    /// Bytes to a client for each byte that it has sent, until it has sent a datagram after a reply. One reply to each datagram is
    /// always forwarded. 0 is no limit.
    #[schemars(extend("default" = 3), range(min = 0, max = 1000))]
    pub(crate) amplification: Field<Int>,
}
