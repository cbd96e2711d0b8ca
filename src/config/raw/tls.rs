//! `tls` of listeners and pools, as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::located::{Field, Located};
use crate::config::model::{Plaintext, UnknownSni, Verify};
use crate::config::scalars::{FilePath, MinVersion, ProtocolName, ServerName, TrustedBy};
use crate::config::scalars_serde::Int;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = { "required": ["plaintext"], "properties": { "plaintext": { "const": "allow" } } },
    "then" = { "required": ["starttls"], "properties": { "starttls": { "enum": ["postgres", "mysql"] } } },
))]
pub(crate) struct RawListenerTls {
    /// Selected by SNI; the first one is the default.
    #[schemars(required, length(min = 1))]
    pub(crate) certificates: Field<Vec<Located<RawCertificate>>>,
    /// Clients whose SNI matches no certificate, or that send none.
    #[schemars(extend("default" = "default"))]
    pub(crate) unknown_sni: Field<UnknownSni>,
    /// Minimum TLS version.
    #[schemars(extend("default" = "1.2"))]
    pub(crate) min_version: Field<MinVersion>,
    /// Maximum TLS version.
    #[schemars(extend("default" = "1.3"))]
    pub(crate) max_version: Field<MinVersion>,
    /// Application protocols in order of preference; empty for no ALPN. With protocol: http the default is [h2, http/1.1].
    #[schemars(extend("default" = []))]
    pub(crate) alpn: Field<Vec<Located<ProtocolName>>>,
    /// Mutual TLS (mTLS): client certificates.
    pub(crate) client_auth: Field<RawClientAuth>,
    /// Accept the protocol's own TLS request, then TLS.
    #[schemars(extend("default" = "off"))]
    pub(crate) starttls: Field<RawStartTls>,
    /// With starttls: clients that do not request TLS.
    #[schemars(extend("default" = "refuse"))]
    pub(crate) plaintext: Field<Plaintext>,
    /// TLS session resumption by tickets.
    #[schemars(extend("default" = true))]
    pub(crate) session_tickets: Field<bool>,
    /// Sessions kept in memory, for clients that use no tickets; 0 is none.
    #[schemars(extend("default" = 0), range(min = 0, max = 1_000_000))]
    pub(crate) session_cache: Field<Int>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCertificate {
    /// PEM file of the certificate chain, leaf certificate first.
    #[schemars(required)]
    pub(crate) cert: Field<FilePath>,
    /// PEM file of the private key, unencrypted.
    #[schemars(required)]
    pub(crate) key: Field<FilePath>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = { "anyOf": [
        { "required": ["mode"], "properties": { "mode": { "enum": ["optional", "required"] } } },
        { "required": ["ca"], "properties": { "ca": { "type": "string" } } },
        { "required": ["crl"], "properties": { "crl": { "type": "string" } } },
    ] },
    "then" = {
        "required": ["mode"],
        "if": { "properties": { "mode": { "enum": ["optional", "required"] } } },
        "then": { "required": ["ca"], "properties": { "ca": { "type": "string" } } },
    },
))]
pub(crate) struct RawClientAuth {
    /// Whether clients must present a certificate.
    #[schemars(extend("default" = "off"))]
    pub(crate) mode: Field<RawClientAuthMode>,
    /// PEM file of the CAs that sign client certificates; required with optional and required.
    pub(crate) ca: Field<FilePath>,
    /// PEM file of certificate revocation lists.
    pub(crate) crl: Field<FilePath>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawClientAuthMode {
    /// Not requested.
    Off,
    /// Requested and not verified: send_proxy: v2 tells the backend so.
    Request,
    /// Requested; clients without one are accepted, an invalid one is rejected.
    Optional,
    /// A valid certificate is required.
    Required,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawStartTls {
    /// TLS from the first byte.
    Off,
    /// PostgreSQL's SSLRequest.
    Postgres,
    /// MySQL's SSLRequest, after the server's greeting.
    Mysql,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPoolTls {
    /// Verification of the backends' certificates.
    #[schemars(extend("default" = "full"))]
    pub(crate) verify: Field<Verify>,
    /// Trusted CAs: system, or a PEM file.
    #[schemars(extend("default" = "system"))]
    pub(crate) ca: Field<TrustedBy>,
    /// Name to verify and to send as SNI; default: the backend's host. sni: the client's SNI.
    pub(crate) server_name: Field<ServerName>,
    /// Application protocols to offer, in order of preference.
    #[schemars(extend("default" = []))]
    pub(crate) alpn: Field<Vec<Located<ProtocolName>>>,
    /// For backends that require mTLS.
    pub(crate) client_certificate: Field<RawCertificate>,
    /// Send the protocol's own TLS request first.
    #[schemars(extend("default" = "off"))]
    pub(crate) starttls: Field<RawStartTls>,
    /// TLS session resumption.
    #[schemars(extend("default" = true))]
    pub(crate) resumption: Field<bool>,
}
