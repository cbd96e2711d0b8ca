//! Keys and values of features that are not built yet. They are rejected by name; the schema and suggestions omit them.

/// Sections, and the keys of each.
const KEYS: [(&str, &[&str]); 0] = [];

/// Keys, and values of each.
const VALUES: [(&str, &[&str]); 0] = [];

/// Whether a section will have the key.
pub(crate) fn is_key(section: &str, key: &str) -> bool {
    has(&KEYS, section, key)
}

/// Whether a key will take the value.
pub(crate) fn is_value(key: &str, value: &str) -> bool {
    has(&VALUES, key, value)
}

fn has(table: &[(&str, &[&str])], place: &str, word: &str) -> bool {
    table.iter().any(|(of, words)| *of == place && words.contains(&word))
}

/// The path of every unsupported key.
#[cfg(test)]
pub(crate) fn keys() -> impl Iterator<Item = String> {
    let path = |section: &str, key: &str| if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
    KEYS.iter().flat_map(move |(section, keys)| keys.iter().map(move |key| path(section, key)))
}
