//! From what was typed to what is meant: defaults, references, ranges. Everything wrong is collected,
//! each with its place; a model comes out only when nothing is.

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

/// Longest name of a listener, pool or backend, in characters: names become labels of metrics.
const MAX_NAME: usize = 128;

/// More threads than this is a typing error.
const MAX_WORKERS: i64 = 1024;

/// Checks a whole configuration. The model is there when none of the diagnostics is an error.
pub(crate) fn check(tree: &Tree, raw: &RawConfig, files: &dyn Files) -> (Option<Config>, Vec<Diagnostic>) {
    let mut checker = Checker { tree, diagnostics: Vec::new(), files: FileLookup::new(files) };
    let config = checker.config(raw);
    (config, checker.diagnostics)
}

/// A place for diagnostics, and the questions that every section asks.
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
            // Only a system that cannot count its CPUs fails here.
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
            let diagnostic =
                Diagnostic::error(format!("`{bind}` can be reached from elsewhere, and there is no token_file"));
            self.error(
                key.at,
                diagnostic
                    .hint("give token_file, a file with a secret that readers have to show, or bind to 127.0.0.1"),
            );
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

    /// An error about a value; its path is put before the message.
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

    /// A key that must be there. Without it, the whole it belongs to is marked.
    fn required<'r, T>(
        &mut self,
        key: Option<&'r Located<T>>,
        name: &str,
        owner: NodeId,
        hint: &str,
    ) -> Option<(&'r T, NodeId)> {
        if key.is_none() && !self.is_typo_of(owner, name) {
            self.error(owner, Diagnostic::error(format!("`{name}` is missing")).hint(hint));
        }
        value(key)
    }

    /// The first child of a mapping that has one of these keys, whatever its value.
    fn child(&self, owner: NodeId, keys: &[&str]) -> Option<NodeId> {
        let NodeValue::Map(children) = self.tree.value(owner) else {
            return None;
        };
        let named = |child: &&NodeId| self.tree.key(**child).is_some_and(|key| keys.contains(&key));
        children.iter().find(named).copied()
    }

    /// A section of which only the key is written. Elsewhere that is as good as leaving it out; here it would
    /// mean less protection than the author believes in.
    fn empty_section(&mut self, owner: NodeId, key: &str, hint: &str) {
        if let Some(at) = self.child(owner, &[key])
            && self.tree.text(at) == Some("")
            && self.tree.is_null(at)
        {
            self.error(at, Diagnostic::error("nothing is given").hint(hint));
        }
    }

    /// Whether a mapping has a key that was probably meant to be `name`. It was reported as unknown, with
    /// that guess; that `name` is missing would say the same once more.
    fn is_typo_of(&self, owner: NodeId, name: &str) -> bool {
        let NodeValue::Map(children) = self.tree.value(owner) else {
            return false;
        };
        let section = self.tree.section(owner);
        children.iter().any(|child| self.tree.key(*child).is_some_and(|key| unknown::means(&section, key, name)))
    }

    /// The elements of a list that must be there and must not be empty.
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
                    self.error(*at, Diagnostic::error(format!("no {what}")).hint(hint));
                }
                elements
            }
            (None, Some(owner)) => {
                if !self.is_typo_of(owner, what) {
                    self.error(owner, Diagnostic::error(format!("no {what}")).hint(hint));
                }
                &[]
            }
            (None, None) => &[],
        }
    }

    /// The elements of a list in which none should be twice; `None` when one could not be read, which is reported.
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
                    self.twice(at, *first, what, "once is enough");
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
        let diagnostic = Diagnostic::error(format!("{written} is out of range")).hint(format!(
            "write {} to {}",
            range.start(),
            range.end()
        ));
        self.error(at, diagnostic);
        None
    }

    /// A number of which 0 means no limit.
    fn limit(&mut self, key: Option<&Located<Int>>) -> Option<NonZeroU32> {
        let number = self.number(key, 0..=i64::from(u32::MAX), 0);
        u32::try_from(number).ok().and_then(NonZeroU32::new)
    }

    /// A duration that must not be zero.
    fn positive(&mut self, key: Option<&Located<Period>>, default: Duration) -> Duration {
        match value(key) {
            Some((Period(Duration::ZERO), at)) => {
                let diagnostic =
                    Diagnostic::error("must be longer than 0").hint(format!("the default is {}", Period(default)));
                self.error(at, diagnostic);
                default
            }
            _ => period(key, default),
        }
    }

    /// Whether a text can be a name: shown in logs, a label in metrics.
    fn name(&mut self, name: &str, at: NodeId) {
        let length = name.chars().count();
        let diagnostic = if length == 0 {
            Diagnostic::error("a name must not be empty")
        } else if length > MAX_NAME {
            Diagnostic::error(format!("a name of {length} characters")).hint(format!("at most {MAX_NAME}"))
        } else if name.contains(char::is_control) {
            Diagnostic::error("a name with control characters")
                .hint("names appear in logs: use letters, digits and punctuation")
        } else {
            return;
        };
        self.error(at, diagnostic);
    }

    /// An error about a name, or an address, that was used before.
    fn twice(&mut self, at: NodeId, first: NodeId, what: impl Into<String>, hint: &str) {
        let first: Range<usize> = self.tree.span(first);
        let diagnostic = self.located(at, Diagnostic::error(what).hint(hint));
        // One value that an alias repeats has only one place.
        let diagnostic = match diagnostic.span.as_ref() == Some(&first) {
            true => diagnostic,
            false => diagnostic.related(first, "first here"),
        };
        self.diagnostics.push(diagnostic);
    }
}

/// Where the stats port is when its section does not say.
fn default_admin() -> Address {
    Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9900)))
}

/// What a key holds and where; `None` when it is left out, or could not be read, which is reported.
fn value<T>(key: Option<&Located<T>>) -> Option<(&T, NodeId)> {
    key.and_then(|located| located.value.as_ref().map(|value| (value, located.at)))
}

fn copied<T: Copy>(key: Option<&Located<T>>) -> Option<T> {
    value(key).map(|(value, _)| *value)
}

fn period(key: Option<&Located<Period>>, default: Duration) -> Duration {
    copied(key).map_or(default, |Period(length)| length)
}

/// A duration of which 0s means none.
fn optional_period(key: Option<&Located<Period>>, default: Duration) -> Option<Duration> {
    Some(period(key, default)).filter(|length| !length.is_zero())
}
