//! `pools[].health` as typed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Key;
use crate::config::de::Located;
use crate::config::units::{Period, StatusRange};
use crate::config::words::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("if" = { "type": "object" }, "then" = { "oneOf": [
    { "required": ["tcp"], "properties": { "tcp": { "type": "object" } } },
    { "required": ["http"], "properties": { "http": { "type": "object" } } },
    { "required": ["exchange"], "properties": { "exchange": { "type": "object" } } },
] }))]
pub(crate) struct Health {
    /// A connect is enough.
    pub(crate) tcp: Key<Tcp>,
    /// A request, and the status and perhaps the body of its answer.
    pub(crate) http: Key<Http>,
    /// Bytes sent, bytes expected.
    pub(crate) exchange: Key<Exchange>,
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
    /// The Host header. Default: the host of the backend's address, and the port unless it is 80.
    pub(crate) host: Key<String>,
    /// Further headers of the request.
    #[schemars(extend("default" = {}))]
    pub(crate) headers: Key<Headers>,
    /// Statuses that pass.
    #[schemars(extend("default" = "200-399"))]
    pub(crate) status: Key<StatusRange>,
    /// A substring that the body must have. In double quotes `\xff` is one byte.
    pub(crate) body: Key<String>,
}

/// The values of a mapping whose keys are free; the tree knows the keys.
pub(crate) struct Headers(pub(crate) Vec<Located<String>>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names to values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut values = Vec::new();
                while let Some((IgnoredAny, value)) = map.next_entry()? {
                    values.push(value);
                }
                Ok(Headers(values))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl JsonSchema for Headers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[0-9A-Za-z!#$%&'*+.^_`|~-]+$" },
            "additionalProperties": { "type": "string" },
            "examples": [{ "Authorization": "Bearer abc" }],
        })
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// Sent once connected; left out, the server speaks first. In double quotes `\r`, `\n` and `\xff` are one byte each.
    #[schemars(extend("default" = ""))]
    pub(crate) send: Key<String>,
    /// What the answer must begin with. In double quotes `\xff` is one byte.
    #[schemars(required, length(min = 1))]
    pub(crate) expect: Key<String>,
}
