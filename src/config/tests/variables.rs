//! TestEnvironment of the environment, in values and instead of settings.

use std::collections::HashMap;

use super::*;
use crate::config::files::Files;

/// An environment of a test alone.
#[derive(Default)]
struct TestEnvironment(HashMap<&'static str, &'static [u8]>);

impl TestEnvironment {
    fn of(all: &[(&'static str, &'static str)]) -> TestEnvironment {
        TestEnvironment(all.iter().map(|(name, value)| (*name, value.as_bytes())).collect())
    }
}

impl Files for TestEnvironment {
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name).map(|value| value.to_vec())
    }
}

const TEXT: &str = r#"
workers: ${WORKERS}
log: { level: "${LEVEL:-warn}", access: "${ACCESS:-off}" }
listeners:
  - name: "${NUMBER}"
    bind: ["${IP}:${PORT:-81}", "unix:/run/${NAME}$$.sock"]
    pool: ${NAME}
    socket: { nodelay: "${NODELAY}", mode: "${MODE}" }
    max_connections: "${NUMBER}"
pools:
  - name: ${NAME}
    balance: ${BALANCE:-}
    backends: [{ address: "${NAME}.example:${PORT}" }]
    health: { exchange: { send: "\xff${NUMBER}\r\n", expect: "${EXPECT:-+$$}" } }
"#;

const ENVIRONMENT: [(&str, &str); 7] = [
    ("WORKERS", "3"),
    ("NUMBER", "12"),
    ("IP", "127.0.0.1"),
    ("PORT", "82"),
    ("NAME", "shop"),
    ("NODELAY", "false"),
    ("MODE", "0600"),
];

#[test]
fn value_with_variables_is_a_plain_scalar() {
    let config = parse("x.yaml", TEXT, &TestEnvironment::of(&ENVIRONMENT)).unwrap_or_else(|it| panic!("{it}")).config;
    assert_eq!((config.workers.get(), config.log.level, &config.log.access), (3, LogLevel::Warn, &AccessLog::Off));
    let listener = &config.listeners[0];
    assert_eq!(&*listener.name, "12", "in quotes, it is text where text is expected");
    assert_eq!(listener.max_connections.map(u32::from), Some(12), "and a number where that is");
    let binds: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
    assert_eq!(binds, ["127.0.0.1:82", "unix:/run/shop$.sock"]);
    assert_eq!((listener.socket.nodelay, listener.socket.mode), (false, 0o600));
    let pool = &config.pools[0];
    assert_eq!((&*pool.name, pool.balance), ("shop", Balance::RoundRobin), "an empty value is an absent one");
    assert_eq!(pool.backends[0].address.to_string(), "shop.example:82");
    let check = HealthCheck::Exchange { send: b"\xff12\r\n".to_vec().into(), expect: b"+$".to_vec().into() };
    assert_eq!(pool.health.as_ref().unwrap().check, check);
}

#[test]
fn each_fault_is_at_its_place_and_names_the_variable() {
    let text = "workers: ${WORKERS}
listeners:
  - name: ${NUMBER}
    bind: 127.0.0.1:${PORT}
    pool: ${NONE}
    max_connections: \"a ${NONE:?x}\"
pools:
  - name: p
    backends: [{ address: 127.0.0.1:1, weight: \"${WEIGHT:-heavy}\" }]
    balance: ${LATIN}
";
    let mut variables = TestEnvironment::of(&[("WORKERS", "many"), ("NUMBER", "5"), ("PORT", "http")]);
    variables.0.insert("LATIN", b"\xe4");
    let failure = parse("x.yaml", text, &variables).unwrap_err();
    let found: Vec<String> = failure
        .errors()
        .iter()
        .map(|it| format!("{}:{} {}", it.line.unwrap(), it.column.unwrap(), it.message))
        .collect();
    assert_eq!(
        found,
        [
            "1:10 workers: expected auto or a number of threads, found `many` (from ${WORKERS})",
            "3:11 listeners[0].name: expected text, found the number 5 (from ${NUMBER})",
            "4:11 listeners[0].bind: `127.0.0.1:http` is not an address (from ${PORT})",
            "5:11 listeners[0].pool: the environment has no variable NONE",
            "6:25 listeners[0].max_connections: `${NONE:?x}` is not a variable",
            "9:48 pools[0].backends[0].weight: expected a whole number, found `heavy` (from ${WEIGHT})",
            "10:14 pools[0].balance: ${LATIN} of the environment is not UTF-8 text",
        ]
    );
    let helps: Vec<String> = failure.errors().into_iter().filter_map(|it| it.help).collect();
    assert!(helps.contains(&"quote it: \"${NUMBER}\"".to_owned()), "{helps:?}");
    assert!(helps.contains(&"set it for this process, or write a default: ${NONE:-default}".to_owned()), "{helps:?}");
}

/// Values that are hidden elsewhere are in no error.
#[test]
fn secret_is_not_in_an_error() {
    let text = "listeners: [{ name: l, bind: 127.0.0.1:1, pool: p }]
pools:
  - name: p
    backends: [{ address: 127.0.0.1:2, weight: 1001 }]
    health: { exchange: { send: \"AUTH ${SECRET}\\r\\n\", expect: \"${SECRET}\" }, timeout: 5h }
";
    // Also where it is itself what is wrong: it is too long.
    let long: &'static str = Box::leak("hunter2".repeat(3000).into_boxed_str());
    for secret in ["hunter2", long] {
        let failure = parse("x.yaml", text, &TestEnvironment::of(&[("SECRET", secret)])).unwrap_err();
        assert_eq!(failure.errors().len(), if secret == long { 3 } else { 1 }, "{failure}");
        assert!(!failure.to_string().contains("hunter2"), "{failure}");
    }
}

#[test]
fn ignored_keys_and_aliases_need_their_variables_where_they_are_used() {
    let text = |used: &str| {
        format!(
            "x-a: &a {{ timeouts: {{ connect: \"${{NONE}}\" }} }}\nx-b: ${{NONE}}\n\
             listeners: [{{ name: l, bind: 127.0.0.1:1, pool: p }}]\n\
             pools:\n  - {{ name: p, backends: [{{ address: 127.0.0.1:2 }}]{used} }}\n  - {{ name: q, backends: [{{ address: 127.0.0.1:2 }}]{used} }}\n"
        )
    };
    let loaded = parse("x.yaml", &text(""), &TestEnvironment::default()).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(loaded.config.pools.len(), 2);
    let failure = parse("x.yaml", &text(", <<: *a"), &TestEnvironment::default()).unwrap_err();
    let errors = failure.errors();
    assert_eq!(errors.len(), 1, "the same place once: {errors:?}");
    assert_eq!((errors[0].line, errors[0].column), (Some(1), Some(33)));
}

#[test]
fn what_variables_add_is_bounded() {
    let long: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    let text = format!("x: [{}]", "\"${LONG}\", ".repeat(200));
    let failure = parse("x.yaml", &text, &TestEnvironment::of(&[("LONG", long)])).unwrap_err();
    assert!(failure.to_string().contains("the values of ${LONG} are too large"), "{failure}");
}

#[test]
fn variables_stand_for_the_algorithm_and_the_level() {
    let of = |variables: &[(&'static str, &'static str)], log: &str| {
        let text = format!(
            "{log}\nlisteners: [{{ name: l, bind: 127.0.0.1:1, pool: p }}]\npools:\n  - {{ name: p, backends: [{{ address: 127.0.0.1:2 }}] }}\n  \
             - {{ name: q, balance: random, backends: [{{ address: 127.0.0.1:2 }}] }}\n"
        );
        let config = parse("x.yaml", &text, &TestEnvironment::of(variables)).map(|loaded| loaded.config)?;
        Ok::<_, Failure>((config.pools[0].balance, config.pools[1].balance, config.log.level))
    };
    let (round_robin, random) = (Balance::RoundRobin, Balance::Random);
    assert_eq!(of(&[], "").unwrap(), (round_robin, random, LogLevel::Info));
    assert_eq!(
        of(&[("LB_ALGORITHM", "least-connections"), ("LB_DEBUG", "1")], "").unwrap(),
        (Balance::LeastConnections, random, LogLevel::Debug)
    );
    assert_eq!(
        of(&[("LB_ALGORITHM", ""), ("LB_DEBUG", "true")], "log: { level: error }").unwrap(),
        (round_robin, random, LogLevel::Debug)
    );
    assert_eq!(of(&[("LB_DEBUG", "1")], "log: { level: trace }").unwrap().2, LogLevel::Trace);
    assert_eq!(
        of(&[("LB_DEBUG", "0"), ("LB_ALGORITHM", "weighted")], "").unwrap(),
        (round_robin, random, LogLevel::Info)
    );
    let report = of(&[("LB_ALGORITHM", "fastest"), ("LB_DEBUG", "maybe")], "").unwrap_err().to_string();
    for expected in [
        "LB_ALGORITHM of the environment: `fastest` is no algorithm",
        "LB_DEBUG of the environment: `maybe` is neither 1 nor 0",
        "set it to round_robin, least_connections",
    ] {
        assert!(report.contains(expected), "{report}");
    }
}

#[test]
fn editors_take_variables_and_ignored_keys() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let document = json(&TEXT.replace("balance: ${BALANCE:-}", "balance: ${BALANCE:-random}"));
    let errors: Vec<String> =
        validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut document = json(SMALLEST);
    document["x-anything"] = json!([{ "a": 1 }]);
    document["include"] = json!("conf.d/*.yaml");
    document["admin"] = json!({ "bind": "${ADMIN}" });
    assert!(validator.is_valid(&document));
    // A file that is included, and one that includes.
    assert!(validator.is_valid(&json!({ "pools": [{ "name": "p" }] })));
    assert!(validator.is_valid(&json!({ "include": ["a.yaml"] })));
    document["y-anything"] = json!(1);
    assert!(!validator.is_valid(&document));
}

/// Every key that takes `off` or `on` takes the boolean that YAML 1.1 makes of it.
#[test]
fn booleans_are_accepted_where_off_and_on_are() {
    fn look(schema: &Value, path: &str, found: &mut Vec<String>) {
        if let Some(values) = schema["enum"].as_array() {
            for (word, boolean) in [("off", false), ("on", true)] {
                if values.contains(&word.into()) {
                    assert!(values.contains(&boolean.into()), "{path}: {word}");
                    found.push(format!("{path}={word}"));
                }
            }
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            look(property, &format!("{path}.{name}"), found);
        }
        if schema["items"].is_object() {
            look(&schema["items"], path, found);
        }
    }
    let mut found = Vec::new();
    look(&super::super::schema::schema(), "", &mut found);
    assert!(found.contains(&".reload.watch=on".to_owned()) && found.len() >= 8, "{found:?}");
    let config = loaded(&format!("reload: {{ watch: true }}\nlog: {{ access: false }}\n{SMALLEST}")).config;
    assert_eq!((config.reload.watch, config.log.access), (true, AccessLog::Off));
    assert!(!loaded(&format!("reload: {{ watch: false }}\n{SMALLEST}")).config.reload.watch);
}
