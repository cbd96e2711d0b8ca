//! haproxy.cfg as sections, each with the `defaults` that apply to it.

use super::lexer;
use crate::cli::convert::ledger::{Ledger, Outcome, StatementId};

/// A line that is neither empty nor a comment.
#[derive(Clone, Debug)]
pub(super) struct CfgLine {
    pub(super) id: StatementId,
    pub(super) words: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Section {
    pub(super) head: CfgLine,
    pub(super) lines: Vec<CfgLine>,
    /// The place of the `defaults` section that applies.
    pub(super) defaults: Option<usize>,
}

impl Section {
    pub(super) fn kind(&self) -> &str {
        &self.head.words[0]
    }

    pub(super) fn name(&self) -> &str {
        self.head.words.get(1).map_or("", String::as_str)
    }
}

const KINDS: [&str; 20] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "cache",
    "program",
    "http-errors",
    "ring",
    "fcgi-app",
    "log-forward",
    "log-profile",
    "crt-store",
    "healthcheck",
    "traces",
    "acme",
];

/// Reads the sections. Accounts for lines that belong to none.
pub(super) fn read(text: &str, file: usize, ledger: &mut Ledger) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut latest = None;
    let mut conditions = 0_usize;
    let mut variables = lexer::Variables::new();
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let id = ledger.add(file, index + 1, index + 1, trimmed);
        let words = match lexer::words(line, &variables) {
            Ok(words) if !words.is_empty() => words,
            Ok(_) => {
                ledger.left(id, "the line has no word");
                continue;
            }
            Err(why) => {
                ledger.left(id, why);
                continue;
            }
        };
        let first = words[0].as_str();
        if first.starts_with('.') {
            conditions = match first {
                ".if" => conditions + 1,
                ".endif" => conditions.saturating_sub(1),
                _ => conditions,
            };
            ledger.left(id, "conditions are not evaluated: remove them, and convert again");
        } else if conditions > 0 {
            ledger.left(id, "inside .if, which is not evaluated");
        } else if KINDS.contains(&first) {
            let from = words.iter().position(|word| word == "from").and_then(|at| words.get(at + 1)).cloned();
            let named = |name: &String| {
                sections.iter().rposition(|section| section.kind() == "defaults" && section.name() == name)
            };
            let defaults = from.as_ref().map_or(latest, named);
            if first == "defaults" {
                latest = Some(sections.len());
            }
            // A `defaults` inherits only when it says so.
            let defaults = if first == "defaults" && from.is_none() { None } else { defaults };
            sections.push(Section { head: CfgLine { id, words }, lines: Vec::new(), defaults });
        } else if let Some(section) = sections.last_mut() {
            if let ("global", [set, name, value]) = (section.kind(), words.as_slice()) {
                let is_known = variables.contains_key(name) || std::env::var_os(name).is_some();
                if set == "setenv" || set == "presetenv" && !is_known {
                    variables.insert(name.clone(), value.clone());
                }
            }
            section.lines.push(CfgLine { id, words });
        } else {
            ledger.left(id, "it stands before the first section");
        }
    }
    for section in &sections {
        let outcome = match section.kind() {
            "global" | "defaults" | "frontend" | "backend" | "listen" => continue,
            "resolvers" if section.lines.iter().any(|line| line.words[0] == "nameserver") => {
                (Outcome::Left, "names are looked up by the system's resolver every 30 s: enter its servers there")
            }
            "resolvers" => (Outcome::NotNeeded, "names are looked up by the system's resolver every 30 s"),
            "peers" => (Outcome::Left, "no tables are shared: ip_hash places clients alike on every instance"),
            "mailers" => (Outcome::Left, "no mail is sent: alert on the metrics, see config/alerts.yaml"),
            _ => (Outcome::Left, "a layer-4 balancer has no such section"),
        };
        let members: Vec<StatementId> = section.lines.iter().map(|line| line.id).collect();
        ledger.block(section.head.id, &members, outcome.0, outcome.1);
    }
    sections
}

/// The lines that apply to a section, those of its `defaults` first.
pub(super) fn effective(sections: &[Section], index: usize) -> Vec<CfgLine> {
    let mut chain = vec![index];
    // A `defaults` refers to an earlier one: the chain ends.
    while let Some(earlier) = chain.last().and_then(|last| sections[*last].defaults) {
        chain.push(earlier);
    }
    chain.iter().rev().flat_map(|index| sections[*index].lines.iter().cloned()).collect()
}
