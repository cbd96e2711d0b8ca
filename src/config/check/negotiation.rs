//! TLS on both sides of a connection: what is negotiated with the client, and with the backend.

use super::{Checker, value};
use crate::config::located::Located;
use crate::config::model::{ListenerConfig, NameSource, PoolConfig, PoolIndex};
use crate::config::raw::RawPool;
use crate::config::report::{Diagnostic, shown};

impl Checker<'_> {
    /// Checks each pool with TLS against the listeners in front of it.
    pub(super) fn both_sides(
        &mut self,
        listeners: &[ListenerConfig],
        pools: &[PoolConfig],
        raw: Option<&Located<Vec<Located<RawPool>>>>,
    ) {
        let raw = value(raw).map_or(&[][..], |(pools, _)| pools);
        for (place, (pool, raw)) in pools.iter().zip(raw).enumerate() {
            let keys = value(Some(raw)).and_then(|(pool, _)| value(pool.tls.as_ref()));
            let (Some(tls), Some((keys, _))) = (&pool.tls, keys) else { continue };
            let leads_here = |listener: &&ListenerConfig| listener.pools().any(|pool| pool == PoolIndex(place));
            let fronts: Vec<&ListenerConfig> = listeners.iter().filter(leads_here).collect();
            if let (NameSource::Client, Some(key)) = (&tls.server_name, &keys.server_name) {
                let without = fronts.iter().filter(|listener| listener.tls.is_none());
                let names: Vec<String> = without.map(|listener| format!("`{}`", shown(&listener.name))).collect();
                if !names.is_empty() && names.len() == fronts.len() {
                    let diagnostic =
                        Diagnostic::new("`sni` requires a listener with `tls`, which learns the client's SNI");
                    self.error(
                        key.at,
                        diagnostic.hint(
                            "add `tls` to the listener, or set server_name to the name in the backend's certificate",
                        ),
                    );
                } else if !names.is_empty() {
                    let diagnostic = Diagnostic::new(format!(
                        "listener {} has no `tls`: the client's SNI is not known",
                        names.join(", ")
                    ));
                    self.warning(key.at, diagnostic.hint("its connections send the backend's host name as SNI"));
                }
            }
            if let (Some(key), false) = (&keys.alpn, tls.alpn.is_empty()) {
                // Of `protocol: http`, the protocol to the backend is another matter than that to the client.
                for listener in fronts.into_iter().filter(|listener| listener.http.is_none()) {
                    let agreed = listener.tls.as_ref().map_or(&[][..], |tls| &tls.alpn);
                    let name = shown(&listener.name);
                    if let Some(other) = agreed.iter().find(|protocol| !tls.alpn.contains(protocol)) {
                        let diagnostic = Diagnostic::new(format!(
                            "`{}` is missing, which listener `{name}` negotiates",
                            shown(other)
                        ));
                        self.warning(
                            key.at,
                            diagnostic.hint("the protocol negotiated with the client is offered to the backend"),
                        );
                    } else if agreed.is_empty() && tls.alpn.len() > 1 {
                        let diagnostic =
                            Diagnostic::new(format!("listener `{name}` negotiates no protocol with its clients"));
                        self.warning(
                            key.at,
                            diagnostic.hint(
                                "the backend may select one that the client does not speak: offer one protocol only",
                            ),
                        );
                    }
                }
            }
        }
    }
}
