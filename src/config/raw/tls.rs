//! `tls` of listeners and of pools as typed.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::located::{Field, Located};
use crate::config::model::{Plaintext, UnknownSni, Verify};
use crate::config::scalars::{FilePath, MinVersion, ProtocolName, ServerName, TrustedBy};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = { "required": ["plaintext"], "properties": { "plaintext": { "const": "allow" } } },
    "then" = { "required": ["starttls"], "properties": { "starttls": { "const": "postgres" } } },
))]
pub(crate) struct RawListenerTls {
    /// The one whose names fit the SNI is used, the first one otherwise.
    #[schemars(required, length(min = 1))]
    pub(crate) certificates: Field<Vec<Located<RawCertificate>>>,
    /// What a client gets that names a server which no certificate fits, or names none.
    #[schemars(extend("default" = "default"))]
    pub(crate) unknown_sni: Field<UnknownSni>,
    /// The oldest version of TLS that is spoken.
    #[schemars(extend("default" = "1.2"))]
    pub(crate) min_version: Field<MinVersion>,
    /// Application protocols, the preferred one first; empty: none is negotiated.
    #[schemars(extend("default" = []))]
    pub(crate) alpn: Field<Vec<Located<ProtocolName>>>,
    /// Certificates of clients.
    pub(crate) client_auth: Field<RawClientAuth>,
    /// The protocol's own TLS request is answered first.
    #[schemars(extend("default" = "off"))]
    pub(crate) starttls: Field<RawStartTls>,
    /// With starttls: clients that do not ask for TLS.
    #[schemars(extend("default" = "refuse"))]
    pub(crate) plaintext: Field<Plaintext>,
    /// Clients get tickets by which they resume.
    #[schemars(extend("default" = true))]
    pub(crate) session_tickets: Field<bool>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCertificate {
    /// PEM file of the chain, the own certificate first.
    #[schemars(required)]
    pub(crate) cert: Field<FilePath>,
    /// PEM file of the private key, not encrypted.
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
    /// Whether clients are asked for a certificate.
    #[schemars(extend("default" = "off"))]
    pub(crate) mode: Field<RawClientAuthMode>,
    /// PEM file of the authorities that may have signed it; needed unless mode is off.
    pub(crate) ca: Field<FilePath>,
    /// PEM file of revocation lists.
    pub(crate) crl: Field<FilePath>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawClientAuthMode {
    /// They are not asked.
    Off,
    /// They may show none; one that is shown must be good.
    Optional,
    /// They must show one.
    Required,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawStartTls {
    /// TLS from the first byte.
    Off,
    /// PostgreSQL's SSLRequest.
    Postgres,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPoolTls {
    /// What is verified of a backend's certificate.
    #[schemars(extend("default" = "full"))]
    pub(crate) verify: Field<Verify>,
    /// Who may have signed it: system, or a PEM file.
    #[schemars(extend("default" = "system"))]
    pub(crate) ca: Field<TrustedBy>,
    /// The name it must be for, and is asked for; sni: what the client has asked for. By default the backend's host.
    pub(crate) server_name: Field<ServerName>,
    /// Application protocols that are offered.
    #[schemars(extend("default" = []))]
    pub(crate) alpn: Field<Vec<Located<ProtocolName>>>,
    /// What backends that ask for a certificate get.
    pub(crate) client_certificate: Field<RawCertificate>,
    /// The protocol's own TLS request is sent first.
    #[schemars(extend("default" = "off"))]
    pub(crate) starttls: Field<RawStartTls>,
}
