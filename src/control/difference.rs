//! What differs between two configurations, a line for each value, by the keys of the file.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use crate::config::effective::configuration;
use crate::config::model::{Config, ForcedHealth};

/// Elements of a list that are shown; of longer ones, how many have come and gone.
const SHOWN_ELEMENTS: usize = 20;

/// Each difference as `pools.db.backends.a.weight: 1 -> 5`, `pools.db: added` or `pools.db: removed`.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", &configuration(old), &configuration(new), &mut lines);
    // Without a key in the file.
    let before: HashMap<(&str, &str), Option<ForcedHealth>> = forced(old).collect();
    for (name, forced) in forced(new) {
        if let Some(before) = before.get(&name).filter(|before| **before != forced) {
            let path = format!("pools.{}.backends.{}.forced", name.0, name.1);
            lines.push(format!("{path}: {} -> {}", shown_forced(*before), shown_forced(forced)));
        }
    }
    lines
}

/// By pool and backend.
fn forced(config: &Config) -> impl Iterator<Item = ((&str, &str), Option<ForcedHealth>)> {
    config.pools.iter().flat_map(|pool| pool.backends.iter().map(|it| ((&*pool.name, &*it.name), it.forced)))
}

fn shown_forced(forced: Option<ForcedHealth>) -> &'static str {
    forced.map_or("none", ForcedHealth::name)
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let absent = &Value::Null;
                compare(&below(key), old.get(key).unwrap_or(absent), new.get(key).unwrap_or(absent), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => match (by_name(old), by_name(new)) {
            (Some(before), Some(after)) => {
                for (name, entry) in names(new) {
                    match before.get(name) {
                        Some(before) => compare(&below(name), before, entry, lines),
                        None => lines.push(format!("{}: added", below(name))),
                    }
                }
                let removed = names(old).filter(|(name, _)| !after.contains_key(name));
                lines.extend(removed.map(|(name, _)| format!("{}: removed", below(name))));
                let kept = names(old).map(|(name, _)| name).filter(|name| after.contains_key(name));
                if !kept.eq(names(new).map(|(name, _)| name).filter(|name| before.contains_key(name))) {
                    lines.push(format!("{path}: another order"));
                }
            }
            _ if old.len().max(new.len()) > SHOWN_ELEMENTS => {
                let missing = |these: &[Value], those: &[Value]| {
                    let those: HashSet<&Value> = those.iter().collect();
                    these.iter().filter(|it| !those.contains(it)).count()
                };
                let (added, removed) = (missing(new, old), missing(old, new));
                lines.push(format!("{path}: {added} added, {removed} removed, {} in all", new.len()));
            }
            _ => lines.push(changed(path, &Value::Array(old.clone()), &Value::Array(new.clone()))),
        },
        (old, new) => lines.push(changed(path, old, new)),
    }
}

/// The entries of a list by their names; `None` if one has none.
fn by_name(entries: &[Value]) -> Option<HashMap<&str, &Value>> {
    let named: HashMap<&str, &Value> = names(entries).collect();
    (named.len() == entries.len()).then_some(named)
}

fn names(entries: &[Value]) -> impl Iterator<Item = (&str, &Value)> {
    entries.iter().filter_map(|entry| Some((entry["name"].as_str()?, entry)))
}

fn changed(path: &str, old: &Value, new: &Value) -> String {
    format!("{path}: {} -> {}", shown(old), shown(new))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{files::Unread, parse};

    fn config(listener: &str, pool: &str) -> Config {
        let text = format!(
            "workers: 2\nlisteners: [{{ name: in, bind: '127.0.0.1:1', pool: p{listener} }}]\npools: [{{ name: p{pool} }}]"
        );
        parse("test", &text, &Unread).unwrap().config
    }

    #[test]
    fn each_difference_is_a_line() {
        let a = "{ name: a, address: '127.0.0.1:2' }";
        let old = config("", &format!(", backends: [{a}, {{ name: b, address: '127.0.0.1:3' }}]"));
        let cases = [
            ("", ", backends: [{ name: a, address: '127.0.0.1:2', weight: 5 }, { name: b, address: '127.0.0.1:3' }]"),
            (", max_connections: 7", ", balance: ip_hash, backends: [{ name: b, address: '127.0.0.1:3' }]"),
            ("", ", backends: [{ name: b, address: '127.0.0.1:3' }, { name: a, address: '127.0.0.1:2' }]"),
            ("", ", backends: [{ name: a, address: '127.0.0.1:2' }, { name: c, address: '127.0.0.1:3' }]"),
        ];
        let expected = [
            vec!["pools.p.backends.a.weight: 1 -> 5"],
            vec![
                "listeners.in.max_connections: 0 -> 7",
                "pools.p.backends.a: removed",
                "pools.p.balance: round_robin -> ip_hash",
            ],
            vec!["pools.p.backends: another order"],
            vec!["pools.p.backends.c: added", "pools.p.backends.b: removed"],
        ];
        for ((listener, pool), expected) in cases.into_iter().zip(expected) {
            assert_eq!(differences(&old, &config(listener, pool)), expected);
        }
        assert!(differences(&old, &old).is_empty());
        let denied = |ranges: std::ops::Range<u8>| {
            let list: Vec<String> = ranges.map(|last| format!("10.0.0.{last}")).collect();
            config(&format!(", access: {{ deny: [{}] }}", list.join(", ")), ", backends: [{ address: '127.0.0.1:2' }]")
        };
        let long = differences(&denied(0..30), &denied(10..50));
        assert_eq!(long, ["listeners.in.access.deny: 20 added, 10 removed, 40 in all"]);
        assert_eq!(
            differences(&denied(0..1), &denied(1..2)),
            ["listeners.in.access.deny: [\"10.0.0.0\"] -> [\"10.0.0.1\"]"]
        );
        let of_requests = |http: &str| {
            let keys = format!(
                ", protocol: http, http: {{ {http} }}, routes: [{{ match: {{ header: {{ a: b }} }}, pool: p }}]"
            );
            config(&keys, ", backends: [{ address: '127.0.0.1:2' }]")
        };
        assert_eq!(
            differences(&of_requests(""), &of_requests("keep_alive: 1s")),
            ["listeners.in.http.keep_alive: 75s -> 1s"]
        );
        let mut forced = old.clone();
        forced.pools[0].backends[1].forced = Some(ForcedHealth::Down);
        assert_eq!(differences(&old, &forced), ["pools.p.backends.b.forced: none -> down"]);
    }
}
