//! The checks of a file, of a configuration that is changed while it is in effect.
//!
//! What can be wrong with values together (forwarding loops, names that collide, ports that no client has) is checked in one place: here the
//! changed configuration goes through it as a file would, but for the text.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Files, host};
use super::model::{Config, ListenAddress};
use super::report::{Diagnostic, Severity};
use super::{diagnose, effective};
use crate::net::addr::Address;

/// What is wrong with a configuration, each in one line, with listeners, pools and backends by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

impl Findings {
    /// Without those that are known. `known` is asked only if there are any.
    pub fn beyond(mut self, known: impl FnOnce() -> Findings) -> Findings {
        if self != Findings::default() {
            let known = known();
            let known: HashSet<&String> = known.errors.iter().chain(&known.warnings).collect();
            self.errors.retain(|error| !known.contains(error));
            self.warnings.retain(|warning| !known.contains(warning));
        }
        self
    }
}

/// What the checks of a file find in a configuration. `bound` are the listeners' addresses, with the ports that the kernel chose.
/// Looks at the file system: may block.
pub fn findings(config: &Config, bound: &[(Arc<str>, Address)]) -> Findings {
    let config = as_bound(config, bound);
    let mut findings = Findings::default();
    for Diagnostic { severity, message, hint, .. } in diagnose(&effective::configuration(&config), &HostOnly) {
        let message = by_name(&message, &config);
        let line = hint.map_or_else(|| message.clone(), |hint| format!("{message}; {hint}"));
        match severity {
            Severity::Error => findings.errors.push(line),
            Severity::Warning => findings.warnings.push(line),
        }
    }
    findings
}

/// With the addresses in the place of those whose port the kernel was to choose.
fn as_bound(config: &Config, bound: &[(Arc<str>, Address)]) -> Config {
    let mut config = config.clone();
    for listener in &mut config.listeners {
        let is_chosen = |bind: &ListenAddress| matches!(bind, ListenAddress::One(Address::Tcp(at)) if at.port() == 0);
        let of_kernel = bound.iter().filter(|(name, address)| *name == listener.name && !listener.binds(address));
        let of_kernel: Vec<ListenAddress> = of_kernel.map(|(_, address)| ListenAddress::One(address.clone())).collect();
        // One that is drained has none.
        if listener.bind.iter().any(is_chosen) && !of_kernel.is_empty() {
            listener.bind.retain(|bind| !is_chosen(bind));
            listener.bind.extend(of_kernel);
        }
    }
    config
}

/// A message with names in the place of the numbers in its path: `pools[0].backends[1].address: ...`. Numbers change when an entry is
/// removed before them.
fn by_name(message: &str, config: &Config) -> String {
    let (path, rest) = message.split_once(": ").unwrap_or(("", message));
    let indexed = |text: &'static str, path: &str| {
        let (index, rest) = path.strip_prefix(text)?.strip_prefix('[')?.split_once(']')?;
        Some((index.parse::<usize>().ok()?, rest.to_owned()))
    };
    let named = || {
        if let Some((index, rest)) = indexed("listeners", path) {
            return Some(format!("listeners.{}{rest}", config.listeners.get(index)?.name));
        }
        let (index, rest) = indexed("pools", path)?;
        let pool = config.pools.get(index)?;
        Some(match indexed(".backends", &rest) {
            Some((index, rest)) => format!("pools.{}.backends.{}{rest}", pool.name, pool.backends.get(index)?.name),
            None => format!("pools.{}{rest}", pool.name),
        })
    };
    named().map_or_else(|| message.to_owned(), |path| format!("{path}: {rest}"))
}

/// Knows the addresses and paths of this host. Files were checked when the configuration was read.
struct HostOnly;

impl Files for HostOnly {
    fn real(&self, path: &Path) -> PathBuf {
        host::real(path)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        host::is_own(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::files::Unread;
    use crate::config::parse;

    fn config(binds: &str, backends: &str) -> Config {
        let text = format!(
            "listeners: [{{ name: in, bind: {binds}, pool: p }}]\npools:\n- {{ name: q, backends: [] }}\n\
             - {{ name: p, backends: [{backends}] }}\n"
        );
        parse("test", &text, &Unread).unwrap_or_else(|failure| panic!("{failure}")).config
    }

    fn bound(addresses: &[&str]) -> Vec<(Arc<str>, Address)> {
        let tcp = |address: &&str| ("in".into(), Address::Tcp(address.parse().unwrap()));
        addresses.iter().map(tcp).collect()
    }

    #[test]
    fn what_was_there_before_is_no_finding() {
        let before = config("127.0.0.1:0", "{ name: a, address: 127.0.0.1:2 }");
        let after = config("127.0.0.1:0", "{ name: b, address: 127.0.0.1:7 }, { name: 'x: y', address: localhost:7 }");
        let bound = bound(&["127.0.0.1:7"]);
        let new = |before: &Config, after: &Config| findings(after, &bound).beyond(|| findings(before, &bound));
        let Findings { errors, warnings } = new(&before, &after);
        let hint = "use the address of the server, not one that a listener of this file binds";
        let error = "pools.p.backends.b.address: forwarding loop: this is the address of listener `in`";
        assert_eq!(errors, [format!("{error}; {hint}")]);
        let warning =
            "pools.p.backends.x: y.address: possible forwarding loop: this may be the address of listener `in`";
        assert_eq!(warnings, [format!("{warning}; {hint}")], "that q is unused is no news");
        assert_eq!(new(&after, &after), Findings::default());
        // Nor when it has another number.
        let fewer = config("127.0.0.1:0", "{ name: 'x: y', address: localhost:7 }");
        assert_eq!(new(&after, &fewer), Findings::default());
        assert_eq!(findings(&after, &[]), findings(&before, &[]), "the port is not known");
    }

    /// What is not shown of a configuration does not hide the rest of it.
    #[test]
    fn secrets_are_no_findings_and_hide_none() {
        let with = |bind: &str, health: &str| {
            let text = format!(
                "admin: {{ bind: 127.0.0.1:9, token_file: /run/token }}\n\
                 listeners: [{{ name: in, bind: {bind}, pool: p, tls: {{ certificates: [{{ cert: c, key: k }}] }} }}]\n\
                 pools: [{{ name: p, backends: [{{ name: a, address: 127.0.0.1:2 }}], health: {{ {health}, port: 7 }} }}]\n"
            );
            parse("test", &text, &Unread).unwrap_or_else(|failure| panic!("{failure}")).config
        };
        for health in [
            "http: { path: /a, headers: { Authorization: 'Basic x' }, body: secret }",
            "exchange: { send: secret, expect: secret }",
        ] {
            let good = with("127.0.0.1:1", health);
            let mut wrong = with("['127.0.0.1:1', 'unix:/run/in']", health);
            wrong.pools[0].backends[0].address = crate::config::backend_address("10.0.0.9:*").unwrap();
            let Findings { errors, .. } = findings(&wrong, &[]).beyond(|| findings(&good, &[]));
            let expected = "pools.p.backends.a.address: clients of the unix socket of listener `in` connect to no port";
            assert!(errors.len() == 1 && errors[0].starts_with(expected), "{health}: {errors:?}");
        }
    }

    /// The values of a text are checked as the text is.
    #[test]
    fn values_are_checked_like_their_text() {
        let mut checked = 0;
        for folder in ["config", "tests/broken", "docs", "tests/convert"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|kind| kind != "yaml") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let Ok(loaded) = parse("test", &text, &Unread) else { continue };
                // As in effect, and with every backend at the address of a listener.
                let mut looped = loaded.config.clone();
                looped.pools.iter_mut().flat_map(|pool| &mut pool.backends).for_each(|backend| {
                    backend.address = crate::config::backend_address("localhost:*").unwrap();
                });
                for config in [loaded.config, looped] {
                    let values = effective::configuration(&config);
                    let of_text = match parse("", &values.to_string(), &HostOnly) {
                        Ok(loaded) => loaded.warnings,
                        Err(failure) => failure.diagnostics,
                    };
                    let bare = |found: Vec<Diagnostic>| -> Vec<_> {
                        found.into_iter().map(|it| (it.severity, it.message, it.hint)).collect()
                    };
                    assert_eq!(bare(diagnose(&values, &HostOnly)), bare(of_text), "{}", path.display());
                    checked += 1;
                }
            }
        }
        assert!(checked > 20, "{checked}");
    }

    #[test]
    fn ports_of_the_kernel_take_the_place_of_zero_only() {
        let all = config("['127.0.0.1:0', '127.0.0.2:5', '127.0.0.3:6-7']", "");
        let bound = bound(&["127.0.0.1:9", "127.0.0.2:5", "127.0.0.3:6", "127.0.0.3:7"]);
        let binds = |config: &Config| config.listeners[0].bind.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(binds(&as_bound(&all, &bound)), ["127.0.0.2:5", "127.0.0.3:6-7", "127.0.0.1:9"]);
        assert_eq!(as_bound(&all, &[]), all);
    }
}
