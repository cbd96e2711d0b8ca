//! `pools[].health` in effect.

use std::num::NonZeroU16;

use serde_json::{Value, json};

use super::values::{optional, period, some, text};
use crate::config::model::{Health, HealthCheck, HttpCheck, Initial, MysqlCheck, PostgresCheck, RedisCheck};
use crate::config::scalars::ByteCount;

pub(super) fn health(health: &Health) -> Value {
    // What `protocol: udp` makes of it is no key.
    let Health { check, interval, timeout, rise, fall, port, initial, by_datagrams: _ } = health;
    let (kind, rules) = match check {
        HealthCheck::Tcp => ("tcp", json!({})),
        HealthCheck::Http(HttpCheck { path, method, host, headers, status, body, tls }) => {
            let rules = some([
                ("path", Some(json!(path))),
                ("method", Some(method.as_str().into())),
                ("host", host.as_ref().map(|host| json!(host))),
                ("headers", (!headers.reveal().is_empty()).then(|| json!(headers))),
                ("status", Some(format!("{}-{}", status.start(), status.end()).into())),
                ("body", body.as_ref().map(|body| json!(body))),
                ("tls", tls.map(|tls| json!(tls))),
            ]);
            ("http", rules)
        }
        HealthCheck::Exchange { send, expect } => ("exchange", json!({ "send": send, "expect": expect })),
        HealthCheck::Tls { server_name } => ("tls", some([("server_name", server_name.as_ref().map(text))])),
        HealthCheck::Postgres(PostgresCheck { account, database, role, max_lag }) => {
            let rules = some([
                ("user", account.user.as_ref().map(text)),
                ("password_file", account.password_file.as_ref().map(|path| json!(path))),
                ("database", Some(text(database))),
                ("role", Some(role.name().into())),
                ("max_lag", Some(text(ByteCount(*max_lag)))),
            ]);
            ("postgres", rules)
        }
        HealthCheck::Mysql(MysqlCheck { account, role, max_lag }) => {
            let rules = some([
                ("user", account.user.as_ref().map(text)),
                ("password_file", account.password_file.as_ref().map(|path| json!(path))),
                ("role", Some(role.name().into())),
                ("max_lag", Some(optional(*max_lag))),
            ]);
            ("mysql", rules)
        }
        HealthCheck::Redis(RedisCheck { account, role, plaintext }) => {
            let rules = some([
                ("user", account.user.as_ref().map(text)),
                ("password_file", account.password_file.as_ref().map(|path| json!(path))),
                ("role", Some(role.name().into())),
                ("plaintext", Some(if *plaintext { "allow" } else { "refuse" }.into())),
            ]);
            ("redis", rules)
        }
    };
    let initial = match initial {
        Initial::Probe => "probe",
        Initial::Up => "up",
    };
    some([
        (kind, Some(rules)),
        ("interval", Some(period(*interval))),
        ("timeout", Some(period(*timeout))),
        ("rise", Some(json!(rise))),
        ("fall", Some(json!(fall))),
        ("port", Some(json!(port.and_then(NonZeroU16::new).map_or(0, u16::from)))),
        ("initial", Some(initial.into())),
    ])
}
