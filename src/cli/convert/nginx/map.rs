//! `map` of the client's server name: routes.

use std::collections::{HashMap, HashSet};

use tidegate::net::name::NamePattern;

use super::listen::DEEP;
use super::tree::Directive;
use crate::cli::convert::draft::{DraftRoute, add};
use crate::cli::convert::ledger::{Ledger, Outcome, StatementId};

/// The maps of a block, by the variable that they set.
#[derive(Default)]
pub(super) struct Maps<'d>(HashMap<&'d str, &'d Directive>);

/// Names of one kind with the value they have.
type Named<'d> = Vec<(String, &'d Directive)>;

impl<'d> Maps<'d> {
    pub(super) fn read(directives: &'d [Directive]) -> Maps<'d> {
        let maps = directives.iter().filter(|directive| directive.name() == "map");
        Maps(maps.map(|map| (map.word(2), map)).collect())
    }

    /// Accounts for maps that no server has used.
    pub(super) fn close(&self, ledger: &mut Ledger) {
        for map in self.0.values() {
            ledger.unused(map.id, "no route uses it");
            map.descendants().into_iter().for_each(|id| ledger.unused(id, "no route uses it"));
        }
    }

    /// The routes of a variable, and the pool of names that it does not have. `None` if it is not set by the server name.
    pub(super) fn routes(
        &self,
        variable: &str,
        mut pool: impl FnMut(&str, StatementId, &mut Ledger) -> String,
        ledger: &mut Ledger,
    ) -> Option<(Vec<DraftRoute>, Option<String>)> {
        let map = self.0.get(variable)?;
        if !["$ssl_preread_server_name", "$ssl_server_name", "${ssl_preread_server_name}"].contains(&map.word(1)) {
            let why = match map.word(1) {
                "$ssl_preread_protocol" => {
                    "routes do not tell TLS from other protocols: give each a listener of its own"
                }
                _ => "routes match the server name of TLS: `sni`",
            };
            map.account(Outcome::Left, why, ledger);
            return None;
        }
        ledger.translated(map.id);
        let hostnames = map.children().iter().any(|entry| entry.words == ["hostnames"]);
        let mut default = None;
        // nginx prefers exact names to wildcards, and those to regular expressions.
        let (mut exact, mut wildcards, mut regexes) = (Named::new(), Named::new(), Named::new());
        let mut known = HashSet::new();
        for entry in map.children() {
            ledger.translated(entry.id);
            let (pattern, value) = (entry.word(0), entry.word(1));
            if value.is_empty() {
                match pattern {
                    "hostnames" => ledger.not_needed(entry.id, "a name with `*` in front always stands for several"),
                    "volatile" => ledger.not_needed(entry.id, "routes are evaluated for each connection"),
                    _ => ledger.left(entry.id, "the entry has no value: its names are closed"),
                }
                continue;
            }
            if pattern == "default" {
                default = Some(pool(value, entry.id, ledger));
                continue;
            }
            if pattern.is_empty() {
                ledger.diverted(entry.id, "clients without a name go where those of unknown names go");
                continue;
            }
            match names(pattern, hostnames) {
                Ok(names) => {
                    for name in names.into_iter().filter(|name| known.insert(name.clone())) {
                        let list = match (pattern.starts_with('~'), name.starts_with('*')) {
                            (true, _) => &mut regexes,
                            (false, true) => &mut wildcards,
                            (false, false) => &mut exact,
                        };
                        list.push((name, entry));
                    }
                }
                Err(why) => ledger.diverted(entry.id, format!("{why}; its clients go where those of unknown names go")),
            }
        }
        let mut routes: Vec<DraftRoute> = Vec::new();
        for names in [exact, wildcards] {
            // Names of one kind exclude each other: their order does not matter.
            let mut group: Vec<DraftRoute> = Vec::new();
            for (name, entry) in names {
                let pool = pool(entry.word(1), entry.id, ledger);
                if name.starts_with('*') && default.as_ref() != Some(&pool) {
                    ledger.diverted(entry.id, format!("{name}: {DEEP}; theirs go where those of unknown names go"));
                }
                match group.iter_mut().find(|route| route.pool == pool) {
                    Some(route) => add(&mut route.sni, name),
                    None => group.push(DraftRoute { sni: vec![name], pool, ..DraftRoute::default() }),
                }
            }
            routes.append(&mut group);
        }
        for (name, entry) in regexes {
            let pool = pool(entry.word(1), entry.id, ledger);
            if name.starts_with('*') && default.as_ref() != Some(&pool) {
                ledger.diverted(entry.id, format!("{name}: {DEEP}; theirs go where those of unknown names go"));
            }
            routes.push(DraftRoute { sni: vec![name], pool, ..DraftRoute::default() });
        }
        Some((routes, default))
    }
}

/// The names of a pattern of a map or of `server_name`.
pub(super) fn names(pattern: &str, hostnames: bool) -> Result<Vec<String>, String> {
    let names = match pattern.strip_prefix('~') {
        Some(regex) => {
            let why = || "regular expressions: routes match whole names, and `*.` with a name".to_owned();
            vec![simple(regex.strip_prefix('*').unwrap_or(regex)).ok_or_else(why)?]
        }
        None => match pattern.strip_prefix('.') {
            Some(rest) if hostnames => vec![rest.to_owned(), format!("*.{rest}")],
            _ => vec![pattern.strip_prefix('\\').unwrap_or(pattern).to_owned()],
        },
    };
    let is_name = |name: &String| {
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        NamePattern::parse(name).is_some()
            && !is_address
            && (hostnames || pattern.starts_with('~') || !name.contains('*'))
    };
    match names.iter().all(is_name) {
        true => Ok(names.iter().map(|name| tidegate::net::name::normal(name).to_ascii_lowercase()).collect()),
        false => Err("routes match whole names, and `*.` with a name".to_owned()),
    }
}

/// What a regular expression means, if it is a name, or the end of names.
fn simple(regex: &str) -> Option<String> {
    let body = regex.strip_suffix('$')?;
    let (body, prefix) = match body.strip_prefix('^') {
        Some(rest) => {
            let any = ["(.*)", "(.+)", ".*", ".+"].iter().find_map(|any| rest.strip_prefix(any));
            (any.unwrap_or(rest), if any.is_some() { "*" } else { "" })
        }
        None => ([".*", ".+"].iter().find_map(|any| body.strip_prefix(any)).unwrap_or(body), "*"),
    };
    let literal = body.replace("\\.", "\u{0}");
    let is_literal = literal.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '\0');
    let starts = prefix.is_empty() || literal.starts_with('\0');
    (is_literal && starts && !literal.is_empty()).then(|| format!("{prefix}{}", literal.replace('\0', ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_patterns() {
        for (pattern, hostnames, expected) in [
            ("A.example", false, Some("a.example")),
            (".x.example", true, Some("x.example *.x.example")),
            ("*.x.example", true, Some("*.x.example")),
            ("*.x.example", false, None),
            ("www.x.*", true, None),
            (r"~^a\.x\.example$", false, Some("a.x.example")),
            (r"~*\.x\.example$", false, Some("*.x.example")),
            (r"~^(.+)\.x\.example$", false, Some("*.x.example")),
            (r"~^a.x\.example$", false, None),
            (r"~^a\.example", false, None),
            ("10.0.0.1", false, None),
        ] {
            let found = names(pattern, hostnames).ok().map(|names| names.join(" "));
            assert_eq!(found.as_deref(), expected, "{pattern}");
        }
    }
}
