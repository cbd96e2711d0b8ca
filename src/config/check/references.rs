//! References to pools by name.

use std::collections::HashMap;

use super::{Checker, value};
use crate::config::located::Located;
use crate::config::model::PoolIndex;
use crate::config::raw::RawPool;
use crate::config::report::{Diagnostic, shown, similar};
use crate::config::tree::NodeId;

/// Names of the pools, and which of them are referenced.
pub(super) struct Pools<'r> {
    names: Vec<(&'r str, NodeId)>,
    index: HashMap<&'r str, usize>,
    used: Vec<bool>,
    /// Which of them speak TLS to their backends.
    tls: Vec<bool>,
    /// Whether a reference could not be resolved: it may mean any pool.
    unclear: bool,
}

impl<'r> Pools<'r> {
    pub(super) fn new(key: Option<&'r Located<Vec<Located<RawPool>>>>) -> Pools<'r> {
        let raw = value(key).map_or(&[][..], |(pools, _)| pools);
        let tls = raw.iter().map(|pool| value(Some(pool)).is_some_and(|(pool, _)| pool.tls.is_some()));
        let mut pools = Pools {
            names: Vec::new(),
            index: HashMap::new(),
            used: vec![false; raw.len()],
            tls: tls.collect(),
            unclear: false,
        };
        for (index, pool) in raw.iter().enumerate() {
            let name = value(Some(pool)).and_then(|(pool, _)| value(pool.name.as_ref()));
            // A duplicate name is reported elsewhere.
            if let Some((name, at)) = name
                && !pools.index.contains_key(name.as_str())
            {
                pools.names.push((name, at));
                pools.index.insert(name, index);
            }
        }
        pools
    }

    /// Whether a pool speaks TLS to its backends.
    pub(super) fn speaks_tls(&self, PoolIndex(index): PoolIndex) -> bool {
        self.tls.get(index) == Some(&true)
    }

    /// Notes that a reference could not be read.
    pub(super) fn unclear(&mut self) {
        self.unclear = true;
    }
}

impl Checker<'_> {
    /// The pool that the key `pool` of `owner` names.
    pub(super) fn pool_of(
        &mut self,
        key: Option<&Located<String>>,
        owner: NodeId,
        pools: &mut Pools<'_>,
    ) -> Option<PoolIndex> {
        let named = self.required(key, "pool", owner, "pool: the name of a pool");
        let index = named.and_then(|(name, _)| pools.index.get(name.as_str()).copied());
        if let Some(index) = index {
            if let Some(used) = pools.used.get_mut(index) {
                *used = true;
            }
            return Some(PoolIndex(index));
        }
        pools.unclear();
        let (name, at) = named?;
        if pools.names.is_empty() {
            // Missing pools and names are reported elsewhere.
            return None;
        }
        let diagnostic = Diagnostic::new(format!("there is no pool `{}`", shown(name)));
        let names = || pools.names.iter().map(|(name, _)| *name);
        let diagnostic = match similar(name, names()) {
            Some(meant) => diagnostic.hint(format!("did you mean `{}`?", shown(meant))),
            None => {
                let names: Vec<&str> = names().take(10).collect();
                diagnostic.hint(format!("the pools are: {}", names.join(", ")))
            }
        };
        self.error(at, diagnostic);
        None
    }

    /// Warns of unreferenced pools, if every reference is resolved.
    pub(super) fn unused(&mut self, pools: &Pools<'_>) {
        if pools.unclear {
            return;
        }
        for (name, at) in &pools.names {
            let index = pools.index.get(name).copied().unwrap_or_default();
            if pools.used.get(index) == Some(&false) {
                let diagnostic = Diagnostic::new(format!("pool `{}` is not used", shown(name)))
                    .hint("reference it by `pool` of a listener or a route, or remove it");
                self.warning(*at, diagnostic);
            }
        }
    }
}
