//! Keys of `protocol: http` in effect.

use serde_json::{Value, json};

use super::optional;
use crate::config::model::{Forwarded, HeaderMatch, HttpListener, HttpPool, HttpRetry};
use crate::config::scalars::{BackendHttp, Size};

pub(super) fn listener(http: &HttpListener) -> Value {
    let HttpListener { forwarded, max_head, head_timeout, keep_alive, request_timeout } = http;
    let forwarded = match forwarded {
        Forwarded::Append => "append",
        Forwarded::Replace => "replace",
        Forwarded::Off => "off",
    };
    json!({
        "forwarded": forwarded,
        "max_head": Size((*max_head).into()).to_string(),
        "head_timeout": optional(*head_timeout),
        "keep_alive": optional(*keep_alive),
        "request_timeout": optional(*request_timeout),
    })
}

pub(super) fn header(fields: &[HeaderMatch]) -> Value {
    let field =
        |HeaderMatch { name, value }: &HeaderMatch| (name.to_string(), Value::from(value.as_deref().unwrap_or("*")));
    Value::Object(fields.iter().map(field).collect())
}

pub(super) fn pool(http: &HttpPool) -> Value {
    let HttpPool { version, idle_connections, idle_timeout, retry } = http;
    let reason = |reason: &HttpRetry| match reason {
        HttpRetry::Connect => json!("connect"),
        HttpRetry::Closed => json!("closed"),
        HttpRetry::Status(status) => json!(status),
    };
    json!({
        "version": BackendHttp(*version).to_string(),
        "idle_connections": idle_connections,
        "idle_timeout": optional(*idle_timeout),
        "retry": retry.iter().map(reason).collect::<Vec<_>>(),
    })
}
