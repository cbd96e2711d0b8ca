//! Application protocols in which the client speaks first.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A protocol that a client's first bytes tell from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientProtocol {
    /// TLS: a handshake record.
    Tls,
    /// HTTP/1.x, and HTTP/2 with prior knowledge.
    Http,
    /// SSH, where the client sends its identification without waiting for the server's.
    Ssh,
    /// PostgreSQL: a startup message, SSLRequest, GSSENCRequest or CancelRequest.
    Postgres,
    /// Redis and Valkey: a command as a RESP array.
    Redis,
}

impl ClientProtocol {
    /// Every protocol.
    pub const ALL: [ClientProtocol; 5] = [
        ClientProtocol::Tls,
        ClientProtocol::Http,
        ClientProtocol::Ssh,
        ClientProtocol::Postgres,
        ClientProtocol::Redis,
    ];

    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            ClientProtocol::Tls => "tls",
            ClientProtocol::Http => "http",
            ClientProtocol::Ssh => "ssh",
            ClientProtocol::Postgres => "postgres",
            ClientProtocol::Redis => "redis",
        }
    }
}

impl fmt::Display for ClientProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration() {
        for protocol in ClientProtocol::ALL {
            assert_eq!(serde_json::from_value::<ClientProtocol>(protocol.name().into()).unwrap(), protocol);
        }
    }
}
