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

/// The schema for editors: any scalar may have a variable of the environment in it, and keys at the top may be ignored ones.
pub(crate) fn for_editors() -> Value {
    let mut schema = schema();
    with_variables(&mut schema);
    schema["patternProperties"] = json!({ "^x-": {} });
    // They may be in another file.
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("required");
    }
    schema
}

/// What is known of a value beside its form.
const ANNOTATIONS: [&str; 3] = ["description", "default", "examples"];

/// Makes the form of each scalar that of text without a variable. Not `anyOf`, whose errors do not say what is wrong.
fn with_variables(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    for sections in ["properties", "items"] {
        match object.get_mut(sections) {
            Some(Value::Object(properties)) if sections == "properties" => {
                properties.values_mut().for_each(with_variables);
            }
            Some(items) => with_variables(items),
            None => {}
        }
    }
    let has = |key: &str| object.contains_key(key);
    let is_number = ["integer", "boolean"].iter().any(|kind| has_type(object, kind));
    if has("properties") || !(has("enum") || has("pattern") || is_number) {
        return;
    }
    if let Some(values) = object.get("enum").and_then(Value::as_array).filter(|_| !object.contains_key("examples")) {
        // Editors complete them.
        let values = values.iter().filter(|value| !value.is_null()).cloned().collect();
        object.insert("examples".to_owned(), Value::Array(values));
    }
    let (annotations, form): (Map<_, _>, Map<_, _>) =
        std::mem::take(object).into_iter().partition(|(key, _)| ANNOTATIONS.contains(&key.as_str()));
    *object = annotations;
    object.insert("if".to_owned(), json!({ "type": "string", "pattern": "\\$\\{" }));
    object.insert("else".to_owned(), form.into());
}

fn has_type(object: &Map<String, Value>, kind: &str) -> bool {
    match object.get("type") {
        Some(Value::Array(kinds)) => kinds.contains(&kind.into()),
        Some(one) => *one == kind,
        None => false,
    }
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
            with_booleans(object);
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

/// Allows `false` for `off` and `true` for `on`, as YAML 1.1 parsers read them.
fn with_booleans(object: &mut Map<String, Value>) {
    for (word, boolean) in [("off", false), ("on", true)] {
        let Some(Value::Array(values)) = object.get_mut("enum") else { return };
        if !values.contains(&word.into()) || values.contains(&boolean.into()) {
            continue;
        }
        values.push(boolean.into());
        let values = values.len();
        if let Some(Value::Array(words)) = object.get_mut("enumDescriptions") {
            words.resize(values, format!("The same as {word}.").into());
        }
    }
    let Some(Value::Array(values)) = object.get("enum") else { return };
    if !values.iter().any(Value::is_boolean) {
        return;
    }
    if object.get("type").is_some_and(|types| *types == "string") {
        object.insert("type".to_owned(), json!(["string", "boolean"]));
    }
}
