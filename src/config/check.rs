//! From the keys as typed to the model: defaults, references, ranges. Collects all errors with their places; the model
//! exists only without errors.

mod binds;
mod files;
mod health;
mod listener;
mod lookup;
mod loops;
mod negotiation;
mod pool;
mod references;
mod route;
mod tls;

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use lookup::FileLookup;

use super::files::Files;
use super::located::Located;
use super::model::{AccessLog, AdminConfig, Config, LogConfig, LogFormat, LogLevel, Shutdown};
use super::raw::{RawAdmin, RawConfig, RawLog, RawShutdown};
use super::report::{Diagnostic, shown};
use super::scalars::{AccessTarget, BindAddress, FilePath, Period};
use super::scalars_serde::{Int, Workers};
use super::tree::{NodeId, NodeValue, Tree};
use super::unknown;
use crate::net::addr::Address;

/// Longest name of a listener, pool or backend, in characters. Names are labels of metrics.
const MAX_NAME: usize = 128;

/// More threads are a typo.
const MAX_WORKERS: i64 = 1024;

/// Checks a whole configuration. The model is complete if no diagnostic is an error.
pub(crate) fn check(tree: &Tree, raw: &RawConfig, files: &dyn Files) -> (Option<Config>, Vec<Diagnostic>) {
    let mut checker = Checker { tree, diagnostics: Vec::new(), files: FileLookup::new(files) };
    let config = checker.config(raw);
    (config, checker.diagnostics)
}

/// The diagnostics, and checks that all sections share.
struct Checker<'t> {
    tree: &'t Tree,
    diagnostics: Vec<Diagnostic>,
    files: FileLookup<'t>,
}

impl Checker<'_> {
    fn config(&mut self, raw: &RawConfig) -> Option<Config> {
        let workers = self.workers(raw.workers.as_ref());
        let admin = value(raw.admin.as_ref()).map(|(admin, at)| self.admin(admin, at));
        let log = self.log(raw.log.as_ref());
        let shutdown = self.shutdown(raw.shutdown.as_ref());
        let listeners = self.listeners(raw.listeners.as_ref(), raw.pools.as_ref());
        let pools = self.pools(raw.pools.as_ref());
        let binds = self.binds(raw);
        self.overlaps(&binds);
        self.bindable(&binds);
        self.loops(raw, &binds);
        let (listeners, pools) = (listeners?, pools?);
        self.both_sides(&listeners, &pools, raw.pools.as_ref());
        Some(Config { workers: workers?, admin, log, shutdown, listeners, pools })
    }

    fn workers(&mut self, key: Option<&Located<Workers>>) -> Option<NonZeroUsize> {
        match value(key) {
            Some((Workers::Count(count), at)) => {
                let count = self.in_range(*count, at, 1..=MAX_WORKERS)?;
                NonZeroUsize::new(usize::try_from(count).ok()?)
            }
            // Fails only if the system cannot count its CPUs.
            _ => Some(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
        }
    }

    fn admin(&mut self, raw: &RawAdmin, owner: NodeId) -> AdminConfig {
        let bind = value(raw.bind.as_ref()).map_or_else(default_admin, |(BindAddress(address), _)| address.clone());
        let is_near = match &bind {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        };
        if let (false, None, Some(key)) = (is_near, &raw.token_file, &raw.bind)
            && !self.is_typo_of(owner, "token_file")
        {
            let diagnostic = Diagnostic::new(format!("`{bind}` is not loopback and requires token_file"));
            self.error(key.at, diagnostic.hint("set token_file to a file with the bearer token, or bind to 127.0.0.1"));
        }
        let token_file = value(raw.token_file.as_ref());
        if let Some((FilePath(path), at)) = token_file {
            self.token_file(path, at);
        }
        AdminConfig { bind, token_file: token_file.map(|(FilePath(path), _)| path.clone().into()) }
    }

    fn log(&mut self, key: Option<&Located<RawLog>>) -> LogConfig {
        let absent = RawLog::default();
        let raw = value(key).map_or(&absent, |(log, _)| log);
        if let Some((AccessTarget::File(path), at)) = value(raw.access.as_ref()) {
            self.log_file(path, at);
        }
        LogConfig {
            level: copied(raw.level.as_ref()).unwrap_or(LogLevel::Info),
            format: copied(raw.format.as_ref()).unwrap_or(LogFormat::Text),
            access: match value(raw.access.as_ref()) {
                None | Some((AccessTarget::Off, _)) => AccessLog::Off,
                Some((AccessTarget::Stderr, _)) => AccessLog::Stderr,
                Some((AccessTarget::File(path), _)) => AccessLog::File(path.clone()),
            },
        }
    }

    fn shutdown(&mut self, key: Option<&Located<RawShutdown>>) -> Shutdown {
        let drain = value(key).and_then(|(shutdown, _)| shutdown.drain.as_ref());
        Shutdown { drain: period(drain, Duration::from_secs(30)) }
    }

    /// Reports an error about a value, with its path before the message.
    fn error(&mut self, at: NodeId, diagnostic: Diagnostic) {
        let diagnostic = self.located(at, diagnostic);
        self.diagnostics.push(diagnostic);
    }

    fn located(&self, at: NodeId, diagnostic: Diagnostic) -> Diagnostic {
        let mut located = diagnostic.at(self.tree.span(at));
        let path = self.tree.path(at);
        if !path.is_empty() {
            located.message = format!("{path}: {}", located.message);
        }
        located
    }

    fn warning(&mut self, at: NodeId, diagnostic: Diagnostic) {
        let diagnostic = self.located(at, diagnostic.warning());
        self.diagnostics.push(diagnostic);
    }

    /// A required key. Without it, the error is at its section.
    fn required<'r, T>(
        &mut self,
        key: Option<&'r Located<T>>,
        name: &str,
        owner: NodeId,
        hint: &str,
    ) -> Option<(&'r T, NodeId)> {
        if key.is_none() && !self.is_typo_of(owner, name) {
            self.error(owner, Diagnostic::new(format!("`{name}` is missing")).hint(hint));
        }
        value(key)
    }

    /// The first child of a mapping that has one of these keys.
    fn child(&self, owner: NodeId, keys: &[&str]) -> Option<NodeId> {
        let NodeValue::Map(children) = self.tree.value(owner) else {
            return None;
        };
        let named = |child: &&NodeId| self.tree.key(**child).is_some_and(|key| keys.contains(&key));
        children.iter().find(named).copied()
    }

    /// Rejects a section without content. Elsewhere that counts as absent; here it would protect less than its author
    /// expects.
    fn empty_section(&mut self, owner: NodeId, key: &str, hint: &str) {
        if let Some(at) = self.child(owner, &[key])
            && self.tree.text(at) == Some("")
            && self.tree.is_null(at)
        {
            self.error(at, Diagnostic::new("the section is empty").hint(hint));
        }
    }

    /// Whether a mapping has an unknown key that was probably meant as `name`. That is reported with a suggestion: a
    /// second error about the missing `name` would repeat it.
    fn is_typo_of(&self, owner: NodeId, name: &str) -> bool {
        let NodeValue::Map(children) = self.tree.value(owner) else {
            return false;
        };
        let section = self.tree.section(owner);
        children.iter().any(|child| self.tree.key(*child).is_some_and(|key| unknown::means(&section, key, name)))
    }

    /// The elements of a required list that must not be empty.
    fn elements<'r, T>(
        &mut self,
        key: Option<&'r Located<Vec<Located<T>>>>,
        what: &str,
        owner: Option<NodeId>,
        hint: &str,
    ) -> &'r [Located<T>] {
        match (key, owner) {
            (Some(Located { value: None, .. }), _) => &[],
            (Some(Located { value: Some(elements), at }), _) => {
                if elements.is_empty() {
                    self.error(*at, Diagnostic::new(format!("no {what}")).hint(hint));
                }
                elements
            }
            (None, Some(owner)) => {
                if !self.is_typo_of(owner, what) {
                    self.error(owner, Diagnostic::new(format!("no {what}")).hint(hint));
                }
                &[]
            }
            (None, None) => &[],
        }
    }

    /// The elements of a list without duplicates; `None` if one could not be read, which is reported.
    fn distinct<'r, T: Eq + Hash + Display>(&mut self, list: &'r [Located<T>]) -> Option<Vec<(&'r T, NodeId)>> {
        let mut first: HashMap<&T, NodeId> = HashMap::new();
        let mut elements = Vec::with_capacity(list.len());
        for element in list {
            let Some((element, at)) = value(Some(element)) else {
                continue;
            };
            match first.get(element) {
                Some(first) => {
                    let what = format!("`{}` is given twice", shown(&element.to_string()));
                    self.duplicate(at, *first, what, "remove one of them");
                }
                None => drop(first.insert(element, at)),
            }
            elements.push((element, at));
        }
        (elements.len() == list.len()).then_some(elements)
    }

    fn number(&mut self, key: Option<&Located<Int>>, range: RangeInclusive<i64>, default: i64) -> i64 {
        match value(key) {
            Some((Int(number), at)) => self.in_range(*number, at, range).unwrap_or(default),
            None => default,
        }
    }

    fn in_range(&mut self, number: i64, at: NodeId, range: RangeInclusive<i64>) -> Option<i64> {
        if range.contains(&number) {
            return Some(number);
        }
        let written = self.tree.text(at).unwrap_or_default();
        let diagnostic = Diagnostic::new(format!("{written} is out of range")).hint(format!(
            "valid range: {} to {}",
            range.start(),
            range.end()
        ));
        self.error(at, diagnostic);
        None
    }

    /// A number; 0 is no limit.
    fn limit(&mut self, key: Option<&Located<Int>>) -> Option<NonZeroU32> {
        let number = self.number(key, 0..=i64::from(u32::MAX), 0);
        u32::try_from(number).ok().and_then(NonZeroU32::new)
    }

    /// A duration that must not be zero.
    fn positive(&mut self, key: Option<&Located<Period>>, default: Duration) -> Duration {
        match value(key) {
            Some((Period(Duration::ZERO), at)) => {
                let diagnostic =
                    Diagnostic::new("must be longer than 0").hint(format!("the default is {}", Period(default)));
                self.error(at, diagnostic);
                default
            }
            _ => period(key, default),
        }
    }

    /// Checks a name: it appears in logs, and as a label of metrics.
    fn name(&mut self, name: &str, at: NodeId) {
        let length = name.chars().count();
        let diagnostic = if length == 0 {
            Diagnostic::new("the name must not be empty")
        } else if length > MAX_NAME {
            Diagnostic::new(format!("the name is {length} characters long")).hint(format!("at most {MAX_NAME}"))
        } else if name.contains(char::is_control) {
            Diagnostic::new("the name contains control characters")
                .hint("names appear in logs: use letters, digits and punctuation")
        } else {
            return;
        };
        self.error(at, diagnostic);
    }

    /// An error about a duplicate, with the place of the first.
    fn duplicate(&mut self, at: NodeId, first: NodeId, what: impl Into<String>, hint: &str) {
        let first: Range<usize> = self.tree.span(first);
        let diagnostic = self.located(at, Diagnostic::new(what).hint(hint));
        // A value and its alias have the same place.
        let diagnostic = match diagnostic.span.as_ref() == Some(&first) {
            true => diagnostic,
            false => diagnostic.related(first, "first here"),
        };
        self.diagnostics.push(diagnostic);
    }
}

/// Default address of the stats port.
fn default_admin() -> Address {
    Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9900)))
}

/// A key's value and node; `None` if it is absent, or could not be read, which is reported.
fn value<T>(key: Option<&Located<T>>) -> Option<(&T, NodeId)> {
    key.and_then(|located| located.value.as_ref().map(|value| (value, located.at)))
}

fn copied<T: Copy>(key: Option<&Located<T>>) -> Option<T> {
    value(key).map(|(value, _)| *value)
}

fn period(key: Option<&Located<Period>>, default: Duration) -> Duration {
    copied(key).map_or(default, |Period(length)| length)
}

/// A duration; 0s is none.
fn optional_period(key: Option<&Located<Period>>, default: Duration) -> Option<Duration> {
    Some(period(key, default)).filter(|length| !length.is_zero())
}
