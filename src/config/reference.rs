//! Every key of the configuration with its type, default and values, read from the schema: what the manual's reference and
//! tidegate.yaml(5) are made from.

use serde_json::Value;

use super::schema::schema;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReference {
    /// `pools[].backends[].weight`.
    pub path: String,
    /// The type of its value, such as `duration` or `integer, 0 to 1000`.
    pub kind: String,
    /// Whether it has keys of its own.
    pub is_section: bool,
    /// Whether its section is invalid without it.
    pub required: bool,
    /// The value in effect without it, as YAML.
    pub default: Option<String>,
    /// The words it takes, each with its meaning, which may be empty.
    pub values: Vec<(String, String)>,
    /// Examples of its value.
    pub examples: Vec<String>,
    /// One or two sentences.
    pub description: String,
}

impl KeyReference {
    /// The section that it is in, empty for the top; and its name.
    pub fn section_and_name(&self) -> (&str, &str) {
        self.path.rsplit_once('.').unwrap_or(("", &self.path))
    }
}

/// Patterns of the schema, and what they are called.
#[rustfmt::skip]
const KINDS: [(&str, &str); 24] = [
    ("^(unix:/.+|(\\[[0-9a-fA-F:.]+(%[^\\]%]+)?\\]|[0-9.]+):[0-9]+(-[0-9]+)?)$", "address"),
    ("^(unix:/.+|(\\[[0-9a-fA-F:.]+(%[^\\]%]+)?\\]|[0-9A-Za-z._-]+):([0-9]+|\\*))$", "address or host name with port"),
    ("[^/]$", "file"),
    ("^[^\\n]*[^/]$", "file or pattern"),
    ("^[0-9]+(ms|s|m|h)$", "duration"),
    ("^(0|[0-9]+/[smh])$", "rate"),
    ("^(0|[0-9]+(B|KiB|MiB|GiB)/s)$", "bandwidth"),
    ("^(0|[0-9]+(B|KiB|MiB|GiB))$", "size"),
    ("^[0-9]+(B|KiB|MiB|GiB)$", "size"),
    ("^(100|[0-9]{1,2})%$", "percentage"),
    ("^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "network or IP address"),
    ("^([0-9a-fA-F:.]+(/[0-9]{1,3})?|country:[A-Z]{2})$", "network, IP address or country:DE"),
    ("^[A-Z]{2}$", "country code"),
    ("^[0-9a-fA-F:.]+$", "IP address"),
    ("^(\\*\\.)?[0-9A-Za-z_.-]+$", "host name"),
    ("^[0-9A-Za-z_.:-]+$", "host name or IP address"),
    ("^/[!-~]*$", "path"),
    ("^/", "path"),
    ("^[0-9A-Z!#$%&'*+.^_`|~-]+$", "HTTP method"),
    ("^[0-9A-Za-z!#$%&'*+.^_`|~-]+$", "name of a cookie"),
    ("^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$", "status or range"),
    ("^(off|stderr|syslog:/[^/](.*[^/])?|syslog(\\+tcp)?:(\\[[0-9a-fA-F:.]+(%[^\\]%]+)?\\]|[0-9.]+):[0-9]+|(?!syslog[:+]).*/.*[^/])$", "off, stderr, file or syslog server"),
    ("^auto$", "auto or integer"),
    ("^(0o)?0{0,3}[0-7]{3}$", "mode in octal digits, quoted"),
];

/// All keys: a section's own first, required ones before the others, then its sections; by name.
pub fn reference() -> Vec<KeyReference> {
    let mut keys = Vec::new();
    collect(&schema(), "", &mut keys);
    keys
}

fn collect(section: &Value, path: &str, keys: &mut Vec<KeyReference>) {
    let required = |name: &str| section["required"].as_array().is_some_and(|all| all.contains(&name.into()));
    let mut found: Vec<(KeyReference, &Value)> = section["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, schema)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            (key(path, schema, required(name)), schema)
        })
        .collect();
    found.sort_by_key(|(key, _)| (key.is_section, !key.required, key.path.clone()));
    for (key, schema) in found {
        let (path, is_section) = (key.path.clone(), key.is_section);
        keys.push(key);
        if is_section && schema["items"].is_object() {
            collect(&schema["items"], &format!("{path}[]"), keys);
        } else if is_section {
            collect(schema, &path, keys);
        }
    }
}

fn key(path: String, schema: &Value, required: bool) -> KeyReference {
    let values = values(schema);
    let default = schema.get("default").map(yaml);
    let examples = schema["examples"].as_array().into_iter().flatten().map(yaml);
    KeyReference {
        path,
        kind: kind(schema),
        is_section: has_keys(schema) || has_keys(&schema["items"]),
        required,
        examples: examples
            .filter(|example| Some(example) != default.as_ref() && !values.iter().any(|(word, _)| word == example))
            .collect(),
        default,
        values,
        description: schema["description"].as_str().unwrap_or_default().to_owned(),
    }
}

fn has_keys(schema: &Value) -> bool {
    schema["properties"].is_object()
}

fn is(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind || schema["type"].as_array().is_some_and(|types| types.contains(&kind.into()))
}

fn kind(schema: &Value) -> String {
    let of_pattern = schema["pattern"].as_str().and_then(|pattern| KINDS.iter().find(|(known, _)| *known == pattern));
    let range = || match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        _ => String::new(),
    };
    if has_keys(schema) {
        "section".to_owned()
    } else if has_keys(&schema["items"]) {
        "list of sections".to_owned()
    } else if schema["enum"].is_array() {
        "one of the values below".to_owned()
    } else if let Some((_, name)) = of_pattern {
        match (*name, is(schema, "array")) {
            (name, true) => format!("{name}, or a list of them"),
            ("auto or integer", _) => format!("{name}{}", range()),
            ("file", _) if schema["default"] == "system" => "file, or system".to_owned(),
            (name, _) => name.to_owned(),
        }
    } else if is(schema, "array") {
        format!("list: {}", kind(&schema["items"]))
    } else if is(schema, "boolean") {
        "boolean".to_owned()
    } else if is(schema, "integer") {
        format!("integer{}", range())
    } else if is(schema, "object") {
        if schema["propertyNames"].is_object() { "mapping of names to text" } else { "section without keys" }.to_owned()
    } else {
        "text".to_owned()
    }
}

/// Words without those that are other spellings: `false` for `off`, the number for a version, nothing.
fn values(schema: &Value) -> Vec<(String, String)> {
    let Some(all) = schema["enum"].as_array() else { return Vec::new() };
    // Of words, booleans are other spellings.
    let has_words = schema["enumDescriptions"].is_array();
    let has_both = !has_words && all.contains(&true.into()) && all.contains(&false.into());
    let meant = |value: &Value| match value {
        Value::String(word) => !(has_both && (word == "on" || word == "off")),
        Value::Bool(_) => has_both,
        _ => false,
    };
    let words = |place: usize| schema["enumDescriptions"][place].as_str().unwrap_or_default().to_owned();
    let listed = all.iter().enumerate().filter(|(_, value)| meant(value));
    listed.map(|(place, value)| (yaml(value), words(place))).collect()
}

fn yaml(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(map) if !map.is_empty() => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {}", yaml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::keys;

    #[test]
    fn every_key_of_the_schema_is_there_once_and_described() {
        let mut listed: Vec<String> = reference().into_iter().map(|key| key.path).collect();
        let of_schema =
            keys().iter().map(|(of, name)| if of.is_empty() { name.clone() } else { format!("{of}.{name}") });
        let mut expected: Vec<String> = of_schema.collect();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
        for key in reference() {
            assert!(key.description.ends_with('.'), "{key:?}");
        }
    }

    /// A pattern that KINDS lacks would be shown as text.
    #[test]
    fn every_pattern_has_a_name() {
        fn look(schema: &Value) {
            if let Some(pattern) = schema["pattern"].as_str() {
                assert!(KINDS.iter().any(|(known, _)| *known == pattern), "{pattern}");
            }
            for nested in schema["properties"].as_object().into_iter().flatten().map(|(_, nested)| nested) {
                look(nested);
            }
            if schema["items"].is_object() {
                look(&schema["items"]);
            }
        }
        look(&schema());
    }

    #[test]
    fn kinds_defaults_and_values_are_those_of_the_schema() {
        let keys = reference();
        let of = |path: &str| keys.iter().find(|key| key.path == path).unwrap();
        let words = |path: &str| of(path).values.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>();
        assert_eq!(of("pools[].backends[].weight").kind, "integer, 0 to 1000");
        assert_eq!(of("listeners[].bind").kind, "address, or a list of them");
        assert_eq!(of("pools[].tls.ca").kind, "file, or system");
        assert_eq!(of("workers").kind, "auto or integer, 1 to 1024");
        assert_eq!(of("listeners[].tls.alpn").kind, "list: text");
        assert_eq!(of("pools[].health").kind, "section");
        assert_eq!(of("pools[].backends").kind, "list of sections");
        assert_eq!(of("listeners[].timeouts.idle").default.as_deref(), Some("1h"));
        assert!(of("listeners[].bind").required && !of("admin.bind").required);
        assert_eq!(words("pools[].send_proxy"), ["off", "v1", "v2"]);
        assert_eq!(words("listeners[].socket.reuse_port"), ["auto", "true", "false"]);
        assert_eq!(words("listeners[].tls.min_version"), ["1.2", "1.3"]);
        assert_eq!(of("listeners[].tls.min_version").section_and_name(), ("listeners[].tls", "min_version"));
        assert_eq!(of("workers").section_and_name(), ("", "workers"));
    }
}
