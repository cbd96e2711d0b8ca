//! `tls` of listeners and of pools.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Checker, copied, value};
use crate::config::located::Located;
use crate::config::model::{
    Authorities, BackendAddress, BackendConfig, CertificateFiles, ClientAuth, ListenerTls, NameSource, Plaintext,
    PoolTls, StartTls, TlsVersion, UnknownSni, VerifiedClients, Verify,
};
use crate::config::raw::{
    RawCertificate, RawClientAuth, RawClientAuthMode, RawListener, RawListenerTls, RawPool, RawStartTls,
};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{FilePath, MinVersion, ProtocolName, ServerName, TrustedBy};
use crate::config::tree::NodeId;

const CERTIFICATE: &str = "for example: certificates: [{ cert: server.pem, key: server.key }]; a self-signed one for tests: \
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 -subj /CN=localhost \
-addext subjectAltName=DNS:localhost -keyout server.key -out server.pem";

/// ALPN protocol that PostgreSQL's clients require with `sslnegotiation=direct`.
const POSTGRESQL: &str = "postgresql";

/// Value of `server_name` for the client's SNI.
const CLIENTS_NAME: &str = "sni";

impl Checker<'_> {
    /// TLS of a listener; `None` if it is absent, or invalid, which is reported.
    pub(super) fn listener_tls(&mut self, listener: &RawListener, owner: NodeId) -> Option<ListenerTls> {
        if listener.tls.is_none() {
            self.empty_section(owner, "tls", "give `certificates`; without the key, connections are plain TCP");
        }
        let (raw, at) = value(listener.tls.as_ref())?;
        let tls = self.tls_of(raw, at);
        if let (Some(Plaintext::Allow), Some(key)) = (copied(raw.plaintext.as_ref()), &raw.plaintext) {
            let client_auth = tls.as_ref().and_then(|tls| tls.client_auth.as_ref());
            if client_auth.is_some_and(ClientAuth::is_required) {
                let diagnostic = Diagnostic::new("clients that do not request TLS bypass client authentication");
                self.warning(key.at, diagnostic.hint("`client_auth.mode: required` applies to TLS connections only"));
            }
            if raw.starttls.as_ref().is_none_or(|key| matches!(key.value, Some(RawStartTls::Off))) {
                let diagnostic = Diagnostic::new("`plaintext: allow` requires `starttls`");
                self.error(
                    key.at,
                    diagnostic.hint("add `starttls`, or remove this key; for plain TCP, use a listener without `tls`"),
                );
            }
        }
        if let (Some(tls), Some(key)) = (&tls, &raw.alpn)
            && tls.starttls == Some(StartTls::Postgres)
            && !tls.alpn.is_empty()
            && !tls.alpn.iter().any(|protocol| **protocol == *POSTGRESQL)
        {
            let diagnostic = Diagnostic::new(format!("`{POSTGRESQL}` is not in the list"));
            self.warning(key.at, diagnostic.hint("clients with sslnegotiation=direct require it and cannot connect"));
        }
        tls
    }

    /// The keys themselves; `None` if one is invalid, which is reported.
    pub(super) fn tls_of(&mut self, raw: &RawListenerTls, at: NodeId) -> Option<ListenerTls> {
        let certificates = self.certificates(raw, at);
        let alpn = self.protocols(raw.alpn.as_ref());
        let client_auth = value(raw.client_auth.as_ref()).and_then(|(auth, at)| self.client_auth(auth, at));
        let min_version = copied(raw.min_version.as_ref()).map_or(TlsVersion::V1_2, |MinVersion(version)| version);
        let max_version = copied(raw.max_version.as_ref()).map_or(TlsVersion::V1_3, |MinVersion(version)| version);
        if max_version < min_version
            && let Some(key) = &raw.max_version
        {
            let diagnostic = Diagnostic::new("max_version is older than min_version: no client can connect");
            self.error(key.at, diagnostic.hint("raise max_version, or lower min_version"));
        }
        Some(ListenerTls {
            certificates: certificates?,
            unknown_sni: copied(raw.unknown_sni.as_ref()).unwrap_or(UnknownSni::Default),
            min_version,
            max_version,
            alpn: alpn?,
            client_auth,
            starttls: self.starttls(raw.starttls.as_ref()),
            plaintext: copied(raw.plaintext.as_ref()).unwrap_or(Plaintext::Refuse),
            session_tickets: copied(raw.session_tickets.as_ref()).unwrap_or(true),
            session_cache: self.number(raw.session_cache.as_ref(), 0..=1_000_000, 0) as u32,
        })
    }

    /// TLS of a pool; `None` if it is absent, or invalid, which is reported.
    pub(super) fn pool_tls(&mut self, pool: &RawPool, owner: NodeId, backends: &[BackendConfig]) -> Option<PoolTls> {
        if pool.tls.is_none() {
            self.empty_section(
                owner,
                "tls",
                "write `tls: {}` for TLS with the defaults; without the key, connections are plain TCP",
            );
        }
        let (raw, at) = value(pool.tls.as_ref())?;
        let verify = copied(raw.verify.as_ref()).unwrap_or(Verify::Full);
        let ca = value(raw.ca.as_ref());
        if let Some((TrustedBy(Authorities::File(path)), at)) = ca {
            match verify {
                Verify::Full | Verify::Ca => self.authorities_file(path, at),
                Verify::Off => {
                    self.warning(at, Diagnostic::new("has no effect").hint("`verify: off` verifies no certificate"));
                }
            }
        }
        if let (Verify::Off, Some(key)) = (verify, &raw.verify) {
            let diagnostic =
                Diagnostic::new("backend certificates are not verified, which permits man-in-the-middle attacks");
            self.warning(
                key.at,
                diagnostic.hint("set `ca` to the CA that signed them; `verify: ca` skips only the name"),
            );
        }
        let unix = backends.iter().find(|backend| matches!(backend.address, BackendAddress::Unix(_)));
        if let (Verify::Full, Some(unix), None) = (verify, unix, &raw.server_name) {
            let diagnostic =
                Diagnostic::new(format!("backend `{}` is a unix socket: no name to verify", shown(&unix.name)));
            self.error(at, diagnostic.hint("set server_name to the name in its certificate"));
        }
        let client_certificate = value(raw.client_certificate.as_ref());
        let alpn = self.protocols(raw.alpn.as_ref());
        Some(PoolTls {
            verify,
            ca: ca.map_or(Authorities::System, |(TrustedBy(ca), _)| ca.clone()),
            server_name: match value(raw.server_name.as_ref()) {
                None => NameSource::Backend,
                Some((ServerName(name), _)) if name == CLIENTS_NAME => NameSource::Client,
                Some((ServerName(name), _)) => NameSource::Fixed(name.as_str().into()),
            },
            client_certificate: client_certificate.and_then(|(raw, at)| self.certificate(raw, at)),
            starttls: self.starttls(raw.starttls.as_ref()),
            resumption: copied(raw.resumption.as_ref()).unwrap_or(true),
            alpn: alpn?,
        })
    }

    /// `None` if there is none, or one is invalid, which is reported.
    fn certificates(&mut self, raw: &RawListenerTls, owner: NodeId) -> Option<Vec<CertificateFiles>> {
        let raw = self.elements(raw.certificates.as_ref(), "certificates", Some(owner), CERTIFICATE);
        let mut first: HashMap<CertificateFiles, NodeId> = HashMap::new();
        let mut certificates = Vec::with_capacity(raw.len());
        for certificate in raw {
            let Some((raw, at)) = value(Some(certificate)) else { continue };
            let Some(files) = self.certificate(raw, at) else { continue };
            match first.get(&files) {
                Some(first) => self.duplicate(at, *first, "duplicate certificate", "remove one of them"),
                None => drop(first.insert(files.clone(), at)),
            }
            certificates.push(files);
        }
        (!raw.is_empty() && certificates.len() == raw.len()).then_some(certificates)
    }

    fn certificate(&mut self, raw: &RawCertificate, at: NodeId) -> Option<CertificateFiles> {
        let hint = "cert: PEM file of the certificate chain, leaf certificate first";
        let cert = self.required(raw.cert.as_ref(), "cert", at, hint);
        let hint = "key: PEM file of the private key; may be the same file as cert";
        let key = self.required(raw.key.as_ref(), "key", at, hint);
        let ((FilePath(cert), cert_at), (FilePath(key), key_at)) = cert.zip(key)?;
        let files = CertificateFiles { cert: cert.clone(), key: key.clone().into() };
        self.certificate_files(&files, cert_at, key_at);
        Some(files)
    }

    /// `None` if it is off.
    fn client_auth(&mut self, raw: &RawClientAuth, at: NodeId) -> Option<ClientAuth> {
        let crl = value(raw.crl.as_ref());
        let required = match copied(raw.mode.as_ref()).unwrap_or(RawClientAuthMode::Off) {
            RawClientAuthMode::Off => {
                self.no_client_auth(raw, at);
                return None;
            }
            RawClientAuthMode::Request => {
                for file in [raw.ca.as_ref(), raw.crl.as_ref()].into_iter().flatten() {
                    let diagnostic = Diagnostic::new("has no effect");
                    self.warning(
                        file.at,
                        diagnostic.hint("`mode: request` verifies no certificate: use optional or required"),
                    );
                }
                return Some(ClientAuth::Request);
            }
            RawClientAuthMode::Optional => false,
            RawClientAuthMode::Required => true,
        };
        let hint = "ca: PEM file of the CAs that sign client certificates";
        let ca = self.required(raw.ca.as_ref(), "ca", at, hint);
        if let Some((FilePath(ca), at)) = ca {
            self.authorities_file(ca, at);
        }
        if let Some((FilePath(crl), at)) = crl {
            self.revocations_file(crl, at);
        }
        let (FilePath(ca), _) = ca?;
        let crl = crl.map(|(FilePath(crl), _)| crl.clone());
        Some(ClientAuth::Verify(VerifiedClients { required, ca: ca.clone(), crl }))
    }

    /// Requires `mode` beside CAs: without it, the author expects clients to be checked. An explicit `off` is a warning.
    fn no_client_auth(&mut self, raw: &RawClientAuth, at: NodeId) {
        let files = [raw.ca.as_ref(), raw.crl.as_ref()];
        match &raw.mode {
            None if files.iter().any(Option::is_some) && !self.is_typo_of(at, "mode") => {
                let diagnostic = Diagnostic::new("`mode` is missing: client certificates would not be requested");
                self.error(at, diagnostic.hint("write mode: required, or mode: optional"));
            }
            Some(Located { value: Some(_), .. }) => {
                for file in files.into_iter().flatten() {
                    let diagnostic = Diagnostic::new("has no effect");
                    self.warning(file.at, diagnostic.hint("`mode: off` requests no client certificates"));
                }
            }
            _ => {}
        }
    }

    fn starttls(&mut self, key: Option<&Located<RawStartTls>>) -> Option<StartTls> {
        match copied(key)? {
            RawStartTls::Off => None,
            RawStartTls::Postgres => Some(StartTls::Postgres),
            RawStartTls::Mysql => Some(StartTls::Mysql),
        }
    }

    /// ALPN protocol names; `None` if one is invalid, which is reported.
    pub(super) fn protocols(&mut self, key: Option<&Located<Vec<Located<ProtocolName>>>>) -> Option<Vec<Arc<str>>> {
        let Some(list) = key else {
            return Some(Vec::new());
        };
        let elements = list.value.as_ref()?;
        let names = self.distinct(elements)?;
        Some(names.into_iter().map(|(ProtocolName(name), _)| name.as_str().into()).collect())
    }
}
