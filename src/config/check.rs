//! From the keys as typed to the model: defaults, references, ranges. Collects all errors with their places; the model
//! exists only without errors.

mod access;
mod admin;
mod binds;
mod client_port;
mod database;
mod dead_route;
mod environment;
mod files;
mod health;
mod http;
mod listener;
mod lookup;
mod loops;
mod negotiation;
mod policy;
mod pool;
mod references;
mod route;
mod starttls;
mod tls;
mod udp;

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use environment::Environment;
use lookup::FileLookup;

use super::files::{Files, Unread};
use super::located::Located;
use super::model::{
    AccessLog, AdminConfig, Config, ListenerConfig, LogConfig, LogFormat, LogLevel, PoolIndex, ReloadConfig, Shutdown,
};
use super::raw::{RawConfig, RawLog, RawShutdown, RawWatch};
use super::report::{Diagnostic, Severity, shown};
use super::scalars::{AccessTarget, Period};
use super::scalars_serde::{Int, Workers};
use super::tree::{NodeId, NodeValue, Tree};
use super::unknown;

/// Longest name of a listener, pool or backend, in characters. Names are labels of metrics.
const MAX_NAME: usize = 128;

/// More threads are a typo.
const MAX_WORKERS: i64 = 1024;

/// Checks a whole configuration. The model is complete if no diagnostic is an error.
pub(crate) fn check(tree: &Tree, raw: &RawConfig, files: &dyn Files) -> (Option<Config>, Vec<Diagnostic>) {
    let (environment, diagnostics) = Environment::read(files);
    let mut checker = Checker::new(tree, raw, files, environment, diagnostics);
    let config = checker.config(raw);
    (config, checker.diagnostics)
}

/// The `admin` section, if it has no error.
pub(crate) fn admin_section(tree: &Tree, raw: &RawConfig) -> Option<AdminConfig> {
    let (environment, _) = Environment::read(&Unread);
    let mut checker = Checker::new(tree, raw, &Unread, environment, Vec::new());
    let admin = value(raw.admin.as_ref()).map(|(admin, at)| checker.admin(admin, at));
    let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
    admin.filter(|_| !checker.diagnostics.iter().any(is_error))
}

/// The diagnostics, and checks that all sections share.
struct Checker<'t> {
    tree: &'t Tree,
    diagnostics: Vec<Diagnostic>,
    files: FileLookup<'t>,
    environment: Environment,
    /// Whether there is a database of countries, or its absence is reported.
    knows_countries: bool,
}

impl<'t> Checker<'t> {
    fn new(
        tree: &'t Tree,
        raw: &RawConfig,
        files: &'t dyn Files,
        environment: Environment,
        diagnostics: Vec<Diagnostic>,
    ) -> Checker<'t> {
        let mut checker =
            Checker { tree, diagnostics, files: FileLookup::new(files), environment, knows_countries: false };
        checker.knows_countries = match &raw.geoip {
            // An error in the section is reported by itself.
            Some(Located { value: None, at }) => !tree.is_null(*at),
            Some(Located { value: Some(geoip), at }) => geoip.database.is_some() || checker.is_typo_of(*at, "database"),
            None => tree.root().is_some_and(|root| checker.is_typo_of(root, "geoip")),
        };
        checker
    }
}

impl Checker<'_> {
    fn config(&mut self, raw: &RawConfig) -> Option<Config> {
        let workers = self.workers(raw.workers.as_ref());
        let admin = value(raw.admin.as_ref()).map(|(admin, at)| self.admin(admin, at));
        let log = self.log(raw.log.as_ref());
        let watch = value(raw.reload.as_ref()).and_then(|(reload, _)| copied(reload.watch.as_ref()));
        let reload = ReloadConfig { watch: watch == Some(RawWatch::On) };
        let geoip = self.geoip(raw.geoip.as_ref());
        let shutdown = self.shutdown(raw.shutdown.as_ref());
        let listeners = self.listeners(raw.listeners.as_ref(), raw.pools.as_ref());
        let pools = self.pools(raw.pools.as_ref());
        for datagrams in [false, true] {
            let binds = self.binds(raw, datagrams);
            self.overlaps(&binds);
            self.bindable(&binds);
            self.loops(raw, &binds);
        }
        let (listeners, mut pools) = (listeners?, pools?);
        self.pools_of_datagrams(&listeners, &mut pools, raw.pools.as_ref());
        self.pools_of_requests(&listeners, &mut pools, raw.pools.as_ref());
        self.both_sides(&listeners, &pools, raw.pools.as_ref());
        self.one_protocol(&listeners, &pools, raw.pools.as_ref());
        self.client_ports(&listeners, &pools, raw.pools.as_ref());
        self.ejections_by_status(&listeners, raw.pools.as_ref());
        Some(Config { workers: workers?, admin, reload, geoip, log, shutdown, listeners, pools })
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

    fn log(&mut self, key: Option<&Located<RawLog>>) -> LogConfig {
        let absent = RawLog::default();
        let raw = value(key).map_or(&absent, |(log, _)| log);
        if let Some((AccessTarget(AccessLog::File(path)), at)) = value(raw.access.as_ref()) {
            self.log_file(path, at);
        }
        LogConfig {
            level: self.environment.log_level(copied(raw.level.as_ref()).unwrap_or(LogLevel::Info)),
            format: copied(raw.format.as_ref()).unwrap_or(LogFormat::Text),
            access: value(raw.access.as_ref()).map_or(AccessLog::Off, |(AccessTarget(target), _)| target.clone()),
            access_empty: copied(raw.access_empty.as_ref()).unwrap_or(true),
        }
    }

    fn shutdown(&mut self, key: Option<&Located<RawShutdown>>) -> Shutdown {
        let absent = RawShutdown::default();
        let raw = value(key).map_or(&absent, |(shutdown, _)| shutdown);
        Shutdown {
            delay: period(raw.delay.as_ref(), Duration::ZERO),
            drain: period(raw.drain.as_ref(), Duration::from_secs(30)),
        }
    }

    /// Reports an error about a value, with its path before the message.
    fn error(&mut self, at: NodeId, diagnostic: Diagnostic) {
        let diagnostic = self.located(at, diagnostic);
        self.diagnostics.push(diagnostic);
    }

    fn located(&self, at: NodeId, diagnostic: Diagnostic) -> Diagnostic {
        self.tree.located(at, diagnostic)
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
        if let Some(fault) = name_fault(name) {
            self.error(at, fault);
        }
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

/// Control characters, and those that change the direction of text: a name in a log must not hide another.
fn is_invisible(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// What is wrong with a name.
pub(crate) fn name_fault(name: &str) -> Option<Diagnostic> {
    let length = name.chars().count();
    if length == 0 {
        Some(Diagnostic::new("the name must not be empty"))
    } else if length > MAX_NAME {
        Some(Diagnostic::new(format!("the name is {length} characters long")).hint(format!("at most {MAX_NAME}")))
    } else if name.contains(is_invisible) {
        let hint = "names appear in logs: use letters, digits and punctuation";
        Some(Diagnostic::new("the name contains control characters").hint(hint))
    } else {
        None
    }
}

/// The listeners that lead to a pool: those for which `is_such` holds, and the others.
fn in_front(
    listeners: &[ListenerConfig],
    pool: PoolIndex,
    is_such: impl Fn(&ListenerConfig) -> bool,
) -> (Vec<&ListenerConfig>, Vec<&ListenerConfig>) {
    let all = listeners.iter().filter(|listener| listener.pools().any(|of| of == pool));
    all.partition(|listener| is_such(listener))
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
