//! Changes of every kind in a random order, against a model of what they should come to.
//!
//! `FUZZ_STEPS` and `FUZZ_SEED` say how many and which.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::tell;
use crate::support::tidegate::Tidegate;

const ADMIN: &str = "admin: { bind: \"unix:DIRECTORY/admin.sock\", state_file: DIRECTORY/state.json }\n";
const POOLS: [&str; 3] = ["p", "q", "r"];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const BALANCES: [&str; 6] = ["round_robin", "least_connections", "ip_hash", "power_of_two", "least_latency", "random"];
const STATES: [&str; 3] = ["ready", "drain", "maintenance"];

/// A backend as configured or in effect.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    address: String,
    weight: u64,
    max: u64,
    backup: bool,
    state: &'static str,
    forced: Option<&'static str>,
}

type Pools = BTreeMap<&'static str, Pool>;

#[derive(Clone, Debug, PartialEq)]
struct Pool {
    balance: &'static str,
    backends: BTreeMap<&'static str, Entry>,
}

/// What was changed at run time of a backend: against its value in the file, or against its absence.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    Added(Entry),
    Removed,
    /// Each of its values, where it is another one.
    Values {
        address: Option<String>,
        weight: Option<u64>,
        max: Option<u64>,
        backup: Option<bool>,
        state: Option<&'static str>,
        forced: Option<&'static str>,
    },
}

/// What the process is to be.
#[derive(Clone, Debug, Default)]
struct Model {
    /// What lies beneath: the file as it was last applied, or what was put in its place.
    base: Pools,
    balances: BTreeMap<&'static str, &'static str>,
    changes: BTreeMap<(&'static str, &'static str), Change>,
}

fn other<T: PartialEq + Clone>(configured: &T, current: &T) -> Option<T> {
    (configured != current).then(|| current.clone())
}

impl Model {
    fn effective(&self) -> Pools {
        let mut pools = self.base.clone();
        for (name, pool) in &mut pools {
            if let Some(balance) = self.balances.get(name) {
                pool.balance = balance;
            }
            for ((_, backend), change) in self.changes.iter().filter(|((of, _), _)| of == name) {
                match change {
                    Change::Added(entry) => drop(pool.backends.insert(backend, entry.clone())),
                    Change::Removed => drop(pool.backends.remove(backend)),
                    Change::Values { address, weight, max, backup, state, forced } => {
                        let entry = pool.backends.get_mut(backend).expect("what is changed is configured");
                        entry.address = address.clone().unwrap_or(entry.address.clone());
                        entry.weight = weight.unwrap_or(entry.weight);
                        entry.max = max.unwrap_or(entry.max);
                        entry.backup = backup.unwrap_or(entry.backup);
                        entry.state = state.unwrap_or(entry.state);
                        entry.forced = *forced;
                    }
                }
            }
        }
        pools
    }

    /// A backend is to be this, or not to be there.
    fn set(&mut self, pool: &'static str, name: &'static str, wanted: Option<Entry>) {
        let change = match (self.base[pool].backends.get(name), wanted) {
            (None, None) => None,
            (None, Some(entry)) => Some(Change::Added(entry)),
            (Some(_), None) => Some(Change::Removed),
            (Some(of_file), Some(entry)) => (*of_file != entry).then(|| Change::Values {
                address: other(&of_file.address, &entry.address),
                weight: other(&of_file.weight, &entry.weight),
                max: other(&of_file.max, &entry.max),
                backup: other(&of_file.backup, &entry.backup),
                state: other(&of_file.state, &entry.state),
                forced: entry.forced,
            }),
        };
        match change {
            Some(change) => drop(self.changes.insert((pool, name), change)),
            None => drop(self.changes.remove(&(pool, name))),
        }
    }

    /// Another configuration beneath: where it has another value than before, that one counts.
    fn rebase(&mut self, base: &Pools) {
        let old = std::mem::replace(&mut self.base, base.clone());
        self.balances.retain(|pool, balance| {
            let new = base.get(pool).map(|pool| pool.balance);
            new == old.get(pool).map(|pool| pool.balance) && new != Some(*balance)
        });
        let changes = std::mem::take(&mut self.changes);
        for ((pool, name), change) in changes {
            let Some(new_pool) = base.get(pool) else { continue };
            let (before, after) = (old[pool].backends.get(name), new_pool.backends.get(name));
            let kept = match (change, before, after) {
                (change @ Change::Added(_), _, None) => Some(change),
                (Change::Removed, Some(before), Some(after)) if before.address == after.address => {
                    Some(Change::Removed)
                }
                (Change::Values { address, weight, max, backup, state, forced }, Some(before), Some(after)) => {
                    let kept = Change::Values {
                        address: address.filter(|_| before.address == after.address),
                        weight: weight.filter(|_| before.weight == after.weight),
                        max: max.filter(|_| before.max == after.max),
                        backup: backup.filter(|_| before.backup == after.backup),
                        state,
                        forced,
                    };
                    let nothing = Change::Values {
                        address: None,
                        weight: None,
                        max: None,
                        backup: None,
                        state: None,
                        forced: None,
                    };
                    (kept != nothing).then_some(kept)
                }
                _ => None,
            };
            if let Some(kept) = kept {
                self.changes.insert((pool, name), kept);
            }
        }
    }
}

/// A choice among some.
fn one<T: Copy>(rng: &mut Rng, list: &[T]) -> T {
    list[rng.usize(..list.len())]
}

fn address(rng: &mut Rng) -> String {
    // Few, so that some come back; no client connects to them.
    format!("127.0.0.{}:{}", rng.u8(1..4), 9000 + u16::from(rng.u8(..3)))
}

fn entry(rng: &mut Rng) -> Entry {
    let weight = if rng.bool() { 1 } else { rng.u64(0..4) };
    let max = if rng.bool() { 0 } else { rng.u64(1..4) };
    Entry { address: address(rng), weight, max, backup: rng.u8(..4) == 0, state: "ready", forced: None }
}

/// Mostly as before.
fn configuration(rng: &mut Rng, before: &Pools) -> Pools {
    let mut pools = before.clone();
    for _ in 0..rng.usize(1..4) {
        let name = one(rng, &POOLS);
        let present = pools.contains_key(name);
        match rng.u8(..8) {
            0 if name != "p" && present => drop(pools.remove(name)),
            _ => {
                let first = entry(rng);
                let balance = one(rng, &BALANCES);
                let pool =
                    pools.entry(name).or_insert_with(|| Pool { balance, backends: BTreeMap::from([("a", first)]) });
                let backend = one(rng, &NAMES);
                match rng.u8(..6) {
                    0 => pool.balance = balance,
                    1 if pool.backends.len() > 1 => drop(pool.backends.remove(backend)),
                    2 => drop(pool.backends.insert(backend, entry(rng))),
                    _ => {
                        if let Some(known) = pool.backends.get_mut(backend) {
                            let new = entry(rng);
                            match rng.u8(..3) {
                                0 => known.weight = new.weight,
                                1 => (known.max, known.backup) = (new.max, new.backup),
                                _ => known.address = new.address,
                            }
                        }
                    }
                }
            }
        }
    }
    pools
}

fn yaml(pools: &Pools) -> String {
    let mut text = format!("{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\npools:\n");
    for (name, pool) in pools {
        writeln!(text, "- name: {name}\n  balance: {}\n  backends:", pool.balance).unwrap();
        for (name, Entry { address, weight, max, backup, .. }) in &pool.backends {
            let keys = format!("weight: {weight}, max_connections: {max}, backup: {backup}");
            writeln!(text, "  - {{ name: {name}, address: \"{address}\", {keys} }}").unwrap();
        }
    }
    text
}

/// What the process says, in the model's words; `configured` is what it says of the file.
fn shown(value: &Value) -> Value {
    let pool = |pool: &Value| {
        let mut backends: Vec<Value> = pool["backends"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| {
                let keys =
                    ["name", "address", "weight", "configured_weight", "max_connections", "backup", "state", "forced"];
                Value::Object(keys.iter().map(|key| ((*key).to_owned(), it[*key].clone())).collect())
            })
            .collect();
        backends.sort_by_key(|it| it["name"].as_str().unwrap().to_owned());
        let keys = ["name", "balance", "configured_balance"].map(|key| pool[key].clone());
        json!([keys, backends])
    };
    let mut pools: Vec<Value> = value["pools"].as_array().unwrap().iter().map(pool).collect();
    pools.sort_by_key(|it| it[0][0].as_str().unwrap().to_owned());
    Value::Array(pools)
}

fn expected(model: &Model) -> Value {
    let pools = model.effective();
    let pool = |(name, pool): (&&'static str, &Pool)| {
        let of_file = &model.base[name];
        let backend = |(name, it): (&&'static str, &Entry)| {
            json!({
                "name": name,
                "address": it.address,
                "weight": it.weight,
                "configured_weight": of_file.backends.get(name).map(|it| it.weight),
                "max_connections": (it.max > 0).then_some(it.max),
                "backup": it.backup,
                "state": it.state,
                "forced": it.forced,
            })
        };
        let backends: Vec<Value> = pool.backends.iter().map(backend).collect();
        json!([[name, pool.balance, of_file.balance], backends])
    };
    Value::Array(pools.iter().map(pool).collect())
}

/// A process, its file, and what it should be.
struct Fuzzed {
    tidegate: Option<Tidegate>,
    /// What the file says now, applied or not.
    file: Pools,
    model: Model,
    rng: Rng,
    counts: BTreeMap<&'static str, usize>,
}

impl Fuzzed {
    fn tidegate(&self) -> &Tidegate {
        self.tidegate.as_ref().expect("it runs")
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.tidegate().call(method, path, &body);
        (answer.status, answer.json())
    }

    fn command(&self, arguments: &[&str]) -> Option<i32> {
        let admin = format!("unix:{}", self.tidegate().directory().join("admin.sock").display());
        let ran = self.tidegate().command(&[arguments, &["--admin", &admin]].concat());
        ran.code
    }

    /// One change. Returns what was done, for the message of a failure.
    fn step(&mut self) -> String {
        let rng = &mut self.rng;
        let (pool, name) = (one(rng, &POOLS), one(rng, &NAMES));
        let effective = self.model.effective();
        let known = effective.get(pool).and_then(|pool| pool.backends.get(name)).cloned();
        let path = format!("/api/pools/{pool}/backends/{name}");
        let dry = if rng.u8(..8) == 0 { "?dry_run=true" } else { "" };
        let kind = match rng.u8(..100) {
            0..30 => "patch",
            30..45 => "put",
            45..55 => "delete",
            55..62 => "balance",
            62..70 => "command",
            70..76 => "seed",
            76..88 => "reload",
            88..92 => "put config",
            92..94 => "file",
            94..97 => "reset",
            _ => "kill",
        };
        *self.counts.entry(kind).or_default() += 1;
        match kind {
            "patch" => {
                let Entry { weight, max, backup, .. } = entry(rng);
                let state = one(rng, &STATES);
                let forced = one(rng, &[None, Some("up"), Some("down")]);
                let (mut body, mut wanted) = (json!({}), known.clone());
                let mut give = |key: &str, value: Value, set: &dyn Fn(&mut Entry)| {
                    body[key] = value;
                    wanted.iter_mut().for_each(set);
                };
                for _ in 0..rng.usize(1..3) {
                    match rng.u8(..6) {
                        0 => give("weight", json!(weight), &|it| it.weight = weight),
                        1 => give("weight", Value::Null, &|it| it.weight = 1),
                        2 => give("max_connections", json!(max), &|it| it.max = max),
                        3 => give("backup", json!(backup), &|it| it.backup = backup),
                        4 => give("state", json!(state), &|it| it.state = state),
                        _ => give("forced", json!(forced), &|it| it.forced = forced),
                    }
                }
                let (status, answer) = self.call("PATCH", &format!("{path}{dry}"), &body);
                self.outcome(status, if known.is_some() { 200 } else { 404 }, &answer);
                if let (Some(wanted), "") = (wanted, dry) {
                    self.model.set(pool, name, Some(wanted));
                }
                format!("PATCH {path}{dry} {body}")
            }
            "put" => {
                let new = entry(rng);
                let mut body = json!({ "address": new.address });
                let of_file = || self.model.base.get(pool).and_then(|pool| pool.backends.get(name)).cloned();
                let added = Entry { weight: 1, max: 0, backup: false, ..new.clone() };
                let mut wanted = known.clone().or_else(of_file).unwrap_or(added);
                wanted.address.clone_from(&new.address);
                if rng.bool() {
                    body["weight"] = json!(new.weight);
                    wanted.weight = new.weight;
                }
                let (status, answer) = self.call("PUT", &format!("{path}{dry}"), &body);
                let there = effective.contains_key(pool);
                let status_of = if !there {
                    404
                } else if known.is_some() || !dry.is_empty() {
                    200
                } else {
                    201
                };
                self.outcome(status, status_of, &answer);
                if there && dry.is_empty() {
                    self.model.set(pool, name, Some(wanted));
                }
                format!("PUT {path}{dry} {body}")
            }
            "delete" => {
                let (status, answer) = self.call("DELETE", &format!("{path}{dry}"), &Value::Null);
                self.outcome(status, if known.is_some() { 200 } else { 404 }, &answer);
                if known.is_some() && dry.is_empty() {
                    self.model.set(pool, name, None);
                }
                format!("DELETE {path}{dry}")
            }
            "balance" => {
                let balance = one(rng, &BALANCES);
                let (status, answer) =
                    self.call("PATCH", &format!("/api/pools/{pool}"), &json!({ "balance": balance }));
                let there = effective.contains_key(pool);
                self.outcome(status, if there { 200 } else { 404 }, &answer);
                if there {
                    self.set_balance(pool, balance);
                }
                format!("PATCH {pool} {balance}")
            }
            "command" => {
                let (of, state, weight) = (format!("{pool}/{name}"), one(rng, &STATES), rng.u64(..5));
                let text = weight.to_string();
                let by_weight = rng.bool();
                let arguments = if by_weight { vec!["weight", &of, &text] } else { vec![state, &of] };
                assert_eq!(self.command(&arguments), Some(i32::from(known.is_none())), "{arguments:?}");
                if let Some(mut wanted) = known {
                    if by_weight {
                        wanted.weight = weight;
                    } else {
                        wanted.state = state;
                    }
                    self.model.set(pool, name, Some(wanted));
                }
                format!("{arguments:?}")
            }
            "seed" => {
                let (weight, id) = (rng.u64(..5), format!("{pool}%2F{name}"));
                let (status, answer) = match rng.u8(..3) {
                    0 => {
                        let algorithm = one(rng, &[("least-connections", 1), ("ip-hash", 2), ("weighted", 0)]);
                        let there = effective.contains_key(pool);
                        let body = json!({ "algorithm": algorithm.0, "pool": pool });
                        let (status, answer) = self.call("PUT", "/api/algorithm", &body);
                        self.outcome(status, if there { 200 } else { 404 }, &answer);
                        if there {
                            self.set_balance(pool, BALANCES[algorithm.1]);
                        }
                        return format!("PUT /api/algorithm {body}");
                    }
                    1 => {
                        let outcome =
                            self.call("PUT", &format!("/api/servers/{id}/weight"), &json!({ "weight": weight }));
                        if let Some(mut wanted) = known.clone() {
                            wanted.weight = weight;
                            self.model.set(pool, name, Some(wanted));
                        }
                        outcome
                    }
                    _ => {
                        let outcome = self.call("DELETE", &format!("/api/servers/{id}"), &Value::Null);
                        if known.is_some() {
                            self.model.set(pool, name, None);
                        }
                        outcome
                    }
                };
                self.outcome(status, if known.is_some() { 200 } else { 404 }, &answer);
                format!("seed {id} {weight}")
            }
            "reload" => {
                if rng.bool() {
                    self.rewrite();
                }
                if self.rng.u8(..6) == 0 {
                    let tidegate = self.tidegate();
                    let whole = std::fs::read_to_string(tidegate.config_file()).unwrap();
                    std::fs::write(tidegate.config_file(), &whole[..whole.len() - 20]).unwrap();
                    let (status, answer) = self.call("POST", "/api/reload", &Value::Null);
                    self.outcome(status, 422, &answer);
                    std::fs::write(self.tidegate().config_file(), whole).unwrap();
                    return "a broken reload".to_owned();
                }
                let (status, answer) = self.call("POST", &format!("/api/reload{dry}"), &Value::Null);
                self.outcome(status, 200, &answer);
                if dry.is_empty() {
                    self.model.rebase(&self.file);
                }
                format!("reload{dry} of {:?}", self.file)
            }
            "put config" => {
                let put = configuration(rng, &self.model.base);
                let text = self.tidegate().contents(&yaml(&put));
                let answer = self.tidegate().call("PUT", &format!("/api/config{dry}"), &text);
                self.outcome(answer.status, 200, &answer.json());
                if dry.is_empty() {
                    self.model.rebase(&put);
                }
                format!("PUT /api/config{dry} {put:?}")
            }
            "reset" => {
                let (path, there) = match rng.u8(..4) {
                    0 => ("/api/reset".to_owned(), true),
                    1 => (format!("/api/pools/{pool}/reset"), effective.contains_key(pool)),
                    _ => {
                        let of_file = self.model.base.get(pool).is_some_and(|pool| pool.backends.contains_key(name));
                        (format!("{path}/reset"), known.is_some() || of_file)
                    }
                };
                let (status, answer) = self.call("POST", &format!("{path}{dry}"), &Value::Null);
                self.outcome(status, if there { 200 } else { 404 }, &answer);
                if dry.is_empty() {
                    let is_meant = |of: &str, backend: &str| match path.matches('/').count() {
                        2 => true,
                        4 => of == pool,
                        _ => of == pool && backend == name,
                    };
                    let of_pool = !path.contains("/backends/");
                    self.model.balances.retain(|of, _| !(of_pool && is_meant(of, "")));
                    self.model.changes.retain(|(of, backend), _| !is_meant(of, backend));
                }
                format!("POST {path}{dry}")
            }
            "file" => {
                self.rewrite();
                "the file differs, and the status does not say so".to_owned()
            }
            _ => {
                if rng.bool() {
                    self.rewrite();
                }
                let tidegate = self.tidegate.take().expect("it runs");
                self.tidegate = Some(tidegate.kill_and_start());
                self.model.rebase(&self.file);
                format!("kill -9, and a start with {:?}", self.file)
            }
        }
    }

    /// What the process says of itself. Readers are slowed down when they ask all the time, so mostly by changes that change
    /// nothing, whose answers have the same in them.
    fn state(&self, by_reading: bool) -> Value {
        if by_reading {
            return shown(&self.tidegate().resource("/api/pools"));
        }
        let pool = |(name, pool): (&&str, &Pool)| {
            let (status, answer) =
                self.call("PATCH", &format!("/api/pools/{name}"), &json!({ "balance": pool.balance }));
            assert_eq!((status, &answer["changes"]), (200, &json!([])), "{answer}");
            answer["pool"].clone()
        };
        shown(&json!({ "pools": Value::from_iter(self.model.effective().iter().map(pool)) }))
    }

    fn rewrite(&mut self) {
        self.file = configuration(&mut self.rng, &self.file);
        self.tidegate().rewrite(&yaml(&self.file));
    }

    fn set_balance(&mut self, pool: &'static str, balance: &'static str) {
        match self.model.base[pool].balance == balance {
            true => drop(self.model.balances.remove(pool)),
            false => drop(self.model.balances.insert(pool, balance)),
        }
    }

    fn outcome(&self, status: u16, wanted: u16, answer: &Value) {
        assert_eq!(status, wanted, "{answer}");
    }
}

#[test]
fn state_is_that_of_the_model_after_each_change() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let steps = number("FUZZ_STEPS").unwrap_or(300);
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    tell(&format!("api_fuzz: FUZZ_SEED={seed} FUZZ_STEPS={steps}"));
    let mut rng = Rng::with_seed(seed);
    let first =
        Pool { balance: "round_robin", backends: BTreeMap::from([("a", entry(&mut rng)), ("b", entry(&mut rng))]) };
    let file = Pools::from([("p", first.clone()), ("q", first)]);
    let tidegate = Tidegate::start(&yaml(&file));
    let model = Model { base: file.clone(), ..Model::default() };
    let mut fuzzed = Fuzzed { tidegate: Some(tidegate), file, model, rng, counts: BTreeMap::new() };
    let mut last = Vec::new();
    for number in 1..=steps {
        let before = fuzzed.model.clone();
        last.push(fuzzed.step());
        let (is, should_be) = (fuzzed.state(number % 25 == 0 || number == steps), expected(&fuzzed.model));
        if is != should_be {
            let tail = &last[last.len().saturating_sub(12)..];
            panic!(
                "seed {seed}, step {number}: {tail:#?}\nit is\n{is:#}\nand should be\n{should_be:#}\nbefore {before:?}"
            );
        }
    }
    tell(&format!("api_fuzz: {steps} steps with seed {seed}: {:?}", fuzzed.counts));
}
