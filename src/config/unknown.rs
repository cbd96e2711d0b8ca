//! What to say of a key that its section does not have.

use super::report::similar;
use super::tree::{NodeId, Tree};
use super::{foreign, schema, unsupported};

/// Most sections that are named for one key. A key that many have says little about what was meant.
const SECTIONS: usize = 2;

/// What to write instead of a key. `fields` are the keys that belong where it stands.
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
        // One letter is a slip; a word that another section has was rather meant.
        (Some(meant), Some(place)) if strsim::damerau_levenshtein(key, meant) <= 1 => {
            format!("{} Or: {place}", typo_hint(meant))
        }
        (Some(_), Some(place)) => place,
        (None, None) if fields.is_empty() => "no keys belong here".to_owned(),
        (None, None) => format!("keys here: {}", fields.join(", ")),
    }
}

/// Where a key belongs that another section has, the nearest one first.
fn elsewhere(tree: &Tree, owner: NodeId, section: &str, key: &str) -> Option<String> {
    let has_it = schema::keys().iter().filter(|(_, name)| name == key).map(|(section, _)| section.as_str());
    let sections: Vec<(usize, &str)> = has_it.map(|of| (distance(section, of), of)).collect();
    let nearest = sections.iter().map(|(distance, _)| *distance).min()?;
    let mut nearest: Vec<&str> = sections.into_iter().filter(|(far, _)| *far == nearest).map(|(_, of)| of).collect();
    // What is nested in this section is nearer than what surrounds it.
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

/// As much of a path as a section has steps, so with the places in lists.
fn prefix(path: &str, section: &str) -> String {
    let steps = section.split('.').filter(|step| !step.is_empty()).count();
    path.split('.').take(steps).collect::<Vec<_>>().join(".")
}

fn is_inside(inner: &str, outer: &str) -> bool {
    inner != outer && (outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '['])))
}

/// Steps from one section out to what both are in, and into the other.
fn distance(from: &str, to: &str) -> usize {
    fn steps(section: &str) -> impl Iterator<Item = &str> {
        section.split('.').filter(|step| !step.is_empty())
    }
    let common = steps(from).zip(steps(to)).take_while(|(a, b)| a == b).count();
    steps(from).count() + steps(to).count() - 2 * common
}

/// Whether a key that its section does not have was probably meant as `name`.
pub(crate) fn means(section: &str, key: &str, name: &str) -> bool {
    let is_other = similar(key, [name]).is_some() || foreign::means(section, key, name);
    key != name && (is_other || unsupported::means(section, key, name))
}
