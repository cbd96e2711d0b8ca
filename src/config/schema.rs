//! The JSON Schema of the configuration, for editors: without references, and with errors that name the key. Errors of
//! `anyOf` say only that no alternative matches; those of `type`, `enum` and `pattern` say what is wrong.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::raw::RawConfig;

/// Marks a key that requires a value; removed from the finished schema.
const GIVEN: &str = "x-given";

/// The schema of the raw types.
pub(crate) fn schema() -> Value {
    let mut schema = schemars::schema_for!(RawConfig).to_value();
    let definitions = schema.as_object_mut().and_then(|schema| schema.remove("$defs"));
    let definitions = match definitions {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    simplify(&mut schema, &definitions);
    schema
}

/// Every key: its section and its name.
pub(crate) fn keys() -> &'static [(String, String)] {
    static KEYS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut keys = Vec::new();
        collect(&schema(), "", &mut keys);
        keys
    })
}

fn collect(schema: &Value, section: &str, keys: &mut Vec<(String, String)>) {
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{section}[]"), keys);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        keys.push((section.to_owned(), name.clone()));
        let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        collect(property, &path, keys);
    }
}

/// Inlines definitions. No type of the configuration is recursive.
fn simplify(schema: &mut Value, definitions: &Map<String, Value>) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(|value| simplify(value, definitions)),
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.remove("$ref") {
                let definition = reference.strip_prefix("#/$defs/").and_then(|name| definitions.get(name));
                merge(object, definition.cloned().unwrap_or_default());
            }
            object.values_mut().for_each(|value| simplify(value, definitions));
            without_null(object);
            as_enum(object);
            with_false(object);
        }
        _ => {}
    }
}

/// Adds absent entries: those of a key override those of its type.
fn merge(object: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        for (key, value) in more {
            object.entry(key).or_insert(value);
        }
    }
}

/// `anyOf: [X, null]` to X that may be null.
fn without_null(object: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = object.get("anyOf") else { return };
    let [meant, null] = alternatives.as_slice() else { return };
    if *null != json!({ "type": "null" }) {
        return;
    }
    let meant = meant.clone();
    object.remove("anyOf");
    merge(object, meant);
    // An empty section would protect less than its author expects.
    if object.remove(GIVEN) == Some(true.into()) {
        return;
    }
    if let Some(types) = object.get_mut("type") {
        match types {
            Value::Array(types) => types.push("null".into()),
            one => *one = json!([one.clone(), "null"]),
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.push(Value::Null);
    }
}

/// `oneOf` several constants to `enum`.
fn as_enum(object: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = object.get("oneOf") else { return };
    let constants: Option<Vec<Value>> = alternatives.iter().map(|one| one.get("const").cloned()).collect();
    let Some(constants) = constants else { return };
    let words: Vec<Value> =
        alternatives.iter().map(|one| one.get("description").cloned().unwrap_or_else(|| "".into())).collect();
    object.remove("oneOf");
    object.insert("type".to_owned(), "string".into());
    object.insert("enum".to_owned(), constants.into());
    // What editors show beside each value.
    object.insert("enumDescriptions".to_owned(), words.into());
}

/// Allows `false` for `off`, as YAML 1.1 parsers read it.
fn with_false(object: &mut Map<String, Value>) {
    let Some(Value::Array(values)) = object.get_mut("enum") else { return };
    if !values.contains(&"off".into()) || values.contains(&false.into()) {
        return;
    }
    values.push(false.into());
    let values = values.len();
    if let Some(Value::Array(words)) = object.get_mut("enumDescriptions") {
        words.resize(values, "The same as off.".into());
    }
    if object.get("type").is_some_and(|types| *types == "string") {
        object.insert("type".to_owned(), json!(["string", "boolean"]));
    }
}
