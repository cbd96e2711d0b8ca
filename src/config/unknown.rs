//! Suggestions for unknown keys.

use super::report::similar;
use super::tree::{NodeId, Tree};
use super::{foreign, schema};

/// Most sections to suggest for one key. A key of many sections says little about what was meant.
const SECTIONS: usize = 2;

/// The suggestion for an unknown key. `fields` are the valid keys of its section.
pub(crate) fn hint(tree: &Tree, at: NodeId, fields: &'static [&'static str]) -> String {
    let key = tree.key(at).unwrap_or_default();
    let owner = tree.parent(at);
    let section = owner.map_or(String::new(), |owner| tree.section(owner));
    if let Some(hint) = foreign::key(tree, at, &section) {
        return hint;
    }
    let typo = similar(key, fields.iter().copied());
    let elsewhere = owner.and_then(|owner| elsewhere(tree, owner, &section, key));
    let typo_hint = |meant: &str| format!("did you mean `{meant}`?");
    match (typo, elsewhere) {
        (Some(meant), None) => typo_hint(meant),
        (None, Some(place)) => place,
        // One letter is a typo; otherwise the key of another section is more likely meant.
        (Some(meant), Some(place)) if strsim::damerau_levenshtein(key, meant) <= 1 => {
            format!("{} Or: {place}", typo_hint(meant))
        }
        (Some(_), Some(place)) => place,
        (None, None) if fields.is_empty() => "this section has no keys".to_owned(),
        (None, None) => format!("valid keys: {}", fields.join(", ")),
    }
}

/// The nearest section that has the key.
fn elsewhere(tree: &Tree, owner: NodeId, section: &str, key: &str) -> Option<String> {
    let has_it = schema::keys().iter().filter(|(_, name)| name == key).map(|(section, _)| section.as_str());
    let sections: Vec<(usize, &str)> = has_it.map(|of| (distance(section, of), of)).collect();
    let nearest = sections.iter().map(|(distance, _)| *distance).min()?;
    let mut nearest: Vec<&str> = sections.into_iter().filter(|(far, _)| *far == nearest).map(|(_, of)| of).collect();
    // A nested section is nearer than an enclosing one.
    if let Some(inside) = nearest.iter().find(|of| is_inside(of, section)) {
        nearest = vec![inside];
    }
    if nearest.len() > SECTIONS {
        return None;
    }
    let path = |of: &str| if of.is_empty() { key.to_owned() } else { format!("{of}.{key}") };
    let [of] = nearest.as_slice() else {
        let paths: Vec<String> = nearest.iter().map(|of| format!("`{}`", path(of))).collect();
        return Some(format!("it belongs elsewhere: {}", paths.join(" or ")));
    };
    let here = tree.path(owner);
    if is_inside(of, section) {
        let steps = of[section.len()..].trim_start_matches('.');
        let dot = if here.is_empty() { "" } else { "." };
        return Some(format!("it belongs one level down, under `{}`: `{here}{dot}{steps}.{key}`", head(steps)));
    }
    if is_inside(section, of) {
        return Some(format!("it belongs further out: `{}`", path(&prefix(&here, of))));
    }
    Some(format!("it belongs elsewhere: `{}`", path(of)))
}

/// The first step of a path.
fn head(steps: &str) -> &str {
    steps.split('.').next().unwrap_or(steps).trim_end_matches("[]")
}

/// The part of a path that leads to a section, with list indices.
fn prefix(path: &str, section: &str) -> String {
    let steps = section.split('.').filter(|step| !step.is_empty()).count();
    path.split('.').take(steps).collect::<Vec<_>>().join(".")
}

fn is_inside(inner: &str, outer: &str) -> bool {
    inner != outer && (outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '['])))
}

/// Steps from one section to another by way of their common parent.
fn distance(from: &str, to: &str) -> usize {
    fn steps(section: &str) -> impl Iterator<Item = &str> {
        section.split('.').filter(|step| !step.is_empty())
    }
    let common = steps(from).zip(steps(to)).take_while(|(a, b)| a == b).count();
    steps(from).count() + steps(to).count() - 2 * common
}

/// Whether a key is unknown, and was probably meant as `name`.
pub(crate) fn means(section: &str, key: &str, name: &str) -> bool {
    let is_known = || schema::keys().iter().any(|(of, known)| of == section && known == key);
    key != name && (similar(key, [name]).is_some() || foreign::means(section, key, name)) && !is_known()
}
