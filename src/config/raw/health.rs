//! `pools[].health` as typed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::located::{Field, Located};
use crate::config::model::Initial;
use crate::config::scalars::{Period, StatusRange};
use crate::config::scalars_serde::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("if" = { "type": "object" }, "then" = { "oneOf": [
    { "required": ["tcp"], "properties": { "tcp": { "type": "object" } } },
    { "required": ["http"], "properties": { "http": { "type": "object" } } },
    { "required": ["exchange"], "properties": { "exchange": { "type": "object" } } },
] }))]
pub(crate) struct RawHealth {
    /// A connect is enough.
    pub(crate) tcp: Field<RawTcp>,
    /// A request, and the status and perhaps the body of its answer.
    pub(crate) http: Field<RawHttp>,
    /// Bytes sent, bytes expected.
    pub(crate) exchange: Field<RawExchange>,
    /// From the start of a probe to the start of the next, give or take 10 %.
    #[schemars(extend("default" = "2s"))]
    pub(crate) interval: Field<Period>,
    /// How long one probe may take.
    #[schemars(extend("default" = "1s"))]
    pub(crate) timeout: Field<Period>,
    /// Passes in a row until up.
    #[schemars(extend("default" = 2), range(min = 1, max = 1000))]
    pub(crate) rise: Field<Int>,
    /// Failures in a row until down.
    #[schemars(extend("default" = 3), range(min = 1, max = 1000))]
    pub(crate) fall: Field<Int>,
    /// The port that is probed; 0 is the backend's own.
    #[schemars(extend("default" = 0), range(min = 0, max = 65535))]
    pub(crate) port: Field<Int>,
    /// probe: down until the first pass, and one is enough; up: up until `fall` failures.
    #[schemars(extend("default" = "probe"))]
    pub(crate) initial: Field<Initial>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTcp {}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHttp {
    /// What is asked for.
    #[schemars(extend("default" = "/health"), regex(pattern = "^/"))]
    pub(crate) path: Field<String>,
    /// How it is asked for.
    #[schemars(extend("default" = "GET"))]
    pub(crate) method: Field<String>,
    /// The Host header. Default: the host of the backend's address, and the port unless it is 80.
    pub(crate) host: Field<String>,
    /// Further headers of the request.
    #[schemars(extend("default" = {}))]
    pub(crate) headers: Field<RawHeaders>,
    /// Statuses that pass.
    #[schemars(extend("default" = "200-399"))]
    pub(crate) status: Field<StatusRange>,
    /// A substring that the body must have. In double quotes `\xff` is one byte.
    pub(crate) body: Field<String>,
}

/// The values of a mapping whose keys are free; the tree knows the keys.
pub(crate) struct RawHeaders(pub(crate) Vec<Located<String>>);

impl<'de> Deserialize<'de> for RawHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;

        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = RawHeaders;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names to values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeaders, A::Error> {
                let mut values = Vec::new();
                while let Some((IgnoredAny, value)) = map.next_entry()? {
                    values.push(value);
                }
                Ok(RawHeaders(values))
            }
        }

        deserializer.deserialize_map(HeadersVisitor)
    }
}

impl JsonSchema for RawHeaders {
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
pub(crate) struct RawExchange {
    /// Sent once connected; left out, the server speaks first. In double quotes `\r`, `\n` and `\xff` are one byte each.
    #[schemars(extend("default" = ""))]
    pub(crate) send: Field<String>,
    /// What the answer must begin with. In double quotes `\xff` is one byte.
    #[schemars(required, length(min = 1))]
    pub(crate) expect: Field<String>,
}
