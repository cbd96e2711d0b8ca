//! `admin`.

use std::net::SocketAddr;

use super::{Checker, copied, value};
use crate::config::located::Located;
use crate::config::model::{AdminConfig, ListenAddress, ListenerTls, Plaintext};
use crate::config::raw::{RawAdmin, RawListenerTls, RawStartTls};
use crate::config::report::Diagnostic;
use crate::config::scalars::{BindAddress, FileMode, FilePath};
use crate::config::tree::NodeId;
use crate::net::addr::Address;

/// Mode of unix sockets: the user that tidegate runs as.
const DEFAULT_MODE: u32 = 0o600;

/// The only protocol of the interface (ALPN).
const HTTP_1: &str = "http/1.1";

/// Default address of the admin interface.
pub(super) fn default_address() -> Address {
    Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 9900)))
}

fn is_loopback(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Address::Unix(_) => true,
    }
}

impl Checker<'_> {
    pub(super) fn admin(&mut self, raw: &RawAdmin, owner: NodeId) -> AdminConfig {
        let binds = self.admin_binds(raw);
        let exposed = binds.iter().find(|(address, _)| !is_loopback(address));
        if let (Some((address, at)), None) = (exposed, &raw.token_file)
            && !self.is_typo_of(owner, "token_file")
        {
            let diagnostic = Diagnostic::new(format!("`{address}` is not loopback and requires token_file"));
            self.error(
                at.unwrap_or(owner),
                diagnostic.hint("set token_file to a file with the bearer token, or bind to 127.0.0.1"),
            );
        }
        let token_file = value(raw.token_file.as_ref());
        if let Some((FilePath(path), at)) = token_file {
            self.secret_file(path, at);
        }
        let state_file = value(raw.state_file.as_ref()).map(|(FilePath(path), at)| {
            self.log_file(path, at);
            path.clone()
        });
        if raw.tls.is_none() {
            self.empty_section(owner, "tls", "give `certificates`; without the key, the interface is plain HTTP");
        }
        let tls = value(raw.tls.as_ref()).and_then(|(tls, at)| self.admin_tls(tls, at));
        let allow = self.clients(raw.allow.as_ref());
        if !binds.iter().any(|(address, _)| matches!(address, Address::Tcp(_))) {
            let tls = raw.tls.as_ref().map(|key| key.at);
            let allow = raw.allow.as_ref().filter(|_| !allow.is_empty()).map(|key| key.at);
            for at in [tls, allow].into_iter().flatten() {
                let diagnostic = Diagnostic::new("has no effect").hint("it applies to TCP addresses in `bind` only");
                self.warning(at, diagnostic);
            }
        }
        AdminConfig {
            bind: binds.into_iter().map(|(address, _)| address).collect(),
            socket_mode: self.socket_mode(raw.socket_mode.as_ref()),
            token_file: token_file.map(|(FilePath(path), _)| path.clone().into()),
            tls,
            allow: allow.into(),
            state_file,
        }
    }

    /// The addresses, each with its place in the file; the default has none.
    fn admin_binds(&mut self, raw: &RawAdmin) -> Vec<(Address, Option<NodeId>)> {
        let Some(key) = &raw.bind else { return vec![(default_address(), None)] };
        let Some((list, at)) = value(Some(key)) else { return Vec::new() };
        if list.0.is_empty() {
            let hint = "bind: 127.0.0.1:9900, or a list with unix:/run/tidegate/admin.sock too";
            self.error(at, Diagnostic::new("no address").hint(hint));
        }
        let mut binds: Vec<(Address, Option<NodeId>)> = Vec::with_capacity(list.0.len());
        for (BindAddress(bind), at) in list.0.iter().filter_map(|bind| value(Some(bind))) {
            let ListenAddress::One(address) = bind else {
                let diagnostic = Diagnostic::new(format!("`{bind}` is a range of ports"));
                self.error(at, diagnostic.hint("the admin interface has one port for each address"));
                continue;
            };
            // Others are reported with those of listeners.
            let is_any_port = matches!(address, Address::Tcp(address) if address.port() == 0);
            match binds.iter().find(|(other, _)| is_any_port && other == address) {
                Some((_, Some(first))) => {
                    self.duplicate(at, *first, format!("`{address}` is given twice"), "remove one of them");
                }
                _ => binds.push((address.clone(), Some(at))),
            }
        }
        binds
    }

    fn socket_mode(&mut self, key: Option<&Located<FileMode>>) -> u32 {
        let Some((FileMode(mode), at)) = value(key) else { return DEFAULT_MODE };
        if mode & 0o002 != 0 {
            let diagnostic = Diagnostic::new("every user of this host may change the running instance");
            self.warning(at, diagnostic.hint("write \"0660\" for a group, or \"0600\" for the owner"));
        }
        *mode
    }

    /// As under a listener, without what belongs to other protocols than HTTP.
    fn admin_tls(&mut self, raw: &RawListenerTls, at: NodeId) -> Option<ListenerTls> {
        if let Some((RawStartTls::Postgres | RawStartTls::Mysql, at)) = value(raw.starttls.as_ref()) {
            let diagnostic = Diagnostic::new("the admin interface speaks HTTP, which has no request for TLS");
            self.error(at, diagnostic.hint("remove the key"));
        }
        if let (Some(Plaintext::Allow), Some(key)) = (copied(raw.plaintext.as_ref()), &raw.plaintext) {
            let diagnostic = Diagnostic::new("the admin interface takes no plain HTTP where it has TLS");
            self.error(key.at, diagnostic.hint("remove the key; a unix socket in `admin.bind` is plain"));
        }
        let tls = self.tls_of(raw, at)?;
        if let Some(key) = &raw.alpn
            && !tls.alpn.is_empty()
            && !tls.alpn.iter().any(|protocol| **protocol == *HTTP_1)
        {
            let diagnostic = Diagnostic::new(format!("`{HTTP_1}` is not in the list"));
            self.error(key.at, diagnostic.hint(format!("the admin interface speaks {HTTP_1} only: remove the key")));
        }
        Some(ListenerTls { starttls: None, plaintext: Plaintext::Refuse, ..tls })
    }
}
